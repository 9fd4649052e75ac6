"""A study whose networks cost nothing: what is trained and estimated follows from the configuration by a formula."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from codesign.explore import jobs, run_study, study
from codesign.explore.jobs import Failed, NetworkJob
from codesign.explore.space import parse_space

SPACE: dict[str, Any] = {
    "base": {"network": {"hidden": [8], "timesteps": 2}},
    "axes": {
        "train.rewiring.target_density": {"low": 0.02, "high": 0.5, "log": True},
        "freeze.weight_bits": [3, 4, 6],
        "train.learning_rate": {"low": 0.001, "high": 0.1},
        "hardware.lanes": [1, 2, 4],
    },
    "device": "ecp5-25f",
    "objectives": {"accuracy": "maximise", "lut": "minimise", "cycles": "minimise"},
    "constraints": ["cycles <= 4500"],
    "batch": 3,
    "budget": {"networks": 8},
    "front": {"most": 0},
}


class Stopped(BaseException):
    """The process ends here."""


class Fakes:
    """Stand for the jobs. ``stop`` names the job that does not return; ``done`` is what was really done."""

    def __init__(self, stop: int | None = None, kill: bool = False) -> None:
        self.stop, self.kill, self.done, self.fail = stop, kill, [], {}  # type: ignore[var-annotated]

    def _begin(self, what: str, path: Path) -> None:
        if self.stop is not None and len(self.done) == self.stop:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise Stopped
        self.done.append((what, path.name))

    def train(self, expected: str, job: NetworkJob, progress: Any = None) -> Failed | None:
        assert expected == jobs.stamp()
        job.trained.mkdir(parents=True, exist_ok=True)
        if not (job.trained / "trained").exists():
            self._begin("train", job.trained)
            (job.trained / "trained").touch()
        return None

    def freeze(
        self, expected: str, job: NetworkJob, machines: Any, estimates: Path, trained: Any, progress: Any = None
    ) -> Any:
        if trained is not None:
            return trained
        rewiring, bits = job.config.train.rewiring, job.config.freeze.weight_bits
        if (rewiring.target_density, bits) in self.fail:
            return Failed(self.fail[rewiring.target_density, bits])
        path = job.frozen / "result.json"
        if not path.exists():
            self._begin("freeze", job.frozen)
            density = rewiring.target_density
            rate = abs(job.config.train.learning_rate - 0.03)
            job.frozen.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({
                "accuracy": round(0.98 - 0.02 / (density + 0.05) / bits - rate, 6), "density": density,
                "synapses": round(10000 * density), "weight_bits": bits, "network_hash": "", "seconds": 1.0,
            }))  # fmt: skip
        found = json.loads(path.read_text())
        rows = []
        for machine in machines:
            area = {"lut": 500 + 150 * machine.lanes + 20 * bits, "ff": 300, "bram": 2.0, "dsp": 0, "spram": 0}
            rows.append({
                "lanes": [machine.lanes] * 2, "schedule": "timestep", "memory_bits": found["synapses"] * (bits + 7),
                "cycles": found["synapses"] / machine.lanes + 40, "interval_cycles": found["synapses"] / machine.lanes,
                "energy_nj": found["synapses"] / 100,
                "area": {family: dict(area) for family in ("ecp5", "ice40", "xilinx", "gowin")},
            })  # fmt: skip
        return {**found, "machines": rows}

    def put(self, patch: Any, *, draw: bool = False) -> None:
        patch.setattr(study, "train_network", self.train)
        patch.setattr(study, "freeze_network", self.freeze)
        patch.setattr(study.Study, "_look_at_tests", lambda self, front: None)
        if not draw:
            patch.setattr(study.Study, "draw", lambda self: None)


def explore(folder: Path, **changes: Any) -> dict[str, Any]:
    return run_study(parse_space({**SPACE, **changes}), folder, 1, None, None, "cpu", lambda *_: None)


def essence(document: dict[str, Any]) -> Any:
    """What has to be the same however a study came about."""
    points = [(point["name"], point["choices"], point["metrics"], point["front"]) for point in document["points"]]
    return points, document["hypervolume"]


if __name__ == "__main__":
    from pytest import MonkeyPatch

    patch = MonkeyPatch()
    Fakes(int(sys.argv[3]), kill=True).put(patch)
    explore(Path(sys.argv[1]), sampler=sys.argv[2])
