"""The known data sets: where their files are looked for, and where they come from."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from codesign.basics.errors import InputError, ToolError, UnsupportedError
from codesign.basics.files import atomic_path
from codesign.basics.progress import Progress, silent

MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
MNIST_MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
MAX_DOWNLOAD = 1 << 26


@dataclass(frozen=True)
class Entry:
    """What is known of a set before its files are read.

    ``file`` is empty where the set is a folder; ``folders`` are further names that the folder may have.
    """

    summary: str
    source: str
    file: str = ""
    can_download: bool = False
    folders: tuple[str, ...] = ()


CATALOGUE = {
    "digits": Entry("1,797 handwritten digits, 8x8 grey levels 0..16, 10 classes", "installed with scikit-learn"),
    "mnist": Entry("60,000 + 10,000 handwritten digits, 28x28 grey levels, 10 classes", "MNIST", can_download=True),
    "idx": Entry("your own images in IDX files of MNIST's form", "your own"),
    "fsdd-spikes": Entry(
        "3,000 spoken digits as spikes of a 64-channel cochlea model, 10 classes",
        "made from the Free Spoken Digit Dataset (github.com/Jakobovski/free-spoken-digit-dataset); "
        "docs/data.md says how",
        "fsdd_spikes_64ch.npz",
    ),
    "mitbih-beats": Entry(
        "100,661 ECG beats of 128 samples at 120 Hz, 4 AAMI classes, split by patients",
        "made from the MIT-BIH Arrhythmia Database (physionet.org/content/mitdb); docs/data.md says how",
        "mitbih_beats_120hz.npz",
    ),
    "cifar10": Entry(
        "50,000 + 10,000 colour images 32x32, 10 classes",
        "CIFAR-10 binary version, cifar-10-binary.tar.gz (cs.toronto.edu/~kriz/cifar.html), or a tar of JPEG files",
        folders=("cifar10-jpeg",),
    ),
    "shd": Entry(
        "8,156 + 2,264 spoken digits as spikes of 700 channels, 20 classes",
        "Spiking Heidelberg Digits, shd_train.h5 and shd_test.h5 (zenkelab.org, compneuro.net)",
    ),
    "ssc": Entry(
        "75,466 + 9,981 + 20,382 spoken commands as spikes of 700 channels, 35 classes",
        "Spiking Speech Commands, ssc_train.h5, ssc_valid.h5 and ssc_test.h5 (zenkelab.org, compneuro.net)",
    ),
    "npz": Entry("your own arrays or events in one npz file; docs/data.md gives the form", "your own"),
}


def cache_folder() -> Path:
    """Per-user folder of downloaded data."""
    return Path(platformdirs.user_cache_dir("codesign")) / "data"


def locate(name: str, path: str | None = None) -> Path:
    """Folder or file of a set: the configured path, else ``$CODESIGN_DATA/<set>``, else the per-user cache.

    Raises InputError in one line that names what to do if there is none.
    """
    entry = CATALOGUE[name]
    if path is not None:
        found = Path(path)
        if not found.exists():
            raise InputError(f"data.path = {path!r}: no such file or folder")
        return found / entry.file if entry.file and found.is_dir() else found
    if name in ("idx", "npz"):
        raise InputError(f"data.set = {name!r} needs data.path, a {'folder' if name == 'idx' else 'file'} of yours")
    roots = [Path(os.environ["CODESIGN_DATA"])] if os.environ.get("CODESIGN_DATA") else []
    folders = [root / folder for root in (*roots, cache_folder()) for folder in (name, *entry.folders)]
    for folder in folders:
        if (folder / entry.file).is_file() or (not entry.file and folder.is_dir()):
            return folder / entry.file
    raise InputError(
        f"data set {name!r} is neither in $CODESIGN_DATA nor in {cache_folder() / name}; `codesign data get {name}` "
        + ("downloads it" if entry.can_download else "says where it comes from")
    )


def describe() -> list[dict[str, Any]]:
    """One entry per known set: name, summary, source, where it was found (None if not), can_download."""
    entries = []
    for name, entry in CATALOGUE.items():
        if name == "digits":
            found: str | None = "embedded"
        else:
            try:
                found = str(locate(name))
            except InputError:
                found = None
        entries.append(
            {
                "name": name,
                "summary": entry.summary,
                "source": entry.source,
                "found": found,
                "can_download": entry.can_download,
            }
        )
    return entries


def download(name: str, progress: Progress = silent) -> Path:
    """Fetch a set into the per-user cache and return its folder. ``progress(done, total, text)`` counts files.

    Raises UnsupportedError for sets that cannot be fetched (with where they come from), ToolError if no mirror
    delivers, or delivers something other than the published files.
    """
    entry = CATALOGUE.get(name)
    if entry is None:
        raise InputError(f"no data set {name!r}; there are {', '.join(CATALOGUE)}")
    if not entry.can_download:
        if name == "digits":
            raise UnsupportedError("data set 'digits' is installed with scikit-learn: nothing to download")
        own = name in ("idx", "npz")
        where = "" if own else f"; put {entry.file or 'it'} into $CODESIGN_DATA/{name} or {cache_folder() / name}"
        raise UnsupportedError(f"data set {name!r} cannot be downloaded by codesign: {entry.source}{where}")
    folder = cache_folder() / name
    for done, (file, md5) in enumerate(MNIST_MD5.items()):
        progress(done, len(MNIST_MD5), file)
        target = folder / file
        if target.is_file() and hashlib.md5(target.read_bytes(), usedforsecurity=False).hexdigest() == md5:
            continue
        content = _fetch(file, md5)
        with atomic_path(target) as temporary:
            temporary.write_bytes(content)
    progress(len(MNIST_MD5), len(MNIST_MD5), "done")
    return folder


def _fetch(file: str, md5: str) -> bytes:
    import http.client
    import urllib.request

    problems = []
    for mirror in MNIST_MIRRORS:
        try:
            with urllib.request.urlopen(mirror + file, timeout=60) as response:
                content = response.read(MAX_DOWNLOAD)
        except (OSError, http.client.HTTPException) as error:
            problems.append(f"{mirror}: {error or type(error).__name__}")
            continue
        if hashlib.md5(content, usedforsecurity=False).hexdigest() == md5:
            return content
        problems.append(f"{mirror}: not the published file")
    raise ToolError(
        f"{file} could not be downloaded ({'; '.join(problems)}); put it into $CODESIGN_DATA/mnist yourself"
    )
