"""PQ index, rewiring fractions against the method's check values, and the rules of pruning and regrowth."""

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from requirements import needs
from torch import nn

from codesign.basics.errors import InputError
from codesign.basics.sparsity import apportion
from codesign.config import RewiringConfig
from codesign.train.rewiring import (
    PQRewirer,
    change_epochs,
    fall_epochs,
    first_mask,
    keep_bound,
    layer_counts,
    pq_index,
    rewiring_fraction,
    turning_point,
)
from codesign.train.rewiring import rewirer as rewirer_module
from codesign.train.rewiring.balance import balanced_mask, balanced_order, bank_counts

N = 400_000
PRESETS = ("adaptive", "constant", "fixed", "set", "rigl", "sap", "static", "dense")


def quantiles(distribution: str) -> np.ndarray:
    """A large sample without sampling noise: the distribution's quantiles."""
    from scipy import stats

    levels = (np.arange(N) + 0.5) / N
    return {"uniform": levels * 2 - 1, "gaussian": stats.norm.ppf(levels), "laplace": stats.laplace.ppf(levels)}[
        distribution
    ]


@pytest.mark.parametrize(
    ("distribution", "p", "q", "expected"),
    [
        ("uniform", 0.5, 1, 0.1129),
        ("gaussian", 0.5, 1, 0.1545),
        ("laplace", 0.5, 1, 0.2162),
        ("uniform", 1, 2, 0.2515),
        ("gaussian", 1, 2, 0.3647),
        ("laplace", 1, 2, 0.5010),
    ],
)
def test_prune_fraction_of_known_distributions(distribution, p, q, expected):
    index = pq_index(quantiles(distribution), p, q)
    assert 1 - keep_bound(N, index, p, q, 0.001) / N == pytest.approx(expected, abs=1e-4)


def test_the_short_form_of_the_bound():
    """For (p, q) = (.5, 1) the fraction kept is mean(sqrt|w|)^2 / mean|w| (1 + eta)^-2."""
    weights = np.abs(np.random.default_rng(0).laplace(size=5000))
    kept = np.mean(np.sqrt(weights)) ** 2 / np.mean(weights) * 1.001**-2
    assert keep_bound(5000, pq_index(weights)) == math.ceil(5000 * kept)


def test_redrawn_gaussian_weights_give_the_methods_density_trajectory():
    """The rewirer itself, its weights redrawn before each fall, which neither clips nor is on target."""
    model = nn.Sequential(nn.Linear(400, 400, bias=False))
    made = PQRewirer(model, steps_per_epoch=1, epochs=40, target_density=0.02, epochs_per_iteration=1, rewire_until=1.0)
    random = torch.Generator().manual_seed(0)
    trajectory = []
    for _ in range(10):
        trajectory.append(made.density)
        with torch.no_grad():
            model[0].weight.copy_(torch.randn(400, 400, generator=random))
        assert made.step()[0].change == "fall"
    expected = [0.50, 0.4225, 0.357, 0.302, 0.255, 0.215, 0.182, 0.154, 0.130, 0.110]
    assert trajectory == pytest.approx(expected, abs=2e-3)


def test_index_is_zero_for_equal_weights_and_greatest_for_one_hot():
    one_hot = np.eye(1, 50)[0]
    assert pq_index(np.full(50, -3.0)) == 0.0
    assert pq_index(one_hot) == pytest.approx(1 - 50 ** (1 / 1 - 1 / 0.5))
    assert pq_index(one_hot, 1, 2) == pytest.approx(1 - 50 ** (1 / 2 - 1))
    assert pq_index([]) == 0.0
    assert pq_index(np.zeros(7)) == 0.0
    for wrong in (np.nan, np.inf):
        with pytest.raises(InputError, match="weights are NaN or infinite"):
            pq_index([1.0, 2.0, wrong])


def test_a_total_beyond_the_bounds_cannot_be_shared_out():
    least, most = np.array([1, 1]), np.array([2, 2])
    assert apportion(np.array([1.0, 1.4]), 3, least, most) == [1, 2]
    for total in (1, 5):
        with pytest.raises(InputError, match=f"{total} cannot be shared out within bounds of 2 and 4 together"):
            apportion(np.array([1.0, 1.4]), total, least, most)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(1e-30, 1e30), st.integers(2, 5), st.sampled_from([(0.5, 1.0), (1.0, 2.0)]))
def test_index_ignores_scale_sign_and_cloning(seed, scale, copies, pq):
    weights = np.random.default_rng(seed).normal(size=200)
    index = pq_index(weights, *pq)
    assert 0 < index < 1 - 200 ** (1 / pq[1] - 1 / pq[0])
    assert pq_index(-scale * weights, *pq) == pytest.approx(index, abs=1e-12)
    assert pq_index(np.tile(weights, copies), *pq) == pytest.approx(index, abs=1e-12)


def test_keeping_fewer_weights_than_the_bound_always_loses_norm():
    """The bound's meaning, at every r: if the r largest hold ||w||_p up to (1 + eta), then r is at least the bound."""
    random = np.random.default_rng(5)
    for sample in range(300):
        weights = np.sort(np.abs(random.standard_t(random.integers(1, 9), size=random.integers(2, 200))))[::-1]
        p, q, eta = *((0.5, 1.0), (1.0, 2.0))[sample % 2], 0.001
        bound = keep_bound(weights.size, pq_index(weights, p, q), p, q, eta)
        assert 1 <= bound <= weights.size
        kept = np.cumsum(weights**p)[: bound - 1]
        assert ((weights**p).sum() - kept > eta * kept).all()


def test_fraction_respects_gamma_beta_and_empty_units():
    assert rewiring_fraction(0, 0.3, RewiringConfig()) == 0.0
    assert rewiring_fraction(1000, 0.99, RewiringConfig(beta=0.4)) == 0.4
    half = rewiring_fraction(100_000, 0.15, RewiringConfig(gamma=0.5))
    assert half == pytest.approx(rewiring_fraction(100_000, 0.15, RewiringConfig()) / 2)


@pytest.mark.parametrize("distribution", ["erdos-renyi", "uniform"])
@pytest.mark.parametrize("density", [0.01, 0.1, 0.37, 0.5, 1.0])
def test_layer_counts_are_exact(distribution, density):
    shapes = [(128, 784), (40, 128), (16, 8, 3, 3), (10, 40)]
    counts = layer_counts(shapes, density, distribution)
    sizes = [math.prod(shape) for shape in shapes]
    assert sum(counts) == round(density * sum(sizes))
    assert all(0 <= count <= size for count, size in zip(counts, sizes, strict=True))


def test_erdos_renyi_is_denser_where_layers_are_small():
    counts = layer_counts([(100, 1000), (100, 100), (50, 60, 3, 5)], 0.1, "erdos-renyi")
    densities = counts[0] / 1e5, counts[1] / 1e4, counts[2] / 45e3
    assert densities[1] / densities[0] == pytest.approx((200 / 1e4) / (1100 / 1e5), rel=1e-3)
    assert densities[2] / densities[0] == pytest.approx(((50 + 60 + 3 + 5) / 45e3) / (1100 / 1e5), rel=1e-2)


def test_too_low_a_density_for_the_fan_in_is_refused():
    with pytest.raises(InputError, match="too few for min_fan_in = 3"):
        layer_counts([(100, 10)], 0.1, "uniform", min_fan_in=3)


def test_first_masks_have_exact_counts_and_fan_in():
    mask = first_mask((50, 5, 3, 2), 120, 2, np.random.default_rng(0))
    assert mask.shape == (50, 5, 3, 2) and mask.sum() == 120
    assert mask.reshape(50, -1).sum(axis=1).min() >= 2
    assert (mask == first_mask((50, 5, 3, 2), 120, 2, np.random.default_rng(0))).all()
    assert first_mask((3, 4), 12, 1, np.random.default_rng(0)).all()


def test_schedule_has_no_rewiring_in_an_iterations_last_epoch():
    rewiring = RewiringConfig(epochs_per_iteration=3, rewire_every=1, rewire_until=0.75)
    assert fall_epochs(13, rewiring) == [3, 6, 9]
    expected = {1: "rewire", 2: "rewire", 3: "fall", 4: "rewire", 5: "rewire", 6: "fall"}
    assert change_epochs(13, rewiring) == {**expected, 7: "rewire", 8: "rewire", 9: "fall"}
    assert list(change_epochs(13, rewiring.model_copy(update={"rewire_every": 2}))) == [2, 3, 5, 6, 8, 9]
    assert fall_epochs(3, rewiring.model_copy(update={"rewire_until": 1.0})) == []


def test_every_preset_changes_connections_at_the_same_epochs_or_never():
    falling = change_epochs(20, RewiringConfig(preset="adaptive"))
    assert list(falling) == list(range(1, 15))
    for preset, kinds in (
        ("fixed", {"rewire", "fall"}),
        ("constant", {"rewire"}),
        ("set", {"rewire"}),
        ("rigl", {"rewire"}),
    ):
        events = change_epochs(20, RewiringConfig(preset=preset))
        assert list(events) == list(falling) and set(events.values()) == kinds
    assert change_epochs(20, RewiringConfig(preset="sap")) == dict.fromkeys(range(2, 15, 2), "fall")
    assert change_epochs(20, RewiringConfig(preset="static")) == change_epochs(20, RewiringConfig(preset="dense")) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "rigl", "gamma": 2.0}, "gamma has no meaning with ratio = 'cosine'"),
        ({"preset": "adaptive", "fraction": 0.2}, "fraction has no meaning with ratio = 'pq'"),
        ({"preset": "set", "score_batches": 5}, "score_batches has no meaning with growth = 'random'"),
        ({"preset": "set", "start_density": 0.5}, "start_density has no meaning with density_schedule = 'constant'"),
        ({"preset": "static", "rewire_until": 0.5}, "rewire_until has no meaning with preset = 'static'"),
        ({"preset": "dense", "target_density": 0.5}, "target_density has no meaning with preset = 'dense'"),
        ({"preset": "sap", "rewire_every": 2}, "rewire_every has no meaning with growth = 'none'"),
        ({"preset": "adaptive", "restart": True}, "restart has no meaning with growth = 'momentum'"),
        ({"choose_margin": 0.1}, "choose_margin has no meaning with stop_at = 'target'"),
        ({"scope": "global", "layer_target": {"0": 0.2}}, "layer_target has no meaning with scope = 'global'"),
        ({"scope": "global", "landing": "distribution"}, "landing = 'distribution' has no meaning with scope = 'gl"),
        ({"share_floor": 0.1}, "share_floor has no meaning with share = 'kept'"),
        ({"preset": "static", "share": "index"}, "share has no meaning with preset = 'static'"),
        ({"share": "index", "scope": "global"}, "share = 'index' has nothing to share out with scope = 'global'"),
        ({"share": "index", "landing": "distribution"}, "nothing to share out with landing = 'distribution' and scope"),
        ({"share": "index", "lane_balance": 2}, "share = 'index' is not built together with lane_balance"),
        ({"preset": "set", "eta": 0.1}, "eta has no meaning with ratio = 'constant'"),
        ({"preset": "sap", "density_schedule": "constant"}, "lets connections only go"),
        ({"preset": "adaptiv"}, "preset: Input should be 'adaptive'"),
        ({"gama": 2}, "unknown key 'gama'; did you mean 'gamma'"),
    ],
)
def test_options_that_a_choice_ignores_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        PQRewirer(nn.Linear(9, 9), steps_per_epoch=1, epochs=20, **options)


def test_a_presets_parts_can_be_chosen_otherwise():
    rules = RewiringConfig(preset="adaptive", growth="random", ratio="cosine", fraction=0.2).rules
    assert (rules.ratio, rules.density_schedule, rules.growth) == ("cosine", "falling", "random")
    assert RewiringConfig(preset="sap").rules.eta == 0.0
    assert RewiringConfig(preset="sap", eta=0.01).rules.eta == 0.01
    assert RewiringConfig().rules.eta == 0.001


def test_turning_point_is_armed_by_a_rise_and_fires_on_a_fall():
    flat = [0.2] * 6
    assert turning_point(flat) is None
    assert turning_point([0.2, 0.15, 0.1, 0.05]) is None
    rising = [0.10, 0.10, 0.10, 0.13, 0.13, 0.13]
    assert turning_point(rising) is None
    smooth = [*rising, 0.10, 0.10]
    # Means of three: .10 .11 .12 .13 .12: 5 % below .13 is .1235.
    assert turning_point(smooth) == 6
    assert turning_point([*rising, 0.127, 0.127]) is None


# The rewirer on models.


def two_layers(inputs=40, hidden=20) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def made(model=None, density=0.5, target=0.1, epochs=50, **options) -> PQRewirer:
    """A rewirer before its first change, with growth scores of random gradients."""
    model = two_layers() if model is None else model
    options.setdefault("rewire_until", 1.0)
    rewirer = PQRewirer(
        model, steps_per_epoch=1, epochs=epochs, start_density=density, target_density=target, **options
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    rewirer.mask_gradients()
    return rewirer


def copies(tensors) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


@pytest.mark.parametrize("scope", ["layer", "neuron", "global"])
def test_rewiring_holds_the_count_and_moves_the_right_positions(scope):
    rewirer = made(scope=scope, min_fan_in=0)
    before, weights, scores = copies(rewirer.masks), copies(rewirer.parameters), copies(rewirer._growth.scores)
    changes = rewirer.rewire()
    total = 0
    moved = {name: (before[name] & ~mask, ~before[name] & mask) for name, mask in rewirer.masks.items()}
    for change in changes:
        name = change.layer
        gone, new = moved[name]
        assert (change.pruned, change.grown) == (int(gone.sum()), int(new.sum()))
        assert change.change == "rewire" and 0 < change.fraction < 1
        total += change.pruned - change.grown
        assert (rewirer.parameters[name][gone | new] == 0).all()
        kept = before[name] & ~gone
        assert torch.equal(rewirer.parameters[name][kept], weights[name][kept])
        if scope != "global":
            assert change.pruned == change.grown > 0
        if scope == "layer":
            assert weights[name][gone].abs().max() <= weights[name][kept].abs().min()
            assert scores[name][new].abs().min() >= scores[name][~before[name] & ~new].abs().max()
        if scope == "neuron":
            assert torch.equal(before[name].sum(1), rewirer.masks[name].sum(1))
    assert total == 0
    if scope == "global":
        gone = torch.cat([weights[name][moved[name][0]].abs() for name in weights])
        kept = torch.cat([weights[name][before[name] & ~moved[name][0]].abs() for name in weights])
        assert 0 < gone.max() <= kept.min()
        assert changes[0].index == changes[1].index


def test_just_pruned_positions_are_not_regrown():
    rewirer = made()
    before = copies(rewirer.masks)
    # The largest scores lie on active positions: regrowth must not go back to the ones just pruned.
    rewirer._growth.scores = {name: mask.float() * 1e6 for name, mask in before.items()}
    for change in rewirer.rewire():
        assert int((before[change.layer] & ~rewirer.masks[change.layer]).sum()) == change.pruned > 0


def test_a_dense_layer_is_not_thinned_by_rewiring():
    rewirer = made(density=1.0, target=0.5)
    assert [change.pruned for change in rewirer.rewire()] == [0, 0]
    assert rewirer.density == 1.0


def test_equal_magnitudes_are_pruned_and_equal_scores_grown_by_index():
    model = nn.Linear(10, 1, bias=False)
    rewirer = made(model, density=1.0, target=0.5, min_fan_in=1, gamma=1.0, eta=1.0)
    with torch.no_grad():
        model.weight.fill_(1.0)
    rewirer.fall(final=True)
    assert rewirer.masks["weight"][0].tolist() == [False] * 5 + [True] * 5
    with torch.no_grad():
        model.weight.copy_(rewirer.masks["weight"].float())
    rewirer._growth.scores = {"weight": torch.ones(1, 10)}
    (change,) = rewirer.rewire()
    n = change.grown
    assert 0 < n < 5
    assert rewirer.masks["weight"][0].tolist() == [True] * n + [False] * (5 - n) + [False] * n + [True] * (5 - n)


@pytest.mark.parametrize("scope", ["layer", "neuron", "global"])
def test_falling_lands_exactly_on_the_target_and_stays(scope):
    rewirer = made(target=0.3, scope=scope)
    total = sum(mask.numel() for mask in rewirer.masks.values())
    random = torch.Generator().manual_seed(2)
    counts = [sum(rewirer.counts.values())]
    while not rewirer.settled:
        for name, weight in rewirer.parameters.items():
            weight.data.copy_(torch.randn(weight.shape, generator=random) * rewirer.masks[name])
        rewirer.step()
        counts.append(sum(rewirer.counts.values()))
    assert counts[-1] == round(0.3 * total)
    falls = [count for count, _ in itertools.groupby(counts)]
    assert len(falls) >= 4 and falls == sorted(falls, reverse=True)
    rewirer.fall()
    assert sum(rewirer.counts.values()) == counts[-1]


@pytest.mark.parametrize("stop", [None, lambda counts: False])
@pytest.mark.parametrize("scope", ["layer", "neuron"])
@pytest.mark.parametrize("preset", ["adaptive", "fixed", "sap"])
def test_landing_spreads_the_way_to_each_layers_share_over_the_falls(preset, scope, stop):
    """Equal weights give ratios near 0, so that almost everything would be left to the last fall."""
    rewirer = PQRewirer(
        two_layers(),
        steps_per_epoch=1,
        epochs=30,
        preset=preset,
        scope=scope,
        start_density=0.9,
        target_density=0.1,
        landing="distribution",
        min_fan_in=1,
        stop=stop,
    )
    shares = layer_counts([tuple(weight.shape) for weight in rewirer.parameters.values()], 0.1, "erdos-renyi", 1)
    kept = []
    while not rewirer.settled:
        before = rewirer.counts
        for name, weight in rewirer.parameters.items():
            weight.data.copy_(rewirer.masks[name])
            weight.grad = torch.rand(weight.shape)
        changes = rewirer.step()
        if changes and changes[0].change == "fall":
            kept.append([count / before[name] for name, count in rewirer.counts.items()])
    assert list(rewirer.counts.values()) == shares
    assert len(kept) == 10
    for ratios in zip(*kept, strict=True):
        assert max(ratios) <= 1 and min(ratios) > 0.5 * max(ratios)


def test_without_landing_the_last_fall_takes_what_the_ratio_left():
    rewirer = PQRewirer(
        two_layers(), steps_per_epoch=1, epochs=30, preset="sap", start_density=0.9, target_density=0.1, landing="ratio"
    )
    before = {}
    while not rewirer.settled:
        before = rewirer.density
        for name, weight in rewirer.parameters.items():
            weight.data.copy_(rewirer.masks[name])
        rewirer.step()
    assert rewirer.density < 0.35 * before


@pytest.mark.parametrize(
    ("options", "meant"),
    [
        ({}, "ratio"),
        ({"target_density": 0.101}, "ratio"),
        ({"target_density": 0.1}, "distribution"),
        ({"target_density": 0.1, "scope": "neuron"}, "distribution"),
        ({"target_density": 0.1, "scope": "global"}, "pace"),
        ({"target_density": 0.1, "share": "index"}, "pace"),
        ({"target_density": 0.1, "landing": "ratio"}, "ratio"),
        ({"target_density": 0.02, "stop_at": "turning-point"}, "ratio"),
    ],
)
def test_few_connections_land_on_their_shares_unless_told_otherwise(options, meant):
    assert RewiringConfig(**options).lands == meant


@pytest.mark.parametrize(("target", "goes_on"), [(0.2, True), (0.1, False)])
def test_a_state_of_before_landing_could_be_left_out_goes_on_where_it_means_the_same(target, goes_on):
    def rewirer():
        return PQRewirer(two_layers(), steps_per_epoch=1, epochs=30, start_density=0.9, target_density=target)

    state = rewirer().state_dict()
    state["document"]["options"]["landing"] = "ratio"
    if goes_on:
        rewirer().load_state_dict(state)
    else:
        with pytest.raises(InputError, match="other options"):
            rewirer().load_state_dict(state)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_an_even_pace_leaves_the_layers_their_shares_but_no_last_cut(scope):
    rewirer = PQRewirer(
        two_layers(), steps_per_epoch=1, epochs=30, preset="sap", scope=scope, start_density=0.9, target_density=0.1,
        landing="pace", min_fan_in=0,
    )  # fmt: skip
    ratios = []
    while not rewirer.settled:
        before = sum(rewirer.counts.values())
        for name, weight in rewirer.parameters.items():
            weight.data.copy_(rewirer.masks[name])
        if rewirer.step():
            ratios.append(sum(rewirer.counts.values()) / before)
    assert sum(rewirer.counts.values()) == 100
    assert len(ratios) == 10 and max(ratios) - min(ratios) < 0.02


# Where to be sparse: by the index.


@pytest.mark.parametrize("scope", ["layer", "neuron"])
@pytest.mark.parametrize("change", ["rewire", "fall"])
def test_connections_are_shared_out_by_what_is_worth_keeping(scope, change):
    """Weights of the first layer are equal, those of the second very unequal: the first is worth more of its own."""
    rewirer = made(scope=scope, share="index", min_fan_in=0, eta=0.0, gamma=1.5, distribution="uniform")
    for weight, name in zip(rewirer.parameters.values(), rewirer.names, strict=True):
        drawn = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)).abs() + 0.1
        values = torch.ones(weight.shape) if name == "0.weight" else drawn**3
        weight.data.copy_(values * rewirer.masks[name])
    before, total = rewirer.counts, sum(rewirer.counts.values())
    units = rewirer._measured(rewirer._magnitudes(), rewirer._active())
    worth = np.array([keep_bound(count, index, 0.5, 1.0, 0.0) for count, index, _ in units], float)
    changes = rewirer.rewire() if change == "rewire" else rewirer.fall()
    after = sum(rewirer.counts.values())
    assert after == total if change == "rewire" else after < total
    rows = [mask.flatten(1).sum(1).numpy() for mask in rewirer.masks.values()]
    found = np.concatenate(rows) if scope == "neuron" else np.array([row.sum() for row in rows])
    wanted = worth * after / worth.sum()
    there = np.array([count for count, _, _ in units])
    size = np.array([part.stop - part.start for part in rewirer._layout.units])
    most = there if change == "fall" else size
    if np.all(wanted <= 0.9 * most):
        assert np.abs(found - wanted).max() <= 2
    else:
        # What does not fit goes to the others: none that has room is below its share.
        assert np.all(found >= np.minimum(np.floor(wanted), 0.8 * most) - 1)
    assert rewirer.counts["0.weight"] / after > before["0.weight"] / total
    if change == "rewire":
        assert any(one.pruned != one.grown for one in changes)
        assert sum(one.pruned - one.grown for one in changes) == 0


@pytest.mark.parametrize(("floor", "least"), [(0.5, 50), (0.0, 0)])
def test_a_small_layer_stays_alive(floor, least):
    """One weight of the second layer is all that the index finds worth keeping there."""
    rewirer = made(share="index", share_floor=floor, min_fan_in=0, distribution="uniform", target=0.5)
    for _ in range(12):
        for weight, name in zip(rewirer.parameters.values(), rewirer.names, strict=True):
            values = torch.ones(weight.shape)
            if name == "2.weight":
                values = torch.where(torch.arange(weight.numel()).reshape(weight.shape) % 7 == 0, 1.0, 1e-6)
            weight.data.copy_(values * rewirer.masks[name])
            rewirer._growth.scores[name] = torch.rand(weight.shape, generator=torch.Generator().manual_seed(3))
        rewirer.rewire()
    assert sum(rewirer.counts.values()) == 500
    assert rewirer.counts["2.weight"] >= least
    assert rewirer.counts["2.weight"] < 100


def test_a_state_of_before_shares_existed_goes_on():
    rewirer = made()
    state = rewirer.state_dict()
    for name in ("share", "share_floor"):
        del state["document"]["options"][name]
    made().load_state_dict(state)
    with pytest.raises(InputError, match="other options"):
        made(share="index").load_state_dict(state)


def test_a_final_fall_takes_all_that_is_above_the_target():
    rewirer = made(target=0.08, min_fan_in=2)
    rewirer.fall(final=True)
    assert sum(rewirer.counts.values()) == round(0.08 * 1000)
    assert min(int(mask.sum(1).min()) for mask in rewirer.masks.values()) >= 2


@pytest.mark.parametrize("preset", ["adaptive", "set", "static"])
@pytest.mark.parametrize("key", ["1", "2.weight"])
def test_layers_with_their_own_target(preset, key):
    options = {"start_density": 0.5} if preset == "adaptive" else {}
    rewirer = PQRewirer(
        two_layers(),
        steps_per_epoch=1,
        epochs=50,
        preset=preset,
        target_density=0.2,
        layer_target={key: 0.4},
        **options,
    )
    if preset == "adaptive":
        rewirer.fall(final=True)
    assert rewirer.counts == {"0.weight": 160, "2.weight": 80}
    with pytest.raises(InputError, match="no layer '7'"):
        made(layer_target={"7": 0.4})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layer_target": {"0": 0.1, "0.weight": 0.4}}, r"layer_target names layer 0 \(0\.weight\) twice"),
        ({"layer_target": {"²": 0.5}}, "no layer '²'"),
        ({"seed": -1}, "seed = -1 must be a whole number, 0 or more"),
        ({"steps_per_epoch": "3"}, "steps_per_epoch = '3' must be a whole number, 1 or more"),
        ({"epochs": 0}, "epochs = 0 must be a whole number, 1 or more"),
        ({"rewire_every": 2}, "rewire_every: an iteration of 2 epochs has no rewiring"),
        ({"epochs": 2}, "^epochs = 2 leaves no iteration"),
    ],
)
def test_what_a_rewirer_cannot_take_is_refused_in_its_own_words(options, words):
    with pytest.raises(InputError, match=words) as caught:
        PQRewirer(two_layers(), **{"steps_per_epoch": 1, "epochs": 10, **options})
    assert "train." not in str(caught.value)


def test_a_layer_cannot_rise_to_its_target():
    with pytest.raises(InputError, match="raise start_density or lower layer_target"):
        made(density=0.2, target=0.1, layer_target={"0": 0.9})


def test_the_fraction_lost_to_rounding_is_carried():
    """Rows of 12 weights at c about .1: floor alone would hardly ever prune."""
    model = nn.Linear(12, 4, bias=False)
    rewirer = made(model, scope="neuron", density=1, target=0.1, min_fan_in=0, eta=0.05, gamma=0.37, landing="ratio")
    with torch.no_grad():
        model.weight.fill_(1.0)
    assert 0.1 < 12 * rewiring_fraction(12, 0.0, rewirer.config) % 1 < 0.9
    pruned, expected = 0, 0.0
    for _ in range(6):
        rows = [int(row.sum()) for row in rewirer.masks["weight"]]
        expected += sum(count * rewiring_fraction(count, 0.0, rewirer.config) for count in rows)
        pruned += rewirer.fall()[0].pruned
    carried = rewirer._ratios.carry["fall"]
    assert ((carried >= 0) & (carried < 1)).all()
    assert pruned + carried.sum() == pytest.approx(expected)
    assert pruned > 0


def test_momentum_is_an_exponential_mean_of_the_dense_gradient_in_the_window():
    model = nn.Linear(4, 4, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    rewirer = PQRewirer(
        model, optimizer, steps_per_epoch=5, epochs=9, momentum=0.75, score_batches=2, target_density=0.4
    )
    for step in range(1, 5):
        model.weight.grad = torch.full((4, 4), 2.0)
        optimizer.step()
        assert (model.weight.grad == 2.0 * rewirer.masks["weight"]).all()
        rewirer.step()
        assert bool(rewirer._growth.scores) == (step == 4)
    model.weight.grad = torch.full((4, 4), 2.0)
    rewirer.mask_gradients()
    optimizer.step()
    assert float(rewirer._growth.scores["weight"][0, 0]) == pytest.approx(2 * (1 - 0.75**2))
    assert rewirer.step()[0].change == "rewire"
    assert not rewirer._growth.scores


def test_gradient_growth_looks_at_the_last_batch_alone():
    model = nn.Linear(30, 1, bias=False)
    rewirer = PQRewirer(model, steps_per_epoch=3, epochs=9, preset="rigl", target_density=0.3)
    start = rewirer.masks["weight"].clone()
    for step in range(3):
        model.weight.grad = torch.arange(30.0)[None] * (1 if step == 2 else -1e6 * (torch.arange(30) % 2)[None])
        changes = rewirer.step()
    new = torch.nonzero(~start & rewirer.masks["weight"])[:, 1].tolist()
    free = torch.nonzero(~start)[:, 1].tolist()
    assert new == free[-changes[0].grown :]


def test_growth_without_any_gradient_is_refused():
    rewirer = PQRewirer(two_layers(), steps_per_epoch=1, epochs=10)
    with pytest.raises(InputError, match="no gradient was seen"):
        rewirer.rewire()


def run(preset, epochs=20, target=0.1, scope="layer", seed=0, **options):
    """A small regression trained under a preset: the model, the rewirer and the densities after each epoch."""
    torch.manual_seed(seed)
    model = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    if preset != "dense":
        options["target_density"] = target
    if preset not in ("dense", "static"):
        options["scope"] = scope
    rewirer = PQRewirer(model, optimizer, preset=preset, steps_per_epoch=4, epochs=epochs, seed=seed, **options)
    random = torch.Generator().manual_seed(1)
    x = torch.randn(4, 16, 40, generator=random)
    y = torch.randn(4, 16, 10, generator=random)
    densities = []
    for _ in range(epochs):
        for batch in range(4):
            optimizer.zero_grad()
            ((model(x[batch]) - y[batch]) ** 2).mean().backward()
            optimizer.step()
            rewirer.step()
            for name, weight in rewirer.parameters.items():
                assert (weight[~rewirer.masks[name]] == 0).all()
                state = optimizer.state[weight]["momentum_buffer"]
                assert (state[~rewirer.masks[name]] == 0).all()
        densities.append(rewirer.density)
    return model, rewirer, densities


@pytest.mark.parametrize("preset", PRESETS)
def test_each_preset_ends_at_the_same_density(preset):
    _, rewirer, densities = run(preset)
    assert densities[-1] == (1.0 if preset == "dense" else 0.1)
    falling = preset in ("adaptive", "fixed", "sap")
    assert densities[0] == (1.0 if preset == "dense" else 0.5 if falling else 0.1)
    kinds = {(change.change, change.pruned == change.grown) for change in rewirer.history}
    expected = {
        "adaptive": {("rewire", True), ("fall", False)},
        "fixed": {("rewire", True), ("fall", False)},
        "sap": {("fall", False)},
        "static": set(),
        "dense": set(),
    }
    assert kinds - {("fall", True)} == expected.get(preset, {("rewire", True)})
    assert rewirer.settled
    assert all(change.epoch <= 14 for change in rewirer.history)


def test_each_presets_ratio():
    def ratios(preset):
        return [change.fraction for change in run(preset)[1].history if change.layer == "0.weight"]

    assert set(ratios("set")) == {0.3}
    # Seven falls by this ratio take .5 to .1.
    assert set(np.round(ratios("fixed"), 12)) == {round(1 - 0.2 ** (1 / 7), 12)}
    cosine = ratios("rigl")
    assert cosine == sorted(cosine, reverse=True)
    assert cosine[0] == pytest.approx(0.3) and cosine[7] == pytest.approx(0.15)
    adaptive = ratios("adaptive")
    assert len(set(adaptive)) > 5 and all(0 < c < 0.9 for c in adaptive)


def test_random_growth_follows_the_seed():
    first, again, other = (run("set", seed=seed)[1] for seed in (3, 3, 4))
    assert all(torch.equal(first.masks[name], again.masks[name]) for name in first.masks)
    assert not all(torch.equal(first.masks[name], other.masks[name]) for name in first.masks)


def test_restart_returns_to_the_first_values():
    model = two_layers()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    rewirer = PQRewirer(model, optimizer, preset="sap", restart=True, steps_per_epoch=1, epochs=10, target_density=0.3)
    first = copies(dict(model.named_parameters()))
    for step in range(2):
        optimizer.zero_grad()
        model(torch.ones(3, 40)).square().sum().backward()
        optimizer.step()
        changes = rewirer.step()
        assert bool(changes) == (step == 1)
    for name, parameter in model.named_parameters():
        mask = rewirer.masks.get(name)
        assert torch.equal(parameter, first[name] if mask is None else first[name] * mask)
        assert not optimizer.state[parameter]["exp_avg"].any()


def test_a_hook_stops_the_fall():
    asked = []

    def fits(counts):
        asked.append(sum(counts.values()))
        return asked[-1] <= 350

    rewirer = made(target=0.1, stop=fits, epochs=60)
    for _ in range(60):
        for name, weight in rewirer.parameters.items():
            weight.data.copy_(torch.randn(weight.shape) * rewirer.masks[name])
            weight.grad = torch.randn(weight.shape)
        rewirer.step()
    assert rewirer.settled and asked == sorted(asked, reverse=True)
    # asked again after each rewiring since
    assert asked.count(asked[-1]) > 2
    assert sum(rewirer.counts.values()) == asked[-1] <= 350 < min(set(asked) - {asked[-1]})
    assert asked[-1] > 100


def test_density_falls_on_when_the_hook_no_longer_holds_after_a_rewiring():
    answers = {"held": 0}

    def fits(counts):
        if sum(counts.values()) > 350:
            return False
        answers["held"] += 1
        # yes after the fall, no after the rewiring that follows, yes from the next fall on
        return answers["held"] != 2

    rewirer = made(target=0.1, stop=fits, epochs=60)
    settled, densities = [], []
    for _ in range(60):
        for name, weight in rewirer.parameters.items():
            weight.data.copy_(torch.randn(weight.shape) * rewirer.masks[name])
            weight.grad = torch.randn(weight.shape)
        rewirer.step()
        settled.append(rewirer.settled)
        densities.append(rewirer.density)
    first = settled.index(True)
    assert settled[first : first + 4] == [True, False, True, True] and all(settled[first + 2 :])
    assert densities[first] == densities[first + 1] > densities[first + 2] == densities[-1] > 0.1


def test_where_density_is_constant_a_hook_changes_nothing():
    options = {"preset": "set", "target_density": 0.3, "rewire_until": 1.0, "min_fan_in": 0}
    rewirer = PQRewirer(two_layers(), steps_per_epoch=1, epochs=4, stop=lambda counts: False, **options)
    for _ in range(4):
        rewirer.step()
        assert rewirer.settled
    assert any(change.grown for change in rewirer.history)


@pytest.mark.parametrize(("enough", "low", "high"), [(300, 250, 300), (0, 0, 64)])
def test_the_last_fall_goes_in_steps_where_a_hook_is_asked(enough, low, high):
    """One iteration alone, far above the target: without the hook all would go at once."""
    asked = []

    def fits(counts):
        asked.append(sum(counts.values()))
        return asked[-1] <= enough

    rewirer = made(target=0.1, stop=fits, epochs=3)
    for _ in range(3):
        for weight in rewirer.parameters.values():
            weight.grad = torch.ones_like(weight)
        rewirer.step()
    assert rewirer.settled and len(asked) > 2
    target = round(0.1 * sum(mask.numel() for mask in rewirer.masks.values()))
    assert max(low, target) <= sum(rewirer.counts.values()) <= max(high, target)
    gone = sum(change.pruned - change.grown for change in rewirer.history)
    assert gone == asked[0] - sum(rewirer.counts.values())


def test_the_turning_point_stops_the_fall(monkeypatch):
    rewirer = made(target=0.02, stop_at="turning-point", min_fan_in=0, epochs=100, epochs_per_iteration=2)
    indices = iter([0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.1])
    monkeypatch.setattr(rewirer_module, "mean_index", lambda units: next(indices))
    densities = []
    while not rewirer.settled:
        for weight in rewirer.parameters.values():
            weight.data.normal_()
            weight.grad = torch.randn(weight.shape)
        rewirer.step()
        densities.append(rewirer.density)
    assert len(densities) == 14
    assert densities[-1] == densities[-2] == densities[-3] > 0.02


def test_without_a_turning_point_density_falls_without_a_last_jump():
    _, rewirer, densities = run("adaptive", target=0.02, stop_at="turning-point", min_fan_in=0)
    assert rewirer.settled
    assert densities[-1] > 0.1
    assert densities[-1] == densities[-3]


OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.02, weight_decay=0.1, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.1),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, weight_decay=0.1, nesterov=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.02, momentum=0.5),
}


# Layers that die give no gradient to grow by.
@pytest.mark.filterwarnings("ignore:PQRewirer. the rewiring after step:codesign.basics.errors.CodesignWarning")
@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(["adaptive", "constant", "fixed", "set", "rigl", "sap"]),
    st.sampled_from(
        [("layer", "kept"), ("neuron", "kept"), ("global", "kept"), ("layer", "index"), ("neuron", "index")]
    ),
    st.sampled_from(sorted(OPTIMIZERS)),
    st.integers(0, 3),
    st.booleans(),
    st.integers(0, 10_000),
)
def test_masks_and_optimizer_state_keep_their_invariants(preset, scope_and_share, kind, min_fan_in, hooked, seed):
    scope, share = scope_and_share
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 6))
    optimizer = OPTIMIZERS[kind](model.parameters())
    rewirer = PQRewirer(
        model, optimizer if hooked else None, preset=preset, scope=scope, share=share, min_fan_in=min_fan_in,
        target_density=0.2, steps_per_epoch=2, epochs=12, seed=seed,
    )  # fmt: skip
    total, falls = 4 * 18 + 64 * 6, rewirer.rules.falls
    assert sum(rewirer.counts.values()) == round((0.5 if falls else 0.2) * total)
    for _ in range(24):
        optimizer.zero_grad()
        model(torch.randn(5, 2, 6, 6)).square().mean().backward()
        optimizer.step()
        before, count = copies(rewirer.masks), sum(rewirer.counts.values())
        changes = rewirer.step()
        assert {change.layer for change in changes} in (set(), set(rewirer.masks))
        now = sum(rewirer.counts.values())
        assert now == count - sum(change.pruned - change.grown for change in changes)
        assert now == count or (changes and changes[0].change == "fall" and now < count)
        for name, weight in rewirer.parameters.items():
            mask = rewirer.masks[name]
            assert (weight[~mask] == 0).all()
            assert int(mask.flatten(1).sum(1).min()) >= min(min_fan_in, mask[0].numel())
            moved = before[name] != mask
            assert (weight[moved] == 0).all()
            for value in optimizer.state[weight].values():
                if hooked and value.shape == weight.shape:
                    assert (value[moved | ~mask] == 0).all()
    assert sum(rewirer.counts.values()) == round(0.2 * total)


@pytest.mark.parametrize("preset", ["adaptive", "rigl", "set", "sap"])
def test_saved_state_continues_bit_for_bit(preset, tmp_path):
    options = {"restart": True} if preset == "sap" else {}

    def fresh(seed):
        torch.manual_seed(seed)
        model = two_layers() if seed == 0 else nn.Sequential(nn.Linear(40, 20), nn.ReLU(), nn.Linear(20, 10))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        rewirer = PQRewirer(
            model, optimizer, preset=preset, scope="neuron", steps_per_epoch=3, epochs=12, target_density=0.1,
            **options,
        )  # fmt: skip
        return model, optimizer, rewirer

    def train(parts, steps):
        model, optimizer, rewirer = parts
        for step in steps:
            optimizer.zero_grad()
            x = torch.randn(8, 40, generator=torch.Generator().manual_seed(step))
            model(x).square().mean().backward()
            optimizer.step()
            rewirer.step()

    whole, first, second = fresh(0), fresh(0), fresh(5)
    train(whole, range(36))
    # The middle of a scoring window, between two changes.
    train(first, range(8))
    torch.save([part.state_dict() for part in first], tmp_path / "saved.pt")
    for part, state in zip(second, torch.load(tmp_path / "saved.pt", weights_only=True), strict=True):
        part.load_state_dict(state)
    train(second, range(8, 36))
    for ours, theirs in zip(whole[0].parameters(), second[0].parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert all(torch.equal(whole[2].masks[name], second[2].masks[name]) for name in whole[2].masks)
    assert whole[2].history == second[2].history and len(whole[2].history) > 4


def test_a_state_of_other_options_or_models_is_refused():
    state = made().state_dict()
    with pytest.raises(InputError, match="other options"):
        made(target=0.2).load_state_dict(state)
    with pytest.raises(InputError, match="of other parameters"):
        made(two_layers(inputs=30)).load_state_dict(state)


def test_parameters_are_chosen_by_name():
    rewirer = PQRewirer(two_layers(), steps_per_epoch=1, epochs=10, exclude=["2.*"])
    assert list(rewirer.masks) == ["0.weight"]
    rewirer = PQRewirer(two_layers(), steps_per_epoch=1, epochs=10, include=["2.weight"])
    assert list(rewirer.masks) == ["2.weight"] and rewirer.density == 0.5
    assert list(PQRewirer(two_layers(), steps_per_epoch=1, epochs=10, include="2.*").masks) == ["2.weight"]
    assert list(PQRewirer(two_layers(), steps_per_epoch=1, epochs=10, exclude="2.weight").masks) == ["0.weight"]
    with pytest.raises(InputError, match=r"exclude .fc. matches no parameter; there are 0\.weight"):
        PQRewirer(two_layers(), steps_per_epoch=1, epochs=10, exclude=["fc"])
    with pytest.raises(InputError, match="no trainable parameter"):
        PQRewirer(nn.BatchNorm1d(4), steps_per_epoch=1, epochs=10)
    model = two_layers()
    with pytest.raises(InputError, match=r"the optimizer does not hold '0\.weight'"):
        PQRewirer(model, torch.optim.SGD(model[2].parameters(), lr=0.1), steps_per_epoch=1, epochs=10)


def test_removing_the_hook_leaves_gradients_alone():
    model = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    rewirer = PQRewirer(model, optimizer, steps_per_epoch=1, epochs=10)
    rewirer.detach()
    model[0].weight.grad = torch.ones(20, 40)
    optimizer.step()
    assert model[0].weight.grad.all()


def test_wrapped_models_keep_their_names():
    assert list(PQRewirer(torch.compile(two_layers(), backend="eager"), steps_per_epoch=1, epochs=10).masks) == [
        "0.weight",
        "2.weight",
    ]


@needs("snntorch")
def test_layers_inside_snntorch_modules():
    import snntorch as snn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fire = nn.Conv2d(1, 4, 3, bias=False), snn.Leaky(beta=0.9, learn_beta=True)
            self.recurrent = snn.RLeaky(beta=0.8, linear_features=144)
            self.head, self.out = nn.Linear(144, 3), snn.Leaky(beta=0.9, output=True)

        def forward(self, x):
            first, last = self.fire.init_leaky(), self.out.init_leaky()
            spikes, memory = self.recurrent.init_rleaky()
            total = torch.zeros(len(x), 3)
            for _ in range(4):
                s, first = self.fire(self.conv(x), first)
                spikes, memory = self.recurrent(s.flatten(1), spikes, memory)
                s, last = self.out(self.head(spikes), last)
                total = total + last
            return total

    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    rewirer = PQRewirer(model, optimizer, steps_per_epoch=6, epochs=6, target_density=0.2)
    assert set(rewirer.masks) == {"conv.weight", "recurrent.recurrent.weight", "head.weight"}
    labels = torch.arange(48) % 3
    x = torch.zeros(48, 1, 8, 8)
    for sample, label in enumerate(labels):
        x[sample, 0, int(label) * 2 : int(label) * 2 + 3] = 1.0
    x += 0.2 * torch.rand(x.shape)
    losses = []
    for _ in range(36):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        rewirer.step()
        losses.append(float(loss.detach()))
    assert rewirer.density == pytest.approx(0.2, abs=1e-4)
    assert losses[-1] < 0.5 * losses[0]
    for name, mask in rewirer.masks.items():
        assert (rewirer.parameters[name][~mask] == 0).all()


def test_the_documented_example_runs(capsys):
    text = (Path(__file__).parents[2] / "docs" / "rewiring.md").read_text()
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "PQRewirer" in block)
    torch.manual_seed(0)
    exec(code, {})
    assert capsys.readouterr().out.startswith("0.0999")


def bank_spread(mask, lanes):
    """Largest difference between the banks of neurons in connections of one source."""
    counts = bank_counts(np.asarray(mask), lanes)
    return int((counts.max(axis=1) - counts.min(axis=1)).max())


@pytest.mark.parametrize(("neurons", "sources", "lanes"), [(16, 40, 4), (35, 30, 8), (9, 5, 2), (13, 100, 3)])
@pytest.mark.parametrize("density", [0.1, 0.37, 0.9])
@pytest.mark.parametrize("min_fan_in", [0, 1, 3])
def test_first_masks_in_balance_have_exact_counts_and_fan_in(neurons, sources, lanes, density, min_fan_in):
    count = max(round(density * neurons * sources), min_fan_in * neurons)
    mask = balanced_mask((neurons, sources), count, min_fan_in, lanes, np.random.default_rng(0))
    assert mask.sum() == count and mask.sum(axis=1).min() >= min(min_fan_in, sources)
    assert bank_spread(mask, lanes) <= 1


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.booleans(), st.integers(2, 5))
def test_every_part_of_the_balanced_order_is_a_change_in_balance(seed, growing, lanes):
    random = np.random.default_rng(seed)
    shape = (int(random.integers(2 * lanes, 20)), int(random.integers(1, 9)))
    mask = balanced_mask(shape, int(random.integers(0, math.prod(shape) + 1)), 0, lanes, random)
    # Few distinct keys, so that ties are common; some candidates are withheld, as min_fan_in does.
    keys = random.integers(0, 4, shape).astype(float)
    candidates = (mask ^ growing) & (random.random(shape) < 0.9)
    order = balanced_order(keys, candidates, mask, lanes, growing=growing)
    assert np.unique(order).size == order.size and candidates.ravel()[order].all()
    for position in order.tolist():
        mask.ravel()[position] = growing
        assert bank_spread(mask, lanes) <= 1
    free = (mask ^ growing) & candidates
    for position in np.flatnonzero(free).tolist():
        # What was left out cannot go next either.
        changed = mask.copy()
        changed.ravel()[position] = growing
        assert bank_spread(changed, lanes) > 1


def test_the_balanced_order_follows_the_keys_where_it_may():
    mask = np.ones((4, 2), bool)
    keys = np.array([[1.0, 5.0], [8.0, 6.0], [2.0, 7.0], [9.0, 4.0]])
    # Source 0: 1 goes, then of bank 1 the 8 before the 2; source 1: 4, 5, then 6 before 7.
    order = balanced_order(keys, mask, mask, 2, growing=False)
    assert keys.ravel()[order].tolist() == [1, 4, 5, 6, 7, 8, 2, 9]


@pytest.mark.parametrize("preset", [preset for preset in PRESETS if preset != "dense"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_balance_is_kept_by_every_preset_to_the_exact_density(preset, scope):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(50, 24), nn.Linear(24, 5))
    optimizer = torch.optim.Adam(model.parameters())
    options = {"preset": preset, "target_density": 0.2, "lane_balance": 4}
    if preset != "static":
        options |= {"scope": scope, "rewire_until": 0.9}
    if preset in ("adaptive", "constant", "fixed"):
        options["score_batches"] = 2
    rewirer = PQRewirer(model, optimizer, steps_per_epoch=3, epochs=12, **options)
    changed = 0
    for _ in range(36):
        optimizer.zero_grad()
        model(torch.randn(16, 50)).square().sum().backward()
        optimizer.step()
        changed += sum(change.pruned for change in rewirer.step())
        assert bank_spread(rewirer.masks["0.weight"], 4) <= 1
        # Two banks of a divisor of P are P / 2 banks each.
        assert bank_spread(rewirer.masks["0.weight"], 2) <= 2
    assert sum(rewirer.counts.values()) == round(0.2 * (50 * 24 + 24 * 5))
    assert changed > 50 or preset == "static"


def test_balance_within_single_neurons_is_refused():
    with pytest.raises(InputError, match="lane_balance has no choice left with scope = 'neuron'"):
        rewirer_of_options(lane_balance=4, scope="neuron")
    with pytest.raises(InputError, match="lane_balance has no meaning with preset = 'dense'"):
        rewirer_of_options(lane_balance=4, preset="dense")


def rewirer_of_options(**options):
    return PQRewirer(nn.Linear(8, 8), None, steps_per_epoch=1, epochs=4, **options)
