"""The command line: help with examples, one JSON object, one line per error, exit codes, Ctrl-C."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from progress_lines import is_progress
from requirements import needs

from codesign.basics.errors import MismatchError
from codesign.cli import main
from codesign.cli.summaries import run_summary
from codesign.config import load_config, parse_config
from codesign.contract.network import FrozenNetwork
from codesign.pipeline.budget import delivered_hardware
from codesign.pipeline.predict import predict
from codesign.pipeline.stage import Context, Outcome
from codesign.records.rundir import FIGURES, RunDirectory
from sim.bundle import read_sidecar

TINY = """
[network]
hidden = [6]
timesteps = 2
readout = "spike_count"
[train]
epochs = 2
batch_size = 128
learning_rate = 2e-3
threads = 1
[train.rewiring]
target_density = 0.3
epochs_per_iteration = 1
[freeze]
epochs = 1
[verify]
samples = 4
stress_samples = 2
"""

COMMANDS = ("run", "train", "freeze", "generate", "load", "verify", "estimate", "synth", "build", "explore", "report",
            "predict", "boards", "demo", "doctor", "init", "data list", "data get")  # fmt: skip


@pytest.fixture
def call(capfd):
    """call(*arguments) -> (exit code, stdout, stderr) of one command in this process."""

    def run(*arguments):
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run directory with a trained and frozen network."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tiny.toml").write_text(TINY)
    for stage in (("train", folder / "tiny.toml", "-o", folder / "run"), ("freeze", folder / "run")):
        assert main([str(argument) for argument in stage]) == 0
    return folder / "run"


def one_line(err: str) -> str:
    """The single error line on stderr, without the steps before it and how far they were, shown every few seconds."""
    lines = [line for line in err.splitlines() if not line.startswith("[") and not is_progress(line)]
    assert len(lines) == 1, err
    assert lines[0].startswith("codesign: ")
    assert "Traceback" not in err
    return lines[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_json(call, command):
    code, out, _ = call(*command.split(), "--help")
    assert code == 0
    assert f"codesign {command}" in " ".join(out.split())
    assert "Example:" in out
    assert "--json" in out


def test_help_lists_every_command(call):
    code, out, _ = call("--help")
    assert code == 0
    for command in COMMANDS:
        assert command.split()[0] in out


def test_version(call):
    code, out, _ = call("--version")
    assert code == 0
    assert out.startswith("codesign 0.")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["runn", "x"], 2, ["runn", "run"]),
        (["run"], 2, ["CONFIG|RUN"]),
        (["run", "x.toml", "--sedd", "3"], 2, ["--sedd"]),
        (["run", "x.toml", "--seed", "-3"], 2, ["--seed", "greater than or equal to 0"]),
        (["run", "none.toml"], 2, ["none.toml", "codesign init"]),
        (["run", "none"], 2, ["none: no such file or folder"]),
        (["freeze", "none"], 2, ["none: no such file or folder"]),
        (["verify", "."], 2, ["neither a run directory"]),
        (["generate", "bad.safetensors", "-o", "out"], 2, ["bad.safetensors"]),
        (["generate", "bad.safetensors"], 2, ["-o DIR"]),
        (["load", "tiny.toml", "runs", "-o", "out.bin"], 2, ["tiny.toml: is a configuration"]),
        (["load", "bad.safetensors", "machine"], 2, ["--output"]),
        (["load", "bad.safetensors", "none", "-o", "out.bin"], 2, ["none: no such file or folder"]),
        (["run", "tiny.toml", "--set", "hardware.capacity.inputs=99"], 2, ["hardware", "needs loadable = true"]),
        (
            ["run", "tiny.toml", "--set", "hardware.loadable=true", "--set", "hardware.shape='folded'"],
            3,
            ["hardware.loadable = true is not built together with hardware.shape = 'folded'"],
        ),
        *(
            (["run", "tiny.toml", "--set", f"hardware.{lean}", "--set", f"hardware.{other}"], 3, [words])
            for lean, other, words in (
                ("lockstep=true", "shape='folded'", "together with hardware.shape = 'folded'; leave one"),
                ("lockstep=true", "synapses='compact'", "lockstep = true is not built together with"),
                ("loadable=true", "synapses='compact'", "loadable = true is not built together with"),
            )
        ),
        (
            ["run", "tiny.toml", "--set", "hardware.output_spikes=false", "--set", "network.readout='membrane_sum'"],
            3,
            ["output_spikes = false needs readout 'spike_count', the network has 'membrane_sum'"],
        ),
        (["run", "tiny.toml", "--set", "hardware.synapse_memory='spram'"], 3, ["needs hardware.loadable = true"]),
        (["run", "tiny.toml", "--set", "hardware.block_rom_bits=-1"], 2, ["block_rom_bits", "greater than or equal"]),
        (["report", "tiny.toml"], 2, ["tiny.toml: is a configuration", "expected a run directory"]),
        (["run", "tiny.toml", "--set", "train.epoch=3"], 2, ["train.epoch", "'epochs'"]),
        (["run", "tiny.toml", "--set", "network.hidden=[-3]"], 2, ["network.hidden", "-3"]),
        (["run", "tiny.toml", "--set", "train.epochs='x'"], 2, ["train.epochs", "integer"]),
        (["run", "tiny.toml", "--set", "epochs"], 2, ["--set 'epochs'", "section.key=value"]),
        (["train", "tiny.toml", "-o", "r1", "--set", "data.set=mnist"], 2, ["mnist", "codesign data get mnist"]),
        (["train", "tiny.toml", "-o", "r2", "--set", "data.set=npz", "--set", "data.path=none.npz"], 2, ["none.npz"]),
        (["train", "tiny.toml", "-o", "r3", "--device", "cuda:99"], 3, ["cuda:99"]),
        (["run", "tiny.toml", "-o", "occupied"], 7, ["occupied", "not empty"]),
        (["run", "tiny.toml", "-o", "tiny.toml"], 7, ["tiny.toml", "in the way"]),
        (["run", "tiny.toml", "-o", "/proc/codesign"], 7, ["/proc/codesign"]),
        (["import", "net.nir", "--source", "snntorch"], 2, ["--output"]),
        (["import", "net.nir", "--source", "snntorch", "-o", "out"], 2, ["net.nir: no such NIR file"]),
        (["import", "tiny.toml", "--source", "lava", "-o", "out"], 2, ["tiny.toml: truncated or not an HDF5 file"]),
        (["import", "tiny.toml", "--source", "brian", "-o", "out"], 2, ["--source 'brian' is none of snntorch, norse"]),
        (["import", "x", "--source", "raw", "-o", "out", "--reset", "a", "--reset", "b"], 2, ["NODE=KIND"]),
        (["import", "x", "--source", "raw", "-o", "out", "--reset", "n=soft"], 2, ["--reset 'soft' is none of"]),
        (["import", "x", "--source", "raw", "-o", "out", "--compare", "<"], 2, ["--compare '<' is none of >=, >"]),
        (["import", "x", "--source", "raw", "-o", "out", "--dt", "-1"], 2, ["--dt -1"]),
        (["import", "x", "--source", "raw", "-o", "out", "--scale", "all"], 2, ["--scale 'all'"]),
        (["export", "bad.safetensors"], 2, ["--output"]),
        (["export", "bad.safetensors", "-o", "out.nir"], 2, ["bad.safetensors: truncated or not a safetensors file"]),
        (["export", "tiny.toml", "-o", "out.nir"], 2, ["tiny.toml: is a configuration"]),
        (["data", "get", "nothing"], 2, ["nothing", "mnist"]),
        (["data", "get", "fsdd-spikes"], 3, ["fsdd-spikes"]),
        (["init", "tiny.toml"], 7, ["exists already"]),
        (["init", "mine"], 2, ["mine: the name of a configuration ends in .toml"]),
        (["run", "space.toml"], 2, ["space.toml: is the space of a search", "`codesign explore`"]),
        (["explore", "tiny.toml"], 2, ["tiny.toml: is a configuration", "`codesign run`"]),
        (
            ["export", "empty run", "-o", "out.nir"],
            2,
            ["is missing; `codesign freeze 'empty run'`"],
        ),
    ],
)
def test_mistakes_are_one_line_with_an_exit_code(call, tiny, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tiny.parent)
    monkeypatch.delenv("CODESIGN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tiny.parent / "cache"))
    Path("bad.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0garbage")
    Path("machine").mkdir()
    Path("machine/design.json").touch()
    Path("occupied").mkdir()
    Path("space.toml").write_text("[axes]")
    RunDirectory.create("empty run")
    Path("occupied/letter.txt").write_text("dear")
    found, out, err = call(*arguments)
    line = one_line(err)
    assert found == code, line
    for word in words:
        assert word in line
    assert out == ""
    found, out, err = call(*arguments, "--json")
    if arguments[0] != "runn":
        assert json.loads(out) == {"error": one_line(err).removeprefix("codesign: "), "exit_code": code}


def test_error_leaves_no_half_made_network(call, trained, tmp_path):
    whole = (trained / "network.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    code, _, err = call("generate", tmp_path / "cut.safetensors", "-o", tmp_path / "out")
    assert code == 2
    assert "cut.safetensors" in one_line(err)
    assert not (tmp_path / "out").exists()


def test_unexpected_fault_is_one_line_and_a_log(call, monkeypatch, tiny):
    monkeypatch.setattr("codesign.data.load_dataset", lambda *_: 1 / 0)
    code, _, err = call("train", tiny, "-o", tiny.parent / "run")
    line = one_line(err)
    assert code == 1
    log = tiny.parent / "run" / "codesign-error.log"
    assert str(log) in line
    assert "ZeroDivisionError" in line
    assert "Traceback" in log.read_text()
    code, _, err = call("train", tiny, "-o", tiny.parent / "run", "--debug")
    assert code == 1
    assert "Traceback" in err


@pytest.mark.parametrize("number", [28, 122, 30, 13])
def test_write_errors_of_any_library_are_one_line(call, monkeypatch, tiny, number):
    def refuse(*arguments):
        raise OSError(number, os.strerror(number), "/some/where")

    monkeypatch.setattr("codesign.data.load_dataset", refuse)
    code, _, err = call("train", tiny, "-o", tiny.parent / "run")
    assert code == 7
    assert "/some/where" in one_line(err)


def test_what_may_not_be_read_is_an_input(call, monkeypatch, tiny):
    samples, access = tiny.parent / "samples", os.access
    samples.mkdir()

    def refuse(*arguments):
        raise OSError(13, os.strerror(13), str(samples))

    monkeypatch.setattr("codesign.data.load_dataset", refuse)
    monkeypatch.setattr("os.access", lambda path, *mode: str(path) != str(samples) and access(path, *mode))
    code, _, err = call("train", tiny, "-o", tiny.parent / "run")
    assert code == 2
    assert one_line(err) == f"codesign: {samples}: permission to read it is denied"


def test_full_disk(call, tiny, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", refuse)
    monkeypatch.setattr(Path, "replace", refuse)
    code, _, err = call("train", tiny, "-o", tiny.parent / "run")
    assert code == 7
    assert "the disk is full" in one_line(err)


def test_init_writes_a_configuration_that_loads(call, tmp_path):
    from codesign.config import Config, load_config

    code, out, _ = call("init", tmp_path / "mine.toml", "--json")
    assert code == 0
    assert json.loads(out) == {"config": str(tmp_path / "mine.toml")}
    assert load_config(tmp_path / "mine.toml") == Config()


def test_init_starts_from_an_example(call, tmp_path):
    examples = Path(__file__).parents[2] / "examples"
    assert call("init", tmp_path / "mine.toml", "--example", "digits")[0] == 0
    assert (tmp_path / "mine.toml").read_bytes() == (examples / "digits.toml").read_bytes()
    said = call("init", tmp_path / "space.toml", "--example", "explore")[1]
    assert "space.toml is ready: `codesign explore" in " ".join(said.split())
    assert "data set digits" in said
    assert "data set mnist" in call("init", tmp_path / "m.toml", "--example", "mnist")[1]
    code, _, err = call("init", tmp_path / "other.toml", "--example", "../examples/digits")
    assert code == 2 and err.startswith("codesign: --example ../examples/digits: there is none; known are cifar10,")
    assert not (tmp_path / "other.toml").exists()


def test_demo_is_the_example_of_digits(monkeypatch, call, tmp_path):
    from codesign.cli import actions

    given = []
    monkeypatch.setattr(actions, "run", lambda *arguments, **options: given.append((arguments, options)))
    assert call("demo", "-o", tmp_path / "d", "--seed", "3")[0] == 0
    digits = Path(__file__).parents[2] / "examples" / "digits.toml"
    assert given == [((digits, tmp_path / "d", None, 3, "cpu"), {"synth": False, "force": False})]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["export", "."], "codesign export --help"),
        (["data", "gett"], "codesign data --help"),
        (["runn"], "codesign --help"),
    ],
)
def test_wrong_usage_names_the_help_to_read(call, trained, monkeypatch, arguments, hint):
    monkeypatch.chdir(trained)
    code, _, err = call(*arguments)
    assert code == 2 and f"(see `{hint}`)" in " ".join(err.split())


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("codesign ver", ["verify"]),
        ("codesign init --example mnist-c", ["mnist-conv", "mnist-conv-fast"]),
        ("codesign build runs/x --board ulx", ["ulx3s-25f"]),
        ("codesign tune runs/x --target artix7-3", ["artix7-35t"]),
        ("codesign data get mn", ["mnist"]),
    ],
)
def test_the_shell_completes_commands_and_names(tmp_path, words, offered):
    asked = {"_CODESIGN_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    program = [sys.executable, "-c", "from codesign.cli import main; raise SystemExit(main())"]
    found = subprocess.run(program, env=os.environ | asked, capture_output=True, text=True, cwd=tmp_path)
    assert (found.returncode, found.stdout.split()) == (0, offered)


def test_data_list_knows_what_was_found(call):
    code, out, _ = call("data", "list", "--json")
    sets = {entry["name"]: entry for entry in json.loads(out)["sets"]}
    assert code == 0
    assert sets["digits"]["found"] == "embedded"


def test_json_is_all_that_is_on_stdout_even_if_a_tool_prints(call, monkeypatch, tmp_path):
    def noisy(entries=()):
        sys.stdout.write("from python\n")
        os.system("echo from a tool")
        return []

    monkeypatch.setattr("codesign.data.describe", noisy)
    code, out, err = call("data", "list", "--json")
    assert code == 0
    assert json.loads(out) == {"sets": []}
    assert "from a tool" in err
    assert "from python" in err


def test_train_and_freeze_fill_the_manifest(trained):
    manifest = json.loads((trained / "manifest.json").read_text())
    assert list(manifest)[-1] == "figures"
    figures = manifest["figures"]
    assert list(figures) == list(FIGURES)
    assert 0 <= figures["accuracy_frozen"] <= 1
    assert figures["accuracy_hardware"] is None
    assert figures["mismatches"] is None
    assert set(figures["seconds"]) == {"train", "freeze"}
    assert figures["density"] <= 0.31
    assert manifest["stages"]["freeze"]["versions"]["torch"]
    assert manifest["seeds"]["train"] == 0


def test_train_again_is_skipped_and_another_seed_is_not(call, trained, tmp_path):
    code, _, err = call("train", trained)
    assert code == 0
    assert "unchanged" in err
    code, out, err = call("train", trained.parent / "tiny.toml", "-o", tmp_path / "r", "--seed", "3", "--json")
    assert code == 0
    assert "unchanged" not in err
    assert json.loads(out)["stages"]["train"]["status"] == "done"
    assert RunDirectory.open(tmp_path / "r").config.train.seed == 3


def test_folder_in_use(call, trained):
    with RunDirectory.open(trained).locked():
        code, _, err = call("report", trained)
    assert code == 7
    assert "in use" in one_line(err)


def test_predict_on_own_samples(call, trained, tmp_path):
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    np.savez(tmp_path / "mine.npz", x=x[:20].reshape(20, 8, 8), y=y[:20])
    code, out, _ = call("predict", trained, tmp_path / "mine.npz", "--json")
    document = json.loads(out)
    assert code == 0
    assert len(document["decisions"]) == 20
    assert document["accuracy"] == np.mean(np.array(document["decisions"]) == y[:20])
    assert [int(np.argmax(row)) for row in document["values"]] == document["decisions"]


def test_predict_decides_when_the_hardware_does(trained, tmp_path):
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    np.savez(tmp_path / "mine.npz", x=x[:50].reshape(50, 8, 8), y=y[:50])
    config = RunDirectory.open(trained).config
    network = replace(FrozenNetwork.load(trained / "network.safetensors"), readout="membrane_sum")
    whole = predict(network, config.data, tmp_path / "mine.npz")
    early = predict(network, config.data, tmp_path / "mine.npz", 1)
    assert (early.values != whole.values).any()
    assert np.array_equal(early.decisions, early.values.argmax(axis=1))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.full((2, 8, 8), 17.0)}, "beyond the training data's scale 0..16"),
        ({"x": np.full((2, 8, 8), np.nan)}, "x holds NaN or infinite values"),
        ({"x": np.zeros((2, 3))}, "3 inputs, the network 64"),
        ({"x": np.zeros(64)}, "shape (64,)"),
        ({"x": np.zeros((2, 64)), "y": np.zeros(3, int)}, "y has shape (3,) for 2 samples"),
        ({"z": np.zeros(3)}, "'times', 'units', 'offsets'"),
        ({"times": np.zeros(3), "units": np.zeros(3, int), "offsets": np.array([0, 3])}, "needs arrays"),
    ],
)
def test_predict_refuses_samples_of_another_form(call, trained, tmp_path, arrays, words):
    np.savez(tmp_path / "mine.npz", **arrays)
    code, _, err = call("predict", trained, tmp_path / "mine.npz")
    assert code == 2
    assert words in one_line(err)


def start(*arguments, **options):
    """The command as a process of its own, with the signals of a terminal."""

    def as_in_a_terminal() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Ignored, and so by the command, where these tests run under nohup.
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    return subprocess.Popen(
        [sys.executable, "-m", "codesign", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=as_in_a_terminal, **options,
    )  # fmt: skip


def interrupt(process, folder: Path, stage: str, number: int = signal.SIGINT) -> tuple[int, str]:
    """Send a signal, Ctrl-C by default, as soon as ``stage`` runs; returns exit code and stderr."""
    deadline = time.monotonic() + 900
    status = None
    while status != "running":
        if process.poll() is not None or time.monotonic() > deadline or status == "done":
            process.kill()
            pytest.fail(f"{stage} was not seen running: {status}, {process.communicate()}")
        time.sleep(0.005)
        if (folder / "manifest.json").is_file():
            status = RunDirectory.open(folder).stage(stage).get("status")
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def descendants(process) -> set[int]:
    """Processes that the command has started, and theirs."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = {process.pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {process.pid}


def is_alive(number: int) -> bool:
    """True unless the process has ended, whether or not somebody has asked how."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "folder.toml"], "folder.toml: neither a run directory"),
        (["run", "pipe.toml"], "pipe.toml: is a pipe or device"),
        (["run", "empty.toml", "--set", "x"], "--set 'x': expected section.key=value"),
        (["train", "large.toml"], "large.toml: 8589934592 bytes, the limit is"),
        (["estimate", "pipe"], "pipe: is a pipe or device"),
        (["estimate", "/dev/zero"], "/dev/zero: is a pipe or device"),
        (["estimate", "/dev/stdin"], "/dev/stdin: "),
        (["estimate", "large.toml/x"], "no such file or folder"),
        (["estimate", "empty"], "empty: truncated or not a safetensors file"),
        (["estimate", "large"], "large: "),
        (["estimate", "x" * 5000], "cannot be read (File name too long)"),
        (["estimate", "a\0b"], "embedded null byte"),
        (["estimate", "caf\udce9"], "no such file or folder"),
        (["generate", "folder.toml", "-o", "out"], "folder.toml: "),
        (["generate", "empty", "-o", "empty"], "empty: "),
        (["load", "empty", "folder.toml", "-o", "out.bin"], "folder.toml: neither a run directory"),
        (["verify", "pipe"], "pipe: is a pipe or device"),
        (["report", "empty"], "empty: is a frozen network; expected a run directory"),
        (["freeze", "folder.toml"], "folder.toml: neither a run directory"),
        (["init", "folder.toml"], "folder.toml: exists already"),
        (["init", "folder.toml", "--force"], "folder.toml: is a folder"),
        (["init", "empty/x.toml"], "a file is in the way of this folder"),
    ],
)
def test_arguments_of_the_wrong_kind_end_in_one_line(call, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.toml").mkdir()
    for name in ("pipe", "pipe.toml"):
        os.mkfifo(tmp_path / name)
    for name in ("empty", "empty.toml"):
        (tmp_path / name).touch()
    for name in ("large", "large.toml"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(1 << 33)
    before = sorted(path.name for path in tmp_path.iterdir())
    code, out, err = call(*arguments)
    assert (code, out) == (7 if arguments[0] == "init" else 2, "")
    assert words in one_line(err)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@needs("proc")
def test_terminated_verification_leaves_no_process_behind(trained, tmp_path):
    """What a job scheduler sends is as good as Ctrl-C, also while other programs work."""
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    assert main(["generate", str(folder)]) == 0
    process = start("verify", folder, "--set", "verify.samples=200")
    deadline, started = time.monotonic() + 120, set()
    while not started and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
        started = descendants(process)
    time.sleep(0.3)
    started |= descendants(process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert started, "no program was seen running"
    assert process.returncode == 130, err
    assert "interrupted" in one_line(err)
    assert not [number for number in started if is_alive(number)]
    assert RunDirectory.open(folder).stage("verify")["status"] == "interrupted"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_training_goes_on(call, tiny, number):
    folder = tiny.parent / "run"
    code, err = interrupt(start("train", tiny, "-o", folder, "--set", "train.epochs=400"), folder, "train", number)
    assert code == 130
    assert "interrupted" in one_line(err)
    assert RunDirectory.open(folder).stage("train")["status"] == "interrupted"
    code, _, err = call("train", tiny, "-o", folder)
    assert code == 0
    assert RunDirectory.open(folder).stage("train")["status"] == "done"


@pytest.mark.deep
@pytest.mark.parametrize("stage", ["freeze", "generate", "estimate", "verify", "synth", "report"])
def test_interrupted_run_goes_on_with_the_same_stage(call, tiny, stage):
    folder = tiny.parent / "run"
    options = ("--synth", "--set", "freeze.epochs=60", "--set", "synth.fmax=[]", "--set", "synth.families=['ecp5']")
    number = signal.SIGHUP if stage == "synth" else signal.SIGTERM
    code, err = interrupt(start("run", tiny, "-o", folder, *options, "--force"), folder, stage, number)
    assert code == 130
    # So short a training is warned of.
    said = [line for line in err.splitlines() if not line.startswith("codesign: warning: ")]
    assert "interrupted" in one_line("\n".join(said))
    assert RunDirectory.open(folder).stage(stage)["status"] == "interrupted"
    code, _, err = call("run", tiny, "-o", folder, *options)
    assert code == 0, err
    done = [line for line in err.splitlines() if "unchanged" in line]
    stages = RunDirectory.open(folder).manifest["stages"]
    assert len(done) == list(stages).index(stage)
    # A figure counts one thing: no stage writes over another's.
    made = [item for record in stages.values() for item in record["figures"].items() if item[1] is not None]
    assert len(dict(made)) == len({json.dumps(each) for each in made})
    assert RunDirectory.open(folder).figures["mismatches"] == 0


def test_interrupted_before_anything_is_imported():
    process = start("run", "none.toml")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (130, 2, -signal.SIGINT)
    if process.returncode == 130:
        assert "interrupted" in err


def test_closed_pipe_is_no_error():
    result = subprocess.run(
        f"{sys.executable} -m codesign data list --json | head -c 1", shell=True, capture_output=True, text=True
    )
    assert result.stderr == ""


@pytest.mark.deep
def test_a_difference_is_told_by_the_exit_code_wherever_output_goes(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    assert main(["generate", str(folder)]) == 0
    image = next((folder / "bundle" / "images").glob("*_synapses.mem"))
    words = image.read_text().split()
    digit = next(index for index, letter in enumerate(words[0]) if letter in "01234567")
    flipped = words[0][:digit] + format(int(words[0][digit], 16) ^ 1, "x") + words[0][digit + 1 :]
    image.write_text(image.read_text().replace(words[0], flipped, 1))
    verify = f"{sys.executable} -m codesign verify {folder}/bundle --set verify.samples=2 --set verify.stress_samples=1"
    for where in ("", "| true", "2>&1 | head -1", ">&-", ">/dev/full", "--json >/dev/full", ">&- 2>&-"):
        line = f"{verify} {where}; exit ${{PIPESTATUS[0]}}"
        result = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
        assert result.returncode == 4, (where, result)
        assert "Traceback" not in result.stderr
        assert ("altered since generation" in result.stderr) == ("2>" not in where)


@pytest.fixture(scope="module")
def generated(trained):
    """A bundle made from the frozen network alone."""
    folder = trained.parent / "alone"
    assert main(["generate", str(trained / "network.safetensors"), "-o", str(folder)]) == 0
    return folder


def test_network_alone_becomes_a_run_without_training(generated, trained):
    manifest = json.loads((generated / "manifest.json").read_text())
    assert manifest["imported"] is True
    assert manifest["figures"]["network_hash"] == RunDirectory.open(trained).figures["network_hash"]
    assert manifest["figures"]["accuracy_frozen"] is None
    assert [path.name for path in generated.rglob("*.safetensors")] == ["network.safetensors"]


def test_bundle_is_the_same_wherever_it_is_made(call, generated, trained, tmp_path):
    code, _, _ = call("generate", trained / "network.safetensors", "-o", tmp_path / "again")
    assert code == 0
    first, second = (
        {p.relative_to(folder).as_posix(): p.read_bytes() for p in (folder / "bundle").rglob("*") if p.is_file()}
        for folder in (generated, tmp_path / "again")
    )
    assert first == second


def test_network_does_not_go_into_a_run_with_its_own_training(call, trained, generated):
    code, _, err = call("generate", generated / "network.safetensors", "-o", trained)
    assert code == 7
    assert "its own training" in one_line(err)


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of the trained run."""
    return Path(shutil.copytree(trained, tmp_path / "copied"))


@pytest.fixture
def damaged(copied):
    """A run with another network than it has recorded, which loads."""
    path = copied / "network.safetensors"
    network = FrozenNetwork.load(path)
    layer = network.layers[-1]
    changed = replace(layer, bias=layer.bias ^ 1)
    replace(network, layers=(*network.layers[:-1], changed)).save(path)
    return copied


@pytest.mark.parametrize(
    "arguments",
    [
        ("run",), ("generate",), ("generate", "--device", "ecp5-25f"), ("estimate",), ("verify",),
        ("verify", "--mutants"), ("report",),
    ],
)  # fmt: skip
def test_an_altered_network_is_refused_by_name(call, damaged, arguments):
    (damaged / "bundle").mkdir(exist_ok=True)
    before = {path: path.read_bytes() for path in damaged.rglob("*") if path.is_file() and path.name != ".lock"}
    code, _, err = call(arguments[0], damaged, *arguments[1:])
    line = one_line(err)
    assert code == 2
    assert f"{damaged}/network.safetensors: differs from what `freeze` has recorded" in line
    assert f"`codesign freeze {damaged}`" in line
    after = {path: path.read_bytes() for path in before}
    assert {path.name for path in before if before[path] != after[path]} <= {"config.toml"}


def test_the_stage_that_made_an_altered_file_makes_it_again(call, damaged, trained):
    assert call("freeze", damaged)[0] == 0
    assert (damaged / "network.safetensors").read_bytes() == (trained / "network.safetensors").read_bytes()


def test_an_altered_network_is_neither_asked_nor_loaded(call, damaged, tmp_path):
    np.savez(tmp_path / "mine.npz", x=np.zeros((2, 8, 8)))
    for arguments in (
        ("predict", damaged, tmp_path / "mine.npz"),
        ("load", damaged, damaged, "-o", tmp_path / "x.bin"),
    ):
        code, _, err = call(*arguments)
        assert code == 2
        assert "network.safetensors: differs from what `freeze` has recorded" in one_line(err)


def test_an_altered_checkpoint_is_neither_frozen_nor_continued(call, copied):
    path = copied / "checkpoints" / "best.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    for command in ("freeze", "train", "run"):
        code, _, err = call(command, copied)
        assert code == 2
        line = one_line(err)
        assert "best.safetensors: differs from what `train` has recorded" in line
        assert f"`codesign train {copied} --force`" in line


def test_an_imported_network_is_recorded_and_may_be_replaced_by_importing_again(call, trained, tmp_path):
    folder = tmp_path / "alone"
    assert call("generate", trained / "network.safetensors", "-o", folder)[0] == 0
    network = FrozenNetwork.load(trained / "network.safetensors")
    layer = network.layers[-1]
    other = replace(network, layers=(*network.layers[:-1], replace(layer, bias=layer.bias ^ 1)))
    other.save(folder / "network.safetensors")
    code, _, err = call("generate", folder)
    assert code == 2
    assert "network.safetensors: differs from what `import` has recorded" in one_line(err)
    other.save(tmp_path / "other.safetensors")
    assert call("generate", tmp_path / "other.safetensors", "-o", folder)[0] == 0
    assert RunDirectory.open(folder).figures["network_hash"] == other.hash
    assert call("generate", folder)[0] == 0


def test_a_network_does_not_come_under_a_command_that_runs(call, generated, trained, tmp_path):
    """The folder is locked before anything in it is replaced."""
    folder = tmp_path / "alone"
    shutil.copytree(generated, folder)
    (folder / "network.safetensors").unlink()
    before = (folder / "manifest.json").read_bytes()
    with RunDirectory.open(folder).locked():
        code, _, err = call("generate", trained / "network.safetensors", "-o", folder)
    assert code == 7
    assert "in use" in one_line(err)
    assert not (folder / "network.safetensors").exists()
    assert (folder / "manifest.json").read_bytes() == before


def test_a_run_that_has_only_begun_is_not_taken_for_an_imported_one(call, generated, tiny, tmp_path):
    run = RunDirectory.create(tmp_path / "begun")
    run.write_config(load_config(tiny))
    code, _, err = call("generate", generated / "network.safetensors", "-o", tmp_path / "begun")
    assert code == 7
    assert "its own training" in one_line(err)


def test_a_run_that_is_only_trained_is_reported(call, copied):
    run = RunDirectory.open(copied)
    run.remove(tuple(run.manifest["stages"].pop("freeze")["outputs"]))
    run.save()
    assert call("report", copied)[0] == 0
    page = (copied / "report.html").read_text()
    assert f"Run: codesign freeze {copied.name}" in page and "Loss over the epochs" in page


def test_an_edited_configuration_of_a_run_is_refused_and_may_be_given(call, copied):
    path = copied / "config.toml"
    path.write_text(path.read_text().replace("seed = 0", "seed = 1"))
    code, _, err = call("report", copied)
    assert code == 2
    assert f"`codesign run {path} -o {copied}`" in one_line(err)
    assert call("train", path, "-o", copied)[0] == 0
    assert RunDirectory.open(copied).config.train.seed == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("freeze", "--device", "gpu"), 3),
        (("train", "--force", "--device", "gpu"), 3),
        # Nothing is to be trained, and still there is no such device.
        (("run", "--device", "gpu"), 3),
        (("train", "--set", "train.rewiring.target_density=0.0001"), 2),
        (("generate", "--set", "hardware.loadable=true", "--set", "hardware.capacity.synapses=1"), 2),
    ],
)
def test_a_mistaken_option_costs_no_result(call, copied, arguments, code):
    assert call("generate", copied)[0] == 0
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    found, out, err = call(arguments[0], copied, *arguments[1:])
    assert (found, out) == (code, ""), err
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "taker"),
    [
        (("freeze", "{run}", "--set", "train.seed=7"), "train"),
        (("freeze", "{run}", "--set", "network.hidden=[32]"), "train"),
        (("generate", "{run}", "--set", "freeze.weight_bits=5"), "freeze"),
        (("estimate", "{run}", "--set", "data.split_seed=3"), "train"),
        (("verify", "{run}", "--set", "hardware.lanes=7"), "generate"),
        (("synth", "{run}", "--set", "verify.samples=2"), "verify"),
        (("train", "{run}", "--set", "synth.seeds=[1]"), "synth"),
        (("generate", "{run}/network.safetensors", "-o", "{run}-2", "--set", "budget.target=ecp5-25f"), "train"),
        (("estimate", "{run}/network.safetensors", "--set", "freeze.weight_bits=3"), "freeze"),
        (("verify", "{run}/bundle", "--set", "hardware.lanes=7"), "generate"),
    ],
)
def test_a_command_refuses_what_it_does_not_read(call, copied, arguments, taker):
    (copied / "bundle").mkdir()
    (copied / "bundle" / "design.json").touch()
    before = (copied / "config.toml").read_bytes()
    code, out, err = call(*(word.replace("{run}", str(copied)) for word in arguments))
    key = arguments[-1].partition("=")[0]
    assert (code, out) == (2, "")
    assert f"--set {key}: `codesign {arguments[0]}` does not read it; `codesign {taker}` does" in one_line(err)
    assert (copied / "config.toml").read_bytes() == before


def test_estimates_of_another_machine_change_nothing_of_the_run(call, copied):
    assert call("generate", copied)[0] == 0
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    one, two = (
        json.loads(call("estimate", copied, "--json", *more)[1]) for more in ((), ("--set", "hardware.lanes=[2,1]"))
    )
    assert (one["lanes"], two["lanes"]) == ([1, 1], [2, 1])
    for path in ("manifest.json", "estimate.json"):
        before.pop(copied / path, None)
    assert {path: path.read_bytes() for path in before} == before


def test_what_follows_the_bundle_goes_by_the_machine_that_the_bundle_has(call, copied):
    assert call("generate", copied, "--set", "hardware.lanes=[2,1]")[0] == 0
    run = RunDirectory.open(copied)
    other = parse_config({"hardware": {"lanes": 7}})
    assert delivered_hardware(Context(run, other)).lanes == [2, 1]
    # An earlier version did not record it.
    run.stage("generate").pop("options")
    assert delivered_hardware(Context(run, other)).lanes == 7


def test_a_difference_names_what_is_kept_and_is_told_in_json(call, copied, monkeypatch):
    from codesign.pipeline import work

    figures = {"samples_verified": 1, "mismatches": 3, "accuracy_hardware": None}
    outcome = Outcome(figures=figures, failure=MismatchError("3 values differ"))
    monkeypatch.setattr(work, "verify_delivered", lambda *_, **__: outcome)
    assert call("generate", copied)[0] == 0
    code, out, err = call("verify", copied / "bundle", "--json")
    document = json.loads(out)
    assert code == document["exit_code"] == 4 and document["mismatches"] == 3
    assert document["error"].startswith("3 values differ; what was recorded of it is in ") and document["error"] in err
    folder = Path(document["error"].rpartition(" ")[2])
    assert folder.is_dir()
    shutil.rmtree(folder)


def test_the_summary_of_a_run_in_which_nothing_was_done_names_nothing(tmp_path):
    text = run_summary(RunDirectory.create(tmp_path)).text
    assert "report" not in text and "None" not in text


@pytest.mark.parametrize("where", [".", "bundle", "run"])
def test_other_samples_are_verified_as_the_run_says_and_a_bundle_finds_what_is_beside_it(
    call, copied, monkeypatch, where
):
    from codesign.pipeline import work

    given = []
    monkeypatch.setattr(work, "verify_delivered", lambda *arguments, **_: given.append(arguments) or 1 / 0)
    assert call("generate", copied)[0] == 0
    samples = copied / "stimulus.npz"
    if where == "run":
        call("verify", copied, "--samples", samples)
    else:
        monkeypatch.chdir(copied / "bundle" if where == "." else copied)
        call("verify", where)
    bundle, network, found, _, config = given[0]
    paths = (copied / "bundle", copied / "network.safetensors", samples)
    assert [path.resolve() for path in (bundle, network, found)] == [path.resolve() for path in paths]
    # A bundle that is named by itself is no run's.
    assert config.samples == (4 if where == "run" else None)


def test_checkpoints_of_another_configuration_are_not_frozen(call, copied):
    path = copied / "config.toml"
    text = path.read_text().partition("# sha256")[0].replace("learning_rate = 0.002", "learning_rate = 0.25", 1)
    path.write_text(text)
    before = (copied / "network.safetensors").read_bytes()
    code, _, err = call("freeze", copied)
    assert code == 2
    assert "has train.learning_rate = 0.25, its checkpoints were trained with 0.002" in err
    assert (copied / "network.safetensors").read_bytes() == before
    run = RunDirectory.open(copied)
    with run.locked():
        # As in the record of an earlier version.
        run.stage("train").pop("options")
        run.save()
    assert call("freeze", copied)[0] == 0


def test_a_run_on_a_device_that_is_not_there_makes_no_folder(call, tiny):
    code, out, err = call("run", tiny, "-o", tiny.parent / "new", "--device", "gpu")
    assert (code, out) == (3, "") and "device 'gpu' is not available" in one_line(err)
    assert not (tiny.parent / "new").exists()


def test_a_network_is_not_trained(call, trained, tmp_path):
    code, _, err = call("train", trained / "network.safetensors", "-o", tmp_path / "x")
    assert code == 2
    assert "is a frozen network; expected a configuration (.toml) or a run directory" in one_line(err)


def test_stages_that_a_network_alone_does_not_have(call, generated):
    code, _, err = call("freeze", generated)
    assert code == 2
    assert "checkpoints is missing; the network was made elsewhere" in one_line(err)
    code, _, err = call("verify", generated)
    assert code == 2
    assert f"stimulus.npz is missing; the network came without samples: `codesign verify {generated} --sam" in one_line(
        err
    )


def test_bundle_alone_needs_network_and_samples(call, generated, tmp_path):
    shutil.copytree(generated / "bundle", tmp_path / "bundle")
    code, _, err = call("verify", tmp_path / "bundle")
    assert code == 2
    assert "--network" in one_line(err)


def test_verification_needs_a_compiler(call, generated, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    code, _, err = call(
        "verify",
        generated / "bundle",
        "--network",
        trained / "network.safetensors",
        "--samples",
        trained / "stimulus.npz",
    )
    assert code == 5
    assert one_line("\n".join(line for line in err.splitlines() if line != "verify"))


def test_a_network_is_compiled_for_a_loadable_machine(call, generated, trained, tmp_path):
    network = trained / "network.safetensors"
    code, _, _ = call("generate", network, "-o", tmp_path / "m", "--set", "hardware.loadable=true",
                      "--set", "hardware.capacity.inputs=70")  # fmt: skip
    assert code == 0
    image = tmp_path / "out" / "net.bin"
    code, out, _ = call("load", trained, tmp_path / "m", "-o", image, "--json")
    assert code == 0
    document = json.loads(out)
    sidecar = read_sidecar(tmp_path / "m" / "bundle").to_json()
    assert document["bytes"] == image.stat().st_size == sidecar["load"]["image_bytes"]
    assert json.loads(Path(document["sidecar"]).read_text()) == sidecar
    assert document["network_hash"] == sidecar["network_hash"] and document["layout"] == sidecar["load"]["layout"]
    code, out, _ = call("load", network, tmp_path / "m" / "bundle", "-o", tmp_path / "again.bin")
    assert code == 0 and "again.bin" in out
    assert (tmp_path / "again.bin").read_bytes() == image.read_bytes()
    code, _, err = call("load", network, generated, "-o", image)
    assert code == 3
    assert "not loadable" in one_line(err)
    code, _, err = call("load", network, tmp_path / "m", "-o", tmp_path)
    assert code == 7
    assert "is a folder" in one_line(err)
    code, out, _ = call("estimate", tmp_path / "m", "--json")
    estimate = json.loads(out)
    assert code == 0 and estimate["memory_bits"] == sidecar["memory_bits"]
    assert estimate["area"]["ecp5"]["lut"] > 100


def test_a_network_beyond_the_capacity_is_exit_code_6(call, generated, tmp_path):
    from codesign.contract.network import FrozenNetwork

    network = FrozenNetwork.load(generated / "network.safetensors")
    smaller = FrozenNetwork.from_arrays(
        [np.eye(5, layer.n_out, dtype=int) if index == 0 else layer.dense()
         for index, layer in enumerate(network.layers)],
        threshold=[layer.threshold for layer in network.layers],
        bias=[layer.bias for layer in network.layers],
        timesteps=1,
        coding=network.coding,
        readout=network.readout,
        leak=[layer.leak for layer in network.layers],
        reset=[layer.reset for layer in network.layers],
        fraction_bits=[layer.fraction_bits for layer in network.layers],
        membrane_width=[layer.membrane_width for layer in network.layers],
    )  # fmt: skip
    smaller.save(tmp_path / "small.safetensors")
    code, _, _ = call("generate", tmp_path / "small.safetensors", "-o", tmp_path / "m",
                      "--set", "hardware.loadable=true")  # fmt: skip
    assert code == 0
    code, _, err = call("load", generated, tmp_path / "m", "-o", tmp_path / "x.bin")
    assert code == 6
    assert "needs 64 inputs, the machine has 5" in one_line(err)
    assert not (tmp_path / "x.bin").exists()


def test_run_starts_from_a_configuration_or_a_run(call, generated):
    code, _, err = call("run", generated / "network.safetensors")
    assert code == 2
    assert "is a frozen network; expected a configuration" in one_line(err)


@pytest.mark.hardware
def test_whole_run_is_verified_resumes_and_reports(call, trained):
    code, out, err = call("run", trained, "--json")
    assert code == 0, err
    document = json.loads(out)
    figures = document["figures"]
    assert figures["mismatches"] == 0
    assert figures["samples_verified"] == 4
    assert figures["cycles_per_sample"] > 0
    assert set(figures["seconds"]) == {"train", "freeze", "generate", "estimate", "verify", "report"}
    assert Path(document["report"]).is_file()
    assert len(list(trained.rglob("network.safetensors"))) == 1
    assert "[6/6] report" in err
    code, out, err = call("run", trained)
    assert code == 0
    assert err.count("unchanged") == 6
    assert "verified     4 of 360 samples, 0 mismatches" in out
    assert "clocks       8 of 8 runs of samples as told without simulation" in out
    told = json.loads((trained / "verify" / "verification.json").read_text())["told_clocks"]
    assert told == {"compared": 8, "equal": 8, "first": None}
    assert "report.html" in out


@pytest.mark.hardware
def test_altered_verilog_is_not_accepted(call, trained, generated, tmp_path):
    shutil.copytree(generated / "bundle", tmp_path / "bundle")
    for name in ("network.safetensors", "stimulus.npz"):
        shutil.copy(trained / name, tmp_path)
    image = next((tmp_path / "bundle" / "images").glob("l0_p0_synapses.mem"))
    # The lowest bit of every weight.
    words = [int(word, 16) for word in image.read_text().split()]
    memory = next(m for m in read_sidecar(tmp_path / "bundle").layers[0].memories if m.role == "synapses")
    offset = next(field.offset for field in memory.fields if field.name == "weight")
    image.write_text("".join(f"{word ^ (1 << offset):x}\n" for word in words))
    code, _, err = call("verify", tmp_path / "bundle")
    assert code == 4, err
    assert "l0_p0_synapses.mem altered since generation" in err and "values differ" in err
