"""DRAW and its classifier in every precision, with and without attention, in colour, wide and large: helpers/subjects.py."""

from __future__ import annotations

import pytest
import torch
from subjects import BACKEND, DEVICE, PRECISIONS, check_model, gpu, half, kernels, waiting_refused
from torch import Tensor

import fastdraw
from fastdraw.profile.models import Problem, with_weights
from fastdraw.testing import check, differentiate

#: Of the paper, and large ones.
CONFIGS = {
    "mnist": fastdraw.DRAWConfig((1, 28, 28), 6, 256, 100, 2, 5),
    "svhn": fastdraw.DRAWConfig((3, 54, 54), 3, 800, 100, 12, 12),
    "cifar": fastdraw.DRAWConfig((3, 32, 32), 4, 400, 200, 5, 5),
    "no attention": fastdraw.DRAWConfig((1, 28, 28), 4, 256, 100, None, None),
    "colour without attention": fastdraw.DRAWConfig((3, 32, 32), 2, 400, 200, None, None),
    "large image": fastdraw.DRAWConfig((3, 512, 384), 2, 64, 16, 12, 12),
}
#: Multiples of nothing; these run on a CPU as well.
SMALL = {
    "attention": fastdraw.DRAWConfig((2, 9, 7), 3, 9, 4, 3, 2),
    "read only": fastdraw.DRAWConfig((2, 9, 7), 3, 8, 4, 3, None),
    "write only": fastdraw.DRAWConfig((1, 9, 17), 3, 33, 5, None, 4),
    "neither": fastdraw.DRAWConfig((3, 5, 6), 2, 8, 4, None, None),
    "one of everything": fastdraw.DRAWConfig((1, 1, 1), 1, 1, 1, 1, 1),
    "classes": fastdraw.DRAWConfig((1, 9, 8), 3, 16, 4, 2, 3, num_classes=5),
}
EVERYTHING = [*(pytest.param(name, marks=gpu) for name in CONFIGS), *SMALL]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", EVERYTHING)
def test_draw(name, precision):
    check_model((CONFIGS | SMALL)[name], precision, 32 if name in CONFIGS else 5)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", [pytest.param("mnist", marks=gpu), pytest.param("svhn", marks=gpu), "attention"])
def test_draw_with_rebuilt_canvases(name, precision):
    check_model((CONFIGS | SMALL)[name], precision, 32 if name in CONFIGS else 5, canvas_memory="rebuild")


@pytest.mark.compiled
@pytest.mark.parametrize("size", [1, 100, pytest.param(2048, marks=gpu)])
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_draw_of_other_batches(size, precision):
    """One image; a batch that is no multiple of a tile; one whose products go to other tiles, or to cuBLAS."""
    check_model(fastdraw.DRAWConfig((1, 28, 28), 2, 256, 100, 2, 5), precision, size)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", [pytest.param((1, 100, 100, 256, 12, 64), marks=gpu), (2, 9, 8, 17, 3, 5)], ids=str)
def test_classifier(shape, precision):
    *image_shape, hidden, n, size = shape
    check_model(fastdraw.ClassifierConfig(tuple(image_shape), glimpses=3, hidden_size=hidden, read_size=n), precision, size)


def model_of(problem: Problem) -> fastdraw.DRAW:
    return with_weights(fastdraw.DRAW.from_config(problem.config), problem.state, DEVICE)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", [pytest.param("mnist", marks=gpu), pytest.param("svhn", marks=gpu), "attention", "neither"])
def test_draw_waits_for_nothing_and_gives_the_same_bits(name, precision):
    problem = Problem((CONFIGS | SMALL)[name], 32, DEVICE)
    model = model_of(problem)
    step = problem.step(model, half(precision))
    with kernels(precision):
        first = step()
        with waiting_refused():
            second = step()
            model(problem.x)
            model.sample(4)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("draws", [True, False])
def test_registration_of_the_recurrence(draws):
    """draws: with images, as in training; otherwise the sampler."""
    problem = Problem(SMALL["attention"], 3, DEVICE)
    layers = fastdraw.ops.recurrence._layers(model_of(problem), infers=draws)
    weights = [None if layer is None else layer.detach().requires_grad_() for layer in layers]
    arguments = (problem.x if draws else None, problem.noise, None, *weights, 3, 2, torch.float32, True, True, BACKEND)
    torch.library.opcheck(torch.ops.fastdraw.recurrence.default, arguments)


# On a CPU the compiler makes C++ of what is around the operator, and takes half a minute; test_models.py does without.
@gpu
def test_a_compiled_training_step():
    """The model with loss and gradients under torch.compile: no break, and the same results."""
    problem = Problem(SMALL["attention"], 32, DEVICE)
    model, x, noise = model_of(problem), problem.x, problem.noise
    weights = list(model.parameters())

    def loss(x: Tensor, noise: Tensor) -> Tensor:
        return model(x, noise).loss * 2

    with kernels():
        one = torch.ones((), device=DEVICE)
        expected = differentiate(lambda *_: loss(x, noise), weights, [one])
        compiled = torch.compile(loss, fullgraph=True, backend="inductor")
        for _ in range(2):
            actual = differentiate(lambda *_: compiled(x, noise), weights, [one])
            check(actual, expected, [expected], torch.float32)
