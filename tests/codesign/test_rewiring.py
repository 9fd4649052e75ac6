"""PQ index, rewiring fractions against the method's check values, and the rules of pruning and regrowth."""

import itertools

import numpy as np
import pytest
import torch

from codesign.config import RewiringConfig
from codesign.errors import InputError, UnsupportedError
from codesign.train.rewiring import (
    PQRewirer,
    keep_bound,
    layer_counts,
    pq_index,
    random_mask,
    rewiring_fraction,
)

N = 400_000


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


def test_redrawn_gaussian_weights_give_the_methods_density_trajectory():
    density, trajectory = 0.5, []
    fraction = rewiring_fraction(N, pq_index(quantiles("gaussian")), RewiringConfig())
    for _ in range(10):
        trajectory.append(density)
        density *= 1 - fraction
    expected = [0.50, 0.4225, 0.357, 0.302, 0.255, 0.215, 0.182, 0.154, 0.130, 0.110]
    assert trajectory == pytest.approx(expected, abs=1.1e-3)


def test_index_is_zero_for_equal_weights_and_greatest_for_one_hot():
    one_hot = np.eye(1, 50)[0]
    assert pq_index(np.full(50, -3.0)) == 0.0
    assert pq_index(one_hot) == pytest.approx(1 - 50 ** (1 / 1 - 1 / 0.5))
    assert pq_index([]) == 0.0
    assert pq_index(np.zeros(7)) == 0.0


def test_index_ignores_scale_sign_and_cloning():
    weights = np.random.default_rng(3).normal(size=200)
    index = pq_index(weights)
    assert pq_index(-1e-30 * weights) == pytest.approx(index)
    assert pq_index(np.concatenate([weights, -weights])) == pytest.approx(index)


def test_keeping_fewer_weights_than_the_bound_always_loses_norm():
    """The bound's meaning: if the r largest hold ||w||_p up to (1 + eta), then r is at least the bound."""
    random = np.random.default_rng(5)
    for _ in range(50):
        weights = np.sort(np.abs(random.standard_t(random.integers(1, 9), size=random.integers(2, 200))))[::-1]
        p, q, eta = 0.5, 1.0, 0.001
        bound = keep_bound(weights.size, pq_index(weights, p, q), p, q, eta)
        for r in range(1, bound):
            removed, kept = (weights[r:] ** p).sum(), (weights[:r] ** p).sum()
            assert removed > eta * kept


def test_fraction_respects_gamma_beta_and_empty_units():
    assert rewiring_fraction(0, 0.3, RewiringConfig()) == 0.0
    assert rewiring_fraction(1000, 0.99, RewiringConfig(beta=0.4)) == 0.4
    half = rewiring_fraction(100_000, 0.15, RewiringConfig(gamma=0.5))
    assert half == pytest.approx(rewiring_fraction(100_000, 0.15, RewiringConfig()) / 2)


@pytest.mark.parametrize("distribution", ["erdos-renyi", "uniform"])
@pytest.mark.parametrize("density", [0.01, 0.1, 0.37, 0.5, 1.0])
def test_layer_counts_are_exact(distribution, density):
    shapes = [(128, 784), (40, 128), (10, 40)]
    counts = layer_counts(shapes, density, distribution)
    sizes = [o * i for o, i in shapes]
    assert sum(counts) == round(density * sum(sizes))
    assert all(0 <= count <= size for count, size in zip(counts, sizes, strict=True))


def test_erdos_renyi_is_denser_where_layers_are_small():
    counts = layer_counts([(100, 1000), (100, 100)], 0.1, "erdos-renyi")
    densities = counts[0] / 1e5, counts[1] / 1e4
    assert densities[1] / densities[0] == pytest.approx((200 / 1e4) / (1100 / 1e5), rel=1e-3)


def test_too_low_a_density_for_the_fan_in_is_refused():
    with pytest.raises(InputError, match="too few for min_fan_in = 3"):
        layer_counts([(100, 10)], 0.1, "uniform", min_fan_in=3)


def test_random_masks_have_exact_counts_and_fan_in():
    mask = random_mask((50, 30), 120, 2, np.random.default_rng(0))
    assert mask.sum() == 120
    assert mask.sum(axis=1).min() >= 2
    assert (mask == random_mask((50, 30), 120, 2, np.random.default_rng(0))).all()
    assert random_mask((3, 4), 12, 1, np.random.default_rng(0)).all()


def rewirer(scope="layer", shape=(20, 40), density=0.5, target=0.1, min_fan_in=1, **options) -> PQRewirer:
    random = np.random.default_rng(1)
    masks, weights = [], []
    for rows, columns in (shape, (10, shape[0])):
        mask = random_mask((rows, columns), round(density * rows * columns), min_fan_in, random)
        masks.append(torch.from_numpy(mask))
        weights.append(torch.from_numpy(random.normal(size=mask.shape).astype(np.float32) * mask))
    config = RewiringConfig(scope=scope, start_density=density, target_density=target, min_fan_in=min_fan_in, **options)
    made = PQRewirer(weights, masks, config)
    made.accumulate([torch.from_numpy(random.normal(size=w.shape).astype(np.float32)) for w in weights])
    return made


@pytest.mark.parametrize("scope", ["layer", "neuron"])
def test_rewiring_holds_the_count_and_moves_the_right_positions(scope):
    made = rewirer(scope, min_fan_in=0)
    before = [mask.clone() for mask in made.masks]
    weights = [weight.clone() for weight in made.weights]
    changes, fresh = made.rewire()
    for layer, change in enumerate(changes):
        gone = before[layer] & ~made.masks[layer]
        new = ~before[layer] & made.masks[layer]
        assert change.pruned == change.grown == int(gone.sum()) == int(new.sum()) > 0
        assert (made.weights[layer][gone | new] == 0).all()
        assert (fresh[layer] == (gone | new)).all()
        kept = before[layer] & ~gone
        assert torch.equal(made.weights[layer][kept], weights[layer][kept])
        if scope == "layer":
            assert weights[layer][gone].abs().max() <= weights[layer][kept].abs().min()
            scores = made.momentum[layer].abs()
            assert scores[new].min() >= scores[~before[layer] & ~new].max()
        else:
            assert torch.equal(before[layer].sum(1), made.masks[layer].sum(1))


def test_just_pruned_positions_are_not_regrown():
    made = rewirer()
    before = [mask.clone() for mask in made.masks]
    # The largest scores lie on active positions: regrowth must not go back to the ones just pruned.
    made.momentum = [mask.float() * 1e6 for mask in before]
    changes, _ = made.rewire()
    for layer, change in enumerate(changes):
        assert int((before[layer] & ~made.masks[layer]).sum()) == change.pruned > 0


def test_a_dense_layer_is_not_thinned_by_rewiring():
    made = rewirer(density=1.0, target=0.5)
    changes, _ = made.rewire()
    assert all(mask.all() for mask in made.masks)
    assert [change.pruned for change in changes] == [0, 0]


def test_equal_magnitudes_are_pruned_by_index():
    weights = [torch.ones(2, 5), torch.ones(1, 2)]
    masks = [torch.ones(2, 5, dtype=torch.bool), torch.ones(1, 2, dtype=torch.bool)]
    made = PQRewirer(weights, masks, RewiringConfig(start_density=1, target_density=8 / 12, min_fan_in=1))
    made.fall(final=True)
    assert sum(made.counts) == 8
    pruned = torch.nonzero(~made.masks[0].reshape(-1)).reshape(-1).tolist()
    assert pruned == list(range(len(pruned)))


@pytest.mark.parametrize("scope", ["layer", "neuron"])
def test_falling_lands_exactly_on_the_target_and_stays(scope):
    made = rewirer(scope, target=0.3)
    total = sum(mask.numel() for mask in made.masks)
    random = np.random.default_rng(2)
    counts = [sum(made.counts)]
    while not made.on_target:
        for weight, mask in zip(made.weights, made.masks, strict=True):
            weight.copy_(torch.from_numpy(random.normal(size=weight.shape).astype(np.float32)) * mask)
        made.fall()
        counts.append(sum(made.counts))
    assert counts[-1] == round(0.3 * total)
    assert len(counts) >= 3
    assert all(a > b for a, b in itertools.pairwise(counts))
    made.fall()
    assert sum(made.counts) == counts[-1]


def test_a_final_fall_takes_all_that_is_above_the_target():
    made = rewirer(target=0.08, min_fan_in=2)
    made.fall(final=True)
    assert sum(made.counts) == round(0.08 * 1000)
    assert min(int(mask.sum(1).min()) for mask in made.masks) >= 2


def test_layers_with_their_own_target():
    made = rewirer(target=0.2, layer_target={"1": 0.4})
    made.fall(final=True)
    assert made.counts == [160, 80]
    with pytest.raises(InputError, match="no layer '7'"):
        rewirer(layer_target={"7": 0.4})


def test_the_fraction_lost_to_rounding_is_carried():
    """Rows of 12 weights at c about .1: floor alone would hardly ever prune."""
    weights = [torch.ones(4, 12)]
    masks = [torch.ones(4, 12, dtype=torch.bool)]
    config = RewiringConfig(scope="neuron", start_density=1, target_density=0.1, min_fan_in=0, gamma=1, eta=0.05)
    made = PQRewirer(weights, masks, config)
    fraction = rewiring_fraction(12, 0.0, config)
    assert 0 < 12 * fraction < 2
    pruned = 0
    expected = 0.0
    for _ in range(6):
        expected += sum(int(m.sum()) * rewiring_fraction(int(m.sum()), 0.0, config) for m in made.masks[0])
        changes, _ = made.fall()
        pruned += changes[0].pruned
    carried = made.carry["fall"][0]
    assert ((carried >= 0) & (carried < 1)).all()
    assert pruned + carried.sum() == pytest.approx(expected)
    assert pruned > 0


def test_momentum_is_an_exponential_mean_of_the_dense_gradient():
    made = rewirer(momentum=0.75)
    made.reset_momentum()
    gradients = [torch.full_like(weight, 2.0) for weight in made.weights]
    made.accumulate(gradients)
    made.accumulate(gradients)
    assert float(made.momentum[0][0, 0]) == pytest.approx(2 * (1 - 0.75**2))


def test_dense_mode_has_no_rewirer():
    with pytest.raises(UnsupportedError, match="'dense' does not rewire"):
        PQRewirer([torch.ones(2, 2)], [torch.ones(2, 2, dtype=torch.bool)], RewiringConfig(mode="dense"))
