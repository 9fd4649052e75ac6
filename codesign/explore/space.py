"""What is searched: one TOML file of axes over configuration keys, objectives, constraints and a budget.

Axes over ``data``, ``network``, ``train`` and ``freeze`` are sampled, because their points are trained; axes over
``hardware`` are enumerated for each frozen network. All that can be known to be wrong before training is refused here.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import tomllib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from codesign.basics.errors import CodesignWarning, InputError, UnsupportedError
from codesign.basics.files import read_text
from codesign.config import (
    MAX_CONFIG_BYTES,
    Config,
    Count,
    HardwareConfig,
    Section,
    Target,
    apply_override,
    parse_config,
    parse_section,
    root_paths,
)
from codesign.config.text import plain

TRAINED = ("data", "network", "train", "freeze")
ENUMERATED = ("hardware",)
# Values of a hardware axis, and machines of one network.
MAX_VALUES = 64
MAX_MACHINES = 4096
# Configurations that are tried for each value of an axis before training.
MAX_TRIED = 512
# Significant digits of a sampled number, which people will read in commands.
DIGITS = 4

Sampler = Literal["tpe", "nsga2", "random"]
Aim = Literal["minimise", "maximise"]


@dataclass(frozen=True)
class Metric:
    """A figure of a point that may be an objective or have limits.

    unit : for a reader. low, high : what it can be at all. per_device : counted in the cells of a device.
    """

    text: str
    unit: str
    low: float = 0.0
    high: float = math.inf
    per_device: bool = False


METRICS: dict[str, Metric] = {
    "accuracy": Metric("validation accuracy", "", high=1.0),
    "density": Metric("density", "", high=1.0),
    "synapses": Metric("synapses", ""),
    "memory_bits": Metric("memory", "bits"),
    "cycles": Metric("clocks of a sample", "clocks"),
    "interval_cycles": Metric("clocks between samples", "clocks"),
    "latency_us": Metric("latency", "us"),
    "interval_us": Metric("time between samples", "us"),
    "energy_nj": Metric("energy of a sample", "nJ"),
    "lut": Metric("logic", "LUT", per_device=True),
    "ff": Metric("flip-flops", "FF", per_device=True),
    "bram": Metric("block RAM", "blocks", per_device=True),
    "dsp": Metric("multipliers", "DSP", per_device=True),
}
TIMES = ("latency_us", "interval_us")
_LIMIT = re.compile(r"^(\w+)\s*(<=|>=)\s*([-+0-9.eE_]+)$")
_FITS = re.compile(r"^fits\s+(\S+)$")


# Steps of a range, which a decimal number can count.
MAX_STEPS = 1e15
# Whole numbers are those that a TOML file can hold.
Number = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | float


class Range(Section):
    """An axis of numbers from ``low`` to ``high``, both among them; whole numbers if both are.

    ``step`` counts from ``low``; the last value is then the last one that is no greater than ``high``. ``log`` samples
    the logarithm evenly; on a hardware axis values double.
    """

    low: Number
    high: Number
    step: Number | None = None
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low = {self.low:g} is not below high = {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError("log needs low above 0")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError(f"step = {self.step:g} does not lie between 0 and high - low")
        if self.whole and isinstance(self.step, float):
            raise ValueError(f"step = {self.step:g} is no whole number, as low and high are")
        if self.step is not None and (self.high - self.low) / self.step > MAX_STEPS:
            raise ValueError(f"step = {self.step:g} gives more than {MAX_STEPS:g} values")
        return self

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def _spacing(self) -> Decimal | None:
        """From one value to the next, as it is written; None where any number is one."""
        step = 1 if self.step is None and self.whole else self.step
        return None if step is None else Decimal(str(step))

    @property
    def count(self) -> int | None:
        """How many values it has; None where any number is one."""
        spacing = self._spacing
        return None if spacing is None else int((Decimal(str(self.high)) - Decimal(str(self.low))) // spacing) + 1

    def value(self, number: int) -> int | float:
        """The value of a number of 0 to ``count`` - 1."""
        assert self._spacing is not None
        found = Decimal(str(self.low)) + number * self._spacing
        return int(found) if self.whole else float(found)

    def nearest(self, value: float) -> int | float:
        """The value nearest to a number; the number itself, between the ends, where any is a value."""
        if self.count is None or self._spacing is None:
            return float(min(max(value, self.low), self.high))
        number = (Decimal(str(value)) - Decimal(str(self.low))) / self._spacing
        return self.value(min(max(round(number), 0), self.count - 1))


class BudgetOfStudy(Section):
    """How much is searched: no more is begun once one of these is reached."""

    networks: Count | None = Field(default=None, description="networks to train")
    points: Count | None = Field(default=None, description="points, networks times machines")
    minutes: Annotated[float, Field(gt=0)] | None = Field(default=None, description="time of one call")

    @model_validator(mode="after")
    def _given(self) -> BudgetOfStudy:
        if self.networks is None and self.points is None and self.minutes is None:
            raise ValueError("give networks, points or minutes, or the search has no end")
        return self


class FrontOfStudy(Section):
    """What is done with points of the front at the end. Each then has a run folder with its Verilog and report."""

    most: Annotated[int, Field(ge=0)] = Field(
        default=8, description="points at most, those that give the front its hypervolume; 0: none"
    )
    verify_samples: Annotated[int, Field(ge=0)] = Field(
        default=0, description="test samples simulated, every spike compared; 0: not simulated"
    )
    place: list[Target] = Field(default=[], description="devices to place and route for: area and clock")


class SpaceFile(Section):
    """A space file, before its axes are understood."""

    base: str | dict[str, Any] = Field(default={}, description="configuration: a path, or its sections")
    seed: Annotated[int, Field(ge=0, lt=1 << 31)] = 0
    sampler: Sampler = "tpe"
    batch: Annotated[int, Field(ge=1, le=4096)] = Field(
        default=4, description="networks that are sampled together, from what was found before them"
    )
    device: str | None = Field(default=None, description="board or FPGA whose cells and clock count")
    clock_mhz: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="clock that times assume; a board has its own"
    )
    objectives: dict[str, Aim] = Field(default={}, description="figures to minimise or maximise")
    constraints: list[str] = Field(default=[], description="'lut <= 2000', 'accuracy >= 0.97', 'fits icebreaker'")
    budget: BudgetOfStudy
    front: FrontOfStudy = FrontOfStudy()
    axes: dict[str, Any] = Field(default={}, description="values of configuration keys: a list, or {low, high}")


@dataclass(frozen=True)
class Axis:
    """Values of one configuration key: ``values``, or a range of numbers."""

    key: str
    values: tuple[Any, ...] | None
    range: Range | None = None

    @property
    def trained(self) -> bool:
        """True if a network has to be trained for each value."""
        return self.key.partition(".")[0] in TRAINED

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that are tried before training: all, or the ends and the middle of a range."""
        if self.values is not None:
            return self.values
        assert self.range is not None
        low, high = self.range.low, self.range.nearest(self.range.high)
        middle = math.sqrt(low) * math.sqrt(high) if self.range.log else (low + high) / 2
        return tuple(dict.fromkeys((low, self.tidy(middle), high)))

    def tidy(self, value: float) -> float:
        """A number of the range, with few digits where any number is one."""
        assert self.range is not None
        return self.range.nearest(float(f"{value:.{DIGITS}g}") if self.range.count is None else value)

    @property
    def size(self) -> float:
        """How many values it has."""
        if self.values is not None:
            return len(self.values)
        assert self.range is not None
        return math.inf if self.range.count is None else self.range.count


@dataclass(frozen=True)
class Limit:
    """``metric <= value`` or ``metric >= value``."""

    metric: str
    sense: Literal["<=", ">="]
    value: float

    @property
    def text(self) -> str:
        return f"{self.metric} {self.sense} {_digits(self.value)}"

    def excess(self, found: float) -> float:
        """By how much of the limit a figure breaks it; 0 or less if it keeps it."""
        over = found - self.value if self.sense == "<=" else self.value - found
        return over / (abs(self.value) or 1.0)


def _digits(value: float) -> str:
    """A number in as few digits as tell it from all others."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value).removesuffix(".0")


@dataclass(frozen=True)
class Fits:
    """``fits DEVICE``: a device or a board, whose link counts too."""

    device: str

    @property
    def text(self) -> str:
        return f"fits {self.device}"


@dataclass(frozen=True)
class Machine:
    """A machine of the enumeration: the values of the hardware axes, and the section that they lead to."""

    choices: Mapping[str, Any]
    hardware: HardwareConfig


@dataclass(frozen=True)
class Space:
    """A space that can be searched. Made by :func:`load_space` and :func:`parse_space`.

    where : what messages call it. base : the configuration's tables. refused : machines of the enumeration that are
    not built, with the reason.
    """

    where: str
    base: Mapping[str, Any]
    file: SpaceFile
    axes: tuple[Axis, ...]
    limits: tuple[Limit, ...]
    fits: tuple[Fits, ...]
    clock_mhz: float | None
    family: str | None

    @property
    def trained_axes(self) -> tuple[Axis, ...]:
        return tuple(axis for axis in self.axes if axis.trained)

    @property
    def hardware_axes(self) -> tuple[Axis, ...]:
        return tuple(axis for axis in self.axes if not axis.trained)

    @property
    def objectives(self) -> dict[str, Aim]:
        return self.file.objectives

    @property
    def networks(self) -> float:
        """How many different networks the space has."""
        return math.prod(axis.size for axis in self.trained_axes)

    def config(self, choices: Mapping[str, Any]) -> Config:
        """The configuration of a point. Raises InputError and UnsupportedError as :func:`codesign.parse_config`."""
        document = json.loads(json.dumps(self.base))
        # A network trains in one process of one core, and the same wherever it is trained.
        if isinstance(train := document.setdefault("train", {}), dict):
            train.setdefault("threads", 1)
        for key, value in choices.items():
            _place(document, key, value)
        with warnings.catch_warnings():
            # A goal and a key that goes against it are both wanted by whoever lists them.
            warnings.simplefilter("ignore", CodesignWarning)
            return parse_config(document, f"{self.where}: {_shown(choices)}")

    def machines(self, choices: Mapping[str, Any]) -> tuple[list[Machine], list[dict[str, str]]]:
        """Machines of the networks of ``choices``, each once, and those that are refused: ``{"machine", "reason"}``."""
        found: dict[str, Machine] = {}
        refused = []
        axes = self.hardware_axes
        for values in product(*(axis.values or () for axis in axes)):
            chosen = dict(zip((axis.key for axis in axes), values))
            try:
                hardware = self.config({**choices, **chosen}).hardware
            except (InputError, UnsupportedError) as error:
                refused.append({"machine": _shown(chosen), "reason": _reason(error)})
                continue
            content = json.dumps(plain(hardware) | {"goal": _goal_of(hardware)}, sort_keys=True)
            found.setdefault(content, Machine(chosen, hardware))
        return list(found.values()), refused

    @cached_property
    def document(self) -> dict[str, Any]:
        """What makes it this space, in JSON's types; the budget and what is done with the front apart."""
        return {
            "base": json.loads(json.dumps(self.base)),
            **{key: getattr(self.file, key) for key in ("seed", "sampler", "batch", "device", "objectives")},
            "clock_mhz": self.clock_mhz,
            "constraints": [found.text for found in (*self.limits, *self.fits)],
            "axes": {
                axis.key: list(axis.values) if axis.values is not None else axis.range.model_dump(mode="json")  # type: ignore[union-attr]
                for axis in self.axes
            },
        }


def _goal_of(hardware: HardwareConfig) -> str | None:
    """The goal as far as it still decides anything: what "auto" means for lanes and schedules."""
    return hardware.goal if "auto" in (hardware.lanes, hardware.schedule) else None


def _reason(error: Exception) -> str:
    """What a configuration is refused for, without its name."""
    return str(error).rpartition(": configuration: ")[2] or str(error)


def _shown(choices: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {json.dumps(value)}" for key, value in choices.items()) or "base"


def _place(document: dict[str, Any], key: str, value: Any) -> None:
    """Set ``a.b.0.c`` in nested tables and lists. Raises InputError where there is no such place."""
    place: Any = document
    *names, last = key.split(".")
    for name in names:
        if isinstance(place, list):
            if not name.isdecimal() or int(name) >= len(place):
                raise InputError(f"axes.{key}: base has no entry {name!r} there")
            place = place[int(name)]
        else:
            place = place.setdefault(name, {})
        if not isinstance(place, (dict, list)):
            raise InputError(f"axes.{key}: {name} is not a section of base")
    if isinstance(place, list):
        raise InputError(f"axes.{key}: {last!r} is no key")
    place[last] = value


def load_space(path: str | Path, overrides: Sequence[str] = ()) -> Space:
    """Space of a TOML file, with ``--set section.key=value`` changes of its base configuration.

    A relative ``base``, and relative paths in it (``data.path``, ``train.start``), start at the folder of their file.
    Raises InputError with one line per problem.
    """
    path = Path(path)
    document = _read_toml(path, "no such space file; docs/choosing.md shows one")
    if "axes" not in document and document.keys() & Config.model_fields.keys() - SpaceFile.model_fields.keys():
        raise InputError(f"{path}: is a configuration, no space of a search; `codesign run` takes it")
    return _parse(document, str(path), path.parent.resolve(), overrides)


def parse_space(document: Mapping[str, Any], where: str = "space") -> Space:
    """Space from nested tables, as a TOML file holds them. Raises InputError with one line per problem."""
    return _parse(document, where, Path.cwd(), ())


def _read_toml(path: Path, absent: str) -> dict[str, Any]:
    text = read_text(path, absent, MAX_CONFIG_BYTES)
    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: not TOML ({error})") from None
    except RecursionError:
        raise InputError(f"{path}: not TOML (nested too deep)") from None


def _parse(document: Mapping[str, Any], where: str, folder: Path, overrides: Sequence[str]) -> Space:
    file = parse_section(SpaceFile, document, where)
    base = _base(file.base, folder, overrides)
    axes = tuple(_axis(key, given, where) for key, given in file.axes.items())
    if not axes:
        raise InputError(f"{where}: axes: there are none, so there is nothing to search; name keys with their values")
    _check_metrics(file, where)
    limits, fits = _constraints(file.constraints, where)
    clock, family = _device(file, limits, where)
    space = Space(where, base, file, axes, limits, fits, clock, family)
    _check_limits(space)
    _check_axes(space)
    return space


def _base(given: str | Mapping[str, Any], folder: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The base configuration's tables, their paths from the root on."""
    if isinstance(given, str):
        path = folder / given
        document, folder = _read_toml(path, "no such configuration (base of a space)"), path.parent
    else:
        document = json.loads(json.dumps(given, default=str))
    root_paths(document, folder)
    for override in overrides:
        apply_override(document, override)
    return json.loads(json.dumps(document, default=str))


def _axis(key: str, given: Any, where: str) -> Axis:
    name = f"{where}: axes.{key}"
    section = key.partition(".")[0]
    if section not in (*TRAINED, *ENUMERATED) or "." not in key:
        raise InputError(f"{name}: axes are keys of {', '.join((*TRAINED, *ENUMERATED))}, such as 'freeze.weight_bits'")
    if isinstance(given, list):
        distinct = list({json.dumps(value, default=str, sort_keys=True): value for value in given}.values())
        if not distinct:
            raise InputError(f"{name}: an empty list has no values")
        if len(distinct) > MAX_VALUES:
            raise InputError(f"{name}: {len(distinct)} values, the limit is {MAX_VALUES}; use {{low, high}}")
        return Axis(key, tuple(distinct))
    if not isinstance(given, dict):
        raise InputError(f"{name}: expected a list of values or {{low, high}} (given {given!r})")
    found = parse_section(Range, given, name)
    if section in ENUMERATED:
        return Axis(key, tuple(_steps(found, name)))
    return Axis(key, None, found)


def _steps(found: Range, name: str) -> Iterator[float]:
    """Values of a range that is enumerated."""
    if found.count is None:
        raise InputError(f"{name}: hardware is enumerated; give a list, whole numbers or a step")
    doubled = (found.low * (1 << number) for number in itertools.count())
    values = doubled if found.log else map(found.value, range(found.count))
    for number, value in enumerate(itertools.takewhile(lambda value: value <= found.high, values)):
        if number >= MAX_VALUES:
            raise InputError(f"{name}: more than {MAX_VALUES} values; use a larger step, or log")
        yield value


def _check_metrics(file: SpaceFile, where: str) -> None:
    unknown = [name for name in file.objectives if name not in METRICS]
    if unknown:
        raise InputError(f"{where}: objectives: {unknown[0]!r} is none of {', '.join(METRICS)}")
    if not file.objectives:
        raise InputError(f"{where}: objectives: there are none; name some, such as accuracy = 'maximise'")


def _constraints(texts: Sequence[str], where: str) -> tuple[tuple[Limit, ...], tuple[Fits, ...]]:
    limits, fits = [], []
    for text in texts:
        place, limit = _FITS.match(text.strip()), _LIMIT.match(text.strip())
        if place:
            _find_device(place[1], f"{where}: constraints: {text!r}")
            fits.append(Fits(place[1]))
            continue
        try:
            value = float(limit[3]) if limit else math.nan
        except ValueError:
            value = math.nan
        if limit is None or not math.isfinite(value):
            raise InputError(f"{where}: constraints: {text!r} is neither 'fits DEVICE' nor like 'lut <= 2000'")
        if limit[1] not in METRICS:
            raise InputError(f"{where}: constraints: {limit[1]!r} is none of {', '.join(METRICS)}")
        limits.append(Limit(limit[1], "<=" if limit[2] == "<=" else ">=", value))
    return tuple(limits), tuple(fits)


def _find_device(name: str, where: str) -> Any:
    from boards.registry import find_device

    try:
        return find_device(name)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _device(file: SpaceFile, limits: Sequence[Limit], where: str) -> tuple[float | None, str | None]:
    """The clock that times assume and the family whose cells count, each as far as it is needed."""
    from boards.registry import BOARDS

    clock, family = file.clock_mhz, None
    if file.device is not None:
        family = _find_device(file.device, f"{where}: device").family
        if clock is None and file.device in BOARDS:
            clock = BOARDS[file.device].clock_hz / 1e6
    used = [*file.objectives, *(limit.metric for limit in limits)]
    for name in used:
        if METRICS[name].per_device and family is None:
            raise InputError(f"{where}: {name} counts the cells of a device; name it with device = 'ecp5-25f'")
        if name in TIMES and clock is None:
            raise InputError(f"{where}: {name} needs clock_mhz, or a board as the device")
    return clock, family


def _check_limits(space: Space) -> None:
    """Raise InputError for constraints that no point can keep."""
    where = f"{space.where}: constraints"
    for limit in space.limits:
        metric = METRICS[limit.metric]
        if (limit.sense == "<=" and limit.value < metric.low) or (limit.sense == ">=" and limit.value > metric.high):
            raise InputError(f"{where}: {limit.text!r} is kept by nothing; {limit.metric} is {_interval(metric)}")
        for other in space.limits:
            meets = other.metric == limit.metric and limit.sense == "<=" and other.sense == ">="
            if meets and limit.value < other.value:
                raise InputError(f"{where}: {limit.text!r} and {other.text!r} contradict each other")


def _interval(metric: Metric) -> str:
    return f"at least {metric.low:g}" if math.isinf(metric.high) else f"{metric.low:g} to {metric.high:g}"


def _check_axes(space: Space) -> None:
    """Raise InputError for keys that do not exist and for values that go with no others, as their configuration says.

    Every value is tried with the first ones of the other axes, then with all, as far as there are at most
    ``MAX_TRIED``: of what is refused in some combinations only, those are left out of the search.
    """
    count = math.prod(len(axis.values or ()) for axis in space.hardware_axes)
    if count > MAX_MACHINES:
        raise InputError(f"{space.where}: axes: {count} machines of each network, the limit is {MAX_MACHINES}")
    least_steps: list[int] = []
    good: set[tuple[str, str]] = set()
    errors: dict[tuple[str, str], tuple[type[Exception], str]] = {}

    def wanted() -> list[tuple[str, str]]:
        every = [(axis.key, json.dumps(value)) for axis in space.axes for value in axis.ends]
        return [item for item in every if item not in good]

    def attempt(values: Sequence[Any]) -> None:
        chosen = dict(zip((axis.key for axis in space.axes), values))
        marks = [(key, json.dumps(value)) for key, value in chosen.items()]
        try:
            config = space.config(chosen)
        except (InputError, UnsupportedError) as error:
            reason = str(error).removeprefix(f"{space.where}: {_shown(chosen)}: ").removeprefix("configuration: ")
            for mark in marks:
                errors.setdefault(mark, (type(error), reason))
            return
        good.update(marks)
        least_steps.append(config.network.timesteps)

    if space.config({}).budget.active:
        raise InputError(f"{space.where}: base: [budget] chooses bits and lanes, as axes do; leave it out")
    first = [axis.ends[0] for axis in space.axes]
    attempt(first)
    for place, axis in enumerate(space.axes):
        for value in axis.ends:
            attempt([*first[:place], value, *first[place + 1 :]])
    for number, values in enumerate(product(*(axis.ends for axis in space.axes))):
        if number >= MAX_TRIED or not wanted():
            break
        attempt(values)
    # What is refused together is told of the axis that the refusal names.
    for key, value in sorted(wanted(), key=lambda mark: mark[0] not in errors[mark][1]):
        kind, reason = errors[key, value]
        raise kind(f"{space.where}: axes.{key} = {value} goes with no values of the other axes: {reason}")
    _check_steps(space, min(least_steps))


def _check_steps(space: Space, timesteps: int) -> None:
    """Raise InputError for limits of time that are below a clock a timestep, which every machine takes."""
    for limit in space.limits:
        clocks = {"latency_us": space.clock_mhz, "cycles": 1.0}.get(limit.metric)
        if clocks is not None and limit.sense == "<=" and limit.value * clocks < timesteps:
            raise InputError(
                f"{space.where}: constraints: {limit.text!r} is {limit.value * clocks:g} clocks; a sample of "
                f"{timesteps} timesteps takes a clock each at least"
            )


def differences(present: Mapping[str, Any], kept: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """What differs between two spaces' documents, ``key is A there and B here``; the order of axes counts, since what
    is sampled and how machines are numbered follow from it."""
    for key in dict.fromkeys((*present, *kept)):
        ours, theirs = present.get(key), kept.get(key)
        name = f"{place}{key}"
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            yield from differences(ours, theirs, f"{name}.")
            if name == "axes" and ours.keys() == theirs.keys() and list(ours) != list(theirs):
                yield f"axes are in the order {', '.join(theirs)} there and {', '.join(ours)} here"
        elif ours != theirs:
            yield f"{name} is {json.dumps(theirs)} there and {json.dumps(ours)} here"
