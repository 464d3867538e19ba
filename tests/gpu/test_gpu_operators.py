"""Every operator in every precision, at the sizes that people use and at odd ones: `make gpu` runs all of it on a device.

Without one a few small shapes run on the CPU, so that the tests themselves are known to be right. What does not hang on sizes
(opcheck, inputs nobody expects) is in test_operators.py and test_large_images.py, which also run on the device.
"""

from __future__ import annotations

import pytest
import torch
from shapes import GLIMPSES
from subjects import (
    PRECISIONS,
    SUBJECTS,
    capture,
    check_operator,
    gpu,
    kernels,
    lstm_step,
    narrowed,
    waiting_refused,
    weights_for,
    windowed,
)
from torch import Tensor

from fastdraw.testing import as_list, check, differentiate

#: (B, C, H, W, N), each with what it is there for; test_triton_kernels.py has the odd ones.
REAL = [
    (128, 1, 28, 28, 2),  # the paper's MNIST read
    (128, 1, 28, 28, 5),  # the paper's MNIST write
    (128, 1, 100, 100, 12),  # the paper's cluttered MNIST
    (64, 3, 54, 54, 12),  # the paper's SVHN
    (4096, 1, 28, 28, 5),  # more images than a device runs at once
    (1, 3, 1024, 1536, 16),  # one image of more than a megapixel
]
#: The largest image, shared by many programs; and several windows of one image, K last.
LARGE = [(1, 3, 4096, 4096, 64), (1, 1, 4096, 4096, 12)]
WINDOWS = [
    (2, 2, 31, 33, 4, 3),
    pytest.param((8, 3, 256, 200, 12, 4), marks=gpu),
    pytest.param((1, 3, 1024, 1024, 32, 2), marks=gpu),
]
#: (B, I, h)
CELLS = [
    (128, 264, 256),  # the paper's MNIST encoder
    (128, 100, 256),  # its decoder
    (64, 1664, 800),  # the paper's SVHN encoder
]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", [*(pytest.param(shape, marks=gpu) for shape in REAL), *GLIMPSES[4:6]], ids=str)
@pytest.mark.parametrize("name", ["read", "write", "filterbank"])
def test_glimpses(name, shape, precision):
    check_operator(windowed(name, *shape), precision)


@pytest.mark.gpu
# float64 goes to kernels with other tiles, and at this size takes its time.
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16", "float16"])
@pytest.mark.parametrize("shape", LARGE, ids=str)
@pytest.mark.parametrize("name", ["read", "write"])
def test_the_largest_images(name, shape, precision):
    check_operator(windowed(name, *shape), precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", WINDOWS, ids=str)
@pytest.mark.parametrize("name", ["read", "write"])
def test_several_windows(name, shape, precision):
    check_operator(windowed(name, *shape), precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", [*(pytest.param(shape, marks=gpu) for shape in CELLS), (17, 33, 65)], ids=str)
def test_lstm_step(shape, precision):
    check_operator(lstm_step(*shape), precision)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", SUBJECTS)
def test_two_runs_give_the_same_bits(name, precision):
    subject = SUBJECTS[name]()
    inputs = narrowed(subject, torch.float32 if precision == "tf32" else getattr(torch, precision))
    with kernels(precision):
        weights = weights_for(subject.function, inputs)
        first, second = (differentiate(subject.function, inputs, weights) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", SUBJECTS)
def test_nothing_waits_for_the_device(name):
    subject = SUBJECTS[name]()
    inputs = narrowed(subject, torch.float32)
    with kernels():
        weights = weights_for(subject.function, inputs)
        differentiate(subject.function, inputs, weights)
        with waiting_refused():
            differentiate(subject.function, inputs, weights)


@pytest.mark.gpu
@pytest.mark.parametrize("name", SUBJECTS)
def test_a_graph_replays_on_new_inputs(name):
    subject, other = SUBJECTS[name](), SUBJECTS[name]()
    inputs, new = narrowed(subject, torch.float32), narrowed(other, torch.float32)
    with kernels():
        weights = weights_for(subject.function, inputs)
        expected = differentiate(subject.function, new, weights)
        graph, captured = capture(lambda: differentiate(subject.function, inputs, weights))
    with torch.no_grad():
        for tensor, value in zip(inputs, new, strict=True):
            tensor.copy_(value)
    graph.replay()
    torch.cuda.synchronize()
    for one, two in zip(captured, expected, strict=True):
        assert torch.equal(one, two)


# Inductor takes its time on a CPU; test_operators.py has the same there without it.
@pytest.mark.gpu
@pytest.mark.parametrize("name", SUBJECTS)
def test_compiled(name):
    subject = SUBJECTS[name]()
    inputs = narrowed(subject, torch.float32)

    def function(*tensors: Tensor) -> list[Tensor]:
        return [output + 1 for output in as_list(subject.function(*(tensor * 2 for tensor in tensors)))]

    with kernels():
        weights = weights_for(function, inputs)
        expected = differentiate(function, inputs, weights)
        actual = differentiate(torch.compile(function, fullgraph=True), inputs, weights)
    check(actual, expected, [expected], torch.float32)
