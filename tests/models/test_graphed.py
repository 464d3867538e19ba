"""GraphedStep: the step that a person would write, and nothing else; the same under a CUDA graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_models import KINDS, converted, inputs, made, pair
from torch import Tensor

import fastdraw
from fastdraw import GraphedStep

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
#: Of the KL in the loss of what draws.
KL_WEIGHT = 0.25


def two(kind: str, device: str, batch: int, **changes: Any) -> tuple[Any, Any, dict[str, Tensor]]:
    """Two models with the same weights, and what they are given."""
    ours, theirs = (made(fastdraw, kind, **changes).double().to(device) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs, converted(inputs(ours, batch), device)


def by_hand(
    kind: str, model: Any, optimizer: torch.optim.Optimizer, given: dict[str, Tensor], clip: float
) -> tuple[Any, Tensor]:
    optimizer.zero_grad()
    out = model(**given)
    loss = out.loss if kind == "classifier" else (out.reconstruction + KL_WEIGHT * out.kl.sum(0)).mean()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return out, norm


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("parts", [1, 2, 3, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_those_written_by_hand(kind: str, parts: int, device: str) -> None:
    """Of seven images, in parts of equal size and not; in float64, where rounding is far below any mistake."""
    ours, theirs, given = two(kind, device, 7)
    optimizers = [torch.optim.Adam(model.parameters(), lr=1e-2) for model in (ours, theirs)]
    step = GraphedStep(ours, optimizers[0], given["x"], clip=0.5, accumulate=parts)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other), "building a step changed the weights"
    more = {} if kind == "classifier" else {"kl_weight": KL_WEIGHT}
    for _ in range(3):
        given = converted(inputs(ours, 7), device)
        out = step(**given, **more)
        expected, norm = by_hand(kind, theirs, optimizers[1], given, 0.5)
        for field in {"loss", "logits", "reconstruction", "kl"} & set(out._fields):
            torch.testing.assert_close(getattr(out, field), getattr(expected, field).detach(), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(out.gradient_norm, norm, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(list(ours.parameters()), list(theirs.parameters()), rtol=1e-8, atol=1e-10)
    if "labels" in given:
        labels = given.pop("labels")
        with pytest.raises(TypeError, match="labels: expected a tensor, got None"):
            step(**given)
        with pytest.raises(ValueError, match="labels: expected an int64 tensor"):
            step(**given, labels=labels[:3])
    if kind == "classifier":
        with pytest.raises(ValueError, match="noise: expected None for a classifier"):
            step(given["x"], torch.zeros(2), labels=labels)


@pytest.mark.parametrize("device", DEVICES)
def test_noise_is_fresh_at_every_step(device: str) -> None:
    model, _, given = two("draw", device, 5)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    step = GraphedStep(model, torch.optim.Adam(model.parameters(), lr=0.0), given["x"])
    losses = [step(given["x"]).loss.item() for _ in range(3)]
    assert len(set(losses)) == 3


def test_mistakes() -> None:
    model, other = (pair(dtype=torch.float32)[0] for _ in range(2))
    x = torch.rand(5, 2, 9, 7)
    optimizer = torch.optim.Adam(model.parameters())
    for arguments, options, error, message in [
        ((torch.nn.Linear(1, 1), optimizer, x), {}, TypeError, r"model: expected a fastdraw\.DRAW"),
        ((model, optimizer, x[:, :, :4]), {}, ValueError, r"example: expected shape \[B, 2, 9, 7\]"),
        ((model, optimizer, x), {"clip": 0.0}, ValueError, "clip: expected a norm above 0"),
        ((model, optimizer, x), {"accumulate": 6}, ValueError, "accumulate: expected at most 5 parts"),
        ((model, optimizer, x), {"accumulate": 0}, ValueError, "accumulate: expected at least 1, got 0"),
        ((other, optimizer, x), {}, ValueError, "optimizer: expected every parameter of the model"),
    ]:
        with pytest.raises(error, match=message):
            GraphedStep(*arguments, **options)
    step = GraphedStep(model, optimizer, x)
    for arguments, options, message in [
        ((x[:4],), {}, r"x: expected shape \[5, 2, 9, 7\]"),
        ((x * 3,), {}, r"x: expected values in \[0, 1\]"),
        ((x, torch.randn(3, 5, 5)), {}, r"noise: expected shape \[3, 5, 4\]"),
        ((x,), {"labels": torch.zeros(5, dtype=torch.int64)}, "labels: expected None for a model without classes"),
    ]:
        with pytest.raises(ValueError, match=message):
            step(*arguments, **options)
