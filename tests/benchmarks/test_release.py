"""Figures of a release are kept part by part, each with its revision."""

import json

import pytest

import benchmarks.__main__ as release
from codesign.report.explorer import read_peers


@pytest.fixture
def folder(tmp_path, monkeypatch):
    def accelerator(given):
        names = given[1::2] or ["small", "fast"]
        return [{"design": name, "lut": len(name)} for name in names]

    monkeypatch.setattr(release, "PARTS", {"scale": lambda given: {"sizes": [1]}, "accelerator": accelerator})
    return tmp_path / "releases"


def run(folder, monkeypatch, *arguments, commit):
    monkeypatch.setattr(release, "revision", lambda: commit)
    monkeypatch.setattr("sys.argv", ["benchmarks", *arguments, "--releases", str(folder)])
    release.main()
    (path,) = folder.iterdir()
    return json.loads(path.read_text())


def test_parts_that_are_not_measured_again_stay_with_their_revision(folder, monkeypatch, capsys):
    first = run(folder, monkeypatch, commit="a")
    assert first["scale"] == {"revision": "a", "sizes": [1]}
    second = run(folder, monkeypatch, "accelerator", "--design", "fast", commit="b+")
    assert second["scale"] == first["scale"] and second["accelerator"]["small"] == first["accelerator"]["small"]
    assert second["accelerator"]["fast"] == {"revision": "b+", "design": "fast", "lut": 4}
    assert "Spiker+" in capsys.readouterr().out


def test_unknown_parts_are_named(folder, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(folder, monkeypatch, "speed", commit="a")
    assert "no part 'speed'; there are scale, accelerator" in capsys.readouterr().err


def test_every_peer_has_its_source():
    document = read_peers()
    for row in document["peers"]:
        assert row["source"] and set(row) - {"name", "task", "set", "device", "source"} <= set(document["units"])
