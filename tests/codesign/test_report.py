"""The report shows what was measured, says what was not, and needs nothing from outside of the page."""

import json
import re

import numpy as np
import pytest

from codesign.basics.errors import InputError
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
from codesign.contract.stimulus import Stimulus
from codesign.machine.mapping import map_network
from codesign.records.rundir import RunDirectory
from codesign.report import write_report
from codesign.report.collect import collect
from codesign.report.plots import wilson_interval
from codesign.report.sections import structure_text
from rtl_templates.bundle import write_bundle

SAMPLE = 2


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
        "layers": [{**clocks, "synaptic_operations": 777, "lane_use": 0.91}] * 2,
        "network_hash": network.hash,
        "files_hash": "ab" * 32,
        "decoder": {"equal": True, "compared": network.n_synapses, "differences": 0, "first": None},
        "phases": {"back_to_back": {"samples": 8, "mismatches": mismatches, "comparisons": {"spikes": 600}}},
        "simulated_cycles": 12345,
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
    np.savez(folder / "decisions.npz", decisions=decisions, network_hash=network.hash)
    (folder / "config.toml").write_text(f'[data]\ncoding = "{coding}"\n')
    figures = dict(run.figures)
    figures |= {"accuracy_float": 0.875, "accuracy_frozen": 0.75, "density": network.density}
    if history:
        rows = [
            {
                "epoch": epoch,
                "density": 0.5 / epoch,
                "validation_accuracy": 0.9 - 0.2 / epoch,
                "layers": [{"density": 0.4 / epoch, "index": 0.1 * epoch}, {"density": 0.8 / epoch, "index": 0.2}],
            }
            for epoch in range(1, 5)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        run.set_stage("freeze", {"status": "done", "fine_tuning": [{"epoch": 1, "validation_accuracy": 0.9}]})
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
def undrawn(monkeypatch):
    """Leaves the figures out, which take most of a report's time."""
    monkeypatch.setattr("codesign.report.blocks.to_svg", lambda *arguments: "<svg></svg>")


@pytest.mark.parametrize("is_other", [False, True])
def test_decisions_that_freezing_left_are_not_computed_again(tmp_path, monkeypatch, is_other):
    folder = make_run(tmp_path / "run", verified=False)
    (folder / "decisions.npz").unlink()
    record = collect(folder)
    assert record.network is not None and record.stimulus is not None
    left = np.full(len(record.stimulus), record.network.n_outputs - 1, np.int32)
    np.savez(folder / "decisions.npz", decisions=left, network_hash="other" if is_other else record.network.hash)
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
def test_a_network_that_only_guesses_is_no_success(tmp_path, undrawn, verified):
    page = write_report(make_run(tmp_path / "run", verified=verified, learnt=False)).read_text()
    assert 'class="verdict bad"><strong>The network has not learnt' in page
    assert "no better than always answering class 0" in page and "it answers class 0 for every sample" in page
    assert 'class="tile bad"><div class="name">accuracy, frozen' in page
    assert ("hardware equals software." in page) is verified


def test_a_network_that_has_learnt_is_shown_beside_guessing(tmp_path, undrawn):
    page = write_report(make_run(tmp_path / "run")).read_text()
    assert 'class="verdict good"' in page and "has not learnt" not in page
    assert '<div class="name">guessing</div><div class="value">37.50%' in page


def test_what_stages_warned_of_is_listed_and_takes_the_green_from_the_banner(tmp_path, undrawn):
    folder = make_run(tmp_path / "run")
    run = RunDirectory.open(folder)
    run.set_stage("train", {"status": "done", "warnings": ["layer hidden 1 never fires <b>"]})
    run.save()
    page = write_report(folder).read_text()
    assert 'class="verdict open"><strong>Hardware equals software; something looks wrong.' in page
    assert '<section id="warnings"' in page and "layer hidden 1 never fires &lt;b&gt;" in page
    assert '<section id="warnings"' not in write_report(make_run(tmp_path / "other")).read_text()


def test_the_work_that_training_was_drawn_to_is_stated(tmp_path, undrawn):
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
    assert "<script" not in whole_page


def test_figures_have_unique_ids_that_resolve(whole_page):
    ids = re.findall(r'\bid="([^"]+)"', whole_page)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', whole_page))
    assert used and used <= set(ids)


def test_neutral_colours_follow_the_theme(whole_page):
    drawings = "".join(re.findall(r"<svg.*?</svg>", whole_page, re.DOTALL))
    assert "var(--ink)" in drawings and "#1d2530" not in drawings


def test_convolutions_are_shown_by_taps_and_kernels(tmp_path):
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
    text = re.sub(r"\s*<[^>]+>\s*", "|", re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL))
    text = re.sub(r"\|+", "|", text)
    convolution = layers[0].projections[0].connections
    # A tap holds a slot of 32, the weight, and three steps each along y and x.
    bits = 5 + layers[0].weight_bits + 2 + 2
    assert f"|1 x 4 x 4|3 x 3|3 x 4 x 4|{convolution.n_weights}|{convolution.n_operations}|{bits}|" in text
    assert "|3 x 4 x 4|2 x 2|single synapses|3|" in text
    assert "1x4x4-3x4x4-3 spiking network" in page
    assert "taps and kernels of hidden 1" in page and "picture of the first layer" not in page
    assert "does not cover" not in page and "No hardware" not in page
    assert 'section id="pictures"' not in write_report(make_run(tmp_path / "plain")).read_text()


def test_every_projection_of_a_layer_has_its_row(tmp_path, undrawn):
    rng = np.random.default_rng(9)
    kernel = rng.integers(1, 8, (2, 1, 3, 3))
    own = Convolution.from_dense(rng.integers(1, 4, (2, 2, 1, 1)), (2, 4, 4))
    first = FrozenLayer.from_projections(
        [Projection(INPUT, Convolution.from_dense(kernel, (1, 4, 4), 1, 1)), Projection(0, own)], threshold=60
    )
    last = FrozenLayer.from_dense(sparse(rng, 32, 3, 0.6, 20), threshold=25)
    network = FrozenNetwork((first, last.resolved(1)), 5, InputCoding("events"), "spike_count")
    page = write_report(make_run(tmp_path / "run", network=network)).read_text()
    text = re.sub(r"\|+", "|", re.sub(r"\s*<[^>]+>\s*", "|", re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)))
    assert f"|1 x 4 x 4|3 x 3|2 x 4 x 4|{first.projections[0].connections.n_weights}|" in text
    assert "|hidden 1, also from hidden 1|2 x 4 x 4|1 x 1|2 x 4 x 4|4|" in text


def test_missing_parts_are_named_with_their_command(tmp_path):
    folder = make_run(tmp_path / "part", verified=False, history=False)
    page = write_report(folder).read_text()
    assert "Not verified." in page
    for what in ("training history", "hardware spikes", "lanes and memory", "cycles"):
        assert f"{what}: not measured" in page
    assert "codesign verify part" in page and "codesign generate part" in page and "codesign train part" in page
    assert "hardware (RTL simulation)" not in page


def test_a_run_without_a_network_is_reported_too(tmp_path):
    RunDirectory.create(tmp_path / "empty")
    page = write_report(tmp_path / "empty").read_text()
    assert page.count("not measured") >= 8 and "None" not in page and "nan" not in page


def test_a_failed_verification_is_red_and_says_where(tmp_path):
    page = write_report(make_run(tmp_path / "run", mismatches=3)).read_text()
    assert 'class="verdict bad"' in page and "Hardware differs from software." in page
    assert "sample 2, timestep 1, layer 0, neuron 7" in page and "expected 0, got 1" in page
    assert "they differ" in page


def test_a_failure_that_no_figure_tells_is_red_all_the_same(tmp_path, undrawn):
    folder = make_run(tmp_path / "run", mismatches=3)
    run = RunDirectory.open(folder)
    run.figures["mismatches"] = None
    run.save()
    assert "Hardware differs from software." in write_report(folder).read_text()


def test_mutants_are_counted_and_an_escaped_one_is_told(tmp_path, undrawn):
    folder = make_run(tmp_path / "run")
    assert "codesign verify run --mutants" in write_report(folder).read_text()
    mutants = [{"name": str(k), "kind": "rtl", "caught": k > 0, "first_divergence": None} for k in range(7)]
    document = {"mutants": mutants, "control": {"caught": True, "error": None}}
    (folder / "verify" / "mutants.json").write_text(json.dumps(document))
    page = write_report(folder).read_text()
    assert "codesign verify run --mutants" not in page
    assert re.search(r"rtl</td>\s*<td[^>]*>7</td>\s*<td[^>]*>6</td>", page), page[page.index("injected") :][:600]
    assert "control does NOT pass" in page


def test_text_from_files_is_escaped(tmp_path, undrawn):
    attack = "<script>alert(1)</script>"
    folder = make_run(tmp_path / "<b>run")
    document = json.loads((folder / "verify" / "verification.json").read_text())
    document["phases"][attack] = {"samples": 1, "mismatches": 0, "comparisons": {attack: 1}}
    document["files_hash"] = attack
    (folder / "verify" / "verification.json").write_text(json.dumps(document))
    run = RunDirectory.open(folder)
    run.manifest["versions"] = {attack: attack}
    run.set_stage(attack, {"status": attack, "seconds": 1.0})
    run.save()
    page = write_report(folder).read_text()
    assert "<script" not in page and "<b>run" not in page
    assert "&lt;script&gt;" in page


def test_a_damaged_part_is_named_and_the_rest_is_shown(tmp_path, undrawn):
    folder = make_run(tmp_path / "run")
    (folder / "verify" / "verification.json").write_text("{")
    (folder / "stimulus.npz").write_bytes(b"nothing")
    page = write_report(folder).read_text()
    assert "verification.json" in page and "stimulus.npz" in page and page.count("Unreadable.") == 2
    assert "<svg></svg>" in page and str(tmp_path) not in page


def test_a_verification_of_another_network_is_not_shown(tmp_path):
    folder = make_run(tmp_path / "run")
    make_network(n_inputs=16, timesteps=6).save(folder / "network.safetensors")
    page = write_report(folder).read_text()
    assert "belongs to another network" in page and "hardware (RTL simulation)" not in page


def test_an_interrupted_history_keeps_its_whole_lines(tmp_path, undrawn):
    folder = make_run(tmp_path / "run", verified=False)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 5, "den')
    assert "Unreadable." not in write_report(folder).read_text()


@pytest.mark.parametrize("timesteps", [4, 40])
def test_event_inputs_are_drawn_as_spikes(tmp_path, timesteps):
    folder = make_run(tmp_path / "run", "events", n_inputs=10, timesteps=timesteps)
    page = write_report(folder).read_text()
    assert "first layer&#39;s synapses" in page or "first layer's synapses" in page
    assert re.search(r"input\n?.*10 neurons", page, re.DOTALL)


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
