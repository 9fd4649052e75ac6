"""The run directory: one folder per run, described by its ``manifest.json``.

``manifest.json`` holds a record per finished or started stage and ends with ``figures``, the same keys
in every run, null where not measured. The manifest is replaced atomically; a lock keeps two commands
out of one folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from codesign.config import Config, load_config
from codesign.config_text import config_toml
from codesign.errors import InputError, OutputError
from codesign.files import explain_write_errors, file_hash, write_json, write_text

FORMAT_NAME = "codesign-run"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
CONFIG = "config.toml"
LOCK = ".lock"
HARDWARE_SECTIONS = ("hardware", "verify", "synth")

FIGURES = (
    "accuracy_float",
    "accuracy_frozen",
    "accuracy_hardware",
    "balanced_accuracy",
    "density",
    "layer_density",
    "synapses",
    "weight_bits",
    "fraction_bits",
    "timesteps",
    "samples_verified",
    "mismatches",
    "saturations",
    "events_merged",
    "events_dropped",
    "spikes_per_sample",
    "cycles_per_sample",
    "timesteps_per_sample",
    "saved_cycles",
    "synaptic_operations_per_sample",
    "lane_use",
    "bits_per_synapse",
    "area",
    "fmax_mhz",
    "latency_us",
    "interval_us",
    "seconds",
    "network_hash",
)


class RunDirectory:
    """An opened run directory.

    Parameters
    ----------
    path : folder that holds ``manifest.json``.
    manifest : the parsed document; changed in memory by the methods, on disk by :meth:`save`.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def create(cls, path: str | Path) -> RunDirectory:
        """Open ``path``, or make it a run directory if it is absent or empty.

        Raises OutputError if the folder holds something else, or cannot be written.
        """
        path = Path(path)
        with explain_write_errors(path):
            try:
                path.mkdir(parents=True, exist_ok=True)
            except FileNotFoundError:
                raise OutputError(f"{path}: cannot be made here; choose another folder with -o") from None
            if (path / MANIFEST).is_file():
                return cls.open(path)
            if any(entry.name != LOCK and not entry.name.startswith(f".{MANIFEST}.") for entry in path.iterdir()):
                raise OutputError(f"{path}: not empty and not a run directory; choose another folder with -o")
        run = cls(path, {"format": FORMAT_NAME, "version": FORMAT_VERSION, "stages": {}, "figures": empty_figures()})
        run.save()
        return run

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """Open an existing run directory. Raises InputError if it is none."""
        path = Path(path)
        manifest = path / MANIFEST
        if not path.exists():
            raise InputError(f"{path}: no such run directory; `codesign run CONFIG -o {path}` makes one")
        if not manifest.is_file():
            raise InputError(f"{path}: not a run directory ({MANIFEST} is missing)")
        try:
            document = json.loads(manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{manifest}: truncated or not JSON ({error})") from None
        if not isinstance(document, dict) or document.get("format") != FORMAT_NAME:
            raise InputError(f"{manifest}: not the manifest of a run directory")
        if document.get("version") != FORMAT_VERSION:
            raise InputError(
                f"{manifest}: version {document.get('version')!r}, this codesign reads {FORMAT_VERSION}; run it again"
            )
        if not isinstance(document.get("stages"), dict) or not isinstance(document.get("figures"), dict):
            raise InputError(f"{manifest}: stages or figures are missing; run it again in an empty folder")
        return cls(path, document)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other commands out of the folder while the block runs; the lock ends with the process."""
        path = self.path / LOCK
        with explain_write_errors(self.path):
            file = path.open("a+")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise OutputError(
                    f"{self.path}: in use by another codesign (process {holder}); wait, or choose another folder"
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    @property
    def config(self) -> Config:
        """The resolved configuration. Raises InputError if the run has none."""
        path = self.path / CONFIG
        if not path.is_file():
            raise InputError(f"{self.path}: has no {CONFIG}; it was not made by `codesign run` or `codesign train`")
        return load_config(path)

    @property
    def is_imported(self) -> bool:
        """True if the frozen network was made elsewhere, so that there is nothing to train."""
        return bool(self.manifest.get("imported"))

    def write_config(self, config: Config) -> None:
        """Write ``config`` with every default spelled out; for an imported network only what hardware needs."""
        sections = HARDWARE_SECTIONS if self.is_imported else None
        write_text(self.path / CONFIG, config_toml(config, sections))
        seeds = {"verify": config.verify.seed, "place": list(config.synth.seeds)}
        if not self.is_imported:
            seeds = {"train": config.train.seed, "split": config.data.split_seed, **seeds}
        self.manifest["seeds"] = seeds

    def stage(self, name: str) -> dict[str, Any]:
        """Record of a stage; empty if it never ran."""
        return self.manifest["stages"].get(name, {})

    def set_stage(self, name: str, record: dict[str, Any]) -> None:
        self.manifest["stages"][name] = record

    def set_figures(self, figures: Mapping[str, Any]) -> None:
        """Replace all figures: the fixed keys in their order, null where ``figures`` has none.

        Raises KeyError for a figure that is not in the fixed list.
        """
        unknown = set(figures) - set(FIGURES)
        if unknown:
            raise KeyError(f"unknown figures: {', '.join(sorted(unknown))}")
        self.manifest["figures"] = {name: figures.get(name) for name in FIGURES}

    @property
    def figures(self) -> dict[str, Any]:
        return self.manifest["figures"]

    def outputs_intact(self, name: str) -> bool:
        """True if every file that the stage wrote is there with the same content."""
        outputs = self.stage(name).get("outputs", {})
        return bool(outputs) and all(
            (self.path / path).is_file() and file_hash(self.path / path) == digest for path, digest in outputs.items()
        )

    def remove(self, paths: tuple[str, ...]) -> None:
        """Delete files and folders below the run directory; those absent are passed over."""
        with explain_write_errors(self.path):
            for name in paths:
                path = self.path / name
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)

    def save(self) -> None:
        """Write the manifest atomically; ``figures`` comes last."""
        figures = self.manifest.pop("figures")
        self.manifest["figures"] = figures
        write_json(self.path / MANIFEST, self.manifest)


def empty_figures() -> dict[str, Any]:
    """Every figure, none measured."""
    return dict.fromkeys(FIGURES)


def hash_files(folder: Path, names: tuple[str, ...]) -> dict[str, str]:
    """sha256 of the named files below ``folder``, and of all files below the named folders; sorted by path."""
    hashes: dict[str, str] = {}
    for name in names:
        path = folder / name
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path] * path.is_file()
        hashes.update({p.relative_to(folder).as_posix(): file_hash(p) for p in files})
    return dict(sorted(hashes.items()))
