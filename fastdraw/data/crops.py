"""Crops of images: random ones to train on, the central ones to evaluate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RandomCrops:
    """A `Splits.make`: uint8 [B, C, h, w] -> [B, C, size, size], each crop's place with equal probability."""

    size: int

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        def draw(n: int) -> Tensor:
            return torch.randint(n, (len(images),), generator=generator, device=generator.device).to(images.device)

        height, width = images.shape[2:]
        y, x = draw(height - self.size + 1), draw(width - self.size + 1)
        crops = images.unfold(2, self.size, 1).unfold(3, self.size, 1)
        return crops[torch.arange(len(images), device=images.device), :, y, x]


def central(images: Tensor, size: int) -> Tensor:
    """[n, C, h, w] -> [n, C, size, size], a copy."""
    y, x = (images.shape[2] - size) // 2, (images.shape[3] - size) // 2
    return images[:, :, y : y + size, x : x + size].contiguous()
