"""What the tests of test_gpu_*.py work on: operators and models with inputs on the device at hand, and their error budget.

The device is a CUDA device where there is one, and Triton the backend. Elsewhere the same tests run at small sizes on the CPU,
so that a test's own mistakes show before a GPU is paid for; with FASTDRAW_EMULATE on Triton's machine code in the emulator.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import fastdraw
from benchmarks.cases.operators import window_params
from budget import assert_errors_within_budget, error
from fastdraw import reference
from fastdraw.products import float32_products
from fastdraw.profile.gradients import as_list, differentiate, leaves
from fastdraw.profile.models import gradients, rounded

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
BACKEND = "triton" if ON_GPU or os.environ.get("FASTDRAW_EMULATE") else "aten" if fastdraw.backends()["native"] else "native"

PRECISIONS = ["float32", "tf32", "bfloat16", "float16", "float64"]
#: What only a device of size is given.
gpu = pytest.mark.gpu


class Subject(NamedTuple):
    """An operator, what it has to equal, its float64 inputs, and which of them is params, if any."""

    operator: Callable[..., Any]
    specification: Callable[..., Any]
    inputs: list[Tensor]
    params: int | None


def windows(b: int, k: int | None) -> Tensor:
    """[B, 5], or [B, K, 5] of several windows."""
    return window_params(b) if k is None else window_params(b * k).view(b, k, 5)


def read(b: int, c: int, h: int, w: int, n: int, k: int | None = None) -> Subject:
    image = torch.rand(b, c, h, w, dtype=torch.float64)
    return Subject(lambda i, p: fastdraw.read(i, p, n), lambda i, p: reference.read(i, p, n), [image, windows(b, k)], 1)


def write(b: int, c: int, h: int, w: int, n: int, k: int | None = None) -> Subject:
    patch = torch.randn(b, *(() if k is None else (k,)), c, n, n, dtype=torch.float64)
    pair = (lambda q, p: fastdraw.write(q, p, (h, w)), lambda q, p: reference.write(q, p, (h, w)))
    return Subject(*pair, [patch, windows(b, k)], 1)


def filterbank(b: int, c: int, h: int, w: int, n: int) -> Subject:
    pair = (lambda p: fastdraw.filterbank(p, n, (h, w)), lambda p: reference.filterbank(p, n, (h, w)))
    return Subject(*pair, [window_params(b)], 0)


def lstm_step(b: int, i: int, h: int) -> Subject:
    shapes = [(4 * h, i), (4 * h, h), (4 * h,), (4 * h,)]
    states = [torch.randn(b, k, dtype=torch.float64) for k in (i, h, h)]
    weights = [torch.empty(shape, dtype=torch.float64).uniform_(-(h**-0.5), h**-0.5) for shape in shapes]
    pair = (
        lambda x, hidden, c, *w: fastdraw.lstm_step(x, (hidden, c), *w),
        lambda x, hidden, c, *w: reference.lstm_step(x, (hidden, c), *w),
    )
    return Subject(*pair, [*states, *weights], None)


#: One of each operator, of moderate size, for what does not hang on shapes.
SUBJECTS = {
    "read": lambda: read(32, 2, 28, 33, 5),
    "write": lambda: write(32, 2, 28, 33, 5),
    "filterbank": lambda: filterbank(32, 1, 28, 33, 5),
    "lstm_step": lambda: lstm_step(32, 40, 65),
}


def torch_dtype(precision: str) -> torch.dtype:
    return torch.float32 if precision == "tf32" else getattr(torch, precision)


def narrowed(subject: Subject, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The inputs on the device in `dtype`; params, and an LSTM's cell state, stay at least float32."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    keep = 2 if subject.params is None else subject.params
    dtypes = [wide if index == keep else dtype for index in range(len(subject.inputs))]
    return leaves([tensor.to(DEVICE) for tensor in subject.inputs], dtypes)


def weights_for(function: Callable[..., Any], inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Random weights, one for each output, which stand for the gradients that come from outside."""
    with torch.no_grad():
        outputs = function(*inputs)
    return [torch.randn_like(output) for output in as_list(outputs)]


@contextmanager
def kernels(precision: str = "float32") -> Iterator[None]:
    with fastdraw.backend(BACKEND), float32_products("high" if precision == "tf32" else "highest"):
        yield


def nudge(tensor: Tensor, dtype: torch.dtype, params: bool) -> Tensor:
    """Moved by four roundings of the arithmetic's dtype, the least that a kernel can be asked to bear; of params beside 1."""
    step = 4 * torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps * (params + tensor.abs())
    return (tensor + step * torch.randn_like(tensor).sign()).detach().requires_grad_()


def budget_dtype(precision: str) -> torch.dtype:
    """tf32 keeps as many bits of an operand as float16 does."""
    return torch.float16 if precision == "tf32" else torch_dtype(precision)


def check(subject: Subject, precision: str) -> None:
    """Values and all gradients: no further from float64 than the reference in the same precision, but for the tolerance."""
    dtype = torch_dtype(precision)
    inputs = narrowed(subject, dtype)
    with kernels(precision):
        weights = weights_for(subject.operator, inputs)
        actual = differentiate(subject.operator, inputs, weights)
        naive = differentiate(subject.specification, inputs, weights)
    exact_inputs = [tensor.detach().double().requires_grad_() for tensor in inputs]
    exact_weights = [weight.double() for weight in weights]
    exact = differentiate(subject.specification, exact_inputs, exact_weights)
    allowed = [error(n, e) for n, e in zip(naive, exact, strict=True)]
    for _ in range(0 if subject.params is None else 4):
        nudged = [nudge(t, dtype, index == subject.params) for index, t in enumerate(exact_inputs)]
        rival = differentiate(subject.specification, nudged, exact_weights)
        allowed = [max(a, error(r, e)) for a, r, e in zip(allowed, rival, exact, strict=True)]
    for index, (a, e) in enumerate(zip(actual, exact, strict=True)):
        assert_errors_within_budget(f"result {index}", error(a, e), allowed[index], budget_dtype(precision))


@contextmanager
def waiting_refused() -> Iterator[None]:
    """Whatever waits for the device raises."""
    if not ON_GPU:
        yield
        return
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def capture(function: Callable[[], list[Tensor]]) -> tuple[torch.cuda.CUDAGraph, list[Tensor]]:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        function()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        results = function()
    return graph, results


def models(config: fastdraw.DRAWConfig, **options: Any) -> tuple[fastdraw.DRAW, reference.DRAW, reference.DRAW]:
    """fastdraw's, the reference's, and the reference's in float64, with the same weights."""
    model = fastdraw.DRAW(**config.to_dict(), **options).to(DEVICE)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    naive, exact = (reference.DRAW.from_config(config).to(DEVICE) for _ in range(2))
    naive.load_state_dict(model.state_dict())
    exact.load_state_dict(model.state_dict())
    return model, naive, exact.double()


def batch(config: fastdraw.DRAWConfig, size: int = 32) -> tuple[Tensor, Tensor]:
    noise = torch.randn(config.glimpses, size, config.latent_size, device=DEVICE)
    return torch.rand(size, *config.image_shape, device=DEVICE), noise


def check_draw(config: fastdraw.DRAWConfig, precision: str, size: int = 32, **options: Any) -> None:
    """Loss, KL and the gradients to all weights. bfloat16 and float16 are autocast's; float64 is the model's own."""
    model, naive, exact = models(config, **options)
    x, noise = batch(config, size)
    labels = None if config.num_classes is None else torch.arange(size, device=DEVICE) % config.num_classes
    dtype = torch_dtype(precision)
    half = dtype if dtype in (torch.bfloat16, torch.float16) else None
    if dtype == torch.float64:
        model, naive = model.double(), naive.double()

    def results(m: reference.DRAW) -> list[Tensor]:
        wide = next(m.parameters()).dtype
        # The autocast region has to leave the float64 yardstick alone.
        with torch.autocast(DEVICE, half, enabled=half is not None and wide == torch.float32):
            out = m(x.to(wide), noise.to(wide), **({} if labels is None else {"labels": labels}))
        return gradients(out, list(m.parameters()))

    with kernels(precision):
        actual = results(model)
        rivals = [results(naive)]
    yardstick = results(exact)
    rivals += [results(moved) for moved in rounded_copies(exact, precision)]
    assert_all_within_budget(actual, rivals, yardstick, precision)


def rounded_copies(exact: torch.nn.Module, precision: str) -> list[Any]:
    """Half precision and tf32 round every weight, and gradients that nearly cancel show it: models so moved, in float64."""
    if precision in ("float32", "float64"):
        return []
    copies = [copy.deepcopy(exact) for _ in range(3)]
    for moved in copies:
        moved.load_state_dict(rounded(moved.state_dict(), torch.finfo(budget_dtype(precision)).eps / 2))
    return copies


def assert_all_within_budget(actual: list[Tensor], rivals: list[list[Tensor]], exact: list[Tensor], precision: str) -> None:
    """By the error of the worst rival."""
    for index, (a, e) in enumerate(zip(actual, exact, strict=True)):
        allowed = max(error(rival[index], e) for rival in rivals)
        assert_errors_within_budget(f"result {index}", error(a, e), allowed, budget_dtype(precision))
