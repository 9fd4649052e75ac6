"""From the trained to the frozen network: what rounding and the removal of dead neurons have changed."""

from __future__ import annotations

from typing import Any

from codesign.report.blocks import Section, gap, number, share
from codesign.report.collect import Record


def freezing(record: Record) -> Section | None:
    """Steps with size and accuracy, and by layer what went and why. None for a network that was not trained here."""
    if record.run.is_imported:
        return None
    section = Section("freezing", "From the trained to the frozen network")
    found = record.freezing
    if record.network is None or not found.get("neurons"):
        gap(section, record, "what freezing changed", "freeze")
        return section
    bits = record.figures.get("weight_bits")
    section.text(
        "Training works with floating-point weights, hardware with integers. Freezing rounds the weights"
        + (f" to {bits} bits" if bits else "")
        + ", fine-tunes them with the connections fixed, and removes what can no longer matter. The removal changes no "
        "decision."
    )
    section.table(["step", "synapses", "neurons", "validation accuracy", "test accuracy"], steps(record))
    section.caption(
        "Validation samples chose the epoch that was kept. Test samples were used once, at the end: steps in between "
        "have no test accuracy."
    )
    section.heading("What was removed, by layer")
    section.table(
        [
            "layer", "connections trained", "rounded to 0", "gone with neurons", "synapses left",
            "neurons trained", "no path to the output", "never fire", "neurons left",
        ],
        by_layer(record),
    )  # fmt: skip
    section.caption(
        "Rounded to 0: the weight is so small that its integer is 0, which is no synapse. Gone with neurons: synapses "
        "to and from removed neurons. No path to the output: no synapses lead from the neuron to the output. Never "
        "fire: nothing that fires reaches the neuron, and its bias is not enough to make it fire."
    )
    return section


def steps(record: Record) -> list[list[str]]:
    """Rows of the path: step, synapses, neurons, accuracy on validation and on test samples; a dash where unknown."""
    found, figures, network = record.freezing, record.figures, record.network
    assert network is not None
    tuned = found.get("fine_tuning", [])
    whole, zeros = _total(found.get("synapses")), _total(found.get("weights_rounded_to_zero"))
    neurons, trained = _total(found.get("neurons")), None
    if whole is not None and zeros is not None:
        trained = whole + zeros
    rows: list[tuple[str, Any, Any, Any, Any]] = [
        (
            "trained, floating point",
            trained,
            neurons,
            found.get("accuracy_validation_float"),
            figures.get("accuracy_float"),
        ),
    ]
    if tuned:
        rows.append(("rounded to integers", trained, neurons, tuned[0].get("validation_accuracy"), None))
        best = _kept(tuned)
        if len(tuned) > 1:
            name = f"fine-tuned in integers, epoch {best['epoch']} of {len(tuned) - 1} kept"
            rows.append((name, trained, neurons, best.get("validation_accuracy"), None))
    rows += [
        ("without weights that are 0", whole, neurons, None, None),
        (
            "without dead neurons: the frozen network",
            network.n_synapses,
            sum(layer.n_out for layer in network.layers),
            found.get("accuracy_validation"),
            figures.get("accuracy_frozen"),
        ),
    ]
    verified = figures.get("samples_verified")
    if verified and record.hardware_accuracy is not None:
        name = f"hardware, {record.of_test_samples(verified)} simulated"
        rows.append((name, network.n_synapses, rows[-1][2], None, record.hardware_accuracy))
    return [
        [name, number(synapses), number(count), share(validation, 2), share(test, 2)]
        for name, synapses, count, validation, test in rows
    ]


def by_layer(record: Record) -> list[list[str]]:
    """Rows by layer: connections and neurons, what went of them for which reason, and what is left."""
    found, network = record.freezing, record.network
    assert network is not None
    rows = []
    for index, (name, layer) in enumerate(zip(record.layer_names, network.layers, strict=True)):
        whole, zeros, neurons, gone, pathless = (
            _item(found.get(key), index)
            for key in ("synapses", "weights_rounded_to_zero", "neurons", "removed_neurons", "neurons_without_path")
        )
        rows.append(
            [
                name,
                number(None if whole is None or zeros is None else whole + zeros),
                number(zeros),
                number(None if whole is None else whole - layer.n_synapses),
                number(layer.n_synapses),
                number(neurons),
                number(pathless),
                number(None if gone is None or pathless is None else gone - pathless),
                number(layer.n_out),
            ]
        )
    return rows


def _kept(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The epoch whose weights were kept: the best validation accuracy, of equal ones the least loss, the first."""

    def rank(row: dict[str, Any]) -> tuple[float, float]:
        accuracy, loss = row.get("validation_accuracy"), row.get("validation_loss")
        return (-1.0 if accuracy is None else accuracy), (0.0 if loss is None else -loss)

    return max(rows, key=rank)


def _total(values: list[int] | None) -> int | None:
    return sum(values) if values else None


def _item(values: list[int] | None, index: int) -> int | None:
    return values[index] if values is not None and index < len(values) else None
