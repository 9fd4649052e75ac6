"""Parts of the deep suite run where their sources changed, and the ledger says so."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests import deep

REAL = deep.run_part
PASSES = "def test_it():\n    assert {expected} == 2\n"


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A small repository with two parts; the first reaches codesign/core.py by way of a helper."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "codesign").mkdir()
    files = {
        "codesign/__init__.py": "",
        "codesign/core.py": "VALUE = 2\n",
        "codesign/shape.j2": "text\n",
        "codesign/kernel.cpp": '#include "part.hpp"\n',
        "codesign/part.hpp": "text\n",
        "codesign/reader.py": "from pathlib import Path\nFILE = Path('codesign') / 'kernel.cpp'\n",
        "codesign/forms/page.j2": "text\n",
        "tests/helper.py": "def value():\n    from codesign import core\n    return core.VALUE\n",
        "tests/test_a.py": "import helper\n" + PASSES.format(expected="1 + 1"),
        "tests/test_b.py": PASSES.format(expected="2"),
        **dict.fromkeys(deep.COMMON, ""),
        "pytest.ini": "[pytest]\n",
        "tests/deep_plugin.py": Path(deep.__file__).with_name("deep_plugin.py").read_text(),
    }
    (tmp_path / "codesign" / "forms").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(deep, "ROOT", tmp_path)
    # Parts run in this process unless a test says otherwise: a pytest of its own for each would take seconds.
    monkeypatch.setattr(deep, "run_part", lambda part, *_: deep.Outcome("passed", "1 passed", 1.0))
    monkeypatch.setattr(deep, "FACADE", tmp_path / "codesign/__init__.py")
    forget()
    yield tmp_path
    forget()


def forget():
    for cached in deep.CACHED:
        cached.cache_clear()


def run(tree, *arguments, capsys=None, **options):
    def find(jobs):
        return [
            deep.Part(f"tests/test_{name}.py", tree / f"tests/test_{name}.py",
                      ("pytest", "-q", "-p", deep.PLUGIN, "-p", "no:cacheprovider", f"tests/test_{name}.py"))
            for name in "ab"
        ]  # fmt: skip

    forget()
    code = deep.main(list(arguments), ledger=tree / "ledger.json", find=find, **options)
    return code, capsys.readouterr().out


def test_what_has_passed_on_the_present_sources_is_not_run_again(tree, capsys):
    code, out = run(tree, capsys=capsys)
    assert code == 0 and out.count("passed") == 2 + 2 + 1, out
    assert run(tree, "--stale", capsys=capsys)[1] == "2 of 2 parts have passed on these sources\n"
    assert run(tree, capsys=capsys) == (0, "all passed\n")


@pytest.mark.parametrize(
    ("name", "more", "stale"),
    [
        ("codesign/core.py", "VALUE = 1 + 1", "a"),
        ("codesign/core.py", "# That it is two, is known.", ""),
        ("codesign/core.py", '"""What it is."""', ""),
        ("codesign/shape.j2", "", "a"),
        # Nothing names it: whoever reaches the package may read it.
        ("codesign/forms/page.j2", "", "a"),
        # Named by a module, and a header by that file, that no test reaches.
        ("codesign/kernel.cpp", "", ""),
        ("codesign/part.hpp", "", ""),
        ("tests/helper.py", "import codesign.reader", "a"),
        ("tests/test_b.py", "more = 1", "b"),
        ("requirements.lock", "", "ab"),
        ("tests/elsewhere.py", "more = 1", ""),
    ],
)
def test_a_part_is_stale_once_a_file_that_it_reaches_changes(tree, capsys, name, more, stale):
    run(tree, capsys=capsys)
    with (tree / name).open("a") as file:
        file.write(f"{more}\n")
    out = run(tree, "--stale", capsys=capsys)[1]
    assert re.findall(r"test_(\w)\.py +sources changed since it ran at", out) == list(stale)


def test_a_data_file_counts_where_a_file_that_is_reached_names_it(tree, capsys):
    (tree / "tests/helper.py").write_text("import codesign.reader\n")
    (tree / "tests/test_b.py").write_text("FOLDER = 'codesign/forms'\nimport codesign\n")
    run(tree, capsys=capsys)
    (tree / "codesign/part.hpp").write_text("other\n")
    assert re.findall(r"test_(\w)\.py +sources", run(tree, "--stale", capsys=capsys)[1]) == ["a"]
    (tree / "codesign/forms/page.j2").write_text("other\n")
    assert "b" in re.findall(r"test_(\w)\.py +sources", run(tree, "--stale", capsys=capsys)[1])


def test_a_part_that_fails_is_recorded_and_stays_stale(tree, capsys, monkeypatch):
    monkeypatch.setattr(deep, "run_part", REAL)
    (tree / "tests/test_a.py").write_text(PASSES.format(expected="3"))
    code, out = run(tree, capsys=capsys)
    assert code == 1 and "assert 3 == 2" in out and "1 did not pass" in out
    out = run(tree, "--stale", capsys=capsys)[1]
    assert re.search(r"test_a\.py +failed at .*: 0 of 1 passed, 1 failed", out) and "1 of 2 parts" in out


def test_a_file_whose_tests_are_all_skipped_has_not_passed(tree):
    (tree / "tests/test_a.py").write_text("import pytest\n\n@pytest.mark.skip\ndef test_it(): pass\n")
    found = REAL(part_a(tree))
    assert (found.word, found.detail) == ("skipped", "0 of 1 passed, 1 skipped")


def part_a(tree):
    return deep.Part(
        "tests/test_a.py", tree / "tests/test_a.py", ("pytest", "-q", "-p", deep.PLUGIN, "tests/test_a.py")
    )


SEVERAL = """
import pytest, time
@pytest.mark.parametrize("number", range(4))
def test_it(number):
    open("ran", "a").write(str(number))
    if number == {late}: time.time = lambda: 1e12
"""


def test_a_file_goes_on_behind_the_tests_that_have_passed(tree):
    """Time ends while the second runs; it is finished, the others are left, and the next run does only these."""
    (tree / "tests/test_a.py").write_text(SEVERAL.format(late=1))
    found = REAL(part_a(tree), (), 1e11)
    assert (found.word, found.detail) == ("part", "2 of 4 passed") and found.passed == ("test_it[0]", "test_it[1]")
    assert (tree / "ran").read_text() == "01"
    found = REAL(part_a(tree), found.passed)
    assert (found.word, found.detail) == ("passed", "4 of 4 passed") and (tree / "ran").read_text() == "0123"


def test_several_processes_note_what_one_would(tree):
    (tree / "tests/test_a.py").write_text(SEVERAL.format(late=9))
    part = part_a(tree)
    several = deep.Part(part.name, part.file, (*part.command[:-1], "-n", "2", part.name))
    found = REAL(several, ("test_it[2]",))
    assert (found.word, found.detail, len(found.passed)) == ("passed", "4 of 4 passed", 4)
    assert sorted((tree / "ran").read_text()) == ["0", "1", "3"]


def test_the_ledger_says_what_of_a_file_has_passed_and_forgets_it_with_its_sources(tree, capsys, monkeypatch):
    known = []

    def half(part, passed, until):
        known.append(tuple(passed))
        return deep.Outcome("part", "1 of 2 passed", 1.0, ("test_it[0]",))

    monkeypatch.setattr(deep, "run_part", half)
    for _ in range(2):
        code, out = run(tree, capsys=capsys)
        assert code == 0 and "0 did not pass, 2 left" in out
    assert "part at" in run(tree, "--stale", capsys=capsys)[1]
    (tree / "codesign/core.py").write_text("VALUE = 3\n")
    run(tree, capsys=capsys)
    # Of each call a and b; in the last the sources of a are others.
    assert sorted(known[:2]) == [(), ()] and known[2:4] == [("test_it[0]",)] * 2 and sorted(known[4:]) == [
        (), ("test_it[0]",)
    ]  # fmt: skip


def test_what_has_passed_in_a_file_that_is_interrupted_is_kept(tree, capsys, monkeypatch):
    found = deep.Outcome("part", "1 of 2 passed", 1.0, ("test_it[0]",), interrupted=True)
    monkeypatch.setattr(deep, "run_part", lambda *_: found)
    with pytest.raises(KeyboardInterrupt):
        run(tree, capsys=capsys)
    (entry,) = deep.read_ledger(tree / "ledger.json").values()
    assert (entry["outcome"], entry["passed"]) == ("part", ["test_it[0]"])

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(deep.children, "run", stopped)
    assert REAL(part_a(tree), ("test_it[0]",)).interrupted
    with pytest.raises(KeyboardInterrupt):
        REAL(deep.Part("proof a", tree / "tests/test_a.py", ("tests.proofs", "a")))


def test_what_is_only_for_type_checking_or_looked_up_later_is_not_reached(tree):
    (tree / "codesign/__init__.py").write_text('LAZY = {"core": "codesign.core:VALUE"}\n')
    (tree / "codesign/other.py").write_text("")
    (tree / "codesign/__main__.py").write_text("from codesign import other\n")

    def reached(text):
        forget()
        (tree / "tests/test_a.py").write_text(text)
        return {path.name for path in deep.sources(tree / "tests/test_a.py") if path.parent.name == "codesign"}

    assert "other.py" not in reached("if TYPE_CHECKING:\n    import codesign.other\nelse:\n    import codesign.core\n")
    assert "core.py" not in reached('"""See codesign.core."""\nimport codesign.other\n') and "core.py" in reached(
        "import codesign\n"
    )
    assert "core.py" in reached("from codesign import VALUE\n")
    assert "other.py" in reached('run([sys.executable, "-m", "codesign", "run"])\n')


def test_a_run_that_is_stopped_goes_on_where_it_was(tree, capsys, monkeypatch):
    real = deep.run_part

    def stop_at_b(part, *given):
        if "test_b" in part.name:
            raise KeyboardInterrupt
        return real(part, *given)

    monkeypatch.setattr(deep, "run_part", stop_at_b)
    with pytest.raises(KeyboardInterrupt):
        run(tree, capsys=capsys)
    monkeypatch.setattr(deep, "run_part", real)
    capsys.readouterr()
    code, out = run(tree, capsys=capsys)
    assert code == 0 and "test_b" in out and "test_a" not in out


def test_the_time_that_is_given_is_kept_by_what_parts_took_before(tree, capsys):
    times = {"outcome": "passed", "sources": "x", "revision": "r", "date": "2026-01-01 00:00", "detail": ""}
    deep.write_ledger({"proof a": times | {"seconds": 90}, "proof b": times | {"seconds": 5}}, tree / "ledger.json")

    def find(jobs):
        return [deep.Part(f"proof {name}", tree / f"tests/test_{name}.py", ("tests.proofs", name)) for name in "ab"]

    forget()
    assert deep.main(["--minutes", "1"], ledger=tree / "ledger.json", find=find, clock=lambda: 0.0) == 0
    out = capsys.readouterr().out
    assert "proof b" in out and "proof a" not in out and "0 did not pass, 1 left for want of time" in out


def test_what_never_ran_comes_first_then_what_ran_longest_ago(tree):
    ledger = {"x": {"date": "2026-02-01 00:00"}, "y": {"date": "2026-01-01 00:00"}}
    order = deep.stalest_first([deep.Part(name, tree, ()) for name in "xyz"], ledger)
    assert [part.name for part in order] == ["z", "y", "x"]


def test_every_deep_test_and_every_proof_is_a_part_and_the_ledger_knows_no_other():
    here = Path(__file__).resolve().parent
    marked = {
        str(path.relative_to(here.parent))
        for path in here.rglob("test_*.py")
        if path != Path(__file__).resolve() and "pytest.mark.deep" in path.read_text(encoding="utf-8")
    }
    names = {part.name for part in deep.parts()}
    assert marked and {name for name in names if not name.startswith("proof ")} == marked
    assert set(deep.read_ledger()) <= names


def test_a_proof_is_run_by_its_whole_name_where_another_begins_with_it():
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "tests.proofs", "--list", "fire-events-multiply-4"],
        cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True,
    )  # fmt: skip
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["fire-events-multiply-4"]
