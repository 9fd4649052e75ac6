"""The rewirer inside a Lightning Trainer and an accelerate loop. Their packages are in requirements-deep.lock."""

import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from codesign.train.rewiring import PQRewirer

# The frameworks warn of many things; ours alone would be a fault here.
pytestmark = [
    pytest.mark.deep,
    pytest.mark.filterwarnings("ignore", "error::codesign.basics.errors.CodesignWarning"),
]

BATCHES, EPOCHS = 6, 8


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 24), nn.ReLU(), nn.Linear(24, 5))


def loader() -> DataLoader:
    random = torch.Generator().manual_seed(1)
    x, y = (
        torch.randn(16 * BATCHES, 20, generator=random),
        torch.randint(5, (16 * BATCHES,), generator=random),
    )
    return DataLoader(TensorDataset(x, y), batch_size=16)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-3)


def rewirer_of(model, optimizer, preset):
    return PQRewirer(
        model, optimizer, preset=preset, steps_per_epoch=BATCHES, epochs=EPOCHS, target_density=0.2, rewire_until=0.9
    )


def check_invariants(rewirer, optimizer):
    for name, weight in rewirer.parameters.items():
        pruned = ~rewirer.masks[name]
        assert not weight[pruned].any()
        assert not optimizer.state[weight]["momentum_buffer"][pruned].any()


def plain(preset, accumulate=1, clip=None):
    """The loop that the frameworks' ones are compared with: the model and the rewirer."""
    model = network()
    optimizer = sgd(model.parameters())
    rewirer = rewirer_of(model, optimizer, preset)
    for _ in range(EPOCHS):
        for number, (x, y) in enumerate(loader()):
            (nn.functional.cross_entropy(model(x), y) / accumulate).backward()
            if (number + 1) % accumulate == 0:
                if clip is not None:
                    rewirer.mask_gradients()
                    nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
            rewirer.step()
    return model, rewirer


def module_of(preset, clips=False):
    from lightning.pytorch import LightningModule

    class Module(LightningModule):
        def __init__(self):
            super().__init__()
            self.model, self.rewirer, self.saved = network(), None, None

        def training_step(self, batch, number):
            return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self):
            optimizer = sgd(self.parameters())
            self.rewirer = rewirer_of(self, optimizer, preset)
            if self.saved is not None:
                self.rewirer.load_state_dict(self.saved)
            return optimizer

        def on_before_optimizer_step(self, optimizer):
            if clips:
                self.rewirer.mask_gradients()

        def on_train_batch_end(self, outputs, batch, number):
            self.rewirer.step()
            optimizer = self.optimizers().optimizer
            if optimizer.state:
                check_invariants(self.rewirer, optimizer)

        def on_save_checkpoint(self, checkpoint):
            checkpoint["rewirer"] = self.rewirer.state_dict()

        def on_load_checkpoint(self, checkpoint):
            self.saved = checkpoint["rewirer"]

    return Module()


def trainer_of(folder, epochs=EPOCHS, **options):
    from lightning.pytorch import Trainer

    return Trainer(
        accelerator="cpu", devices=1, max_epochs=epochs, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder, **options,
    )  # fmt: skip


def assert_same(found, rewirer, expected):
    model, other = expected
    for one, two in zip(found.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, two)
    strip = [(c.step, c.change, c.layer.removeprefix("model."), c.pruned, c.grown) for c in rewirer.history]
    assert strip == [(c.step, c.change, c.layer, c.pruned, c.grown) for c in other.history]
    assert any(change.grown for change in rewirer.history)
    assert math.isclose(rewirer.density, 0.2, abs_tol=1e-3)


@pytest.mark.parametrize("preset", ["constant", "adaptive", "rigl"])
def test_a_lightning_trainer_trains_as_the_plain_loop_does(preset, tmp_path):
    module = module_of(preset)
    trainer_of(tmp_path).fit(module, loader())
    assert_same(module.model, module.rewirer, plain(preset))


def test_a_lightning_trainer_accumulates_and_clips(tmp_path):
    module = module_of("constant", clips=True)
    trainer_of(tmp_path, accumulate_grad_batches=2, gradient_clip_val=0.05).fit(module, loader())
    assert_same(module.model, module.rewirer, plain("constant", accumulate=2, clip=0.05))


@pytest.mark.parametrize("preset", ["constant", "adaptive"])
def test_a_lightning_trainer_resumes_from_its_checkpoint(preset, tmp_path):
    first = module_of(preset)
    trainer = trainer_of(tmp_path, epochs=3)
    trainer.fit(first, loader())
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    second = module_of(preset)
    trainer_of(tmp_path).fit(second, loader(), ckpt_path=tmp_path / "saved.ckpt", weights_only=False)
    assert_same(second.model, second.rewirer, plain(preset))


def prepared(accumulate, preset):
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    model = network()
    model, optimizer, data = accelerator.prepare(model, sgd(model.parameters()), loader())
    rewirer = rewirer_of(model, optimizer, preset)
    accelerator.register_for_checkpointing(rewirer)
    return accelerator, model, optimizer, data, rewirer


def accelerated(accelerator, model, optimizer, data, rewirer, epochs):
    for _ in range(epochs):
        for x, y in data:
            with accelerator.accumulate(model):
                accelerator.backward(nn.functional.cross_entropy(model(x), y))
                optimizer.step()
                optimizer.zero_grad()
            rewirer.step()
            if optimizer.optimizer.state:
                check_invariants(rewirer, optimizer.optimizer)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("preset", ["constant", "adaptive", "rigl"])
def test_an_accelerate_loop_trains_as_the_plain_loop_does(preset, accumulate):
    accelerator, model, optimizer, data, rewirer = prepared(accumulate, preset)
    accelerated(accelerator, model, optimizer, data, rewirer, EPOCHS)
    assert_same(accelerator.unwrap_model(model), rewirer, plain(preset, accumulate))


def test_an_accelerate_loop_resumes_from_its_checkpoint(tmp_path):
    first = prepared(2, "constant")
    accelerated(*first, 3)
    first[0].save_state(str(tmp_path))
    second = prepared(2, "constant")
    second[0].load_state(str(tmp_path))
    accelerated(*second, EPOCHS - 3)
    assert_same(second[0].unwrap_model(second[1]), second[4], plain("constant", 2))
