"""Tables and plots of the finished runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.method.plan import LANDING, PRESETS, Run
from codesign.basics.files import atomic_path, write_text

Documents = Sequence[Mapping[str, Any]]


def spread(values: Sequence[float]) -> str:
    """Mean, sample standard deviation and number, in per cent."""
    if not values:
        return "-"
    deviation = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.2f}{deviation} ({len(values)})"


def markdown(documents: Documents, missing: Iterable[Run], images: str) -> str:
    """The measured part of the study: one table per set, what was not run, plots."""
    parts = []
    for name in dict.fromkeys(item["set"] for item in documents):
        chosen = [item for item in documents if item["set"] == name]
        densities = sorted({item["target_density"] for item in chosen if item["preset"] != "dense"}, reverse=True)
        steps = sorted({item["steps"] for item in chosen})
        cpu = mean(item["cpu_seconds"] for item in chosen)
        parts += [
            f"### {name}",
            "",
            f"Test accuracy in %, mean ± sample standard deviation (runs); {', '.join(map(str, steps))} steps, "
            f"{cpu:.0f} s of one core a run on average.",
            "",
            "| preset | " + " | ".join(f"{100 * density:g} %" for density in densities) + " | 100 % |",
            "|---" * (len(densities) + 2) + "|",
        ]
        for preset in (*PRESETS, *LANDING):
            rows = [item for item in chosen if item["preset"] == preset]
            if rows:
                cells = [
                    spread([item["accuracy_test"] for item in rows if item["target_density"] == density])
                    for density in (*densities, 1.0)
                ]
                parts.append(f"| {preset} | " + " | ".join(cells) + " |")
        parts += ["", f"![Accuracy against density, {name}]({images}/method-{name}-accuracy.png)", ""]
        parts += [f"![Density and PQ index, {name}]({images}/method-{name}-trajectory.png)", ""]
        parts += [f"![Density of the layers, {name}]({images}/method-{name}-layers.png)", ""]
    left: dict[tuple[str, str], list[Run]] = {}
    for run in missing:
        left.setdefault((run.set, run.preset), []).append(run)
    parts.append("Not run: " + ("nothing of the plan." if not left else ""))
    parts += [f"- {name}, {preset}: {len(runs)} runs" for (name, preset), runs in left.items()]
    return "\n".join(parts).rstrip() + "\n"


def update_page(page: Path, measured: str, part: str = "measured") -> None:
    """Replace what lies between the markers of a part of a page; text written by hand stays."""
    begin, end = f"<!-- {part}: begin -->", f"<!-- {part}: end -->"
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(begin)
    _, marker, after = rest.partition(end)
    if not marker:
        raise ValueError(f"{page}: lacks the lines {begin} and {end}")
    write_text(page, f"{before}{begin}\n\n{measured}\n{end}{after}")


def plots(documents: Documents, folder: Path) -> None:
    """Accuracy against density with error bars, trajectories, densities of layers; PNG files in ``folder``."""
    from matplotlib.figure import Figure

    for name in dict.fromkeys(item["set"] for item in documents):
        chosen = [item for item in documents if item["set"] == name]
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.subplots()
        sparse = [item for item in chosen if item["preset"] != "dense"]
        ticks = sorted({100 * item["target_density"] for item in sparse})
        drawn = 0
        for preset in (*PRESETS, *LANDING):
            rows = [item for item in chosen if item["preset"] == preset]
            if preset == "dense" and rows:
                axes.axhline(100 * mean(item["accuracy_test"] for item in rows), color="grey", ls=":", label="dense")
                continue
            levels = sorted({item["target_density"] for item in rows})
            values = [[100 * item["accuracy_test"] for item in rows if item["target_density"] == d] for d in levels]
            if levels:
                bars = [stdev(v) if len(v) > 1 else 0.0 for v in values]
                # Beside each other where there is one density alone, on which points would hide each other.
                aside = 1.0 if len(ticks) > 1 else 1.003**drawn
                drawn += 1
                axes.errorbar(
                    [100 * d * aside for d in levels],
                    [mean(v) for v in values],
                    bars,
                    marker="o",
                    ls="--" if preset in LANDING else "-",
                    capsize=3,
                    label=preset,
                )
        axes.set(xscale="log", xlabel="density, %", ylabel="test accuracy, %", title=name)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
        axes.set_xticks([], minor=True)
        if len(ticks) == 1:
            axes.set_xlim(0.95 * ticks[0], 1.05 * ticks[0])
        axes.legend(fontsize=8)
        save_figure(figure, folder / f"method-{name}-accuracy.png")
        if not sparse:
            continue
        least, seed = min(item["target_density"] for item in sparse), min(item["seed"] for item in sparse)
        shown = [item for item in sparse if (item["target_density"], item["seed"]) == (least, seed)]
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        for item in shown:
            epochs = [row["epoch"] for row in item["trajectory"]]
            left.plot(epochs, [100 * row["density"] for row in item["trajectory"]], label=item["preset"])
            right.plot(epochs, [mean(row["index"]) for row in item["trajectory"]], label=item["preset"])
        left.set(yscale="log", xlabel="epoch", ylabel="density, %")
        _plain_numbers(left.yaxis)
        right.set(xlabel="epoch", ylabel="PQ index, mean of the layers")
        right.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
        figure.suptitle(f"{name}, target {100 * least:g} %")
        save_figure(figure, folder / f"method-{name}-trajectory.png")
        figure = Figure(figsize=(7, 3.6), layout="constrained")
        axes = figure.subplots()
        width = 0.8 / len(shown)
        for position, item in enumerate(shown):
            layers = range(len(item["layer_density"]))
            axes.bar(
                [layer + width * position for layer in layers],
                [100 * density for density in item["layer_density"]],
                width,
                label=item["preset"],
            )
        numbers = range(len(shown[0]["layer_density"]))
        axes.set_xticks([number + 0.4 - width / 2 for number in numbers], [str(number) for number in numbers])
        axes.set(yscale="log", xlabel="layer", ylabel="density, %", title=f"{name}, target {100 * least:g} %")
        _plain_numbers(axes.yaxis)
        axes.legend(fontsize=7)
        save_figure(figure, folder / f"method-{name}-layers.png")


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as a PNG file."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})


def _plain_numbers(axis: Any) -> None:
    """2 and 30 in place of powers of ten."""
    from matplotlib.ticker import LogFormatter

    axis.set_major_formatter(LogFormatter())
    axis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
