"""What stages and runs led to, in a few lines for reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from codesign.cli.console import Lines
from codesign.pipeline.findings import layer_names
from codesign.records.names import REPORT
from codesign.records.rundir import RunDirectory

Record = Mapping[str, Any]


def stage_summary(run: RunDirectory, name: str) -> Lines:
    """Lines on one stage that has just been done; of those without figures where its files are."""
    record = run.stage(name)
    outputs = ", ".join(sorted({path.split("/")[0] for path in record["outputs"]}))
    lines = {"train": training_lines, "freeze": freezing_lines}.get(name, lambda record: [])(record)
    return Lines("\n".join([*lines, f"{run.path}: {outputs}"]), record.get("warnings", []))


def training_lines(record: Record) -> list[str]:
    """Accuracy, loss, density and activity of a trained network."""
    validation = record["validation"]
    names = layer_names(len(record["layer_density"]))
    return [
        f"validation   {share(record['accuracy_validation'])} of {validation['samples']:,} samples "
        f"(guessing {share(validation['guess'])}), epoch {record['epoch']} of {record['epochs']}",
        f"loss         {record['loss']:.4g} in training, {validation['loss']:.4g} in validation, "
        f"{record['steps']:,} optimiser steps",
        f"density      {share(record['density'])} ({_by_layer(names, record['layer_density'], share)})",
        f"spikes       {_by_layer(names, record['spikes_per_sample'], '{:.4g}'.format)} per sample",
        f"operations   {record['synaptic_operations_per_sample']:,.0f} synaptic operations per validation sample",
        *_start_lines(record),
        *event_lines(record),
    ]


def _start_lines(record: Record) -> list[str]:
    """What became of the connections of the training that this one began with; nothing where weights were drawn."""
    if "start" not in record:
        return []
    start = record["start"]
    return [
        f"start        {start['path']}: {start['kept']:,} of its {start['connections']:,} connections, "
        f"{start['new']:,} new ones"
    ]


def freezing_lines(record: Record) -> list[str]:
    """Accuracies in float and in integers, density, and what was removed on the way."""
    figures, test = record["figures"], record["test"]
    return [
        f"validation   {share(record['accuracy_validation_float'])} float, {share(record['accuracy_validation'])} "
        f"frozen, of {record['samples']['validation']:,} samples",
        f"test         {share(figures['accuracy_float'])} float, {share(figures['accuracy_frozen'])} frozen, "
        f"of {test['samples']:,} samples (guessing {share(test['guess'])})",
        f"loss         {_fine_tuned(record['fine_tuning'])}",
        f"density      {share(figures['density'])} ({figures['synapses']:,} synapses of {figures['weight_bits']} bits)",
        f"operations   {figures['synaptic_operations_per_sample']:,.0f} synaptic operations per test sample",
        removed_line(record),
        *event_lines(record),
    ]


def event_lines(record: Record) -> list[str]:
    """What became of the events of each set that a stage encoded; nothing for sets of arrays."""
    return [
        f"events       {name}: {counts['events'] + counts['merged'] + counts['dropped']:,}, of which "
        f"{counts['merged']:,} merged, {counts['dropped']:,} dropped"
        for name, counts in record.get("events", {}).items()
        if counts["merged"] or counts["dropped"] or counts["events"]
    ]


def removed_line(record: Record) -> str:
    """What freezing took away."""
    names = layer_names(len(record["neurons"]))
    neurons = [
        f"{gone} of {count} neurons of {name}"
        for name, count, gone in zip(names, record["neurons"], record["removed_neurons"], strict=True)
        if gone
    ]
    zeros = sum(record["weights_rounded_to_zero"])
    gone = [f"{zeros:,} weights that round to 0"] if zeros else []
    if neurons:
        gone.append(f"{', '.join(neurons)} that never fire or reach nothing ({record['removed_synapses']:,} synapses)")
    return f"removed      {'; '.join(gone) or 'nothing'}"


def run_summary(run: RunDirectory) -> Lines:
    """A run in a few lines, with what its stages warned of."""
    figures, freezing = run.figures, run.stage("freeze")
    test, verified = freezing.get("test", {}), figures["samples_verified"]
    # Of a part of the test samples, the accuracy of the hardware would be that of other samples.
    part = verified is not None and figures["accuracy_hardware"] is None
    lines = [
        f"accuracy     {share(figures['accuracy_float'])} float, {share(figures['accuracy_frozen'])} frozen"
        + ("" if part else f", {share(figures['accuracy_hardware'])} hardware")
        + (f" (test; guessing {share(test['guess'])})" if test else ""),
    ]
    if "accuracy_validation_float" in freezing:
        lines.append(
            f"validation   {share(freezing['accuracy_validation_float'])} float, "
            f"{share(freezing['accuracy_validation'])} frozen"
        )
    if figures["density"] is not None:
        lines.append(f"density      {share(figures['density'])} ({figures['synapses']} synapses of "
                     f"{figures['weight_bits']} bits)")  # fmt: skip
    if "neurons" in freezing:
        lines.append(removed_line(freezing))
    lines += event_lines(freezing)
    if verified is not None:
        count = f"{verified:,} of {test['samples']:,}" if part and test else f"{verified:,}"
        lines.append(f"verified     {count} samples, {figures['mismatches']} mismatches")
        told = run.stage("verify").get("told_clocks")
        if told is not None:
            lines.append(
                f"clocks       {told['equal']:,} of {told['compared']:,} runs of samples as told without simulation"
            )
    lines += budget_lines(run.manifest.get("budget", {}))
    if figures["cycles_per_sample"] is not None:
        lines.append(f"cycles       {figures['cycles_per_sample']:.0f} from first input to decision")
    for target, mhz in (figures["fmax_mhz"] or {}).items():
        time = (figures["latency_us"] or {}).get(target)
        lines.append(
            f"clock        {target}: "
            + (f"{mhz:.1f} MHz" if mhz else "does not fit")
            + (f", {time:.1f} us from first input to decision" if time else "")
        )
    if (run.path / REPORT).is_file():
        lines.append(f"report       {run.path / REPORT}")
    return Lines("\n".join(lines), [text for _, text in run.warnings])


def budget_lines(document: Mapping[str, Any]) -> list[str]:
    """What a budget led to, and what of it is used."""
    if not document.get("measured"):
        return []
    use = ", ".join(
        f"{document['measured'][kind]:.0f} of {limit:.0f} {kind}"
        for kind, limit in document["limits"].items()
        if kind in document["measured"]
    )
    return [
        f"budget       {document['name']}: {document['weight_bits']} bits, lanes {document['lanes']}; {use}",
        *(
            f"rejected     {item['weight_bits']} bits, lanes {item['lanes']}: {item['reason']}"
            for item in document["rejected"]
        ),
    ]


def share(value: float | None) -> str:
    return "not measured" if value is None else f"{100 * value:.2f} %"


def _by_layer(names: Sequence[str], values: Sequence[float], form: Any) -> str:
    return ", ".join(f"{name} {form(value)}" for name, value in zip(names, values, strict=True))


def _fine_tuned(history: Sequence[Record]) -> str:
    first, last = history[0], history[-1]
    if len(history) == 1:
        return f"{first['validation_loss']:.4g} in validation, without fine-tuning in integers"
    return (
        f"{first['validation_loss']:.4g} in validation as rounded, {last['validation_loss']:.4g} after "
        f"{last['epoch']} epochs of fine-tuning in integers"
    )
