"""From the source's float network to the one that becomes integers: pruned, fine-tuned, its bits chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from codesign.basics.errors import InputError
from codesign.basics.progress import Progress
from codesign.contract.deadcode import remove_dead_code
from codesign.contract.floating import FloatNetwork
from codesign.contract.network import FrozenNetwork
from codesign.contract.scaling import Scale
from codesign.contract.stimulus import Stimulus
from codesign.interchange import choosing
from codesign.interchange.pruning import at_densities, prune
from codesign.interchange.samples import Roles
from codesign.quantise.integers import Change, quantise

WEIGHT_BITS = 8
NOTHING_PREPARED: dict[str, Any] = dict.fromkeys(("weight_bits", "bits_chosen", "bit_costs", "fine_tuning", "pruning"))


class Tuner(Protocol):
    """Trains a float network further at the connections that it has: :class:`codesign.FineTuning`."""

    def __call__(
        self, network: FloatNetwork, training: Stimulus, validation: Stimulus, progress: Progress = ..., text: str = ...
    ) -> tuple[FloatNetwork, int, list[dict[str, Any]]]: ...


@dataclass(frozen=True)
class Options:
    """How a float network becomes integers, as :func:`import_file` has it; None or False where nothing is asked for."""

    weight_bits: int | None
    scale: Scale | None
    leak_tolerance: float | None
    drop_refractory: bool
    max_accuracy_drop: float | None
    density: float | None
    fine_tune: Tuner | None
    training: str | Path | None

    def stated(self) -> list[str]:
        """The options that are, as the command line writes them."""
        names = [each.name for each in fields(self)]
        names = [name for name in names if getattr(self, name) is not None and getattr(self, name) is not False]
        return [f"--{name.replace('_', '-')}" for name in names]

    @property
    def quantising(self) -> dict[str, Any]:
        """Arguments of :func:`quantise` but for the bits."""
        given = {"scale": self.scale, "leak_tolerance": self.leak_tolerance}
        stated = {name: value for name, value in given.items() if value is not None}
        return {**stated, "drop_refractory": self.drop_refractory}


@dataclass(frozen=True)
class Prepared:
    """The network that becomes integers, the bits of its layers, what changed, and what the document says of it."""

    network: FloatNetwork
    bits: list[int]
    changes: list[Change]
    document: dict[str, Any]


def prepare(source: FloatNetwork, options: Options, roles: Roles | None, progress: Progress) -> Prepared:
    """Prune, fine-tune and choose bits, as far as it is asked for.

    Without samples that are apart from the reported ones nothing is chosen and nothing compared. Raises InputError for
    an option without the samples that it takes.
    """
    choosers = others = None
    if roles is not None and roles.apart:
        choosers, others = roles.choosing, roles.reported
    if options.training is not None and options.fine_tune is None:
        raise InputError("--training: there is nothing to train; add --fine-tune EPOCHS")
    if options.drop_refractory and not any(layer.refractory for layer in source.layers):
        raise InputError("--drop-refractory: no neuron has a refractory period; leave it out")

    def freeze(which: FloatNetwork, bits: list[int], calibration: Stimulus | None = None) -> FrozenNetwork:
        return quantise(which, calibration, weight_bits=bits, **options.quantising).network

    document = dict(NOTHING_PREPARED)
    changes: list[Change] = []
    network = source
    if options.density is not None:
        pruned = prune(source, options.density)
        network, changes = pruned.network, list(pruned.changes)
        document["pruning"] = {
            "density": options.density, "weights": list(pruned.weights), "kept": list(pruned.kept), "trade_off": None
        }  # fmt: skip
    variants = [] if options.density is None or others is None else at_densities(source, options.density)
    tune: Tune | None = None
    if options.fine_tune is not None:
        tune = _tuning(options.fine_tune, roles, progress, max(1, len(variants)))
        network, document["fine_tuning"] = tune(network, options.density)
        changes.append(_tuned(document["fine_tuning"], roles))
    bits = [options.weight_bits or WEIGHT_BITS] * len(source.layers)
    if options.max_accuracy_drop is not None:
        chosen = choosing.fewest_bits(source, network, freeze, bits[0], options.max_accuracy_drop, choosers)
        bits, document["bits_chosen"] = list(chosen.bits), asdict(chosen)
    elif choosers is not None:
        with_bits = [(count, freeze(network, [count] * len(bits))) for count in choosing.BITS]
        document["bit_costs"] = choosing.costs("bits", source, with_bits, choosers)
    if variants and roles is not None and others is not None:
        tried = [("", variants)]
        if tune is not None:
            ours = [(d, network if d == options.density else tune(which, d)[0]) for d, which in variants]
            tried.append(("tuned", ours))
        curves = [
            choosing.costs(
                "density",
                source,
                [(d, remove_dead_code(freeze(which, bits, roles.calibration))) for d, which in networks],
                others,
                choosing.MAX_REPORTED,
            )
            for _, networks in tried
        ]
        document["pruning"]["trade_off"] = {**curves[0], "tuned": curves[1]["rows"] if tune is not None else None}
    return Prepared(network, bits, changes, {**document, "weight_bits": bits})


# A fine-tuned network, at a density if it was pruned, and what the document says of its training.
Tune = Callable[[FloatNetwork, float | None], tuple[FloatNetwork, dict[str, Any]]]


def _tuning(tuner: Tuner, roles: Roles | None, progress: Progress, count: int) -> Tune:
    """The fine-tuning with these samples; ``count`` networks are to come, of which ``progress`` tells."""
    if roles is None or roles.training is None:
        raise InputError("--fine-tune needs --samples with labels (y) to train and to choose with")
    training, finished = roles.training, 0

    def tune(network: FloatNetwork, density: float | None) -> tuple[FloatNetwork, dict[str, Any]]:
        nonlocal finished

        def told(done: float, total: float, text: str = "") -> None:
            progress(finished + done / max(total, 1), count, text)

        text = "" if density is None else f"density {density:g}, "
        found, epoch, history = tuner(network, training, roles.choosing, told, text)
        finished += 1
        return found, {"epochs": len(history) - 1, "epoch": epoch, "history": history}

    return tune


def _tuned(found: dict[str, Any], roles: Roles | None) -> Change:
    """What a fine-tuning did to the weights, in accuracy on the samples that chose the epoch."""
    assert roles is not None and roles.training is not None
    before, after = (found["history"][epoch]["validation_accuracy"] for epoch in (0, found["epoch"]))
    text = (
        f"trained on {len(roles.training)} samples, epoch {found['epoch']} of {found['epochs']} chosen on "
        f"{len(roles.choosing)} others: accuracy there {100 * before:.2f} % before, {100 * after:.2f} % after"
    )
    return Change("network", "fine-tuning", text, after - before)
