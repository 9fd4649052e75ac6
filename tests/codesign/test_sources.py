"""The sources that a stage depends on: found from imports, never fewer than what it really reads."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from codesign.config import Config, parse_config
from codesign.pipeline import sources
from codesign.pipeline.sources import code_hash, imported_modules, module_sources
from codesign.pipeline.stage import Context
from codesign.pipeline.stages import STAGES
from codesign.records.rundir import RunDirectory

CONFIG = """
[network]
hidden = [6]
timesteps = 2
[train]
epochs = 2
threads = 1
[train.rewiring]
target_density = 0.3
epochs_per_iteration = 1
[freeze]
epochs = 1
[verify]
samples = 2
stress_samples = 1
[synth]
families = ["ecp5"]
fmax = []
"""

# Writes the files of our packages that a process opens, as it opens them; child processes inherit it.
WATCH = """
import os, sys

def _watch(event, arguments):
    if event in ("open", "import"):
        name = arguments[0] if event == "open" else arguments[1]
        if isinstance(name, str) and name.startswith(ROOTS) and not name.endswith(".pyc"):
            os.write(LOG, (name + "\\n").encode())

ROOTS = tuple(os.environ["WATCHED"].split(os.pathsep))
LOG = os.open(os.environ["WATCH_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
sys.addaudithook(_watch)
"""

# A stage on its own, with what the pipeline itself imports loaded before it begins.
RUN = """
import os, sys
from pathlib import Path
from codesign.cli import actions
from codesign.records.rundir import RunDirectory
from codesign.pipeline.runner import refresh_figures, run_stages
from codesign.pipeline.stage import Context

run = RunDirectory.open(sys.argv[1])
context = Context(run, run.config, options={"board": "icebreaker"})
# Reads the sources for their hashes, once in a process.
refresh_figures(context)
before = set(sys.modules)
Path(os.environ["WATCH_LOG"]).write_text("")
with run.locked():
    run_stages(context, [sys.argv[2]], force=True)
print("\\n".join(sorted(set(sys.modules) - before)))
"""


def unused(name: str, config: Config) -> frozenset[str]:
    return STAGES[name].unused(Context(RunDirectory(Path(), {"stages": {}, "figures": {}}), config))


def names(paths) -> set[str]:
    return {path.relative_to(sources.ROOT).as_posix() for path in paths}


def stage_sources(name: str, config: Config | None = None) -> set[str]:
    return names(module_sources(STAGES[name].work, unused(name, config or Config())))


def parsed_imports(text: str) -> set[str]:
    """The reference: what Python's own parser finds, blocks for type checking left out."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not followed"
            found.update({node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)})
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(text))
    return {name for name in found if name in sources._modules()}


def test_the_pattern_finds_what_the_parser_finds():
    missing = {}
    for name, path in sources._modules().items():
        text = path.read_text()
        lost = parsed_imports(text) - imported_modules(text)
        if lost:
            missing[name] = lost
    assert len(sources._modules()) > 100
    assert not missing


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from codesign.machine.mapping import (\n    map_network,\n)\n", {"codesign.machine.mapping"}),
        (
            "def f():\n    from codesign.report import layers, plots as p\n",
            {"codesign.report", "codesign.report.layers", "codesign.report.plots"},
        ),
        ("import codesign.basics.files, sim.bundle as b\n", {"codesign.basics.files", "sim.bundle"}),
        ('run([sys.executable, "-m", "sim.launch"])\n', {"sim.launch"}),
        ("if TYPE_CHECKING:\n    from sim.verify import Job\n\nimport numpy\n", set()),
        ("from codesign.unheard import x\n", set()),
    ],
)
def test_forms_of_imports(text, found):
    assert imported_modules(text) == found


def test_stages_depend_on_what_they_use_and_not_on_what_they_do_not():
    generate, estimate = stage_sources("generate"), stage_sources("estimate")
    assert {
        "codesign/machine/encoding.py",
        "codesign/machine/capacity.py",
        "codesign/machine/load.py",
        "codesign/basics/files.py",
    } <= generate
    assert {"rtl_templates/templates/rom.v", "rtl_templates/neurons.py"} <= generate
    assert {"codesign/machine/encoding.py", "codesign/machine/capacity.py", "codesign/machine/mapping.py"} <= estimate
    assert {"codesign/cost/control/machine.cpp", "codesign/cost/control/engine.hpp"} <= estimate
    verify = stage_sources("verify")
    assert {"sim/testbench.py", "sim/launch.py", "sim/tb/main.cpp", "codesign/machine/mapping.py"} <= verify
    assert {"boards/tools.py", "codesign/cost/estimate.py"} <= stage_sources("build") | stage_sources("budget")
    page = {"codesign/report/plots.py", "codesign/report/layers.py", "codesign/report/templates/report.html.j2"}
    assert page <= stage_sources("report")
    for name in ("train", "freeze", "generate", "estimate", "verify", "synth", "build", "budget"):
        assert not page & stage_sources(name), name
    for name in ("generate", "estimate", "verify", "synth", "report"):
        assert not any(path.startswith("codesign/train/") for path in stage_sources(name)), name


def test_training_depends_on_the_hardware_only_with_a_budget():
    formula = {
        "codesign/cost/estimate.py",
        "codesign/machine/mapping.py",
        "codesign/cost/budget.py",
        "boards/registry.py",
    }
    budget = parse_config({"budget": {"target": "ice40-hx8k"}})
    for name in ("train", "freeze"):
        assert not formula & stage_sources(name), name
        assert formula <= stage_sources(name, budget), name


def test_budget_and_choices_of_memories_reach_training_and_freezing_alike(tmp_path):
    run = RunDirectory.create(tmp_path)
    run.set_stage("train", {"budget": {"weight_bits": [4]}})
    for budget in ({}, {"budget": {"target": "ice40-hx8k"}}):
        keys = {name: {STAGES[name].key(Context(run, parse_config({**budget, "hardware": {"queue_depth": depth}})), {})
                       for depth in (4, 8)} for name in ("train", "freeze")}  # fmt: skip
        assert {len(found) for found in keys.values()} == {2 if budget else 1}
        # What a loadable machine is to hold, and by how much slower a goal's machine may be.
        for one, other in (
            ({"loadable": True}, {"loadable": True, "capacity": {"headroom": 3}}),
            ({"schedule": "auto", "goal": "small"}, {"schedule": "auto", "goal": "tiny"}),
        ):
            keys = {name: {STAGES[name].key(Context(run, parse_config({**budget, "hardware": given})), {})
                           for given in (one, other)} for name in ("train", "freeze")}  # fmt: skip
            assert {len(found) for found in keys.values()} == {2 if budget else 1}


def test_a_changed_source_changes_the_hash_of_what_depends_on_it(monkeypatch):
    def hashes():
        for cached in (code_hash, sources._neighbours, sources._closure, sources._reached, sources._definitions):
            cached.cache_clear()
        return {name: code_hash(stage.work, unused(name, Config())) for name, stage in STAGES.items()}

    def changed_by(path: str, old: str = "", new: str = "\n# changed\n") -> set[str]:
        text = (sources.ROOT / path).read_bytes()
        assert old.encode() in text
        altered = text.replace(old.encode(), new.encode(), 1) if old else text + new.encode()
        original = sources._bytes
        with monkeypatch.context() as patch:
            patch.setattr(sources, "_bytes", lambda p: altered if p == sources.ROOT / path else original(p))
            found = hashes()
        return {name for name in found if found[name] != before[name]}

    before = hashes()
    assert changed_by("codesign/machine/encoding.py") >= {"generate", "estimate", "verify"}
    assert changed_by("codesign/report/layers.py") == {"report"}
    assert changed_by("codesign/train/losses.py") == {"train", "freeze"}
    assert changed_by("sim/tb/stream_sink.sv") >= {"verify"}
    assert "verify" not in changed_by("rtl_templates/engine.py")
    # A definition of the pipeline counts where it is used.
    assert changed_by("codesign/pipeline/work.py", "VECTOR_SAMPLES = 4", "VECTOR_SAMPLES = 5") == {"generate"}
    hashes()


def watched(tmp_path: Path, run: Path, stage: str) -> tuple[set[str], set[str]]:
    """Files of our packages that the stage opened, and modules of ours that it imported."""
    folder, log = tmp_path / "watch", tmp_path / "log"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(WATCH)
    roots = [str(sources.ROOT / package) + os.sep for package in sources.PACKAGES]
    environment = {
        **os.environ, "WATCHED": os.pathsep.join(roots), "WATCH_LOG": str(log),
        "PYTHONPATH": os.pathsep.join([str(folder), str(sources.ROOT)]), "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    found = subprocess.run(
        [sys.executable, "-c", RUN, str(run), stage], env=environment, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    opened = {
        str(Path(line).relative_to(sources.ROOT)) for line in log.read_text().splitlines() if Path(line).is_file()
    }
    modules = {name for name in found.stdout.split() if name.split(".")[0] in sources.PACKAGES}
    return opened, modules


def check_stage(tmp_path: Path, run: Path, stage: str) -> bool:
    """True if the stage was seen to load anything that the pipeline itself had not."""
    opened, modules = watched(tmp_path, run, stage)
    listed = stage_sources(stage, RunDirectory.open(run).config)
    pipeline = {path for path in opened if path.startswith("codesign/pipeline/")}
    assert opened - pipeline - listed == set(), "opened, and not in the list"
    files = {sources._modules()[name].relative_to(sources.ROOT).as_posix() for name in modules}
    assert {name for name in files if not name.startswith("codesign/pipeline/")} - listed == set()
    return bool(opened or modules)


def prepare(tmp_path: Path) -> Path:
    (tmp_path / "tiny.toml").write_text(CONFIG)
    from codesign.config import load_config

    run = RunDirectory.create(tmp_path / "run")
    run.write_config(load_config(tmp_path / "tiny.toml"))
    run.save()
    return run.path


def test_what_training_freezing_and_generating_read_is_in_their_lists(tmp_path):
    run = prepare(tmp_path)
    assert all(check_stage(tmp_path, run, stage) for stage in ("train", "freeze", "generate"))
    assert json.loads((run / "manifest.json").read_text())["stages"]["generate"]["status"] == "done"


@pytest.mark.deep
@pytest.mark.hardware
def test_what_every_stage_reads_is_in_its_list(tmp_path):
    run = prepare(tmp_path)
    stages = ("train", "freeze", "generate", "estimate", "verify", "synth", "build", "report")
    seen = {stage for stage in stages if check_stage(tmp_path, run, stage)}
    # What estimates need, the pipeline has imported already.
    assert seen >= set(stages) - {"estimate"}
