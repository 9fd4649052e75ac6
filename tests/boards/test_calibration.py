"""Estimates of logic: the table's machines, what a netlist's cells count as, fits, and what they keep."""

import json

import numpy as np
import pytest

from boards import calibrate, fitting
from boards.designs import random_machine
from boards.netlists import component_counts
from codesign.cost.coefficients import MODELS
from codesign.cost.components import components
from codesign.cost.memories import FAMILIES
from codesign.machine.plan import plan_machine
from rtl_templates.accelerator import Accelerator
from rtl_templates.bundle import emit_verilog


def test_a_number_is_always_the_same_machine():
    for number in (0, 3, 16):
        first, second = (random_machine(number) for _ in range(2))
        assert first[0].hash == second[0].hash and first[1].choices == second[1].choices
    kinds = [random_machine(number)[0].is_plain_chain for number in range(20)]
    assert any(kinds) and not all(kinds)


@pytest.mark.parametrize(
    ("instance", "component"),
    [
        ("engine0.reader1_0", "engine0.reader1_0"),
        ("engine0.reader1_1_2", "engine0.reader1_1"),
        ("engine0.reader_3", "engine0.reader"),
        ("engine0.neurons3", "engine0.neurons"),
        ("engine0.neurons3.parameters.rom", "engine0.neurons.parameters"),
        ("engine0.neurons3.sum1", "engine0.neurons.sum1"),
        ("engine0.fetcher3_1.rows.rom", "engine0.fetcher.rows"),
        ("engine10.neurons3", "engine10.neurons"),
        ("serializer1_0", "serializer1"),
        ("serializer10_fork", "serializer10_fork"),
        ("unheard_of.part1", "unheard_of.part1"),
    ],
)
def test_copies_are_their_components(tmp_path, instance, component):
    """A reader of an engine of all layers is called by layer and projection, and by its stream if there are several."""
    known = {"", "engine0", "engine1", "engine10", "engine0.reader", "engine0.reader1_0", "engine0.reader1_1"}
    known |= {"engine0.neurons", "engine0.neurons.parameters", "engine0.fetcher", "engine0.fetcher.rows"}
    known |= {"engine1.neurons", "engine10.neurons", "serializer1", "serializer10", "serializer10_fork"}
    scope = {"type": "$scopeinfo", "connections": {}, "port_directions": {}}
    cells = {instance: scope, f"{instance}.q": flip_flop(2, 3)}
    (tmp_path / "n.json").write_text(json.dumps({"modules": {"snn": {"cells": cells}}}))
    assert set(component_counts(tmp_path / "n.json", "snn", known)) == {component}


def test_the_table_is_of_the_machines_that_numbers_stand_for_now():
    table = calibrate.read_table()
    left = set(calibrate.NUMBERS) - set(table)
    assert table.keys() <= set(calibrate.NUMBERS) and len(left) == 1
    assert not any(calibrate.families_of(plan_machine(*random_machine(number))) for number in left)
    for number, row in list(table.items())[::5]:
        assert random_machine(number)[0].hash.startswith(row["network"]), "boards/designs.py has changed: table again"


@pytest.mark.deep
def test_the_table_is_of_the_verilog_that_is_generated_now():
    for number, row in calibrate.read_table().items():
        verilog = emit_verilog(Accelerator(plan_machine(*random_machine(number))), "snn")
        assert calibrate.circuit_hash(verilog) == row["verilog"], f"{number}: python -m boards.calibrate table"


def test_a_circuit_is_the_same_however_a_block_is_written():
    bare = "module a;\n  always @*\n    b = c;\n  always @* begin\n    d = c;\n    e = d;\n  end\nendmodule\n"
    written = bare.replace("@*\n    b = c;", "@* begin\n    if (evaluate_once) begin end\n    b = c;\n  end")
    assert written != bare and calibrate.circuit_hash(written) == calibrate.circuit_hash(bare)
    assert calibrate.circuit_hash(written.replace("b = c", "b = d")) != calibrate.circuit_hash(bare)
    assert calibrate.circuit_hash(bare.replace("    e = d;\n", "")) != calibrate.circuit_hash(bare)
    assert calibrate.circuit_hash(f"// Tools: codesign 0.1.0\n{bare}") == calibrate.circuit_hash(bare)
    folder = bare.replace(
        "module a;\n", 'module a;\n  parameter BUNDLE_DIR = "";\n  b #(.BUNDLE_DIR(BUNDLE_DIR))  c (\n'
    )
    without = bare.replace("module a;\n", "module a;\n  b  c (\n")
    assert calibrate.circuit_hash(folder) == calibrate.circuit_hash(without) != calibrate.circuit_hash(bare)


def test_cells_are_counted_by_component(tmp_path):
    cells = {
        "engine0": {"type": "$scopeinfo", "connections": {}, "port_directions": {}},
        "engine0.fetcher1": {"type": "$scopeinfo", "connections": {}, "port_directions": {}},
        "engine0.fetcher1.level_SB_LUT4_O": lut([2, 3, 4, 5], 6),
        "engine0.fetcher1.level_SB_DFF_Q": flip_flop(6, 7),
        "engine0.slot_SB_DFF_Q": flip_flop(9, 10),
        "busy_SB_LUT4_O": lut([7, 10, 4, 5], 11),
    }
    document = {"modules": {"snn": {"cells": cells}}}
    (tmp_path / "n.json").write_text(json.dumps(document))
    assert component_counts(tmp_path / "n.json", "snn", {"", "engine0", "engine0.fetcher"}) == {
        "": {"lut": 1},
        "engine0": {"ff": 1, "lone_ff": 1},
        "engine0.fetcher": {"ff": 1, "lut": 1},
    }


def lut(inputs: list[int], output: int) -> dict:
    ports = {f"I{number}": [bit] for number, bit in enumerate(inputs)}
    return {
        "type": "SB_LUT4",
        "connections": {**ports, "O": [output]},
        "port_directions": {**dict.fromkeys(ports, "input"), "O": "output"},
    }


def flip_flop(data: int, output: int) -> dict:
    directions = {"D": "input", "C": "input", "Q": "output"}
    return {"type": "SB_DFF", "connections": {"D": [data], "C": [1], "Q": [output]}, "port_directions": directions}


def test_every_component_of_a_netlist_is_one_of_the_plan():
    """A component that is built and not estimated would be missed in silence."""
    for number, row in calibrate.read_table().items():
        family = "ice40" if "ice40" in row else "ecp5"
        names = {part.name for part in components(plan_machine(*random_machine(number)), family)}
        left = {
            name for name in row[family]["components"] if name not in names and name.rpartition(".")[0] not in names
        }
        assert left == set(), number


def test_a_fit_finds_what_a_formula_has():
    rng = np.random.default_rng(1)
    found = fitting.machines(dict(list(calibrate.read_table().items())[:12]), "gowin")
    names = {name for machine in found for terms in fitting.terms_of(machine, "ff").values() for name in terms}
    true = {
        name: float(rng.uniform(0.8, 1.2) if name.endswith("registers") else rng.uniform(0, 5))
        for name in sorted(names)
    }
    made = [
        fitting.Machine(
            machine.number,
            machine.components,
            {
                part: {"ff": sum(true[name] * value for name, value in terms.items())}
                for part, terms in fitting.terms_of(machine, "ff").items()
            },
            None,
        )
        for machine in found
    ]
    assert abs(fitting.errors(made, "ff", fitting.fit(made, "ff", {}), {})).max() < 0.02
    # Guesses alone would not do.
    assert abs(fitting.errors(made, "ff", dict.fromkeys(names, 1.0), {})).max() > 0.03


@pytest.mark.parametrize("family", FAMILIES)
def test_machines_that_no_fit_has_seen_keep_the_bands(family):
    """What docs/estimates.md says, on the committed table; no tool runs."""
    every = fitting.machines(calibrate.read_table(), family)
    cells = fitting.packing([machine for machine in every if calibrate.fitted_on(machine.number)], family)
    held_out = [machine for machine in every if not calibrate.fitted_on(machine.number)]
    found = fitting.check(held_out, family, MODELS[family], cells)
    assert found.bram_short == found.dsp_short == 0
    assert found.bram_exact >= 0.9 and found.dsp_exact >= 0.9
    assert found.inside >= 0.9
    for figure in (found.lut, found.ff):
        assert np.median(abs(figure)) <= 0.10 and abs(figure).max() <= 0.25
