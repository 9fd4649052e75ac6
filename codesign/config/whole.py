"""A whole configuration, and the file that it comes from."""

from __future__ import annotations

import tomllib
import warnings
from pathlib import Path
from typing import Any

from pydantic import model_validator

from codesign.basics.errors import NO_CONFIGURATION, CodesignWarning, InputError, entries_for
from codesign.basics.files import read_text
from codesign.config.base import Section
from codesign.config.data import DataConfig
from codesign.config.hardware import BudgetConfig, HardwareConfig, SynthConfig, VerifyConfig
from codesign.config.network import NetworkConfig
from codesign.config.sections import parse_section
from codesign.config.training import FreezeConfig, TrainConfig
from codesign.machine.choices import Consumer, check, keys
from codesign.machine.goals import GOALS, expanded

MAX_CONFIG_BYTES = 1 << 20
MAX_DEPTH = 8


# What a goal or a budget may decide.
_DECIDABLE = (("freeze", "weight_bits"), ("hardware", "lanes"), *(("hardware", key) for key in keys()))


class Config(Section):
    """A whole run: a section for each part, frozen. Made by :func:`load_config` and :func:`parse_config`.

    >>> import codesign
    >>> codesign.Config().hardware.lanes
    1
    """

    data: DataConfig = DataConfig()
    network: NetworkConfig = NetworkConfig()
    train: TrainConfig = TrainConfig()
    freeze: FreezeConfig = FreezeConfig()
    hardware: HardwareConfig = HardwareConfig()
    budget: BudgetConfig = BudgetConfig()
    verify: VerifyConfig = VerifyConfig()
    synth: SynthConfig = SynthConfig()

    @model_validator(mode="after")
    def _reach_goal(self) -> Config:
        hardware = self.hardware
        if hardware.goal is None:
            return self
        aims = GOALS[hardware.goal].choices
        given = hardware.model_fields_set
        stays = [key for key in aims if key in given and getattr(hardware, key) != aims[key]]
        if stays:
            # Beside choices that stay, lanes were hardly given for the goal's sake.
            stays = ["lanes", *stays] if "lanes" in given else stays
            warnings.warn(
                f"hardware.goal = {hardware.goal!r}: {', '.join(stays)} "
                f"{'is' if len(stays) == 1 else 'are'} given and not decided by it",
                CodesignWarning,
                stacklevel=2,
            )
        reached = hardware.model_copy()
        for key, value in self._of_goal.items():
            # Not among the keys that are given: a configuration that is written and read again has the same.
            object.__setattr__(reached, key, value)
        object.__setattr__(self, "hardware", reached)
        return self

    @property
    def _of_goal(self) -> dict[str, Any]:
        """Keys of [hardware] that its goal decides, with their values."""
        hardware = self.hardware
        if hardware.goal is None:
            return {}
        given = {key: getattr(hardware, key) for key in keys() if key in hardware.model_fields_set}
        consumers: list[Consumer] = [] if self.budget.board is None else ["board"]
        found = expanded(
            hardware.goal,
            given,
            readout=self.network.readout,
            structured=not self.network.is_plain_chain,
            consumers=consumers,
        )
        return found if "lanes" in hardware.model_fields_set or self.budget.active else {"lanes": "auto", **found}

    @model_validator(mode="after")
    def _lanes_fit(self) -> Config:
        lanes, count = self.hardware.lanes, self.network.n_layers
        if isinstance(lanes, list) and len(lanes) != count:
            raise ValueError(entries_for("hardware.lanes", len(lanes), count))
        check(
            self.hardware.choices,
            readout=self.network.readout,
            lanes=lanes if isinstance(lanes, list) else None,
            structured=not self.network.is_plain_chain,
            sources=self.network.sources,
        )
        if self.train.loss == "count" and self.network.readout != "spike_count":
            raise ValueError("train.loss = 'count' needs network.readout = 'spike_count'")
        if self.train.loss == "membrane" and self.network.readout not in ("spike_count", "membrane_max"):
            raise ValueError("train.loss = 'membrane' needs network.readout = 'spike_count' or 'membrane_max'")
        if self.train.operations_target is not None and self.network.n_layers == 1:
            raise ValueError(
                "train.operations_target draws on the spikes of hidden layers, and the network has none; the work of "
                "a single layer follows from its inputs and train.rewiring.target_density"
            )
        if self.train.activity_target is not None and self.network.n_layers == 1:
            raise ValueError("train.activity_target draws on the spikes of hidden layers, and the network has none")
        jitter, timesteps = self.data.event_jitter, self.network.timesteps
        if jitter >= timesteps and self.network.elsewhere is None:
            raise ValueError(
                f"data.event_jitter = {jitter} would move all events of a sample out of its {timesteps} timesteps; it "
                f"must be less than network.timesteps"
            )
        return self

    @property
    def decided(self) -> tuple[tuple[str, str], ...]:
        """Options (section, key) that a budget decides, so that they may not be given beside it."""
        return (("freeze", "weight_bits"), ("hardware", "lanes")) if self.budget.active else ()

    def is_open(self, section: str, key: str) -> bool:
        """True if nobody gave this option and another one may decide it: a goal, a board or a limit.

        A written configuration leaves it out, or has it as a comment, so that it is not given from then on.
        """
        return (section, key) in _DECIDABLE and key not in getattr(self, section).model_fields_set

    @property
    def implied(self) -> tuple[tuple[str, str], ...]:
        """Options (section, key) that follow from others of this configuration."""
        goal = self.hardware.goal is not None
        of_goal = [(section, key) for section, key in _DECIDABLE if section == "hardware" and goal]
        return (*self.decided, *((section, key) for section, key in of_goal if self.is_open(section, key)))

    @model_validator(mode="after")
    def _one_decision(self) -> Config:
        rewiring = self.train.rewiring
        for section, key in self.decided:
            if key in getattr(self, section).model_fields_set:
                raise ValueError(f"{section}.{key} and [budget] exclude each other; name the choices in budget.{key}")
        if self.budget.active and not rewiring.rules.falls:
            raise ValueError(
                "[budget] needs a density that falls until the network fits; "
                f"train.rewiring.preset = {rewiring.preset!r} with these options keeps it"
            )
        if self.budget.active and rewiring.stop_at != "target":
            raise ValueError("[budget] and train.rewiring.stop_at = 'turning-point' exclude each other")
        return self


def parse_config(document: dict[str, Any], where: str = "config") -> Config:
    """Validated configuration from nested tables, as a TOML file holds them; what is left out has its default.

    ``where`` is what messages call it. Raises InputError with one line per problem, UnsupportedError for options that
    are not built together.

    >>> import codesign
    >>> config = codesign.parse_config({"network": {"hidden": [64], "timesteps": 8}, "train": {"epochs": 20}})
    >>> config.network.hidden, config.freeze.weight_bits
    ([64], 6)
    >>> codesign.parse_config({"train": {"epoch": 20}})
    Traceback (most recent call last):
    codesign.basics.errors.InputError: config: unknown key 'train.epoch'; did you mean 'epochs'?
    """
    return parse_section(Config, document, where)


# Keys (section, key) whose values are paths.
PATHS = (("data", "path"), ("train", "start"))
# Sections of earlier versions, which their run folders still have, and what has taken their place.
RETIRED = {"explore": "a search has a space file of its own (docs/exploring.md)"}


def load_config(path: str | Path, overrides: list[str] | None = None, seed: int | None = None) -> Config:
    """Configuration from a TOML file, then ``--set section.key=value`` overrides, then the training seed.

    A relative path in the file (``data.path``, ``train.start``) begins at the file's folder, one of the overrides at
    the current folder; the configuration holds either from the root on. Raises InputError with one line per problem.

    >>> import codesign
    >>> from pathlib import Path
    >>> _ = Path("mine.toml").write_text("[train]\\nepochs = 5\\n")
    >>> config = codesign.load_config("mine.toml", ["network.hidden=[32]"], seed=3)
    >>> config.train.epochs, config.train.seed, config.network.hidden
    (5, 3, [32])
    """
    path = Path(path)
    text = read_text(path, NO_CONFIGURATION, MAX_CONFIG_BYTES)
    try:
        document = tomllib.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: not TOML ({error})") from None
    except RecursionError:
        raise InputError(f"{path}: not TOML (nested too deep)") from None
    if "axes" in document:
        raise InputError(f"{path}: is the space of a search, no configuration; `codesign explore` takes it")
    for section in RETIRED.keys() & document.keys():
        del document[section]
        warnings.warn(f"{path}: [{section}] is left out: {RETIRED[section]}", CodesignWarning, stacklevel=2)
    root_paths(document, path.parent.resolve())
    for override in overrides or []:
        apply_override(document, override)
    if seed is not None and any(override.partition("=")[0].strip() == "train.seed" for override in overrides or []):
        raise InputError("--seed and --set train.seed are the same; give one of them")
    if seed is not None and isinstance(train := document.setdefault("train", {}), dict):
        train["seed"] = seed
    return parse_config(document, str(path))


def root_paths(document: dict[str, Any], folder: Path) -> None:
    """Relative paths among the tables of a file in ``folder``, from the root on."""
    for section, key in PATHS:
        table = document.get(section)
        given = table.get(key) if isinstance(table, dict) else None
        if isinstance(table, dict) and isinstance(given, str) and not given.startswith("~"):
            table[key] = str(folder / given)


def apply_override(document: dict[str, Any], override: str) -> None:
    """Set ``a.b.c=value`` in a nested document; the value is TOML, or else a plain string."""
    key, separator, text = override.partition("=")
    names = key.strip().split(".")
    if not separator or not all(names):
        raise InputError(f"--set {override!r}: expected section.key=value")
    if not override.isascii() and not _is_text(override):
        raise InputError(f"--set {override!r}: is not UTF-8 text")
    if len(names) > MAX_DEPTH:
        raise InputError(f"--set {override!r}: no section lies so deep")
    try:
        document_of_value = tomllib.loads(f"value = {text}")
        # A line break in the text would begin another key.
        value: Any = document_of_value["value"] if len(document_of_value) == 1 else text.strip()
    except tomllib.TOMLDecodeError:
        value = text.strip()
    except (ValueError, RecursionError) as error:
        raise InputError(f"--set {override!r}: no value ({error})") from None
    for name in names[:-1]:
        document = document.setdefault(name, {})
        if not isinstance(document, dict):
            raise InputError(f"--set {override!r}: {name} is not a section")
    document[names[-1]] = value


def _is_text(text: str) -> bool:
    """False for bytes of the command line that are no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
