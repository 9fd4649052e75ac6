"""The board's top under Verilator, through its UART pins, with the client of the real board."""

import re

import numpy as np
import pytest

from boards.registry import BOARDS
from boards.simulate import Fault, simulate_board
from boards.top import board_verilog
from boards.uart import uart_divisor
from codesign.basics.errors import InputError, UnsupportedError
from codesign.contract import golden
from codesign.contract.network import (
    INPUT,
    Convolution,
    FrozenLayer,
    FrozenNetwork,
    InputCoding,
    Projection,
    SumPool,
    Synapses,
)
from codesign.contract.sidecar import Sidecar, read_sidecar
from codesign.contract.stimulus import Stimulus
from codesign.machine.mapping import LOADABLE, map_network
from rtl_templates.bundle import write_bundle

pytestmark = pytest.mark.hardware


def test_twenty_digits_come_back_exact_and_damaged_frames_are_recovered_from(lanes, tmp_path):
    board = BOARDS["icebreaker"]
    divisor, _ = uart_divisor(board.clock_hz, 1e6)
    faults = (
        Fault(2, "to_board", 10),
        Fault(5, "from_board", 12),
        Fault(7, "to_board", 20, lost=True),
        Fault(11, "from_board", 40, lost=True),
    )
    run = simulate_board(lanes.bundle, lanes.stimulus, tmp_path, board=board, divisor=divisor, faults=faults)
    expected = golden.run(lanes.network, lanes.stimulus)
    assert expected.spikes[-1].sum() > 100, "the samples must make the outputs spike"
    assert len(np.unique(expected.decisions)) > 1
    np.testing.assert_array_equal(run.spikes, expected.spikes[-1])
    np.testing.assert_array_equal(run.values, expected.values)
    np.testing.assert_array_equal(run.decisions, expected.decisions)
    assert run.attempts.tolist() == [2 if n in (2, 5, 7, 11) else 1 for n in range(20)]
    assert run.identity["network_hash"] == lanes.network.hash[:16]
    assert run.identity["protocol_error"] == 0


def test_a_convolutional_network_comes_back_exact_through_the_link(tmp_path):
    """The client turns pixels into addresses of three parts: of 8 x 6 pixels they differ from indices."""
    rng = np.random.default_rng(3)
    kernel = rng.integers(-4, 9, (5, 1, 3, 3))
    matrix = rng.integers(-6, 9, (60, 4))
    parameters = {"threshold": 150, "membrane_width": 12}
    layers = (
        FrozenLayer.from_projections(
            [Projection(INPUT, Convolution.from_dense(kernel, (1, 8, 6), 1, 1))], **parameters
        ),
        FrozenLayer.from_projections([Projection(0, Synapses.from_dense(matrix), SumPool((5, 8, 6), 2))], threshold=40),
    )
    network = FrozenNetwork(layers, 3, InputCoding("current", 4), "spike_count")
    sidecar = write_bundle(network, map_network(network, [2, 1]), tmp_path / "bundle")
    assert sidecar.input_addresses not in (None, tuple(range(48)))
    values = (rng.integers(0, 16, (4, 48)) * (rng.random((4, 48)) < 0.6)).astype(np.uint8)
    stimulus = Stimulus(48, 3, np.full(4, -1, np.int32), values=values)
    divisor, _ = uart_divisor(BOARDS["icebreaker"].clock_hz, 1e6)
    run = simulate_board(tmp_path / "bundle", stimulus, tmp_path / "work", board=BOARDS["icebreaker"], divisor=divisor)
    expected = golden.run(network, stimulus)
    assert expected.spikes[-1].any()
    np.testing.assert_array_equal(run.spikes, expected.spikes[-1])
    np.testing.assert_array_equal(run.values, expected.values)
    np.testing.assert_array_equal(run.decisions, expected.decisions)


def test_top_is_byte_identical_and_has_only_the_pins(lanes):
    sidecar = read_sidecar(lanes.bundle)
    text = board_verilog(sidecar, 12)
    assert text == board_verilog(sidecar, 12)
    header = text[text.index("module board_top(") :].split(";")[0]
    assert sorted(header[len("module board_top(") : -1].split(", ")) == ["clk", "rst", "uart_rx", "uart_tx"]


def test_sidecar_of_something_else_is_refused(lanes):
    document = read_sidecar(lanes.bundle).to_json()
    document["ports"][5]["name"] = "extra"
    with pytest.raises(InputError, match=r"port .* is not as an accelerator's"):
        board_verilog(Sidecar.from_json(document), 12)


def test_a_loadable_machine_keeps_its_own_network_on_a_board(tmp_path):
    network = FrozenNetwork.from_arrays([np.eye(4, dtype=int)], threshold=1, timesteps=2)
    sidecar = write_bundle(network, map_network(network, [1], None, LOADABLE), tmp_path / "b")
    text = board_verilog(sidecar, 12)
    instance = text[text.index(" accelerator (") :].split(");\n")[0]
    for port, value in (("l_axis_tvalid", "1'h0"), ("expected_hash", "64'h0000000000000000")):
        assert f".{port}({value})" in instance
    ports = tuple(port for port in sidecar.ports if port.name != "loaded")
    with pytest.raises(InputError, match=r"port 'loaded' is not as an accelerator's"):
        board_verilog(sidecar.model_copy(update={"ports": ports}), 12)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input_words": 4}, "hardware.input_words = 4"),
        ({"input_checks": False}, "hardware.input_checks = false"),
        ({"early_exit": "certain"}, "hardware.early_exit = 'certain'"),
    ],
)
def test_machines_that_the_link_does_not_know_are_refused(lanes, change, words):
    sidecar = read_sidecar(lanes.bundle).model_copy(update=change)
    with pytest.raises(UnsupportedError, match=re.escape(f"a board's link does not know {words}; leave it out")):
        board_verilog(sidecar, 12)
