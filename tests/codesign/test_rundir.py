"""Run directories: never mistaken, never shared, never half written."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from requirements import needs

from codesign.config import Config, parse_config
from codesign.errors import InputError, OutputError
from codesign.rundir import FIGURES, MANIFEST, RunDirectory, hash_files


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
                                     '{"format": "codesign-run", "version": 1}'])  # fmt: skip
def test_damaged_manifest_is_named(tmp_path, content):
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(InputError, match=MANIFEST):
        RunDirectory.open(tmp_path)
    with pytest.raises(InputError, match=MANIFEST):
        RunDirectory.create(tmp_path)


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
    program = f"from codesign.rundir import RunDirectory\nwith RunDirectory.open({str(tmp_path)!r}).locked(): pass"
    with run.locked():
        second = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert f"in use by another codesign (process {os.getpid()})" in second.stderr
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


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


def test_removing_takes_files_folders_and_absent_names(tmp_path):
    run = RunDirectory.create(tmp_path)
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "f").write_text("")
    run.remove(("d", "f", "g"))
    assert not (tmp_path / "d").exists() and not (tmp_path / "f").exists()


def test_imported_network_keeps_only_what_hardware_needs(tmp_path):
    run = RunDirectory.create(tmp_path)
    run.manifest["imported"] = True
    run.write_config(Config())
    assert "[hardware]" in (tmp_path / "config.toml").read_text()
    assert "[train]" not in (tmp_path / "config.toml").read_text()
    assert "train" not in run.manifest["seeds"]
