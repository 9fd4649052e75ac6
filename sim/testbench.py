"""cocotb tests of a delivered accelerator: one test per phase, a few wake-ups per sample at most.

The module runs inside the simulator (started by :mod:`sim.launch`). What it checks is in the request file named
by ``CODESIGN_REQUEST``; each phase writes ``phase_<name>.json`` next to it and fails on any differing value.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge, Timer

from codesign.basics.files import write_json
from codesign.contract import golden
from codesign.contract.early_exit import EarlyExit
from codesign.contract.network import FrozenNetwork
from codesign.contract.sidecar import Sidecar, read_sidecar_file
from codesign.contract.stimulus import Stimulus
from sim.checker import Comparison, check_segment
from sim.framing import interpret, violations
from sim.recording import Recording, read_recording, sample_arrays
from sim.words import InputEncoder, Words, write_words

PERIOD_NS = 2
FOREVER = 0xFFFFFFFF
DRAIN_CLOCKS = 64
POLL_CLOCKS = 500
WAKE_UPS = 50
OBSERVED = "observed.npz"


class Request:
    """What this simulation checks: the request file and what it names."""

    def __init__(self) -> None:
        path = Path(os.environ["CODESIGN_REQUEST"])
        document = json.loads(path.read_text(encoding="utf-8"))
        self.folder = path.parent
        self.sidecar = read_sidecar_file(Path(document["sidecar"]))
        self.network = FrozenNetwork.load(document["network"])
        self.stimulus = Stimulus.load(document["stimulus"])
        self.first_sample = int(document["first_sample"])
        self.seed = int(document["seed"])
        self.phases: dict[str, list[int]] = document["phases"]
        self.quiet_limit = int(document["quiet_limit"])
        self.encoder = InputEncoder(self.sidecar)
        self.early_exit: EarlyExit = self.sidecar.early_exit

    def samples(self, phase: str) -> np.ndarray:
        return np.array(self.phases[phase], np.int64)


class Driver:
    """Sends word files through the stream source, a segment at a time."""

    def __init__(
        self, dut: Any, folder: Path, network: FrozenNetwork, sidecar: Sidecar, quiet_limit: int, progress: Path
    ) -> None:
        self.dut, self.folder, self.progress, self.quiet_limit = dut, folder, progress, quiet_limit
        self.network, self.sidecar = network, sidecar
        self.segment = -1
        self.images = 0
        self.share = (0.0, 1.0)

    async def start(self) -> None:
        """Reset the accelerator, which stays in reset; the clock runs already (``tb/main.cpp``).

        A machine that starts without a network first gets the one that was delivered with it.
        """
        self.dut.reset.value = 1
        self.dut.quiet_limit.value = self.quiet_limit
        await self.clocks(4)
        boot = self.sidecar.load.boot if self.sidecar.load else None
        # A phase finds the network of the phase before; one that was never sent would not give the expected values.
        if boot is not None and not int(self.dut.loaded.value):
            await self._boot(self.folder / boot)

    async def _boot(self, image: Path) -> None:
        dut = self.dut
        await self.reset()
        await self.send_image(image, expected_hash=0, gap=0)
        for _ in range(2 + 4 * image.stat().st_size // POLL_CLOCKS):
            await self.clocks(POLL_CLOCKS)
            if int(dut.load_done.value):
                break
        await self.clocks(8)
        if int(dut.load_error.value) or not int(dut.loaded.value):
            raise AssertionError(f"{image.name} is refused, load_error {int(dut.load_error.value):04b}")
        dut.reset.value = 1
        await self.clocks(4)

    async def send_image(self, image: Path, expected_hash: int, gap: int, limit: int = FOREVER) -> None:
        """Start to send a load image; ``limit`` bytes are offered at first."""
        dut = self.dut
        (self.folder / f"load{self.images}.bin").write_bytes(image.read_bytes())
        dut.load_number.value = self.images
        dut.load_gap.value = gap
        dut.load_limit.value = limit
        dut.expected_hash.value = expected_hash
        dut.load_start.value = 1
        await self.clocks(2)
        dut.load_start.value = 0
        await self.clocks(1)
        self.images += 1

    async def clocks(self, count: int) -> None:
        """Wait; signals written afterwards change at a falling edge or just after a rising one."""
        await Timer(count * PERIOD_NS, unit="ns")

    async def reset(self, clocks: int = 4) -> None:
        """Reset the accelerator for some clocks."""
        self.dut.reset.value = 1
        await self.clocks(clocks)
        self.dut.reset.value = 0
        await self.clocks(1)

    async def open(
        self,
        words: Sequence[Words],
        *,
        gap: int = 0,
        stall: int = 0,
        isolate: bool = False,
        seed: int = 1,
        reset_clocks: int = 4,
    ) -> None:
        """Open a new segment, whose words wait to be sent, and reset the accelerator (unless 0 clocks are given)."""
        dut = self.dut
        self.segment += 1
        write_words(self.folder / f"segment{self.segment}_words.bin", words)
        dut.segment.value = self.segment
        dut.sample_count.value = len(words)
        dut.word_limit.value = 0
        dut.decision_target.value = FOREVER
        dut.word_target.value = FOREVER
        dut.beat_limit.value = self._beat_limit(len(words))
        dut.gap.value, dut.stall.value, dut.isolate.value, dut.seed.value = gap, stall, int(isolate), seed
        dut.open.value = 1
        await self.clocks(3)
        dut.open.value = 0
        if reset_clocks:
            dut.reset.value = 1
            await self.clocks(reset_clocks)
        dut.reset.value = 0

    def part(self, number: int, count: int) -> None:
        """The next segment is part ``number`` of ``count`` of the phase; for the progress."""
        self.share = (number / count, 1 / count)

    def _tell(self, done: float) -> None:
        # In one step: whoever reads it meanwhile would find nothing.
        new = self.progress.with_suffix(".new")
        new.write_text(f"{done:.6f}")
        new.replace(self.progress)

    async def run(self, decisions: int) -> bool:
        """Let the words flow until ``decisions`` decisions came. True if the accelerator hung instead."""
        dut = self.dut
        done, share = self.share
        dut.word_limit.value = FOREVER
        step = max(1, -(-decisions // WAKE_UPS))
        for target in [*range(step, decisions, step), decisions]:
            dut.decision_target.value = target
            await self.clocks(1)
            dut.armed.value = 1
            await RisingEdge(dut.stop)
            await self.clocks(1)
            hung = bool(int(dut.hung.value)) and int(dut.decisions.value) < target
            dut.armed.value = 0
            await self.clocks(2)
            self._tell(done + share * target / max(decisions, 1))
            if hung:
                return True
        return False

    async def run_words(self, count: int) -> None:
        """Let exactly ``count`` words flow, or as many as the accelerator takes before it falls silent."""
        dut = self.dut
        dut.word_limit.value = count
        dut.word_target.value = count
        await self.clocks(1)
        dut.armed.value = 1
        await RisingEdge(dut.stop)
        dut.armed.value = 0
        await self.clocks(1)

    async def close(self) -> Recording:
        """Wait for stray words, end the segment and read what the monitors recorded.

        After an early exit the sample has timesteps left to go through.
        """
        waited, exits = 0, self.sidecar.exits_early
        while exits and int(self.dut.busy.value) and waited < self.quiet_limit:
            await self.clocks(DRAIN_CLOCKS)
            waited += DRAIN_CLOCKS
        await self.clocks(DRAIN_CLOCKS)
        self.dut.close.value = 1
        await self.clocks(3)
        self.dut.close.value = 0
        await self.clocks(1)
        return read_recording(self.folder, self.segment, self.sidecar)

    async def abort(self, reset_clocks: int) -> None:
        """Reset the accelerator in the middle of what it does; the segment's recordings are not used."""
        self.dut.reset.value = 1
        self.dut.close.value = 1
        await self.clocks(reset_clocks)
        self.dut.reset.value = 0
        await self.clocks(1)
        self.dut.close.value = 0
        await self.clocks(1)

    def _beat_limit(self, samples: int) -> int:
        network = self.network
        return (samples + 1) * (network.timesteps * network.n_outputs + network.n_outputs + 1) + 1000


class Phase:
    """One phase: expectations, comparison and the result file."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.request = Request()
        self.samples = self.request.samples(name)
        self.rng = np.random.default_rng([self.request.seed, *name.encode()])
        self.comparison = Comparison(name)
        self.extra: dict[str, Any] = {}

    def driver(self, dut: Any) -> Driver:
        request = self.request
        progress = request.folder / f"progress_{self.name}.txt"
        return Driver(dut, request.folder, request.network, request.sidecar, request.quiet_limit, progress)

    def expect(self, stimulus: Stimulus) -> golden.Trace:
        return golden.run(self.request.network, stimulus, early_exit=self.request.early_exit)

    def check(
        self,
        recording: Recording,
        expected: golden.Trace,
        samples: np.ndarray,
        *,
        protocol_error: int = 0,
        hung: bool = False,
    ) -> None:
        check_segment(
            self.comparison,
            self.request.network,
            self.request.sidecar,
            expected,
            recording,
            samples + self.request.first_sample,
            protocol_error=protocol_error,
            hung=hung,
        )

    def timing(self, recording: Recording) -> None:
        """Keep the cycles of first words and decisions and the clocks of each phase of each layer."""
        cycles = recording.output["cycle"]
        decided = cycles[recording.output["last"] == 1]
        np.savez(self.request.folder / f"timing_{self.name}.npz", starts=recording.starts, decisions=decided)
        self.extra["clocks"] = recording.clocks.tolist()
        self.extra["simulated_cycles"] = recording.status["cycle"]
        self.extra["busy_clocks"] = recording.status["busy_clocks"]

    def observed(self, recording: Recording, expected: golden.Trace) -> None:
        """Keep what the layers did in the first sample that differs, else in the first in which most of them fire."""
        request = self.request
        first = self.comparison.first
        if first is not None and first.sample is not None:
            sample = first.sample
        else:
            sample = request.first_sample + int(self.samples[np.argmax((expected.spike_counts > 0).sum(axis=1))])
        place = int(np.flatnonzero(self.samples + request.first_sample == sample)[0])
        arrays = sample_arrays(recording, request.sidecar, request.network.timesteps, place)
        if arrays is not None:
            np.savez(request.folder / OBSERVED, sample=np.int64(sample), **arrays)  # type: ignore[arg-type]

    def finish(self) -> None:
        """Write the result; fail the cocotb test on any difference."""
        comparison = self.comparison
        write_json(
            self.request.folder / f"phase_{self.name}.json",
            {
                "phase": self.name,
                "samples": len(self.samples),
                "comparisons": comparison.counts,
                "mismatches": comparison.mismatches,
                "first_divergence": comparison.first.to_json() if comparison.first else None,
                **self.extra,
            },
        )
        assert comparison.mismatches == 0, f"{comparison.mismatches} values differ; first: {comparison.first}"


def _walks(request: Request, stimulus: Stimulus, expected: golden.Trace) -> list[int]:
    """Synapses that each layer's lanes walk: a source's row once a sample where all timesteps are walked at once."""
    found = expected.synaptic_operations.sum(axis=0)
    at_once = [entry.index for entry in request.sidecar.layers if entry.schedule == "sample"]
    if at_once:
        found[at_once] = golden.operations_at_once(request.network, stimulus, expected).sum(axis=0)[at_once]
    return found.tolist()


async def _straight(dut: Any, name: str, *, isolate: bool) -> None:
    phase = Phase(name)
    driver = phase.driver(dut)
    stimulus = phase.request.stimulus.take(phase.samples)
    await driver.start()
    await driver.open(phase.request.encoder.samples(stimulus), isolate=isolate)
    hung = await driver.run(len(stimulus))
    recording = await driver.close()
    expected = phase.expect(stimulus)
    phase.check(recording, expected, phase.samples, hung=hung)
    phase.timing(recording)
    if not isolate:
        phase.observed(recording, expected)
    decided = recording.output["index"][(recording.output["kind"] == 2)][: len(stimulus)]
    phase.extra["hardware_decisions"] = [*decided.tolist(), *[-1] * (len(stimulus) - len(decided))]
    phase.extra["saturations"] = int(expected.saturations.sum())
    phase.extra["synaptic_operations"] = expected.synaptic_operations.sum(axis=0).tolist()
    phase.extra["synapse_walks"] = _walks(phase.request, stimulus, expected)
    phase.extra["spikes"] = expected.spike_counts.sum(axis=0).tolist()
    phase.extra["timesteps"] = int((expected.exits + 1).sum())
    phase.finish()


@cocotb.test()
async def back_to_back(dut: Any) -> None:
    """All samples, no gaps, no backpressure: every value, and cycles per sample."""
    await _straight(dut, "back_to_back", isolate=False)


@cocotb.test()
async def one_at_a_time(dut: Any) -> None:
    """Samples that wait for the decision before: the latency of a sample alone."""
    await _straight(dut, "one_at_a_time", isolate=True)


@cocotb.test()
async def backpressure(dut: Any) -> None:
    """Random gaps, stalls and source orders, at several intensities."""
    phase = Phase("backpressure")
    driver = phase.driver(dut)
    await driver.start()
    intensities = ((0, 240), (200, 0), (128, 128), (30, 60))
    for number, (gap, stall) in enumerate(intensities):
        driver.part(number, len(intensities))
        stimulus = phase.request.stimulus.take(phase.samples)
        words = phase.request.encoder.samples(stimulus, phase.rng)
        await driver.open(words, gap=gap, stall=stall, seed=int(phase.rng.integers(1, 1 << 31)))
        hung = await driver.run(len(stimulus))
        phase.check(await driver.close(), phase.expect(stimulus), phase.samples, hung=hung)
        if hung:
            break
    phase.finish()


@cocotb.test()
async def reset_mid_sample(dut: Any) -> None:
    """A reset at a random place of each sample, then the sample in full."""
    phase = Phase("reset_mid_sample")
    driver = phase.driver(dut)
    await driver.start()
    request = phase.request
    for number, sample in enumerate(phase.samples):
        driver.part(number, len(phase.samples))
        stimulus = request.stimulus.take([int(sample)])
        words = request.encoder.sample(stimulus, 0)
        await driver.open([words, words, words])
        await driver.run_words(int(phase.rng.integers(1, 2 * len(words) + 1)))
        await driver.clocks(int(phase.rng.integers(1, 200)))
        await driver.abort(int(phase.rng.integers(1, 4)))
        await driver.open([words], reset_clocks=0)
        hung = await driver.run(1)
        phase.check(await driver.close(), phase.expect(stimulus), np.array([sample]), hung=hung)
        if hung:
            break
    phase.finish()


@cocotb.test()
async def protocol_errors(dut: Any) -> None:
    """Each kind of ill-formed sample, followed by the same sample well-formed, twice (an overrun swallows one)."""
    phase = Phase("protocol_errors")
    driver = phase.driver(dut)
    await driver.start()
    request = phase.request
    kinds: list[str] = []
    understood_samples = understood_timesteps = 0
    for number, sample in enumerate(phase.samples):
        stimulus = request.stimulus.take([int(sample)])
        good = request.encoder.sample(stimulus, 0)
        variants = violations(request.encoder, stimulus, request.network.n_inputs, phase.rng)
        for place, (kind, bad) in enumerate(variants):
            driver.part(number * len(variants) + place, len(phase.samples) * len(variants))
            understood, errors = interpret(request.encoder, request.network, [bad, good, good])
            understood_samples += len(understood)
            await driver.open([bad, good, good])
            hung = await driver.run(len(understood))
            recording = await driver.close()
            # The framing flags of the source do not know that the guard drops a sample after an overrun.
            recording = replace(recording, starts=recording.starts[-len(understood) :])
            expected = phase.expect(understood)
            understood_timesteps += int((expected.exits + 1).sum())
            phase.check(
                recording,
                expected,
                np.full(len(understood), sample),
                protocol_error=errors,
                hung=hung,
            )
            if kind not in kinds:
                kinds.append(kind)
            if hung:
                break
        if phase.comparison.mismatches:
            break
    phase.extra["kinds"] = kinds
    phase.extra["understood_samples"] = understood_samples
    phase.extra["understood_timesteps"] = understood_timesteps
    phase.finish()
