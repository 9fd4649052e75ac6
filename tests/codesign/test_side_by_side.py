"""Runs side by side on one page."""

from __future__ import annotations

import json
import re
from urllib.parse import unquote

import numpy as np
import pytest

from codesign.cli import main
from codesign.records.rundir import RunDirectory
from codesign.report import compare_runs
from codesign.report.collect import collect
from codesign.report.plots import to_svg
from codesign.report.side_by_side import beside
from tests.codesign.test_report import make_measured_run, make_network, make_run, make_stimulus, words
from tests.requirements import needs

EN_DASH = "\N{EN DASH}"
CONFIG = '[data]\ncoding = "current"\n[network]\nhidden = [12]\n[freeze]\nweight_bits = {bits}\n'


def estimate_document(network, lut):
    cells = {"lut": lut, "ff": 90, "bram": 2.5, "dsp": 0, "error": None, "parts": []}
    return {
        "network_hash": network.hash, "latency_cycles": 210.0, "interval_cycles": 190.0,
        "memory_bits": {"rows": 100, "synapses": 250},
        "area": {"ecp5": cells, "ice40": {**dict.fromkeys(cells), "parts": []}},
        "energy": {"sample_pj": 1500.0, "source": "a book", "not_counted": "wires"},
    }  # fmt: skip


def make(folder, bits=4, lut=500, **options):
    make_run(folder, history=False, **options)
    (folder / "config.toml").write_text(CONFIG.format(bits=bits))
    network = collect(folder).network
    (folder / "estimate.json").write_text(json.dumps(estimate_document(network, lut)))
    return folder


def cells(page, name):
    """A row of a table, without its name."""
    (row,) = [row for row in re.findall(r"<tr[^>]*>(.*?)</tr>", page) if row.startswith(f"<td>{name}</td>")]
    return re.findall(r"<td>(.*?)</td>", row)[1:]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("beside")
    return [make(folder / "a & b"), make(folder / "second", bits=6, lut=750, verified=False)]


@pytest.fixture(scope="module")
def page(runs):
    (runs[0] / "report.html").write_text("its report")
    path = runs[0].parent / "pages" / "both.html"
    path.parent.mkdir()
    compare_runs(runs, path)
    return path


@pytest.fixture
def undrawn(monkeypatch):
    monkeypatch.setattr("codesign.report.blocks.to_svg", lambda *_: "<svg></svg>")


def test_figures_stand_beside_each_other_and_say_how_they_are_known(page):
    text = page.read_text()
    assert cells(text, "accuracy, frozen") == ["75.00%", "75.00%"]
    assert cells(text, "accuracy, hardware") == ["75.00%", EN_DASH]
    assert cells(text, "clocks of a sample alone") == ["140, simulated", "210, estimated"]
    assert cells(text, "clocks between samples") == ["130, simulated", "190, estimated"]
    assert cells(text, "logic, ecp5") == ["500, estimated", "750, estimated"]
    assert cells(text, "memory blocks, ecp5") == ["2.5, estimated"] * 2
    assert cells(text, "memory, bits") == ["350", "350"]
    assert cells(text, "energy of a sample, nJ, estimated") == ["1.5", "1.5"]
    assert cells(text, "verified") == ["8 samples, 0 values differ", "not simulated as it is now"]
    # What no run knows has no row.
    assert "logic, ice40" not in text and "latency on" not in text
    assert "1 of 2 are verified." in words(text)


def test_only_keys_that_differ_are_listed(page, tmp_path, runs, undrawn):
    text = page.read_text()
    assert cells(text, "freeze.weight_bits") == ["4", "6"]
    assert "network.hidden" not in text and "data.coding" not in text
    same = make(tmp_path / "same", verified=False)
    compare_runs([runs[0], same], tmp_path / "page.html")
    assert "Nothing: all keys are the same." in (tmp_path / "page.html").read_text()


def test_reports_are_linked_as_far_as_there_are_any(page, runs):
    text = page.read_text()
    (address,) = re.findall(r'<a href="([^"#]*)"', text)
    assert (page.parent / unquote(address)).samefile(runs[0] / "report.html")
    assert f"report of second|: not written; run|codesign report {runs[1]}" in words(text).replace(": not", "|: not")


def test_the_page_loads_nothing_and_is_the_same_again(page, runs):
    text = page.read_text()
    assert "<script" not in text and not re.search(r'(?:src|href)\s*=\s*"(?:https?:)?//', text)
    assert "a &amp; b" in text and "a & b" not in text
    compare_runs(runs, page)
    assert page.read_text() == text


def test_what_is_wrong_or_not_comparable_comes_first(tmp_path, runs, undrawn):
    wrong = make(tmp_path / "wrong", mismatches=2)
    compare_runs([runs[0], wrong], tmp_path / "page.html")
    assert "Hardware differs from software in wrong." in (tmp_path / "page.html").read_text()
    other = make(tmp_path / "other")
    make_stimulus(make_network(), 5).save(other / "stimulus.npz")
    compare_runs([runs[0], other], tmp_path / "page.html")
    text = words((tmp_path / "page.html").read_text())
    assert "Not the same test samples." in text and "other: others than a & b." in text
    good = make(tmp_path / "good")
    compare_runs([runs[0], good], tmp_path / "page.html")
    assert "Hardware equals software in all of them." in (tmp_path / "page.html").read_text()


def set_figures(folder, **figures):
    run = RunDirectory.open(folder)
    run.set_figures({**run.figures, **figures})
    run.save()
    return folder


def test_a_part_of_the_samples_and_what_changed_since_are_told(tmp_path, runs, undrawn):
    page = tmp_path / "page.html"
    part = set_figures(make(tmp_path / "part"), samples_verified=3, accuracy_hardware=None)
    path = part / "verify" / "verification.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "accuracy_hardware": 2 / 3, "interval_cycles": None}))
    stale = set_figures(make(tmp_path / "stale"), samples_verified=None, mismatches=None, accuracy_hardware=None)
    rows = compare_runs([runs[0], part, stale], page)
    assert cells(page.read_text(), "accuracy, hardware") == ["75.00%", "66.67%, 3 of 8 samples", EN_DASH]
    assert cells(page.read_text(), "verified")[1:] == ["3 samples, 0 values differ", "not simulated as it is now"]
    assert "2 of 3 are verified." in words(page.read_text()) and rows[1]["interval_cycles"] is None

    altered = make_measured_run(tmp_path / "altered")
    (altered / "estimate.json").unlink()
    row = compare_runs([runs[0], altered], page)[1]
    assert row["samples_verified"] == 8 and row["memory_bits"] == collect(altered).sidecar.memory_bits.total
    (altered / "bundle" / "snn.v").write_text("module snn; endmodule")
    assert compare_runs([runs[0], altered], page)[1]["samples_verified"] is None
    assert "altered:|bundle/snn.v: differs from what" in words(page.read_text())


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path, undrawn):
    both = [make(tmp_path / name / "run", verified=False) for name in ("x", "y")]
    compare_runs(both, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert f"<th>{both[0]}</th><th>{both[1]}</th>" in text


def test_a_run_that_has_nothing_yet_has_dashes(tmp_path, runs, undrawn):
    empty = RunDirectory.create(tmp_path / "empty")
    empty.save()
    rows = compare_runs([runs[0], empty.path], tmp_path / "page.html")
    assert rows[1]["synapses"] is None and rows[1]["area"] == {}
    text = (tmp_path / "page.html").read_text()
    assert cells(text, "synapses")[1] == EN_DASH and cells(text, "logic, ecp5")[1] == EN_DASH


def test_bars_begin_at_0_and_shares_are_dots_at_their_place():
    axes = beside("synapses", ["a", "b", "c"], [10, None, 20]).axes[0]
    assert axes.get_xlim()[0] == 0 and [bar.get_extents().x1 for bar in axes.patches] == pytest.approx(
        [axes.transData.transform((value, 0))[0] for value in (10, 20)]
    )
    assert EN_DASH in [text.get_text() for text in axes.texts]
    axes = beside("accuracy", ["a", "b"], [0.9, 0.91], is_share=True).axes[0]
    assert [np.asarray(line.get_xdata())[0] for line in axes.lines] == [0.9, 0.91] and not axes.patches
    assert axes.get_xlim()[0] > 0.89


def test_names_of_runs_are_drawn_as_they_are():
    names = [r"a$\frac$b", "a$x$b", "axes_1"]
    figure = beside("accuracy", names, [0.9, 0.8, 0.7], is_share=True)
    drawn = to_svg(figure, "name", "what")
    assert set(names) <= set(re.findall(r"<text[^>]*>([^<]*)</text>", drawn))
    ids = re.findall(r'\bid="([^"]+)"', drawn)
    assert len(ids) == len(set(ids))


def test_the_command_writes_the_page_and_prints_the_rows(tmp_path, runs, capsys, monkeypatch, undrawn):
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(runs[0]), str(runs[1]), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["page"] == "compare.html" and (tmp_path / "compare.html").is_file()
    assert [row["run"] for row in document["runs"]] == [str(run) for run in runs]
    assert document["runs"][0]["latency_cycles"] == 140.25 and document["runs"][1]["cycles"] == "estimated"
    assert main(["report", str(runs[0]), str(runs[1])]) == 0
    assert "side by side: compare.html, in place of an earlier page" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["{0}", "{0}/"], "given twice; compare different runs"),
        (["{0}", "{1}", "{here}"], "neither a run directory"),
        (["{0}", "-o", "page.html"], "-o names the page of several runs; one run's report is in its folder"),
        (["{0}", "{1}", "-o", "{1}/report.html"], "report.html: is the report of a run; name another file"),
        (["{0}", "{1}", "-o", "{here}"], "-o names a page, which ends in .html"),
    ],
)
def test_errors_are_one_line_and_write_nothing(tmp_path, runs, capsys, monkeypatch, arguments, error):
    monkeypatch.chdir(tmp_path)
    given = [argument.format(*runs, here=tmp_path) for argument in arguments]
    assert main(["report", *given]) == 2
    found = capsys.readouterr().err
    assert error in found and found.count("\n") == 1 and list(tmp_path.iterdir()) == []


@needs("chromium")
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_it_fits_its_window(opened, page, width, dark):
    opened.open(page, width=width, height=900, dark=dark)
    assert opened.value("document.documentElement.scrollWidth") <= width
    assert (opened.value("getComputedStyle(document.body).color") == "rgb(230, 234, 240)") == dark
    assert (opened.problems, opened.requests) == ([], [])
