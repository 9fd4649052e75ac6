"""lava-dl's integer networks: the same arithmetic, and one line for what is wrong or not built."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from codesign.basics.errors import CodesignError, InputError
from codesign.contract import golden
from codesign.contract.stimulus import Stimulus
from codesign.interchange import hdf5, lava
from codesign.interchange.facts import Facts
from codesign.interchange.lava import read_net

FACTS = Facts(timesteps=12, readout="spike_count")
NEURON = {"type": "LOIHI", "iDecay": 4096, "vDecay": 1024, "vThMant": 25, "refDelay": 1, "wgtExp": 0}


@pytest.fixture(autouse=True)
def _read_in_this_process(monkeypatch):
    monkeypatch.setattr(lava, "read_tree", lambda file, absent="": hdf5.read_tree_here(file))


def write(path: Path, *layers: dict[str, Any], inputs: Any = (6,)) -> Path:
    with h5py.File(path, "w") as file:
        file["layer/0/type"], file["layer/0/shape"] = np.array([b"input"]), np.array(inputs)
        for index, layer in enumerate(layers, 1):
            for name, value in layer.items():
                if name == "neuron":
                    for key, number in value.items():
                        file[f"layer/{index}/neuron/{key}"] = number
                else:
                    file[f"layer/{index}/{name}"] = np.array([value.encode()]) if isinstance(value, str) else value
    return path


def dense(weight: np.ndarray, neuron: dict | None = None, **more: Any) -> dict[str, Any]:
    given = {"type": "dense", "weight": weight.astype(np.float32), "neuron": {**NEURON, **(neuron or {})}}
    return {**given, **more}


def loihi(x: np.ndarray, weight: np.ndarray, bias: int, neuron: dict) -> np.ndarray:
    """Spikes (T, n) of Loihi's equations with products rounded downwards, one neuron and timestep at a time."""
    fired = np.zeros((len(x), len(weight)), bool)
    for j, row in enumerate(weight):
        i = v = 0
        for t, events in enumerate(x):
            i = (i * (4096 - neuron["iDecay"]) >> 12) + (int(row @ events) << (6 + neuron["wgtExp"]))
            v = (v * (4096 - neuron["vDecay"]) >> 12) + i + (bias << 6)
            fired[t, j] = v > neuron["vThMant"] << 6
            v = 0 if fired[t, j] else v
    return fired


@pytest.mark.parametrize("seed", range(8))
def test_a_dense_layer_is_loihis(seed, tmp_path):
    rng = np.random.default_rng(seed)
    neuron = {**NEURON, "vDecay": int(rng.integers(0, 4097)), "wgtExp": int(rng.integers(0, 3))}
    neuron |= {"vThMant": int(rng.integers(5, 80)) << neuron["wgtExp"]}
    bias = int(rng.integers(-20, 40))
    if seed % 2:
        neuron |= {"iDecay": int(rng.integers(0, 4096))}
        bias = 0
    weight = rng.integers(-40, 60, (4, 6))
    file = write(tmp_path / "x.net", dense(weight, neuron, bias=np.full(4, bias, np.float32)))
    network = read_net(file, FACTS).network
    x = rng.integers(0, 2, (12, 6))
    trace = golden.run(network, Stimulus.from_dense(x[None]))
    assert np.array_equal(trace.spikes[0][0], loihi(x, weight, bias, neuron)) and trace.saturations.sum() == 0
    assert trace.spikes[0].any() or seed in (3, 5)


def test_even_weights_beyond_a_byte_are_halved_without_loss(tmp_path):
    weight = np.array([[254, -252, 2, 0, 0, 100]])
    layer = read_net(write(tmp_path / "x.net", dense(weight)), FACTS).network.layers[0]
    assert np.array_equal(layer.dense().T << (layer.fraction_bits - 6), weight)


def test_strides_and_padding_may_differ_by_axis(tmp_path):
    rng = np.random.default_rng(1)
    weight = rng.integers(-5, 6, (3, 2, 3, 3, 1))
    given = {
        "type": "conv", "weight": weight.astype(np.float32), "neuron": NEURON, "stride": [2, 1], "padding": [0, 1],
        "shape": [3, 2, 5],
    }  # fmt: skip
    network = read_net(write(tmp_path / "x.net", given, inputs=(2, 5, 5)), FACTS).network
    x = rng.integers(0, 2, (2, 5, 5))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1)))
    want = [
        int((weight[o, :, :, :, 0] * padded[:, 2 * r : 2 * r + 3, c : c + 3]).sum())
        for o in range(3) for r in range(2) for c in range(5)
    ]  # fmt: skip
    events = np.zeros((1, 12, 50), bool)
    events[0, 0] = x.reshape(-1)
    trace = golden.run(network, Stimulus.from_dense(events))
    stored = np.where(np.array(want) > 25, 0, np.array(want) << 6)
    assert np.array_equal(trace.membranes[0][0, 0], stored) and network.layers[0].shape == (3, 2, 5)


W = np.ones((2, 6), np.float32)
NO_THRESHOLD = {name: value for name, value in NEURON.items() if name != "vThMant"}
WRONG = {
    "no layers": ([], {}, 2, "no layer with neurons"),
    "a kind of layer": ([{"type": "average"}], {}, 3, "'average' are not read"),
    "a kind of neuron": ([dense(W, {"type": "SDNN"})], {}, 3, "type 'SDNN' is not read"),
    "no neuron": ([{"type": "dense", "weight": W}], {}, 2, "no group 'neuron'"),
    "weights that are no integers": ([dense(W * 0.5)], {}, 2, "weight holds 0.5"),
    "weights of NaN": ([dense(W * np.nan)], {}, 2, "weight holds NaN"),
    "odd weights beyond a byte": ([dense(W * 129)], {}, 3, "a weight of 129 needs more than 8 bits"),
    "weights of another size": ([dense(np.ones((2, 7)))], {}, 2, "takes 7 inputs"),
    "a bias of another size": ([dense(W, bias=np.ones(5))], {}, 2, "bias has the shape (5,)"),
    "a decay out of range": ([dense(W, {"vDecay": 5000})], {}, 2, "vDecay = 5000"),
    "a negative decay": ([dense(W, {"iDecay": -1})], {}, 2, "iDecay = -1"),
    "an exponent out of range": ([dense(W, {"wgtExp": 99})], {}, 2, "wgtExp = 99"),
    "a refractory period": ([dense(W, {"refDelay": 3})], {}, 3, "refDelay 3: lava-dl's own reader passes over it"),
    "delays": ([dense(W, delay=np.ones((2, 6)))], {}, 3, "delays"),
    "a bias beside a current": ([dense(W, {"iDecay": 100}, bias=np.ones(2))], {}, 3, "a bias of the membrane"),
    "a shape that is not that of the weights": ([dense(W, shape=[3])], {}, 2, "shape is (3,)"),
    "a threshold below 0": ([dense(W, {"vThMant": -3})], {}, 2, "vThMant = -3 is outside 0..131071"),
    "no threshold": ([{**dense(W), "neuron": NO_THRESHOLD}], {}, 2, "vThMant is missing"),
    "a membrane readout": ([dense(W)], {"readout": "membrane_sum"}, 2, "--readout spike_count"),
    "no readout": ([dense(W)], {"readout": None}, 2, "add --readout"),
    "no timesteps": ([dense(W)], {"timesteps": None}, 2, "add --timesteps"),
    "a timestep": ([dense(W)], {"dt": 1.0}, 2, "--dt means nothing"),
    "a reset": ([dense(W)], {"reset": "zero"}, 2, "--reset means nothing"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_or_not_built_is_one_line(name, tmp_path):
    layers, facts, code, line = WRONG[name]
    file = write(tmp_path / "x.net", *layers)
    with pytest.raises(CodesignError) as found:
        read_net(file, Facts(**{"timesteps": 12, "readout": "spike_count", **facts}))
    assert found.value.exit_code == code and line in str(found.value) and str(file) in str(found.value)


def test_numbers_of_a_byte_count_as_the_floats_that_they_become(tmp_path, monkeypatch):
    given = {**dense(W), "weight": np.ones((20, 6), np.int8)}
    monkeypatch.setattr(hdf5, "MAX_BYTES", 800)
    with pytest.raises(InputError, match=r"x\.net: its 126 numbers take 1008 bytes as floats, the limit is 800"):
        read_net(write(tmp_path / "x.net", given), FACTS)


def test_layers_are_numbered_without_a_gap(tmp_path):
    file = write(tmp_path / "x.net", dense(W))
    with h5py.File(file, "a") as opened:
        opened.move("layer/1", "layer/7")
    with pytest.raises(InputError, match=r"expected 0\.\.1"):
        read_net(file, FACTS)
