"""The GPU's kernel has the bits of torch's operations: interpreted on the CPU, and compiled for a device.

Triton is installed by `make test-deep`; without it nothing here runs.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from requirements import needs

from codesign.config import parse_config
from codesign.train import kernels
from codesign.train.lif import Neuron, lif, recurrent_lif
from codesign.train.model import SpikingNetwork

pytestmark = needs("triton")
T, BATCH, NEURONS = 5, 3, 101  # more neurons than a block, and not a whole number of blocks

# Compiles both kernels for a device that need not be there, without the interpreter, and prints their assembly.
COMPILE = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from codesign.train.kernels import fused

NUMBERS = ("steps", "size", "last", "current_stride")
kind = "*" + sys.argv[1]
constants = {"steps": 1, "last": 0} if sys.argv[2] == "1" else {}

def compiled(kernel, flags):
    flags |= {name: value for name, value in constants.items() if name in kernel.arg_names}
    signature = {
        name: "constexpr" if name in flags else "i64" if name in NUMBERS else kind for name in kernel.arg_names
    }
    source = triton.compiler.ASTSource(fn=kernel, signature=signature, constexprs=flags)
    target = GPUTarget("cuda", 90, 32)
    return triton.compile(source, target=target, options={"enable_fp_fusion": False}).asm["ptx"]

print(compiled(fused._advance, dict(LEAK=1, FACTORS=False, SPIKING=True, STRICT=False, RESET=1, SATURATES=True,
                                    STORED=True, BLOCK=256)))
print(compiled(fused._retreat, dict(LEAKS=True, FACTORS=False, STRICT=False, ZERO=True, SURROGATE=1, OF_SPIKES=True,
                                    OF_POTENTIALS=True, EVERY=True, BLOCK=256)))
"""


def is_triton(name):
    """True for modules of Triton's own Python, and for the kernels made with it."""
    native = name.startswith("triton._C")
    return name == "codesign.train.kernels.fused" or (name.split(".")[0] == "triton" and not native)


@pytest.fixture(scope="module")
def interpreter():
    """Triton imported anew to interpret; where something imported it before, its library was made to compile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        before = {name: sys.modules.pop(name) for name in list(sys.modules) if is_triton(name)}
        kernels._fused.cache_clear()
        assert kernels._fused() is not None
        yield
    sys.modules.update(before)
    kernels._fused.cache_clear()


@pytest.fixture
def interpreted(interpreter, monkeypatch):
    """choose(name): 'triton', interpreted, or 'plain'."""
    return lambda name: monkeypatch.setenv("CODESIGN_KERNELS", name)


def numbers(shape, seed, dtype, scale=1.0):
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale).to(dtype)


@pytest.mark.deep
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("surrogate", ["rectangular", "atan", "fast_sigmoid"])
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("recurrent", [False, True])
def test_the_kernel_has_the_bits_of_torch(interpreted, recurrent, reset, surrogate, dtype):
    def outcome(name, case, kind, compare, integer, constant, learnt):
        interpreted(name)
        scale = 60.0 if integer else 1.0
        cell = Neuron(
            leak_kind=kind, leak_shift=3, leak_multiplier=5, reset=reset, compare=compare, surrogate=surrogate,
            surrogate_width=0.7, surrogate_area=0.6, threshold=scale, unit=1.1 * scale, integer=integer,
            membrane_min=-1.5 * scale if case % 2 else None, membrane_max=1.25 * scale if case % 2 else None,
        )  # fmt: skip
        current = numbers((BATCH, NEURONS) if constant else (T, BATCH, NEURONS), case, dtype, scale)
        current = (current.round() if integer else current).requires_grad_()
        weight = numbers((NEURONS, NEURONS), case + 1, dtype, 0.1).requires_grad_()
        decay = None if learnt is None else torch.rand(learnt).to(dtype).requires_grad_()
        if recurrent:
            s, u, v = recurrent_lif(current, weight, T, cell, decay)
        else:
            s, u, v = lif(current, T, cell, decay)
        leaves = [current] + ([weight] if recurrent else []) + ([] if decay is None else [decay])
        loss = (s * numbers(s.shape, 7, dtype)).sum() + (u * numbers(u.shape, 8, dtype)).sum() + s.sum(0).max()
        return [s, u, v, *torch.autograd.grad(loss, leaves)]

    cases = itertools.product(
        ["none", "shift", "multiply"], [">=", ">"], [False, True], [False, True], [None, (1,), (NEURONS,)]
    )
    for case, (kind, compare, integer, constant, learnt) in enumerate(cases):
        if case % 4 or (integer and learnt):
            continue
        torch.manual_seed(case)
        ours = outcome("triton", case, kind, compare, integer, constant, learnt)
        torch.manual_seed(case)
        theirs = outcome("plain", case, kind, compare, integer, constant, learnt)
        assert bool(ours[0].any())
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)), (case, kind, compare, integer)


@pytest.mark.deep
def test_a_network_trains_by_the_kernel(interpreted, monkeypatch):
    config = parse_config(
        {
            "network": {
                "hidden": [20],
                "timesteps": 4,
                "learn_leak": "neuron",
                "recurrent": True,
                "readout": "spike_count",
            }
        }
    )
    events = (torch.rand(4, 6, 30, generator=torch.Generator().manual_seed(0)) < 0.3).float()

    def gradients(name):
        interpreted(name)
        network = SpikingNetwork(30, 5, config.network, config.train)
        loss = torch.nn.functional.cross_entropy(network(events).scores, torch.arange(6) % 5)
        return [loss.detach(), *torch.autograd.grad(loss, list(network.parameters()))]

    calls = []
    module = kernels._fused()
    original = module.advance
    monkeypatch.setattr(module, "advance", lambda *given: (calls.append(1), original(*given))[1])
    ours = gradients("triton")
    assert calls
    assert all(torch.equal(a, b) for a, b in zip(ours, gradients("plain"), strict=True))


@pytest.mark.deep
@pytest.mark.parametrize("steps", ["1", "many"])
@pytest.mark.parametrize("dtype", ["fp32", "fp64"])
def test_it_compiles_for_a_device_without_fused_operations(tmp_path: Path, dtype, steps):
    """A single timestep is a case of its own: Triton takes arguments that are 1 for constants."""
    script = tmp_path / "compile.py"
    script.write_text(COMPILE)
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, script, dtype, steps], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    short = dtype[0] + dtype[2:]
    assert f"mul.rn.{short}" in result.stdout or f"mul.{short}" in result.stdout
    assert f"div.rn.{short}" in result.stdout
    assert "fma" not in result.stdout and "div.full" not in result.stdout
