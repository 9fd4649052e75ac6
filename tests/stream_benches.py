"""Drives and records streams in Amaranth's simulator, with random gaps and backpressure."""

from __future__ import annotations

import numpy as np
from amaranth.hdl import Value
from amaranth.sim import Simulator


def clocked(dut) -> Simulator:
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    return simulator


def drive(stream, words, rng: np.random.Generator | None = None, gap: float = 0.3):
    """Testbench that offers ``words`` (integers) to an input stream."""

    async def bench(ctx):
        for word in words:
            while rng is not None and rng.random() < gap:
                await ctx.tick()
            ctx.set(Value.cast(stream.payload), int(word))
            ctx.set(stream.valid, 1)
            await ctx.tick().until(stream.ready)
            ctx.set(stream.valid, 0)

    return bench


def record(stream, into: list[int], count: int, rng: np.random.Generator | None = None, stall: float = 0.5):
    """Testbench that takes ``count`` words (integers) from an output stream."""

    async def bench(ctx):
        while len(into) < count:
            ready = rng is None or rng.random() >= stall
            ctx.set(stream.ready, ready)
            _, _, valid, payload = await ctx.tick().sample(stream.valid, Value.cast(stream.payload))
            if ready and valid:
                into.append(payload)
        ctx.set(stream.ready, 0)

    return bench


def watch_stability(stream, problems: list[str]):
    """Background process: a word that was offered and not taken must still be offered."""

    async def bench(ctx):
        held = None
        async for _, _, valid, ready, payload in ctx.tick().sample(
            stream.valid, stream.ready, Value.cast(stream.payload)
        ):
            if held is not None and (not valid or payload != held):
                problems.append(f"{held} was withdrawn")
            held = payload if valid and not ready else None

    return bench
