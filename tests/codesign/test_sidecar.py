"""The sidecar's reader: strict, bounded, and one line for whatever is wrong."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import sidecar, small_bundle
from machines import build_machine

from codesign.basics.errors import CodesignError, InputError
from codesign.config import HardwareConfig
from codesign.contract.hdl_names import SYSTEMVERILOG_KEYWORDS, VHDL_KEYWORDS, top_name_problem
from codesign.contract.network import INPUT, Convolution, FrozenLayer, FrozenNetwork, InputCoding, Projection
from codesign.contract.sidecar import MAX_BYTES, Sidecar, read_sidecar, schema
from codesign.machine.mapping import map_network
from rtl_templates.bundle import write_bundle
from sim import harness
from sim.bundle import altered_files
from sim.sidecar_mutants import leaves

ROOT = Path(__file__).parents[2]
JUNK: list[Any] = [None, True, -1, 0, 1e400, float("nan"), 1 << 70, 0.5, "", "x", "clk", "y" * 5000, [], {}, [[[0]]]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sidecar") / "b"
    build_machine("spram", folder)
    return folder


def write(folder: Path, document: Any) -> None:
    (folder / "design.json").write_text(document if isinstance(document, str) else json.dumps(document))


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_sidecar(folder)
    assert "\n" not in str(caught.value) and str(folder / "design.json") in str(caught.value)
    return str(caught.value)


def test_the_published_schema_is_that_of_the_reader() -> None:
    published = (ROOT / "docs" / "design.schema.json").read_text(encoding="utf-8")
    assert json.loads(published) == json.loads(json.dumps(schema())), "python -m codesign.contract.sidecar prints it"


def test_what_is_written_is_read(bundle: Path) -> None:
    sidecar = read_sidecar(bundle)
    assert Sidecar.from_json(sidecar.to_json()) == sidecar and sidecar.load is not None


def replaced(document: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    found = copy.deepcopy(document)
    place: Any = found
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return found


def test_any_value_in_any_place_is_read_or_refused_in_one_line(bundle: Path) -> None:
    original = read_sidecar(bundle).to_json()
    count = accepted = 0
    for path, value in leaves(original):
        for junk in JUNK:
            if type(junk) is type(value) and junk == value:
                continue
            count += 1
            try:
                sidecar = Sidecar.from_json(replaced(original, path, junk))
                accepted += 1
                altered_files(bundle, sidecar)
                harness.testbench_source(sidecar)
            except CodesignError as error:
                assert "\n" not in str(error) and len(str(error)) < 600
    assert count > 5000 and 0 < accepted < count // 4


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "7",
        '{"format": "codesign-bundle", "version": 3}',
        '{"format": "codesign-bundle", "version": true}',
        '{"format": "codesign-bundle", "version": 2}',
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"format": "codesign-bundle", "version": 3, "version": 3}',
        '{"format": "codesign-bundle", "version": 1e999}',
        '{"format": "codesign-bundle", "version": ' + "9" * 10_000 + "}",
        "\ud800".encode("utf-16", "surrogatepass").decode("latin-1"),
    ],
    ids=range(12),
)
def test_what_is_no_sidecar_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    write(tmp_path, text)
    refusal(tmp_path)


def huge(bundle: Path) -> dict[str, Any]:
    original = read_sidecar(bundle).to_json()
    layer = original["layers"][0]
    million = {f"images/{number}.mem": "0" * 64 for number in range(60_000)}
    return {
        "a million keys": original | {"files": million},
        "a hundred thousand layers": original | {"layers": [{}] * 100_000},
        "a layer of a billion neurons": replaced(original, ("layers", 0, "n_out"), 10**9),
        "lanes beyond number": replaced(original, ("layers", 0, "lanes"), 10**9),
        "slots beyond number": replaced(original, ("layers", 0, "n_slots"), 10**9),
        "a depth of 10^12": replaced(original, ("layers", 0, "memories", 0, "depth"), 10**12),
        "a width of 10^12": replaced(original, ("layers", 0, "memories", 0, "width"), 10**12),
        "a list of a million": replaced(original, ("layers", 0, "lane"), ["x"] * 1_000_000),
        "timesteps beyond number": original | {"timesteps": 10**12},
        "a long name": original | {"name": "a" * 1_000_000},
        "many memories": replaced(original, ("layers", 0, "memories"), [layer["memories"][0]] * 10_000),
    }


def test_sizes_are_checked_before_anything_is_made_of_them(bundle: Path, tmp_path: Path) -> None:
    for what, document in huge(bundle).items():
        write(tmp_path, document)
        started = time.process_time()
        refusal(tmp_path)
        assert time.process_time() - started < 2, what


def test_a_kernel_beyond_all_memory_is_refused(tmp_path: Path) -> None:
    """300 channels to 300, of which a stranger says that they are joined by kernels of 64 x 64: 3 GB of zeros."""
    channels = 300
    kernel = np.eye(channels, dtype=np.int64)[:, :, None, None]
    convolution = Convolution.from_dense(kernel, (channels, 1, 1))
    layer = FrozenLayer.from_projections([Projection(INPUT, convolution)], threshold=1)
    network = FrozenNetwork((layer,), 1, InputCoding("events"))
    write_bundle(network, map_network(network, [1]), tmp_path / "b")
    document = read_sidecar(tmp_path / "b").to_json()
    document["layers"][0]["projections"][0]["reads"]["convolution"] |= {"height": 64, "width": 64}
    write(tmp_path / "b", document)
    assert "taps to each of 300 channels are too many" in refusal(tmp_path / "b")


def test_large_files_are_not_parsed(tmp_path: Path) -> None:
    for text, words in (
        ("[" + "[]," * 250_000 + "1]", "larger than the sidecar of any accelerator"),
        (" " * (MAX_BYTES + 1), f"{MAX_BYTES + 1} bytes, the limit is {MAX_BYTES}"),
    ):
        write(tmp_path, text)
        assert words in refusal(tmp_path)


def test_a_sidecar_is_read_as_strictly_as_every_json_file(tmp_path: Path) -> None:
    for text, words in (
        ('{"format": 1, "format": 2}', "'format' twice in one object"),
        ('{"clock": NaN}', "NaN is no number"),
        ('{"clock": 1e400}', "beyond every number"),
        ("[]", "not a JSON object"),
    ):
        write(tmp_path, text)
        assert words in refusal(tmp_path) and refusal(tmp_path).endswith("; generate the bundle again")


@pytest.mark.parametrize(
    "name",
    ["x; tee -o owned.txt version; #", "x\n", "../x", "X", "", "module", "logic", "entity", "top", "codesign_tb"],
)
def test_names_that_no_tool_takes_are_refused_when_given_and_when_read(bundle: Path, tmp_path: Path, name: str) -> None:
    network = FrozenNetwork.from_arrays([np.eye(2, dtype=int)], threshold=1, timesteps=1)
    with pytest.raises(InputError, match="name of the top module"):
        write_bundle(network, map_network(network, [1]), tmp_path / "b", name=name)
    assert not (tmp_path / "b").exists()
    with pytest.raises(ValueError, match="name"):
        HardwareConfig(name=name)
    write(tmp_path, read_sidecar(bundle).to_json() | {"name": name})
    assert "name: " in refusal(tmp_path)


def test_every_keyword_is_refused_as_a_name() -> None:
    assert len(SYSTEMVERILOG_KEYWORDS) == 248
    for word in SYSTEMVERILOG_KEYWORDS | VHDL_KEYWORDS:
        assert top_name_problem(word) is not None
    assert top_name_problem("snn") is None


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("ports", 0, "name"), "clk; rm"),
        (("ports", 3, "name"), "s_axis_tvalid) ); endmodule //"),
        (("layers", 0, "probe", "valid"), "engine0.probe_valid; x"),
        (("layers", 0, "memories", 0, "image"), "images/../../secret.mem"),
        (("layers", 0, "memories", 0, "image"), "images/a b.mem"),
        (("load", "boot"), "../boot.bin"),
        (("tools", "amaranth"), "1\n2"),
        (("layers", 0, "lane", 0), True),
        (("layers", 0, "lane", 0), "1"),
        (("layers", 0, "lane", 0), 1.0),
        (("layers", 0, "index"), 1),
    ],
)
def test_what_reaches_tools_and_paths_has_a_pattern(bundle: Path, tmp_path: Path, path: tuple[Any, ...], value: Any):
    write(tmp_path, replaced(read_sidecar(bundle).to_json(), path, value))
    assert str(path[0]) in refusal(tmp_path)


@pytest.mark.parametrize(("place", "value"), [(("input_kinds", "end"), True), (("reset", "synchronous"), 1)])
def test_true_is_not_one(tmp_path: Path, place: tuple[str, str], value: object) -> None:
    small_bundle(tmp_path / "b")
    document = sidecar(tmp_path / "b")
    assert document[place[0]][place[1]] == value
    document[place[0]][place[1]] = value
    (tmp_path / "b" / "design.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=place[1]):
        read_sidecar(tmp_path / "b")
