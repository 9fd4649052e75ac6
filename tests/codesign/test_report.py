"""The report shows what was measured, says what was not, and needs nothing from outside of the page."""

import json
import re
import shutil
import sys
from dataclasses import replace
from html import escape, unescape

import numpy as np
import pytest

from codesign.basics.errors import InputError
from codesign.basics.files import tree_hash
from codesign.cli import main
from codesign.config import RewiringConfig
from codesign.contract import golden
from codesign.contract.network import (
    INPUT,
    Convolution,
    FrozenLayer,
    FrozenNetwork,
    InputCoding,
    Leak,
    Projection,
    SumPool,
    Synapses,
)
from codesign.contract.sidecar import read_sidecar
from codesign.contract.stimulus import Stimulus
from codesign.machine.mapping import map_network
from codesign.records.rundir import RunDirectory
from codesign.report import plots, signals, write_figure, write_report
from codesign.report.collect import collect
from codesign.report.headline import headline, verdict
from codesign.report.plots import wilson_interval
from codesign.report.samples import choose, input_panel, input_words, neuron_panel, traces
from codesign.report.timing import told_clocks
from codesign.report.training import structure_text
from codesign.report.whole import _versions
from rtl_templates.bundle import write_bundle
from tests.requirements import needs

SAMPLE = 2
EN_DASH = "\N{EN DASH}"


BUILD = {
    "board": "ulx3s-25f", "device": "LFE5U-25F", "used": {"lut": 130.0, "bram": 2.0},
    "budget": {"lut": 24288.0, "bram": 56.0}, "bitstream": "top.bit", "bitstream_sha256": "0" * 64,
    "clock_mhz": 25.0, "fmax_mhz": 70.0,
}  # fmt: skip


def sparse(rng, n_in, n_out, density, limit):
    return np.where(rng.random((n_in, n_out)) < density, rng.integers(-limit, limit + 1, (n_in, n_out)), 0)


def make_network(coding="current", n_inputs=16, timesteps=5):
    rng = np.random.default_rng(5)
    weights = [sparse(rng, n_inputs, 12, 0.4, 15), sparse(rng, 12, 3, 0.6, 20)]
    return FrozenNetwork.from_arrays(
        weights,
        threshold=[60, 25],
        timesteps=timesteps,
        coding=InputCoding("current", 4) if coding == "current" else coding,
        leak=Leak("shift", 2),
    )


def make_stimulus(network, count=8):
    rng = np.random.default_rng(6)
    labels = (np.arange(count) % 3).astype(np.int32)
    if network.coding.is_current:
        values = rng.integers(0, 16, (count, network.n_inputs)).astype(np.uint8)
        return Stimulus(network.n_inputs, network.timesteps, labels, values=values)
    return Stimulus.from_dense(rng.random((count, network.timesteps, network.n_inputs)) < 0.3, labels)


def verification_document(network, mismatches=0):
    divergence = {
        "sample": SAMPLE, "timestep": 1, "layer": 0, "neuron": 7, "what": "spikes", "expected": 0, "got": 1,
        "phase": "back_to_back", "waveform": None,
    }  # fmt: skip
    clocks = {"idle_clocks": 80, "accumulate_clocks": 800, "sweep_clocks": 160, "clear_clocks": 0}
    return {
        "passed": mismatches == 0,
        "samples": 8,
        "comparisons": {"spikes": 600, "membranes": 600, "decisions": 8},
        "mismatches": mismatches,
        "first_divergence": divergence if mismatches else None,
        "cycles_per_sample": 131.5,
        "latency_cycles": 140.25,
        "interval_cycles": 130.25,
        "layers": [{**clocks, "synaptic_operations": 777, "lane_use": 0.91}] * 2,
        "network_hash": network.hash,
        "files_hash": "ab" * 32,
        "decoder": {"equal": True, "compared": network.n_synapses, "differences": 0, "first": None},
        "phases": {"back_to_back": {"samples": 8, "mismatches": mismatches, "comparisons": {"spikes": 600}}},
        "simulated_cycles": 12345,
    }


def save_decisions(folder, decisions, network_hash, margins=None):
    margins = np.arange(1, decisions.size + 1, dtype=np.int64) if margins is None else margins
    np.savez(folder / "decisions.npz", decisions=decisions, margins=margins, network_hash=network_hash)


def freezing_record(network, **others):
    """What freezing records: hidden 1 had 12 + 3 neurons, and connections that are gone."""
    return {
        "status": "done",
        "fine_tuning": [{"epoch": 0, "validation_accuracy": 0.8}, {"epoch": 1, "validation_accuracy": 0.9}],
        "accuracy_validation": 0.91,
        "accuracy_validation_float": 0.93,
        "neurons": [15, 3],
        "synapses": [network.layers[0].n_synapses + 6, network.layers[1].n_synapses + 2],
        "removed_neurons": [3, 0],
        "neurons_without_path": [1, 0],
        "weights_rounded_to_zero": [5, 4],
        **others,
    }


def make_run(
    folder,
    coding="current",
    *,
    verified=True,
    mismatches=0,
    history=True,
    n_inputs=16,
    timesteps=5,
    learnt=True,
    network=None,
    frozen=(),
):
    """A run directory with a random network, whose 'hardware' spikes are the golden model's.

    With ``learnt`` the decisions that freezing is said to have left are all right.
    """
    run = RunDirectory.create(folder)
    network = network or make_network(coding, n_inputs, timesteps)
    stimulus = make_stimulus(network)
    network.save(folder / "network.safetensors")
    stimulus.save(folder / "stimulus.npz")
    decisions = stimulus.labels if learnt else np.zeros_like(stimulus.labels)
    save_decisions(folder, decisions, network.hash)
    (folder / "config.toml").write_text(f'[data]\ncoding = "{coding}"\n')
    figures = dict(run.figures)
    figures |= {"accuracy_float": 0.875, "accuracy_frozen": 0.75, "density": network.density}
    if history:
        rows = [
            {
                "epoch": epoch,
                "density": 0.5 / epoch,
                "loss": 2.0 / epoch,
                "validation_loss": 2.2 / epoch,
                "training_accuracy": 0.95 - 0.2 / epoch,
                "validation_accuracy": 0.9 - 0.2 / epoch,
                "layers": [
                    {"density": 0.4 / epoch, "index": 0.1 * epoch, "firing_rate": 0.2},
                    {"density": 0.8 / epoch, "index": 0.2, "firing_rate": 0.0},
                ],
            }
            for epoch in range(1, 5)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        run.set_stage("freeze", freezing_record(network, **dict(frozen)))
    if verified:
        figures |= {"samples_verified": 8, "mismatches": mismatches, "accuracy_hardware": 0.75}
        (folder / "verify").mkdir()
        document = verification_document(network, mismatches)
        (folder / "verify" / "verification.json").write_text(json.dumps(document))
        trace = golden.run(network, stimulus.take([SAMPLE]))
        arrays = {"sample": np.int64(SAMPLE)}
        for index in range(2):
            arrays[f"spikes{index}"] = trace.spikes[index][0].copy()
            arrays[f"membranes{index}"] = trace.membranes[index][0]
        if mismatches:
            arrays["spikes0"][1, 7] ^= True
        np.savez(folder / "verify" / "observed.npz", **arrays)
    run.set_figures(figures)
    run.save()
    return folder


@pytest.fixture
def wordy(monkeypatch):
    """Leaves the figures out, which take most of a report's time; their descriptions stay."""
    for module in (plots, signals):
        for name, function in list(vars(module).items()):
            if getattr(function, "__annotations__", {}).get("return") == "Figure":
                monkeypatch.setattr(module, name, lambda *arguments: None)
    monkeypatch.setattr("codesign.report.blocks.to_svg", lambda *item: f'<svg aria-label="{escape(item[2])}"></svg>')


@pytest.fixture
def undrawn(monkeypatch):
    """The figures by their description, made but not drawn."""
    figures = {}

    def keep(figure, name, description):
        figures[description] = figure
        return f'<svg aria-label="{escape(description)}"></svg>'

    monkeypatch.setattr("codesign.report.blocks.to_svg", keep)
    return figures


def words(page):
    """What the page says, without drawings: cells and paragraphs between bars."""
    text = re.sub(r"\s*<[^>]+>\s*", "|", re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL))
    return unescape(re.sub(r"\|+", "|", text))


def texts(axes):
    """Labels, ticks and legend of a panel."""
    legend = axes.get_legend()
    shown = [axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()]
    return [item.get_text() for item in [*shown, *(legend.get_texts() if legend else [])]]


@pytest.mark.parametrize("is_other", [False, True])
def test_decisions_that_freezing_left_are_not_computed_again(tmp_path, monkeypatch, is_other):
    folder = make_run(tmp_path / "run", verified=False)
    (folder / "decisions.npz").unlink()
    record = collect(folder)
    assert record.network is not None and record.stimulus is not None
    left = np.full(len(record.stimulus), record.network.n_outputs - 1, np.int32)
    save_decisions(folder, left, "other" if is_other else record.network.hash)
    computed = []
    run = golden.run

    def counted(network, stimulus, **options):
        computed.append(len(stimulus))
        return run(network, stimulus, **options)

    monkeypatch.setattr(golden, "run", counted)
    decisions = collect(folder).decisions
    assert computed == ([len(record.stimulus)] if is_other else [])
    assert np.array_equal(decisions, left) != is_other


@pytest.fixture(scope="module")
def whole_page(tmp_path_factory):
    return write_report(make_run(tmp_path_factory.mktemp("runs") / "whole")).read_text()


def test_a_whole_run_shows_its_figures(whole_page):
    assert "Hardware equals software." in whole_page
    assert "87.50%" in whole_page and "75.00%" in whole_page
    assert "hardware (RTL simulation)" in whole_page
    assert "131.5" in whole_page and "91.0%" in whole_page
    assert "integer weights" in whole_page


@pytest.mark.parametrize("verified", [True, False])
def test_a_network_that_only_guesses_is_no_success(tmp_path, wordy, verified):
    page = write_report(make_run(tmp_path / "run", verified=verified, learnt=False)).read_text()
    assert 'class="verdict bad"><strong>The network has not learnt' in page
    assert "no better than always answering class 0" in page and "it answers class 0 for every sample" in page
    assert 'class="tile bad"><div class="name">accuracy, frozen' in page
    assert ("hardware equals software." in page) is verified


def test_a_network_that_has_learnt_is_shown_beside_guessing(tmp_path, wordy):
    page = write_report(make_run(tmp_path / "run")).read_text()
    assert 'class="verdict good"' in page and "has not learnt" not in page
    assert '<div class="name">guessing</div><div class="value">37.50%' in page


def test_what_stages_warned_of_is_listed_and_takes_the_green_from_the_banner(tmp_path, wordy):
    folder = make_run(tmp_path / "run")
    run = RunDirectory.open(folder)
    run.set_stage("train", {"status": "done", "warnings": ["layer hidden 1 never fires <b>"]})
    run.save()
    page = write_report(folder).read_text()
    assert 'class="verdict open"><strong>Hardware equals software; something looks wrong.' in page
    assert '<section id="warnings"' in page and "layer hidden 1 never fires &lt;b&gt;" in page
    assert '<section id="warnings"' not in write_report(make_run(tmp_path / "other")).read_text()


def test_the_work_that_training_was_drawn_to_is_stated(tmp_path, wordy):
    make_run(tmp_path / "run")
    with (tmp_path / "run" / "config.toml").open("a") as file:
        file.write("[train]\noperations_target = 1200.0\n")
    run = RunDirectory.open(tmp_path / "run")
    run.set_figures({**run.figures, "synaptic_operations_per_sample": 1234.4})
    run.save()
    page = write_report(tmp_path / "run").read_text()
    assert "down to 1,200 synaptic operations per sample; the frozen network takes 1,234 on the test set." in page


def test_the_page_loads_nothing_from_outside(whole_page):
    links = re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', whole_page)
    assert links and all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert not re.search(r"url\(\s*['\"]?(?!#)", whole_page) and "@import" not in whole_page
    # Its scripts are its own, and may fetch nothing.
    assert not re.search(r"<script[^>]+src", whole_page) and "default-src 'none'" in whole_page
    assert "connect-src" not in whole_page and "unsafe-eval" not in whole_page


@needs("chromium")
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["desk", "telephone in the dark"])
def test_any_neuron_and_epoch_can_be_looked_at_closely(opened, tmp_path, whole_page, width, dark):
    (tmp_path / "report.html").write_text(whole_page, encoding="utf-8")
    opened.open(tmp_path / "report.html", width=width, height=900, dark=dark)
    # Nothing is unpacked before it is asked for; the still figures are there.
    assert opened.value("'Plotly' in window") is False and opened.value(
        "document.querySelectorAll('svg.figure').length"
    )
    opened.value("document.querySelectorAll('.closer button').forEach((button) => button.click())")
    opened.wait("document.querySelectorAll('.closer.drawn .main-svg').length >= 2")
    figure = "[...document.querySelectorAll('.chart')].at(-1)"
    choose = f"(() => {{ const found = {figure}.parentElement.querySelectorAll('select')[%d]; found.value = %d;"
    opened.value(f"{choose % (1, 7)} found.onchange(); }})()")
    trace = golden.run(make_network(), make_stimulus(make_network()).take([SAMPLE]), potentials=True)
    drawn = opened.value(f"Object.fromEntries({figure}.data.map((item) => [item.name, [item.x, item.y]]))")
    assert drawn["u, before the reset"][1] == trace.potentials[0][0][:, 7].tolist()
    assert drawn["v in the hardware"][1] == drawn["v, stored"][1] == trace.membranes[0][0][:, 7].tolist()
    assert set(drawn["threshold"][1]) == {60}
    assert drawn["spike"][0] == np.flatnonzero(trace.spikes[0][0][:, 7]).tolist()
    at, who = np.nonzero(trace.spikes[0][0])
    assert sorted(zip(*drawn["spikes of the layer"], strict=True)) == sorted(
        zip(at.tolist(), who.tolist(), strict=True)
    )
    buttons = opened.value("[...document.querySelectorAll('.modebar-btn')].map((item) => item.dataset.title)")
    assert bool(buttons) == (width > 640) and not any("hare" in text or "loud" in text for text in buttons)
    assert opened.value("document.documentElement.scrollWidth") <= width
    assert (opened.problems, opened.requests) == ([], [])


def test_a_difference_reaches_the_page(tmp_path):
    """Where the hardware holds something else, the page has its values, not the word that they are equal."""
    record = collect(make_run(tmp_path / "run"))
    trace, observed = record.shown_trace, record.observed
    assert trace is not None and observed is not None
    assert [layer["hardware"] for layer in traces(record, trace, (0, 0))["layers"]] == ["equal", "equal"]
    observed.membranes[0][3, 7] += 1
    changed = traces(record, trace, (0, 0))["layers"][0]
    assert changed["hardware"][7][3] == changed["v"][7][3] + 1


def test_a_large_layer_is_shown_by_the_neurons_that_fire_most(tmp_path, wordy, monkeypatch):
    monkeypatch.setattr(sys.modules["codesign.report.samples"], "MAX_TRACED", 40)
    record = collect(make_run(tmp_path / "run"))
    trace = record.shown_trace
    assert trace is not None
    layer = traces(record, trace, (0, 0))["layers"][0]
    fired = trace.spikes[0][0].sum(axis=0)
    assert len(layer["neurons"]) == 4 and min(fired[layer["neurons"]]) >= sorted(fired)[-4]
    page = words(write_report(tmp_path / "run").read_text())
    assert "To look at closely: 4 of 12 neurons of hidden 1, those that fire most." in page


def test_figures_have_unique_ids_that_resolve(whole_page):
    ids = re.findall(r'\bid="([^"]+)"', whole_page)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', whole_page))
    assert used and used <= set(ids)


def test_neutral_colours_follow_the_theme(whole_page):
    drawings = "".join(re.findall(r"<svg.*?</svg>", whole_page, re.DOTALL))
    assert "var(--ink)" in drawings and "#1d2530" not in drawings


def test_convolutions_are_shown_by_taps_and_kernels(tmp_path, undrawn):
    rng = np.random.default_rng(8)
    kernel = rng.integers(-7, 8, (3, 1, 3, 3)) * (rng.random((3, 1, 3, 3)) < 0.6)
    layers = (
        FrozenLayer.from_projections(
            [Projection(INPUT, Convolution.from_dense(kernel, (1, 4, 4), 1, 1))], threshold=60
        ),
        FrozenLayer.from_projections(
            [Projection(0, Synapses.from_dense(sparse(rng, 12, 3, 0.6, 20)), SumPool((3, 4, 4), 2))], threshold=25
        ),
    )
    network = FrozenNetwork(layers, 5, InputCoding("current", 4), "spike_count")
    folder = make_run(tmp_path / "run", network=network)
    write_bundle(network, map_network(network, [2, 1]), folder / "bundle")
    page = write_report(folder).read_text()
    text = words(page)
    convolution = layers[0].projections[0].connections
    # A tap holds a slot of 32, the weight, and three steps each along y and x.
    bits = 5 + layers[0].weight_bits + 2 + 2
    text = text.replace("\N{MULTIPLICATION SIGN}", "x")
    assert f"|1x4x4|3x3|3x4x4|{convolution.n_weights}|{convolution.n_operations}|{bits}|" in text
    assert "|3x4x4|2x2|single synapses|3|" in text
    assert "1x4x4-3x4x4-3 spiking network" in page
    assert "taps and kernels of hidden 1" in page and "picture of the first layer" not in page
    assert "does not cover" not in page and "No hardware" not in page
    assert 'section id="pictures"' not in write_report(make_run(tmp_path / "plain")).read_text()


def test_every_projection_of_a_layer_has_its_row(tmp_path, wordy):
    rng = np.random.default_rng(9)
    kernel = rng.integers(1, 8, (2, 1, 3, 3))
    own = Convolution.from_dense(rng.integers(1, 4, (2, 2, 1, 1)), (2, 4, 4))
    first = FrozenLayer.from_projections(
        [Projection(INPUT, Convolution.from_dense(kernel, (1, 4, 4), 1, 1)), Projection(0, own)], threshold=60
    )
    last = FrozenLayer.from_dense(sparse(rng, 32, 3, 0.6, 20), threshold=25)
    network = FrozenNetwork((first, last.resolved(1)), 5, InputCoding("events"), "spike_count")
    page = write_report(make_run(tmp_path / "run", network=network)).read_text()
    text = words(page)
    text = text.replace("\N{MULTIPLICATION SIGN}", "x")
    assert f"|1x4x4|3x3|2x4x4|{first.projections[0].connections.n_weights}|" in text
    assert "|hidden 1, also from hidden 1|2x4x4|1x1|2x4x4|4|" in text


def test_missing_parts_are_named_with_their_command(tmp_path, wordy):
    folder = make_run(tmp_path / "part", verified=False, history=False)
    page = write_report(folder).read_text()
    assert "Not verified." in page
    for what in ("training history", "hardware spikes", "lanes and memory", "cycles"):
        assert f"{what}: not measured" in page
    assert "codesign verify part" in page and "codesign generate part" in page and "codesign train part" in page
    assert "hardware (RTL simulation)" not in page


def test_a_run_without_a_network_is_reported_too(tmp_path, wordy):
    RunDirectory.create(tmp_path / "empty")
    page = write_report(tmp_path / "empty").read_text()
    assert page.count("not measured") >= 8 and "None" not in page and "nan" not in page


def test_a_failed_verification_is_red_and_says_where(tmp_path, wordy):
    page = write_report(make_run(tmp_path / "run", mismatches=3)).read_text()
    assert 'class="verdict bad"' in page and "Hardware differs from software." in page
    assert "sample 2, timestep 1, layer 0, neuron 7" in page and "expected 0, got 1" in page
    assert "they differ" in page


def test_a_failure_that_no_figure_tells_is_red_all_the_same(tmp_path, wordy):
    folder = make_run(tmp_path / "run", mismatches=3)
    run = RunDirectory.open(folder)
    run.figures["mismatches"] = None
    run.save()
    assert "Hardware differs from software." in write_report(folder).read_text()


def test_mutants_are_counted_and_an_escaped_one_is_told(tmp_path, wordy):
    folder = make_run(tmp_path / "run")
    assert "codesign verify run --mutants" in write_report(folder).read_text()
    mutants = [{"name": str(k), "kind": "rtl", "caught": k > 0, "first_divergence": None} for k in range(7)]
    document = {"mutants": mutants, "control": {"caught": True, "error": None}}
    (folder / "verify" / "mutants.json").write_text(json.dumps(document))
    page = write_report(folder).read_text()
    assert "codesign verify run --mutants" not in page
    assert re.search(r"rtl</td>\s*<td[^>]*>7</td>\s*<td[^>]*>6</td>", page), page[page.index("injected") :][:600]
    assert "control does NOT pass" in page


def test_clocks_that_were_told_wrongly_are_said(tmp_path):
    folder = make_run(tmp_path / "run")
    path = folder / "verify" / "verification.json"
    first = "back_to_back, sample 3: begins and is decided in clocks 1 and 2, simulated 1 and 3"
    told = {"compared": 16, "equal": 15, "first": first}
    path.write_text(json.dumps({**json.loads(path.read_text()), "told_clocks": told}))
    page = write_report(folder).read_text()
    assert "15 of 16 runs of samples" in page and f"without simulation; {first}." in page
    assert told_clocks({**told, "equal": 16}) == (
        "All 16 runs of samples that were compared, alone or back to back, take the clocks that are told without "
        "simulation."
    )


def test_text_from_files_is_escaped(tmp_path, wordy):
    attack = "<script>alert(1)</script>"
    folder = make_run(tmp_path / "<b>run")
    document = json.loads((folder / "verify" / "verification.json").read_text())
    document["phases"][attack] = {"samples": 1, "mismatches": 0, "comparisons": {attack: 1}}
    document["files_hash"] = attack
    (folder / "verify" / "verification.json").write_text(json.dumps(document))
    run = RunDirectory.open(folder)
    run.set_stage(attack, {"status": attack, "seconds": 1.0, "versions": {attack: attack}})
    run.save()
    page = write_report(folder).read_text()
    assert attack not in page and "<b>run" not in page
    assert "&lt;script&gt;" in page


def test_versions_are_told_of_what_they_have_made():
    old, new = {"torch": "1"}, {"torch": "2"}
    stages = {"train": {"versions": old}, "freeze": {"versions": new}, "generate": {"versions": new}, "import": {}}
    assert _versions(old, stages) == [("versions of train", "torch 1"), ("versions of freeze, generate", "torch 2")]
    assert _versions({}, {"train": {"versions": old}, "report": {"versions": new}}) == [("versions", "torch 1")]
    # A run of an earlier version.
    assert _versions(old, {"train": {}}) == [("versions", "torch 1")]
    assert _versions({}, {"train": {}}) == []


def test_a_damaged_part_is_named_and_the_rest_is_shown(tmp_path, wordy):
    folder = make_run(tmp_path / "run")
    (folder / "verify" / "verification.json").write_text("{")
    (folder / "stimulus.npz").write_bytes(b"nothing")
    page = write_report(folder).read_text()
    assert "verification.json" in page and "stimulus.npz" in page and page.count("Left out.") == 2
    assert "<svg" in page and str(tmp_path) not in page


def test_a_verification_of_another_network_is_not_shown(tmp_path, wordy):
    folder = make_run(tmp_path / "run")
    make_network(n_inputs=16, timesteps=6).save(folder / "network.safetensors")
    page = write_report(folder).read_text()
    assert "belongs to another network" in page and "hardware (RTL simulation)" not in page


def test_an_interrupted_history_keeps_its_whole_lines(tmp_path, wordy):
    folder = make_run(tmp_path / "run", verified=False)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 5, "den')
    assert "Left out." not in write_report(folder).read_text()


@pytest.mark.parametrize("timesteps", [4, 40])
def test_event_inputs_are_drawn_as_events(tmp_path, undrawn, timesteps):
    folder = make_run(tmp_path / "run", "events", n_inputs=10, timesteps=timesteps)
    write_report(folder)
    record = collect(folder)
    axes = undrawn[f"events of the input, sample {SAMPLE}"].axes[0]
    assert axes.get_xlabel() == "timestep" and axes.get_ylabel() == "input channel"
    events = record.stimulus.dense()[SAMPLE]
    assert axes.get_title(loc="left") == f"input: {np.count_nonzero(events)} events"
    assert len(axes.collections[0].get_segments()) == np.count_nonzero(events)
    assert axes.get_ylim() == (9.6, -0.6)
    assert "weight matrix from input to hidden 1" in undrawn


def test_the_same_run_gives_the_same_page(tmp_path, whole_page):
    folder = make_run(tmp_path / "whole")
    assert write_report(folder).read_text() == whole_page


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"not a run directory"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("rewiring", "words"),
    [
        ({}, ("PQ index", "momentum", "falls")),
        ({"preset": "rigl"}, ("cosine", "gradient", "density stays")),
        ({"preset": "set"}, ("constant fraction", "anywhere", "density stays")),
        ({"preset": "sap"}, ("PQ index", "none grown", "falls")),
        ({"preset": "fixed", "landing": "distribution"}, ("constant fraction", "its share of the target")),
        ({"preset": "static"}, ("stay as they are",)),
        ({"preset": "dense"}, ("Every connection",)),
    ],
)
def test_the_training_is_described_as_it_was(rewiring, words):
    config = RewiringConfig(**rewiring)
    text = structure_text(config)
    assert all(word in text for word in words)
    assert ("PQ" in text) == (config.rules.changes and config.rules.ratio == "pq")


def test_wilson_interval_of_a_known_case():
    low, high = wilson_interval(0.5, 100)
    assert (round(low, 3), round(high, 3)) == (0.404, 0.596)
    assert wilson_interval(1.0, 10)[1] == 1.0


def test_the_reports_own_stage_is_not_said_to_be_running(tmp_path, wordy):
    folder = make_run(tmp_path / "run")
    run = RunDirectory.open(folder)
    run.set_stage("verify", {"status": "done", "seconds": 2.0})
    run.set_stage("report", {"status": "running", "seconds": 0.0})
    run.save()
    text = words(write_report(folder).read_text())
    assert "|verify|done|2.0|" in text and "running" not in text and "|report|" not in text


@pytest.mark.parametrize(
    ("n_inputs", "shape", "kind"),
    [
        (128, (128,), "a series of values"),
        (128, (), "a series of values"),
        (64, (64,), "a series of values"),
        (96, (48, 2), "a series of values"),
        (24, (4, 6), "a picture"),
        (48, (3, 4, 4), "a picture"),
        (32, (2, 4, 4), "a picture"),
    ],
)
def test_the_input_is_drawn_as_what_it_is(tmp_path, n_inputs, shape, kind):
    folder = make_run(tmp_path / "run", n_inputs=n_inputs, verified=False, frozen={"sample_shape": list(shape)})
    record = collect(folder)
    figure, description = input_panel(record, 1)
    assert description == f"input of sample 1 as {kind}"
    values = record.stimulus.values[1]
    if kind == "a picture":
        channels = values.reshape(-1, *shape[-2:])
        pictures = [axes.images[0].get_array() for axes in figure.axes]
        if len(channels) == 3:
            assert np.allclose(pictures[0], np.moveaxis(channels, 0, 2) / 15)
        else:
            assert all(np.array_equal(*pair) for pair in zip(pictures, channels, strict=True))
    else:
        lines = [line.get_ydata() for line in figure.axes[0].lines]
        assert np.array_equal(np.stack(lines, axis=1), values.reshape(-1, shape[1] if len(shape) == 2 else 1))
        assert figure.axes[0].get_ylabel() == "value, 0 to 15"
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in figure.axes if axes.axison)


def test_flags_are_not_drawn_as_pixels(tmp_path):
    coding = InputCoding("current", 4, {"flags": ["early", "late"]})
    network = replace(make_network(n_inputs=18), coding=coding)
    record = collect(make_run(tmp_path / "run", network=network, frozen={"sample_shape": [4, 4]}))
    figure, _ = input_panel(record, 0)
    assert np.array_equal(figure.axes[0].images[0].get_array(), record.stimulus.values[0][:16].reshape(4, 4))
    assert record.image_shape is None and "2 flags (early, late)" in input_words(record)


def test_classes_have_the_names_that_the_data_give_them(tmp_path, undrawn):
    names = ["sine <b>", "saw $tooth$", "a name that is much too long for a table"]
    folder = make_run(tmp_path / "run", frozen={"classes": names, "sample_shape": [4, 4]})
    save_decisions(folder, np.array([0, 1, 2, 0, 1, 2, 0, 2], np.int32), make_network().hash)
    page = write_report(folder).read_text()
    short = "a name that is much too\N{HORIZONTAL ELLIPSIS}"
    shown = texts(undrawn["confusion matrix of the frozen network"].axes[0])
    assert shown.count("sine <b>") == 2 and shown.count(r"saw \$tooth\$") == 2 and shown.count(short) == 2
    assert "|sine <b>|3|100.0%|100.0%|" in words(page)
    assert f"|saw $tooth$|3|66.7%|100.0%|{short} (1)|" in words(page)
    # Of the wrong one, the last of the eight, traces and pictures tell both names.
    assert "Wrong: sample 7, label saw $tooth$, decided " in words(page)
    assert f"saw $tooth$ read as {short}" in words(page)
    assert "sine <b>" not in page and "sine &lt;b&gt;" in page
    curves = texts(undrawn["readout of each class over time, sample 7"].axes[0])
    assert any("(label)" in text for text in curves) or r"saw \$tooth\$" in " ".join(curves)


def test_a_network_that_only_guesses_answers_a_class_by_its_name(tmp_path):
    folder = make_run(tmp_path / "run", learnt=False, frozen={"classes": ["sine", "square", "saw"]})
    assert "it answers class sine for every sample" in verdict(collect(folder))[2]


def test_names_that_nobody_gave_are_numbers(tmp_path):
    record = collect(make_run(tmp_path / "run", verified=False, frozen={"classes": ["first"]}))
    assert record.class_names == ["first", "1", "2"] and record.class_name(7) == "7"


def test_a_part_of_the_test_set_is_said_to_be_one(tmp_path, wordy):
    folder = make_run(tmp_path / "run")
    run = RunDirectory.open(folder)
    run.set_figures({**run.figures, "samples_verified": 3, "accuracy_hardware": None})
    run.set_stage("verify", {"status": "done"})
    run.save()
    document = json.loads((folder / "verify" / "verification.json").read_text())
    (folder / "verify" / "verification.json").write_text(json.dumps({**document, "accuracy_hardware": 2 / 3}))
    text = words(write_report(folder).read_text())
    assert "|3 of 8 test samples simulated in RTL, 0 values differ.|" in text
    assert "|accuracy, hardware|66.67%|on 3 of 8 test samples, simulated|" in text
    assert "|verified|3 of 8|" in text and "hardware, 3 of 8 test samples simulated" in text
    assert "Hardware: 3 of 8 test samples, simulated." in text and "out of date" not in text
    assert "|All 8 test samples simulated in RTL" in words(write_report(make_run(tmp_path / "other")).read_text())


def test_a_verification_of_what_has_changed_since_does_not_count(tmp_path, wordy):
    folder = make_run(tmp_path / "run")
    run = RunDirectory.open(folder)
    run.set_figures({**run.figures, "samples_verified": None, "mismatches": None, "accuracy_hardware": None})
    run.set_stage("verify", {"status": "done"})
    run.save()
    document = json.loads((folder / "verify" / "verification.json").read_text())
    (folder / "verify" / "verification.json").write_text(json.dumps({**document, "accuracy_hardware": 2 / 3}))
    text = words(write_report(folder).read_text())
    assert "|Verified before something changed.|" in text and "codesign verify run" in text
    assert "simulation out of date" in text and "66.67%" not in text and "not simulated yet" not in text


def test_samples_that_differ_are_chosen(tmp_path):
    folder = make_run(tmp_path / "run", verified=False)
    decisions = np.array([0, 1, 2, 0, 1, 0, 1, 1], np.int32)
    margins = np.array([5, 2, 9, 9, 2, 4, 7, 1], np.int64)
    save_decisions(folder, decisions, make_network().hash, margins)
    record = collect(folder)
    # Labels are 0, 1, 2, 0, 1, 2, 0, 1: five and six are wrong. Of equal margins the first sample is taken as clear.
    assert [(item.sample, item.reason) for item in choose(record)] == [
        (2, "Right, wide margin"),
        (7, "Right, narrow margin"),
        (6, "Wrong"),
    ]
    record.stimulus.labels[:] = -1
    assert [(item.sample, item.reason) for item in choose(record)] == [(2, "wide margin"), (7, "narrow margin")]
    record.stimulus.labels[:] = (decisions + 1) % 3
    assert [(item.sample, item.reason) for item in choose(record)] == [(2, "Wrong")]


def test_traces_show_potential_threshold_and_spikes_of_neurons(tmp_path):
    folder = make_run(tmp_path / "run")
    record = collect(folder)
    trace = record.trace([SAMPLE, 5])
    neuron = int(trace.spikes[0][1].sum(axis=0).argmax())
    figure, description = neuron_panel(record, trace, 1, 0, neuron, trace.membranes[0][1][:, neuron])
    threshold, stored, potential, hardware, spikes = (line.get_xydata() for line in figure.axes[0].lines)
    assert description == f"potential, membrane and spikes of hidden 1, neuron {neuron} over the timesteps"
    assert set(threshold[:, 1]) == {60}
    assert np.array_equal(potential[:, 1], trace.potentials[0][1][:, neuron])
    assert np.array_equal(stored[:, 1], trace.membranes[0][1][:, neuron]) and np.array_equal(hardware, stored)
    fired = np.flatnonzero(potential[:, 1] >= 60)
    assert fired.size and np.array_equal(spikes, potential[fired])


@pytest.mark.parametrize("has_samples", [True, False])
def test_a_network_made_elsewhere_is_not_said_to_lack_training(tmp_path, wordy, has_samples):
    folder = make_run(tmp_path / "run", verified=False, history=False)
    for name in ("decisions.npz", "config.toml", *([] if has_samples else ["stimulus.npz"])):
        (folder / name).unlink()
    run = RunDirectory.open(folder)
    run.manifest["imported"] = True
    run.set_figures(dict.fromkeys(run.figures))
    run.save()
    network, text = make_network(), words(write_report(folder).read_text())
    assert "data set" not in text and "codesign train" not in text and "From the trained to" not in text
    assert f"|synapses|{network.n_synapses}|density {network.density:.1%}|" in text
    accuracy = np.mean(golden.run(network, make_stimulus(network)).decisions == np.arange(8) % 3)
    assert f"|accuracy, frozen|{f'{accuracy:.2%}' if has_samples else EN_DASH}|" in text
    assert ("no labelled samples came with the network" in text) is not has_samples


def test_what_freezing_changed_is_told_step_by_step(tmp_path, wordy):
    folder = make_run(tmp_path / "run")
    record = collect(folder)
    first, last = (layer.n_synapses for layer in record.network.layers)
    text = words(write_report(folder).read_text())
    whole, rest, dash = first + last + 8, first + last, EN_DASH
    for row in (
        f"trained, floating point|{whole + 9}|18|93.00%|87.50%",
        f"rounded to integers|{whole + 9}|18|80.00%|{dash}",
        f"fine-tuned in integers, epoch 1 of 1 kept|{whole + 9}|18|90.00%|{dash}",
        f"without weights that are 0|{whole}|18|{dash}|{dash}",
        f"without dead neurons: the frozen network|{rest}|15|91.00%|75.00%",
        f"hardware, all 8 test samples simulated|{rest}|15|{dash}|75.00%",
        f"hidden 1|{first + 11}|5|6|{first}|15|1|2|12",
        f"output|{last + 6}|4|2|{last}|3|0|0|3",
    ):
        assert f"|{row}|" in text, row


def test_a_damaged_record_of_freezing_is_named_and_the_rest_is_shown(tmp_path, undrawn):
    folder = make_run(tmp_path / "run", frozen={"classes": [1, 2, 3]})
    text = words(write_report(folder).read_text())
    assert "manifest.json: freeze: classes.0: " in text
    assert "confusion matrix of the frozen network" in undrawn


def cells(**found):
    return {"lut": 120.0, "ff": 80.0, "bram": 2.0, "dsp": 0.0, "lut_cells": 118.0, **found}


def test_what_each_schedule_of_time_costs_is_shown(tmp_path, undrawn):
    folder, network = make_run(tmp_path / "run"), make_network()
    at_once = {"walks": 11.0, "clocks": 22.5, "memory_bits": 3300}
    schedules = [
        {"schedule": "sample", "timestep": None, "sample": {"walks": 7.0, "clocks": 8.0, "memory_bits": 99}},
        {"schedule": "timestep", "timestep": {"walks": 44.0, "clocks": 55.0, "memory_bits": 66}, "sample": at_once},
    ]
    estimate = {"network_hash": network.hash, "area": {}, "schedules": schedules}
    (folder / "estimate.json").write_text(json.dumps(estimate))
    text = words(write_report(folder).read_text())
    assert "Schedules of time" in text
    assert "|output|timestep|yes|44|55|66|" in text and "|output|sample|11|22|3,300|" in text
    # Nothing is told where a layer has no choice.
    for layer in schedules:
        layer["sample"] = None
    (folder / "estimate.json").write_text(json.dumps(estimate))
    assert "Schedules of time" not in words(write_report(folder).read_text())


def test_tiles_say_how_logic_memory_and_time_are_known(tmp_path):
    folder = make_run(tmp_path / "run")
    digest = make_network().hash

    def tiles():
        found = headline(collect(folder))
        return "|" + "".join(f"{tile[key]}|" for tile in found for key in ("name", "value", "note"))

    assert "|clocks between samples|" not in tiles() and "logic cells" not in tiles() and "block RAMs" not in tiles()
    assert "energy" not in tiles().lower()
    # An estimate of a machine that a family has not has no figures there.
    part = {"component": "engine0.neurons", "layer": 0, "lut": 90.0, "ff": 60.0, "bram": 3.0, "dsp": 0}
    band = {figure: {"low": 0.1, "high": 0.2} for figure in ("lut", "ff")}
    area = {
        "ecp5": {"lut": None, "ff": None, "bram": None, "dsp": None, "error": None, "parts": []},
        "ice40": {"lut": 90, "ff": 60, "bram": 3.0, "dsp": 0, "error": band, "parts": [part]},
    }
    estimate = {"network_hash": digest, "interval_cycles": 140.0, "area": area}
    (folder / "estimate.json").write_text(json.dumps(estimate))
    assert "|clocks between samples|140|estimated, samples back to back|" in tiles()
    assert "|logic cells|90|ice40, estimated|block RAMs|3|ice40, estimated|" in tiles()
    energy = {"sample_pj": 1234.0, "by_layer": [], "source": "published", "not_counted": "wires"}
    (folder / "estimate.json").write_text(json.dumps({**estimate, "energy": energy}))
    assert "|energy per sample|1.2 nJ|estimated: memories and arithmetic at 45 nm, not the supply current|" in tiles()

    run = RunDirectory.open(folder)
    run.set_figures({**run.figures, "cycles_per_sample": 131.5, "fmax_mhz": {"a": None, "ecp5-25f": 50.0}})
    run.save()
    placed = {
        "lut": 110, "bram": 2, "fmax_mhz": 50.0, "seeds": {"1": 50.0}, "device": "25k", "speed_grade": "6",
        "package": "CABGA381", "reason": None,
    }  # fmt: skip
    (folder / "synth").mkdir()
    synthesis = {"network_hash": digest, "area": {"ecp5": cells()}, "placed": {}}
    (folder / "synth" / "synth.json").write_text(json.dumps(synthesis))
    assert "|logic cells|120|ecp5, synthesised|block RAMs|2|ecp5, synthesised|" in tiles()
    (folder / "synth" / "synth.json").write_text(json.dumps({**synthesis, "placed": {"ecp5-25f": placed}}))
    assert "|time between samples|2.6 us|130 clocks, simulated; 50.0 MHz on ecp5-25f, placed and routed|" in tiles()
    assert "|logic cells|110|ecp5-25f, placed and routed|" in tiles()

    build = {**BUILD, "network_hash": digest}
    (folder / "build" / "ulx3s-25f").mkdir(parents=True)
    (folder / "build" / "ulx3s-25f" / "build.json").write_text(json.dumps(build))
    assert "|time between samples|5.2 us|130 clocks, simulated; ulx3s-25f at 25 MHz|" in tiles()
    assert "|logic cells|130|LFE5U-25F with its link, placed and routed|" in tiles()

    # Of one simulated sample there is no interval.
    verification = json.loads((folder / "verify" / "verification.json").read_text())
    (folder / "verify" / "verification.json").write_text(json.dumps({**verification, "interval_cycles": None}))
    assert "|time between samples|5.6 us|140 clocks, estimated; ulx3s-25f at 25 MHz|" in tiles()


def test_clocks_are_told_by_their_names_with_the_samples_that_they_are_of(tmp_path, undrawn):
    folder = make_run(tmp_path / "run")
    cycles = {"latency_cycles": 150.0, "interval_cycles": 133.0, "samples": 2}
    estimate = {"network_hash": make_network().hash, "area": {}, "cycles": cycles, **cycles}
    (folder / "estimate.json").write_text(json.dumps(estimate))
    text = words(write_report(folder).read_text())
    assert "|latency of a sample alone, cycles|140.2|interval of samples back to back, cycles|130.2|" in text
    assert "Cycles: estimated on 2 validation samples, measured on all 8 test samples." in text


def make_measured_run(folder, lanes=(1, 1)):
    """A run whose verification, estimate, synthesis and bitstream are of the machine in its bundle."""
    make_run(folder)
    network, bundle = collect(folder).network, folder / "bundle"
    write_bundle(network, map_network(network, list(lanes)), bundle)
    sidecar = read_sidecar(bundle)
    path = folder / "verify" / "verification.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "files_hash": tree_hash(bundle)}))
    memory_bits = sidecar.memory_bits.model_dump()
    estimate = {
        "lanes": list(lanes),
        "memory_bits": memory_bits,
        "early_exit": "off",
        "interval_cycles": 140,
        "area": {},
    }
    sources = {name: sidecar.files[name] for name in [sidecar.verilog, *(memory.image for memory in sidecar.images)]}
    synthesis = {"sources": sources, "area": {"ecp5": cells()}, "placed": {}}
    for name, document in (
        ("estimate.json", estimate), ("synth/synth.json", synthesis),
        ("build/icebreaker/build.json", {**BUILD, "sources": sources}),
    ):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps({**document, "network_hash": network.hash}))
    run = RunDirectory.open(folder)
    run.set_figures({**run.figures, "cycles_per_sample": 131.5, "fmax_mhz": {"ecp5-25f": 50.0}})
    run.record_files("generate", ("bundle",))
    return folder


MEASURED = ("verification", "estimate", "synthesis", "builds")


def of_the_machine(record):
    """Which documents count, and whether any figure of the manifest does that follows from them."""
    figures = [record.figures[name] for name in ("samples_verified", "mismatches", "cycles_per_sample", "fmax_mhz")]
    return [name for name in MEASURED if getattr(record, name)], any(value is not None for value in figures)


def test_what_was_made_from_another_machine_is_left_out_and_said(tmp_path, wordy):
    folder = make_measured_run(tmp_path / "run")
    assert of_the_machine(collect(folder)) == (list(MEASURED), True) and not collect(folder).damaged
    shutil.rmtree(folder / "bundle")
    write_bundle(make_network(), map_network(make_network(), [2, 1]), folder / "bundle")
    RunDirectory.open(folder).record_files("generate", ("bundle",))
    record = collect(folder)
    assert of_the_machine(record) == ([], False) and record.sidecar is not None
    files = ("verify/verification.json", "synth/synth.json", "estimate.json", "build/icebreaker/build.json")
    text = words(write_report(folder).read_text())
    for file in files:
        assert f"|Left out.|{file}: belongs to another machine than the one in bundle; make it again|" in text
    assert "clocks between samples" not in text and "logic cells" not in text and "Hardware equals" not in text


def test_verilog_that_was_changed_since_is_not_what_was_verified(tmp_path):
    folder = make_measured_run(tmp_path / "run")
    with (folder / "bundle" / "snn.v").open("a") as file:
        file.write("// by hand\n")
    record = collect(folder)
    assert of_the_machine(record) == ([], False) and "bundle/snn.v: differs from what" in record.damaged[0]


def test_names_of_classes_are_shown_as_they_are():
    names = ["_hidden", "url(#a)", plots.INK, "<b>_x", "$x$"]
    values = np.array([[9, 8, 7, 6, 5], [2, 3, 5, 4, 1]])
    figure = signals.decision(values, [plots.plain_text(name) for name in names], 2, 0, "timestep", "sum")
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [plots.INK, "<b>_x", "_hidden (label)"]
    drawn = plots.to_svg(plots.confusion(np.eye(5, dtype=np.int64), names), "name", "what")
    shown = [unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", drawn)]
    assert set(names) <= set(shown) and "var(--muted)" in drawn


@pytest.mark.parametrize("coding", ["current", "events"])
def test_every_axis_is_labelled(tmp_path, undrawn, coding):
    write_report(make_run(tmp_path / "run", coding, frozen={"sample_shape": [4, 4] if coding == "current" else []}))
    bare = [
        (description, axes.get_title(loc="left"))
        for description, figure in undrawn.items()
        for axes in figure.axes
        # Names beside bars are a label of their own; small pictures of weights have no axes.
        if axes.axison and axes.get_label() != "<colorbar>"
        if not axes.get_xlabel()
        or not (axes.get_ylabel() or any(label.get_text()[:1].isalpha() for label in axes.get_yticklabels()))
    ]
    assert len(undrawn) > 20 and bare == []


def test_training_is_shown_by_loss_accuracy_density_and_firing_rate(tmp_path, undrawn):
    write_report(make_run(tmp_path / "run"))
    axes = {name: undrawn[f"{name} over the epochs"].axes[0] for name in ("Loss", "Accuracy", "Density", "Firing rate")}
    lines = {name: {line.get_label(): list(line.get_ydata()) for line in panel.lines} for name, panel in axes.items()}
    assert lines["Loss"]["training"] == [2.0 / epoch for epoch in range(1, 5)]
    assert lines["Accuracy"]["training"] == [0.95 - 0.2 / epoch for epoch in range(1, 5)]
    # The fine-tuning in integers goes on from there.
    assert lines["Accuracy"]["validation"] == [*(0.9 - 0.2 / epoch for epoch in range(1, 5)), 0.9]
    assert lines["Firing rate"]["hidden 1"] == [0.2] * 4 and len(lines["Density"]["network"]) >= 4


def test_nothing_is_wider_than_a_telephones_page(whole_page):
    """Tables and drawings lie in boxes that scroll; a drawing that fits into 340 pixels shrinks before it scrolls."""
    style = whole_page[: whole_page.index("</style>")]
    assert re.search(r"\.plot \{[^}]*overflow-x: auto", style) and re.search(r"\.scroll \{[^}]*overflow-x: auto", style)
    assert "@media screen and (prefers-color-scheme: dark)" in style and "@media print" in style
    body = whole_page[len(style) :]
    assert body.count("<svg") == body.count('<div class="plot"><svg')
    assert body.count("<table") == body.count('"><table><thead>') + body.count('<table class="facts">')
    widths = [tuple(map(int, found)) for found in re.findall(r'style="width:(\d+)px;min-width:(\d+)px"', body)]
    assert len(widths) == body.count("<svg") and all(abs(least - 0.75 * width) <= 1 for width, least in widths)
    assert sum(least > 340 for _, least in widths) <= 3


@pytest.mark.parametrize("coding", ["current", "events"])
def test_a_run_in_one_picture(tmp_path, monkeypatch, coding):
    saved = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: saved.append((figure, path)))
    names = ["low", "middle", "high"]
    folder = make_run(tmp_path / "run", coding, frozen={"sample_shape": [4, 4], "classes": names})
    write_figure(folder, tmp_path / "run.png")
    ((figure, path),) = saved
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert path == tmp_path / "run.png" and titles[0].startswith("input") and titles[1].startswith("hidden 1: ")
    assert titles[-4:] == ["Density", "PQ index", "Accuracy", "decisions on the test set"]
    assert [label.get_text() for label in figure.axes[-1].get_yticklabels()] == names
    with pytest.raises(InputError, match=r"must end in \.png or \.svg"):
        write_figure(folder, tmp_path / "run.pdf")
    with pytest.raises(InputError, match="not trained, frozen and verified yet"):
        write_figure(make_run(tmp_path / "part", verified=False), tmp_path / "run.png")


def test_a_run_of_ones_own_data_keeps_what_the_report_shows_of_them(tmp_path, wordy, capsys):
    rng = np.random.default_rng(3)
    labels = np.arange(60) % 3
    series = np.clip(np.eye(3).repeat(10, axis=1)[labels] + rng.normal(0, 0.1, (60, 30)), 0, 1)
    names = np.array(["low", "middle", "high"])
    np.savez(tmp_path / "mine.npz", x=series, y=labels, classes=names, split=np.arange(60) // 3 % 3)
    (tmp_path / "mine.toml").write_text(
        f'[data]\nset = "npz"\npath = "{tmp_path / "mine.npz"}"\n[network]\nhidden = [8]\ntimesteps = 3\n'
        "[train]\nepochs = 6\nbatch_size = 4\nthreads = 1\n[freeze]\nepochs = 1\n"
    )
    run = str(tmp_path / "run")
    for command in (["train", str(tmp_path / "mine.toml"), "-o", run], ["freeze", run], ["report", run]):
        assert main(command) == 0, capsys.readouterr().err
    record = collect(tmp_path / "run")
    assert record.class_names == ["low", "middle", "high"] and record.sample_shape == (30,)
    assert record.kept_decisions is not None and record.outcome is record.kept_decisions
    page = (tmp_path / "run" / "report.html").read_text()
    for description in ("Accuracy over the epochs", "Loss over the epochs", "Firing rate over the epochs"):
        assert description in page
    assert "as a series of values" in page and "running" not in words(page)
    assert re.search(r"sample \d+, label (low|middle|high), decided (low|middle|high)", words(page))
