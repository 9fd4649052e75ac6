"""What each framework means by a neuron: literal trajectories, and the traces that others stored."""

import os
from pathlib import Path

import numpy as np
import pytest
from nir_files import chain, lif, node, port, write_nir
from requirements import needs

from codesign.basics.errors import InputError, UnsupportedError
from codesign.contract import floating
from codesign.contract.floating import FloatLayer
from codesign.contract.floating.run import lif_steps
from codesign.contract.stimulus import Stimulus
from codesign.interchange import hdf5
from codesign.interchange import nodes as node_reader
from codesign.interchange.facts import Facts
from codesign.interchange.measure import LAGS, overlaps
from codesign.interchange.nir_file import read_nir
from codesign.interchange.sources import NEURONS


@pytest.fixture(autouse=True)
def _read_in_this_process(monkeypatch):
    """A process for each of these files, which are whole, would take most of the time."""
    monkeypatch.setattr(node_reader, "read_tree", lambda file, absent="": hdf5.read_tree_here(file))


INPUTS = [0.6, 0.6, 0.6, 0, 0, 1.5, 0, 0]
EXPORT = 1e-4


def neuron(path: Path, source: str, given: dict, **facts) -> FloatLayer:
    facts = {"timesteps": 8, "readout": "spike_count", **facts}
    return read_nir(chain(path / "n.nir", given), source, Facts(**facts)).network.layers[0]


def trajectory(layer: FloatLayer, inputs=INPUTS) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Spikes, stored membranes and potentials of one neuron whose input arrives through one synapse."""
    sums = np.array(inputs, float) * layer.projections[0].connections.weights[0]
    fired, v, u, _ = lif_steps(layer, sums[None, :, None])
    return fired[0, :, 0].tolist(), v[0, :, 0], u[0, :, 0]


def snn_lif(beta: float, threshold: float = 1.0) -> dict:
    """A LIF node as snnTorch's exporter writes it, in float32."""
    tau = EXPORT / (1 - np.float32(beta))
    return lif(tau=tau, r=tau / EXPORT, threshold=threshold)


def snn_cuba(alpha: float, beta: float, n: int = 1) -> dict:
    tau, syn = EXPORT / (1 - beta), EXPORT / (1 - alpha)
    values = {"tau_mem": tau, "tau_syn": syn, "r": tau / EXPORT, "w_in": syn / EXPORT, "v_leak": 0, "v_threshold": 1}
    return node("CubaLIF", **{name: np.full(n, value, np.float32) for name, value in values.items()})


def test_snntorch_resets_a_timestep_late_and_undecayed_by_default(tmp_path):
    layer = neuron(tmp_path, "snntorch", snn_lif(0.5), reset="subtract")
    spikes, v, _ = trajectory(layer)
    assert spikes == [0, 0, 1, 0, 0, 1, 0, 0]
    np.testing.assert_allclose(v, [0.6, 0.9, 1.05, -0.475, -0.2375, 1.38125, -0.309375, -0.1546875], atol=1e-6)
    assert layer.reset_delay and layer.compare == ">" and layer.decay[0] == 0.5


def test_snntorch_without_delay_resets_at_the_spike(tmp_path):
    spikes, v, _ = trajectory(neuron(tmp_path, "snntorch", snn_lif(0.5), reset="subtract", reset_delay=False))
    assert spikes == [0, 0, 1, 0, 0, 1, 0, 0]
    np.testing.assert_allclose(v, [0.6, 0.9, 0.05, 0.025, 0.0125, 0.50625, 0.253125, 0.1265625], atol=1e-6)


def test_snntorch_does_not_fire_at_the_threshold(tmp_path):
    layer = neuron(tmp_path, "snntorch", snn_lif(0.5), reset="zero")
    assert trajectory(layer, [1, 0.5, 0.25])[0] == [0, 0, 0]
    assert trajectory(neuron(tmp_path, "snntorch", snn_lif(0.5), reset="zero", compare=">="), [1, 0])[0] == [1, 0]


def test_norse_is_eulers_and_resets_hard(tmp_path):
    layer = neuron(tmp_path, "norse", lif(tau=0.002, threshold=1.0), dt=1e-3, reset="value")
    spikes, v, _ = trajectory(layer, [2 * x for x in INPUTS])
    assert spikes == [0, 0, 1, 0, 0, 1, 0, 0]
    np.testing.assert_allclose(v, [0.6, 0.9, 0, 0, 0, 0, 0, 0], atol=1e-6)
    # At the threshold it does not fire; these numbers are exact in float32.
    exact = neuron(tmp_path, "norse", lif(tau=2.0**-9), dt=2.0**-10, reset="value")
    assert trajectory(exact, [2, 0])[0] == [0, 0] and trajectory(exact, [2.01, 0])[0] == [1, 0]
    soft = neuron(tmp_path, "norse", lif(tau=0.002), dt=1e-3, reset="subtract")
    np.testing.assert_allclose(trajectory(soft, [1.2, 1.2, 1.2, 0])[1], [0.6, 0.9, 0.05, 0.025], atol=1e-6)


def test_norse_counts_from_its_leak_where_its_membrane_starts(tmp_path):
    rest = {**lif(tau=0.002, threshold=1.5, leak=0.5), "v_reset": np.full(1, 0.25, np.float32)}
    layer = neuron(tmp_path, "norse", rest, dt=1e-3, reset="value")
    # By hand, of v itself: 0.5, then v + 0.5 * (0.5 - v + I).
    own, spikes = [], []
    v = 0.5
    for current in (0.8, 0.8, 1.6, 1.6, 0.0):
        v = v + 0.5 * (0.5 - v + current)
        spikes.append(int(v > 1.5))
        v = 0.25 if v > 1.5 else v
        own.append(v)
    found, stored, _ = trajectory(layer, [0.8, 0.8, 1.6, 1.6, 0.0])
    assert found == spikes == [0, 0, 1, 0, 0]
    np.testing.assert_allclose(stored + 0.5, own, atol=1e-6)


def test_sinabs_decays_exponentially_and_fires_at_the_threshold(tmp_path):
    half = lif(tau=1 / np.log(2))
    layer = neuron(tmp_path, "sinabs", half, reset="subtract", norm_input=False, spikes="one")
    spikes, v, _ = trajectory(layer)
    assert spikes == [0, 0, 1, 0, 0, 1, 0, 0]
    np.testing.assert_allclose(v, [0.6, 0.9, 0.05, 0.025, 0.0125, 0.50625, 0.253125, 0.1265625], atol=1e-6)
    normed = neuron(tmp_path, "sinabs", half, reset="subtract", norm_input=True, spikes="one")
    np.testing.assert_allclose(
        trajectory(normed)[2], [0.3, 0.45, 0.525, 0.2625, 0.13125, 0.815625, 0.4078125, 0.2039], atol=1e-4
    )
    integrates = node("IF", r=np.ones(1, np.float32), v_threshold=np.ones(1, np.float32))
    assert trajectory(neuron(tmp_path, "sinabs", integrates, reset="subtract", spikes="one"), [0.5, 0.5, 0.5])[0] == [
        0,
        1,
        0,
    ]


def test_sinabs_may_fire_several_times_in_a_timestep(tmp_path):
    integrates = node("IF", r=np.ones(1, np.float32), v_threshold=np.ones(1, np.float32))
    layer = neuron(tmp_path, "sinabs", integrates, reset="subtract", spikes="several")
    sums = np.array([[0.5], [2.75], [0.0], [1.0]])[None]
    assert lif_steps(layer, sums, several=True)[0][0, :, 0].tolist() == [0, 3, 0, 1]
    assert lif_steps(layer, sums)[0][0, :, 0].tolist() == [0, 1, 1, 1]


def test_spikingjelly_decays_its_input_or_not(tmp_path):
    decayed = lif(tau=2 * EXPORT, r=1)
    layer = neuron(tmp_path, "spikingjelly", decayed, reset="zero", dt=EXPORT)
    spikes, v, _ = trajectory(layer, [2, 1, 1.5, 0])
    # v + (x - v) / 2, and v == threshold fires.
    assert spikes == [1, 0, 1, 0]
    np.testing.assert_allclose(v, [0, 0.5, 0, 0], atol=1e-6)
    # Without decay_input r = tau, from which the timestep follows: v - v / 2 + x.
    layer = neuron(tmp_path, "spikingjelly", lif(tau=2 * EXPORT, r=2), reset="subtract")
    np.testing.assert_allclose(trajectory(layer, [0.5, 0.5, 0.5, 0])[2], [0.5, 0.75, 0.875, 0.4375], atol=1e-6)
    integrates = node("IF", r=np.full(1, 1e4), v_threshold=np.ones(1), v_reset=np.zeros(1))
    assert trajectory(neuron(tmp_path, "spikingjelly", integrates, reset="zero"), [0.5, 0.5, 0.7])[0] == [0, 1, 0]


def test_rockpool_decays_its_input_with_the_current_and_gives_its_timestep_in_r(tmp_path):
    dt, tau = 1e-3, 1e-3 / np.log(2)
    r = tau * np.exp(-dt / tau) / dt
    values = {"tau_mem": tau, "tau_syn": tau, "r": r, "w_in": 1, "v_leak": 0, "v_threshold": 1}
    given = node("CubaLIF", **{name: np.full(1, value, np.float32) for name, value in values.items()})
    layer = neuron(tmp_path, "rockpool", given, spikes="one")
    spikes, v, _ = trajectory(layer, [1, 0, 1.5, 0, 0])
    # i: .5 .25 .875 .4375 .21875; v = v / 2 + i, less 1 where it reaches 1.
    assert spikes == [0, 0, 1, 0, 0]
    np.testing.assert_allclose(v, [0.5, 0.5, 0.125, 0.5, 0.46875], atol=1e-5)


def test_rockpool_says_what_its_exporter_drops_and_a_timestep_that_the_file_contradicts(tmp_path):
    values = {"tau_mem": 2e-3, "tau_syn": 2e-3, "r": 2 * np.exp(-0.5), "w_in": 1, "v_leak": 0, "v_threshold": 1}
    cuba = {name: np.full(2, value, np.float32) for name, value in values.items()}
    mixed = {**cuba, "r": cuba["r"] * np.array([1, 2], np.float32)}
    for given, dt, line in (
        (cuba, None, None), (cuba, 1e-3, None), (cuba, 5e-4, "--dt 0.0005 is taken, r in the file says 0.001"),
        (mixed, 1e-3, "--dt 0.001 is taken, r in the file says another for each neuron"),
    ):  # fmt: skip
        file = chain(tmp_path / "n.nir", node("CubaLIF", **given), n_in=2, n_out=2)
        found = read_nir(file, "rockpool", Facts(timesteps=4, readout="spike_count", spikes="one", dt=dt)).findings
        assert any("recurrent weights of a LIFTorch" in said for said in found.supported)
        assert [said for said in found.supported if "--dt" in said] == ([f"0: {line}"] if line else [])


def test_raw_takes_nirs_equations_with_the_integrator_that_is_asked_for(tmp_path):
    given = lif(tau=0.002)
    euler = neuron(tmp_path, "raw", given, dt=1e-3, integrator="euler")
    assert (round(euler.decay[0], 6), euler.reset, euler.compare) == (0.5, "zero", ">")
    exact = neuron(tmp_path, "raw", given, dt=1e-3, integrator="exponential")
    np.testing.assert_allclose(exact.decay, np.exp(-0.5), rtol=1e-6)
    np.testing.assert_allclose(exact.projections[0].connections.weights, 1 - np.exp(-0.5), rtol=1e-6)


FACTS = {
    "snntorch": [(snn_lif(0.5), {}, "--reset subtract|zero|none"), (lif(tau=0.002), {"reset": "zero"}, "--dt")],
    "norse": [(lif(tau=0.002), {"reset": "value"}, "--dt"), (lif(tau=0.002), {"dt": 1e-3}, "--reset value|")],
    "sinabs": [
        (lif(tau=4), {"reset": "zero", "spikes": "one"}, "--norm-input"),
        (lif(tau=4), {"norm_input": True, "reset": "zero"}, "--spikes one"),
        (lif(tau=4), {"norm_input": True, "spikes": "one"}, "--reset subtract|"),
        (lif(tau=0.004), {"norm_input": True, "spikes": "one", "reset": "zero"}, "--dt"),
    ],
    "spikingjelly": [(lif(tau=2e-4), {"reset": "zero"}, "--dt"), (lif(tau=2e-4, r=2), {}, "--reset value|")],
    "rockpool": [(lif(tau=2e-3, r=1.2), {}, "--spikes one"), (lif(2, tau=[2e-3, 5e-3], r=1.2), {}, "--dt")],
    "raw": [(lif(), {}, "--dt"), (lif(), {"dt": 0.1}, "--integrator euler|exponential")],
}


@pytest.mark.parametrize(("source", "case"), [(name, case) for name, cases in FACTS.items() for case in cases])
def test_a_fact_that_nothing_says_is_an_error_that_names_the_option(source, case, tmp_path):
    given, facts, option = case
    n = len(np.atleast_1d(given["tau"]))
    path = chain(tmp_path / "n.nir", given, n_in=n, n_out=n)
    with pytest.raises(InputError) as found:
        read_nir(path, source, Facts(timesteps=4, readout="spike_count", **facts))
    assert "add " in str(found.value) and option in str(found.value)


@pytest.mark.parametrize("source", sorted(NEURONS))
def test_timesteps_and_readout_are_asked_for(source, tmp_path):
    given = {
        "snntorch": (snn_lif(0.5), {"reset": "zero"}),
        "norse": (lif(tau=0.002), {"reset": "zero", "dt": 1e-3}),
        "sinabs": (lif(tau=2), {"reset": "zero", "norm_input": True, "spikes": "one"}),
        "spikingjelly": (lif(tau=0.002), {"reset": "zero", "dt": 1e-3}),
        "rockpool": (lif(tau=0.002, r=1.2), {"spikes": "one"}),
        "raw": (lif(), {"dt": 0.1, "integrator": "euler"}),
    }[source]
    path = chain(tmp_path / "n.nir", given[0])
    for facts, option in (({"timesteps": 4}, "--readout spike_count"), ({"readout": "spike_count"}, "--timesteps N")):
        with pytest.raises(InputError, match="add") as found:
            read_nir(path, source, Facts(**given[1], **facts))
        assert option in str(found.value)


def test_an_option_that_means_nothing_to_a_source_is_refused(tmp_path):
    path = chain(tmp_path / "n.nir", snn_lif(0.5))
    with pytest.raises(InputError, match="--norm-input means nothing to --source snntorch"):
        read_nir(path, "snntorch", Facts(timesteps=4, readout="spike_count", reset="zero", norm_input=True))
    with pytest.raises(InputError, match="snnTorch has no reset 'value'"):
        read_nir(path, "snntorch", Facts(timesteps=4, readout="spike_count", reset="value"))


@pytest.mark.parametrize("late", [True, False])
def test_a_delay_is_refused_where_no_reset_has_one(late, tmp_path):
    raw = {"dt": 0.1, "integrator": "euler"}
    cases = [("snntorch", snn_lif(0.5), kind, {}) for kind in ("zero", "none")]
    cases += [("snntorch", snn_cuba(0.6, 0.8), "none", {}), ("raw", lif(), "value", raw), ("raw", lif(), None, raw)]
    for source, given, reset, facts in cases:
        with pytest.raises(InputError, match=f"--reset-delay means nothing to --source {source}, or"):
            neuron(tmp_path, source, given, reset=reset, reset_delay=late, **facts)
    assert neuron(tmp_path, "raw", lif(), reset="subtract", reset_delay=late, **raw).reset_delay == late


def test_what_a_source_never_writes_is_refused(tmp_path):
    facts = Facts(timesteps=4, readout="spike_count", reset="zero")
    for given in (node("IF", r=np.ones(1), v_threshold=np.ones(1)), {**snn_lif(0.5), "v_leak": np.ones(1)}):
        with pytest.raises(UnsupportedError, match="snnTorch"):
            read_nir(chain(tmp_path / "n.nir", given), "snntorch", facts)


# snnTorch itself -----------------------------------------------------------------------------------


@needs("snntorch")
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("delay", [True, False])
@pytest.mark.parametrize("kind", ["Leaky", "Synaptic"])
def test_snntorchs_own_neurons_give_the_same_spikes(kind, delay, reset, tmp_path):
    import snntorch
    import torch

    rng = np.random.default_rng(3)
    # Inputs that keep membranes below twice the threshold, above which a reset without delay is another.
    inputs = rng.uniform(-0.4, 0.7, 200)
    options = {"reset_mechanism": reset, "reset_delay": delay}
    if kind == "Leaky":
        given, module = snn_lif(0.8), snntorch.Leaky(beta=0.8, **options)
        state: tuple = (module.reset_mem(),)
    else:
        inputs = inputs / 2.5
        given, module = snn_cuba(0.6, 0.8), snntorch.Synaptic(alpha=0.6, beta=0.8, **options)
        state = module.reset_mem()
    matters = reset == "subtract" or (kind, reset) == ("Synaptic", "zero")
    layer = neuron(tmp_path, "snntorch", given, reset=reset, reset_delay=delay if matters else None)
    want, membranes = [], []
    with torch.no_grad():
        for x in inputs:
            spike, *state = module(torch.tensor([x], dtype=torch.float64), *state)
            want.append(int(spike.item()))
            membranes.append(state[-1].item())
    found, v, u = trajectory(layer, inputs)
    assert 5 < sum(want) < 195 and found == want
    if reset != "zero":
        # Its own shows what a reset to zero clears only at the next update.
        np.testing.assert_allclose(v if reset == "subtract" else u, membranes, atol=1e-3)


@needs("snntorch")
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_snntorchs_recurrent_network_gives_the_same_spikes(reset, tmp_path):
    import snntorch
    import torch

    torch.manual_seed(0)
    module = snntorch.RSynaptic(alpha=0.6, beta=0.8, linear_features=6, reset_mechanism=reset)
    linear = torch.nn.Linear(7, 6)
    inputs = torch.rand(80, 7).round()
    weights = {"weight": linear.weight, "bias": linear.bias}
    back = {"weight": module.recurrent.weight, "bias": module.recurrent.bias}
    inner = {
        "type": "NIRGraph",
        "nodes": {
            "input": port("Input", 6), "lif": snn_cuba(0.6, 0.8, 6), "output": port("Output", 6),
            "w_rec": node("Affine", **{name: value.detach().numpy() for name, value in back.items()}),
        },
        "edges": [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")],
    }  # fmt: skip
    affine = node("Affine", **{name: value.detach().numpy() * 1.5 for name, value in weights.items()})
    nodes = {"input": port("Input", 7), "fc": affine, "hidden": inner, "output": port("Output", 6)}
    file = write_nir(tmp_path / "r.nir", nodes, [("input", "fc"), ("fc", "hidden"), ("hidden", "output")])
    facts = Facts(timesteps=80, readout="spike_count", reset=reset)
    network = read_nir(file, "snntorch", facts).network
    found = floating.run(network, Stimulus.from_dense(inputs.numpy()[None].astype(bool)))
    spike, synapse, membrane = (torch.zeros(6) for _ in range(3))
    want = []
    with torch.no_grad():
        for x in inputs:
            spike, synapse, membrane = module(linear(x) * 1.5, spike, synapse, membrane)
            want.append(spike.numpy().copy())
    assert 20 < np.sum(want) < 460 and np.array_equal(found.spikes[0][0], want)


# Traces that others stored ---------------------------------------------------------------------------

TRACES = {
    "norse": ("norse", {"dt": EXPORT, "reset": "value"}, 0),
    "snntorch": ("snntorch", {"dt": EXPORT, "reset": "zero"}, 0),
    "sinabs": ("sinabs", {"dt": EXPORT, "reset": "subtract", "norm_input": False, "spikes": "one"}, 0),
    "nengo": ("raw", {"dt": EXPORT, "integrator": "euler"}, 0),
    "exact": ("raw", {"dt": EXPORT, "integrator": "exponential"}, 0),
    "spyx": ("raw", {"dt": EXPORT, "integrator": "euler"}, 1),
}


@needs("nir")
@pytest.mark.parametrize("name", sorted(TRACES))
def test_the_stored_traces_are_given_spike_for_spike(name):
    source, facts, lag = TRACES[name]
    folder = Path(os.environ["CODESIGN_DATA"]) / "nir"
    read = read_nir(folder / "lif_norse.nir", source, Facts(timesteps=1000, readout="spike_count", **facts))
    inputs, membranes, want = np.loadtxt(folder / f"traces/lif_{name}.csv", delimiter=",", unpack=True)
    spikes, v, _ = trajectory(read.network.layers[0], inputs)
    assert sum(spikes) == 4
    assert spikes[: len(spikes) - lag] == want[lag:].astype(int).tolist()
    if name == "norse":
        np.testing.assert_allclose(v, membranes, atol=1e-7)
    # The lag is found.
    rows = overlaps(np.array(spikes, bool)[None, :, None], (want > 0)[None, :, None])
    assert rows[LAGS.index(lag), 0] == 4
