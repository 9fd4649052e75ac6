"""Load images: they hold the network, padding changes nothing, and what does not fit is refused in one line."""

from __future__ import annotations

import shutil
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import small_bundle, small_network
from loadable import ROOM, random_machine, samples_of, small_machine, small_variant, variant

from codesign.basics.errors import CapacityError, CodesignError, InputError, UnsupportedError
from codesign.contract import golden
from codesign.contract.network import FrozenLayer, FrozenNetwork, InputCoding, Leak, signed_width
from codesign.contract.sidecar import Sidecar, read_sidecar, write_sidecar
from codesign.contract.stimulus import Stimulus
from codesign.machine.capacity import Capacity, CapacityOptions, plan_capacity, stored_thresholds
from codesign.machine.load import compile_load
from codesign.machine.mapping import LOADABLE, map_network
from rtl_templates.bundle import write_bundle
from sim.bundle import unpack
from sim.decoder import compare_decoded


@pytest.fixture(scope="module", params=["current", "events"])
def machine(request, tmp_path_factory) -> tuple[Path, list[FrozenNetwork], Sidecar]:
    folder = tmp_path_factory.mktemp(request.param) / "b"
    networks, sidecar = small_machine(folder, request.param)
    return folder, networks, sidecar


def parts(image: bytes, sidecar: Sidecar) -> tuple[dict[str, int], dict[str, list[int]]]:
    """Registers by name and memories by image, read from a load image as docs/machine.md describes it."""
    load = sidecar.load
    assert load is not None and len(image) == load.image_bytes
    assert image[:4] == load.magic.encode()
    assert int.from_bytes(image[4:12], "little") == int(load.layout, 16)
    assert int.from_bytes(image[12:20], "little") == int(sidecar.network_hash[:16], 16)
    assert zlib.crc32(image[:-4]) == int.from_bytes(image[-4:], "little")
    bits = max(field.offset + field.width for field in load.registers)
    place = 20 + -(-bits // 8)
    word = int.from_bytes(image[20:place], "little")
    registers = {field.name: (word >> field.offset) & ((1 << field.width) - 1) for field in load.registers}
    memories, shapes = {}, {memory.image: memory for memory in sidecar.images}
    for name in load.memories:
        size, depth = -(-shapes[name].width // 8), shapes[name].depth
        memories[name] = [
            int.from_bytes(image[place + size * k : place + size * (k + 1)], "little") for k in range(depth)
        ]
        place += size * depth
    assert place == len(image) - 4 and set(memories) == set(shapes)
    return registers, memories


def whole_machine(network: FrozenNetwork, image: bytes, sidecar: Sidecar) -> FrozenNetwork:
    """Everything that the image puts into the machine, every slot a neuron of its hardware index, as a network."""
    registers, memories = parts(image, sidecar)
    layers = []
    for entry, frozen in zip(sidecar.layers, network.layers, strict=True):
        tables: dict[tuple[str, int, int], dict[str, np.ndarray]] = {
            (memory.role, memory.lane, memory.stream): unpack(memories[memory.image], memory)
            for memory in entry.memories
        }
        streams = sidecar.event_streams
        lanes, n_slots = entry.lanes, entry.n_slots
        step = 1 << (lanes - 1).bit_length()
        weights = np.zeros((streams * tables["rows", 0, 0]["start"].size, n_slots * step), np.int64)
        constants = {name: np.full(n_slots * step, default) for name, default in (("threshold", 1), ("bias", 0))}
        for lane in range(lanes):
            shared, of = (0, f"{lane}") if entry.lockstep else (lane, "")
            for stream in range(streams):
                rows, synapses = tables["rows", shared, stream], tables["synapses", shared, stream]
                for address, (start, count) in enumerate(zip(rows["start"], rows["count"], strict=True)):
                    for k in range(start, start + count):
                        target = synapses[f"slot{of}"][k] * step + lane
                        weights[address * streams + stream, target] += synapses[f"weight{of}"][k]
            for name, values in tables["parameters", lane, 0].items():
                constants.setdefault(name, np.zeros(n_slots * step, np.int64))[lane::step] = values
        if layers and len(weights) > layers[-1].n_out:
            # A memory has two words or more, also behind a single neuron.
            assert not weights[layers[-1].n_out :].any()
            weights = weights[: layers[-1].n_out]
        clip = registers.get(f"clip{entry.index}")
        width = entry.membrane_width
        leaks = {
            field: replace(
                leak, **{name: constants.get(f"{field}_{name}", getattr(leak, name)) for name in leak.numbers}
            )
            for field, leak in frozen.leaks.items()
        }
        layers.append(
            FrozenLayer.from_dense(
                weights,
                threshold=constants["threshold"],
                bias=constants["bias"],
                **leaks,
                reset=frozen.reset,
                reset_value=frozen.reset_value,
                reset_delay=frozen.reset_delay,
                compare=frozen.compare,
                current_width=entry.current_width or 0,
                refractory=frozen.refractory,
                fraction_bits=frozen.fraction_bits,
                membrane_width=width if clip is None else width - int(clip).bit_count(),
            )
        )
    return FrozenNetwork(tuple(layers), registers["last_timestep"] + 1, network.coding, network.readout)


def with_more_inputs(stimulus: Stimulus, n_inputs: int) -> Stimulus:
    """The same samples, sources beyond silent."""
    if stimulus.values is not None:
        wide = np.pad(stimulus.values, ((0, 0), (0, n_inputs - stimulus.n_inputs)))
        return replace(stimulus, n_inputs=n_inputs, values=wide)
    return replace(stimulus, n_inputs=n_inputs)


def assert_neutral(network: FrozenNetwork, sidecar: Sidecar, stimulus: Stimulus) -> None:
    """The golden model of all that is in the machine does what the network does, and nothing else."""
    load = compile_load(network, sidecar)
    whole = whole_machine(network, load.image, load.sidecar)
    expected = golden.run(network, stimulus)
    found = golden.run(whole, with_more_inputs(stimulus, whole.n_inputs))
    for index, entry in enumerate(load.sidecar.layers):
        step = 1 << (entry.lanes - 1).bit_length()
        places = np.array(entry.slot) * step + np.array(entry.lane)
        rest = np.setdiff1d(np.arange(whole.layers[index].n_out), places)
        for name in ("spikes", "membranes", *(["currents"] if network.layers[index].has_current else [])):
            have = getattr(found, name)[index]
            np.testing.assert_array_equal(have[:, :, places], getattr(expected, name)[index], f"{name} {index}")
            assert not have[:, :, rest].any(), f"{name} of padding in layer {index}"
    np.testing.assert_array_equal(found.saturations, expected.saturations)


def test_padding_changes_nothing(machine) -> None:
    _, networks, sidecar = machine
    for number, network in enumerate(networks):
        stimulus = samples_of(network, number, 6)
        assert golden.run(network, stimulus).spikes[-1].any()
        assert_neutral(network, sidecar, stimulus)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.deep) for seed in range(1, 12))])
def test_padding_changes_nothing_on_random_machines(seed: int, tmp_path: Path) -> None:
    _, others, sidecar = random_machine(seed, tmp_path / "b", max_width=14, most_lanes=4)
    for number, network in enumerate(others):
        assert_neutral(network, sidecar, samples_of(network, number))


def test_the_decoder_finds_the_network_in_its_image(machine, tmp_path: Path) -> None:
    """The testbench's decoder, which knows nothing of loads, on a bundle whose images are those of the load."""
    folder, networks, sidecar = machine
    for network in networks:
        load = compile_load(network, sidecar)
        shutil.rmtree(tmp_path / "b", ignore_errors=True)
        shutil.copytree(folder, tmp_path / "b")
        widths = {memory.image: memory.width for memory in sidecar.images}
        for name, words in parts(load.image, load.sidecar)[1].items():
            (tmp_path / "b" / name).write_text("".join(f"{word:0{-(-widths[name] // 4)}x}\n" for word in words))
        write_sidecar(tmp_path / "b" / "design.json", load.sidecar)
        result = compare_decoded(tmp_path / "b", network)
        assert result["equal"] and result["compared"] > 0, result["first"]


def test_the_image_of_the_build_network_is_what_the_bundle_holds(machine) -> None:
    folder, (own, *_), sidecar = machine
    load = compile_load(own, sidecar)
    for name, words in parts(load.image, sidecar)[1].items():
        assert words == [int(line, 16) for line in (folder / name).read_text().split()]
    assert load.sidecar == sidecar
    assert compile_load(own, sidecar).image == load.image


def test_memories_are_rounded_up_and_widths_have_headroom() -> None:
    network = small_network("events")
    plain, mapping = map_network(network, [3, 2]), map_network(network, [3, 2], None, LOADABLE)
    capacity = mapping.capacity
    assert capacity is not None and capacity.n_inputs == 20 and capacity.timesteps == 4
    for layer, room in zip(plain.layers, capacity.layers, strict=True):
        fullest = int(layer.lane_synapses.max())
        assert fullest <= room.synapses < 2 * fullest and room.synapses.bit_count() == 1
    tight = map_network(network, [3, 2], None, LOADABLE, capacity=CapacityOptions(headroom=0)).capacity
    assert tight is not None
    for one, other in zip(capacity.layers, tight.layers, strict=True):
        assert (one.sum_width, one.bias_width) == (other.sum_width + 1, other.bias_width + 1)
        assert one.potential_width > other.potential_width and one.threshold_width > one.potential_width


def test_leaks_that_differ_are_loaded(tmp_path: Path) -> None:
    shifts = Leak("shift", np.array([1, 2, 3, 2, 2]))
    products = Leak("multiply", np.array([2, 3, 4, 4, 4]), np.array([3, 8, 0, 16, 5]))
    network = of_sizes(20, 5, leak=[shifts, products])
    sidecar = write_bundle(network, map_network(network, [3, 2], None, LOADABLE, capacity=ROOM), tmp_path / "b")
    load = sidecar.load
    assert load is not None
    assert [layer.leak for layer in load.fixed.layers] == ["v - (v >> k)", "(v * m) >> n"]
    rooms = [(room.leak_shift_width, room.leak_multiplier_width) for room in load.capacity.layers]
    # A bit more each, of the default headroom.
    assert rooms == [(3, 0), (4, 6)]
    for leaks in (
        [Leak("shift", np.array([7, 0, 1, 2, 5])), Leak("multiply", 5, np.array([32, 0, 1, 2, 5]))],
        [Leak("shift", 4), Leak("multiply", 3, 7)],
    ):
        other = of_sizes(20, 5, leak=leaks)
        image = compile_load(other, sidecar)
        whole = whole_machine(other, image.image, image.sidecar)
        for index, entry in enumerate(image.sidecar.layers):
            places = np.array(entry.slot) * (1 << (entry.lanes - 1).bit_length()) + np.array(entry.lane)
            for name, numbers in other.layers[index].numbers.items():
                np.testing.assert_array_equal(whole.layers[index].numbers[name][places], numbers, name)
        assert_neutral(other, sidecar, samples_of(other, 1, 6))
    for leaks, message in (
        (
            [Leak("shift", 8), products],
            "layer 0: the network needs 4 bits of leak shift, the machine has 3; .*headroom",
        ),
        ([shifts, Leak("multiply", 6, 64)], "layer 1: the network needs 7 bits of leak multiplier, the machine has 6"),
    ):
        with pytest.raises(CapacityError, match=message):
            compile_load(of_sizes(20, 5, leak=leaks), sidecar)
    with pytest.raises(UnsupportedError, match=r"the network has none, the machine v - \(v >> k\)"):
        compile_load(of_sizes(20, 5, leak=[Leak(), products]), sidecar)


def test_a_leak_that_every_neuron_has_alike_is_one_leak(tmp_path: Path) -> None:
    for alike in (Leak("shift", np.full(5, 2)), Leak("multiply", 24, np.full(5, 1 << 24))):
        network = of_sizes(20, 5, leak=[alike, Leak("shift", 2)], membrane_width=[48, 9])
        capacity = plan_capacity(network, [3, 2], ROOM)
        assert capacity.layers[0].leak_shift_width == capacity.layers[0].leak_multiplier_width == 0
        assert capacity.layers[0].potential_width >= signed_width(0, int(alike.exact(np.array([(1 << 47) - 1]))[0]))


def test_networks_with_late_resets_and_synaptic_currents_are_loaded(tmp_path: Path) -> None:
    parameters: dict[str, Any] = {"reset_delay": [True, False], "current_width": [0, 8]}
    currents = [None, Leak("shift", np.array([1, 2, 3, 2, 2]))]
    network = of_sizes(20, 5, current_leak=currents, **parameters)
    sidecar = write_bundle(network, map_network(network, [3, 2], None, LOADABLE, capacity=ROOM), tmp_path / "b")
    load = sidecar.load
    assert load is not None
    assert [layer.reset for layer in load.fixed.layers] == ["subtract a timestep late", "subtract"]
    assert [layer.current for layer in load.fixed.layers] == [None, "i - (i >> k) in 8 bits"]
    assert [room.late_width for room in load.capacity.layers] == [9, 0]
    for shift in (np.array([7, 0, 1, 2, 5]), 4):
        other = changed(
            of_sizes(20, 5, current_leak=[None, Leak("shift", shift)], **parameters),
            threshold=np.array([2, 1, -3, 5, 9]),
        )
        assert_neutral(other, sidecar, samples_of(other, 1, 6))
    for other, error, message in (
        (
            of_sizes(20, 5),
            UnsupportedError,
            "layer 0: reset: the network has subtract, the machine subtract a timestep",
        ),
        (
            of_sizes(20, 5, current_leak=currents, reset_delay=[True, False], current_width=[0, 7]),
            UnsupportedError,
            r"layer 1: current: the network has i - \(i >> k\) in 7 bits, the machine .* in 8 bits",
        ),
        (
            changed(network, threshold=np.full(5, -257)),
            CapacityError,
            "layer 0: the network needs 10 bits of threshold, the machine has 9; .*capacity.membrane_width",
        ),
    ):
        with pytest.raises(error, match=message):
            compile_load(other, sidecar)


def test_a_threshold_out_of_reach_is_stored_as_the_largest(of_events) -> None:
    network = small_variant(1, "events", n_in=9, hidden=5, timesteps=6, width=8)
    threshold = network.layers[0].threshold.copy()
    threshold[0] = 1 << 40
    network = changed(network, threshold=threshold)
    assert_neutral(network, of_events, samples_of(network, 1, 6))


def changed(network: FrozenNetwork, index: int = 0, **fields: Any) -> FrozenNetwork:
    layers = list(network.layers)
    layers[index] = replace(layers[index], **fields)
    return network.with_layers(layers)


def of_sizes(n_in: int, hidden: int, n_out: int = 5, **fields: Any) -> FrozenNetwork:
    parameters = {"timesteps": 3, "leak": Leak("shift", 2), "fraction_bits": 2, "membrane_width": 9, **fields}
    weights = [np.eye(n_in, hidden, dtype=int), np.eye(hidden, n_out, dtype=int)]
    return FrozenNetwork.from_arrays(weights, threshold=9, **parameters)


OTHERS: dict[str, tuple[FrozenNetwork, type[CodesignError], str]] = {
    "inputs": (of_sizes(26, 5), CapacityError, "needs 26 inputs, the machine has 25; .*hardware.capacity.inputs"),
    "neurons": (of_sizes(20, 18), CapacityError, "layer 0: the network needs 18 neurons, the machine has 17"),
    "timesteps": (of_sizes(20, 5, timesteps=7), CapacityError, "needs 7 timesteps, the machine has 6"),
    "synapses": (
        FrozenNetwork.from_arrays(
            [np.ones((25, 17), int), np.ones((17, 5), int)],
            threshold=9, timesteps=3, leak=Leak("shift", 2), fraction_bits=2, membrane_width=9,
        ),
        CapacityError,
        "layer 0: the network needs 150 synapses on a lane, the machine has 64; .*hardware.capacity.synapses",
    ),
    "weights": (
        FrozenNetwork.from_arrays(
            [16 * np.eye(20, 5, dtype=int), np.eye(5, dtype=int)],
            threshold=9, timesteps=3, leak=Leak("shift", 2), fraction_bits=2, membrane_width=9,
        ),
        CapacityError,
        "layer 0: the network needs 6 weight bits, the machine has 5",
    ),
    "membranes": (of_sizes(20, 5, membrane_width=10), CapacityError, "needs 10 membrane bits, the machine has 9"),
    "sums": (
        FrozenNetwork.from_arrays(
            [np.full((20, 5), 15), np.eye(5, dtype=int)],
            threshold=9, timesteps=3, leak=Leak("shift", 2), fraction_bits=2, membrane_width=9,
        ),
        CapacityError,
        "layer 0: the network needs 10 bits of weighted sum, the machine has 9; .*hardware.capacity.headroom",
    ),
    "biases": (of_sizes(20, 5, bias=128), CapacityError, "needs 9 bits of bias, the machine has 8"),
    "thresholds": (
        changed(of_sizes(20, 5), threshold=np.full(5, -(1 << 30))),
        CapacityError,
        "layer 0: the network needs 31 bits of threshold",
    ),
    "layers": (
        FrozenNetwork.from_arrays([np.eye(5, dtype=int)], threshold=9, timesteps=3),
        UnsupportedError,
        "layers: the network has 1, the machine 2, which was fixed when it was built",
    ),
    "classes": (of_sizes(20, 5, 4), UnsupportedError, "n outputs: the network has 4, the machine 5"),
    "leak": (
        of_sizes(20, 5, leak=[Leak("shift", 2), Leak("multiply", 4, 13)]),
        UnsupportedError,
        r"layer 1: leak: the network has \(v \* 13\) >> 4, the machine v - \(v >> 2\)",
    ),
    "a leak for each neuron": (
        of_sizes(20, 5, leak=[Leak("shift", np.array([1, 2, 3, 2, 2])), Leak("shift", 2)]),
        UnsupportedError,
        r"layer 0: leak: the network has v - \(v >> k\), the machine v - \(v >> 2\)",
    ),
    "reset": (of_sizes(20, 5, reset="zero"), UnsupportedError, "layer 0: reset: the network has zero, .* subtract"),
    "a late reset": (
        of_sizes(20, 5, reset_delay=[True, False]),
        UnsupportedError,
        "layer 0: reset: the network has subtract a timestep late, the machine subtract, which",
    ),
    "a rest": (
        of_sizes(20, 5, refractory=[2, 0]),
        UnsupportedError,
        "layer 0: reset: the network has subtract then rest 2, the machine subtract, which",
    ),
    "a synaptic current": (
        of_sizes(20, 5, current_leak=[None, Leak("shift", 1)], current_width=[0, 8]),
        UnsupportedError,
        r"layer 1: current: the network has i - \(i >> 1\) in 8 bits, the machine absent",
    ),
    "compare": (of_sizes(20, 5, compare=">"), UnsupportedError, "layer 0: compare: the network has >, the machine >="),
    "fraction": (of_sizes(20, 5, fraction_bits=1), UnsupportedError, "layer 0: fraction bits: the network has 1"),
    "coding": (
        of_sizes(20, 5, coding=InputCoding("current", 4)),
        UnsupportedError,
        "coding: the network has current, the machine events",
    ),
    "readout": (
        of_sizes(20, 5, readout="membrane_last", reset=["subtract", "none"], membrane_width=[9, 16]),
        UnsupportedError,
        "readout: the network has membrane_last, the machine spike_count",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def of_events(tmp_path_factory) -> Sidecar:
    return small_machine(tmp_path_factory.mktemp("refusals") / "b", "events")[1]


@pytest.mark.parametrize("what", OTHERS)
def test_what_does_not_fit_is_refused_in_one_line(what: str, of_events) -> None:
    network, error, message = OTHERS[what]
    with pytest.raises(error, match=message) as caught:
        compile_load(network, of_events)
    assert "\n" not in str(caught.value)
    compile_load(of_sizes(25, 17), of_events)


def test_event_codings_are_one_to_the_machine(of_events) -> None:
    network = of_sizes(20, 5, coding=InputCoding("rate"))
    assert compile_load(network, of_events).sidecar.coding == "rate"


def test_a_machine_of_one_network_is_not_loadable(tmp_path: Path) -> None:
    network, _ = small_bundle(tmp_path / "b")
    sidecar = read_sidecar(tmp_path / "b")
    with pytest.raises(UnsupportedError, match=r"not loadable; generate it with hardware.loadable = true"):
        compile_load(network, sidecar)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda load: load.update(format=2), "load.format: Input should be 1"),
        (lambda load: load["capacity"].update(n_inputs=24), "capacity and layout id do not belong together"),
        (lambda load: load["capacity"].pop("layers"), "load.capacity.layers: Field required"),
        (lambda load: load["capacity"]["layers"][0].pop("lanes"), "load.capacity.layers.0.lanes: Field required"),
        (lambda load: load["capacity"].update(more=1), "load.capacity.more: Extra inputs"),
        (
            lambda load: load["capacity"].update(timesteps="6"),
            "load.capacity.timesteps: Input should be",
        ),
        (lambda load: load["capacity"].update(layers=[]), "load.capacity.layers: Tuple should have at least 1 item"),
    ],
)
def test_a_damaged_sidecar_is_refused(change: Any, message: str, of_events: Sidecar) -> None:
    document = of_events.to_json()
    change(document["load"])
    with pytest.raises(InputError, match=message):
        compile_load(of_sizes(20, 5), Sidecar.from_json(document))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": 19}, "hardware.capacity.inputs = 19 is below the 20 of the network itself"),
        ({"timesteps": 3}, "hardware.capacity.timesteps = 3 is below the 4"),
        ({"neurons": [11]}, "hardware.capacity.neurons = 11 is below the 12"),
        ({"neurons": [12, 5]}, "hardware.capacity.neurons has 2 entries for 1 hidden layer"),
        ({"synapses": 3}, r"hardware.capacity.synapses = 3 is below the \d+"),
        ({"synapses": [64]}, "hardware.capacity.synapses has 1 entry for 2 layers"),
        ({"weight_bits": 4}, "hardware.capacity.weight_bits = 4 is below the 5"),
        ({"weight_bits": 9}, "hardware.capacity.weight_bits = 9 is beyond 8"),
        ({"membrane_width": 8}, "hardware.capacity.membrane_width = 8 is below the 9"),
        ({"headroom": 17}, "hardware.capacity.headroom = 17 is outside 0..16"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        map_network(small_network("events"), [3, 2], None, LOADABLE, capacity=CapacityOptions(**options))


def test_capacity_survives_its_document() -> None:
    capacity = plan_capacity(small_network("current"), [3, 2], ROOM)
    assert Capacity.from_json(capacity.to_json()) == capacity


def test_variants_reach_other_sizes() -> None:
    """The generator of networks for one machine differs in what a load may change."""
    rng = np.random.default_rng(0)
    base = small_variant(1, "events", n_in=12, hidden=9, timesteps=6, width=9)
    found = [variant(rng, base) for _ in range(30)]
    for sizes in (
        {network.n_inputs for network in found},
        {network.layers[0].n_out for network in found},
        {network.timesteps for network in found},
        {network.layers[0].membrane_width for network in found},
    ):
        assert len(sizes) > 3


def test_a_value_has_all_the_bits_that_it_needs() -> None:
    """Sums of wide membranes over many timesteps fill 64 bits."""
    layer = FrozenLayer.from_dense(
        np.full((1000, 2), 127) * [1, -1], reset="none", fraction_bits=22, membrane_width=48, leak=Leak("shift", 0)
    )
    network = FrozenNetwork((layer,), 65535, InputCoding("current", 8), "membrane_sum")
    assert signed_width(*network.value_range()) == 64 == plan_capacity(network, [1], CapacityOptions()).value_width


def test_thresholds_in_a_field_wider_than_numbers_stay() -> None:
    network = FrozenNetwork.from_arrays(
        [np.full((256, 2), 127)],
        threshold=5 << 24,
        timesteps=2,
        coding=InputCoding("current", 8),
        fraction_bits=24,
        membrane_width=48,
    )
    capacity = plan_capacity(network, [1], CapacityOptions(headroom=16))
    assert capacity.layers[0].threshold_width > 64
    assert stored_thresholds(network.layers[0], capacity.layers[0]).tolist() == [5 << 24] * 2
