"""Random numbers as a function of what they are for.

Each draw has a generator of its own, seeded from (seed, purpose, step). Nothing is carried from step to step, so a run that
goes on from a checkpoint draws what the uninterrupted run would have drawn, and evaluation cannot disturb training.

What rows of a batch are given is drawn by a generator for each block of BLOCK rows, and the order of the images is a
permutation that tells each place on its own. So a process draws for its own rows alone, what a row is given does not hang on
how many processes there are, and neither does the cost.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import torch

#: How a run's numbers are drawn, which its checkpoints tell: 2, by blocks of rows. Before, for whole batches.
DRAWS = 2
#: Rows of a batch that share a generator.
BLOCK = 32
#: Rounds of the permutation, each a mixing of one half of the number's bits into the other.
_ROUNDS = 8


def generator(seed: int, purpose: str, index: int | str = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` that gives the same numbers for the same (seed, purpose, index)."""
    return torch.Generator(device).manual_seed(_key(seed, purpose, index) >> 1)


def noise(seed: int, purpose: str, index: int, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Standard normal float32 of this shape."""
    return torch.randn(shape, generator=generator(seed, purpose, index, device), device=device)


class Block(NamedTuple):
    """A block of a batch: its number, its rows within the batch, and which of those are wanted, from its first on."""

    number: int
    rows: slice
    wanted: slice


def blocks(rows: slice, batch: int) -> Iterator[Block]:
    """The blocks that `rows` of a batch of so many rows lie in."""
    for number in range(rows.start // BLOCK, -(-rows.stop // BLOCK)):
        start, stop = number * BLOCK, min(batch, (number + 1) * BLOCK)
        yield Block(number, slice(start, stop), slice(max(rows.start, start) - start, min(rows.stop, stop) - start))


def normal_rows(
    seed: int, purpose: str, step: int, rows: slice, batch: int, shape: tuple[int, ...], device: torch.device
) -> torch.Tensor:
    """Standard normal float32 [rows, *shape], of a batch of `batch` rows."""
    return _filled(lambda part, g: part.normal_(generator=g), seed, purpose, step, rows, batch, shape, device)


def uniform_rows(
    seed: int, purpose: str, step: int, rows: slice, batch: int, shape: tuple[int, ...], device: torch.device
) -> torch.Tensor:
    """float32 [rows, *shape] in [0, 1), each number with equal probability."""
    return _filled(lambda part, g: part.uniform_(generator=g), seed, purpose, step, rows, batch, shape, device)


def _filled(
    fill: Callable[[torch.Tensor, torch.Generator], object],
    seed: int,
    purpose: str,
    step: int,
    rows: slice,
    batch: int,
    shape: tuple[int, ...],
    device: torch.device,
) -> torch.Tensor:
    out = torch.empty(rows.stop - rows.start, *shape, device=device)

    def work(block: Block) -> None:
        random = generator(seed, purpose, f"{step}/{block.number}", device)
        at = block.rows.start + block.wanted.start - rows.start
        part = out[at : at + block.wanted.stop - block.wanted.start]
        if len(part) == block.rows.stop - block.rows.start:
            fill(part, random)
            return
        # A generator's later numbers hang on how many there are: a block is drawn whole, whoever wants a part of it.
        whole = torch.empty(block.rows.stop - block.rows.start, *shape, device=device)
        fill(whole, random)
        part.copy_(whole[block.wanted])

    some = list(blocks(rows, batch))
    threads = min(len(some), torch.get_num_threads()) if device.type == "cpu" else 1
    # Torch fills on one thread; it lets others run meanwhile.
    if threads > 1:
        list(_pool(os.getpid(), threads).map(work, some))
    else:
        for block in some:
            work(block)
    return out


@lru_cache(1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """`process` tells a fork, which has none of its parent's threads, from its parent."""
    return ThreadPoolExecutor(threads, "fastdraw-noise")


def permuted(seed: int, purpose: str, index: int, places: np.ndarray, n: int) -> np.ndarray:
    """What a permutation of 0 .. n - 1 has at `places`, int64 each: as random as (seed, purpose, index) is unknown.

    A Feistel network over the even number of bits that hold n; what falls outside of 0 .. n - 1 goes through it again.
    """
    half = max(1, (max(1, n - 1).bit_length() + 1) // 2)
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    keys = [np.uint64(_key(seed, f"{purpose} {i}", index)) for i in range(_ROUNDS)]
    numbers = places.astype(np.uint64)
    outside = np.ones(len(numbers), bool)
    while outside.any():
        left, right = numbers[outside] >> shift, numbers[outside] & mask
        for key in keys:
            left, right = right, left ^ (_mixed(right + key) & mask)
        numbers[outside] = (left << shift) | right
        outside = numbers >= np.uint64(n)
    return numbers.astype(np.int64)


def _mixed(x: np.ndarray) -> np.ndarray:
    """A hash of 64 bits: the finaliser of splitmix64 (Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _key(seed: int, purpose: str, index: int | str) -> int:
    return int.from_bytes(blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest(), "little")
