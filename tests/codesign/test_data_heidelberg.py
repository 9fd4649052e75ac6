"""SHD and SSC from small HDF5 files of the published form."""

import h5py
import numpy as np
import pytest

from codesign.basics.errors import InputError, UnsupportedError
from codesign.config import DataConfig
from codesign.data import DataWarning, load_dataset
from codesign.data.encoders import encode, n_sources


def rows(lists, dtype):
    array = np.empty(len(lists), object)
    for index, values in enumerate(lists):
        array[index] = np.asarray(values, dtype)
    return array


def write(path, n=60, classes=20, seed=0, keys=None, **changes):
    """A file of ``n`` samples of 0 to 4 spikes; ``changes`` replace its data sets, None leaves one out."""
    random = np.random.default_rng(seed)
    times = [np.sort(random.random(index % 5)) for index in range(n)]
    units = [random.integers(0, 700, index % 5) for index in range(n)]
    content = {"times": times, "units": units, "labels": np.arange(n) % classes, **changes}
    with h5py.File(path, "w") as file:
        for name, dtype in (("times", np.float16), ("units", np.uint16)):
            if content[name] is not None:
                values = content[name]
                if isinstance(values, list):
                    vlen = h5py.vlen_dtype(np.asarray(values[0]).dtype if changes.get(name) else dtype)
                    file.create_dataset(f"spikes/{name}", data=rows(values, vlen.metadata["vlen"]), dtype=vlen)
                else:
                    file.create_dataset(f"spikes/{name}", data=values)
        if content["labels"] is not None:
            file.create_dataset("labels", data=content["labels"])
        if keys:
            file.create_dataset("extra/keys", data=np.array(keys, "S"))
    return content


def shd(folder, **changes):
    write(folder / "shd_train.h5", 200, seed=1)
    return write(folder / "shd_test.h5", seed=2, **changes)


def config(folder, name="shd", **options):
    return DataConfig(set=name, path=str(folder), coding="events", step_ms=10, **options)


def test_digits_are_read_sample_by_sample(tmp_path):
    content = shd(tmp_path, keys=[f"word{index}" for index in range(20)])
    news = []
    dataset = load_dataset(config(tmp_path, validation=40), lambda *step: news.append(step))
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (160, 40, 60)
    assert dataset.n_units == 700 and dataset.classes[19] == "word19" and dataset.n_classes == 20
    events = dataset.test.events
    for row in range(60):
        part = slice(events.offsets[row], events.offsets[row + 1])
        expected = np.float16(content["times"][row])
        assert np.array_equal(events.times[part], expected)
        assert np.array_equal(events.units[part], content["units"][row])
    assert np.array_equal(dataset.test.labels, content["labels"])
    assert (0, 200, "reading shd_train.h5") in news and (60, 60, "reading shd_test.h5") in news
    chosen = config(tmp_path, validation=40, allow_dropped=True)
    with pytest.warns(DataWarning, match=r"60 of 120 events \(50 %\) are dropped"):
        stimulus, counts = encode(dataset, dataset.test, chosen, 50)
    stimulus.validate()
    assert n_sources(dataset, chosen) == stimulus.n_inputs == 700
    assert counts.events + counts.merged + counts.dropped == events.times.size


def test_commands_bring_their_own_validation_file(tmp_path):
    for seed, (part, n) in enumerate((("train", 140), ("valid", 70), ("test", 105))):
        write(tmp_path / f"ssc_{part}.h5", n, classes=35, seed=seed)
    dataset = load_dataset(config(tmp_path, "ssc"))
    assert [part.index.tolist() for part in (dataset.train, dataset.validation, dataset.test)] == [
        list(range(140)),
        list(range(140, 210)),
        list(range(210, 315)),
    ]
    assert dataset.classes == tuple(str(index) for index in range(35))
    with pytest.raises(InputError, match="names its own validation samples"):
        load_dataset(config(tmp_path, "ssc", validation=10))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, r"shd_test\.h5: no data set 'labels' in it"),
        ({"units": None}, "no data set 'spikes/units' in it"),
        ({"labels": np.full(60, 20)}, r"label 20 is outside 0\.\.19"),
        ({"labels": np.full(60, 0.5)}, "labels is float64, expected integers"),
        ({"labels": np.zeros(59, int)}, "60 rows in spikes/times but 59 labels"),
        ({"labels": np.zeros((60, 1), int)}, r"labels has shape \(60, 1\)"),
        ({"labels": np.zeros(0, int)}, "0 samples"),
        ({"times": np.zeros(60)}, "spikes/times is float64, expected variable-length rows"),
        ({"units": [np.zeros(index % 5, np.float32) for index in range(60)]}, "expected variable-length rows"),
        ({"units": [np.full(index % 5, 700) for index in range(60)]}, r"unit 700 is outside 0\.\.699"),
        ({"units": [np.full(index % 5, -1) for index in range(60)]}, r"unit -1 is outside 0\.\.699"),
        ({"units": [np.zeros(3, int) for _ in range(60)]}, "sample 0 has 0 times but 3 units"),
        ({"times": [np.full(index % 5, np.nan) for index in range(60)]}, "negative, infinite or NaN"),
        ({"times": [np.full(index % 5, -0.1) for index in range(60)]}, "negative, infinite or NaN"),
    ],
)
def test_malformed_files_give_one_line(tmp_path, changes, message):
    shd(tmp_path, **changes)
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(config(tmp_path, validation=40))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not an HDF5 file", None])
def test_truncated_and_foreign_files(tmp_path, content):
    shd(tmp_path)
    path = tmp_path / "shd_test.h5"
    path.write_bytes(path.read_bytes()[:-1000] if content is None else content)
    with pytest.raises(InputError, match=r"shd_test\.h5: truncated or not an HDF5 file") as caught:
        load_dataset(config(tmp_path, validation=40))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("layout", [{}, {"chunks": (16,)}])
@pytest.mark.parametrize("name", ["times", "units"])
def test_a_row_longer_than_its_file_is_refused_before_memory_is_asked_for(tmp_path, layout, name):
    shd(tmp_path)
    path = tmp_path / "shd_test.h5"
    with h5py.File(path, "a") as file:
        found = file[f"spikes/{name}"]
        values, kind = found[:], found.dtype
        del file[f"spikes/{name}"]
        file.create_dataset(f"spikes/{name}", data=values, dtype=kind, **layout)
    assert len(load_dataset(config(tmp_path, validation=40)).test) == 60
    with h5py.File(path) as file:
        stored = file[f"spikes/{name}"].id
        start = stored.get_chunk_info(2).byte_offset if layout else stored.get_offset()
    content = bytearray(path.read_bytes())
    content[start + 16 * 4 : start + 16 * 4 + 4] = (1_000_000_000).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"spikes/{name} states a row of 1000000000 values, more than the file holds"):
        load_dataset(config(tmp_path, validation=40))


@pytest.mark.parametrize("packing", [{"compression": "gzip"}, {"compression": "gzip", "shuffle": True}])
def test_a_packed_row_longer_than_its_file_is_refused_too(tmp_path, packing):
    """The rows' lengths are packed by the library, as bytes of another data set."""
    shd(tmp_path)
    path = tmp_path / "shd_test.h5"
    with h5py.File(path, "a") as file:
        found = file["spikes/times"]
        values, kind = found[:], found.dtype
        del file["spikes/times"]
        file.create_dataset("spikes/times", data=values, dtype=kind, chunks=(16,), **packing)
        plain = file.create_dataset("plain", data=values, dtype=kind, chunks=(16,))
        lengths = bytearray(plain.id.read_direct_chunk((32,))[1])
    assert len(load_dataset(config(tmp_path, validation=40)).test) == 60
    lengths[16 * 4 : 16 * 4 + 4] = (1_000_000_000).to_bytes(4, "little")
    with h5py.File(path, "a") as file:
        same = file.create_dataset("same", data=np.frombuffer(lengths, "V16"), chunks=(16,), compression="gzip")
        rows = file["spikes/times"].id
        # Rows are never shuffled: chunks say that they go without the first filter.
        without = rows.read_direct_chunk((32,))[0]
        assert without == packing.get("shuffle", False)
        rows.write_direct_chunk((32,), same.id.read_direct_chunk((0,))[1], without)
    with pytest.raises(InputError, match="spikes/times states a row of 1000000000 values, more than the file holds"):
        load_dataset(config(tmp_path, validation=40))
    with h5py.File(path, "a") as file:
        file["spikes/times"].id.write_direct_chunk((32,), bytes(40), without)
    with pytest.raises(InputError, match=r"the rows of spikes/times are packed, and do not unpack .*; damaged"):
        load_dataset(config(tmp_path, validation=40))


def test_packing_of_other_kinds_and_chunks_of_any_size_are_refused(tmp_path):
    for options, message in (
        ({"compression": "lzf"}, "the rows of spikes/units are packed by HDF5 filter 32000; use `h5repack -f NONE`"),
        (
            {"chunks": (1 << 21,), "maxshape": (None,)},
            r"spikes/units has chunks of 2097152 rows, expected 1\.\.1048576",
        ),
    ):
        shd(tmp_path)
        with h5py.File(tmp_path / "shd_test.h5", "a") as file:
            found = file["spikes/units"]
            values, kind = found[:], found.dtype
            del file["spikes/units"]
            file.create_dataset("spikes/units", data=values, dtype=kind, **options)
        with pytest.raises(InputError, match=message):
            load_dataset(config(tmp_path, validation=40))


def test_packed_rows_and_rows_behind_a_block_of_somebody_elses_are_read(tmp_path):
    shd(tmp_path)
    expected = load_dataset(config(tmp_path, validation=40)).test.events
    for options, layout in (({}, {"compression": "gzip"}), ({"userblock_size": 512}, {}), ({}, {"chunks": (7,)})):
        with h5py.File(tmp_path / "shd_test.h5") as file, h5py.File(tmp_path / "new.h5", "w", **options) as new:
            for name in ("times", "units"):
                found = file[f"spikes/{name}"]
                new.create_dataset(f"spikes/{name}", data=found[:], dtype=found.dtype, **layout)
            new["labels"] = file["labels"][:]
        (tmp_path / "new.h5").rename(tmp_path / "shd_test.h5")
        events = load_dataset(config(tmp_path, validation=40)).test.events
        assert np.array_equal(events.times, expected.times) and np.array_equal(events.units, expected.units)


def test_missing_files_and_packed_ones(tmp_path):
    shd(tmp_path)
    (tmp_path / "shd_test.h5").rename(tmp_path / "shd_test.h5.gz")
    with pytest.raises(InputError, match=r"no shd_test\.h5 in it; unpack shd_test\.h5\.gz with gunzip"):
        load_dataset(config(tmp_path))
    with pytest.raises(InputError, match=r"is a folder of \.h5 files"):
        load_dataset(config(tmp_path / "shd_train.h5"))
    with pytest.raises(InputError, match="official test set"):
        load_dataset(config(tmp_path, test=0.1))


def test_where_the_sets_come_from(monkeypatch, tmp_path):
    from codesign.data import download

    for name in ("shd", "ssc"):
        with pytest.raises(UnsupportedError, match=f"zenkelab.org.*put it into .CODESIGN_DATA/{name}"):
            download(name)
