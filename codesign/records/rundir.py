"""The run directory: one folder per run, described by its ``manifest.json``.

``manifest.json`` holds a record per finished or started stage and ends with ``figures``, the same keys
in every run, null where not measured. The manifest is replaced atomically; a lock keeps two commands
out of one folder.

What a stage has made is held against the sha256 in its record wherever it is read (:meth:`RunDirectory.check`);
``manifest.json`` and ``config.toml`` state a checksum of their own.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from codesign.basics.errors import AlteredError, InputError, OutputError
from codesign.basics.files import explain_write_errors, file_hash, json_text, read_json, remove, write_json, write_text
from codesign.config import Config, load_config
from codesign.config.text import config_toml
from codesign.records import aside
from codesign.records.names import CONFIG, MANIFEST

FORMAT_NAME = "codesign-run"
# Version 1 is the same without a checksum.
FORMAT_VERSION = 2
LOCK = ".lock"
# What a network made elsewhere needs; its readout and layers decide which hardware there can be.
HARDWARE_KEYS = {"network": ("readout", "elsewhere"), "hardware": (), "verify": (), "synth": ()}
# Records of what no stage of the pipeline has made: a network from elsewhere, and what mutants were caught.
IMPORT, MUTANTS = "import", "mutants"
# The command that makes a recorder's files again; for the others it is `codesign <recorder> <run>`.
COMMANDS = {
    "train": "train {run} --force",
    "build": "build {run} --board {board}",
    IMPORT: "generate NETWORK -o {run}",
    MUTANTS: "verify {run} --mutants",
}
CHECKSUM_LINE = "# sha256 of the text above: "
CONFIG_FOOTER = "# Change values with --set. To take an edited file as it is: codesign run DIR/config.toml -o DIR\n"

# Each figure has one maker, and counts one thing: what verification counts on the samples that it took, which may end
# early, is not what the frozen network does on the whole test set.
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
    "saturations_verified",
    "events_merged",
    "events_dropped",
    "spikes_per_sample",
    "spikes_per_verified_sample",
    "cycles_per_sample",
    "timesteps_per_sample",
    "saved_cycles",
    "synaptic_operations_per_sample",
    "synaptic_operations_per_verified_sample",
    "lane_use",
    "bits_per_synapse",
    "area",
    "fmax_mhz",
    "latency_us",
    "interval_us",
    "seconds",
    "network_hash",
)


def _inside(path: str) -> str:
    """``path`` if it is one below the run directory."""
    if not aside.is_inside(path):
        raise ValueError("is not a path within the run directory")
    return path


Hashes = dict[Annotated[str, AfterValidator(_inside)], str]


class _StageRecord(BaseModel):
    """What every record may hold; stages add facts of their own."""

    model_config = ConfigDict(extra="allow", strict=True)
    status: str = ""
    key: str = ""
    inputs: Hashes = {}
    external: dict[str, str] = {}
    options: dict[str, Any] = {}
    versions: dict[str, str] = {}
    outputs: Hashes = {}
    seconds: float = Field(0.0, ge=0, allow_inf_nan=False)
    figures: dict[str, Any] = {}
    warnings: list[str] = []
    error: str = ""
    failure: str = ""

    @model_validator(mode="after")
    def _is_whole(self) -> _StageRecord:
        unknown = set(self.figures) - set(FIGURES)
        if unknown:
            raise ValueError(f"{sorted(unknown)[0][:40]!r} is no figure")
        # What no stage of the pipeline has made has no key: it is recorded by its files alone.
        if "key" in self.model_fields_set and "seconds" not in self.model_fields_set:
            raise ValueError("the record of a stage without its seconds")
        return self


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)
    stages: dict[str, _StageRecord]
    figures: dict[str, Any]
    imported: bool = False
    # Of runs of earlier versions, which kept none with each stage.
    versions: dict[str, str] = {}
    seeds: dict[str, int | list[int]] = {}
    budget: dict[str, Any] = {}


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

        Raises OutputError if the folder holds something else, cannot be written, or is being made by another command.
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
        # Looked at again under the lock: another command may have made it since, and recorded a stage in it.
        with run.locked():
            if not (path / MANIFEST).is_file():
                run.save()
        return run

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """Open an existing run directory. Raises InputError if it is none."""
        path = Path(path)
        manifest = path / MANIFEST
        if not path.exists():
            raise InputError(
                f"{path}: no such run directory; `codesign run CONFIG -o {shlex.quote(str(path))}` makes one"
            )
        if not manifest.is_file():
            raise InputError(f"{path}: not a run directory ({MANIFEST} is missing)")
        run = cls(path, _read_manifest(manifest))
        if (path / aside.BEFORE).exists():
            # A stage is at work, or its command was killed: whoever gets the lock puts back what it replaced.
            with suppress(OutputError), run.locked():
                pass
        return run

    @contextmanager
    def locked(self, *, wait: bool = False) -> Iterator[None]:
        """Keep other commands out of the folder while the block runs; the lock ends with the process.

        The manifest is read again: another command may have changed it since it was opened. What a stage had replaced
        when its command was killed is put back first. While another has the folder, this raises OutputError, or with
        ``wait`` waits until it is done.
        """
        path = self.path / LOCK
        with explain_write_errors(self.path):
            file = path.open("a+")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except OSError:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise OutputError(
                    f"{self.path}: in use by another codesign (process {holder}); wait, or choose another folder"
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            if (self.path / MANIFEST).is_file():
                aside.put_back(self.path)
                self.manifest = _read_manifest(self.path / MANIFEST)
            yield

    @property
    def config(self) -> Config:
        """The resolved configuration. Raises InputError if the run has none."""
        return self.read_config()

    def read_config(self, overrides: Sequence[str] = (), seed: int | None = None) -> Config:
        """The resolved configuration with ``--set`` overrides and another training seed.

        Raises InputError if the run has none, AlteredError if it is not the one that was written.
        """
        path = self.path / CONFIG
        if not path.is_file():
            raise InputError(f"{self.path}: has no {CONFIG}; it was not made by `codesign run` or `codesign train`")
        text, mark, stated = path.read_bytes().partition(CHECKSUM_LINE.encode())
        # Configurations of earlier versions state no checksum.
        if mark and stated.strip().decode(errors="replace") != hashlib.sha256(text).hexdigest():
            raise AlteredError(
                f"{path}: changed since codesign wrote it; restore it, or take it as it is with "
                f"`codesign run {shlex.quote(str(path))} -o {shlex.quote(str(self.path))}`"
            )
        return load_config(path, list(overrides), seed)

    @property
    def is_imported(self) -> bool:
        """True if the frozen network was made elsewhere, so that there is nothing to train."""
        return bool(self.manifest.get("imported"))

    def write_config(self, config: Config) -> None:
        """Write ``config`` with every default spelled out; for an imported network only what hardware needs."""
        keys = HARDWARE_KEYS if self.is_imported else None
        text = f"{config_toml(config, keys)}\n{CONFIG_FOOTER}"
        write_text(self.path / CONFIG, f"{text}{CHECKSUM_LINE}{hashlib.sha256(text.encode()).hexdigest()}\n")
        seeds = {"verify": config.verify.seed, "place": list(config.synth.seeds)}
        if not self.is_imported:
            seeds = {"train": config.train.seed, "split": config.data.split_seed, **seeds}
        self.manifest["seeds"] = seeds

    def stage(self, name: str) -> dict[str, Any]:
        """Record of a stage; empty if it never ran."""
        return self.manifest["stages"].get(name, {})

    @property
    def warnings(self) -> list[tuple[str, str]]:
        """(stage, text) of what the stages warned of."""
        return [(name, text) for name, record in self.manifest["stages"].items() for text in record.get("warnings", [])]

    def set_stage(self, name: str, record: dict[str, Any]) -> None:
        self.manifest["stages"][name] = record

    def remember(self, name: str, outputs: tuple[str, ...], *, resumable: bool) -> None:
        """Note what the stage is about to replace: its files, and the manifest and configuration as they are on disk.

        From here on :meth:`put_back` undoes the stage until :meth:`succeed`.
        """
        if any((self.path / path).exists() for path in outputs):
            aside.remember(self.path, name, outputs, resumable=resumable)

    def begin(self, name: str, outputs: tuple[str, ...], *, going_on: bool) -> None:
        """Save the manifest, in which the stage runs, and put aside what it replaces.

        ``going_on``: it starts with what an interrupted attempt has left (:meth:`begun`).
        """
        self.forget(outputs, name)
        self.save()
        aside.move(self.path, outputs)
        if going_on:
            aside.take_up(self.path, name, outputs)

    def begun(self, name: str) -> Mapping[str, Any]:
        """Record of an interrupted attempt at a stage that is kept beside its last result; empty if there is none."""
        return aside.begun(self.path, name)

    def succeed(self, name: str) -> None:
        """Save the manifest, in which the stage is done, and drop what it has replaced."""
        self.save()
        aside.drop(self.path)
        aside.drop_begun(self.path, name)

    def put_back(self) -> bool:
        """Undo the stage that has begun if it has replaced something: files, manifest and configuration are as before.

        What it has made is kept apart, to go on from, if it is resumable and was interrupted. False if there was
        nothing to put back.
        """
        found = aside.put_back(self.path)
        if found:
            self.manifest = _read_manifest(self.path / MANIFEST)
        return found

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

    def record_files(self, name: str, paths: tuple[str, ...], **facts: Any) -> None:
        """Record files that no stage of the pipeline has made, and save the manifest.

        ``facts`` go into the record; ``again`` among them is the command that makes the files again.
        """
        self.set_stage(name, {"status": "done", **facts, "outputs": hash_files(self.path, paths)})
        self.save()

    def differences(self, name: str) -> tuple[list[str], list[str]]:
        """Files of the stage's record that are altered, and those that are missing."""
        altered, missing = [], []
        for path, digest in self.stage(name).get("outputs", {}).items():
            if not (self.path / path).is_file():
                missing.append(path)
            elif file_hash(self.path / path) != digest:
                altered.append(path)
        return altered, missing

    def outputs_intact(self, name: str) -> bool:
        """True if every file that the stage wrote is there with the same content."""
        return bool(self.stage(name).get("outputs")) and self.differences(name) == ([], [])

    def problem(self, *names: str) -> str | None:
        """What is wrong with recorded files among the named files and folders, in one line; None if nothing is.

        What no stage has recorded is taken as it is.
        """
        return next(filter(None, (self.problem_of(maker, names) for maker in self.manifest["stages"])), None)

    def problem_of(self, maker: str, names: Collection[str] | None = None, apart: Collection[str] = ()) -> str | None:
        """The same of one record: of all its files, or of those among ``names``, those among ``apart`` left out."""
        for path, digest in self.stage(maker).get("outputs", {}).items():
            file = self.path / path
            if (names is not None and not below(path, names)) or below(path, apart):
                continue
            if not file.is_file():
                return f"{file}: is missing, although `{maker}` has recorded it; {self._way_out(maker, path)}"
            if file_hash(file) != digest:
                return f"{file}: differs from what `{maker}` has recorded; {self._way_out(maker, path)}"
        return None

    def check(self, *names: str) -> None:
        """Raise AlteredError unless the recorded files among the named files and folders are as recorded."""
        problem = self.problem(*names)
        if problem is not None:
            raise AlteredError(problem)

    def _way_out(self, maker: str, path: str) -> str:
        board = path.split("/")[1] if "/" in path else ""
        again = self.stage(maker).get("again")
        command = again if isinstance(again, str) else COMMANDS.get(maker, f"{maker} {{run}}")
        command = command.replace("{run}", shlex.quote(str(self.path))).replace("{board}", board)
        return f"restore it, or make it again with `codesign {command}`"

    def forget(self, paths: tuple[str, ...], keeper: str) -> None:
        """Drop files below ``paths`` from the records of others than ``keeper``, because they are removed."""
        for name, record in list(self.manifest["stages"].items()):
            outputs = record.get("outputs", {})
            kept = {path: digest for path, digest in outputs.items() if not below(path, paths)}
            if name != keeper and kept != outputs:
                record["outputs"] = kept
                if not kept:
                    del self.manifest["stages"][name]

    def remove(self, paths: tuple[str, ...]) -> None:
        """Delete files, folders and links below the run directory; those absent are passed over."""
        with explain_write_errors(self.path):
            for name in paths:
                remove(self.path / name)

    def save(self) -> None:
        """Write the manifest atomically; ``figures`` comes last."""
        figures = self.manifest.pop("figures")
        self.manifest |= {"version": FORMAT_VERSION, "figures": figures}
        stated = {"format": FORMAT_NAME, "version": FORMAT_VERSION, "checksum": _checksum(self.manifest)}
        write_json(self.path / MANIFEST, {**stated, **self.manifest})


def below(path: str, names: Iterable[str]) -> bool:
    """True if ``path`` is one of ``names`` or lies in one of these folders."""
    return any(path == name or path.startswith(f"{name}/") for name in names)


def _checksum(manifest: Mapping[str, Any]) -> str:
    """sha256 (hex) of the manifest's content, however it is laid out as text."""
    content = json.loads(json_text(manifest))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read_manifest(path: Path) -> dict[str, Any]:
    """The manifest without its checksum. Raises InputError unless it is whole and of the right form."""
    document = read_json(path)
    if document.get("format") != FORMAT_NAME:
        raise InputError(f"{path}: not the manifest of a run directory")
    version, stated = document.get("version"), document.pop("checksum", None)
    if type(version) is not int or version not in (1, FORMAT_VERSION):
        raise InputError(
            f"{path}: version {version!r}, this codesign reads {FORMAT_VERSION}; use a codesign as new as the one that "
            "made it, or run again in an empty folder"
        )
    if version == FORMAT_VERSION and stated != _checksum(document):
        raise AlteredError(
            f"{path}: damaged: its content does not have the checksum that it states; restore it, or run again in an "
            "empty folder"
        )
    try:
        _Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: {where}: {first['msg']}; run it again in an empty folder") from None
    document["figures"] = {name: document["figures"].get(name) for name in FIGURES}
    return document


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
