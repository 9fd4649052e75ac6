"""cocotb test that is a host: the client's protocol on the board top's UART pins.

It runs inside the simulator (started by :mod:`boards.simulate`), sends the samples named by ``CODESIGN_REQUEST`` and
writes what came back; whether that is right is decided outside.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.queue import Queue
from cocotb.triggers import FallingEdge, SimTimeoutError, Timer, with_timeout
from cocotb.utils import get_sim_time

from boards.host import LinkProtocol, drive_async
from boards.simulate import RESULTS
from codesign.basics.files import atomic_path
from codesign.contract.sidecar import read_sidecar_file
from codesign.contract.stimulus import Stimulus

PERIOD_NS = 2


class UartPins:
    """Awaitable transport over the pins; damages one byte of either direction if told to."""

    def __init__(self, dut: Any, clock_hz: float, divisor: int) -> None:
        self.dut = dut
        self.clock_hz = clock_hz
        self.bit_ns = divisor * PERIOD_NS
        self.received: Queue[int] = Queue()
        self.fault: dict[str, Any] | None = None
        self.counts = {"to_board": 0, "from_board": 0}
        cocotb.start_soon(self._receive())

    def damage(self, fault: dict[str, Any] | None) -> None:
        """Apply ``fault`` to the bytes that follow, counted from 0."""
        self.fault = fault
        self.counts = dict.fromkeys(self.counts, 0)

    async def write(self, data: bytes, timeout: float) -> None:
        for byte in data:
            sent = self._pass(byte, "to_board")
            if sent is None:
                await Timer(10 * self.bit_ns, unit="ns")
                continue
            for bit in (0, *((sent >> i) & 1 for i in range(8)), 1):
                self.dut.uart_rx.value = bit
                await Timer(self.bit_ns, unit="ns")

    async def read(self, timeout: float) -> bytes:
        if self.received.empty():
            try:
                first = await with_timeout(
                    self.received.get(), max(1, round(timeout * self.clock_hz)) * PERIOD_NS, "ns"
                )
            except SimTimeoutError:
                return b""
            data = bytearray([first])
        else:
            data = bytearray()
        while not self.received.empty():
            data.append(self.received.get_nowait())
        return bytes(data)

    def clock(self) -> float:
        """Simulated seconds."""
        return get_sim_time("ns") / (PERIOD_NS * self.clock_hz)

    async def _receive(self) -> None:
        while True:
            await FallingEdge(self.dut.uart_tx)
            await Timer(self.bit_ns + self.bit_ns // 2, unit="ns")
            byte = 0
            for bit in range(8):
                byte |= int(self.dut.uart_tx.value) << bit
                await Timer(self.bit_ns, unit="ns")
            assert int(self.dut.uart_tx.value) == 1, "no stop bit"
            got = self._pass(byte, "from_board")
            if got is not None:
                self.received.put_nowait(got)

    def _pass(self, byte: int, direction: str) -> int | None:
        """The byte, damaged if the fault says so; None if it is lost."""
        fault, count = self.fault, self.counts[direction]
        self.counts[direction] += 1
        if fault is None or fault["direction"] != direction or fault["byte"] != count:
            return byte
        return None if fault["lost"] else byte ^ 0x10


@cocotb.test()
async def host_talks_to_board(dut: Any) -> None:
    path = Path(os.environ["CODESIGN_REQUEST"])
    request = json.loads(path.read_text(encoding="utf-8"))
    sidecar = read_sidecar_file(Path(request["sidecar"]))
    stimulus = Stimulus.load(request["stimulus"])
    faults = {fault["sample"]: fault for fault in request["faults"]}
    pins = UartPins(dut, request["clock_hz"], request["divisor"])
    protocol = LinkProtocol(sidecar, timeout=request["timeout"])

    dut.rst.value = 1
    Clock(dut.clk, PERIOD_NS, unit="ns", impl="gpi").start(start_high=False)
    await Timer(8 * PERIOD_NS, unit="ns")
    dut.rst.value = 0
    await Timer(8 * PERIOD_NS, unit="ns")

    await drive_async(protocol.identify(), pins, clock=pins.clock)
    await drive_async(protocol.reset(), pins, clock=pins.clock)
    results = []
    for sample in range(len(stimulus)):
        pins.damage(faults.get(sample))
        results.append(await drive_async(protocol.run(protocol.words(stimulus, sample)), pins, clock=pins.clock))
    pins.damage(None)
    identity = await drive_async(protocol.identify(), pins, clock=pins.clock)
    with atomic_path(path.parent / RESULTS) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            spikes=np.array([result.spikes for result in results]),
            values=np.array([result.values for result in results]),
            decisions=np.array([result.decision for result in results], np.int64),
            attempts=np.array([result.attempts for result in results], np.int64),
            clocks=np.int64(round(get_sim_time("ns") / PERIOD_NS)),
            identity=np.array(json.dumps(asdict(identity))),
        )
