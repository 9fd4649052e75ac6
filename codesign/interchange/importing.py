"""One import from the file to the frozen network: what becomes the same, what becomes another, and by how much."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from codesign.basics.arrays import checked_labels, read_npz, real
from codesign.basics.errors import InputError, UnsupportedError
from codesign.basics.files import file_hash
from codesign.contract.deadcode import remove_dead_code
from codesign.contract.floating import FloatNetwork
from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import ARRAYS, Stimulus
from codesign.interchange import choosing, lava, own
from codesign.interchange.facts import Facts, Findings
from codesign.interchange.measure import Measured, measure
from codesign.interchange.nir_file import read_nir
from codesign.interchange.pruning import at_densities, prune
from codesign.interchange.sources import NEURONS
from codesign.quantise.integers import LEAK_TOLERANCE, Change, Scale, quantise

SOURCES = (*NEURONS, lava.NAME, own.NAME)
NOTHING_MEASURED = "no samples: scales from the weights and widths from their bounds, nothing was measured"


@dataclass(frozen=True)
class Import:
    """What an import gives.

    floating : the float network; None where the source's integers are taken as they are.
    frozen : the frozen network, dead code removed.
    calibration, samples : what widths and bits came from, and what was measured on; None without samples.
    """

    floating: FloatNetwork | None
    frozen: FrozenNetwork
    findings: Findings
    measured: Measured | None
    calibration: Stimulus | None
    samples: Stimulus | None
    document: dict[str, Any]


def import_file(
    file: str | Path,
    source: str,
    facts: Facts,
    samples: str | Path | None = None,
    *,
    weight_bits: int = 8,
    scale: Scale = "neuron",
    leak_tolerance: float = LEAK_TOLERANCE,
    drop_refractory: bool = False,
    max_accuracy_drop: float | None = None,
    density: float | None = None,
) -> Import:
    """The network of a file in the meaning of ``source``, in integers.

    ``samples`` is a stimulus, or an npz with ``x`` (and ``y``): :func:`read_samples`. Every second one chooses widths
    and bits, the others are measured on. ``density`` is the share of the weights that stay (:func:`prune`);
    ``max_accuracy_drop``, 0..1, takes bits from the weights of each layer, from ``weight_bits`` down, as long as the
    accuracy on the samples that choose stays so near to the float network's.

    Raises InputError for a file that is wrong and for a fact that nothing says (the line names the option),
    UnsupportedError for what the frozen network does not hold.

    >>> import codesign, nir, numpy
    >>> ones = numpy.ones(2)
    >>> lif = nir.LIF(tau=1e-3 * ones, r=10 * ones, v_leak=0 * ones, v_threshold=ones)
    >>> weights = numpy.array([[0.5, 1.0, 0.2], [-0.25, 0.75, 0.1]])
    >>> nir.write("net.nir", nir.NIRGraph.from_list(nir.Linear(weights), lif))
    >>> facts = codesign.ImportFacts(reset="subtract", readout="spike_count", timesteps=3)
    >>> found = codesign.import_network("net.nir", "snntorch", facts)
    >>> found.frozen.n_inputs, found.frozen.layers[0].reset_delay
    (3, True)
    """
    file = Path(file)
    if source not in SOURCES:
        raise InputError(f"--source {source!r} is none of {', '.join(SOURCES)}")
    mine = _read_own(file, facts) if source == own.NAME else None
    stimulus = None
    if samples is not None and mine is not None:
        # Its file says itself what its input is.
        stimulus = read_samples(Path(samples), mine.coding.input_bits, stated=False)
        if stimulus.timesteps != mine.timesteps:
            raise InputError(f"{samples} has {stimulus.timesteps} timesteps, the network of {file} {mine.timesteps}")
    elif samples is not None:
        stimulus = read_samples(Path(samples), facts.input_bits)
        if facts.timesteps not in (None, stimulus.timesteps):
            raise InputError(f"--timesteps {facts.timesteps}, but {samples} has {stimulus.timesteps}")
        facts = replace(facts, timesteps=stimulus.timesteps)
    network, frozen, findings = _read(file, source, facts) if mine is None else _found(mine)
    if stimulus is not None:
        _check_samples(stimulus, frozen or network, samples)
    calibration, kept = (None, None) if stimulus is None else _shares(stimulus)
    # One sample chooses widths and is measured on; it is to choose no more.
    apart = stimulus is not None and len(stimulus) > 1
    if max_accuracy_drop is not None and stimulus is not None and not apart:
        raise InputError(f"--max-accuracy-drop: {samples} has one sample; it takes others to choose than to report")
    made: dict[str, Any] = {}
    if network is not None:
        options = {"scale": scale, "leak_tolerance": leak_tolerance, "drop_refractory": drop_refractory}
        others = (calibration, kept) if apart else (None, None)
        sparse, bits, made = _chosen(network, options, weight_bits, max_accuracy_drop, density, *others)
        quantised = quantise(sparse, calibration, weight_bits=bits, **options)
        findings.changed += [*made.pop("pruned", ()), *quantised.changes]
        frozen = _without_dead_code(quantised.network, findings)
    elif max_accuracy_drop is not None or density is not None:
        option = "--density" if max_accuracy_drop is None else "--max-accuracy-drop"
        raise InputError(f"{option}: the integers of {file} are taken as they are; leave it out")
    assert frozen is not None
    measured = None
    several = facts.spikes == "several"
    if kept is not None and network is not None:
        kept.validate(str(samples), frozen.n_outputs)
        measured = measure(network, frozen, kept, several=several)
    if several:
        findings.changed.append(_clamping(measured))
    document = {
        "file": str(file),
        "sha256": file_hash(file),
        "source": source,
        "options": {name: value for name, value in asdict(facts).items() if value not in (None, {}, 0)},
        "network_hash": frozen.hash,
        "neurons": [layer.n_out for layer in frozen.layers],
        "synapses": frozen.n_synapses,
        **findings.document(),
        "samples_that_choose": None if calibration is None else len(calibration),
        **{name: made.get(name) for name in ("weight_bits", "bits_chosen", "bit_costs", "pruning")},
        "measured": None if measured is None else measured.document(),
        "note": NOTHING_MEASURED if stimulus is None else None,
        "hardware": frozen.hardware_support(),
    }
    return Import(network, frozen, findings, measured, calibration, kept, document)


def _chosen(
    network: FloatNetwork,
    options: dict[str, Any],
    start: int,
    drop: float | None,
    density: float | None,
    choosers: Stimulus | None,
    others: Stimulus | None,
) -> tuple[FloatNetwork, list[int], dict[str, Any]]:
    """The network that is quantised, the bits of its layers, and what the document says of both.

    choosers : samples that choose. others : samples that are reported on and choose nothing. Widths are by the former.
    ``pruned`` of the last are the changes of a pruning.
    """

    def freeze(which: FloatNetwork, bits: list[int], calibration: Stimulus | None = None) -> FrozenNetwork:
        return quantise(which, calibration, weight_bits=bits, **options).network

    made: dict[str, Any] = {}
    pruned = None if density is None else prune(network, density)
    sparse = network if pruned is None else pruned.network
    bits = [start] * len(network.layers)
    if drop is not None:
        chosen = choosing.fewest_bits(network, sparse, freeze, start, drop, choosers)
        bits, made["bits_chosen"] = list(chosen.bits), asdict(chosen)
    elif choosers is not None:
        variants = [(count, freeze(sparse, [count] * len(bits))) for count in choosing.BITS]
        made["bit_costs"] = choosing.costs("bits", network, variants, choosers)
    if pruned is not None and density is not None:
        curve = None
        if others is not None:
            variants = [
                (value, remove_dead_code(freeze(which, bits, choosers)))
                for value, which in at_densities(network, density)
            ]
            curve = choosing.costs("density", network, variants, others)
        made["pruned"] = pruned.changes
        made["pruning"] = {
            "density": density, "weights": list(pruned.weights), "kept": list(pruned.kept), "trade_off": curve
        }  # fmt: skip
    return sparse, bits, {**made, "weight_bits": bits}


def _clamping(measured: Measured | None) -> Change:
    if measured is None or measured.clamped is None:
        text = "neurons fire once in a timestep, the source's several times; --samples measures what is lost"
        return Change("network", "spikes", text)
    beyond, total = measured.clamped
    share = beyond / total if total else 0.0
    text = (
        f"neurons fire once in a timestep, the source's several times: {beyond} of its {total} spikes are second ones"
    )
    if measured.accuracy_several is not None and measured.accuracy_float is not None:
        with_them, without = (100 * found for found in (measured.accuracy_several, measured.accuracy_float))
        text += f"; accuracy {with_them:.2f} % with them, {without:.2f} % without"
    return Change("network", "spikes", text, share)


def _read(file: Path, source: str, facts: Facts) -> tuple[FloatNetwork | None, FrozenNetwork | None, Findings]:
    """The network of a file, in float or, where its integers are the source's own, in integers."""
    if source == lava.NAME:
        integers = lava.read_net(file, facts)
        return None, integers.network, integers.findings
    read = read_nir(file, source, facts)
    return read.network, None, read.findings


def _read_own(file: Path, facts: Facts) -> FloatNetwork | FrozenNetwork:
    if facts != Facts(timesteps=facts.timesteps):
        raise InputError("--source codesign says all of the network; leave the other options out")
    network = own.read_own(file)
    if facts.timesteps not in (None, network.timesteps):
        raise InputError(f"--timesteps {facts.timesteps}, but the network of {file} has {network.timesteps}")
    return network


def _found(mine: FloatNetwork | FrozenNetwork) -> tuple[FloatNetwork | None, FrozenNetwork | None, Findings]:
    findings = Findings([f"{len(mine.layers)} layers of codesign's own, {mine.timesteps} timesteps, exactly"])
    return (mine, None, findings) if isinstance(mine, FloatNetwork) else (None, mine, findings)


def _without_dead_code(whole: FrozenNetwork, findings: Findings) -> FrozenNetwork:
    frozen = remove_dead_code(whole)
    removed = sum(layer.n_out for layer in whole.layers) - sum(layer.n_out for layer in frozen.layers)
    if removed:
        text = f"{removed} neurons that never fire or lead nowhere are left out: no spike of the others changes"
        findings.changed.append(Change("network", "dead code", text, float(removed)))
    return frozen


def _check_samples(stimulus: Stimulus, network: FloatNetwork | FrozenNetwork | None, path: Any) -> None:
    assert network is not None
    if stimulus.n_inputs != network.n_inputs:
        raise InputError(f"{path}: samples have {stimulus.n_inputs} inputs, the network {network.n_inputs}")


def _shares(stimulus: Stimulus) -> tuple[Stimulus, Stimulus]:
    """Samples to calibrate with and samples to measure on; all for both if there is one only."""
    if len(stimulus) < 2:
        return stimulus, stimulus
    return stimulus.take(slice(0, None, 2)), stimulus.take(slice(1, None, 2))


def read_samples(path: Path, input_bits: int = 0, *, stated: bool = True) -> Stimulus:
    """Samples of a stimulus file, or of an npz with ``x`` and perhaps labels ``y``.

    x : events, 0 or 1, (samples, timesteps, inputs or the axes of a picture). With ``input_bits``, whose constant
    currents need the number of timesteps from elsewhere, only a stimulus file is read. ``stated``: whether an option
    says ``input_bits``, and not the network's own file.

    Raises InputError in one line for a file of another form.
    """
    arrays = read_npz(path, ("x", "y", *ARRAYS))
    if "x" not in arrays:
        stimulus = Stimulus.load(path)
    elif input_bits:
        raise UnsupportedError(
            f"{path}: x, where the network takes currents; write a stimulus (Stimulus.save), which has its timesteps"
        )
    else:
        x = real(arrays["x"], "x", path)
        if x.ndim < 3 or not x.size:
            raise InputError(f"{path}: x has the shape {x.shape}, expected (samples, timesteps, inputs...)")
        if x.dtype.kind == "f":
            if np.any((x != 0) & (x != 1)):
                raise InputError(f"{path}: x holds other values than 0 and 1; events are one a source and timestep")
            x = x.astype(bool)
        labels = None
        if "y" in arrays:
            if arrays["y"].shape != (len(x),):
                raise InputError(f"{path}: y has the shape {arrays['y'].shape} for {len(x)} samples")
            labels = checked_labels(arrays["y"], None, path)
        try:
            stimulus = Stimulus.from_dense(x.reshape(*x.shape[:2], -1), labels)
            stimulus.validate(str(path))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    if stimulus.is_current != bool(input_bits):
        found, expected, option = ("currents", "events", "add --input-bits N")
        if not stimulus.is_current:
            found, expected, option = ("events", "currents", "leave --input-bits out")
        raise InputError(f"{path}: holds {found}, the network takes {expected}" + (f"; {option}" if stated else ""))
    return stimulus
