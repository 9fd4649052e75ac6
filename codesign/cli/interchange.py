"""What `codesign import` does: an import of :mod:`codesign.interchange` as a run directory."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from codesign.basics.errors import InputError, OutputError
from codesign.basics.files import write_json
from codesign.cli.console import console
from codesign.cli.kinds import kind_of
from codesign.cli.targets import artefact, overridden, refuse_training, working_in
from codesign.contract.floating import FloatNetwork
from codesign.contract.network import FrozenNetwork
from codesign.contract.scaling import Scale
from codesign.interchange.facts import Facts
from codesign.interchange.importing import Import, import_file
from codesign.interchange.measure import Measured
from codesign.interchange.own import write_nir
from codesign.records.names import CALIBRATION, FLOAT_NETWORK, IMPORT_REPORT, NETWORK, STIMULUS
from codesign.records.rundir import IMPORT, RunDirectory


def facts(resets: Sequence[str], **options: Any) -> Facts:
    """The facts that options state. ``resets`` are KIND for all neurons and NODE=KIND."""
    by_node: dict[str, Any] = {}
    whole: Any = None
    for text in resets:
        node, mark, kind = text.rpartition("=")
        if mark:
            by_node[node] = kind
        elif whole is not None:
            raise InputError(f"--reset {whole} and --reset {kind}: one kind for all; NODE=KIND for single nodes")
        else:
            whole = kind
    return Facts(reset=whole, resets=by_node, **options)


def import_network(file: Path, source: str, output: Path, stated: Facts, samples: Path | None, **options: Any) -> None:
    # What is not given has the default of `import_file`.
    options = {name: value for name, value in options.items() if value is not None}
    if "scale" in options and options["scale"] not in get_args(Scale):
        raise InputError(f"--scale {options['scale']!r} is none of {', '.join(get_args(Scale))}")
    found = import_file(file, source, stated, samples, progress=console.progress, **_with_tuner(options))
    run = RunDirectory.create(output)
    with working_in(run):
        refuse_training(run)
        # Of an import before: a file that this one does not make would be taken for its own.
        run.remove(tuple(run.stage(IMPORT).get("outputs", {})))
        names = write_import(run.path, found)
        run.manifest["imported"] = True
        run.write_config(overridden([], found.frozen))
        again = _again(file, source, stated, samples, **options)
        run.record_files(IMPORT, names, again=again)
    console.finish({"run": str(run.path), **found.document}, _shown(run.path, found))


def _with_tuner(options: dict[str, Any]) -> dict[str, Any]:
    """The options with what trains in the place of its epochs; torch is imported where it is asked for."""
    if options.get("fine_tune") is None:
        return options
    from codesign.train.floating import FineTuning

    console.step("fine-tuning")
    return {**options, "fine_tune": FineTuning(options["fine_tune"])}


def export_network(target: Path, output: Path, dt: float | None) -> None:
    path = artefact(target, kind_of(target), NETWORK)
    if kind_of(target) == "run" and not path.is_file():
        raise InputError(f"{target}: {NETWORK} is missing; `codesign freeze {shlex.quote(str(target))}` makes it")
    if output.is_dir():
        raise OutputError(f"{output}: is a folder; name the file to write with -o")
    network = load_network(path)
    found = write_nir(network, output) if dt is None else write_nir(network, output, dt)
    document = {"file": str(output), "nodes": found.nodes, "network_hash": network.hash, "unsaid": list(found.unsaid)}
    lines = [f"{output}: {found.nodes} nodes; `codesign import {output} --source codesign` has the network back"]
    lines += ["what NIR cannot say, so other readers will not see it:", *(f"  {line}" for line in found.unsaid)]
    console.finish(document, "\n".join(lines))


def load_network(path: Path) -> FrozenNetwork | FloatNetwork:
    """The frozen or float network of a file. Raises InputError as the reader of frozen ones if it is neither."""
    try:
        return FloatNetwork.load(path)
    except InputError as error:
        # What is a float network, but a damaged one, is not tried as the other kind.
        if "not a float network" not in str(error):
            raise
    return FrozenNetwork.load(path)


def write_import(folder: Path, found: Import) -> tuple[str, ...]:
    """Write the files of an import; returns their names."""
    found.frozen.save(folder / NETWORK)
    write_json(folder / IMPORT_REPORT, found.document)
    names = [NETWORK, IMPORT_REPORT]
    for name, kept in (
        (FLOAT_NETWORK, found.floating),
        (STIMULUS, found.samples),
        (CALIBRATION, found.calibration),
    ):
        if kept is not None:
            kept.save(folder / name)
            names.append(name)
    return tuple(names)


def _again(file: Path, source: str, stated: Facts, samples: Path | None, **options: Any) -> str:
    """The command line of this import, with {run} for its folder."""
    words = ["import", str(file), "--source", source]
    for name, value in {**asdict(stated), "samples": samples, **options}.items():
        option = f"--{name.replace('_', '-')}"
        if name == "resets":
            words += [word for node, kind in value.items() for word in ("--reset", f"{node}={kind}")]
        elif isinstance(value, bool):
            # Of what is off by default there is no other form.
            words += [option] if value else [f"--no-{option[2:]}"] if hasattr(stated, name) else []
        elif value is not None:
            words += [option, str(value)]
    return f"{shlex.join(words)} -o {{run}}"


def _shown(folder: Path, found: Import) -> str:
    """The three lists, the agreement of the layers, and how it goes on."""
    lines = ["supported", *(f"  {line}" for line in found.findings.supported)]
    lines += ["changed", *(f"  {change.where}: {change.text}" for change in found.findings.changed)]
    lines += ["unsupported", "  nothing"]
    if found.measured is not None:
        rows = [("layer", "spikes", "in integers", "Jaccard", "F1", "lag")]
        rows += [
            (*map(str, (a.layer, a.float_spikes, a.frozen_spikes)), f"{a.jaccard:.3f}", f"{a.f1:.3f}", str(a.lag))
            for a in found.measured.layers
        ]
        lines += ["measured", *_table(rows), f"  {_decisions(found.measured)}"]
    lines += _choices(found.document)
    lines += [text for text in (found.document["note"], found.document["hardware"]) if text]
    onward = f"`codesign generate {folder}` goes on"
    if found.document["hardware"] is not None:
        onward = f"`codesign report {folder}` shows it"
    lines.append(f"{folder}: {onward}")
    # Names come from the file; they are not to steer the terminal.
    return "\n".join("".join(letter if letter.isprintable() else " " for letter in line) for line in lines)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.rjust, row, widths)) for row in rows]


def _choices(document: dict[str, Any]) -> list[str]:
    """How the bits were chosen, or what each number of them costs; what each density costs."""
    lines: list[str] = []
    chosen, bits, pruning, samples = (document[name] for name in ("bits_chosen", "bit_costs", "pruning", "samples"))
    if chosen is not None:
        lines.append(f"bits of the weights by layer: {', '.join(map(str, chosen['bits']))}")
        lines.append(
            f"  chosen on {chosen['samples']} samples that are not among the measured: accuracy "
            f"{100 * chosen['accuracy']:.2f} %, {100 * chosen['accuracy_float']:.2f} % in float"
        )
    if bits is not None:
        lines.append(f"what bits of the weights cost, on {bits['samples']} samples that are not among the measured")
        lines += _table(_costs("bits", bits["rows"]))
    if samples is not None and samples["training"]:
        lines.append(
            f"of the samples {samples['reported']} are reported on; {samples['training']} others were trained on, "
            f"{samples['choosing']} chose the epoch"
        )
    if pruning is not None:
        kept, whole = sum(pruning["kept"]), sum(pruning["weights"])
        lines.append(f"{kept} of {whole} weights stay")
        if pruning["trade_off"] is not None:
            lines.append(f"what density costs, on {pruning['trade_off']['samples']} samples that chose nothing")
            lines += _table(_costs("density", pruning["trade_off"]["rows"]))
            if pruning["trade_off"]["tuned"] is not None:
                lines += ["  and fine-tuned", *_table(_costs("density", pruning["trade_off"]["tuned"]))]
    return lines


def _costs(name: str, rows: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Rows of text; without labels there is no accuracy."""
    head = (name, "synapses", "same decisions", "accuracy")
    body = [
        (
            f"{row[name]:g}",
            str(row["synapses"]),
            f"{100 * row['same_decisions']:.1f} %",
            "" if row["accuracy"] is None else f"{100 * row['accuracy']:.2f} %",
        )
        for row in rows
    ]
    return [head, *body] if any(row["accuracy"] is not None for row in rows) else [row[:3] for row in (head, *body)]


def _decisions(measured: Measured) -> str:
    text = f"{measured.samples} samples, {100 * measured.same_decisions:.1f} % of the decisions the same"
    if measured.accuracy_float is not None and measured.accuracy_frozen is not None:
        exact, whole = 100 * measured.accuracy_float, 100 * measured.accuracy_frozen
        text += f"; accuracy {exact:.2f} % in float, {whole:.2f} % in integers"
    return text
