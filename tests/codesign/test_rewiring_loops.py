"""The rewirer in training loops, optimisers and model code of other people."""

import copy
import itertools
import math
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from codesign.basics.errors import CodesignWarning, InputError, UnsupportedError
from codesign.train.rewiring import PQRewirer

BATCHES = 4
EPOCHS = 8


def network(seed=0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(20, 24), nn.ReLU(), nn.Linear(24, 5))


def batches():
    random = torch.Generator().manual_seed(1)
    return [(torch.randn(16, 20, generator=random), torch.randint(5, (16,), generator=random)) for _ in range(BATCHES)]


def loss_of(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)


def rewirer_of(model, optimizer, preset="constant", **options):
    options = {"steps_per_epoch": BATCHES, "epochs": EPOCHS} | options
    if preset not in ("static", "dense"):
        options = {"rewire_until": 0.9} | options
    return PQRewirer(model, optimizer, preset=preset, target_density=0.2, **options)


def parts(seed=0, make=sgd, **options):
    model = network(seed)
    optimizer = make(model)
    return model, optimizer, rewirer_of(model, optimizer, **options)


def train(model, optimizer, rewirer, steps):
    """The usual loop, over numbered steps."""
    data = batches()
    for step in steps:
        optimizer.zero_grad()
        loss_of(model, data[step % BATCHES]).backward()
        optimizer.step()
        rewirer.step()


def check_invariants(rewirer, *optimizers):
    """Pruned weights and their optimiser state are exactly 0."""
    for name, weight in rewirer.parameters.items():
        pruned = ~rewirer.masks[name]
        assert not weight[pruned].any()
        for optimizer in optimizers:
            for value in optimizer.state.get(weight, {}).values():
                if isinstance(value, torch.Tensor) and value.shape == weight.shape:
                    assert not value[pruned].any()


def assert_equal_weights(one, other):
    for first, second in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(first, second)


# Resuming.


def orders():
    """Every order of constructing a rewirer and loading three states; each state after its object is there."""
    events = ("model", "optimizer", "construct", "rewirer")
    return [order for order in itertools.permutations(events) if order.index("construct") < order.index("rewirer")]


@pytest.mark.parametrize("order", orders(), ids="-".join)
@pytest.mark.parametrize("preset", ["constant", "adaptive", "rigl"])
def test_training_resumes_bit_for_bit_in_every_order(order, preset):
    half, end = 3 * BATCHES + 1, EPOCHS * BATCHES
    whole = parts(preset=preset)
    train(*whole, range(half))
    saved = [copy.deepcopy(part.state_dict()) for part in whole]
    train(*whole, range(half, end))
    model = network(seed=7)
    optimizer = sgd(model)
    rewirer = None
    for event in order:
        if event == "model":
            model.load_state_dict(saved[0])
        elif event == "optimizer":
            optimizer.load_state_dict(saved[1])
        elif event == "construct":
            rewirer = rewirer_of(model, optimizer, preset=preset)
        else:
            rewirer.load_state_dict(saved[2])
    train(model, optimizer, rewirer, range(half, end))
    assert_equal_weights(model, whole[0])
    assert rewirer.history == whole[2].history


def test_trained_weights_come_back_without_an_optimizer_too():
    model, optimizer, rewirer = parts()
    train(model, optimizer, rewirer, range(6))
    again = network(seed=3)
    again.load_state_dict(model.state_dict())
    resumed = rewirer_of(again, None)
    resumed.load_state_dict(rewirer.state_dict())
    assert_equal_weights(again, model)
    assert resumed.density == rewirer.density == pytest.approx(0.2, abs=1e-3)


@pytest.mark.parametrize("optimized", [True, False])
def test_weights_lost_before_the_state_was_loaded_are_refused(optimized):
    model, optimizer, rewirer = parts()
    train(model, optimizer, rewirer, range(6))
    again = network(seed=3)
    again.load_state_dict(model.state_dict())
    other = sgd(again)
    resumed = rewirer_of(again, other if optimized else None)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.mul_(0.5)
    with pytest.raises(InputError, match=r"active weights of '0\.weight' are 0 that were not"):
        resumed.load_state_dict(rewirer.state_dict())
        train(again, other, resumed, range(1))


def test_a_second_state_loaded_before_the_first_step_replaces_the_first():
    model, optimizer, rewirer = parts()
    early = rewirer.state_dict()
    train(model, optimizer, rewirer, range(6))
    again = network(seed=3)
    again.load_state_dict(model.state_dict())
    resumed = rewirer_of(again, sgd(again))
    resumed.load_state_dict(early)
    resumed.load_state_dict(rewirer.state_dict())
    assert_equal_weights(again, model)


def test_a_refused_construction_leaves_the_weights_alone():
    model = network()
    with pytest.raises(InputError, match="leaves no iteration"):
        PQRewirer(model, steps_per_epoch=1, epochs=1)
    assert_equal_weights(model, network())


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.pop("document"),
        lambda state: state["document"].pop("steps"),
        lambda state: state["document"].update(history=[{"step": 1}]),
        lambda state: state.pop("mask.0.weight"),
        lambda state: state.update({"score.0.weight": torch.zeros(2, 2)}),
        lambda state: state.update(document=5),
        lambda state: state.update({"carry.fall": None}),
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(damage):
    model, optimizer, rewirer = parts()
    train(model, optimizer, rewirer, range(6))
    state = rewirer.state_dict()
    damage(state)
    fresh, _, other = parts(seed=4)
    before = copy.deepcopy(fresh)
    with pytest.raises(InputError, match="the saved"):
        other.load_state_dict(state)
    assert_equal_weights(fresh, before)
    assert other.steps == 0


# Closures.


def closure_steps(model, optimizer, rewirer, steps, place, seen):
    data = batches()
    for step in steps:
        if place == "before":
            optimizer.zero_grad()

        def closure(batch=data[step % BATCHES]):
            if place == "inside":
                optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            if seen is not None:
                seen.append({name: weight.grad.clone() for name, weight in rewirer.parameters.items()})
            return loss

        optimizer.step(closure)
        rewirer.step()


@pytest.mark.parametrize("place", ["before", "inside"])
@pytest.mark.parametrize("preset", ["constant", "rigl"])
def test_a_closure_trains_as_the_plain_loop_does(place, preset):
    plain, closed = parts(preset=preset), parts(preset=preset)
    train(*plain, range(EPOCHS * BATCHES))
    closure_steps(*closed, range(EPOCHS * BATCHES), place, None)
    assert_equal_weights(plain[0], closed[0])
    assert plain[2].history == closed[2].history and plain[2].history
    check_invariants(closed[2], closed[1])


@pytest.mark.parametrize("place", ["before", "inside"])
def test_growth_follows_the_gradients_that_the_closure_made(place):
    model, optimizer, rewirer = parts(preset="rigl")
    seen = []
    closure_steps(model, optimizer, rewirer, range(BATCHES - 1), place, seen)
    before = {name: mask.clone() for name, mask in rewirer.masks.items()}
    closure_steps(model, optimizer, rewirer, range(BATCHES - 1, BATCHES), place, seen)
    for name, mask in rewirer.masks.items():
        gradient, grown = seen[-1][name].abs(), mask & ~before[name]
        assert grown.any() and gradient[grown].min() >= gradient[~before[name] & ~grown].max()


@pytest.mark.parametrize("preset", ["constant", "rigl"])
def test_a_closure_may_add_to_gradients_of_earlier_batches(preset):
    def accumulate(closed):
        model, optimizer, rewirer = parts(preset=preset)
        data = batches()
        for number in range(EPOCHS * BATCHES):

            def closure(batch=data[number % BATCHES]):
                loss = loss_of(model, batch) / 2
                loss.backward()
                return loss

            if number % 2 == 0:
                optimizer.zero_grad()
                closure()
            elif closed:
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()
            rewirer.step()
        return model, rewirer

    (model, rewirer), (other, expected) = accumulate(True), accumulate(False)
    assert_equal_weights(model, other)
    assert rewirer.history == expected.history and rewirer.history


def test_lbfgs_keeps_pruned_weights_at_zero_and_learns():
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=5, line_search_fn="strong_wolfe")
    rewirer = rewirer_of(model, optimizer)
    everything = tuple(torch.cat(part) for part in zip(*batches(), strict=True))
    losses = []

    def closure():
        optimizer.zero_grad()
        loss = loss_of(model, everything)
        loss.backward()
        return loss

    for _ in range(EPOCHS * BATCHES):
        losses.append(float(optimizer.step(closure).detach()))
        check_invariants(rewirer)
        if rewirer.step():
            assert not optimizer.state
        check_invariants(rewirer)
    assert losses[-1] < 0.5 * losses[0] and any(change.grown for change in rewirer.history)


class Sharpness(torch.optim.Optimizer):
    """Sharpness-aware minimisation: up along the gradient, a second gradient there, back, and a step by it."""

    def __init__(self, parameters, rho=0.05, **options):
        super().__init__(list(parameters), {"rho": rho, **options})
        self.base = torch.optim.SGD(self.param_groups, **options)
        self.param_groups = self.base.param_groups

    @torch.no_grad()
    def up(self):
        for weight in self._weights():
            self.state[weight]["before"] = weight.clone()
            weight.add_(weight.grad, alpha=self.param_groups[0]["rho"])

    @torch.no_grad()
    def down(self):
        for weight in self._weights():
            weight.copy_(self.state[weight]["before"])
        self.base.step()

    def step(self, closure=None):
        self.up()
        self.zero_grad()
        with torch.enable_grad():
            closure()
        self.down()

    def _weights(self):
        return [p for group in self.param_groups for p in group["params"] if p.grad is not None]


def test_an_optimizer_that_uses_two_gradients_a_step_sees_both_masked():
    model = network()
    optimizer = Sharpness(model.parameters(), lr=0.1, momentum=0.9)
    rewirer = rewirer_of(model, optimizer)
    data = batches()
    for step in range(EPOCHS * BATCHES):
        optimizer.zero_grad()
        loss_of(model, data[step % BATCHES]).backward()

        def closure(batch=data[step % BATCHES]):
            for name, weight in rewirer.parameters.items():
                assert not weight[~rewirer.masks[name]].any()
            loss_of(model, batch).backward()

        optimizer.step(closure)
        check_invariants(rewirer, optimizer.base)
        rewirer.step()
    assert any(change.grown for change in rewirer.history)


def test_an_optimizer_inside_another_is_masked_though_only_its_own_step_runs():
    """Sharpness-aware in two calls: the given optimiser's own step() is not used, its base's is."""
    model = network()
    optimizer = Sharpness(model.parameters(), lr=0.1, momentum=0.9)
    rewirer = rewirer_of(model, optimizer)
    data = batches()
    for step in range(EPOCHS * BATCHES):
        for phase in (optimizer.up, optimizer.down):
            optimizer.zero_grad()
            loss_of(model, data[step % BATCHES]).backward()
            rewirer.mask_gradients()
            phase()
        check_invariants(rewirer, optimizer.base)
        rewirer.step()
    assert any(change.grown for change in rewirer.history)


def test_an_optimizer_whose_step_never_runs_is_refused_soon():
    model = network()
    given, used = sgd(model), sgd(model)
    rewirer = rewirer_of(model, given, preset="set")
    with pytest.raises(InputError, match=r"step\(\) of the optimizer given \(SGD\) does not run"):
        train(model, used, rewirer, range(BATCHES + 1))


def test_an_optimizer_that_was_replaced_is_noticed():
    model, optimizer, rewirer = parts(preset="static", epochs=100)
    train(model, optimizer, rewirer, range(4))
    with pytest.raises(InputError, match="give the one that steps"):
        train(model, sgd(model), rewirer, range(4, 60))


def test_without_an_optimizer_a_loop_that_clears_gradients_first_is_refused():
    model = network()
    optimizer, rewirer = sgd(model), rewirer_of(model, None)
    data = batches()
    with pytest.raises(InputError, match="call step\\(\\) before zero_grad"):
        for step in range(BATCHES):
            loss_of(model, data[step]).backward()
            optimizer.step()
            optimizer.zero_grad()
            rewirer.step()


def test_weights_that_a_scaler_found_not_to_be_numbers_are_said():
    """Every later step is skipped, so no optimiser runs again."""
    model, optimizer, rewirer = parts(preset="static", epochs=100)
    train(model, optimizer, rewirer, range(2))
    with torch.no_grad():
        model[0].weight.fill_(math.nan)
    with pytest.raises(InputError, match=r"weights of '0\.weight' are NaN or infinite after step \d+"):
        for _ in range(40):
            rewirer.step()


# Scalers, accumulation, several optimisers.


@pytest.mark.parametrize("skipped", [(3,), (2, 3), (0, 1, 2, 3), (3, 4), (3, 4, 5, 6, 7)], ids=str)
@pytest.mark.parametrize("preset", ["rigl", "constant", "adaptive", "set"])
def test_a_scaler_that_skips_steps_delays_a_rewiring_at_most(skipped, preset):
    options = {} if preset in ("rigl", "set") else {"score_batches": 2}
    model, optimizer, rewirer = parts(preset=preset, **options)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    data = batches()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(EPOCHS * BATCHES):
            optimizer.zero_grad()
            loss = loss_of(model, data[step % BATCHES]) * (math.inf if step in skipped else 1)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            rewirer.step()
            check_invariants(rewirer, optimizer)
    assert rewirer.density == pytest.approx(0.2, abs=1e-3)
    steps = [change.step for change in rewirer.history if change.layer == "0.weight"]
    if preset in ("rigl", "constant"):
        first = next(step for step in range(1, 99) if step >= BATCHES and step - 1 not in skipped)
        in_window = preset == "constant" and 2 not in skipped
        lost = len(skipped) == 5 and preset == "rigl"
        assert steps[0] == (BATCHES if in_window else 2 * BATCHES + 1 if lost else first)
        assert [str(item.message) for item in caught if item.category is CodesignWarning] == (
            ["PQRewirer: the rewiring after step 4 was left out: it found no gradient to grow by"] if lost else []
        )
    assert len(steps) >= 5


def test_a_rewiring_that_waited_has_the_fraction_of_when_it_was_due():
    def fractions(skipped):
        model, optimizer, rewirer = parts(preset="rigl")
        data = batches()
        for step in range(EPOCHS * BATCHES):
            optimizer.zero_grad()
            loss_of(model, data[step % BATCHES]).backward()
            if step not in skipped:
                optimizer.step()
            rewirer.step()
        return [change.fraction for change in rewirer.history if change.layer == "0.weight"]

    assert fractions({BATCHES - 1}) == fractions(())


@pytest.mark.parametrize("skipped", [(), (3,)], ids=str)
def test_fused_optimizers_under_a_scaler_score_unscaled_and_finite_gradients(skipped):
    def fused(model):
        return torch.optim.Adam(model.parameters(), lr=0.01, fused=True)

    scaled, plain = parts(make=fused, preset="constant", score_batches=2), parts(make=fused, score_batches=2)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=10**6)
    data = batches()
    for step in range(BATCHES - 1 + len(skipped)):
        for model, optimizer, rewirer in (scaled, plain):
            optimizer.zero_grad()
            loss = loss_of(model, data[step % BATCHES]) * (math.inf if step in skipped else 1)
            if rewirer is plain[2]:
                loss.backward()
                if step not in skipped:
                    optimizer.step()
            else:
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
            if step < BATCHES - 1:
                rewirer.step()
    for name, score in plain[2]._growth.scores.items():
        assert torch.allclose(scaled[2]._growth.scores[name], score, rtol=1e-4, atol=1e-7)
        assert score.any()


@pytest.mark.parametrize("per", ["batch", "optimizer step"])
@pytest.mark.parametrize("preset", ["constant", "adaptive", "rigl", "set"])
def test_gradients_may_accumulate(per, preset):
    """Two batches a step; counted either way all changes of connections take place."""
    every = BATCHES if per == "batch" else BATCHES // 2
    model, optimizer, rewirer = parts(preset=preset, steps_per_epoch=every)
    data = batches()
    for number in range(EPOCHS * BATCHES):
        (loss_of(model, data[number % BATCHES]) / 2).backward()
        stepped = number % 2 == 1
        if stepped:
            optimizer.step()
            optimizer.zero_grad()
        if stepped or per == "batch":
            rewirer.step()
            check_invariants(rewirer, optimizer)
    assert rewirer.steps == EPOCHS * every
    assert rewirer.density == pytest.approx(0.2, abs=1e-3)
    changed = {change.step for change in rewirer.history}
    assert changed == {epoch * every for epoch in rewirer.events}


def test_a_rewiring_in_the_middle_of_an_accumulation_waits_for_the_whole_gradient():
    model, optimizer, rewirer = parts(preset="rigl", steps_per_epoch=3)
    data = batches()
    for number in range(20):
        (loss_of(model, data[number % BATCHES]) / 2).backward()
        if number % 2 == 1:
            optimizer.step()
            optimizer.zero_grad()
        changes = rewirer.step()
        assert not changes or number % 2 == 1
    assert len(rewirer.history) == 2 * 6


def test_more_steps_than_the_schedule_has_are_said_once():
    model, optimizer, rewirer = parts()
    train(model, optimizer, rewirer, range(EPOCHS * BATCHES))
    with pytest.warns(CodesignWarning, match=f"step {EPOCHS * BATCHES + 1} of the {EPOCHS * BATCHES} that"):
        train(model, optimizer, rewirer, range(1))
    train(model, optimizer, rewirer, range(2))


def test_parameters_may_be_split_over_several_optimizers():
    model = network()
    first = torch.optim.SGD(model[0].parameters(), lr=0.1, momentum=0.9)
    second = torch.optim.Adam(model[2].parameters(), lr=0.01)
    rewirer = rewirer_of(model, [first, second])
    data = batches()
    for step in range(EPOCHS * BATCHES):
        first.zero_grad(), second.zero_grad()
        loss_of(model, data[step % BATCHES]).backward()
        first.step()
        if step % 2 == 0:
            # The last step before each rewiring is not of this one.
            second.step()
        rewirer.step()
        check_invariants(rewirer, first, second)
    assert {change.layer for change in rewirer.history if change.grown} == {"0.weight", "2.weight"}
    with pytest.raises(InputError, match=r"another PQRewirer works on '0\.weight'"):
        rewirer_of(model, first)
    rewirer.detach()
    with pytest.raises(InputError, match=r"the optimizer does not hold '2\.weight'"):
        rewirer_of(model, first)


def test_what_is_no_optimizer_is_refused():
    with pytest.raises(InputError, match=r"object is no torch\.optim\.Optimizer"):
        rewirer_of(network(), object())


def test_an_optimizer_inside_a_wrapper_is_found():
    class Wrapper:
        def __init__(self, optimizer):
            self.optimizer = optimizer

    model, optimizer = (whole := parts())[:2]
    whole[2].detach()
    rewirer = rewirer_of(model, Wrapper(optimizer))
    train(model, optimizer, rewirer, range(2 * BATCHES))
    check_invariants(rewirer, optimizer)
    assert rewirer.history


# Parameters that change under the rewirer's hands.


def test_a_replaced_parameter_is_refused_by_name_at_the_next_step():
    model, optimizer, rewirer = parts()
    train(model, optimizer, rewirer, range(2))
    model[0].weight = nn.Parameter(torch.randn(24, 20))
    assert rewirer.density > 0.8
    with pytest.raises(InputError, match=r"'0\.weight' was replaced in the model, and the optimizer holds the old one"):
        train(model, optimizer, rewirer, range(2, 3))


def test_a_replaced_parameter_that_the_optimizer_holds_is_followed():
    model, optimizer, rewirer = parts()
    train(model, optimizer, rewirer, range(2))
    model[0].weight = nn.Parameter(torch.randn(24, 20))
    optimizer.param_groups[0]["params"][0] = model[0].weight
    with pytest.warns(CodesignWarning, match=r"pruned weights of '0\.weight' were written"):
        train(model, optimizer, rewirer, range(2, 3))
    train(model, optimizer, rewirer, range(3, 12))
    check_invariants(rewirer, optimizer)
    assert rewirer.parameters["0.weight"] is model[0].weight
    assert rewirer.density == pytest.approx(0.2, abs=1e-3)


@pytest.mark.parametrize("assign", [False, True])
def test_dense_weights_loaded_later_are_masked_and_said_or_refused(assign):
    model, optimizer, rewirer = parts()
    train(model, optimizer, rewirer, range(2))
    weights = network(5).state_dict() | {"2.weight": model.state_dict()["2.weight"].clone()}
    model.load_state_dict(copy.deepcopy(weights), assign=assign)
    assert rewirer.layer_density["0.weight"] == 1.0 and rewirer.density > 0.8
    if assign:
        with pytest.raises(InputError, match=r"'0\.weight' was replaced"):
            train(model, optimizer, rewirer, range(2, 3))
        return
    with pytest.warns(CodesignWarning, match=r"pruned weights of '0\.weight' were written since the last step"):
        train(model, optimizer, rewirer, range(2, 3))
    check_invariants(rewirer, optimizer)
    assert rewirer.density == pytest.approx(0.2, abs=1e-3)


def test_assigned_weights_are_followed_without_an_optimizer():
    model = network()
    rewirer = rewirer_of(model, None)
    model.load_state_dict(copy.deepcopy(network(5).state_dict()), assign=True)
    optimizer = sgd(model)
    train(model, optimizer, rewirer, range(2 * BATCHES))
    assert rewirer.density == pytest.approx(0.2, abs=1e-3)
    for name, mask in rewirer.masks.items():
        assert not model.get_parameter(name)[~mask].any()


def test_a_removed_or_resized_parameter_is_refused_by_name():
    model, optimizer, rewirer = parts()
    model[0], model[2] = nn.Linear(20, 30), nn.Linear(30, 5)
    with pytest.raises(InputError, match=r"'0\.weight' has another shape"):
        train(model, sgd(model), rewirer, range(1))
    model[0] = nn.Identity()
    with pytest.raises(InputError, match=r"no parameter '0\.weight' any more"):
        assert rewirer.density
    with pytest.raises(InputError, match=r"no parameter '0\.weight' any more"):
        optimizer.step()


def test_a_parameter_parametrised_later_is_refused_by_name():
    model, optimizer, rewirer = parts()
    torch.nn.utils.parametrizations.weight_norm(model[0])
    with pytest.raises(InputError, match=r"no parameter '0\.weight' any more \(removed or parametrised\)"):
        train(model, optimizer, rewirer, range(1))


def test_a_frozen_parameter_is_refused_while_connections_are_to_change():
    model, optimizer, rewirer = parts()
    train(model, optimizer, rewirer, range(2))
    model[2].weight.requires_grad_(False)
    with pytest.raises(InputError, match=r"'2\.weight' is frozen .* changes of connections ahead"):
        train(model, optimizer, rewirer, range(2, 3))
    model[2].weight.requires_grad_(True)
    train(model, optimizer, rewirer, range(3, EPOCHS * BATCHES))
    assert rewirer.steps == EPOCHS * BATCHES - 1
    model[2].weight.requires_grad_(False)
    train(model, optimizer, rewirer, range(1))
    check_invariants(rewirer)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_converted_model_is_followed(dtype):
    model, optimizer, rewirer = parts(make=lambda model: torch.optim.SGD(model.parameters(), lr=0.1))
    model.to(dtype)
    for step in range(EPOCHS * BATCHES):
        x, y = batches()[step % BATCHES]
        optimizer.zero_grad()
        loss_of(model, (x.to(dtype), y)).backward()
        optimizer.step()
        rewirer.step()
        check_invariants(rewirer, optimizer)
    assert rewirer.density == pytest.approx(0.2, abs=1e-3)
    assert rewirer._weights._factors["0.weight"].dtype == dtype
    assert any(change.grown for change in rewirer.history)


# Which tensor is the weight.


def spectral(module):
    return torch.nn.utils.parametrizations.spectral_norm(module)


def old_weight_norm(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.nn.utils.weight_norm(module)


def pruned(module):
    return prune.random_unstructured(module, "weight", 0.5)


@pytest.mark.parametrize(
    ("wrap", "name"),
    [
        (torch.nn.utils.parametrizations.weight_norm, "0.parametrizations.weight.original0"),
        (spectral, "0.parametrizations.weight.original"),
        (torch.nn.utils.parametrizations.orthogonal, "0.parametrizations.weight.original"),
        (old_weight_norm, "0.weight_g"),
        (lambda module: torch.nn.utils.spectral_norm(module), "0.weight_orig"),
        (pruned, "0.weight_orig"),
    ],
    ids=["weight_norm", "spectral_norm", "orthogonal", "old weight_norm", "old spectral_norm", "prune"],
)
def test_parameters_that_a_weight_is_computed_from_are_refused(wrap, name):
    model = network()
    wrap(model[0])
    optimizer = sgd(model)
    with pytest.raises(UnsupportedError) as caught:
        rewirer_of(model, optimizer)
    assert f"{name!r} is not the weight itself: the model computes '0.weight' from it" in str(caught.value)
    rewirer = rewirer_of(model, optimizer, exclude=["0.*"])
    train(model, optimizer, rewirer, range(EPOCHS * BATCHES))
    assert list(rewirer.masks) == ["2.weight"]


def test_a_shared_parameter_has_one_mask():
    model = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 12), nn.Linear(12, 5))
    model[2].weight = model[0].weight
    optimizer = sgd(model)
    rewirer = rewirer_of(model, optimizer)
    assert list(rewirer.masks) == ["0.weight", "3.weight"]
    for step in range(EPOCHS * BATCHES):
        x, y = batches()[step % BATCHES]
        optimizer.zero_grad()
        loss_of(model, (x[:, :12], y)).backward()
        optimizer.step()
        rewirer.step()
        check_invariants(rewirer, optimizer)
    assert rewirer.density == pytest.approx(0.2, abs=1e-2)
    rewirer.detach()
    assert list(rewirer_of(model, optimizer, exclude=["2.weight"]).masks) == ["3.weight"]


def test_lazy_modules_and_models_without_values_are_refused():
    model = nn.Sequential(nn.LazyLinear(12), nn.Linear(12, 5))
    with pytest.raises(InputError, match=r"'0\.weight' has no values yet \(a lazy module\)"):
        rewirer_of(model, None)
    model(torch.zeros(2, 20))
    assert rewirer_of(model, None).masks["0.weight"].shape == (12, 20)
    with pytest.raises(InputError, match="device 'meta'"):
        rewirer_of(nn.Linear(20, 24, device="meta"), None)


def test_sparse_gradients_are_refused():
    model = nn.Sequential(nn.Embedding(20, 8, sparse=True), nn.Linear(8, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rewirer_of(model, optimizer)
    model(torch.arange(3)).sum().backward()
    with pytest.raises(UnsupportedError, match=r"'0\.weight' has sparse gradients"):
        optimizer.step()


# Copies.


def through_pickle(whole):
    return pickle.loads(pickle.dumps(whole))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, through_pickle])
@pytest.mark.parametrize("preset", ["constant", "adaptive"])
def test_copies_of_model_optimizer_and_rewirer_go_on_by_themselves(duplicate, preset):
    whole = parts(preset=preset)
    train(*whole, range(2 * BATCHES + 1))
    other = duplicate(whole)
    assert other[2].model is other[0] and other[2].parameters["0.weight"] is other[0][0].weight
    untouched = copy.deepcopy(whole[0])
    train(*other, range(2 * BATCHES + 1, EPOCHS * BATCHES))
    check_invariants(other[2], other[1])
    assert_equal_weights(whole[0], untouched)
    train(*whole, range(2 * BATCHES + 1, EPOCHS * BATCHES))
    assert_equal_weights(whole[0], other[0])
    assert whole[2].history == other[2].history


def test_a_rewirer_copied_alone_brings_its_model():
    model, optimizer, rewirer = parts()
    train(model, optimizer, rewirer, range(2))
    other = copy.deepcopy(rewirer)
    assert other.model is not model
    train(other.model, other.optimizers.all[0], other, range(2, EPOCHS * BATCHES))
    check_invariants(other, other.optimizers.all[0])
    assert rewirer.steps == 2


def test_a_model_that_holds_its_rewirer_can_be_copied():
    model, optimizer, rewirer = parts()
    model.rewirer = rewirer
    train(model, optimizer, rewirer, range(2))
    other = copy.deepcopy(model)
    assert other.rewirer.model is other
    train(other, other.rewirer.optimizers.all[0], other.rewirer, range(2, EPOCHS * BATCHES))
    check_invariants(other.rewirer)


def test_an_average_of_the_model_is_masked_on_demand():
    model, optimizer, rewirer = parts()
    average = torch.optim.swa_utils.AveragedModel(model)
    for step in range(EPOCHS * BATCHES):
        train(model, optimizer, rewirer, [step])
        average.update_parameters(model)
    weight = average.module[0].weight
    assert weight[~rewirer.masks["0.weight"]].any()
    rewirer.apply_to(average.module)
    assert not weight[~rewirer.masks["0.weight"]].any() and weight.any()
    with pytest.raises(InputError, match=r"'0\.weight' is absent in the other model"):
        rewirer.apply_to(nn.Identity())


def test_a_second_rewirer_needs_the_first_one_detached():
    model, optimizer, rewirer = parts()
    train(model, optimizer, rewirer, range(3))
    before = copy.deepcopy(model)
    for given in (optimizer, None):
        with pytest.raises(InputError, match=r"another PQRewirer works on '0\.weight' already; call its detach\(\)"):
            rewirer_of(model, given, seed=1)
    assert_equal_weights(model, before)
    rewirer.detach()
    second = rewirer_of(model, optimizer, seed=1)
    assert len(optimizer._optimizer_step_pre_hooks) == 1
    train(model, optimizer, second, range(EPOCHS * BATCHES))
    check_invariants(second, optimizer)
    with pytest.raises(InputError, match="this rewirer was detached"):
        rewirer.step()


def test_a_rewirer_that_nobody_holds_is_no_obstacle():
    model = network()
    for _ in range(3):
        rewirer_of(model, None)
        rewirer_of(model, sgd(model))


# What is not a number.


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("preset", ["constant", "adaptive", "sap", "set"])
def test_weights_that_are_not_numbers_end_in_one_line_at_the_change(value, preset):
    model, optimizer, rewirer = parts(preset=preset)
    train(model, optimizer, rewirer, range(1))
    with torch.no_grad():
        neuron, source = rewirer.masks["2.weight"].nonzero()[0]
        model[2].weight[neuron, source] = value
    with pytest.raises(InputError, match=r"weights of '\d\.weight' are NaN or infinite after step \d+"):
        for _ in range(2 * BATCHES):
            rewirer.parameters["0.weight"].grad = torch.ones(24, 20)
            rewirer.parameters["2.weight"].grad = None
            optimizer.step()
            rewirer.step()
    with pytest.raises(InputError, match="NaN or infinite"):
        rewirer.measure()


def test_gradients_that_are_not_numbers_are_said_and_do_not_count_for_growth():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    rewirer = rewirer_of(model, optimizer, preset="constant", score_batches=BATCHES)
    for step in range(BATCHES - 1):
        for weight in rewirer.parameters.values():
            weight.grad = torch.full_like(weight, math.nan if step == 1 else 1.0)
        if step == 1:
            with pytest.warns(CodesignWarning, match=r"gradient of '0\.weight' is NaN or infinite at step 2"):
                rewirer.mask_gradients()
            for weight in rewirer.parameters.values():
                weight.grad = None
        optimizer.step()
        rewirer.step()
    expected = 1 - rewirer.config.momentum**2
    assert torch.allclose(rewirer._growth.scores["0.weight"], torch.tensor(expected))


def test_gradients_that_are_all_zero_choose_no_connections():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    rewirer = rewirer_of(model, optimizer, preset="rigl")
    for step in range(BATCHES + 1):
        for weight in rewirer.parameters.values():
            weight.grad = torch.full_like(weight, float(step == BATCHES))
        optimizer.step()
        assert bool(rewirer.step()) == (step == BATCHES)


# Wrapped models.


def test_a_state_fits_whether_parts_of_the_model_are_compiled_or_not():
    def model_of(wrap):
        torch.manual_seed(0)
        return nn.Sequential(wrap(nn.Linear(20, 24)), nn.ReLU(), nn.Linear(24, 5))

    compiled, plain = model_of(lambda m: torch.compile(m, backend="eager")), model_of(lambda m: m)
    first, second = rewirer_of(compiled, sgd(compiled)), rewirer_of(plain, sgd(plain))
    assert next(iter(first.masks)) == "0._orig_mod.weight"
    state = first.state_dict()
    train(plain, second.optimizers.all[0], second, range(2 * BATCHES))
    assert not torch.equal(second.masks["0.weight"], state["mask.0._orig_mod.weight"])
    second.load_state_dict(state)
    assert torch.equal(second.masks["0.weight"], state["mask.0._orig_mod.weight"])
    first.load_state_dict(second.state_dict())


def test_data_parallel_wrappers_keep_names_and_states(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        plain, wrapped = parts(), network()
        parallel = nn.parallel.DistributedDataParallel(wrapped)
        optimizer = sgd(wrapped)
        rewirer = rewirer_of(parallel, optimizer)
        train(parallel, optimizer, rewirer, range(2 * BATCHES))
        train(*plain, range(2 * BATCHES))
        assert_equal_weights(plain[0], wrapped)
        plain[2].load_state_dict(rewirer.state_dict())
    finally:
        torch.distributed.destroy_process_group()
