"""CIFAR-10 from JPEG archives and from the binary version, on small sets of its form."""

import gzip
import io
import lzma
import os
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image
from requirements import needs

from codesign.basics.errors import InputError
from codesign.config import DataConfig
from codesign.data import cifar10, load_dataset
from codesign.data.encoders import encode, n_sources

PER_CLASS = {"train": 10, "test": 4}


@pytest.fixture(autouse=True)
def small_set(monkeypatch, tmp_path, request):
    if "deep" not in request.keywords:
        monkeypatch.setattr(cifar10, "PER_CLASS", PER_CLASS)
    monkeypatch.setattr(cifar10, "cache_folder", lambda: tmp_path / "cache")


def config(path, **options):
    return DataConfig(set="cifar10", path=str(path), validation=20, **options)


def jpeg(colour, size=(32, 32), mode="RGB"):
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, "JPEG", quality=95)
    return file.getvalue()


def members():
    """Images of one colour each: red tells the class, green the number, blue the part."""
    return {
        f"{part}/{name}/{number:04d}.jpg": jpeg((20 * label, 20 * number, 100 * (part == "test")))
        for part, count in PER_CLASS.items()
        for label, name in enumerate(cifar10.CLASSES)
        for number in range(count)
    }


def archive(path, files, kind="w:xz"):
    with tarfile.open(path, kind) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def binary_files():
    random = np.random.default_rng(0)
    files = {}
    for name in cifar10.BINARY_FILES:
        count = 40 if name.startswith("test") else 20
        records = random.integers(0, 256, (count, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(count) % 10
        files[name] = records
    return files


def test_jpegs_are_decoded_by_class_and_part(tmp_path):
    archive(tmp_path / "cifar10-jpg.tar.xz", members())
    news = []
    dataset = load_dataset(config(tmp_path), lambda done, total, text: news.append((done, total, text)))
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (80, 20, 40)
    assert dataset.sample_shape == (3, 32, 32) and dataset.classes == cifar10.CLASSES
    assert (dataset.low, dataset.high) == (0, 255)
    for part, blue in ((dataset.train, 0), (dataset.validation, 0), (dataset.test, 100)):
        assert part.x is not None
        colours = part.x.reshape(len(part), 3, -1).mean(2)
        assert abs(colours[:, 0] - 20 * part.labels).max() < 3
        assert abs(colours[:, 2] - blue).max() < 3
    assert sorted(dataset.test.labels[:10].tolist()) == list(range(10))
    assert np.array_equal(np.bincount(dataset.validation.labels), np.full(10, 2))
    assert news[0] == (0, 140, "decoding cifar10-jpg.tar.xz")


def test_an_archive_is_decoded_once(tmp_path, monkeypatch):
    archive(tmp_path / "cifar10-jpg.tar.xz", members())
    first = load_dataset(config(tmp_path))
    cached = list((tmp_path / "cache").rglob("*.npz"))
    assert len(cached) == 1 and first.hash in cached[0].name
    with monkeypatch.context() as patched:
        patched.setattr(cifar10, "_decode", None)
        again = load_dataset(config(tmp_path))
    assert np.array_equal(first.train.x, again.train.x) and np.array_equal(first.test.labels, again.test.labels)
    cached[0].write_bytes(cached[0].read_bytes()[:-500])
    assert np.array_equal(first.train.x, load_dataset(config(tmp_path)).train.x)


def test_without_a_writable_cache_the_images_are_decoded_each_time(tmp_path, monkeypatch):
    archive(tmp_path / "cifar10-jpg.tar.xz", members())
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(cifar10, "cache_folder", lambda: tmp_path / "file")
    assert len(load_dataset(config(tmp_path)).train) == 80


@pytest.mark.parametrize("form", ["archive", "folder", "inner folder"])
def test_the_binary_version_in_each_form(tmp_path, form):
    files = binary_files()
    if form == "archive":
        content = {f"cifar-10-batches-bin/{name}": data.tobytes() for name, data in reversed(files.items())}
        archive(tmp_path / "cifar-10-binary.tar.gz", content, "w:gz")
    else:
        folder = tmp_path if form == "folder" else tmp_path / "cifar-10-batches-bin"
        folder.mkdir(exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data.tobytes())
    dataset = load_dataset(config(tmp_path))
    whole = np.concatenate(list(files.values()))
    for part in (dataset.train, dataset.validation, dataset.test):
        assert np.array_equal(part.labels, whole[part.index, 0])
        assert np.array_equal(part.x.reshape(len(part), -1), whole[part.index, 1:])
    assert dataset.test.index.tolist() == list(range(100, 140))


@pytest.mark.parametrize("coding", ["current", "rate", "latency"])
def test_images_are_coded_channel_by_channel(tmp_path, coding):
    archive(tmp_path / "cifar10-jpg.tar.xz", members())
    chosen = config(tmp_path, coding=coding, **({"input_bits": 8} if coding == "current" else {}))
    dataset = load_dataset(chosen)
    stimulus, _ = encode(dataset, dataset.test, chosen, 4)
    stimulus.validate()
    assert n_sources(dataset, chosen) == stimulus.n_inputs == 3072
    if coding == "current":
        assert np.array_equal(stimulus.values, dataset.test.x.reshape(40, -1))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train/cat/0003.jpg": jpeg(0, (32, 31))}, r"train/cat/0003.jpg: 32x31 pixels of mode RGB, expected 32x32"),
        ({"train/cat/0003.jpg": jpeg(0, mode="L")}, "32x32 pixels of mode L, expected 32x32 of mode RGB"),
        ({"train/cat/0003.jpg": jpeg(0)[:400]}, "train/cat/0003.jpg: truncated or not a JPEG image"),
        ({"train/cat/0003.jpg": b"GIF89a"}, "truncated or not a JPEG image"),
        ({"train/cat/0003.jpg": bytes(1 << 17)}, "has 131072 bytes, the limit is 65536"),
        ({"train/lynx/0003.jpg": jpeg(0)}, "is not at train/<class>/ or test/<class>/"),
        ({"train/cat/9999.jpg": jpeg(0)}, "more than the 140 images"),
        ({"data_batch_1.bin": bytes(3073 * 19)}, "data_batch_1.bin has 58387 bytes, expected 61460"),
    ],
)
def test_bad_members_are_named(tmp_path, files, message):
    path = archive(tmp_path / "cifar10-jpg.tar.xz", {**members(), **files})
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(config(path))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.npz"))


@pytest.mark.parametrize("opener", [lzma.open, gzip.open])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_archives(tmp_path, opener, share):
    random = np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    file = io.BytesIO()
    noise.save(file, "JPEG")
    plain = archive(tmp_path / "plain.tar", dict.fromkeys(members(), file.getvalue()), "w").read_bytes()
    path = tmp_path / "cut.tar.xz"
    with opener(path, "wb") as packed:
        packed.write(plain[: int(share * len(plain))] + os.urandom(5000))
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(InputError, match=r"cut\.tar\.xz: .*truncated") as caught:
        load_dataset(config(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.map": "a,b,c"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "100"},
        {"GNU.sparse.size": "many"},
    ],
)
def test_damaged_headers_of_an_archive(tmp_path, headers):
    path = tmp_path / "cifar.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("train/cat/0001.jpg")
        info.pax_headers, info.size = headers, 1024
        tar.addfile(info, io.BytesIO(b"garbage\nmore\n" + bytes(1011)))
    with pytest.raises(InputError, match="truncated or not a tar archive"):
        load_dataset(config(path))


def test_an_incomplete_archive_is_refused(tmp_path):
    files = members()
    del files["test/dog/0002.jpg"]
    path = archive(tmp_path / "some.tar.xz", files)
    with pytest.raises(InputError, match="3 test images of class dog, expected 4"):
        load_dataset(config(path))
    path.write_bytes(b"not an archive")
    with pytest.raises(InputError, match="truncated or not a tar archive, 0 of 140 images read"):
        load_dataset(config(path))


def test_the_pickled_version_is_refused_and_the_binary_one_named(tmp_path):
    pickled = {"cifar-10-batches-py/data_batch_1": pickle.dumps({})}
    message = "python version of CIFAR-10 is pickled.*get cifar-10-binary.tar.gz"
    for name in ("cifar-10-python.tar.gz", "renamed.tar.gz"):
        with pytest.raises(InputError, match=message):
            load_dataset(config(archive(tmp_path / name, pickled, "w:gz")))
    with pytest.raises(InputError, match=message):
        load_dataset(config(tmp_path))


def test_folders_without_the_set_and_with_a_part_of_it(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: neither cifar-10-binary\.tar\.gz, .* nor cifar10-jpg\.tar\.xz"):
        load_dataset(config(tmp_path / "empty"))
    files = binary_files()
    (tmp_path / "data_batch_1.bin").write_bytes(files["data_batch_1.bin"].tobytes())
    with pytest.raises(InputError, match=r"no data_batch_2\.bin, .*, test_batch\.bin in it"):
        load_dataset(config(tmp_path))
    for name, data in files.items():
        (tmp_path / name).write_bytes(data.tobytes())
    (tmp_path / "test_batch.bin").write_bytes(np.full((40, 3073), 11, np.uint8).tobytes())
    with pytest.raises(InputError, match=r"test_batch\.bin holds label 11, outside 0\.\.9"):
        load_dataset(config(tmp_path))
    with pytest.raises(InputError, match="has an official test set"):
        load_dataset(config(tmp_path, test=0.1))


def test_the_folder_of_the_jpeg_copy_is_found(tmp_path, monkeypatch):
    (tmp_path / "cifar10-jpeg").mkdir()
    archive(tmp_path / "cifar10-jpeg" / "cifar10-jpg.tar.xz", members())
    monkeypatch.setenv("CODESIGN_DATA", str(tmp_path))
    assert load_dataset(DataConfig(set="cifar10", validation=20)).provenance["source"] == "cifar10-jpg.tar.xz"


@pytest.mark.deep
@needs("data", "cifar10")
def test_the_whole_set():
    dataset = load_dataset(DataConfig(set="cifar10", validation=5000))
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (45_000, 5_000, 10_000)
    assert np.bincount(dataset.test.labels).tolist() == [1000] * 10
    assert dataset.test.x is not None and 100 < dataset.test.x.mean() < 140
