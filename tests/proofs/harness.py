# amaranth: UnusedElaboratable=no

"""What every harness has: reset, free inputs, stated assumptions with their covers, and the rules of a stream."""

from __future__ import annotations

from amaranth.back import rtlil
from amaranth.hdl import (
    Assert,
    Assume,
    Cover,
    Elaboratable,
    Fragment,
    Module,
    ResetSignal,
    Shape,
    ShapeLike,
    Signal,
    Value,
    ValueLike,
)

TOP = "top"


class Harness(Elaboratable):
    """Base of the harnesses: :meth:`build` adds the component and its specification.

    Clock 0 is the reset, before which every register and memory of the component holds anything (:func:`emit` removes
    their initial values); ``running`` is 1 from then on. With ``any_state`` there is no reset at all: the component
    starts in whatever state its bits can hold, reachable or not, so that what is shown within some clocks holds at
    every time.
    """

    any_state = False

    def __init__(self) -> None:
        self.inputs: list[Signal] = []
        self.running = Signal(reset_less=True)
        self.m = Module()

    def build(self) -> None:
        raise NotImplementedError

    def elaborate(self, platform: object) -> Elaboratable:
        self.m.d.sync += self.running.eq(1)
        self.m.d.comb += Assume(ResetSignal() == (0 if self.any_state else ~self.running))
        self.build()
        return self.m

    def free(self, shape: ShapeLike, name: str) -> Signal:
        """An input that takes any value in every clock."""
        signal = Signal(Shape.cast(shape), name=name)
        self.inputs.append(signal)
        return signal

    def constant(self, shape: ShapeLike, name: str) -> Signal:
        """An input that takes any value and keeps it."""
        signal = self.free(shape, name)
        before = Signal.like(signal, name=f"{name}_before", reset_less=True)
        known = Signal(name=f"{name}_known", reset_less=True)
        self.m.d.sync += [before.eq(signal), known.eq(1)]
        self.m.d.comb += Assume(~known | (signal == before))
        self.cover(known & (signal != 0))
        return signal

    def register(self, value: ValueLike, name: str) -> Signal:
        """``value`` of the clock before; 0 at reset."""
        value = Value.cast(value)
        signal = Signal(value.shape(), name=name)
        self.m.d.sync += signal.eq(value)
        return signal

    def require(self, condition: ValueLike) -> None:
        """Must hold in every clock after the reset."""
        self.m.d.comb += Assert(~self.running | Value.cast(condition).bool())

    def assume(self, condition: ValueLike, *covers: ValueLike) -> None:
        """Taken for granted; each of ``covers`` must be reachable all the same, or the proof would say nothing."""
        if not covers:
            raise ValueError("an assumption needs a cover")
        self.m.d.comb += Assume(~self.running | Value.cast(condition).bool())
        self.cover(*covers)

    def cover(self, *conditions: ValueLike) -> None:
        """Must be reachable."""
        self.m.d.comb += [Cover(self.running & Value.cast(condition).bool()) for condition in conditions]

    def offered(self, stream, name: str) -> Value:
        """1 where the stream obeys its rule: a word offered and not taken is offered again, the same word."""
        waits = self.register(self.running & stream.valid & ~stream.ready, f"{name}_waits")
        word = self.register(Value.cast(stream.payload), f"{name}_word")
        return ~waits | (stream.valid & (Value.cast(stream.payload) == word))

    def stalled(self, stream, name: str) -> Value:
        """1 where a word is taken after it had to wait: what the rule of a stream is about."""
        return self.register(stream.valid & ~stream.ready, f"{name}_stalled") & stream.valid & stream.ready

    def source(self, stream, name: str) -> None:
        """Drive a component's input stream with anything, even with what breaks the rule."""
        self.m.d.comb += [
            stream.valid.eq(self.free(1, f"{name}_valid")),
            Value.cast(stream.payload).eq(self.free(Shape.cast(stream.payload.shape()), f"{name}_payload")),
        ]

    def sink(self, stream, name: str) -> None:
        """Take a component's output stream whenever it pleases."""
        self.m.d.comb += stream.ready.eq(self.free(1, f"{name}_ready"))


def emit(harness: Harness) -> str:
    """RTLIL of a harness, in which no register or memory of the component has a value of its own.

    Memories that are never written keep their contents.
    """
    # The inputs are made during elaboration, which has to come first.
    fragment = Fragment.get(harness, None)
    text = rtlil.convert(fragment, name=TOP, ports=harness.inputs, emit_src=False)
    modules = text.split("\nmodule ")
    return "\nmodule ".join([modules[0], *(part if _name(part) == TOP else _forget(part) for part in modules[1:])])


def _name(module: str) -> str:
    return module.split(None, 1)[0].lstrip("\\")


def _forget(module: str) -> str:
    """RTLIL of a module without initial values of registers and of memories that are written."""
    lines = [line for line in module.split("\n") if not line.strip().startswith("attribute \\init ")]
    cells, found = [], []
    for line in lines:
        if line.startswith("  cell "):
            found = [line]
            cells.append(found)
        elif found:
            found.append(line)
            if line == "  end":
                found = []
    written = {_memory(cell) for cell in cells if cell[0].startswith("  cell $memwr_v2 ")}
    unwanted = [cell for cell in cells if cell[0].startswith("  cell $meminit_v2 ") and _memory(cell) in written]
    text = "\n".join(lines)
    for cell in unwanted:
        text = text.replace("\n".join(cell) + "\n", "", 1)
    return text


def _memory(cell: list[str]) -> str:
    return next(line.split("MEMID", 1)[1] for line in cell if "\\MEMID" in line)
