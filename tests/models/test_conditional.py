"""Class-conditional DRAW: both LSTMs are given the class; on every backend as in the reference."""

from __future__ import annotations

import pytest
import torch
from small_draw import SMALL, inputs, pair, results
from torch import Tensor

import fastdraw
from fastdraw import DRAW, reference
from fastdraw.testing import check

CLASSES = 3
CONDITIONAL = {**SMALL, "num_classes": CLASSES}


def labels(batch: int) -> Tensor:
    return torch.arange(batch) % CLASSES


@pytest.mark.parametrize("sizes", [(2, 5), (None, 3), (4, None)])
@pytest.mark.parametrize("canvas_memory", ["keep", "rebuild"])
def test_as_the_reference(backend: str, sizes: tuple, canvas_memory: str) -> None:
    configuration = {**CONDITIONAL, "read_size": sizes[0], "write_size": sizes[1]}
    _, exact = pair(**configuration)
    x, noise = inputs(exact, 4)
    naive = reference.DRAW(**configuration)
    ours = DRAW(**configuration, canvas_memory=canvas_memory)
    for model in (naive, ours):
        model.load_state_dict(exact.state_dict())
    rival, got = (results(model, x.float(), noise.float(), labels(4)) for model in (naive, ours))
    check(got, results(exact, x, noise, labels(4)), [rival], torch.float32)


def test_the_class_matters(backend: str) -> None:
    model, _ = pair(**CONDITIONAL)
    _, noise = inputs(model, 4)
    first, second = (model.sample(4, noise, labels=torch.full((4,), label)) for label in (0, 1))
    assert not torch.allclose(first, second)
    # One image's class is nothing to the others.
    mixed = model.sample(4, noise, labels=torch.tensor([0, 1, 1, 0]))
    torch.testing.assert_close(mixed, torch.stack([first[0], second[1], second[2], first[3]]))


def test_sampling_and_reconstruction_follow_the_reference(backend: str) -> None:
    model, other = pair(**CONDITIONAL)
    x, noise = inputs(model, 5)
    for m, o in ((model.sample, other.sample), (model.reconstruct, other.reconstruct)):
        first = 5 if m == model.sample else x
        images, trajectory = m(first, noise, return_trajectory=True, labels=labels(5))
        expected, there = o(first, noise, return_trajectory=True, labels=labels(5))
        torch.testing.assert_close(images, expected)
        torch.testing.assert_close(trajectory.canvases, there.canvases)


def test_told_no_class_the_sampler_draws_classes(backend: str) -> None:
    model, _ = pair(**CONDITIONAL)
    noise = torch.zeros(SMALL["glimpses"], 60, SMALL["latent_size"], dtype=torch.float64)
    kinds = model.sample(60, noise).flatten(1).round(decimals=6).unique(dim=0)
    assert len(kinds) == CLASSES


def test_opcheck(backend: str) -> None:
    model, _ = pair(torch.float32, **CONDITIONAL)
    x, noise = inputs(model)
    layers = [None if v is None else v.detach().requires_grad_() for v in fastdraw.ops.recurrence._layers(model, True)]
    arguments = (x, noise, labels(len(x)), *layers, 2, 5, torch.float32, True, True, backend)
    torch.library.opcheck(torch.ops.fastdraw.recurrence.default, arguments)


def test_shapes_and_configuration() -> None:
    model = DRAW(**CONDITIONAL)
    hidden, read = SMALL["hidden_size"], model.config.read_numel
    assert model.encoder.weight_ih.shape == (4 * hidden, 2 * read + hidden + CLASSES)
    assert model.decoder.weight_ih.shape == (4 * hidden, SMALL["latent_size"] + CLASSES)
    again = DRAW.from_config(model.config)
    again.load_state_dict(model.state_dict())
    assert model.config.num_classes == CLASSES
    assert DRAW(**SMALL).config.num_classes is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "labels: expected a tensor"),
        (torch.zeros(2), r"labels: expected an int64 tensor of shape \[2\]"),
        (torch.zeros(3, dtype=torch.int64), r"labels: expected an int64 tensor of shape \[2\]"),
        (torch.tensor([0, CLASSES]), "labels: expected class numbers from 0 to 2, got numbers from 0 to 3"),
        (torch.tensor([-1, 0]), "labels: expected class numbers from 0 to 2, got numbers from -1 to 0"),
    ],
)
def test_labels_that_do_not_fit(given: Tensor | None, message: str) -> None:
    model = DRAW(**CONDITIONAL)
    x = torch.rand(2, *SMALL["image_shape"])
    with pytest.raises((TypeError, ValueError), match=message):
        model(x, labels=given)


def test_labels_for_a_model_without_classes() -> None:
    with pytest.raises(ValueError, match="labels: expected None for a model without num_classes"):
        DRAW(**SMALL).sample(1, labels=torch.zeros(1, dtype=torch.int64))


@pytest.mark.parametrize("number", [0, -1, 2.5])
def test_numbers_of_classes_that_make_no_sense(number: float) -> None:
    with pytest.raises((TypeError, ValueError), match="num_classes"):
        DRAW(**SMALL, num_classes=number)
