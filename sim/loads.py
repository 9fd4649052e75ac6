"""Verifies a loadable machine: several networks in one simulation, and images that it has to refuse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codesign.basics.errors import InputError, ToolError
from codesign.contract import golden
from codesign.contract.network import FrozenNetwork
from codesign.contract.sidecar import SIDECAR, Sidecar, read_sidecar, write_sidecar
from codesign.contract.stimulus import Stimulus
from sim.bundle import altered_files
from sim.checker import Divergence, expected_counts
from sim.facts import check_facts
from sim.verify import Job, build_simulator, phase_results, prepare, quiet_limit, start_simulation, wait_for


@dataclass(frozen=True)
class LoadStep:
    """An image, and what must be in the machine after it.

    name : of the step in the results.
    image : bytes sent to ``l_axis``; None sends nothing.
    network, stimulus, sidecar : what must then run on the machine, and how to read it; the sidecar is that of the
        bundle for the build network, else that of the load. Without a network the machine must refuse samples.
    expected_hash : of the port, 64 bits; 0 for any.
    load_error : names of the bits of ``load_error`` that must be set.
    gap : probability of a clock without a byte, in 1/256, 0..255.
    overlaps : offer the image in the middle of a sample of the network before.
    """

    name: str
    image: bytes | None
    network: FrozenNetwork | None
    stimulus: Stimulus | None = None
    sidecar: Sidecar | None = None
    expected_hash: int = 0
    load_error: tuple[str, ...] = ()
    gap: int = 0
    overlaps: bool = False


@dataclass(frozen=True)
class LoadVerification:
    """Result of :func:`verify_loads`: comparisons by step and kind, differing values, the first of them."""

    steps: dict[str, dict[str, int]]
    mismatches: int
    first_divergence: Divergence | None

    @property
    def passed(self) -> bool:
        return self.mismatches == 0


def verify_loads(
    bundle: Path, steps: Sequence[LoadStep], work: Path, *, seed: int = 1, optimise: str = "-O0"
) -> LoadVerification:
    """Run ``steps`` one after the other in one simulation of ``bundle`` and compare every value.

    Of a step with a network: all its samples without a reset since the load, again after a reset with random gaps and
    backpressure, and each kind of ill-formed sample; spikes, membranes, output words, decisions, saturations, protocol
    errors and hash are compared with the golden model. The first step needs a network, the build network if it has no
    image. ``work`` is emptied first. Differences are reported, not raised.

    Raises InputError if the bundle is not loadable or altered, or steps do not belong together; ToolError if the
    simulator is missing or fails.
    """
    bundle, work = Path(bundle).resolve(), Path(work).resolve()
    sidecar = read_sidecar(bundle)
    if sidecar.load is None:
        raise InputError(f"{bundle / SIDECAR}: not the bundle of a loadable machine")
    altered = altered_files(bundle, sidecar)
    check_facts(bundle, sidecar)
    if altered:
        raise InputError(f"{bundle / altered[0]}: altered since generation; generate it again")
    names = [step.name for step in steps]
    if not steps or steps[0].network is None or len(set(names)) != len(names):
        raise InputError("the steps need names of their own, and the first one a network")
    prepare(work)
    folder = work / "loads"
    folder.mkdir()
    request = {
        "module": "sim.load_testbench",
        "phases": {"loads": []},
        "seed": seed,
        "waves": False,
        "quiet_limit": max(quiet_limit(step.network, sidecar) for step in steps if step.network is not None),
        "steps": [_document(step, number, sidecar, folder) for number, step in enumerate(steps)],
    }
    simulator = build_simulator(bundle, sidecar, log=work / "build.log", optimise=optimise)
    job = Job(folder, 0, _stimulus(steps[0]), {"loads": []})
    job.process = start_simulation(folder, bundle, sidecar, simulator, request)
    wait_for(job)
    result = phase_results(job)["loads"]
    counts = {step["name"]: step["comparisons"] for step in result["steps"]}
    first = result["first_divergence"]
    found = LoadVerification(counts, result["mismatches"], Divergence(**first) if first else None)
    _assert_counts(steps, found, sidecar)
    return found


def _stimulus(step: LoadStep) -> Stimulus:
    if step.network is None or step.stimulus is None or len(step.stimulus) == 0:
        raise InputError(f"step {step.name!r} needs a network and samples")
    step.stimulus.check_for(step.network)
    return step.stimulus


def _document(step: LoadStep, number: int, sidecar: Sidecar, folder: Path) -> dict[str, Any]:
    """One step of the request; what it names is written into ``folder``."""
    errors = sidecar.load.errors if sidecar.load else ()
    unknown = [name for name in step.load_error if name not in errors]
    if unknown:
        raise InputError(f"step {step.name!r}: load error {unknown[0]!r} is none of {', '.join(errors)}")
    if not 0 <= step.gap <= 255:
        raise InputError(f"step {step.name!r}: gap {step.gap!r} is outside 0..255")
    files: dict[str, str | None] = {"image": None, "network": None, "stimulus": None, "sidecar": None}
    if step.image is not None:
        files["image"] = str(folder / f"step{number}.bin")
        (folder / f"step{number}.bin").write_bytes(step.image)
    if step.network is not None:
        files |= {
            "network": str(folder / f"step{number}.safetensors"),
            "stimulus": str(folder / f"step{number}.npz"),
            "sidecar": str(folder / f"step{number}.json"),
        }
        step.network.save(folder / f"step{number}.safetensors")
        _stimulus(step).save(folder / f"step{number}.npz")
        write_sidecar(folder / f"step{number}.json", step.sidecar or sidecar)
    return {
        "name": step.name,
        **files,
        "expected_hash": f"{step.expected_hash:016x}",
        "load_error": sum(1 << errors.index(name) for name in step.load_error),
        "network_hash": step.network.hash[:16] if step.network else "0",
        "gap": step.gap,
        "overlaps": step.overlaps,
    }


def _assert_counts(steps: Sequence[LoadStep], result: LoadVerification, sidecar: Sidecar) -> None:
    """A comparison that was not made must not pass for one that found no difference."""
    if result.mismatches:
        return
    for step in steps:
        made = result.steps.get(step.name, {})
        if step.network is None:
            wanted = {"words_taken_without_network": 2}
        else:
            # The straight and the shaken run; ill-formed samples come on top.
            stimulus = _stimulus(step)
            trace = golden.run(step.network, stimulus, membranes=False, spikes=False, early_exit=sidecar.early_exit)
            wanted = expected_counts(step.network, 2 * len(stimulus), 2 * int((trace.exits + 1).sum()))
        if step.image is not None:
            wanted |= {"load_error": 1, "loaded": 1, "hash_after_load": 1, "image_taken": 1}
        for kind, count in wanted.items():
            if made.get(kind, 0) < count:
                raise ToolError(f"step {step.name!r}: {made.get(kind, 0)} comparisons of {kind}, expected {count}")
