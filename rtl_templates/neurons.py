"""The neurons of one lane: state memories, accumulation, and the LIF datapath of the fire sweep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from amaranth.hdl import Array, Cat, Const, Elaboratable, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from codesign.contract.network import signed_width
from codesign.machine.layouts import LEAKS, index_width
from codesign.machine.plan import EnginePlan
from codesign.machine.ways import LeakWay, ResetWay
from rtl_templates.accumulation import Accumulation, unless
from rtl_templates.arithmetic import balanced_sum, record_layout, saturate, saturate_within, wrap
from rtl_templates.memories import Rom, load_bus, load_place

Key = TypeVar("Key")


class NeuronBank(wiring.Component):
    """Membranes of one lane.

    Accumulation, one synapse a clock (:class:`Accumulation`): ``weight`` (times ``value``) is added to the slot's word.
    With several streams of events each has a memory of sums, and a synapse a clock; ``sum`` is then theirs together.
    Where a sample is walked at once there is a sum for each timestep, and ``sum`` is that of the sweep's.

    Sweep, one slot a clock, P the word width of the state, W the membrane width, F the fraction bits:

        u = state                                     events: signed(P), the sum is already in it
        u = state + (sum << F)                        current
        d = u - threshold                             exact, one bit wider
        s = d >= 0  |  d > 0
        r = s ? (d | 0 | value) : u                   reset; u if there is none
        v = saturate(r, W)
        state = leak(v) + bias, or bias if ``write_initial``

    With a delayed reset r = u, and the state is less by the threshold after a spike. With a synaptic current of I bits
    there are two states, and synapses add to the first one where they would add to the state:

        i = saturate(current state, I)                events: the sum is already in it
        i = saturate(current state + (sum << F), I)   current
        u = state + i
        current state = leak(i) + bias, or bias;  state = leak(v), or 0

    With a refractory period of R timesteps the state's word has those of rest that are left, below the state. While
    there are any, nothing is added to the state:

        u = state,  s = 0                             if rest > 0
        rest = s ? R : max(rest - 1, 0), or 0
        state = v                                     if rest > 0 then

    A slot read in clock 0 shows s, v, i and ``saturated`` in clock ``fire`` (4; one more for a sum that lies apart, for
    several of them, whether of streams or of timesteps, and for a synaptic current) and must be written by the caller's
    ``write_*`` in clock ``stages`` (one later). With a short pipeline a synapse takes 2 clocks, and a slot shows and is
    written in clock 2, and so many more. The slot's sum is cleared by ``clear_*`` in clock 2. Its parameters are read
    by ``parameter_*`` in clock ``parameter_clock``, just before the first of them is used.

    Parameters
    ----------
    plan : of the engine.
    lane : number of the lane.

    Members
    -------
    layer : In, which layer the bank works for (only with several); constant while a sweep is inside.
    synapse_valid : In(1); synapse : In({slot, weight}); value : In(unsigned). With several streams these are
        ``synapse_valid0`` and so on, one of each for each; :meth:`walked` gives those of a stream.
    busy : Out(1), a sum has not reached the last stage, which writes it at the end of its clock.
    read_valid, read_slot : In, start of a slot's sweep; no synapse may come in that clock, nor have come in the one
        before. A synapse may read a slot from the clock on in which its sweep is written.
    step : In, where there are sums of several timesteps: that of the sweep whose slot was read a clock ago (short: is).
    clear_valid, clear_slot : In, clear the slot's sums, where they lie apart.
    parameter_valid, parameter_slot : In, if slots have parameters of their own.
    write_valid, write_slot, write_initial : In.
    clip : In(W - 1), of a loadable machine's spiking layer: ones from bit W' - 1 up, where W' <= W is the width into
        which v is clipped; constant while a sample is inside. load : In(load_bus), of a loadable machine.
    spike : Out(1); membrane : Out(signed(W)); saturated : Out(1), v or i was clipped.
    current : Out(signed(I)), if there is one.
    count : Out(widths.count), if there is one: spikes of the slot in this sample, the one shown included.

    Raises
    ------
    ValueError if ``lane`` is not one of the layer's.
    """

    def __init__(self, plan: EnginePlan, lane: int):
        placement, widths = plan.placement, plan.widths
        if not 0 <= lane < plan.lanes:
            raise ValueError(f"lane {lane!r} is outside 0..{plan.lanes - 1}")
        self._plan = plan
        self._ways = plan.ways
        self._placement = placement
        self._lane = lane
        self._widths = widths
        self._attributes = {} if plan.state_style == "auto" else {"ram_style": plan.state_style}
        self.is_short = placement.pipeline == "short"
        self.fire, self.stages = plan.clocks.fire, plan.clocks.write
        record = placement.parameter_record
        self.parameter_clock = plan.parameter_clock
        slot = unsigned(index_width(placement.n_slots))
        parameter = unsigned(index_width(placement.parameter_depth))
        weight = record_layout(placement.given_record)["weight"].shape
        width = widths.membrane
        self._capacity = placement.capacity
        self._clips = self._capacity is not None and any(plan.ways.spiking)
        super().__init__(
            {
                **({"layer": In(range(len(plan.layers)))} if plan.is_shared else {}),
                **{
                    f"{name}{of}": In(shape)
                    for of in self._streams
                    for name, shape in (
                        ("synapse_valid", unsigned(1)),
                        ("synapse", data.StructLayout({"slot": slot, "weight": weight})),
                        ("value", unsigned(max(1, widths.value))),
                    )
                },
                "busy": Out(1),
                "read_valid": In(1),
                "read_slot": In(slot),
                **({"step": In(index_width(widths.sums))} if widths.sums > 1 else {}),
                "clear_valid": In(1),
                "clear_slot": In(slot),
                **({"parameter_valid": In(1), "parameter_slot": In(parameter)} if record.fields else {}),
                "write_valid": In(1),
                "write_slot": In(slot),
                "write_initial": In(1),
                "spike": Out(1),
                "membrane": Out(signed(width)),
                "saturated": Out(1),
                **({"current": Out(signed(widths.current))} if widths.has_current else {}),
                **({"count": Out(unsigned(widths.count))} if widths.count else {}),
                **({"clip": In(unsigned(width - 1))} if self._clips else {}),
                **({"load": In(load_bus(self._capacity))} if self._capacity else {}),
            }
        )

    @property
    def _streams(self) -> list[str]:
        """What names of a stream's members end in."""
        return [f"{stream}" for stream in range(self._plan.streams)] if self._plan.streams > 1 else [""]

    def walked(self, stream: int) -> tuple[Value, Value, Value]:
        """``synapse_valid``, ``synapse`` and ``value`` of a stream."""
        valid, synapse, value = (
            getattr(self, f"{name}{self._streams[stream]}") for name in ("synapse_valid", "synapse", "value")
        )
        return valid, synapse, value

    def _accumulations(self, m: Module) -> list[Accumulation]:
        """That of each stream; a single one is part of the bank itself."""
        sweep = self.read_valid, self.read_slot
        if self._plan.streams == 1:
            return [Accumulation(m, self._plan, self._attributes, *self.walked(0), *sweep, self.busy)]
        found, busy = [], Signal(self._plan.streams)
        for stream in range(self._plan.streams):
            m.submodules[f"sum{stream}"] = part = Module()
            own = Signal(name="busy")
            found.append(Accumulation(part, self._plan, self._attributes, *self.walked(stream), *sweep, own))
            m.d.comb += busy[stream].eq(own)
        m.d.comb += self.busy.eq(busy.any())
        return found

    def _of_step(self, m: Module, words: list[Signal]) -> list[Value]:
        """Of each of these words the sum of the sweep's timestep."""
        widths = self._widths
        if widths.sums == 1:
            return list(words)
        swept_step = Signal.like(self.step, name="swept_step", reset_less=True)
        m.d.sync += swept_step.eq(self.step)
        # Chosen one by one: for an offset tools would multiply the timestep with the sum's bits.
        sums = [[word.word_select(step, widths.sum).as_signed() for step in range(widths.sums)] for word in words]
        return [Array(of_steps)[swept_step] for of_steps in sums]

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        ways, widths, depth = self._ways, self._widths, self._plan.state_depth
        accumulations = self._accumulations(m)
        operand = accumulations[0].operand
        address_shape = unsigned(index_width(depth))

        parameters = self._parameters(m)

        # Potential, in stage fire - 2; short: in stage fire - 1.
        u = Signal(signed(widths.potential), reset_less=True)
        clipped: Value | None = None
        if widths.swept:
            m.submodules.state = state = memory.Memory(
                shape=signed(widths.swept), depth=depth, init=[], attrs=self._attributes
            )
            state_write, state_read = state.write_port(), state.read_port()
            state_2 = Signal(signed(widths.swept), reset_less=True)
            stored = state_2
            m.d.comb += [state_read.en.eq(self.read_valid), state_read.addr.eq(wrap(self.read_slot, address_shape))]
            if self.is_short:
                m.d.comb += state_2.eq(state_read.data)
            else:
                m.d.sync += state_2.eq(state_read.data)
            arriving: Value = operand
            if len(accumulations) > 1 or self._plan.collects:
                # The sums of all streams are added up, of the sweep's timestep, in a clock of their own.
                summed = Signal(signed(widths.sum), reset_less=True)
                parts = self._of_step(m, [part.operand for part in accumulations])
                m.d.sync += summed.eq(wrap(balanced_sum(parts), summed.shape()))
                arriving = operand = summed
                state_2 = _delay(m, state_2, 1)
            held = state_2.shift_right(widths.swept - widths.state)
            left = self._left(m, stored)
            if widths.has_sum:
                arriving = self._of_layer(ways.fractions, operand.shift_left)
            if widths.has_current:
                arriving, held, clipped = self._current(m, arriving, state_2, held)
            if left:
                arriving = unless(m, left[self._plan.clocks.compare - 1], arriving)
            m.d.sync += [u.eq(wrap(held + arriving, signed(widths.potential)))]
        else:
            state_write, stored = accumulations[0].write, operand
            left = self._left(m, stored)
            m.d.comb += u.eq(operand.shift_right(widths.beside))
        threshold = self._when_used(m, parameters, "threshold")
        spike, after = self._threshold(m, u, threshold, left.get(self.fire - 1))
        saturated = self._of_layer(ways.clips, lambda key: self._clip(after, *key)[1])
        m.d.sync += [
            self.spike.eq(spike),
            self.membrane.eq(self._of_layer(ways.clips, lambda key: self._clip(after, *key)[0])),
            self.saturated.eq(saturated if clipped is None else saturated | clipped),
        ]

        numbers: dict[str, Value] = {}
        for name in (name for name in LEAKS if name in parameters):
            numbers[name] = Signal.like(parameters[name], name=name)
            m.d.comb += numbers[name].eq(self._when_used(m, parameters, name))
        leaked = self._leaked(m, "leak", self.membrane, numbers)
        # The bias goes to what gathers the events: the synaptic current, if the layer has one.
        bias = self._when_used(m, parameters, "bias")
        own = self._of_layer(ways.gathers, lambda has_current: 0 if has_current else bias)
        added = own
        if any(ways.delays):
            added = self._less_owed(m, own, threshold)
            bias, own = (_delay(m, value, self.stages - self.fire) for value in (bias, own))
        kept: Value = leaked + added
        resting = self._resting(m, left[self.fire]) if left else None
        if resting is not None:
            kept = Mux(resting.any(), _delay(m, self.membrane, self.stages - self.fire), kept)
        following = wrap(Mux(self.write_initial, own, kept), signed(widths.state))
        gathering = following
        if widths.has_current:
            current_leaked = self._leaked(m, "current_leak", self.current, numbers)
            exact = Mux(self.write_initial, bias, current_leaked + bias)
            # Where there is no current, nothing but the sum is to arrive.
            gathering = self._of_layer(ways.gathers, lambda has_current: exact if has_current else Const(0, signed(1)))
            gathering = wrap(gathering, signed(widths.current_state))
            if widths.has_sum:
                following = Cat(gathering, following).as_signed()
        if resting is not None:
            following = Cat(Mux(self.write_initial, 0, resting), following).as_signed()
        if widths.count:
            before = _delay(m, stored[: widths.count], self.fire - self._plan.clocks.stored)
            m.d.comb += self.count.eq(wrap(before + self.spike, self.count.shape()))
            counted = _delay(m, self.count, self.stages - self.fire)
            following = Cat(Mux(self.write_initial, 0, counted), following).as_signed()

        for accumulation in accumulations:
            if widths.has_sum:
                accumulation.close(self.clear_valid, self.clear_slot, 0)
            else:
                accumulation.close(self.write_valid, self.write_slot, gathering if widths.swept else following)
        if widths.swept:
            m.d.comb += [
                state_write.en.eq(self.write_valid),
                state_write.addr.eq(wrap(self.write_slot, address_shape)),
                state_write.data.eq(following),
            ]
        return m

    def _current(self, m: Module, arriving: Value, state_2: Signal, held: Value) -> tuple[Value, Value, Value]:
        """What arrives at the membrane in the clock before u, v's part of the state in that clock, and whether i was
        clipped, in the clock before that is shown.

        arriving : in clock 2 (short: 1), the state of the current with its sums, or the sum alone.
        """
        ways, widths = self._ways, self._widths
        gathered = Signal(signed(widths.gathered), reset_less=True)
        if widths.has_sum:
            kept = state_2[widths.beside : widths.beside + widths.current_state].as_signed()
            m.d.sync += gathered.eq(wrap(kept + arriving, gathered.shape()))
            held = _delay(m, held, 1)
        else:
            m.d.comb += gathered.eq(wrap(arriving, gathered.shape()))
        most = widths.current if all(ways.gathers) else max(widths.current, widths.gathered)

        def clip(key: tuple[int, bool]) -> tuple[Value, Value]:
            width, may_clip = key
            return saturate(gathered, width) if may_clip else (gathered, Const(0, 1))

        synaptic = Signal(signed(most))
        overflow = Signal()
        m.d.comb += [
            synaptic.eq(wrap(self._of_layer(ways.current_clips, lambda key: clip(key)[0]), synaptic.shape())),
            overflow.eq(self._of_layer(ways.current_clips, lambda key: clip(key)[1])),
        ]
        to_fire = 1 + self._plan.clocks.stored
        shown = _delay(m, synaptic, to_fire)
        m.d.comb += self.current.eq(wrap(Value.cast(shown), self.current.shape()))
        return synaptic, held, Value.cast(_delay(m, overflow, to_fire - 1))

    def _left(self, m: Module, stored: Signal) -> dict[int, Value]:
        """The timesteps of rest that were left when a slot was read, by the clock, up to that of its spike; empty if no
        layer has any.

        stored : the word of the state, in clock 2 (short: 1).
        """
        widths, first = self._widths, self._plan.clocks.stored
        if not widths.rest:
            return {}
        found = {first: stored[widths.count : widths.beside]}
        for clock in range(first + 1, self.fire + 1):
            found[clock] = Value.cast(_delay(m, found[clock - 1], 1))
        return found

    def _resting(self, m: Module, left: Value) -> Value:
        """Timesteps of rest that are left after this one, in clock ``stages``. left : before it, in clock ``fire``."""
        rest_left, less, resting = (Signal(left.shape(), name=name) for name in ("rest_left", "rest_less", "resting"))
        m.d.comb += [
            rest_left.eq(left),
            less.eq(Mux(rest_left.any(), rest_left - 1, 0)),
            resting.eq(Mux(self.spike, self._of_layer(self._ways.rests, Const), less)),
        ]
        return Value.cast(_delay(m, resting, self.stages - self.fire))

    def _less_owed(self, m: Module, own: Value | int, threshold: Value | int) -> Value:
        """What is added to what has leaked, in clock ``stages``: ``own``, less what a delayed reset subtracts.

        own, threshold : in the clocks in which they are used first.
        """
        threshold = _delay(m, threshold, self.fire - self._plan.parameter_clocks["threshold"])
        subtracted = Mux(self.spike, self._of_layer(self._ways.delays, lambda late: threshold if late else 0), 0)
        owed = Signal(subtracted.shape())
        m.d.comb += owed.eq(subtracted)
        exact = own - owed
        added = Signal(exact.shape(), reset_less=True)
        domain = m.d.comb if self.is_short else m.d.sync
        domain += added.eq(exact)
        return added

    def _parameters(self, m: Module) -> dict[str, Value | int]:
        """What the slot uses whose parameters were read one clock ago: these, and the constants."""
        placement, record = self._placement, self._placement.parameter_record
        constants = {name: placement.constants.get(name) for name in ("threshold", "bias")}
        found = {name: 0 if numbers is None else self._constant(numbers) for name, numbers in constants.items()}
        if record.fields:
            m.submodules.parameters = rom = Rom(
                record_layout(record),
                placement.parameter_words(self._lane).tolist(),
                placement.image(self._lane, "parameters"),
                load_place(placement, "parameters", self._lane),
            )
            if self._capacity:
                m.d.comb += rom.load.eq(self.load)
            m.d.comb += [
                rom.en.eq(self.parameter_valid),
                rom.addr.eq(wrap(self.parameter_slot, unsigned(len(rom.addr)))),
            ]
            word = data.View(record_layout(record), Value.cast(rom.data))
            found |= {field.name: word[field.name] for field in record}
        return found

    def _when_used(self, m: Module, parameters: dict[str, Value | int], name: str) -> Value | int:
        """A parameter in the clock in which the sweep uses it."""
        return _delay(m, parameters[name], self._plan.parameter_clocks[name] - 1 - self.parameter_clock)

    def _threshold(
        self, m: Module, u: Signal, threshold: Value | int, rest: Value | None = None
    ) -> tuple[Value, Value]:
        """The spike and the value after reset, one clock after ``u``; short: in the same, as is ``rest``, the timesteps
        of rest that are left."""
        u_next = Signal.like(u, reset_less=True)
        domain = m.d.comb if self.is_short else m.d.sync
        domain += u_next.eq(u)
        if not any(self._ways.spiking):
            return Value.cast(0), u_next
        exact = u - threshold
        difference = Signal(exact.shape(), reset_less=True)
        domain += difference.eq(exact)
        spike = Signal()
        reached = self._of_layer(self._ways.compares, lambda compare: _compare(difference, compare))
        if rest is not None:
            # The mutants find it by this name.
            quiet = Signal()
            m.d.comb += quiet.eq(rest.any())
            reached = reached & ~quiet
        m.d.comb += spike.eq(reached)

        def after(reset: ResetWay) -> Value:
            kind, value = reset
            return {"subtract": difference, "zero": Value.cast(0), "none": u_next}.get(kind, Value.cast(value))

        left: Value = Mux(spike, self._of_layer(self._ways.resets, after), u_next)
        if any(self._ways.delays):
            # The mutants find it by this name.
            kept = Signal(left.shape())
            m.d.comb += kept.eq(left)
            left = kept
        return spike, left

    def _leaked(self, m: Module, which: str, value: Signal, numbers: dict[str, Value]) -> Signal:
        """What ``value`` leaks to, which never leaves its width, in the clock in which it is written.

        which : the leak's field of the layer. numbers : those that are in memory.
        """
        leaked = Signal(value.shape(), reset_less=True, name=which.removesuffix("leak") + "leaked")

        def leak(key: LeakWay) -> Value:
            kind, shift, multiplier = key
            if kind == "none":
                return value
            by = numbers[f"{which}_shift"] if shift is None else shift
            if kind == "shift":
                return value - _shifted(value, by)
            factor = numbers[f"{which}_multiplier"] if multiplier is None else multiplier
            return _shifted(value * factor, by)

        leaks = self._of_layer(self._ways.leaks(which), leak)
        domain = m.d.comb if self.is_short else m.d.sync
        domain += leaked.eq(wrap(leaks, leaked.shape()))
        return leaked

    def _clip(self, value: Value, width: int, may_clip: bool) -> tuple[Value, Value]:
        """``value`` in ``width`` bits, and whether it was clipped."""
        if not may_clip:
            return wrap(value, signed(width)), Value.cast(0)
        return saturate_within(value, width, self.clip) if self._clips else saturate(value, width)

    def _of_layer(self, keys: Sequence[Key], build: Callable[[Key], Value]) -> Value:
        """What ``build`` makes of the key of the layer at work; built once where several have the same."""
        first, *others = dict.fromkeys(keys)
        found = build(first)
        for key in others:
            chosen = Cat(self.layer == number for number, other in enumerate(keys) if other == key).any()
            found = Mux(chosen, build(key), found)
        return found

    def _constant(self, numbers: Sequence[int]) -> Value | int:
        """A constant of the layer at work."""
        if len(set(numbers)) == 1:
            return numbers[0]
        width = max(signed_width(number, number) for number in numbers)
        return self._of_layer(numbers, lambda number: Const(number, signed(width)))


def _compare(difference: Signal, compare: str | None) -> Value:
    """u - threshold >= 0 or > 0; never for a layer that only integrates."""
    if compare is None:
        return Value.cast(0)
    return difference >= 0 if compare == ">=" else difference > 0


def _shifted(value: Value, by: Value | int) -> Value:
    """``value`` (signed) shifted to the right."""
    return value.shift_right(by) if isinstance(by, int) else value >> by


def _delay(m: Module, value: Value | int, clocks: int) -> Value | int:
    """``value`` so many clocks later; constants need no registers."""
    if isinstance(value, int):
        return value
    for _ in range(clocks):
        following = Signal.like(value, reset_less=True)
        m.d.sync += following.eq(value)
        value = following
    return value
