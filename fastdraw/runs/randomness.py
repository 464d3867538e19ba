"""Random numbers as a function of what they are for.

Each draw has a generator of its own, seeded from (seed, purpose, step). Nothing is carried from step to step, so a run that
goes on from a checkpoint draws what the uninterrupted run would have drawn, and evaluation cannot disturb training.
"""

from __future__ import annotations

from hashlib import blake2b

import torch


def generator(seed: int, purpose: str, index: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` that gives the same numbers for the same (seed, purpose, index)."""
    digest = blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


def noise(seed: int, purpose: str, index: int, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Standard normal float32 of this shape."""
    return torch.randn(shape, generator=generator(seed, purpose, index, device), device=device)
