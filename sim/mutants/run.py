"""Makes the mutants of a delivered machine and simulates them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codesign.basics.errors import CodesignError
from codesign.basics.progress import Progress, silent
from codesign.contract.network import FrozenNetwork
from codesign.contract.sidecar import Sidecar, read_sidecar
from codesign.contract.stimulus import Stimulus
from sim.decoder import compare_decoded
from sim.loads import LoadStep, verify_loads
from sim.mutants.data import data_mutants
from sim.mutants.rtl import rtl_mutants
from sim.mutants.scene import Mutant, Scene
from sim.verify import verify_bundle

MUTANT_SAMPLES = 6
# Each draw generates a bundle.
MAPPER_DRAWS = 6
KINDS = ("data", "rtl", "mapper")


@dataclass(frozen=True)
class Faulty:
    """A fault of the mapper. ``make`` writes the bundle that the faulty mapper gives into a folder; False if the
    machine has no place for the fault."""

    name: str
    make: Callable[[Path, np.random.Generator], bool]


@dataclass(frozen=True)
class Reload:
    """The load image of the machine's own network, and the sidecar that says how to read the machine then."""

    image: bytes
    sidecar: Sidecar


def run_mutants(
    bundle: Path,
    network: FrozenNetwork,
    stimulus: Stimulus,
    work: Path,
    *,
    mapper: Sequence[Faulty] = (),
    reload: Reload | None = None,
    samples: int = MUTANT_SAMPLES,
    seed: int = 1,
    workers: int = 2,
    kinds: Sequence[str] = KINDS,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Make and simulate every mutant of a bundle on the first ``samples`` samples, and the unmutated control.

    mapper : faults of the mapper, from whoever can generate the machine again.
    reload : of a loadable machine that starts with a network; mutants of the loader are loaded with it.

    Returns ``{"mutants": [{"name", "kind", "component", "caught", "first_divergence", "decoder_catches", "reason",
    "error"}], "control": {...}, "caught", "total", "errors"}``. ``caught`` means that the simulation found a
    differing value; ``decoder_catches`` whether decoding the images alone would have shown the fault (None for RTL).
    ``error`` says why a mutant could not be made, built or simulated to its end; it counts in ``errors``. ``work`` is
    emptied first. Raises InputError if the bundle is not of the network, UnsupportedError if the accelerator does not
    cover the network.
    """
    network.require_hardware()
    bundle, work = Path(bundle), Path(work)
    chosen = stimulus.take(slice(0, samples))
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    mutants = make_mutants(Scene(bundle, network, chosen), work, mapper, seed=seed, kinds=kinds, progress=progress)
    mutants = [mutant for mutant in mutants if not mutant.loads or _loads(bundle) or reload is not None]
    control = Mutant("unmutated", "control", "", bundle, "must pass", loads=_loads(bundle) or reload is not None)
    done = 0

    def simulate(mutant: Mutant) -> dict[str, Any]:
        nonlocal done
        place = work / mutant.kind / mutant.name.replace(" ", "_") / "work"
        result = _simulate(mutant, network, chosen, place, seed, reload)
        done += 1
        progress(done, len(mutants) + 1, mutant.name)
        return result

    with ThreadPoolExecutor(max_workers=workers) as pool:
        results = list(pool.map(simulate, [control, *mutants]))
    return {
        "mutants": results[1:],
        "control": results[0],
        "caught": sum(bool(result["caught"]) for result in results[1:]),
        "total": len(mutants),
        "errors": sum(result["error"] is not None for result in results[1:]),
    }


def make_mutants(
    scene: Scene,
    work: Path,
    mapper: Sequence[Faulty] = (),
    *,
    seed: int = 1,
    kinds: Sequence[str] = KINDS,
    progress: Progress = silent,
) -> list[Mutant]:
    """Every mutant of a machine, its bundle written below ``work``, not simulated."""
    mutants: list[Mutant] = []
    for kind in kinds:
        progress(0, 0, f"making {kind} mutants")
        rng = np.random.default_rng([seed, *kind.encode()])
        if kind == "data":
            mutants += data_mutants(scene, work / kind, rng)
        elif kind == "rtl":
            mutants += rtl_mutants(scene, work / kind)
        else:
            mutants += _mapper_mutants(scene, work / kind, mapper, rng)
    return mutants


def _mapper_mutants(scene: Scene, work: Path, mapper: Sequence[Faulty], rng: np.random.Generator) -> list[Mutant]:
    reason = "the golden model of the generated images differs on the verified samples"
    mutants = []
    for fault in mapper:
        target = work / fault.name.replace(" ", "_") / "bundle"
        for _ in range(MAPPER_DRAWS):
            try:
                if not fault.make(target, rng):
                    break
                if scene.shows_images(target):
                    mutants.append(Mutant(fault.name, "mapper", "mapper", target, reason))
                    break
            except Exception as error:
                # A fault of ours, to be told as such beside the mutants that can be made.
                mutants.append(Mutant(fault.name, "mapper", "mapper", target, reason, _line(error)))
                break
    return mutants


def _loads(bundle: Path) -> bool:
    """True if the machine is loaded before every run."""
    load = read_sidecar(bundle).load
    return load is not None and load.boot is not None


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, CodesignError) else f"{type(error).__name__}: {text}"


def _simulate(
    mutant: Mutant, network: FrozenNetwork, stimulus: Stimulus, work: Path, seed: int, reload: Reload | None
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "name": mutant.name,
        "kind": mutant.kind,
        "component": mutant.component,
        "caught": False,
        "first_divergence": None,
        "decoder_catches": None,
        "reason": mutant.reason,
        "error": mutant.error,
    }
    if mutant.error is not None:
        return result
    found: list[Any] = []
    try:
        if mutant.kind in ("data", "mapper", "control"):
            result["decoder_catches"] = not compare_decoded(mutant.bundle, network)["equal"]
        if not mutant.loads or reload is None or mutant.kind == "control":
            found.append(
                verify_bundle(
                    mutant.bundle,
                    network,
                    stimulus,
                    work,
                    stress_samples=2,
                    seed=seed,
                    waves=False,
                    workers=1,
                    latency=False,
                    decode=False,
                    # What differs is to be found in what the machine does, not in its text.
                    facts=mutant.kind == "control",
                    optimise="-O0",
                )
            )
        if mutant.loads and reload is not None:
            steps = [
                LoadStep("built", None, network, stimulus),
                LoadStep("loaded", reload.image, network, stimulus, reload.sidecar),
            ]
            found.append(verify_loads(mutant.bundle, steps, work.with_name("loads"), seed=seed))
    except CodesignError as error:
        return {**result, "error": _line(error)}
    first = next((each.first_divergence for each in found if each.first_divergence is not None), None)
    return {
        **result,
        "caught": any(each.mismatches > 0 for each in found),
        "first_divergence": first.to_json() if first is not None else None,
    }
