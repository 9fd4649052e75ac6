"""The page of an exploration: what is in it, and what it does in a real browser."""

from __future__ import annotations

import json
import math
import re
import time
from typing import Any

import pytest
from matplotlib.text import Text

from codesign.report.explorer import peers_of, read_peers, write_explorer
from codesign.report.tradeoff import tradeoff
from tests.browser import Page
from tests.fake_study import Fakes, explore
from tests.requirements import needs

MNIST = {"network": {"hidden": [8], "timesteps": 2}, "data": {"set": "mnist"}}
# Beside everything else that a page must stand: texts that look like its own language.
HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explorer") / "study"
    with pytest.MonkeyPatch.context() as patch:
        Fakes().put(patch, draw=True)
        explore(folder, base=MNIST)
    return folder


def test_the_page_is_self_contained(study):
    text = (study / "explore.html").read_text(encoding="utf-8")
    own = text[: text.index("<script")]
    assert re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', own) == ["data:,"]
    assert "default-src 'none'" in own and "Points" in own
    assert (study / "explore.png").read_bytes().startswith(b"\x89PNG") and "<svg" in (study / "explore.svg").read_text()


def test_texts_of_a_study_end_no_script(study, tmp_path):
    document = json.loads((study / "explore.json").read_text())
    document["points"][0]["failure"] = document["networks"][0]["error"] = HOSTILE
    text = write_explorer(tmp_path, document).read_text(encoding="utf-8")
    assert HOSTILE not in text and "\\u003c/script>" in text and text.count("</script>") == 4


def test_others_are_of_the_same_data(study):
    document = json.loads((study / "explore.json").read_text())
    names = {peer["name"] for peer in peers_of(document)}
    assert "Spiker+" in names and "TENNLab fpga" not in names
    assert all(0 < peer["metrics"].get("accuracy", 0.5) < 1 for peer in peers_of(document))
    document["space"]["base"]["data"]["set"] = "digits"
    assert peers_of(document) == []
    assert all(peer["source"] for peer in read_peers()["peers"])


def rows(page: Page) -> list[str]:
    return page.value("[...document.querySelectorAll('#rows tbody tr')].map((row) => row.dataset.name)")


def fill(page: Page, key: str, text: str) -> None:
    page.value(
        f"(() => {{ const input = document.querySelector('th[data-key=\"{key}\"] input');"
        f" input.value = {json.dumps(text)}; input.dispatchEvent(new Event('input')); }})()"
    )


def test_labels_of_others_cover_neither_each_other_nor_points(study):
    document = json.loads((study / "explore.json").read_text())
    points = [point for point in document["points"] if not point["broken"]]
    places = [(0.93, 2000.0), (0.93, 2001.0), (0.931, 2050.0), (0.9, 700.0), (0.9, 30000.0)]
    peers = [
        {"name": f"work {number}", "device": "a device", "metrics": {"accuracy": accuracy, "lut": lut}}
        for number, (accuracy, lut) in enumerate(places)
    ]
    figure = tradeoff(points, peers, "lut", {"lut": "logic", "accuracy": "accuracy"})
    figure.draw_without_rendering()
    axes = figure.axes[0]
    labels = [text for text in axes.texts if "a device" in text.get_text()]
    boxes = [Text.get_window_extent(label) for label in labels]
    assert len(boxes) == len(peers)
    assert not any(one.overlaps(other) for index, one in enumerate(boxes) for other in boxes[:index])
    marks = [(point["metrics"]["lut"], point["metrics"]["accuracy"]) for point in points]
    assert not any(box.count_contains(axes.transData.transform(marks)) for box in boxes)
    assert all(box.x1 <= axes.get_window_extent().x1 + 1 for box in boxes)


def frames(opened: Page, points: list[dict[str, Any]], name: str) -> bool:
    """Whether the plot's height is that of a figure of these points, with some room."""
    kind, ends = opened.value("(({type, range}) => [type, range])(document.getElementById('scatter').layout.yaxis)")
    values = [point["metrics"][name] for point in points]
    found = [math.log10(value) for value in values] if kind == "log" else values
    room = 0.07 * (max(found) - min(found))
    return ends == pytest.approx([min(found) - room, max(found) + room])


def settles(opened: Page, points: list[dict[str, Any]], name: str) -> bool:
    """Whether that is so within seconds: Plotly draws when the browser finds the time."""
    end = time.monotonic() + 20
    while not frames(opened, points, name) and time.monotonic() < end:
        time.sleep(0.05)
    return frames(opened, points, name)


def test_listed_values_come_in_their_order(study, tmp_path):
    document = json.loads((study / "explore.json").read_text())
    document["points"] = document["points"][::-1]
    text = write_explorer(tmp_path, document).read_text(encoding="utf-8")
    for key, axis in document["space"]["axes"].items():
        if isinstance(axis, list):
            assert f"{json.dumps(key)}:{json.dumps(axis, separators=(',', ':'))}" in text.replace(": ", ":").replace(
                ", ", ","
            )


def is_drawn(opened: Page, document: dict[str, Any]) -> None:
    feasible = [point for point in document["points"] if not point["broken"]]
    peers = [peer for peer in peers_of(document) if {"lut", "accuracy"} <= set(peer["metrics"])]
    opened.wait(f"document.querySelectorAll('#scatter .scatterlayer .point').length === {len(feasible) + len(peers)}")
    assert peers and len(rows(opened)) == len(feasible)
    assert opened.value("document.querySelectorAll('#coordinates .axis').length") > 3


def a_click_on_a_point_shows_it(opened: Page, document: dict[str, Any]) -> None:
    opened.value("document.getElementById('scatter').scrollIntoView({behavior: 'instant'})")
    place = opened.value(
        "(() => { const box = document.querySelector('#scatter .scatterlayer .point').getBoundingClientRect();"
        " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
    )
    opened.click(*place)
    opened.wait("document.querySelector('#detail .name') !== null")
    name = opened.value("document.querySelector('#detail .name').textContent").split(",")[0]
    (point,) = [point for point in document["points"] if point["name"] == name]
    text = opened.value("document.getElementById('detail').textContent")
    assert point["command"] in text and "freeze.weight_bits" in text
    assert opened.value("document.querySelector('#rows tr.chosen').dataset.name") == name


def filters_brushes_and_sorting_go_together(opened: Page, document: dict[str, Any]) -> None:
    feasible = [point for point in document["points"] if not point["broken"]]
    fill(opened, "lut", "<= 750")
    few = {point["name"] for point in feasible if point["metrics"]["lut"] <= 750}
    opened.wait(f"document.body.dataset.points === '{len(few)}'")
    assert set(rows(opened)) == few and 0 < len(few) < len(feasible)
    fill(opened, "accuracy", "0.5..0.9")
    fewer = {
        name for name in few if 0.5 <= next(p for p in feasible if p["name"] == name)["metrics"]["accuracy"] <= 0.9
    }
    opened.wait(f"document.body.dataset.points === '{len(fewer)}'")
    opened.value("document.getElementById('reset').click()")
    opened.wait(f"document.body.dataset.points === '{len(feasible)}'")
    opened.value("document.querySelector('th[data-key=\"cycles\"] button').click()")
    opened.wait("document.querySelector('th[data-key=\"cycles\"]').getAttribute('aria-sort') === 'ascending'")
    cycles = {point["name"]: point["metrics"]["cycles"] for point in feasible}
    assert [cycles[name] for name in rows(opened)] == sorted(cycles.values())
    left, top, bottom, right = opened.value(
        "(() => { document.getElementById('scatter').scrollIntoView({behavior: 'instant'});"
        " const box = document.querySelector('#scatter .nsewdrag').getBoundingClientRect();"
        " const marks = [...document.querySelectorAll('#scatter .point')].map((mark) => mark.getBoundingClientRect());"
        " const middle = marks.map((mark) => mark.x + mark.width / 2).sort((a, b) => a - b);"
        " return [box.x + 2, box.y + 2, box.bottom - 2, middle[Math.floor(middle.length / 2)]]; })()"
    )
    opened.drag((left, top), (right, bottom))
    opened.wait(f"Number(document.body.dataset.points) < {len(feasible)}")
    assert 0 < len(rows(opened)) < len(feasible)


def axes_are_chosen_and_constraints_can_be_let_go(opened: Page, document: dict[str, Any]) -> None:
    opened.value("document.getElementById('reset').click()")
    opened.value("(() => { const x = document.getElementById('x'); x.value = 'memory_bits'; x.onchange(); })()")
    opened.wait("document.querySelector('#scatter .xtitle').textContent === 'memory, bits'")
    opened.value("(() => { const y = document.getElementById('y'); y.value = 'cycles'; y.onchange(); })()")
    kept = [point for point in document["points"] if not point["broken"]]
    assert settles(opened, kept, "cycles") and not frames(opened, document["points"], "cycles")
    opened.value("document.getElementById('feasible').click()")
    opened.wait(f"document.body.dataset.points === '{len(document['points'])}'")
    assert settles(opened, document["points"], "cycles")
    opened.value("document.getElementById('front').click()")
    front = sum(point["front"] for point in document["points"])
    opened.wait(f"document.body.dataset.points === '{front}'")


# All that a reader does on it, one after the other on one page: a browser takes seconds to read Plotly's program.
@needs("chromium")
@pytest.mark.parametrize(
    ("width", "dark", "steps"),
    [
        (1280, False, [a_click_on_a_point_shows_it, filters_brushes_and_sorting_go_together,
                       axes_are_chosen_and_constraints_can_be_let_go]),
        (390, True, [a_click_on_a_point_shows_it]),
        pytest.param(1280, True, [a_click_on_a_point_shows_it], marks=pytest.mark.deep),
        pytest.param(390, False, [axes_are_chosen_and_constraints_can_be_let_go], marks=pytest.mark.deep),
    ],
    ids=["desk", "telephone in the dark", "desk in the dark", "telephone"],
)  # fmt: skip
def test_it_works_without_an_error_and_without_a_request(opened, study, width, dark, steps):
    opened.open(study / "explore.html", width=width, height=900, dark=dark)
    opened.wait("document.body.dataset.points !== undefined && document.querySelectorAll('#rows tbody tr').length > 0")
    document = json.loads((study / "explore.json").read_text())
    is_drawn(opened, document)
    # No part is wider than the window.
    assert opened.value("document.documentElement.scrollWidth") <= width
    ink = opened.value("getComputedStyle(document.body).color")
    assert (ink == "rgb(230, 234, 240)") == dark
    for step in steps:
        step(opened, document)
    assert (opened.problems, opened.requests) == ([], [])


@needs("chromium")
def test_a_request_and_an_error_would_be_seen(opened, tmp_path):
    (tmp_path / "bad.html").write_text(
        "<img src='http://127.0.0.1:1/x.png'><script>console.error('wrong'); setTimeout(() => nothing());</script>"
    )
    opened.open(tmp_path / "bad.html", width=800, height=600)
    opened.wait("document.images[0].complete")
    assert opened.requests == ["http://127.0.0.1:1/x.png"]
    assert any("wrong" in text for text in opened.problems) and any("nothing" in text for text in opened.problems)
