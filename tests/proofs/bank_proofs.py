# amaranth: UnusedElaboratable=no

"""Proofs of a lane's neurons: sweeps of every reset, compare, leak and term, and sums of synapses in any order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np

from codesign.contract.network import FrozenLayer, Leak
from codesign.machine.choices import Pipeline
from codesign.machine.encoding import PLAIN
from codesign.machine.plan import Clocks
from rtl_templates.accumulation import Accumulation
from rtl_templates.neurons import NeuronBank

from .defects import Defect, Edit
from .harness import Harness
from .lif import STREAMS, BankHarness, Sums, bank_layer, every_mode, schedule
from .proof import Proof

_SUFFIX: dict[Pipeline, str] = {"deep": "", "short": "-short"}
_REMARK: dict[Pipeline, str] = {"deep": "", "short": ", short pipeline"}
FLIP = {">=": ">", ">": ">="}
LEAKS = {
    "none": (Leak(), Leak("shift", 1)),
    "shift": (Leak("shift", 2), Leak("shift", 3)),
    "multiply": (Leak("multiply", 3, 5), Leak("multiply", 3, 6)),
}
# Of each neuron its own.
OWN_SHIFT = Leak("shift", np.array([1, 3]))
OWN_MULTIPLY = Leak("multiply", np.array([3, 2]), np.array([5, 1]))
# By membrane width. 16 bits and 8-bit weights are what a trained network has.
SIZES: dict[int, dict[str, Any]] = {
    4: {"weights": [3, -4, 3, -3], "threshold": [5, 9], "bias": [0, -3], "reset_value": -2, "fraction_bits": 1},
    10: {
        "weights": [31, -31, 31, -31],
        "threshold": [150, 77],
        "bias": [5, -40],
        "reset_value": -37,
        "fraction_bits": 2,
    },
    16: {"weights": [127, -127], "threshold": [9000, 15], "bias": [7, -300], "reset_value": 99, "fraction_bits": 6},
}
TEXT: dict[Sums, str] = {
    "events": "events",
    "streams": f"{STREAMS} streams of events",
    "masks": "masks of timesteps",
    "current": "current",
}


def _bank_depth(
    sums: Sums, window: int, *, sweeps: int = 2, pipeline: Pipeline = "deep", has_current: bool = False
) -> int:
    """Clocks of reset, sweeps of two slots, windows, and until the last sweep is shown."""
    clocks = Clocks.of(
        pipeline,
        PLAIN,
        has_sum=sums != "events",
        has_current=has_current,
        streams=STREAMS if sums == "streams" else 1,
        collects=sums == "masks",
    )
    found = schedule(sums, 2, window=window, sweeps=sweeps, write=clocks.write, pipeline=pipeline)
    return 1 + len(found) + clocks.fire + 1


def _sweeps(sums: Sums, refractory: int = 0) -> int:
    """As many as a sum serves, and until the rest that is left is known."""
    return max(3 if sums in ("masks", "current") else 2, 1 + (1 << refractory.bit_length()) - 1)


def _modes(width: int, leak: Leak) -> list[FrozenLayer]:
    return every_mode(leak, n_out=2, membrane_width=width, **SIZES[width])


def _fire(
    width: int,
    kind: str,
    sums: Sums,
    *,
    modes: slice = slice(None),
    fast: bool = False,
    pipeline: Pipeline = "deep",
) -> Proof:
    leak, other = LEAKS[kind]
    # As many synapses as reach the bounds of the sum.
    window = len(SIZES[width]["weights"]) // 2
    layers = _modes(width, leak)[modes]

    def harness(**seeded) -> Harness:
        return BankHarness(layers, sums=sums, sweeps=_sweeps(sums), window=window, pipeline=pipeline, **seeded)

    def built(name: str, change: Callable[[FrozenLayer], FrozenLayer]) -> Defect:
        return Defect(name, harness=lambda: harness(built=[change(layer) for layer in layers]))

    resets = {"subtract": "zero", "zero": "subtract", "value": "none", "none": "value"}
    defects = {
        "none": built("compare flipped", lambda layer: replace(layer, compare=FLIP[layer.compare])),
        "shift": built("another leak", lambda layer: replace(layer, leak=other)),
        "multiply": built("another reset", lambda layer: replace(layer, reset=resets[layer.reset])),
    }
    depth = _bank_depth(sums, window, sweeps=_sweeps(sums), pipeline=pipeline)
    names = "all resets and compares" if modes == slice(None) else ", ".join(f"{x.reset} {x.compare}" for x in layers)
    return Proof(
        f"fire-{sums}-{kind}-{width}" + ("" if modes == slice(None) else f"-{len(layers)}") + _SUFFIX[pipeline],
        "a sweep is sum, leak, bias, compare, reset and saturation, exactly",
        f"NeuronBank, W = {width}, {TEXT[sums]}, leak {kind}, {names}" + _REMARK[pipeline],
        "bmc",
        depth,
        harness,
        tuple(defects.values()) if fast else (defects[kind],),
        depth,
        fast=fast,
    )


def _integrator(*, has_current: bool = False) -> Proof:
    sizes = {**SIZES[10], "reset_value": 0}
    current = {"current_leak": Leak("multiply", 3, 5), "current_width": 10} if has_current else {}
    layer = bank_layer(n_out=2, membrane_width=10, leak=Leak("shift", 2), reset="none", **sizes, **current)

    def harness(**seeded) -> Harness:
        return BankHarness([layer], window=2, readout="membrane_last", **seeded)

    depth = _bank_depth("events", 2, has_current=has_current)
    other = Defect("another leak", harness=lambda: harness(built=[replace(layer, leak=Leak("shift", 1))]))
    bias = Defect("bias to the membrane, too", Edit(NeuronBank, "0 if has_current else bias", "bias"), harness)
    return Proof(
        "fire-integrator" + ("-synaptic" if has_current else ""),
        "a layer of a membrane readout shows u and never fires",
        "NeuronBank, W = 10, events, leak shift" + (", synaptic current of 10 bits" if has_current else ""),
        "bmc",
        depth,
        harness,
        (other, *([bias] if has_current else [])),
        depth,
    )


def _forwarding(sums: Sums, pipeline: Pipeline = "deep") -> Proof:
    window = 5
    # Narrow numbers: what is forwarded to whom does not depend on their width.
    layer = bank_layer(n_out=2, membrane_width=4, weights=[1, -1] * 3, threshold=[2, 1], bias=[0, 1])

    def harness(**seeded) -> Harness:
        return BankHarness([layer], sums=sums, sweeps=_sweeps(sums), window=window, pipeline=pipeline, **seeded)

    def dropped(which: str) -> Defect:
        return Defect(
            f"{which} synapse not forwarded",
            Edit(Accumulation, rf"forward_{which}_1\.eq\(", f"forward_{which}_1.eq(0 & ", "__init__"),
            harness,
        )

    depth = _bank_depth(sums, window, sweeps=_sweeps(sums), pipeline=pipeline)
    # A short pipeline has nothing between the synapse that reads and the one that writes.
    pairs = (dropped("near"), dropped("far")) if pipeline == "deep" else (dropped("far"),)
    return Proof(
        f"forwarding-{sums}{_SUFFIX[pipeline]}",
        "synapses of any slots in any clocks add up as in a memory that is written at once",
        f"NeuronBank, {TEXT[sums]}, every pattern of {window} clocks on 2 slots{_REMARK[pipeline]}",
        "bmc",
        depth,
        harness,
        (*pairs, Defect("sum one bit narrower", harness=lambda: harness(narrower=1))),
        depth,
        fast=sums == "events",
    )


def _term_layers(width: int) -> list[FrozenLayer]:
    """Every term that a membrane can have, with every reset, and leaks of single neurons."""
    shift, multiply = LEAKS["shift"][0], LEAKS["multiply"][0]
    terms: list[dict[str, Any]] = [
        {"reset_delay": True, "leak": shift},
        {"reset_delay": True, "leak": OWN_MULTIPLY, "compare": ">"},
        {"reset_delay": True, "leak": OWN_SHIFT},
        {"refractory": 1, "leak": OWN_SHIFT},
        {"refractory": 1, "leak": shift, "reset": "zero", "compare": ">"},
        {"refractory": 1, "leak": OWN_MULTIPLY, "reset": "value"},
        {"refractory": 1, "leak": multiply, "reset": "none", "compare": ">"},
        {"leak": OWN_MULTIPLY, "reset": "zero"},
    ]
    return [_layer(width, **found) for found in terms]


def _layer(width: int, **terms: Any) -> FrozenLayer:
    sizes = SIZES[width] if terms.get("reset") == "value" else {**SIZES[width], "reset_value": 0}
    return bank_layer(n_out=2, membrane_width=width, **sizes, **terms)


def _synaptic(layers: Sequence[FrozenLayer]) -> list[FrozenLayer]:
    """The same with a synaptic current, whose leak is of any kind, as wide as the membrane."""
    leaks = [LEAKS["shift"][0], OWN_SHIFT, OWN_MULTIPLY, Leak(), LEAKS["multiply"][0]]
    return [
        replace(layer, current_leak=leaks[number % len(leaks)], current_width=layer.membrane_width)
        for number, layer in enumerate(layers)
    ]


def _seeded(layers: Sequence[FrozenLayer], sums: Sums, harness: Callable[..., Harness]) -> dict[str, list[Defect]]:
    """Defects of each term; each is looked for in the layers that have the term.

    harness : makes one of these layers; ``built`` as of :class:`BankHarness`.
    """

    def edited(name: str, found: list[FrozenLayer], pattern: str, text: str, *method: str, owner: type = NeuronBank):
        return Defect(name, Edit(owner, pattern, text, *method), lambda: harness(found))

    def built(name: str, found: list[FrozenLayer], change: Callable[[FrozenLayer], FrozenLayer]) -> Defect:
        return Defect(name, harness=lambda: harness(found, built=[change(layer) for layer in found]))

    def constant(leak: Leak) -> Leak:
        return leak.each(lambda _, value: np.full_like(value, value[0]))

    late = [layer for layer in layers if layer.reset_delay]
    rests = [layer for layer in layers if layer.refractory]
    own = [layer for layer in layers if layer.leak.per_neuron]
    gathers = [layer for layer in layers if layer.has_current]
    own_current = [layer for layer in gathers if layer.leaks["current_leak"].per_neuron]
    used, later = r"self\.parameter_clock", 'self.parameter_clock + (name == "{}")'
    # Where the sum lies in the word of the state, what comes to a neuron that rests is dropped as it is added.
    drops = (
        edited(
            "synapses reach what rests",
            rests,
            r"if beside_sum and widths\.rest:",
            "if False:",
            "__init__",
            owner=Accumulation,
        )
        if sums == "events" and not gathers
        else edited("synapses reach what rests", rests, r"if left:", "if False:")
    )
    found: dict[str, list[Defect]] = {}
    if late:
        found["delay"] = [
            built("reset a timestep early", late, lambda layer: replace(layer, reset_delay=False)),
            edited(
                "reset of the slot before", late, r"Mux\(self\.spike,", "Mux(_delay(m, self.spike, 1),", "_less_owed"
            ),
            edited(
                "reset owed to the next sample",
                late,
                "self.write_initial, own, kept",
                "self.write_initial, added, kept",
            ),
        ]
    if rests:
        found["rest"] = [
            built("rests one timestep more", rests, lambda layer: replace(layer, refractory=layer.refractory + 1)),
            edited("spikes while it rests", rests, "reached & ~quiet", "reached", "_threshold"),
            drops,
            edited("leaks while it rests", rests, r"resting\.any\(\), _delay", "0, _delay"),
            edited("rests into the next sample", rests, r"self\.write_initial, 0, resting", "0, 0, resting"),
            edited("never rests to the end", rests, r"rest_left - 1", "rest_left", "_resting"),
        ]
    if own:
        found["own"] = [
            built("leak of the first neuron for all", own, lambda layer: replace(layer, leak=constant(layer.leak))),
            edited("leak of the slot before", own, used, later.format("leak_shift"), "_when_used"),
            edited("threshold of the slot before", own, used, later.format("threshold"), "_when_used"),
        ]
    if gathers:
        found["current"] = [
            built(
                "current one bit wider", gathers, lambda layer: replace(layer, current_width=layer.current_width + 1)
            ),
            edited("bias to the membrane, too", gathers, "0 if has_current else bias", "bias"),
            edited("clipped current not counted", gathers, r"saturated \| clipped", "saturated"),
            edited("current of the sample before", gathers, r"self\.write_initial, bias, current", "0, bias, current"),
            edited(
                "current stops while it rests",
                [layer for layer in rests if layer.has_current],
                r"exact if has_current",
                "(Mux(resting.any(), bias, exact)) if has_current",
            ),
        ]
    if own_current:
        found["own current"] = [
            built(
                "current's leak of the first neuron for all",
                own_current,
                lambda layer: replace(layer, current_leak=constant(layer.leaks["current_leak"])),
            )
        ]
    return found


def _terms(
    width: int,
    sums: Sums,
    pipeline: Pipeline = "deep",
    *,
    synaptic: bool = False,
    chosen: slice = slice(None),
    all_defects: bool = False,
    fast: bool = False,
) -> Proof:
    """Membranes with every term, with a synaptic current or without; or those of the layers that are ``chosen``."""
    layers = _term_layers(width)[chosen]
    layers = _synaptic(layers) if synaptic else layers
    window, sweeps = 2, _sweeps(sums, 1)

    def harness(found: Sequence[FrozenLayer] = layers, **seeded: Any) -> Harness:
        return BankHarness(found, sums=sums, sweeps=sweeps, window=window, pipeline=pipeline, **seeded)

    seeded = _seeded(layers, sums, harness)
    found = [defect for of_term in seeded.values() for defect in of_term]
    if not all_defects:
        # Every defect is looked for where the sum is in the state, and where it is apart; elsewhere one of the terms'.
        found = seeded["current"][1:2] if synaptic else [seeded["delay"][1], seeded["rest"][1]][: 1 + fast]
    name = "synaptic" if synaptic else "terms"
    depth = _bank_depth(sums, window, sweeps=sweeps, pipeline=pipeline, has_current=synaptic)
    return Proof(
        f"{name}-{sums}-{width}" + ("" if chosen == slice(None) else f"-{len(layers)}") + _SUFFIX[pipeline],
        "a sweep is the arithmetic with delayed resets, rests of a timestep, leaks and thresholds of single neurons"
        + (" and synaptic currents" if synaptic else ""),
        f"NeuronBank, W = {width}, {TEXT[sums]}, {len(layers)} layers: reset_delay, refractory, own leaks"
        + (f", currents of {width} bits" if synaptic else "")
        + _REMARK[pipeline],
        "bmc",
        depth,
        harness,
        tuple(found),
        depth,
        fast=fast,
    )


def _rests(sums: Sums, pipeline: Pipeline = "deep", *, synaptic: bool = False) -> Proof:
    """Rests of several timesteps, which take as many sweeps to be known."""
    layers = [_layer(4, refractory=2, leak=OWN_SHIFT), _layer(4, refractory=3, reset="zero", compare=">")]
    layers = _synaptic(layers) if synaptic else layers
    window, sweeps = 2, _sweeps(sums, 3)

    def harness(found: Sequence[FrozenLayer] = layers, **seeded: Any) -> Harness:
        return BankHarness(found, sums=sums, sweeps=sweeps, window=window, pipeline=pipeline, **seeded)

    depth = _bank_depth(sums, window, sweeps=sweeps, pipeline=pipeline, has_current=synaptic)
    fewer = [replace(layer, refractory=layer.refractory - 1) for layer in layers]
    return Proof(
        ("rest-synaptic" if synaptic else "rest") + f"-{sums}{_SUFFIX[pipeline]}",
        "after a spike a neuron keeps v and is silent for as many timesteps as stated, and is then as the others",
        f"NeuronBank, W = 4, {TEXT[sums]}, rests of 2 and 3 timesteps"
        + (", synaptic currents" if synaptic else "")
        + _REMARK[pipeline],
        "bmc",
        depth,
        harness,
        (
            Defect("rests one timestep less", harness=lambda: harness(built=fewer)),
            *_seeded(layers, sums, harness)["rest"][1:3],
        ),
        depth,
    )


def _counts(pipeline: Pipeline = "deep") -> Proof:
    layers = [_layer(4, refractory=1, leak=OWN_SHIFT), _layer(4, reset_delay=True), _layer(4, reset="value")]

    def harness(**seeded: Any) -> Harness:
        return BankHarness(layers, window=2, counts=True, pipeline=pipeline, **seeded)

    depth = _bank_depth("events", 2, pipeline=pipeline)
    return Proof(
        f"counts{_SUFFIX[pipeline]}",
        "the count beside a membrane is that of the sweep before and the spike, from 0 in every sample",
        f"NeuronBank, W = 4, events, counts, terms{_REMARK[pipeline]}",
        "bmc",
        depth,
        harness,
        (
            Defect("spike not counted", Edit(NeuronBank, r"before \+ self\.spike", "before"), harness),
            Defect(
                "counts on in the next sample",
                Edit(NeuronBank, r"self\.write_initial, 0, counted", "0, 0, counted"),
                harness,
            ),
        ),
        depth,
    )


def bank_proofs() -> list[Proof]:
    """Every proof of neurons."""
    inputs: tuple[Sums, ...] = ("events", "current")
    pipelines: tuple[Pipeline, ...] = ("deep", "short")
    return [
        _fire(4, "multiply", "events", modes=slice(0, None, 5), fast=True),
        *(_fire(width, kind, sums) for width in (4, 10) for sums in inputs for kind in LEAKS),
        *(_fire(16, kind, "events") for kind in ("none", "shift")),
        _integrator(),
        _integrator(has_current=True),
        _fire(4, "multiply", "events", pipeline="short"),
        _fire(10, "shift", "events", pipeline="short"),
        _fire(4, "shift", "current", pipeline="short"),
        *(_forwarding(sums) for sums in inputs),
        *(_forwarding(sums, "short") for sums in inputs),
        _terms(4, "events", chosen=slice(0, 4, 3), fast=True),
        *(
            _terms(
                4,
                sums,
                pipeline,
                synaptic=synaptic,
                all_defects=(sums, pipeline) in (("events", "deep"), ("current", "short")),
            )
            for synaptic in (False, True)
            for sums in get_args(Sums)
            for pipeline in pipelines
        ),
        _terms(10, "events"),
        _terms(10, "events", "short", synaptic=True),
        *(_rests("events", pipeline) for pipeline in pipelines),
        _rests("current"),
        _rests("events", synaptic=True),
        _rests("masks", "short", synaptic=True),
        *(_counts(pipeline) for pipeline in pipelines),
    ]
