"""Training steps: GraphedStep against the step that a person would write, bit for bit; the same bits twice; memory that stays.

Everything runs on a CPU too, where GraphedStep runs plainly, and memory is that of the process.
"""

from __future__ import annotations

import gc
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from subjects import DEVICE, ON_GPU, gpu, kernels, torch_dtype
from torch import Tensor

import fastdraw
from fastdraw import DRAW, GraphedStep
from fastdraw.graphed import StepOutput

SMALL = fastdraw.DRAWConfig((1, 9, 8), 3, 17, 5, 2, 3)
MNIST = fastdraw.DRAWConfig((1, 28, 28), 8, 256, 100, 2, 5)
SVHN = fastdraw.DRAWConfig((3, 54, 54), 2, 800, 100, 12, 12)
CONFIGS = {"small": (SMALL, 5), "mnist": (MNIST, 128), "svhn": (SVHN, 16)}
SETTINGS = [("small", "float32"), ("small", "bfloat16")]
if ON_GPU:
    SETTINGS += list(itertools.product(["mnist", "svhn"], ["float32", "tf32", "bfloat16", "float16"]))
CLIP = 0.5


def made(config: fastdraw.DRAWConfig, **options: Any) -> tuple[DRAW, torch.optim.Optimizer]:
    """The same model every time, with an optimiser that works under a graph and computes the same without one."""
    torch.manual_seed(0)
    model = DRAW(**config.to_dict(), **options).to(DEVICE)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    rate = torch.tensor(1e-3, device=DEVICE) if ON_GPU else 1e-3
    return model, torch.optim.Adam(model.parameters(), lr=rate, capturable=ON_GPU)


def batches(config: fastdraw.DRAWConfig, size: int, count: int) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    shape = (config.glimpses, size, config.latent_size)
    return [(torch.rand(size, *config.image_shape, device=DEVICE), torch.randn(shape, device=DEVICE)) for _ in range(count)]


def autocast(precision: str) -> torch.autocast:
    dtype = torch_dtype(precision)
    return torch.autocast(DEVICE, dtype, enabled=dtype != torch.float32)


def by_hand(model: DRAW, optimizer: torch.optim.Optimizer, x: Tensor, noise: Tensor) -> StepOutput:
    """What GraphedStep does, written with torch's own functions."""
    optimizer.zero_grad(set_to_none=True)
    out = model(x, noise)
    out.loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimizer.step()
    return StepOutput(out.loss.detach(), out.reconstruction.detach(), out.kl.detach(), norm.detach())


@pytest.mark.parametrize("canvas_memory", ["keep", "rebuild"])
@pytest.mark.parametrize(("name", "precision"), SETTINGS)
def test_graphed_steps_are_the_eager_ones_bit_for_bit(name, precision, canvas_memory):
    config, size = CONFIGS[name]
    given = batches(config, size, 6)
    with kernels(precision), autocast(precision):
        model, optimizer = made(config, canvas_memory=canvas_memory)
        eager = [by_hand(model, optimizer, x, noise) for x, noise in given]
        other, optimizer = made(config, canvas_memory=canvas_memory)
        step = GraphedStep(other, optimizer, given[0][0], clip=CLIP)
        for number, ((x, noise), expected) in enumerate(zip(given, eager, strict=True)):
            out = step(x, noise)
            for field, one, two in zip(StepOutput._fields, out, expected, strict=True):
                assert torch.equal(one, two), f"step {number}: {field} is off by {(one - two).abs().max()}"
    for (field, one), two in zip(other.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(one, two), f"{field} is off by {(one - two).abs().max()}"


@pytest.mark.parametrize("graphed", [False, True])
@pytest.mark.parametrize(("name", "precision"), SETTINGS)
def test_two_runs_give_the_same_weights_to_the_bit(name, precision, graphed):
    config, size = CONFIGS[name]
    given = batches(config, size, 4)

    def run() -> list[Tensor]:
        model, optimizer = made(config)
        with kernels(precision), autocast(precision):
            step = GraphedStep(model, optimizer, given[0][0], clip=CLIP) if graphed else None
            for x, noise in given:
                step(x, noise) if step else by_hand(model, optimizer, x, noise)
        return [p.detach() for p in model.parameters()]

    for one, other in zip(run(), run(), strict=True):
        assert torch.equal(one, other)


def memory() -> dict[str, int]:
    """Bytes in use, by a name: of torch's allocator and of the device, or of this process on a CPU."""
    if not ON_GPU:
        status = Path("/proc/self/status").read_text().splitlines()
        return {"resident": 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))}
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    found = {"allocated": torch.cuda.memory_allocated(), "reserved": torch.cuda.memory_reserved()}
    return {**found, "of the device": total - free} if alone() else found


def alone() -> bool:
    """Whether no other process is known to use the device: not as one of several workers."""
    return "PYTEST_XDIST_WORKER" not in os.environ


def stays(step: Callable[[], object], count: int, settled: int = 100) -> None:
    """Memory after `count` steps is what it was after the first `settled`."""
    for _ in range(settled):
        step()
    gc.collect()
    before = memory()
    for _ in range(count - settled):
        step()
    gc.collect()
    after = memory()
    # An allocator counts to the byte. A process or a device as a whole has other tenants, Python's and the driver's: there a
    # step shows that keeps more than a few hundred bytes in 10,000 steps, or a few kilobytes in 1,000.
    slack = {"resident": 4 << 20, "of the device": 4 << 20}
    for name, value in after.items():
        assert value <= before[name] + slack.get(name, 0), f"{name}: {before[name]} bytes became {value} in {count} steps"


@pytest.mark.skipif(not (ON_GPU or Path("/proc/self/status").exists()), reason="this system tells no process its memory")
@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=gpu)])
@pytest.mark.parametrize(("graphed", "count"), [(True, 10_000 if ON_GPU else 700), (False, 2_000 if ON_GPU else 500)])
def test_memory_does_not_grow(graphed, count, precision):
    ((x, _),) = batches(SMALL, 8, 1)
    model, optimizer = made(SMALL)
    with kernels(precision), autocast(precision):
        step = GraphedStep(model, optimizer, x, clip=CLIP) if graphed else None

        def eager() -> StepOutput:
            return by_hand(model, optimizer, x, torch.randn(3, 8, 5, device=DEVICE))

        stays((lambda: step(x)) if step else eager, count)


@pytest.mark.skipif(not (ON_GPU or Path("/proc/self/status").exists()), reason="this system tells no process its memory")
def test_growing_memory_is_noticed():
    kept = []
    # 200 MB: less could find room in what earlier tests of the process have freed.
    with pytest.raises(AssertionError, match=r"bytes became"):
        stays(lambda: kept.append(torch.ones(1 << 18, device=DEVICE)), 300)
