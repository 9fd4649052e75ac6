"""cocotb test of a loadable machine: networks, refused images and damaged ones, one after the other.

The module runs inside the simulator (started by :mod:`sim.launch`). The request file's ``steps`` say what is sent and
what must be in the machine then; the results go into ``phase_loads.json``.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import cocotb
import numpy as np

from codesign.basics.files import write_json
from codesign.contract import golden
from codesign.contract.network import FrozenNetwork
from codesign.contract.sidecar import read_sidecar_file
from codesign.contract.stimulus import Stimulus
from sim.checker import Comparison, check_segment, merge_counts
from sim.framing import interpret, violations
from sim.testbench import FOREVER, POLL_CLOCKS, Driver
from sim.words import InputEncoder, Words

STALLED_CLOCKS = 300


class Resident:
    """The network that is in the machine: what it is, and how to talk to it."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.network = FrozenNetwork.load(document["network"])
        self.stimulus = Stimulus.load(document["stimulus"])
        self.sidecar = read_sidecar_file(Path(document["sidecar"]))
        self.encoder = InputEncoder(self.sidecar)


class Session:
    """Sends images and runs networks; each step's comparisons are counted apart."""

    def __init__(self, dut: Any, driver: Driver, rng: np.random.Generator) -> None:
        self.dut, self.driver, self.rng = dut, driver, rng
        self.comparison = Comparison("")

    def begin(self, name: str) -> None:
        self.comparison = Comparison(name)

    async def sent(self, n_bytes: int, gap: int) -> None:
        """Wait until the machine has taken the whole image, or for much longer than that takes."""
        self.dut.load_limit.value = FOREVER
        clocks = 2000 + 4 * n_bytes * 256 // (256 - gap)
        for _ in range(-(-clocks // POLL_CLOCKS)):
            await self.driver.clocks(POLL_CLOCKS)
            if int(self.dut.load_done.value):
                break
        self.comparison.value("image_taken", n_bytes, int(self.dut.load_taken.value))
        await self.driver.clocks(8)

    def status(self, load_error: int, network_hash: int) -> None:
        dut = self.dut
        self.comparison.value("load_error", load_error, int(dut.load_error.value))
        self.comparison.value("loaded", int(network_hash != 0), int(dut.loaded.value))
        self.comparison.value("hash_after_load", network_hash, int(dut.hash_now.value))

    async def run(self, resident: Resident, stimulus: Stimulus, *, bad: Words | None = None, **options: Any) -> None:
        """Stream samples, or with ``bad`` an ill-formed one and then well-formed ones, and compare every value."""
        driver, errors, words = self.driver, 0, resident.encoder.samples(stimulus)
        driver.network, driver.sidecar = resident.network, resident.sidecar
        if bad is not None:
            words = [bad, *words, *words]
            stimulus, errors = interpret(resident.encoder, resident.network, words)
        await driver.open(words, **options)
        hung = await driver.run(len(stimulus))
        recording = await driver.close()
        if bad is not None:
            recording = replace(recording, starts=recording.starts[-len(stimulus) :])
        self.check(resident, stimulus, recording, errors, hung=hung)

    def check(self, resident: Resident, stimulus: Stimulus, recording: Any, errors: int = 0, *, hung: bool) -> None:
        check_segment(
            self.comparison,
            resident.network,
            resident.sidecar,
            golden.run(resident.network, stimulus, early_exit=resident.sidecar.early_exit),
            recording,
            np.arange(len(stimulus)),
            protocol_error=errors,
            hung=hung,
        )

    async def overlap(self, resident: Resident, image: Path, expected_hash: int, gap: int) -> None:
        """Offer an image in the middle of a sample, which must be finished first, and no other begun."""
        driver, stimulus = self.driver, resident.stimulus.take([0])
        driver.network, driver.sidecar = resident.network, resident.sidecar
        words = resident.encoder.sample(stimulus, 0)
        await driver.open([words, words])
        # A sample of one word is inside when that word is, for as long as its decision waits.
        self.dut.stall.value = 256
        await driver.run_words(max(1, len(words) // 2))
        await self.driver.send_image(image, expected_hash, gap, limit=1)
        await driver.clocks(STALLED_CLOCKS)
        self.comparison.value("bytes_taken_inside_a_sample", 0, int(self.dut.load_taken.value))
        self.dut.stall.value = 0
        hung = await driver.run(1)
        # The machine clears what it remembers of its inputs after some samples: as long as it may stand still.
        for _ in range(0, int(self.dut.quiet_limit.value), STALLED_CLOCKS):
            await driver.clocks(STALLED_CLOCKS)
            if int(self.dut.load_taken.value):
                break
        self.comparison.value("bytes_taken_after_it", 1, int(self.dut.load_taken.value))
        self.comparison.value("words_of_the_sample", len(words), int(self.dut.words_sent.value))
        self.check(resident, stimulus, await driver.close(), hung=hung)

    async def refused(self, resident: Resident) -> None:
        """No word may go in and none may come out, with or without a reset."""
        words = resident.encoder.samples(resident.stimulus)
        self.driver.network, self.driver.sidecar = resident.network, resident.sidecar
        for reset_clocks in (0, 4):
            await self.driver.open(words, reset_clocks=reset_clocks)
            await self.driver.run_words(len(words[0]))
            recording = await self.driver.close()
            self.comparison.value("words_taken_without_network", 0, recording.status["words_sent"])
            self.comparison.value("words_given_without_network", 0, recording.status["beats"])
            self.comparison.value("hash_without_network", 0, recording.status["network_hash"])

    async def runs(self, resident: Resident, *, reset_clocks: int) -> None:
        """First after so many clocks of reset; then after a reset, shaken; and with each kind of ill-formed sample,
        unless the machine trusts its input."""
        stimulus, rng = resident.stimulus, self.rng
        await self.run(resident, stimulus, reset_clocks=reset_clocks)
        await self.run(resident, stimulus, gap=60, stall=120, seed=int(rng.integers(1, 1 << 31)))
        first = stimulus.take([0])
        if not resident.sidecar.input_checks:
            return
        for _, bad in violations(resident.encoder, first, resident.network.n_inputs, rng):
            await self.run(resident, first, bad=bad)


@cocotb.test()
async def loads(dut: Any) -> None:
    """Every step: send its image, compare the status, then run what must be in the machine."""
    path = Path(os.environ["CODESIGN_REQUEST"])
    document = json.loads(path.read_text(encoding="utf-8"))
    steps = document["steps"]
    resident = Resident(steps[0])
    driver = Driver(
        dut,
        path.parent,
        resident.network,
        resident.sidecar,
        document["quiet_limit"],
        path.parent / "progress_loads.txt",
    )
    session = Session(dut, driver, np.random.default_rng(document["seed"]))
    await driver.start()
    await driver.reset()
    results, first = [], None
    for step in steps:
        session.begin(step["name"])
        if step["image"] is not None:
            image, expected, gap = Path(step["image"]), int(step["expected_hash"], 16), step["gap"]
            if step["overlaps"]:
                await session.overlap(resident, image, expected, gap)
            else:
                # What the ports have counted of the network before must not be taken for this step's.
                await driver.reset()
                await driver.send_image(image, expected, gap)
            await session.sent(image.stat().st_size, gap)
            session.status(step["load_error"], int(step["network_hash"], 16))
        if step["network"] is None:
            await session.refused(resident)
        else:
            resident = Resident(step)
            # A good load leaves nothing of the sample that it waited for, a refused one everything.
            await session.runs(resident, reset_clocks=4 if step["overlaps"] and step["load_error"] else 0)
        comparison = session.comparison
        first = first or comparison.first
        results.append({"name": step["name"], "comparisons": comparison.counts, "mismatches": comparison.mismatches})
    mismatches = sum(result["mismatches"] for result in results)
    write_json(
        path.parent / "phase_loads.json",
        {
            "phase": "loads",
            "steps": results,
            "comparisons": merge_counts(result["comparisons"] for result in results),
            "mismatches": mismatches,
            "first_divergence": first.to_json() if first else None,
        },
    )
    assert mismatches == 0, f"{mismatches} values differ; first: {first}"
