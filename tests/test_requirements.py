"""A test that misses something is skipped, or fails where that was promised; and no test skips in another way."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TEST = """
import pytest
import requirements
from requirements import Requirement, need, needs

requirements.REQUIREMENTS["moon"] = Requirement("a moon", lambda detail: f"no moon {detail}".strip())
requirements.REQUIREMENTS["sun"] = Requirement("a sun", lambda detail: None)

@needs("moon", "tonight")
def test_marked(): pass

def test_inside(): need("moon")

@needs("sun")
def test_met(): need("sun")
"""


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(TEST)
    (folder / "conftest.py").write_text(
        'pytest_plugins = ["requirements"]\nimport requirements\n'
        "requirements.REQUIREMENTS |= dict.fromkeys(('moon', 'sun'))\n"
    )
    (folder / "pytest.ini").write_text(f"[pytest]\npythonpath = {HERE}\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", *options],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip


def test_unmet_requirements_skip_with_their_reason(tmp_path):
    done = run(tmp_path, "--require", "sun")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed, 2 skipped" in done.stdout
    assert "no moon tonight [moon]" in done.stdout


def test_promised_requirements_that_are_unmet_fail_with_one_line(tmp_path):
    done = run(tmp_path, "--require", "sun,moon")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 passed" in done.stdout and "skipped" not in done.stdout
    assert "--require moon: no moon tonight" in done.stdout and "--require moon: no moon\n" in done.stdout
    assert "Traceback" not in done.stdout and "def need" not in done.stdout


def test_requirement_that_nobody_declared_is_refused(tmp_path):
    done = run(tmp_path, "--require", "compiller")
    assert done.returncode == 4
    assert "--require compiller: not one of chromium, compiler, data" in done.stderr


@pytest.mark.parametrize("path", sorted(HERE.rglob("*.py")), ids=lambda path: str(path.relative_to(HERE)))
def test_no_test_skips_but_by_its_requirement(path):
    ways = {"skip", "skipif", "importorskip", "SkipTest", "skipTest"}
    found = {
        f"{path.name}:{node.lineno}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ways
    }
    allowed = path.name == "requirements.py"
    assert allowed or not found, f"{', '.join(sorted(found))}: declare what is missing in tests/requirements.py"
