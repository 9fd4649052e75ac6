"""The top of a board: the delivered accelerator, unmodified, behind the host link."""

# Amaranth makes interface members at run time, where the type checker cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import os
from typing import Any

from amaranth.back import verilog
from amaranth.hdl import ClockSignal, Const, Elaboratable, Instance, Module, ResetSignal, Signal
from amaranth.lib import io

from boards.link import HostLink
from codesign.basics.errors import InputError
from codesign.contract.sidecar import Sidecar
from codesign.machine.choices import check
from sim.delivered import described_choices

PORTS = {
    "clk": "input",
    "rst": "input",
    "s_axis_tdata": "input",
    "s_axis_tvalid": "input",
    "s_axis_tready": "output",
    "s_axis_tlast": "input",
    "m_axis_tdata": "output",
    "m_axis_tvalid": "output",
    "m_axis_tready": "input",
    "m_axis_tlast": "output",
    "busy": "output",
    "protocol_error": "output",
    "saturation_count": "output",
    "cycle_count": "output",
    "network_hash": "output",
}
# The link brings no networks: a loadable machine keeps the one that it was built with.
LOAD_PORTS = {
    "l_axis_tdata": "input",
    "l_axis_tvalid": "input",
    "l_axis_tready": "output",
    "l_axis_tlast": "input",
    "expected_hash": "input",
    "loaded": "output",
    "load_error": "output",
}


def check_ports(sidecar: Sidecar) -> None:
    """Raise UnsupportedError for a machine that the link cannot serve, InputError for ports of something else."""
    found = {port.name: port.direction for port in sidecar.ports}
    check(described_choices(sidecar), consumer="board")
    expected = PORTS | (LOAD_PORTS if sidecar.load else {})
    if found != expected:
        wrong = sorted(set(found.items()) ^ set(expected.items()))[0][0]
        raise InputError(f"design.json: port {wrong!r} is not as an accelerator's; generate the bundle again")


class BoardTop(Elaboratable):
    """Accelerator and link in the ``sync`` domain.

    The accelerator is reset by the domain's reset and by the link. The load port of a loadable one is idle.

    Parameters
    ----------
    sidecar : the bundle's ``design.json``.
    divisor : clocks per bit of the UART.

    ``uart_rx`` and ``uart_tx`` are the pins' signals. Check the sidecar with :func:`check_ports` first.
    """

    def __init__(self, sidecar: Sidecar, divisor: int) -> None:
        self.sidecar, self.divisor = sidecar, divisor
        self.uart_rx, self.uart_tx = Signal(init=1), Signal(init=1)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        sidecar = self.sidecar
        m.submodules.link = link = HostLink(sidecar.input_word.width, sidecar.output_word.width, self.divisor)
        idle: dict[str, Any] = {}
        if sidecar.load:
            inputs = [name for name, way in LOAD_PORTS.items() if way == "input"]
            idle = {f"i_{name}": Const(0, sidecar.port_width(name)) for name in inputs}
        m.submodules.accelerator = Instance(
            sidecar.name,
            i_clk=ClockSignal(),
            i_rst=link.accelerator_rst | ResetSignal(allow_reset_less=True),
            i_s_axis_tdata=link.s_tdata,
            i_s_axis_tvalid=link.s_tvalid,
            o_s_axis_tready=link.s_tready,
            i_s_axis_tlast=link.s_tlast,
            o_m_axis_tdata=link.m_tdata,
            o_m_axis_tvalid=link.m_tvalid,
            i_m_axis_tready=link.m_tready,
            o_m_axis_tlast=link.m_tlast,
            o_busy=link.busy,
            o_protocol_error=link.protocol_error,
            o_saturation_count=link.saturation_count,
            o_cycle_count=link.cycle_count,
            o_network_hash=link.network_hash,
            **idle,
        )
        m.d.comb += [link.rx.eq(self.uart_rx), self.uart_tx.eq(link.tx)]
        return m


class PlatformTop(Elaboratable):
    """A :class:`BoardTop` on the pins of an Amaranth platform's first UART."""

    def __init__(self, top: BoardTop) -> None:
        self.top = top

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        uart = platform.request("uart", 0, dir="-")
        m.submodules.top = self.top
        m.submodules.rx = rx = io.Buffer("i", uart.rx)
        m.submodules.tx = tx = io.Buffer("o", uart.tx)
        m.d.comb += [self.top.uart_rx.eq(rx.i), tx.o.eq(self.top.uart_tx)]
        return m


def board_verilog(sidecar: Sidecar, divisor: int, name: str = "board_top") -> str:
    """Verilog of a :class:`BoardTop` with ports clk, rst, uart_rx, uart_tx; it needs the accelerator's beside it.

    Raises InputError if the sidecar's ports are not those of an accelerator.
    """
    check_ports(sidecar)
    top = BoardTop(sidecar, divisor)
    before = os.environ.get("AMARANTH_USE_YOSYS")
    # The yosys that comes with Amaranth, so that the output does not depend on the machine.
    os.environ["AMARANTH_USE_YOSYS"] = "builtin"
    try:
        return verilog.convert(
            top,
            name=name,
            ports={"uart_rx": (top.uart_rx, None), "uart_tx": (top.uart_tx, None)},
            emit_src=False,
            strip_internal_attrs=True,
        )
    finally:
        if before is None:
            del os.environ["AMARANTH_USE_YOSYS"]
        else:
            os.environ["AMARANTH_USE_YOSYS"] = before
