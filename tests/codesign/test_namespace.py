"""`import codesign`: names that are there for good, imported when they are used, each with an example that runs."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import codesign
from codesign.pipeline.sources import ROOT, module_sources
from codesign.pipeline.stages import STAGES

LAZY = ("codesign", "codesign.data")
# What a function returns is explained by that function.
RESULTS = {
    "Dataset", "FreezeResult", "FrozenModel", "HardwareMap", "InputCoding", "Leak", "MachinePlan", "Prediction",
    "RunDirectory", "Sidecar", "Trace", "TrainResult", "Verification",
}  # fmt: skip
# Their examples go on from another one.
AFTER = {"freeze_network": "train_network"}


def statements(package: str) -> list[ast.stmt]:
    source = Path(importlib.import_module(package).__file__ or "").read_text(encoding="utf-8")
    return ast.parse(source).body


def for_types(package: str) -> dict[str, tuple[str, str]]:
    """(module, name there) of each name that a package imports for type checkers alone."""
    found = {}
    for node in statements(package):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for imported in node.body:
                assert isinstance(imported, ast.ImportFrom) and imported.module
                found |= {item.asname or item.name: (imported.module, item.name) for item in imported.names}
    return found


@pytest.mark.parametrize("package", LAZY)
def test_lazy_names_are_those_that_type_checkers_see(package: str) -> None:
    module = importlib.import_module(package)
    seen = for_types(package)
    places = {name: place.partition(":") for name, place in module._PLACES.items()}
    assert {name: (where, other or name) for name, (where, _, other) in places.items()} == seen
    assert set(module.__all__) - {"__version__"} == set(seen)
    for name, (where, other) in seen.items():
        assert getattr(module, name) is getattr(importlib.import_module(where), other)
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_no_name_is_that_of_a_room() -> None:
    """Importing a room would put the room in the name's place."""
    assert not {room.name for room in pkgutil.iter_modules(codesign.__path__)} & set(codesign.__all__)


def test_the_namespace_itself_imports_nothing() -> None:
    program = "import codesign, sys\nprint(*{name.partition('.')[0] for name in sys.modules})"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "torch", "pydantic", "scipy", "amaranth", "boards", "sim", "rtl_templates"} & set(found)


def test_stages_depend_on_what_they_use_and_not_on_the_whole_namespace() -> None:
    """Every module depends on the packages that hold it, and so on this one."""
    sources = {path.relative_to(ROOT).as_posix() for path in module_sources(STAGES["synth"].work)}
    assert "codesign/__init__.py" in sources and "boards/synth.py" in sources
    assert not {"codesign/train/loop.py", "codesign/explore/__init__.py", "codesign/report/plots.py"} & sources
    # What a package imports lazily for others is followed all the same.
    training = {path.relative_to(ROOT).as_posix() for path in module_sources(STAGES["train"].work)}
    assert {"codesign/data/loading.py", "codesign/data/idx.py"} <= training


EXPLAINED = sorted(
    name for name in codesign.__all__ if name not in RESULTS and not name.endswith(("Error", "Warning", "__"))
)


def examples(name: str, names: dict[str, Any], *, all_of_them: bool) -> int:
    """Run the examples of a name's text; how many statements ran."""
    text = inspect.getdoc(getattr(codesign, name)) or ""
    test = doctest.DocTestParser().get_doctest(text, names, name, None, None)
    test.globs = names
    for example in test.examples:
        if all_of_them:
            example.options.pop(doctest.SKIP, None)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    result = runner.run(test, out=said.append, clear_globs=False)
    assert not result.failed, "".join(said)
    return sum(not example.options.get(doctest.SKIP) for example in test.examples)


@pytest.mark.parametrize("name", EXPLAINED)
def test_every_function_has_an_example_that_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    if name in AFTER:
        examples(AFTER[name], names, all_of_them=False)
    assert examples(name, names, all_of_them=False)


@pytest.mark.deep
@pytest.mark.hardware
@pytest.mark.parametrize("name", ["verify_bundle", "synthesise_bundle", "build_bitstream", "explore_designs"])
def test_the_slow_lines_of_examples_run_too(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert examples(name, {}, all_of_them=True)


def test_a_wrong_example_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codesign.map_hardware, "__doc__", ">>> 1 + 1\n3\n")
    with pytest.raises(AssertionError, match=r"Got:\s+2"):
        examples("map_hardware", {}, all_of_them=False)


@pytest.mark.deep
@pytest.mark.hardware
def test_the_path_in_the_documentation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    tiny = [
        "[network]",
        "hidden = [12]",
        "timesteps = 2",
        "[train]",
        "epochs = 12",
        "threads = 1",
        "[freeze]",
        "epochs = 1",
    ]
    Path("mine.toml").write_text("\n".join(tiny))
    exec(code, {})
    assert capsys.readouterr().out.startswith("True 0 ")


def test_weights_of_any_model_become_a_network_as_documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = (block.split("```")[0] for block in text.split("```python\n")[1:])
    (code,) = (block for block in blocks if "FloatNetwork" in block)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert [layer.n_out for layer in codesign.FrozenNetwork.load("mine.safetensors").layers] == [96, 10]
