"""One import from the file to the frozen network: what becomes the same, what becomes another, and by how much."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from codesign.basics.arrays import checked_labels
from codesign.basics.errors import InputError
from codesign.basics.files import file_hash
from codesign.basics.progress import Progress, silent
from codesign.contract.deadcode import remove_dead_code
from codesign.contract.floating import FloatNetwork
from codesign.contract.network import FrozenNetwork
from codesign.contract.scaling import Scale
from codesign.contract.stimulus import Stimulus
from codesign.interchange import lava, own
from codesign.interchange.facts import Asked, Facts, Findings
from codesign.interchange.measure import Measured, measure
from codesign.interchange.nir_file import read_nir
from codesign.interchange.preparing import NOTHING_PREPARED, Options, Tuner, prepare
from codesign.interchange.samples import Roles, check_classes, check_tuning, read_samples, split
from codesign.interchange.sources import NEURONS
from codesign.quantise.integers import Change, quantise

SOURCES = (*NEURONS, lava.NAME, own.NAME)
NOTHING_MEASURED = "no samples: scales from the weights and widths from their bounds, nothing was measured"


@dataclass(frozen=True)
class Import:
    """What an import gives.

    floating : the float network of the source; None where its integers are taken as they are.
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
    weight_bits: int | None = None,
    scale: Scale | None = None,
    leak_tolerance: float | None = None,
    drop_refractory: bool = False,
    max_accuracy_drop: float | None = None,
    density: float | None = None,
    fine_tune: Tuner | None = None,
    training: str | Path | None = None,
    progress: Progress = silent,
) -> Import:
    """The network of a file in the meaning of ``source``, in integers.

    samples : a stimulus, or an npz with ``x`` (and ``y``): :func:`read_samples`. Every second one is measured on, the
        others choose widths and bits.
    weight_bits (8), scale, leak_tolerance, drop_refractory : as of :func:`codesign.quantise_network`.
    max_accuracy_drop : 0..1; takes bits from the weights of each layer, from ``weight_bits`` down, as long as the
        accuracy on samples that choose stays so near to the source's.
    density : share of the weights that stay (:func:`codesign.interchange.pruning.prune`).
    fine_tune : trains the network, pruned if it is to be, before it becomes integers: a :class:`codesign.FineTuning`.
        Of the samples that choose three of four are trained on, the others choose the epoch and the bits; the same of
        the samples of the file ``training``, if there is one. ``progress`` tells of it.

    Raises InputError for a file that is wrong, a fact that nothing says (the line names the option) and an option that
    means nothing to this network, UnsupportedError for what the frozen network does not hold.

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
    options = Options(
        weight_bits, scale, leak_tolerance, drop_refractory, max_accuracy_drop, density, fine_tune, training
    )
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
    if network is None and (stated := options.stated()):
        raise InputError(f"{stated[0]}: the integers of {file} are taken as they are; leave it out")
    roles = None
    if stimulus is not None:
        _check_samples(stimulus, network or frozen, samples)
        roles = split(stimulus) if network is None else _roles(network, stimulus, samples, options)
    made = None
    if network is not None:
        made = prepare(network, options, roles, progress)
        calibration = None if roles is None else roles.calibration
        quantised = quantise(made.network, calibration, weight_bits=made.bits, **options.quantising)
        findings.changed += [*made.changes, *quantised.changes]
        frozen = _without_dead_code(quantised.network, findings)
    assert frozen is not None
    measured = None
    several = facts.spikes == "several"
    if roles is not None and network is not None:
        measured = measure(network, frozen, roles.reported, several=several)
    if several:
        findings.changed.append(_clamping(measured))
    document = {
        "file": str(file),
        "sha256": file_hash(file),
        "source": source,
        "options": facts.stated(),
        "network_hash": frozen.hash,
        "neurons": [layer.n_out for layer in frozen.layers],
        "synapses": frozen.n_synapses,
        **findings.document(),
        "samples": None if roles is None else roles.document(),
        **(NOTHING_PREPARED if made is None else made.document),
        "measured": None if measured is None else measured.document(),
        "note": NOTHING_MEASURED if stimulus is None else None,
        "hardware": frozen.hardware_support(),
    }
    calibration, reported = (None, None) if roles is None else (roles.calibration, roles.reported)
    return Import(network, frozen, findings, measured, calibration, reported, document)


def _roles(network: FloatNetwork, stimulus: Stimulus, samples: Any, options: Options) -> Roles:
    """The samples by what they are for. Raises InputError where there are too few for what is asked for."""
    if options.max_accuracy_drop is not None and len(stimulus) < 2:
        raise InputError(f"--max-accuracy-drop: {samples} has one sample; it takes others to choose than to report")
    if options.fine_tune is None:
        return split(stimulus)
    training = None
    if options.training is not None:
        training = read_samples(Path(options.training), network.coding.input_bits)
        _check_samples(training, network, options.training)
        if training.timesteps != network.timesteps:
            raise InputError(f"{options.training} has {training.timesteps} timesteps, {samples} {network.timesteps}")
    for given, path in ((stimulus, samples), (training, options.training)):
        if given is not None:
            check_tuning(given, path)
    roles = split(stimulus, tuned=True, training=training)
    check_classes(roles, samples if training is None else options.training)
    return roles


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
    asked = Asked(facts)
    timesteps = asked.get("timesteps")
    asked.check(own.NAME)
    network = own.read_own(file)
    if timesteps not in (None, network.timesteps):
        raise InputError(f"--timesteps {timesteps}, but the network of {file} has {network.timesteps}")
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
    """Raise InputError unless all samples, whatever for, have the network's inputs and labels of its classes."""
    assert network is not None
    if stimulus.n_inputs != network.n_inputs:
        raise InputError(f"{path}: samples have {stimulus.n_inputs} inputs, the network {network.n_inputs}")
    checked_labels(stimulus.labels, network.n_outputs, path, name="labels", lowest=-1)
