"""The error of a classifier on held-out images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fastdraw.classifier import DRAWClassifier
from fastdraw.train.evaluate import to_input


@dataclass(frozen=True)
class Classification:
    """error: percent of `images` images told wrongly. standard_error: of it, sqrt(p (1 - p) / images), in percent too.

    cross_entropy: nats per image.
    """

    error: float
    standard_error: float
    cross_entropy: float
    images: int


@torch.inference_mode()
def classify(
    model: DRAWClassifier,
    images: Tensor,
    labels: Tensor,
    batch_size: int,
    seed: int | None = None,
    autocast: torch.dtype | None = None,
    between: Callable[[], None] = lambda: None,
) -> Classification:
    """Compares the model's classes of `images` (uint8 [n, C, H, W], n at least 1) with `labels` [n].

    With a seed pixels are drawn as 0 or 1, the same at every evaluation; None keeps intensities. `between` is called between
    batches; what it raises ends the evaluation.
    """
    device, wrong, nats = model.initial_hidden.device, 0, 0.0
    for start in range(0, len(images), batch_size):
        between()
        x = to_input(images[start : start + batch_size], device, seed, "evaluation images", start)
        y = labels[start : start + batch_size].to(device)
        with torch.autocast(device.type, autocast, enabled=autocast is not None):
            logits = model(x).logits
        wrong += int((logits.argmax(1) != y).sum())
        nats += float(cross_entropy(logits.double(), y, reduction="sum"))
    share = wrong / len(images)
    return Classification(100 * share, 100 * math.sqrt(share * (1 - share) / len(images)), nats / len(images), len(images))
