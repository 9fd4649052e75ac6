"""Loading and splitting data sets, and one clear line for each kind of bad data."""

import gzip
import http.client
import io
import struct
import zipfile

import numpy as np
import pytest
from requirements import need

from codesign.basics.errors import InputError, UnsupportedError
from codesign.config import DataConfig
from codesign.data import DataWarning, describe, download, load_dataset


def idx(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder, zipped=False, **changes):
    random = np.random.default_rng(0)
    arrays = {
        "train-images-idx3-ubyte": random.integers(0, 256, (60, 4, 5), dtype=np.uint8),
        "train-labels-idx1-ubyte": (np.arange(60) % 3).astype(np.uint8),
        "t10k-images-idx3-ubyte": random.integers(0, 256, (12, 4, 5), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": (np.arange(12) % 3).astype(np.uint8),
    }
    arrays.update({name.replace("_", "-"): value for name, value in changes.items()})
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        content = array if isinstance(array, bytes) else idx(array)
        (folder / (name + (".gz" if zipped else ""))).write_bytes(gzip.compress(content) if zipped else content)
    return arrays


def npz(path, **arrays):
    np.savez(path, **arrays)
    return DataConfig(set="npz", path=str(path), validation=0.2)


def event_arrays(n=40):
    counts = np.arange(n) % 5
    total = int(counts.sum())
    return {
        "times": np.linspace(0, 50, total),
        "units": np.arange(total) % 7,
        "offsets": np.concatenate(([0], np.cumsum(counts))),
        "y": np.arange(n) % 4,
    }


def test_digits_are_split_into_three_disjoint_stratified_sets():
    dataset = load_dataset(DataConfig())
    parts = [dataset.train, dataset.validation, dataset.test]
    assert [len(part) for part in parts] == [1287, 150, 360]
    indices = np.concatenate([part.index for part in parts])
    assert np.array_equal(np.sort(indices), np.arange(1797))
    for part in parts:
        shares = np.bincount(part.labels, minlength=10) / len(part)
        assert abs(shares - 0.1).max() < 0.02
    assert dataset.sample_shape == (8, 8)
    assert (dataset.low, dataset.high) == (0, 16)
    assert dataset.test.x is not None and dataset.test.x.max() == 16


def test_the_split_depends_on_its_seed_alone():
    first, again = load_dataset(DataConfig()), load_dataset(DataConfig())
    other = load_dataset(DataConfig(split_seed=1))
    assert np.array_equal(first.test.index, again.test.index)
    assert not np.array_equal(first.test.index, other.test.index)
    assert first.hash == other.hash and len(first.hash) == 64
    limited = load_dataset(DataConfig(train_limit=100, test_limit=20))
    assert np.array_equal(limited.test.index, first.test.index[:20])
    assert np.isin(limited.train.index, first.train.index).all() and len(limited.train) == 100


def test_a_zipped_idx_file_that_unpacks_beyond_reason_is_refused(tmp_path, monkeypatch):
    write_idx(tmp_path, zipped=True, train_images_idx3_ubyte=np.zeros((60, 40, 50), np.uint8))
    monkeypatch.setattr("codesign.data.idx.MAX_PACKED_BYTES", 100_000)
    with pytest.raises(InputError, match=r"unpacks \d+ bytes into 120000; unpack it with gunzip"):
        load_dataset(DataConfig(set="idx", path=str(tmp_path), validation=12))


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_load_plain_and_zipped(tmp_path, zipped):
    arrays = write_idx(tmp_path, zipped)
    dataset = load_dataset(DataConfig(set="idx", path=str(tmp_path), validation=12))
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (48, 12, 12)
    assert dataset.classes == ("0", "1", "2")
    assert np.array_equal(dataset.test.x, arrays["t10k-images-idx3-ubyte"])
    assert np.array_equal(dataset.train.x, arrays["train-images-idx3-ubyte"][dataset.train.index])


def test_unknown_checksums_of_mnist_warn_but_load(tmp_path):
    write_idx(tmp_path, zipped=True)
    with (
        pytest.warns(DataWarning, match="not the published MNIST file"),
        pytest.warns(DataWarning, match="no training samples of class '3', '4', '5', '6', '7' and 2 more"),
    ):
        dataset = load_dataset(DataConfig(set="mnist", path=str(tmp_path), validation=12))
    assert dataset.n_classes == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images_idx3_ubyte": np.zeros((60, 0, 5), np.uint8)}, r"train images have the shape \(60, 0, 5\)"),
        ({"train_images_idx3_ubyte": np.zeros((0, 4, 5), np.uint8)}, r"train images have the shape \(0, 4, 5\)"),
        ({"t10k_images_idx3_ubyte": np.zeros((0, 0, 0), np.uint8)}, r"t10k images have the shape \(0, 0, 0\)"),
        ({"train_labels_idx1_ubyte": np.zeros(60, np.uint8)}, r"1 classes, expected 2\.\.4096"),
        ({"train_labels_idx1_ubyte": np.zeros(59, np.uint8)}, "60 train images but 59 labels"),
        ({"t10k_images_idx3_ubyte": np.zeros((12, 4, 6), np.uint8)}, r"training images are \(4, 5\), test images"),
        ({"t10k_labels_idx1_ubyte": np.full(12, 3, np.uint8)}, "label 3 is outside 0..2"),
        ({"train_images_idx3_ubyte": np.zeros((60, 20), np.uint8)}, "2 axes, expected 3"),
        ({"train_images_idx3_ubyte": b"\0\0\x08\x03" + struct.pack(">3I", 60, 4, 5) + bytes(99)}, "has only 99"),
        ({"train_images_idx3_ubyte": b"\0\0\x08\x03" + struct.pack(">3I", 60, 4, 5) + bytes(1201)}, "has more"),
        ({"train_images_idx3_ubyte": b"\0\0\x08\x03" + struct.pack(">3I", *[1 << 31] * 3)}, "is larger than"),
        ({"train_images_idx3_ubyte": b"\0\0\x08\x03\0\0"}, "truncated in its header"),
        ({"train_images_idx3_ubyte": b"\0\0\x0d\x03" + bytes(12)}, "not an IDX file of unsigned bytes"),
        ({"train_images_idx3_ubyte": gzip.compress(bytes(5000))[:-9]}, "truncated or damaged|not an IDX"),
    ],
)
def test_bad_idx_files(tmp_path, changes, message):
    write_idx(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        load_dataset(DataConfig(set="idx", path=str(tmp_path), validation=12))


def test_a_cut_gzip_file_is_named(tmp_path):
    write_idx(tmp_path, zipped=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz: truncated or damaged"):
        load_dataset(DataConfig(set="idx", path=str(tmp_path), validation=12))


def test_a_missing_idx_file_is_named(tmp_path):
    write_idx(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError, match="no t10k-labels-idx1-ubyte or"):
        load_dataset(DataConfig(set="idx", path=str(tmp_path), validation=12))


def test_own_arrays_with_named_splits_and_classes(tmp_path):
    split = np.array(["train"] * 20 + ["validation"] * 6 + ["test"] * 4)
    config = npz(
        tmp_path / "own.npz",
        x=np.linspace(-2, 2, 30 * 6).reshape(30, 6),
        y=np.arange(30) % 2,
        split=split,
        range=np.array([-2.0, 2.0]),
        classes=np.array(["left", "right"]),
    )
    dataset = load_dataset(DataConfig(set="npz", path=config.path))
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (20, 6, 4)
    assert dataset.classes == ("left", "right")
    assert (dataset.low, dataset.high) == (-2, 2)


def test_names_and_splits_may_be_bytes(tmp_path):
    split = np.array([b"train", b"validation", b"test"]).repeat(10)
    classes = np.array(["caf\N{LATIN SMALL LETTER E WITH ACUTE}".encode(), b"tea"])
    np.savez(tmp_path / "own.npz", x=np.zeros((30, 2)), y=np.arange(30) % 2, split=split, classes=classes)
    dataset = load_dataset(DataConfig(set="npz", path=str(tmp_path / "own.npz")))
    assert dataset.classes == ("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "tea")
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [10] * 3


def test_own_arrays_without_splits_are_split_by_class(tmp_path):
    dataset = load_dataset(npz(tmp_path / "own.npz", x=np.zeros((50, 3), np.uint8), y=np.arange(50) % 5))
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (32, 8, 10)
    assert np.bincount(dataset.test.labels).tolist() == [2] * 5
    assert (dataset.low, dataset.high) == (0, 255)


# Code points that no character has.
NO_TEXT = np.full(40, 0x7FFFFFFF, np.uint32).view("<U1")
GOOD = {"x": np.zeros((40, 3), np.float32), "y": np.arange(40) % 4}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({**GOOD, "x": np.full((40, 3), np.nan)}, "x holds NaN or infinite"),
        ({**GOOD, "x": np.full((40, 3), "a")}, "expected real numbers"),
        ({**GOOD, "x": np.zeros(40)}, "expected \\(samples, ...\\)"),
        ({**GOOD, "x": np.full((40, 3), 7.0)}, "x spans 7..7, beyond its scale 0..1; set data.range"),
        ({**GOOD, "range": np.array([1.0, 1.0])}, "expected \\[low, high\\] with low < high"),
        ({**GOOD, "range": np.array([-1e308, 1e308])}, "range is .* and a finite difference"),
        ({**GOOD, "range": np.array([1 << 60, (1 << 60) + 1])}, "range is .*, expected"),
        ({**GOOD, "range": np.arange(3)}, "range holds 3 numbers"),
        ({**GOOD, "y": np.arange(39)}, "40 samples in x but 39 labels"),
        ({**GOOD, "y": np.arange(40) / 2}, "y is float64"),
        ({**GOOD, "y": np.zeros(40, int)}, r"1 classes, expected 2\.\.4096"),
        ({**GOOD, "y": np.arange(40) - 1}, "label -1 is outside"),
        ({**GOOD, "classes": np.array(["a", "b"])}, "label 3 is outside 0..1"),
        ({**GOOD, "split": np.full(40, 3)}, "split must hold 0"),
        ({**GOOD, "split": np.full((40, 1), "train")}, "split must hold 0"),
        ({**GOOD, "split": np.array("train")}, "split must hold 0"),
        ({**GOOD, "split": np.full(40, b"tset")}, "split holds 'tset'"),
        ({**GOOD, "split": NO_TEXT}, "split holds text that is not Unicode"),
        ({**GOOD, "split": np.full(40, b"\xff")}, "split holds text that is not Unicode"),
        ({**GOOD, "classes": NO_TEXT}, "classes holds text that is not Unicode"),
        ({**GOOD, "classes": np.array(["\ud800", "b", "c", "d"])}, "classes holds text that is not Unicode"),
        ({**GOOD, "classes": np.array(["a", "b", "c", "a"])}, "classes holds 'a' twice"),
        ({**GOOD, "classes": np.arange(4097)}, r"4097 classes, expected 2\.\.4096"),
        ({**GOOD, "y": np.arange(40) * 200}, r"7801 classes, expected 2\.\.4096"),
        ({**event_arrays(), "x": GOOD["x"]}, "holds both an array 'x' and events \\('times'\\)"),
        ({**event_arrays(), "times_ms": np.zeros(80)}, "holds both 'times' and 'times_ms'"),
        ({**GOOD, "split": np.array(["train"] * 39 + ["tset"])}, "split holds 'tset'"),
        ({**GOOD, "is_test": np.zeros(3, bool)}, "is_test is bool"),
        ({"x": GOOD["x"]}, "no array 'y'"),
        ({"data": GOOD["x"]}, "neither an array 'x' nor 'times'"),
        ({**event_arrays(), "times": np.full(80, np.inf)}, "times holds NaN or infinite"),
        ({**event_arrays(), "times": np.full(80, -1.0)}, "a time is negative"),
        ({**event_arrays(), "times": np.zeros(3)}, "3 times but 80 units"),
        ({**event_arrays(), "units": np.zeros(80)}, "units is float64 .*expected integers"),
        ({**event_arrays(), "units": np.full(80, -2)}, "unit -2 is negative"),
        ({**event_arrays(), "n_units": np.array(5)}, "unit 6 is outside 0..4"),
        ({**event_arrays(), "offsets": np.arange(40)}, "40 offsets, expected 41"),
        ({**event_arrays(), "offsets": np.arange(41)}, "offsets do not rise"),
    ],
)
def test_bad_npz_files(tmp_path, arrays, message):
    config = npz(tmp_path / "own.npz", **arrays)
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(config)
    assert "\n" not in str(caught.value)


def test_object_arrays_are_never_unpickled(tmp_path):
    np.savez(tmp_path / "own.npz", x=np.array([{}, {}], dtype=object), y=np.arange(2))
    with pytest.raises(InputError, match="'x' holds Python objects"):
        load_dataset(DataConfig(set="npz", path=str(tmp_path / "own.npz")))


def test_truncated_and_foreign_npz_files(tmp_path):
    path = tmp_path / "own.npz"
    config = npz(path, **GOOD)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"not a zip file", b""):
        path.write_bytes(content)
        with pytest.raises(InputError, match="truncated or not an npz file"):
            load_dataset(config)


def test_a_claimed_size_is_checked_before_it_is_allocated(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40, 1 << 10)})
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    with pytest.raises(InputError, match="takes the file beyond"):
        load_dataset(DataConfig(set="npz", path=str(tmp_path / "own.npz")))


def test_missing_data_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("CODESIGN_DATA", str(tmp_path))
    monkeypatch.setattr("codesign.data.catalogue.cache_folder", lambda: tmp_path / "cache")
    with pytest.raises(InputError, match=r"`codesign data get mnist` downloads it"):
        load_dataset(DataConfig(set="mnist"))
    with pytest.raises(InputError, match=r"`codesign data get fsdd-spikes` says where it comes from"):
        load_dataset(DataConfig(set="fsdd-spikes"))
    with pytest.raises(InputError, match=r"needs data.path"):
        load_dataset(DataConfig(set="npz"))
    with pytest.raises(InputError, match="no such file or folder"):
        load_dataset(DataConfig(set="npz", path=str(tmp_path / "nothing.npz")))
    found = {entry["name"]: entry["found"] for entry in describe()}
    assert found["digits"] == "embedded" and found["mnist"] is None


def test_sets_with_official_tests_refuse_a_test_fraction(tmp_path):
    write_idx(tmp_path)
    with pytest.raises(InputError, match="has an official test set"):
        load_dataset(DataConfig(set="idx", path=str(tmp_path), validation=12, test=0.2))


def test_a_split_that_leaves_a_class_out_is_refused():
    with pytest.raises(InputError, match=r"data.validation = 5: 5 of 1437 samples for 10 classes"):
        load_dataset(DataConfig(validation=5))


@pytest.mark.parametrize("limit", [20, 1270, 1277, 1278, 1280, 1286, 1287, 9999])
def test_any_number_of_training_samples_can_be_left_out(limit):
    whole, limited = load_dataset(DataConfig()), load_dataset(DataConfig(train_limit=limit))
    assert np.array_equal(limited.test.index, whole.test.index)
    assert np.array_equal(limited.validation.index, whole.validation.index)
    index = limited.train.index
    assert len(index) == min(limit, 1287) and (np.diff(index) > 0).all() and np.isin(index, whole.train.index).all()
    share = len(index) / 1287
    assert abs(np.bincount(limited.train.labels) - share * np.bincount(whole.train.labels)).max() < 2


def test_a_limit_below_the_number_of_classes_is_refused():
    with pytest.raises(InputError, match=r"data\.train_limit = 9: 9 of 1287 samples for 10 classes"):
        load_dataset(DataConfig(train_limit=9))


def test_a_file_without_test_samples_may_be_told_how_many(tmp_path):
    split = np.array(["train", "train", "train", "validation"] * 20)
    path = str(tmp_path / "own.npz")
    np.savez(path, x=np.zeros((80, 3), np.uint8), y=np.arange(80) // 4 % 2, split=split)
    for options, sizes in (({}, (48, 20, 12)), ({"test": 0.5}, (30, 20, 30)), ({"test": 4}, (56, 20, 4))):
        dataset = load_dataset(DataConfig(set="npz", path=path, **options))
        assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == sizes


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"split": np.full(40, 2)}, "own.npz: no training samples"),
        ({"is_test": np.ones(40, bool)}, "own.npz: no training samples"),
        ({"y": np.arange(40)}, r"data\.test \(by default 0\.2\): 8 of 40 samples for 40 classes"),
    ],
)
def test_what_cannot_be_split_is_said_as_it_is(tmp_path, arrays, message):
    config = npz(tmp_path / "own.npz", **{**GOOD, **arrays})
    with pytest.raises(InputError, match=message):
        load_dataset(config)


def test_sets_that_cannot_be_downloaded_say_where_they_come_from():
    with pytest.raises(UnsupportedError, match="MIT-BIH Arrhythmia Database"):
        download("mitbih-beats")
    with pytest.raises(UnsupportedError, match="nothing to download"):
        download("digits")
    with pytest.raises(InputError, match="no data set 'emnist'"):
        download("emnist")


@pytest.mark.parametrize("failure", [OSError("no route"), http.client.IncompleteRead(b"")])
def test_downloads_are_checked_and_kept(tmp_path, monkeypatch, failure):
    contents = {"a.gz": b"first", "b.gz": b"second"}
    import hashlib

    md5 = {name: hashlib.md5(content, usedforsecurity=False).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr("codesign.data.catalogue.MNIST_MD5", md5)
    monkeypatch.setattr("codesign.data.catalogue.cache_folder", lambda: tmp_path)
    asked = []

    def opened(url, timeout):
        asked.append(url)
        if len(asked) == 1:
            raise failure
        return io.BytesIO(contents[url.rsplit("/", 1)[1]])

    monkeypatch.setattr("urllib.request.urlopen", opened)
    steps = []
    folder = download("mnist", lambda done, total, text: steps.append((done, total)))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == contents
    assert steps == [(0, 2), (1, 2), (2, 2)]
    assert len(asked) == 3
    download("mnist")
    assert len(asked) == 3


def test_a_damaged_download_is_refused(tmp_path, monkeypatch):
    from codesign.basics.errors import ToolError

    monkeypatch.setattr("codesign.data.catalogue.cache_folder", lambda: tmp_path)
    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: io.BytesIO(b"<html>"))
    with pytest.raises(ToolError, match="not the published file"):
        download("mnist")
    assert not list(tmp_path.rglob("*.gz"))


def test_event_sets_keep_each_samples_events(tmp_path):
    arrays = event_arrays()
    is_test = np.arange(40) >= 32
    dataset = load_dataset(npz(tmp_path / "own.npz", **arrays, is_test=is_test))
    assert dataset.has_events and dataset.n_units == 7
    assert dataset.test.index.tolist() == list(range(32, 40))
    events = dataset.test.events
    assert events is not None
    for row, sample in enumerate(dataset.test.index):
        whole = slice(arrays["offsets"][sample], arrays["offsets"][sample + 1])
        part = slice(events.offsets[row], events.offsets[row + 1])
        assert np.allclose(events.times[part], arrays["times"][whole])
        assert np.array_equal(events.units[part], arrays["units"][whole])


def real(name: str):
    need("data", name)
    return load_dataset(DataConfig(set=name, **({"validation": 5000} if name == "mnist" else {})))


def test_mnist_is_the_official_set():
    dataset = real("mnist")
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (55_000, 5_000, 10_000)
    assert dataset.sample_shape == (28, 28) and dataset.n_classes == 10


def test_spoken_digits_have_the_official_test_samples():
    dataset = real("fsdd-spikes")
    assert len(dataset.test) == 300 and dataset.n_units == 64
    assert len(dataset.train) + len(dataset.validation) == 2_700


def test_heart_beats_are_split_by_patients():
    dataset = real("mitbih-beats")
    assert dataset.classes == ("N", "S", "V", "F")
    assert len(dataset.test) == 49_680
    assert len(dataset.train) + len(dataset.validation) == 50_981
    for part in (dataset.train, dataset.validation, dataset.test):
        assert np.bincount(part.labels, minlength=4).min() > 0


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"data": {"coding": "rate", "input_bits": 4}}, "input_bits belongs to coding = 'current', not 'rate'"),
        ({"data": {"coding": "current", "step_ms": 1.0}}, "step_ms belongs to coding = 'events', not 'current'"),
        ({"data": {"coding": "events", "delta": 0.1}}, "delta belongs to coding = 'delta', not 'events'"),
        (
            {"data": {"validation": 10.7}},
            "validation = 10.7 is neither a whole number of samples nor a fraction below 1",
        ),
        ({"data": {"test": 1.5}}, "test = 1.5 is neither a whole number of samples nor a fraction below 1"),
        ({"data": {"split_seed": 1 << 32}}, "split_seed"),
        ({"data": {"coding": "rate", "encoder_seed": 1 << 64}}, "encoder_seed"),
        ({"data": {"path": "x"}}, "set 'digits' is installed with scikit-learn"),
        ({"data": {"coding": "delta", "delta": []}}, "an empty list gives no sources"),
        ({"train": {"rewiring": {"preset": "dense", "scope": "neuron"}}}, "scope has no meaning with preset = 'dense'"),
        ({"train": {"rewiring": {"preset": "snip"}}}, "'static' or 'dense'"),
    ],
)
def test_options_that_would_be_ignored_are_refused(section, message):
    from codesign.config import parse_config

    with pytest.raises(InputError, match=message) as caught:
        parse_config(section)
    assert "\n" not in str(caught.value)
