"""Class-conditional DRAW: both LSTMs are given the class. That it is the reference's is in test_models.py."""

from __future__ import annotations

import pytest
import torch
from small_models import KINDS, inputs, pair
from torch import Tensor

from fastdraw import DRAW

SMALL, CONDITIONAL = KINDS["draw"][1], KINDS["conditional"][1]
CLASSES = CONDITIONAL["num_classes"]


def test_the_class_matters(backend: str) -> None:
    model, _ = pair("conditional")
    noise = inputs(model, 4)["noise"]
    first, second = (model.sample(4, noise, labels=torch.full((4,), label)) for label in (0, 1))
    assert not torch.allclose(first, second)
    # One image's class is nothing to the others.
    mixed = model.sample(4, noise, labels=torch.tensor([0, 1, 1, 0]))
    torch.testing.assert_close(mixed, torch.stack([first[0], second[1], second[2], first[3]]))


def test_told_no_class_the_sampler_draws_classes(backend: str) -> None:
    model, _ = pair("conditional")
    noise = torch.zeros(SMALL["glimpses"], 60, SMALL["latent_size"], dtype=torch.float64)
    kinds = model.sample(60, noise).flatten(1).round(decimals=6).unique(dim=0)
    assert len(kinds) == CLASSES


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
