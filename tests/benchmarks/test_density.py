"""The density benchmark: exact nested masks, figures of a verified design, and a rise is found."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.density import FIGURES, draw, masked_weights, measure_density, rises, table
from codesign.contract.stimulus import Stimulus


def test_a_sparser_network_is_a_part_of_a_denser_one():
    dense, sparse = masked_weights(0.2), masked_weights(0.05)
    for many, few in zip(dense, sparse, strict=True):
        assert np.count_nonzero(many) == round(0.2 * many.size) and np.count_nonzero(few) == round(0.05 * few.size)
        assert np.array_equal(few[few != 0], many[few != 0])


def rows(**last: float) -> list[dict[str, float | None]]:
    figures = dict.fromkeys((*FIGURES, "ff", "synapses"), 100)
    both = {"fmax_mhz": None, "latency_us": 1.5}
    return [{**figures, **both, "density": 1.0}, {**figures, **both, "density": 0.5, "lut": 90, **last}]


def test_a_rise_beyond_the_noise_is_named():
    assert rises(rows()) == [] == rises(rows(lut=101))
    assert rises(rows(bram=110)) == ["bram rises from 100 to 110 as density falls to 0.5"]


def test_table_and_plot(tmp_path: Path):
    assert table(rows()).splitlines()[2].split(" | ")[2:4] == ["100", "100"]
    draw(rows(), tmp_path / "density.png")
    assert (tmp_path / "density.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.hardware
def test_a_density_is_measured_on_verified_hardware(tmp_path: Path):
    random = np.random.default_rng(1)
    values = random.integers(0, 16, (2, 784)) * (random.random((2, 784)) < 0.2)
    found = measure_density(
        0.02, Stimulus(784, 8, np.full(2, -1, np.int32), values=values.astype(np.uint8)), tmp_path, place=False
    )
    assert found["synapses"] == round(0.02 * 784 * 128) + round(0.02 * 1280)
    assert found["memory_bits"] == sum(found["memory_bits_by_role"].values()) > 0
    assert found["latency_cycles"] > 0 and found["lut"] is None
