"""Run directories: never mistaken, never shared, never half written."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from flips import flips
from requirements import needs

from codesign.basics.errors import AlteredError, InputError, OutputError
from codesign.basics.files import file_hash
from codesign.config import Config, load_config, parse_config
from codesign.records.names import MANIFEST
from codesign.records.rundir import FIGURES, RunDirectory, hash_files


def test_new_manifest_ends_with_all_figures_not_measured(tmp_path):
    RunDirectory.create(tmp_path / "run").save()
    document = json.loads((tmp_path / "run" / MANIFEST).read_text())
    assert list(document)[-1] == "figures"
    assert list(document["figures"]) == list(FIGURES)
    assert set(document["figures"].values()) == {None}


def test_figures_keep_their_keys_whatever_is_measured(tmp_path):
    run = RunDirectory.create(tmp_path)
    run.set_figures({"density": 0.1})
    run.save()
    figures = RunDirectory.open(tmp_path).figures
    assert list(figures) == list(FIGURES)
    assert figures["density"] == 0.1
    with pytest.raises(KeyError, match="speed"):
        run.set_figures({"speed": 1})


def test_configuration_is_kept_resolved(tmp_path):
    run = RunDirectory.create(tmp_path)
    config = parse_config({"train": {"epochs": 2, "seed": 5}})
    run.write_config(config)
    assert run.config.model_dump() == config.model_dump()
    assert run.manifest["seeds"]["train"] == 5


def test_other_peoples_folder_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("irreplaceable")
    with pytest.raises(OutputError, match="not empty and not a run directory"):
        RunDirectory.create(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "other"}', '{"format": "codesign-run", "version": 99}',
                                     '{"format": "codesign-run", "version": 1}',
                                     '{"format": "codesign-run", "version": true, "stages": {}, "figures": {}}',
                                     ])  # fmt: skip
def test_damaged_manifest_is_named(tmp_path, content):
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(InputError, match=MANIFEST):
        RunDirectory.open(tmp_path)
    with pytest.raises(InputError, match=MANIFEST):
        RunDirectory.create(tmp_path)


def test_a_manifest_of_a_later_version_says_what_to_do(tmp_path):
    (tmp_path / MANIFEST).write_text('{"format": "codesign-run", "version": 3}')
    with pytest.raises(InputError, match="use a codesign as new as the one that made it, or run again in an empty fol"):
        RunDirectory.open(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"outputs": ["../letter"]},
        {"moved": ["/etc"]},
        {"stage": "../x"},
        {"moved": 3},
        {"outputs": [3]},
        {"resumable": 1},
    ],
)
def test_a_note_of_what_was_put_aside_reaches_nothing_outside(tmp_path, changes):
    run = RunDirectory.create(tmp_path / "run")
    run.set_stage("train", {"status": "running"})
    run.save()
    (tmp_path / "letter").write_text("dear")
    (run.path / ".before").mkdir()
    note = {"stage": "train", "outputs": ["a"], "moved": [], "resumable": False, **changes}
    (run.path / ".before" / "note.json").write_text(json.dumps(note))
    with pytest.raises(InputError, match=r"note\.json: damaged; delete"):
        RunDirectory.open(run.path)
    assert (tmp_path / "letter").is_file()


def test_absent_run_says_how_to_make_one(tmp_path):
    with pytest.raises(InputError, match="codesign run"):
        RunDirectory.open(tmp_path / "none")


def test_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OutputError, match="in the way"):
            RunDirectory.create(path)


def test_place_where_nothing_can_be_made():
    with pytest.raises(OutputError, match="/proc/run"):
        RunDirectory.create("/proc/run")


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "not writable"),
                                               (errno.EROFS, "not writable")])  # fmt: skip
def test_failed_write_leaves_the_old_manifest(tmp_path, monkeypatch, number, words):
    run = RunDirectory.create(tmp_path)
    before = (tmp_path / MANIFEST).read_bytes()
    run.set_figures({"density": 0.5})

    def refuse(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(OutputError, match=words):
        run.save()
    assert (tmp_path / MANIFEST).read_bytes() == before
    assert not list(tmp_path.glob(f".{MANIFEST}.*"))


@needs("no-root")
def test_unwritable_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="not writable"):
        RunDirectory.create(tmp_path / "run")


def test_second_process_is_kept_out_and_told_who_is_in(tmp_path):
    run = RunDirectory.create(tmp_path)
    program = (
        f"from codesign.records.rundir import RunDirectory\nwith RunDirectory.open({str(tmp_path)!r}).locked(): pass"
    )
    with run.locked():
        second = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert f"in use by another codesign (process {os.getpid()})" in second.stderr
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_a_folder_that_another_command_makes_meanwhile_keeps_its_records(tmp_path, monkeypatch):
    whole = RunDirectory.locked

    def late(run, **options):
        monkeypatch.setattr(RunDirectory, "locked", whole)
        other = RunDirectory.create(tmp_path)
        with other.locked():
            other.set_stage("train", {"status": "done"})
            other.save()
        return whole(run, **options)

    monkeypatch.setattr(RunDirectory, "locked", late)
    assert RunDirectory.create(tmp_path).stage("train") == {"status": "done"}
    assert RunDirectory.open(tmp_path).stage("train") == {"status": "done"}


def test_a_folder_that_another_command_is_making_is_in_use(tmp_path):
    first = RunDirectory(tmp_path, {})
    with first.locked(), pytest.raises(OutputError, match="in use by another codesign"):
        RunDirectory.create(tmp_path)


def test_lock_ends_with_an_error(tmp_path):
    run = RunDirectory.create(tmp_path)
    with pytest.raises(RuntimeError), run.locked():
        raise RuntimeError
    with run.locked():
        pass


def test_changed_or_missing_outputs_are_noticed(tmp_path):
    run = RunDirectory.create(tmp_path)
    (tmp_path / "bundle").mkdir()
    for name in ("a.v", "b.v"):
        (tmp_path / "bundle" / name).write_text(name)
    outputs = hash_files(tmp_path, ("bundle", "absent"))
    assert list(outputs) == ["bundle/a.v", "bundle/b.v"]
    assert not run.outputs_intact("generate")
    run.set_stage("generate", {"outputs": outputs})
    assert run.outputs_intact("generate")
    (tmp_path / "bundle" / "a.v").write_text("changed")
    assert not run.outputs_intact("generate")
    (tmp_path / "bundle" / "a.v").unlink()
    assert not run.outputs_intact("generate")


def recorded(tmp_path, name="generate", path="bundle/a.v"):
    run = RunDirectory.create(tmp_path)
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text("recorded")
    run.record_files(name, (path.split("/")[0],))
    return RunDirectory.open(tmp_path)


@pytest.mark.parametrize(
    ("maker", "path", "command"),
    [
        ("generate", "bundle/a.v", "codesign generate {run}"),
        ("train", "checkpoints/best.safetensors", "codesign train {run} --force"),
        ("build", "build/ulx3s-25f/build.json", "codesign build {run} --board ulx3s-25f"),
        ("mutants", "verify/mutants.json", "codesign verify {run} --mutants"),
        ("import", "network.safetensors", "codesign generate NETWORK -o {run}"),
    ],
)
def test_altered_and_missing_files_are_named_with_the_way_out(tmp_path, maker, path, command):
    run = recorded(tmp_path, maker, path)
    run.check(path, path.split("/")[0], "other")
    command = command.format(run=tmp_path)
    (tmp_path / path).write_text("recordeD")
    with pytest.raises(AlteredError) as altered:
        run.check(path.split("/")[0])
    assert str(altered.value) == (
        f"{tmp_path / path}: differs from what `{maker}` has recorded; restore it, or make it again with `{command}`"
    )
    run.check("other")
    (tmp_path / path).unlink()
    with pytest.raises(AlteredError, match=f"is missing, although `{maker}` has recorded it"):
        run.check(path)


def test_a_flipped_bit_in_the_manifest_or_the_configuration_is_refused_or_harmless(tmp_path):
    run = recorded(tmp_path)
    run.write_config(parse_config({"train": {"epochs": 2, "seed": 5}}))
    run.set_figures({"density": 0.25, "mismatches": 0})
    run.save()
    manifest, config = run.manifest, run.config
    for name, count in ((MANIFEST, 300), ("config.toml", 300)):
        refusals = 0
        for bit in flips(tmp_path / name, count, seed=1):
            try:
                found = RunDirectory.open(tmp_path)
                assert found.manifest == manifest, f"bit {bit}"
                assert found.config == config, f"bit {bit}"
            except InputError as error:
                assert name in str(error) and "\n" not in str(error)
                refusals += 1
        assert refusals > 0.8 * count


def test_an_edited_configuration_is_refused_and_says_how_to_take_it(tmp_path):
    run = RunDirectory.create(tmp_path)
    run.write_config(Config())
    path = tmp_path / "config.toml"
    path.write_text(path.read_text().replace("seed = 0", "seed = 1", 1))
    with pytest.raises(AlteredError, match=f"take it as it is with `codesign run {path} -o {tmp_path}`"):
        run.read_config()
    # As a configuration of its own it is read like any other.
    assert load_config(path) != Config()


def test_a_configuration_or_manifest_of_an_earlier_version_states_no_checksum(tmp_path):
    (tmp_path / "config.toml").write_text("[train]\nepochs = 3\n")
    (tmp_path / MANIFEST).write_text('{"format": "codesign-run", "version": 1, "stages": {}, "figures": {}}')
    run = RunDirectory.open(tmp_path)
    assert run.config.train.epochs == 3
    assert list(run.figures) == list(FIGURES)
    run.save()
    assert json.loads((tmp_path / MANIFEST).read_text())["version"] == 2


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"outputs": ["a"]}, "stages.generate.outputs"),
        ({"outputs": {"../../other": "ab"}}, "is not a path within the run directory"),
        ({"outputs": {"/etc/passwd": "ab"}}, "is not a path within the run directory"),
        ({"seconds": "1"}, "stages.generate.seconds"),
        ({"figures": 3}, "stages.generate.figures"),
        ({"status": None}, "stages.generate.status"),
        ({"key": "a", "seconds": 1.0, "figures": {"acuracy": 1}}, "stages.generate: .*'acuracy' is no figure"),
        ({"key": "a", "inputs": {}}, "stages.generate: .*without its seconds"),
        (7, "stages.generate"),
    ],
)
def test_a_manifest_of_another_form_is_refused(tmp_path, record, words):
    """With the right checksum, so that the form alone is judged."""
    run = RunDirectory.create(tmp_path)
    run.set_stage("generate", record)
    run.save()
    with pytest.raises(InputError, match=words) as refusal:
        RunDirectory.open(tmp_path)
    assert str(refusal.value).startswith(str(tmp_path / MANIFEST)) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "\x00", '"\\ud800"'])
def test_a_manifest_that_breaks_the_reader_is_refused(tmp_path, content):
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(InputError, match=MANIFEST):
        RunDirectory.open(tmp_path)


def test_the_lock_brings_what_another_command_has_written(tmp_path):
    first, second = RunDirectory.create(tmp_path), RunDirectory.open(tmp_path)
    second.set_stage("train", {"status": "done"})
    second.save()
    assert first.stage("train") == {}
    with first.locked():
        assert first.stage("train") == {"status": "done"}


def test_hashes_follow_a_file_that_changes_at_once(tmp_path):
    path = tmp_path / "file"
    found = []
    for content in "abab":
        path.write_text(content)
        found.append(file_hash(path))
    assert found[0] == found[2] != found[1] == found[3]
    old = time.time_ns() - 10**9
    os.utime(path, ns=(old, old))
    file_hash(path)
    path.write_text("c")
    os.utime(path, ns=(old, old))
    assert file_hash(path) not in found


def test_removing_takes_files_folders_and_absent_names(tmp_path):
    run = RunDirectory.create(tmp_path)
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "f").write_text("")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    run.remove(("d", "f", "g", "link"))
    assert not any((tmp_path / name).exists() for name in ("d", "f", "link")) and (tmp_path / "elsewhere").is_dir()


def test_imported_network_keeps_only_what_hardware_needs(tmp_path):
    run = RunDirectory.create(tmp_path)
    run.manifest["imported"] = True
    run.write_config(Config())
    assert (tmp_path / "config.toml").read_text().startswith('[network]\nreadout = "membrane_sum"\n\n')
    assert "[hardware]" in (tmp_path / "config.toml").read_text()
    assert "[train]" not in (tmp_path / "config.toml").read_text()
    assert "train" not in run.manifest["seeds"]
