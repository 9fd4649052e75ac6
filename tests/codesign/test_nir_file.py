"""Graphs of NIR files: order, names, nesting, linear nodes between populations, and what is refused."""

import os
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from nir_files import chain, lif, node, port, write_nir
from random_graphs import random_graph
from requirements import needs

from codesign.basics.errors import CodesignError, InputError
from codesign.cli import main
from codesign.contract import floating
from codesign.contract.golden import projection_matrices, weighted_sums
from codesign.contract.network import INPUT, Convolution, Synapses
from codesign.contract.stimulus import Stimulus
from codesign.interchange import hdf5
from codesign.interchange import nodes as node_reader
from codesign.interchange.facts import Asked, Facts
from codesign.interchange.nir_file import build, read_nir
from codesign.interchange.nodes import Graph, Node, same_neurons
from codesign.interchange.operators import Gain, applied, operator, path
from codesign.quantise.integers import quantise


@pytest.fixture(autouse=True)
def _read_in_this_process(request, monkeypatch):
    """A process for each of these files, which are whole, would take most of the time."""
    if "_apart" not in request.node.name:
        monkeypatch.setattr(node_reader, "read_tree", lambda file, absent="": hdf5.read_tree_here(file))


NORSE = {"dt": 1e-3, "reset": "zero"}


def read(file: Path, source: str = "norse", **facts):
    given = {"timesteps": 4, "readout": "spike_count", **(NORSE if source == "norse" else {}), **facts}
    return read_nir(file, source, Facts(**given))


def affine(rng, n_out: int, n_in: int) -> dict:
    return node("Affine", weight=rng.normal(size=(n_out, n_in)), bias=rng.normal(size=n_out))


def conv(rng, n_out: int, n_in: int, size: int = 3, **parameters) -> dict:
    given = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1, **parameters}
    weight = rng.normal(size=(n_out, n_in // given["groups"], size, size))
    return node("Conv2d", weight=weight, bias=rng.normal(size=n_out), **given)


def spikes(network, rng) -> list[np.ndarray]:
    stimulus = Stimulus.from_dense(rng.random((3, network.timesteps, network.n_inputs)) < 0.5)
    return floating.run(network, stimulus).spikes


def test_order_and_names_of_nodes_are_of_no_account(tmp_path):
    rng = np.random.default_rng(0)
    first, second = affine(rng, 5, 4), affine(rng, 3, 5)
    n = lif(5, tau=0.004), lif(3, tau=0.004)
    plain = chain(tmp_path / "a.nir", first, n[0], second, n[1], n_in=4, n_out=3)
    names = {
        "zz": port("Input", 4),
        "9": first,
        "a.b": n[0],
        "(x)": second,
        "end of $all": n[1],
        "aa": port("Output", 3),
    }
    edges = [("end of $all", "aa"), ("(x)", "end of $all"), ("9", "a.b"), ("a.b", "(x)"), ("zz", "9")]
    other = write_nir(tmp_path / "b.nir", names, edges)
    a, b = read(plain).network, read(other).network
    assert [layer.name for layer in b.layers] == ["a.b", "end of $all"]
    for one, two in zip(a.layers, b.layers, strict=True):
        assert all(np.array_equal(values, two.terms[name]) for name, values in one.terms.items())
        assert np.array_equal(one.projections[0].connections.weights, two.projections[0].connections.weights)


def test_a_graph_within_a_graph_is_the_graph_without_it(tmp_path):
    rng = np.random.default_rng(1)
    first, back, last = affine(rng, 5, 4), affine(rng, 5, 5), affine(rng, 3, 5)
    one, two = lif(5, tau=0.004), lif(3, tau=0.004)
    ends = {"input": port("Input", 4), "output": port("Output", 3), "fc": first, "out": last, "lif2": two}
    flat = write_nir(
        tmp_path / "flat.nir",
        {**ends, "lif1": one, "rec": back},
        [
            ("input", "fc"),
            ("fc", "lif1"),
            ("rec", "lif1"),
            ("lif1", "rec"),
            ("lif1", "out"),
            ("out", "lif2"),
            ("lif2", "output"),
        ],
    )
    inner = {
        "type": "NIRGraph",
        "nodes": {"input": port("Input", 5), "lif1": one, "rec": back, "output": port("Output", 5)},
        "edges": [("input", "lif1"), ("lif1", "rec"), ("rec", "lif1"), ("lif1", "output")],
    }
    nested = write_nir(
        tmp_path / "nested.nir",
        {**ends, "hidden": inner},
        [("input", "fc"), ("fc", "hidden"), ("hidden", "out"), ("out", "lif2"), ("lif2", "output")],
    )
    a, b = read(flat).network, read(nested).network
    assert [layer.name for layer in b.layers] == ["hidden/lif1", "lif2"]
    assert [projection.source for projection in b.layers[0].projections] == [INPUT, 0]
    for x, y in zip(spikes(a, np.random.default_rng(2)), spikes(b, np.random.default_rng(2)), strict=True):
        assert np.array_equal(x, y)
    # The recurrent bias is there at every timestep, the first too.
    np.testing.assert_allclose(b.layers[0].bias, (first["bias"] + back["bias"]) / 4)


def test_several_ways_to_a_population_are_its_projections(tmp_path):
    rng = np.random.default_rng(3)
    a, b, skip = affine(rng, 4, 3), affine(rng, 2, 4), affine(rng, 2, 3)
    file = write_nir(
        tmp_path / "skip.nir",
        {
            "input": port("Input", 3), "a": a, "lif": lif(4, tau=0.004), "b": b, "skip": skip,
            "scale": node("Scale", scale=np.array([2.0, 0.5])), "out": lif(2, tau=0.004), "output": port("Output", 2),
        },
        [("input", "a"), ("a", "lif"), ("lif", "b"), ("b", "scale"), ("input", "skip"),
         ("skip", "scale"), ("scale", "out"), ("out", "output")],
    )  # fmt: skip
    layer = read(file).network.layers[1]
    assert [projection.source for projection in layer.projections] == [INPUT, 0]
    np.testing.assert_allclose(layer.projections[0].connections.dense(), skip["weight"].T * [2, 0.5] / 4)
    np.testing.assert_allclose(layer.projections[1].connections.dense(), b["weight"].T * [2, 0.5] / 4)
    np.testing.assert_allclose(layer.bias, (b["bias"] + skip["bias"]) * [2, 0.5] / 4)


def test_layers_without_a_neuron_between_them_are_multiplied_out(tmp_path):
    rng = np.random.default_rng(12)
    first, second = affine(rng, 6, 4), affine(rng, 3, 6)
    found = read(chain(tmp_path / "w.nir", first, second, lif(3, tau=0.004), n_in=4, n_out=3))
    (layer,) = found.network.layers
    np.testing.assert_allclose(layer.projections[0].connections.dense(), (second["weight"] @ first["weight"]).T / 4)
    np.testing.assert_allclose(layer.bias, (second["weight"] @ first["bias"] + second["bias"]) / 4)
    assert any("multiplied out into 12 single synapses" in line for line in found.findings.supported)


def test_pools_and_convolutions_stay_what_they_are(tmp_path):
    rng = np.random.default_rng(4)
    pool = {"kernel_size": [2, 2], "stride": [2, 2], "padding": [0, 0]}
    neurons = lif((3, 8, 8), tau=0.004), lif((2, 2, 2), tau=0.004), lif(4, tau=0.004)
    file = chain(
        tmp_path / "conv.nir",
        conv(rng, 3, 2, padding=[1, 1]), neurons[0], node("SumPool2d", **pool), conv(rng, 2, 3, 2, stride=[2, 2]),
        neurons[1], node("AvgPool2d", **pool), node("Flatten", start_dim=0, end_dim=-1, input_type=[2, 1, 1]),
        affine(rng, 4, 2), neurons[2], n_in=(2, 8, 8), n_out=4,
    )  # fmt: skip
    layers = read(file).network.layers
    assert [type(layer.projections[0].connections) for layer in layers] == [Convolution, Convolution, Synapses]
    assert [layer.projections[0].pool is not None for layer in layers] == [False, True, True]
    assert [layer.shape for layer in layers] == [(3, 8, 8), (2, 2, 2), None]
    # The average's quarter is in the weights, and so is the gain dt / tau.
    drawn = np.random.default_rng(4)
    conv(drawn, 3, 2), conv(drawn, 2, 3, 2)
    np.testing.assert_allclose(layers[2].projections[0].connections.dense(), affine(drawn, 4, 2)["weight"].T / 16)


def test_a_picture_that_is_flattened_before_a_neuron_is_read(tmp_path):
    rng = np.random.default_rng(14)
    pool = node("SumPool2d", kernel_size=[2, 2], stride=[2, 2], padding=[0, 0])
    flatten = node("Flatten", start_dim=0, end_dim=-1)
    nodes = conv(rng, 2, 1), flatten, lif(32, tau=0.004), affine(rng, 3, 32), lif(3, tau=0.004)
    layer = read(chain(tmp_path / "a.nir", *nodes, n_in=(1, 6, 6), n_out=3)).network.layers[0]
    assert layer.shape == (2, 4, 4) and isinstance(layer.projections[0].connections, Convolution)
    nodes = pool, flatten, lif(9, tau=0.004)
    layer = read(chain(tmp_path / "b.nir", *nodes, n_in=(1, 6, 6), n_out=9)).network.layers[0]
    assert layer.shape == (1, 3, 3) and layer.projections[0].pool is not None and layer.projections[0].fixed


def random_operator(rng) -> tuple[Node, tuple[int, ...], dict]:
    """A Conv1d, Conv2d or pool of any stride, padding, dilation and groups that fits its picture."""
    while True:
        kind = str(rng.choice(["Conv1d", "Conv2d", "AvgPool2d", "SumPool2d"]))
        axes = 1 if kind == "Conv1d" else 2
        size, kernel = rng.integers(1, 9, axes), rng.integers(1, 4, axes)
        stride, padding, dilation = rng.integers(1, 4, axes), rng.integers(0, 4, axes), rng.integers(1, 3, axes)
        groups = int(rng.choice([1, 1, 2]))
        if kind.endswith("Pool2d"):
            padding, dilation, groups = padding * 0, dilation * 0 + 1, 1
        if np.any(size + 2 * padding - dilation * (kernel - 1) - 1 < 0):
            continue
        n_in, n_out = groups * int(rng.integers(1, 3)), groups * int(rng.integers(1, 3))
        given = {"stride": stride, "padding": padding}
        if kind.endswith("Pool2d"):
            given |= {"kernel_size": kernel}
        else:
            given |= {"weight": rng.normal(size=(n_out, n_in // groups, *kernel)), "bias": rng.normal(size=n_out)}
            given |= {"dilation": dilation, "groups": np.array(groups)}
        parameters = {name: np.asarray(value, float) for name, value in given.items()}
        return Node("x", kind, parameters), (n_in, *map(int, size)), given


@pytest.mark.parametrize("seed", range(40))
def test_convolutions_and_pools_are_those_of_torch(seed):
    import torch
    from torch.nn import functional

    rng = np.random.default_rng(seed)
    found, shape, given = random_operator(rng)
    signal = rng.normal(size=shape)
    tensor = torch.tensor(signal)[None]
    if found.type.endswith("Pool2d"):
        kernel, stride = tuple(map(int, given["kernel_size"])), tuple(map(int, given["stride"]))
        want = functional.avg_pool2d(tensor, kernel, stride)[0].numpy()
        want = want * (np.prod(kernel) if found.type == "SumPool2d" else 1)
    else:
        convolve = functional.conv1d if found.type == "Conv1d" else functional.conv2d
        options = {name: tuple(map(int, given[name])) for name in ("stride", "padding", "dilation")}
        weight, bias = torch.tensor(given["weight"]), torch.tensor(given["bias"])
        want = convolve(tensor, weight, bias, groups=int(given["groups"]), **options)[0].numpy()
    made = operator(found, shape)
    got = applied(made.stages, signal.reshape(-1)) + (0 if made.bias is None else made.bias)
    np.testing.assert_allclose(got, want.reshape(-1), atol=1e-12)
    assert np.prod(made.shape) == want.size
    # As one projection with a gain of its own for each neuron it is the same.
    gain = rng.uniform(0.5, 2, want.size) if seed % 2 else np.full(want.size, 3.0)
    whole = path(made.stages, shape if len(shape) == 3 else (shape[0], 1, shape[1]), gain, True, "x")
    stages = (*(() if whole.pool is None else (whole.pool,)), whole.connections)
    bias = 0 if made.bias is None else made.bias
    np.testing.assert_allclose(applied(stages, signal.reshape(-1)) / gain + bias, want.reshape(-1), atol=1e-12)


# What differs by axis, or is not plain, of a convolution of 2 channels on 5 x 7 and of a pool.
UNLIKE: dict[str, dict[str, Any]] = {
    "kernel": {"kernel": (2, 3)},
    "stride": {"stride": [1, 2]},
    "stride along": {"stride": [3, 1], "kernel": (1, 3)},
    "padding": {"padding": [0, 2]},
    "padding along": {"padding": [2, 1], "kernel": (3, 2)},
    "dilation": {"dilation": [1, 2]},
    "dilation along": {"dilation": [2, 1]},
    "groups": {"groups": 2},
    "all": {"kernel": (2, 3), "stride": [2, 1], "padding": [1, 2], "dilation": [3, 1], "groups": 2},
    "pool": {"kernel_size": [2, 1], "stride": [2, 1], "padding": [0, 0]},
    "pool's stride": {"kernel_size": [2, 2], "stride": [1, 3], "padding": [0, 0]},
}


@pytest.mark.parametrize("name", UNLIKE)
def test_a_node_that_differs_by_axis_is_the_dense_matrix_of_torch(name, tmp_path):
    """The network of the file equals the one whose file has torch's outputs of single inputs as weights."""
    import torch
    from torch.nn import functional

    rng = np.random.default_rng(13)
    shape, given = (2, 5, 7), {"stride": [1, 1], "padding": [0, 0], **UNLIKE[name]}
    ones = torch.eye(70, dtype=torch.float64).reshape(70, *shape)
    if "kernel_size" in given:
        layer = node("SumPool2d", **given)
        kernel = tuple(given["kernel_size"])
        outputs = functional.avg_pool2d(ones, kernel, tuple(given["stride"])) * float(np.prod(kernel))
    else:
        given = {"dilation": [1, 1], "groups": 1, **given}
        kernel = given.pop("kernel", (3, 3))
        weight = rng.normal(size=(4, 2 // given["groups"], *kernel))
        layer = node("Conv2d", weight=weight, bias=np.zeros(4), **given)
        options = {key: tuple(given[key]) for key in ("stride", "padding", "dilation")}
        outputs = functional.conv2d(ones, torch.tensor(weight), groups=given["groups"], **options)
    matrix, out = outputs.reshape(70, -1).numpy(), tuple(outputs.shape[1:])
    found = read(chain(tmp_path / "a.nir", layer, lif(out, tau=0.004), n_in=shape, n_out=out)).network
    dense = node("Linear", weight=matrix.T)
    want = read(chain(tmp_path / "b.nir", dense, lif(len(matrix.T), tau=0.004), n_in=70, n_out=len(matrix.T))).network
    assert found.layers[0].shape == out and found.n_inputs == want.n_inputs
    (one,), (two,) = (spikes(network, np.random.default_rng(5)) for network in (found, want))
    # Sums in another order may round to the other side of a threshold.
    assert two.any() and np.mean(one != two) < 0.001
    (got,) = (projection_matrices(projection, 1) for projection in found.layers[0].projections)
    np.testing.assert_allclose(weighted_sums(np.eye(70), got), matrix / 4, atol=1e-12)


def test_a_constant_goes_through_what_follows():
    stages = (Synapses.from_dense(np.array([[1.0, 2.0], [0.0, 3.0]]), np.float64), Gain(np.array([1.0, 10.0])))
    assert applied(stages, np.array([1.0, 1.0])).tolist() == [1.0, 50.0]


def test_an_output_without_a_neuron_is_a_weighted_sum(tmp_path):
    rng = np.random.default_rng(5)
    first, last = affine(rng, 5, 4), affine(rng, 3, 5)
    file = chain(tmp_path / "sum.nir", first, lif(5, tau=0.004), last, n_in=4, n_out=3)
    with pytest.raises(InputError, match="membrane_last, membrane_sum, membrane_max"):
        read(file)
    network = read(file, readout="membrane_sum").network
    stimulus = Stimulus.from_dense(rng.random((2, 4, 4)) < 0.5)
    trace = floating.run(network, stimulus)
    want = (trace.spikes[0] @ last["weight"].T + last["bias"]).sum(axis=1)
    np.testing.assert_allclose(trace.values, want)


def test_a_readout_of_membranes_needs_a_neuron_that_is_not_reset(tmp_path):
    rng = np.random.default_rng(6)
    nodes = affine(rng, 5, 4), lif(5, tau=0.004), affine(rng, 3, 5), lif(3, tau=0.004)
    file = chain(tmp_path / "m.nir", *nodes, n_in=4, n_out=3)
    with pytest.raises(InputError, match="--reset 3=none"):
        read(file, readout="membrane_last")
    assert read(file, readout="membrane_last", resets={"3": "none"}).network.layers[1].reset == "none"
    leaky = chain(
        tmp_path / "li.nir", *nodes[:3], node("LI", tau=[4e-3] * 3, r=[1] * 3, v_leak=[0] * 3), n_in=4, n_out=3
    )
    assert read(leaky, readout="membrane_max").network.layers[1].decay.tolist() == [0.75] * 3


def test_what_leads_nowhere_is_left_out_and_listed(tmp_path):
    rng = np.random.default_rng(7)
    nodes = {
        "input": port("Input", 2),
        "a": affine(rng, 2, 2),
        "n": lif(2, tau=0.004),
        "side": affine(rng, 5, 2),
        "output": port("Output", 2),
    }
    edges = [("input", "a"), ("a", "n"), ("n", "output"), ("n", "side"), ("input", "a")]
    found = read(write_nir(tmp_path / "x.nir", nodes, edges)).findings
    assert [(change.where, change.text) for change in found.changed] == [
        ("side", "leads to no output and is left out"),
        ("graph", "1 edges are listed twice and count once"),
    ]


def test_files_of_the_nir_package_are_read(tmp_path):
    import nir

    rng = np.random.default_rng(8)
    one = np.ones(4)
    graph = nir.NIRGraph.from_list(
        nir.Conv2d((6, 6), rng.normal(size=(2, 1, 3, 3)), 2, "valid", 1, 1, rng.normal(size=2)),
        nir.Flatten({"input": np.array([2, 2, 2])}, 0, -1),
        nir.Affine(rng.normal(size=(4, 8)), rng.normal(size=4)),
        nir.CubaLIF(2e-3 * one, 4e-3 * one, one, 0 * one, one),
    )
    nir.write(tmp_path / "g.nir", graph)
    network = read(tmp_path / "g.nir", "raw", dt=1e-3, integrator="euler", reset=None).network
    assert network.n_inputs == 36 and network.layers[0].current_decay is not None
    np.testing.assert_allclose(network.layers[0].current_decay, 0.5)


# What is wrong ---------------------------------------------------------------------------------------


def good(rng) -> tuple[dict, list]:
    nodes = {
        "input": port("Input", 4), "fc": affine(rng, 3, 4), "n": lif(3, tau=0.004), "output": port("Output", 3),
    }  # fmt: skip
    return nodes, [("input", "fc"), ("fc", "n"), ("n", "output")]


def changed(name: str, **parameters):
    """A defect that replaces parameters of a node."""

    def apply(nodes, edges):
        nodes[name] = {**nodes[name], **parameters}

    return apply


def without(name: str, parameter: str | None = None):
    def apply(nodes, edges):
        if parameter is None:
            del nodes[name]
        else:
            del nodes[name][parameter]

    return apply


def with_edges(*more: tuple[str, str]):
    return lambda nodes, edges: edges.extend(more)


def with_node(name: str, given: dict, *edges: tuple[str, str]):
    def apply(nodes, present):
        nodes[name] = given
        present.extend(edges)

    return apply


def full(value) -> np.ndarray:
    return np.full(3, value, np.float32)


POOL = {"kernel_size": [2, 2], "stride": [2, 2], "padding": [0, 0]}
LIF = ("tau", "r", "v_threshold", "v_leak")
LI = {"tau": full(0.1), "r": full(1), "v_leak": full(0)}
INNER = {"type": "NIRGraph", "nodes": {"i": port("Input", 3)}, "edges": [("i", "i")]}
# Name: defect, exit code, what the line says.
DEFECTS = {
    "a node that is missing": (without("fc"), 2, "names 'fc', which is no node"),
    "an edge to nowhere": (with_edges(("n", "ghost")), 2, "names 'ghost'"),
    "no input": (without("input"), 2, "names 'input'"),
    "no edges to the output": (lambda nodes, edges: edges.pop(), 2, "nothing leads from the input to the output"),
    "no edges at all": (lambda nodes, edges: edges.clear(), 2, "nothing leads"),
    "two outputs": (with_node("more", port("Output", 3), ("n", "more")), 3, "2 Output nodes"),
    "an edge back into the input": (with_edges(("n", "input")), 3, "n -> input: an edge into the input"),
    "an infinite time constant": (changed("n", tau=full(np.inf), r=full(np.inf)), 2, "n: tau is infinite: no leak"),
    "a circle without a neuron": (
        with_node("back", node("Linear", weight=np.ones((4, 3))), ("fc", "back"), ("back", "fc")),
        2, "circle without a neuron",
    ),
    "a circle through two populations": (
        with_node("m", lif(3, tau=0.004), ("n", "m"), ("m", "n")), 3, "recurrence through several populations",
    ),
    "weights transposed": (changed("fc", weight=np.ones((4, 3)), bias=np.ones(4)), 2, "is it transposed?"),
    "a bias of another length": (changed("fc", bias=np.ones(7)), 2, "bias has the shape (7,)"),
    "weights with one axis": (changed("fc", weight=np.ones(12)), 2, "expected (outputs, inputs)"),
    "weights without entries": (changed("fc", weight=np.ones((0, 4))), 2, "(0, 4)"),
    "NaN among the weights": (changed("fc", weight=np.full((3, 4), np.nan)), 2, "fc: weight holds NaN"),
    "an infinite bias": (changed("fc", bias=np.full(3, np.inf)), 2, "fc: bias holds NaN or infinite"),
    "NaN for tau": (changed("n", tau=full(np.nan)), 2, "n: tau holds NaN"),
    "tau of zero": (changed("n", tau=full(0)), 2, "n: tau is 0"),
    "negative tau": (changed("n", tau=full(-1)), 2, "n: tau is -1"),
    "tau below the timestep": (changed("n", tau=full(1e-4)), 2, "shorter than the timestep"),
    "negative threshold": (changed("n", v_threshold=full(-1)), 2, "is -1, expected a positive value"),
    "r of zero": (changed("n", r=full(0)), 2, "n: r is 0"),
    "mixed shapes": (changed("n", r=np.ones(2)), 2, "parameters of different shapes"),
    "another number of neurons": (changed("n", **dict.fromkeys(LIF, np.ones(5))), 2, "of shape (5,)"),
    "no tau": (without("n", "tau"), 2, "LIF without 'tau'"),
    "a type that is not known": (changed("n", type="Izhikevich"), 3, "'Izhikevich' are not read"),
    "no type": (without("fc", "type"), 2, "fc: has no type"),
    "a group in place of a data set": (changed("fc", weight={"type": "x"}), 2, "weight is a group"),
    "text in place of numbers": (changed("fc", weight="heavy"), 2, "weight is text"),
    "an input of no size": (changed("input", shape=np.array([0])), 2, "is no shape of an input"),
    "an input of a batch": (changed("input", shape=np.array([256, 4])), 2, "the graph gives it (256, 4)"),
    "an output of another size": (changed("output", shape=np.array([8])), 2, "output: shape is (8,)"),
    "a pool without a picture": (
        with_node("p", node("SumPool2d", **POOL), ("input", "p"), ("p", "fc")), 2, "takes a picture",
    ),
    "a delay": (with_node("d", node("Delay", delay=np.ones(3)), ("fc", "d"), ("d", "n")), 3, "'Delay' are not read"),
    "values sent between neurons": (
        with_node("li", node("LI", **LI), ("fc", "li"), ("li", "n")), 3, "sends values, not spikes",
    ),
    "a graph within without an output": (
        with_node("g", INNER, ("fc", "g"), ("g", "n")), 2, "0 Output nodes",
    ),
    "another root": (None, 2, "expected NIRGraph"),
}  # fmt: skip


@pytest.mark.parametrize("name", DEFECTS)
def test_a_graph_that_is_wrong_is_refused_in_one_line(name, tmp_path, capsys):
    defect, code, line = DEFECTS[name]
    nodes, edges = good(np.random.default_rng(9))
    if defect is not None:
        defect(nodes, edges)
    groups = {key: dict(value) for key, value in nodes.items()}
    file = write_nir(tmp_path / "x.nir", groups, edges) if "group" not in name else _with_group(tmp_path, groups, edges)
    if defect is None:
        with h5py.File(file, "a") as opened:
            del opened["node/type"]
            opened["node/type"] = "Affine"
    assert import_exits(file, tmp_path / "run", capsys) == (code, True)
    with pytest.raises(CodesignError, match=re.escape(line)):
        read(file)
    assert not (tmp_path / "run").exists()


def _with_group(folder: Path, nodes: dict, edges: list) -> Path:
    weight = nodes["fc"].pop("weight")
    file = write_nir(folder / "x.nir", nodes, edges)
    with h5py.File(file, "a") as opened:
        opened.create_group("node/nodes/fc/weight").attrs["was"] = str(weight)
    return file


def import_exits(file: Path, run: Path, capsys, *more: str) -> tuple[int, bool]:
    """Exit code of an import, and whether it said one line on stderr and nothing of a traceback."""
    options = ["--source", "norse", "--dt", "1e-3", "--reset", "zero", "--readout", "spike_count", "--timesteps", "4"]
    code = main(["import", str(file), *options, *more, "-o", str(run)])
    said = capsys.readouterr().err.splitlines()
    assert "Traceback" not in "".join(said)
    return code, len(said) == 1 and said[0].startswith("codesign: ")


def _bytes(file: Path) -> dict[str, bytes]:
    whole = file.read_bytes()
    return {
        "cut in half": whole[: len(whole) // 2],
        "cut in its header": whole[:40],
        "empty": b"",
        "no HDF5": b"PK\x03\x04" + whole[4:],
        "text": b"node = lif\n" * 40,
        "another superblock": whole[:8] + b"\xff" * 8 + whole[16:],
        "zeros behind the header": whole[:96] + bytes(len(whole) - 96),
    }


@pytest.mark.parametrize("name", list(_bytes(Path(__file__))))
def test_a_file_that_is_damaged_is_read_apart_and_refused_in_one_line(name, tmp_path, capsys):
    nodes, edges = good(np.random.default_rng(10))
    file = write_nir(tmp_path / "x.nir", nodes, edges)
    file.write_bytes(_bytes(file)[name])
    assert import_exits(file, tmp_path / "run", capsys) == (2, True)


def _huge(opened: h5py.File) -> None:
    opened.create_dataset("node/nodes/fc/weight", shape=(1 << 20, 1 << 20), dtype="f4", chunks=(64, 64))


def _bomb(opened: h5py.File) -> None:
    opened.create_dataset("node/nodes/fc/weight", shape=(1 << 14, 1 << 12), dtype="f4", chunks=(64, 64))


def _chunk(opened: h5py.File) -> None:
    opened.create_dataset(
        "node/nodes/fc/weight", shape=(3, 4), maxshape=(None, None), dtype="f4", chunks=(1 << 14, 1 << 13)
    )


def _outside(opened: h5py.File) -> None:
    opened["node/nodes/fc/weight"] = h5py.ExternalLink("other.h5", "/x")


def _soft(opened: h5py.File) -> None:
    opened["node/nodes/fc/weight"] = h5py.SoftLink("/node/nodes/fc/bias")


def _round(opened: h5py.File) -> None:
    opened["node/nodes/fc/self"] = opened["node/nodes/fc"]


def _records(opened: h5py.File) -> None:
    opened.create_dataset("node/nodes/fc/weight", data=np.zeros(3, np.dtype([("a", "f4"), ("b", "i4")])))


def _long_name(opened: h5py.File) -> None:
    opened["node/nodes/fc/" + "w" * 400] = 1.0


def _crowd(opened: h5py.File) -> None:
    for index in range(hdf5.MAX_OBJECTS + 1):
        opened.create_group(f"node/nodes/fc/g{index}")


HOSTILE = {
    "huge dimensions": (_huge, "beyond 1073741824 bytes"),
    "what was never written": (_bomb, "made to fill memory"),
    "a huge chunk": (_chunk, "chunks of"),
    "a link to another file": (_outside, "is a link"),
    "a link within the file": (_soft, "is a link"),
    "a group in itself": (_round, "nested deeper"),
    "records": (_records, "expected numbers or text"),
    "a name without end": (_long_name, "a name of 400 letters"),
    "objects without end": (_crowd, "more than"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_was_made_to_hurt_is_refused_before_anything_is_allocated(name, tmp_path, capsys, monkeypatch):
    make, line = HOSTILE[name]
    monkeypatch.setattr(hdf5, "MAX_OBJECTS", 200)
    nodes, edges = good(np.random.default_rng(11))
    file = write_nir(tmp_path / "x.nir", nodes, edges)
    with h5py.File(file, "a") as opened:
        del opened["node/nodes/fc/weight"]
        make(opened)
    with pytest.raises(InputError, match=re.escape(line)):
        read(file)
    assert import_exits(file, tmp_path / "run", capsys) == (2, True)


def test_numbers_of_a_byte_count_as_the_floats_that_they_become(tmp_path, monkeypatch):
    nodes, edges = good(np.random.default_rng(11))
    nodes |= {"input": port("Input", 40), "fc": node("Linear", weight=np.ones((3, 40), np.uint8))}
    file = write_nir(tmp_path / "x.nir", nodes, edges)
    monkeypatch.setattr(hdf5, "MAX_BYTES", 8 * (3 * 40 + 4 * 3 + 2))
    read(file)
    monkeypatch.setattr(hdf5, "MAX_BYTES", hdf5.MAX_BYTES - 1)
    with pytest.raises(InputError, match=r"x\.nir: its 134 numbers take 1072 bytes as floats, the limit is 1071"):
        read(file)


def test_a_file_in_which_the_library_does_not_end_is_damaged_and_read_apart(tmp_path, monkeypatch):
    nodes, edges = good(np.random.default_rng(12))
    file = write_nir(tmp_path / "x.nir", nodes, edges)
    with monkeypatch.context() as patched:
        patched.setattr(hdf5, "WALL_FACTOR", 0.001)
        with pytest.raises(InputError, match="the HDF5 library comes to no end in it"):
            hdf5.read_tree(file)
    assert list(hdf5.read_tree(file)["node"]["nodes"]) == sorted(nodes)


def test_a_file_that_takes_too_long_is_not_called_damaged(tmp_path):
    file = write_nir(tmp_path / "x.nir", *good(np.random.default_rng(12)))
    with pytest.raises(InputError, match=r"x\.nir: takes more than 0 s of processor time .* too many groups"):
        hdf5.read_tree_here(file, 0)


def pictured(given: dict, *shape: int):
    """A node between an input of that shape and what follows."""

    def apply(nodes, edges):
        nodes["input"], nodes["p"] = port("Input", *shape), given
        edges[:] = [("input", "p"), ("p", "fc"), ("fc", "n"), ("n", "output")]

    return apply


def wide(height: int, stride: int = 1, dilation: int = 1) -> dict:
    weight = np.ones((1, 1, height, 1), np.float32)
    both = {"stride": [stride, 1], "dilation": [dilation, 1], "padding": [0, 0]}
    return node("Conv2d", weight=weight, bias=np.zeros(1), groups=1, **both)


GROWING = {
    "an input of more than a network has": (
        changed("input", shape=np.array([1 << 30, 1 << 30])), 2, "more than 1048576 inputs",
    ),
    "an input of many axes": (changed("input", shape=np.ones(40, np.int64)), 2, "more than 1048576 inputs"),
    "parameters that make a huge array together": (
        changed("n", tau=np.ones((1, 1 << 15)), r=np.ones((1 << 15, 1)), v_leak=np.zeros(1), v_threshold=np.ones(1)),
        2, "of more than 1048576 neurons",
    ),
    "windows that overlap": (
        pictured(node("SumPool2d", kernel_size=[500, 500], stride=[1, 1], padding=[0, 0]), 1, 1000, 1000),
        3, "multiplied out",
    ),
    "a dilation without end": (pictured(wide(2, dilation=1 << 19), 1, 1 << 20, 1), 2, "larger than any"),
    "a kernel as large as its picture": (pictured(wide(30000), 1, 60000, 1), 2, "larger than any"),
    "padding without end": (
        pictured({**wide(1), "padding": [1 << 19, 0]}, 1, 2, 2), 2, "neurons, the limit is",
    ),
    "a stride of millions": (changed("fc", type="Conv2d", stride=np.array([1 << 40])), 2, "Conv2d without"),
}  # fmt: skip


@pytest.mark.parametrize("block", range(4))
def test_random_graphs_are_networks_or_one_line(block):
    made = 0
    for seed in range(150 * block, 150 * block + 150):
        rng = np.random.default_rng(seed)
        graph = random_graph(rng)
        readout = ("spike_count", "membrane_last")[int(rng.integers(2))]
        facts = Facts(dt=0.5, integrator="euler", timesteps=4, readout=readout, reset=("zero", "none")[seed % 2])
        try:
            network = build(graph, "raw", Asked(facts)).network
        except CodesignError as error:
            assert "\n" not in str(error)
            continue
        spikes(network, rng)
        quantise(network)
        made += 1
    assert made > 20


@pytest.mark.parametrize("name", GROWING)
def test_what_would_grow_beyond_a_network_is_refused_before_it_is_made(name, tmp_path):
    import tracemalloc

    defect, code, line = GROWING[name]
    nodes, edges = good(np.random.default_rng(13))
    defect(nodes, edges)
    file = write_nir(tmp_path / "x.nir", nodes, edges)
    tracemalloc.start()
    try:
        with pytest.raises(CodesignError, match=re.escape(line)) as found:
            read(file)
        assert tracemalloc.get_traced_memory()[1] < 300 << 20
    finally:
        tracemalloc.stop()
    assert found.value.exit_code == code


def test_texts_that_all_point_to_one_long_text_are_not_multiplied(tmp_path):
    with h5py.File(tmp_path / "x.nir", "w") as opened:
        opened.create_dataset(
            "node/edges", data=np.full((200, 2), "x" * 20000, dtype=object), dtype=h5py.string_dtype()
        )
    with pytest.raises(InputError, match="the limit is 200"):
        hdf5.read_tree_here(tmp_path / "x.nir")


def turned(height: int, width: int) -> dict:
    """A convolution that leaves the size as it is and says that its input is of this one."""
    both = {name: np.full(2, value) for name, value in (("stride", 1.0), ("padding", 1.0), ("dilation", 1.0))}
    weight = np.ones((2, 2, 3, 3))
    return {
        "weight": weight,
        "bias": np.zeros(2),
        "groups": np.ones(1),
        "input_shape": np.array([height, width]),
        **both,
    }


# Name: type and parameters of what follows the input, its shape, what the line says.
TURNED = {
    "a convolution's input": ("Conv2d", turned(8, 4), (2, 4, 8), "input_shape is (8, 4), the graph gives it (4, 8)"),
    "a line that was a column": ("Conv2d", turned(32, 1), (2, 1, 32), "input_shape is (32, 1)"),
    "thresholds": (
        "IF", {"r": np.full(1, 1e3), "v_threshold": np.ones((2, 8, 4))}, (2, 4, 8),
        "of shape (2, 8, 4), the graph gives it (2, 4, 8)",
    ),
    "factors": ("Scale", {"scale": np.ones((8, 4, 2))}, (2, 4, 8), "scale has the shape (8, 4, 2)"),
    "a graph within": ("Input", {"shape": np.array([2, 8, 4])}, (2, 4, 8), "shape is (2, 8, 4), the graph gives it"),
}  # fmt: skip


@pytest.mark.parametrize("name", TURNED)
def test_a_picture_that_is_turned_on_the_way_is_refused(name):
    kind, parameters, shape, line = TURNED[name]
    nodes = {
        "input": Node("input", "Input", {"shape": np.array(shape)}),
        "g/x": Node("g/x", kind, parameters),
        "n": Node("n", "IF", {"r": np.full(1, 1e3), "v_threshold": np.ones(1)}),
        "output": Node("output", "Output", {"shape": np.array([64])}),
    }
    edges = (("input", "g/x"), ("g/x", "n"), ("n", "output"))
    with pytest.raises(InputError, match=re.escape(line)):
        build(Graph(nodes, edges), "raw", Asked(Facts(timesteps=4, readout="spike_count", dt=1e-3)))


def test_shapes_of_the_same_neurons():
    alike = [((64,), (2, 4, 8)), ((1, 64), (2, 4, 8)), ((1, 2, 4, 8), (2, 4, 8)), ((3, 1, 7), (3, 7)), ((), (1, 1))]
    other = [((4, 16), (2, 4, 8)), ((64, 1, 1), (1, 8, 8)), ((2, 1, 32), (2, 32, 1)), ((63,), (64,)), ((), (2,))]
    assert all(same_neurons(a, b) and same_neurons(b, a) for a, b in alike)
    assert not any(same_neurons(a, b) or same_neurons(b, a) for a, b in other)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_line_of_one_channel_is_no_batch_of_one(channels, tmp_path):
    line = {"stride": [1], "padding": [0], "dilation": [1], "groups": 1}
    first = node("Conv1d", weight=np.ones((1, channels, 3)), bias=np.zeros(1), input_shape=10, **line)
    second = node("Conv1d", weight=np.ones((2, 1, 3)), bias=np.zeros(2), input_shape=8, **line)
    file = chain(tmp_path / "n.nir", first, lif((1, 8)), second, lif((2, 6)), n_in=(channels, 10), n_out=(2, 6))
    layers = read(file).network.layers
    assert [layer.n_out for layer in layers] == [8, 12] and layers[0].projections[0].source_shape == (channels, 1, 10)


# Files of others -------------------------------------------------------------------------------------

MALFORMED = {
    "NIR__Braille_snntorch__3049cfa1": "not an HDF5 file",
    "NIR__braille__a7c67c3a": "CubaLIF without 'w_in'",
    "NIR__braille__c381ba29": "CubaLIF without 'w_in'",
    "NIR__braille_flattened__19004303": "CubaLIF without 'w_in'",
    "NIR__braille_subgraph__77b4a802": "CubaLIF without 'w_in'",
    "NIR__braille_v2__50b2fc28": "CubaLIF without 'w_in'",
    "NIR__braille_zero_subgraph__c5db44fe": "names 'lif', which is no node",
    # Read where it is unambiguous: parameters of mixed shapes, a batch of one, convolutions without input shape.
    "NIR__lif_norse__2b0feb3d": None,
    "NIR__lif_norse__3a3afb6f": None,
    "NIR__scnn_mnist__669fbfad": None,
}


@needs("nir")
def test_malformed_files_of_others_are_read_where_unambiguous_and_refused_in_one_line_elsewhere(tmp_path, capsys):
    folder = Path(os.environ["CODESIGN_DATA"]) / "nir/malformed"
    assert {file.stem for file in folder.iterdir()} == set(MALFORMED)
    for name, line in MALFORMED.items():
        facts = {"timesteps": 4, "readout": "spike_count", "reset": "zero", "dt": 1e-4}
        source = "norse"
        if name.startswith("NIR__scnn"):
            source, facts = "sinabs", {**facts, "dt": None, "reset": "subtract", "spikes": "one"}
        if line is None:
            network = read_nir(folder / f"{name}.nir", source, Facts(**facts)).network
            assert network.n_inputs in (1, 1000, 2 * 34 * 34)
            continue
        with pytest.raises(InputError, match=line):
            read_nir(folder / f"{name}.nir", source, Facts(**facts))
        assert import_exits(folder / f"{name}.nir", tmp_path / "run", capsys) == (2, True)


@needs("nir")
def test_the_scnn_without_shapes_is_the_one_with_them_but_for_its_weights():
    folder = Path(os.environ["CODESIGN_DATA"]) / "nir"
    facts = Facts(timesteps=4, readout="spike_count", reset="subtract", spikes="one")
    old = read_nir(folder / "malformed/NIR__scnn_mnist__669fbfad.nir", "sinabs", facts).network
    new = read_nir(folder / "cnn_sinabs.nir", "sinabs", facts).network
    assert [layer.shape for layer in old.layers] == [layer.shape for layer in new.layers]


@needs("nir")
def test_braille_is_the_same_network_flat_and_nested():
    folder = Path(os.environ["CODESIGN_DATA"]) / "nir"
    facts = Facts(timesteps=4, readout="spike_count", reset="zero")
    flat, nested = (
        read_nir(folder / name, "snntorch", facts).network
        for name in ("braille_zero_snntorch.nir", "braille_zero_subgraph.nir")
    )
    for a, b in zip(flat.layers, nested.layers, strict=True):
        assert a.terms.keys() == b.terms.keys() and all(
            np.array_equal(a.terms[name], b.terms[name]) for name in a.terms
        )
        assert [p.source for p in a.projections] == [p.source for p in b.projections]
        for p, q in zip(a.projections, b.projections, strict=True):
            assert np.array_equal(p.connections.dense(), q.connections.dense())
    assert flat.layers[0].current_decay is not None and flat.layers[0].refractory == 1
    assert len(flat.layers[0].projections) == 2
