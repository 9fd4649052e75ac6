"""The page of an exploration and its picture, from the document that ``explore.json`` holds.

One HTML file that opens offline: Plotly and the study's figures are in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from codesign.basics.files import write_text
from codesign.cost.area import RESOURCES
from codesign.report.blocks import TEMPLATES, number, share, tile
from codesign.report.interactive import embedded, plotly_packed
from codesign.report.plots import save_figure
from codesign.report.tradeoff import tradeoff

PAGE = "explore.html"
PEERS = Path(__file__).resolve().parent / "peers.json"
# Figures of others that a point has too, by their names there; accuracies of others are in percent.
OF_PEERS = {
    "accuracy": "accuracy",
    "lut": "lut",
    "ff": "ff",
    "bram": "bram",
    "dsp": "dsp",
    "latency_us": "latency_us",
    "cycles": "latency_cycles",
}


def read_peers() -> dict[str, Any]:
    """Others' figures: ``{"units": {...}, "peers": [{"name", "task", "set", "device", figures, "source"}]}``."""
    return json.loads(PEERS.read_text(encoding="utf-8"))


def peers_of(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Others' figures on the data set of a study, with the names of its metrics."""
    wanted = document["space"]["base"].get("data", {}).get("set", "digits")
    return [
        {
            **{key: peer[key] for key in ("name", "task", "device", "source")},
            "metrics": {
                name: round(peer[key] / 100, 6) if name == "accuracy" else peer[key]
                for name, key in OF_PEERS.items()
                if key in peer
            },
        }
        for peer in read_peers()["peers"]
        if peer.get("set") == wanted
    ]


def write_explorer(folder: Path, document: Mapping[str, Any]) -> Path:
    """Write ``explore.html``, and the picture as PNG and SVG, into ``folder``; returns the page's path."""
    points, networks, space = document["points"], document["networks"], document["space"]
    feasible = [point for point in points if not point["broken"]]
    front = [point for point in points if point["front"]]
    verified = [point for point in points if point["measured"].get("samples_verified")]
    wrong = [point for point in points if point["measured"].get("mismatches") or point["failure"]]
    failed = [network for network in networks if network["status"] == "failed"]
    peers = peers_of(document)
    mood = "bad" if wrong or not feasible else "good" if document["complete"] else "open"
    best = max((point["metrics"]["accuracy"] for point in feasible), default=None)
    volume = document["hypervolume"][-1]["hypervolume"] if document["hypervolume"] else None
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    text = environment.get_template("explorer.html.j2").render(
        title=f"Exploration {folder.resolve().name}",
        subtitle=f"{', '.join(space['axes'])}; "
        + ", ".join(f"{aim} {name}" for name, aim in space["objectives"].items()),
        verdict={
            "mood": mood,
            "title": f"{len(front)} of {len(points)} points are on the front.",
            "text": _verdict(document, wrong, verified),
        },
        tiles=[
            tile("networks", number(len(networks)), f"trained; {len(failed)} failed"),
            tile("points", number(len(points)), f"{len(feasible)} keep the constraints"),
            tile("on the front", number(len(front)), "by validation accuracy and estimates"),
            tile("best accuracy", share(best, 2), "validation, of points that keep the constraints"),
            tile("hypervolume", number(volume, 3), "of 1, objectives scaled to their spread"),
        ],
        facts=_facts(document),
        has_peers=bool(peers),
        peer_rows=[_peer_row(peer) for peer in peers],
        footer="Accuracies are on validation samples; only the front has test accuracies, measured at the end.",
        plotly=plotly_packed(),
        data=embedded(_data(document, peers)),
    )
    write_text(folder / PAGE, text)
    _picture(folder, document, peers)
    return folder / PAGE


def _picture(folder: Path, document: Mapping[str, Any], peers: Sequence[Any]) -> None:
    """Accuracy against the first objective that is a cost, as a picture for a document."""
    cost = next((name for name, aim in document["space"]["objectives"].items() if aim == "minimise"), None)
    known = [point for point in document["points"] if not point["broken"]]
    if cost is None or not any(point["metrics"][cost] is not None for point in known):
        return
    names = {
        name: ", ".join(filter(None, (document["metrics"][name]["text"], document["metrics"][name]["unit"])))
        for name in (cost, "accuracy")
    }
    if cost in RESOURCES and document["family"]:
        names[cost] += f" of {document['family']}" + " (others: of their devices)" * bool(peers)
    figure = tradeoff(known, peers, cost, names)
    for kind in ("png", "svg"):
        save_figure(figure, folder / f"explore.{kind}")


def _verdict(document: Mapping[str, Any], wrong: Sequence[Any], verified: Sequence[Any]) -> str:
    if wrong:
        return f"{len(wrong)} of the points that were made have failed."
    state = "" if document["complete"] else "The study is not complete. "
    if verified:
        return f"{state}{len(verified)} were simulated in RTL, without a difference."
    return f"{state}None was simulated in RTL."


def _facts(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    space = document["space"]
    rows = [(key, _values(value)) for key, value in space["axes"].items()]
    rows += [("constraints", "; ".join(space["constraints"]) or "none")]
    rows += [("device", f"{space['device']}, {document['family']}")] if space["device"] else []
    rows += [("clock of times", f"{space['clock_mhz']:g} MHz")] if space["clock_mhz"] else []
    rows += [("sampler", f"{space['sampler']}, seed {space['seed']}, batches of {space['batch']}")]
    rows += [("not built", f"{entry['machine']}: {entry['reason']}") for entry in document["refused"]]
    rows += [(f"network {entry['number']}", entry["error"]) for entry in document["networks"] if entry["error"]]
    return rows


def _values(axis: Any) -> str:
    if isinstance(axis, Mapping):
        return f"{axis['low']:g} to {axis['high']:g}{', logarithmic' if axis['log'] else ''}"
    return ", ".join(value if isinstance(value, str) else json.dumps(value) for value in axis)


def _peer_row(peer: Mapping[str, Any]) -> list[str]:
    figures = (
        f"{name} {share(value, 2) if name == 'accuracy' else f'{value:,g}'}" for name, value in peer["metrics"].items()
    )
    return [peer["name"], peer["task"], peer["device"], ", ".join(figures), peer["source"]]


def _data(document: Mapping[str, Any], peers: Sequence[Any]) -> dict[str, Any]:
    """What the page's program reads."""
    axes: dict[str, list[Any]] = {}
    for key, axis in document["space"]["axes"].items():
        found = {json.dumps(point["choices"][key]): point["choices"][key] for point in document["points"]}
        # Values that were listed come in their order, others as they were sampled.
        ordered = [json.dumps(value) for value in axis] if isinstance(axis, list) else found
        axes[key] = [found[text] for text in ordered if text in found]
    return {
        "points": [{**point, "feasible": not point["broken"]} for point in document["points"]],
        "metrics": document["metrics"],
        "objectives": list(document["space"]["objectives"]),
        "axes": axes,
        "listed": [key for key, values in document["space"]["axes"].items() if isinstance(values, list)],
        "peers": list(peers),
        "devices": document["devices"],
        "hypervolume": document["hypervolume"],
    }
