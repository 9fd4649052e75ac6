"""Mutants of a delivered machine, those of the mapper among them: the generator and the testbench meet here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from codesign.basics.errors import CodesignError, InputError, MismatchError
from codesign.basics.progress import Progress, silent
from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus
from sim.mutants import Faulty, Reload


def delivered_faults(bundle: Path, network: FrozenNetwork) -> tuple[list[Faulty], Reload | None]:
    """Faults of the mapper for a delivered machine, and what reloads it; None if it is not loadable, or is loaded
    before every run.

    The machine is generated again with its own choices, lanes and placement. Raises InputError for a damaged sidecar
    and for a network that is not the bundle's.
    """
    from codesign.contract.sidecar import read_sidecar
    from codesign.machine.load import compile_load
    from codesign.machine.remapping import delivered_map
    from rtl_templates.mapper_faults import mapper_faults
    from sim.delivered import delivered_choices

    sidecar, choices = read_sidecar(bundle), delivered_choices(bundle)
    if sidecar.network_hash != network.hash:
        raise InputError(f"{bundle}: not of this network; its design.json names {sidecar.network_hash[:16]}")
    mapping = delivered_map(network, sidecar, choices)
    faults = [Faulty(fault.name, fault.make) for fault in mapper_faults(network, mapping, sidecar.name)]
    if not choices.loadable or choices.starts_empty:
        return faults, None
    load = compile_load(network, sidecar)
    return faults, Reload(load.image, load.sidecar)


def run_delivered(
    bundle: Path, network: FrozenNetwork, stimulus: Stimulus, work: Path, *, seed: int = 1, progress: Progress = silent
) -> dict[str, Any]:
    """Every mutant of a delivered bundle (:func:`sim.mutants.run_mutants`)."""
    from sim.mutants import run_mutants

    mapper, reload = delivered_faults(bundle, network)
    return run_mutants(bundle, network, stimulus, work, mapper=mapper, reload=reload, seed=seed, progress=progress)


def judge_mutants(mutants: Sequence[dict[str, Any]]) -> None:
    """Raise MismatchError (exit 4) for mutants that were simulated and not caught.

    A mutant that could not be made, built or simulated says nothing of the checker: it is a fault of codesign, and
    raises CodesignError (exit 1).
    """
    escaped = [mutant["name"] for mutant in mutants if not mutant["caught"] and mutant["error"] is None]
    broken = [mutant for mutant in mutants if mutant["error"] is not None]
    if escaped:
        raise MismatchError(f"{len(escaped)} of {len(mutants)} mutants not caught: {', '.join(escaped)}")
    if broken:
        first, more = broken[0], f", and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise CodesignError(
            f"a fault in codesign: mutant {first['name']!r} could not be built ({first['error']}){more}; "
            "the others were caught"
        )
