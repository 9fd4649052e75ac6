"""Which networks to train next: Optuna, with its journal as the study's memory.

Networks are sampled in batches. All trials of a batch are in the journal before one of them is trained, and a batch
begins when the one before is done. A trial's sampler is seeded by the study's seed and the trial's number, and sees
what the batches before have found. So the networks of a study follow from its space and their results: not from the
number of workers, nor from who was first, nor from when the study was stopped and gone on with.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from codesign.basics.errors import InputError
from codesign.basics.files import explain_write_errors, write_bytes
from codesign.explore.space import Axis, Space

if TYPE_CHECKING:
    import optuna

JOURNAL = "trials.journal"
NAME = "codesign"
STATES = {"RUNNING": "waiting", "COMPLETE": "done", "FAIL": "failed"}
# Where a trial keeps by how much it breaks each constraint.
EXCESS = "excess"
# Samples drawn for one trial: the sampler's own first, which may insist on what is taken or refused, then random ones,
# before the rest of a small space is looked through.
GUIDED, ATTEMPTS = 8, 256
# Networks of a finite space up to which what is left is listed.
MAX_LISTED = 100_000


@dataclass(frozen=True)
class Trial:
    """A network to train, or trained: its number, the values of the trained axes, and how it stands.

    state : "waiting", "done" or "failed".
    """

    number: int
    choices: dict[str, Any]
    state: str


class Trials:
    """The trials of a study, in the journal of ``folder``, which the caller has locked.

    Raises InputError if the journal is damaged or that of another space.
    """

    def __init__(self, space: Space, folder: Path) -> None:
        with _quiet():
            import optuna
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend

            self._optuna = optuna
            self._space = space
            self._path = folder / JOURNAL
            of = {"minimise": optuna.study.StudyDirection.MINIMIZE, "maximise": optuna.study.StudyDirection.MAXIMIZE}
            self._directions = [of[aim] for aim in space.objectives.values()]
            self._distributions = {axis.key: _distribution(axis) for axis in space.trained_axes}
            _drop_half_line(self._path)
            with explain_write_errors(self._path):
                try:
                    # The folder's lock keeps others out; a lock of the journal's own would outlive a killed process.
                    self._storage = JournalStorage(JournalFileBackend(str(self._path), _Unlocked()))  # type: ignore[arg-type]
                    self._study = optuna.create_study(
                        storage=self._storage, study_name=NAME, directions=self._directions, load_if_exists=True
                    )
                    self._id = self._storage.get_study_id_from_name(NAME)
                    self._check()
                except OSError:
                    raise
                except Exception as error:
                    # Whatever a damaged journal leads the library to.
                    raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> InputError:
        text = " ".join(str(error).split())[:200] or type(error).__name__
        return InputError(f"{self._path}: is no journal of this study ({text}); restore it")

    def _check(self) -> None:
        if self._study.directions != self._directions:
            raise ValueError("its objectives are others")
        for trial in self._study.get_trials(deepcopy=False):
            if trial.distributions != self._distributions or set(trial.params) != set(self._distributions):
                raise ValueError(f"trial {trial.number} is of other axes")
            if trial.state.name not in STATES or not all(map(math.isfinite, trial.values or [])):
                raise ValueError(f"trial {trial.number} has no such state or values")
            excess = trial.user_attrs.get(EXCESS, {})
            if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in excess.values()):
                raise ValueError(f"trial {trial.number} has no such constraints")
            self._space.config(self._choices(trial.params))
        # Adding checks what reading the journal does not: that parameters are in their ranges and states have their
        # values; to the batch that is under way and to one after it, which see different things of a trial.
        trials = self._study.get_trials(deepcopy=False)
        for begin in (0, len(trials)):
            self._remembered(trials, begin)

    def all(self) -> list[Trial]:
        """Every trial so far, by number."""
        return [
            Trial(trial.number, self._choices(trial.params), STATES[trial.state.name])
            for trial in self._study.get_trials(deepcopy=False)
        ]

    def next(self, limit: float) -> list[Trial]:
        """The batch that is not done, or a new one, as long as there are no more than ``limit`` trials; else none.

        Every trial is in the journal when this returns. No network is sampled twice, and none whose configuration is
        refused.
        """
        with _quiet():
            known = self.all()
            first = next((trial.number for trial in known if trial.state == "waiting"), len(known))
            size = self._space.file.batch
            end = min(first // size * size + size, limit)
            while len(known) < end and self._add():
                known = self.all()
        return [trial for trial in known if trial.state == "waiting"]

    def tell(self, number: int, values: Sequence[float] | None, excess: Mapping[str, float] | None = None) -> None:
        """Record what a network came to: objective values, and by how much it breaks each constraint; None: failed.

        A trial that is recorded already stays as it is.
        """
        if self._study.get_trials(deepcopy=False)[number].state.is_finished():
            return
        with _quiet(), explain_write_errors(self._path):
            trial = self._storage.get_trial_id_from_study_id_trial_number(self._id, number)
            self._storage.set_trial_user_attr(trial, EXCESS, dict(excess or {}))
            if values is None:
                self._study.tell(number, state=self._optuna.trial.TrialState.FAIL)
            else:
                self._study.tell(number, list(values))

    def _add(self) -> bool:
        """Sample one more network into the journal; False if the space has no other."""
        earlier = self._study.get_trials(deepcopy=False)
        taken = {_text(self._choices(trial.params)) for trial in earlier}
        sampled = self._sample(earlier, lambda choices: _text(choices) not in taken and self._is_valid(choices))
        if sampled is None:
            return False
        params, attributes = sampled
        with explain_write_errors(self._path):
            self._study.add_trial(self._running(params, attributes))
        return True

    def _running(self, params: Mapping[str, Any], attributes: Mapping[str, Any]) -> optuna.trial.FrozenTrial:
        return self._optuna.trial.create_trial(
            state=self._optuna.trial.TrialState.RUNNING,
            params=dict(params),
            distributions=self._distributions,
            system_attrs=dict(attributes),
        )

    def _as_seen(self, trial: optuna.trial.FrozenTrial, begin: int) -> optuna.trial.FrozenTrial:
        """A trial as those of the batch from ``begin`` on see it: their own batch has no results yet."""
        if trial.number >= begin:
            return self._running(trial.params, trial.system_attrs)
        if trial.values is None:
            return trial
        return self._optuna.trial.create_trial(
            values=trial.values,
            params=trial.params,
            distributions=trial.distributions,
            system_attrs=trial.system_attrs,
            constraints=trial.user_attrs.get(EXCESS),
        )

    def _remembered(self, earlier: Sequence[optuna.trial.FrozenTrial], begin: int) -> optuna.Study:
        """A study without a journal, of ``earlier`` trials as those of the batch from ``begin`` on see them."""
        study = self._optuna.create_study(directions=self._directions)
        study.add_trials([self._as_seen(trial, begin) for trial in earlier])
        return study

    def _sample(
        self, earlier: Sequence[optuna.trial.FrozenTrial], wanted: Callable[[dict[str, Any]], bool]
    ) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Parameters of the next trial and what its sampler notes of it; None if nothing is left."""
        number = len(earlier)
        begin = number // self._space.file.batch * self._space.file.batch
        memory = self._remembered(earlier, begin)
        for attempt in range(ATTEMPTS):
            memory.sampler = self._sampler(number, attempt)
            try:
                trial = memory.ask(self._distributions)
            except Exception as error:
                # What a sampler noted of earlier trials has a form that it alone knows.
                raise self._damaged(error) from None
            if wanted(self._choices(trial.params)):
                found = memory.get_trials(deepcopy=False)[trial.number]
                return dict(found.params), dict(found.system_attrs)
            memory.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)
        left = [params for params in self._listed() if wanted(self._choices(params))]
        if not left:
            return None
        return left[int(np.random.default_rng((self._space.file.seed, number)).integers(len(left)))], {}

    def _sampler(self, number: int, attempt: int) -> Any:
        samplers, batch = self._optuna.samplers, self._space.file.batch
        seed = int(np.random.SeedSequence((self._space.file.seed, number, attempt)).generate_state(1)[0])
        if attempt >= GUIDED or self._space.file.sampler == "random":
            return samplers.RandomSampler(seed=seed)
        if self._space.file.sampler == "tpe":
            return samplers.TPESampler(seed=seed, n_startup_trials=batch)
        return samplers.NSGAIISampler(seed=seed, population_size=max(2, batch))

    def _listed(self) -> list[dict[str, Any]]:
        """Every network of a small space."""
        from itertools import product

        if self._space.networks > MAX_LISTED:
            return []
        keys = list(self._distributions)
        return [dict(zip(keys, values)) for values in product(*(_every(axis) for axis in self._space.trained_axes))]

    def _choices(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Values of a trial's axes, as a configuration takes them."""
        found = {}
        for axis in self._space.trained_axes:
            value = params[axis.key]
            found[axis.key] = json.loads(value) if axis.values is not None else axis.tidy(value)
        return found

    def _is_valid(self, choices: Mapping[str, Any]) -> bool:
        return bool(self._space.machines(choices)[0])


class _Unlocked:
    """No lock: one process at a time has the folder."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


class _quiet:
    """Optuna without its log lines, and without its warnings that a part of it is new."""

    def __enter__(self) -> None:
        self._filters = warnings.catch_warnings()
        self._filters.__enter__()
        warnings.simplefilter("ignore")
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)

    def __exit__(self, *error: object) -> None:
        self._filters.__exit__(None, None, None)


def _drop_half_line(path: Path) -> None:
    """Cut what a process that was killed while it wrote has left behind the last whole line."""
    if path.is_file():
        text = path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if whole != text:
            write_bytes(path, whole)


def _distribution(axis: Axis) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if axis.values is not None:
        return CategoricalDistribution([json.dumps(value, sort_keys=True) for value in axis.values])
    assert axis.range is not None
    found = axis.range
    # The last step is whole.
    last = found.nearest(found.high)
    if found.whole:
        return IntDistribution(int(found.low), int(last), log=found.log, step=int(found.step or 1))
    return FloatDistribution(float(found.low), float(last), log=found.log, step=found.step)


def _every(axis: Axis) -> list[Any]:
    """Every value of a finite axis, as a trial has them."""
    if axis.values is not None:
        return [json.dumps(value, sort_keys=True) for value in axis.values]
    assert axis.range is not None
    return [axis.range.value(number) for number in range(int(axis.size))]


def _text(choices: Mapping[str, Any]) -> str:
    return json.dumps(choices, sort_keys=True)
