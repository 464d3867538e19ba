"""What the tests of test_gpu_*.py work on: operators and models with inputs on the device at hand, and their error budget.

The device is a CUDA device where there is one, and Triton the backend. Elsewhere the same tests run at small sizes on the CPU,
so that a test's own mistakes show before a GPU is paid for; with FASTDRAW_EMULATE on Triton's machine code in the emulator.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import operators
import pytest
import torch
from operators import Operator
from torch import Tensor

import fastdraw
from benchmarks.cases.operators import window_params
from fastdraw.products import float32_products
from fastdraw.profile.models import Problem
from fastdraw.runs.kinds import KINDS, Config, task_of
from fastdraw.testing import as_list, check, leaves

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
BACKEND = "triton" if ON_GPU or os.environ.get("FASTDRAW_EMULATE") else "aten" if fastdraw.backends()["native"] else "native"

PRECISIONS = ["float32", "tf32", "bfloat16", "float16", "float64"]
#: What only a device of size is given.
gpu = pytest.mark.gpu


def windowed(name: str, b: int, c: int, h: int, w: int, n: int, k: int = 0) -> Operator:
    """read, write or filterbank with the windows that benchmarks have: k of each image, where k is given."""
    params = window_params(b * k).view(b, k, 5) if k else window_params(b)
    images = {"image": torch.rand} if name == "read" else {}
    return operators.WINDOWED[name](b, c, h, w, n, k or None, params=params, **images)


def lstm_step(b: int, i: int, h: int) -> Operator:
    return operators.lstm_step(b, i, h, normal=False)


#: One of each operator, of moderate size, for what does not hang on shapes.
SUBJECTS = {
    "read": lambda: windowed("read", 32, 2, 28, 33, 5),
    "write": lambda: windowed("write", 32, 2, 28, 33, 5),
    "filterbank": lambda: windowed("filterbank", 32, 1, 28, 33, 5),
    "lstm_step": lambda: lstm_step(32, 40, 65),
}


def torch_dtype(precision: str) -> torch.dtype:
    return torch.float32 if precision == "tf32" else getattr(torch, precision)


def half(precision: str) -> torch.dtype | None:
    """autocast's dtype."""
    return torch_dtype(precision) if precision in ("bfloat16", "float16") else None


def budget_dtype(precision: str) -> torch.dtype:
    """tf32 keeps as many bits of an operand as float16 does."""
    return torch.float16 if precision == "tf32" else torch_dtype(precision)


def wide(subject: Operator) -> int:
    """The input that stays at least float32: params, or an LSTM's cell state."""
    return 2 if subject.params is None else subject.params


def narrowed(subject: Operator, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The inputs on the device in `dtype`, but for the wide one."""
    dtypes = [dtype] * len(subject.inputs)
    dtypes[wide(subject)] = torch.promote_types(dtype, torch.float32)
    return leaves([tensor.to(DEVICE) for tensor in subject.inputs], dtypes)


def weights_for(function: Callable[..., Any], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Random weights, one for each output, which stand for the gradients that come from outside."""
    with torch.no_grad():
        return [torch.randn_like(output) for output in as_list(function(*inputs))]


@contextmanager
def kernels(precision: str = "float32") -> Iterator[None]:
    with fastdraw.backend(BACKEND), float32_products("high" if precision == "tf32" else "highest"):
        yield


def check_operator(subject: Operator, precision: str) -> None:
    """Values and all gradients: no further from float64 than the reference in the same precision, but for the tolerance."""
    on_device = subject._replace(inputs=[tensor.to(DEVICE) for tensor in subject.inputs])
    with kernels(precision):
        # In half precision the reference's LSTM gives a float32 h.
        options = {"tolerance": budget_dtype(precision), "same_dtypes": subject.params is not None}
        on_device.prove(torch_dtype(precision), wide=[wide(subject)], **options)


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


def check_model(config: Config, precision: str, size: int = 32, **options: Any) -> None:
    """Loss, KL or logits, and gradients to all weights. bfloat16 and float16 are autocast's; float64 is the model's own."""
    problem, coarse = Problem(config, size, DEVICE), budget_dtype(precision)
    model, naive = KINDS[task_of(config)].model(**config.to_dict(), **options), problem.specification.from_config(config)
    if precision == "float64":
        model, naive = model.double(), naive.double()
    with kernels(precision):
        actual, rival = (problem.step(one, half(precision))() for one in (model, naive))
    # Half precision and tf32 round every weight, and gradients that nearly cancel show it: models so moved, in float64.
    draws = 0 if precision in ("float32", "float64") else 3
    moved = (problem.exact(torch.finfo(coarse).eps / 2) for _ in range(draws))
    check(actual, problem.exact(), chain([rival], moved), coarse)
