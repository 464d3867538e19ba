"""Batches that are made as they are trained on, images per second on one thread of the CPU: training must not wait for them.

The reference makes one picture after the other, piece by piece, as the original generators do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from benchmarks.conftest import record, take_turns
from fastdraw.data.composed import CLUTTERED, CLUTTERED_60, TWO_DIGITS, Composer, Layout
from fastdraw.data.crops import RandomCrops
from fastdraw.profile import figures
from fastdraw.profile.timing import HostRunner, Variant

BATCH = 128
#: As many digits as MNIST has to train on: pieces come from anywhere in 39 MB. What is on them costs nothing.
DIGITS = (50_000, 1, 28, 28)

Make = Callable[[Tensor, torch.Generator], Tensor]


def one_by_one(layout: Layout, digits: Tensor) -> Make:
    def make(images: Tensor, generator: torch.Generator) -> Tensor:
        def draw(n: int) -> int:
            return int(torch.randint(n, (1,), generator=generator))

        size, side = layout.size, layout.side
        canvas = torch.zeros(len(images), 1, side, side, dtype=torch.int16)
        for picture, whole in zip(canvas, images, strict=True):
            for _ in range(layout.pieces):
                digit, top, left = digits[draw(len(digits))], draw(29 - size), draw(29 - size)
                y, x = draw(side - size + 1), draw(side - size + 1)
                picture[:, y : y + size, x : x + size] += digit[:, top : top + size, left : left + size]
            y, x = draw(side - 27), draw(side - 27)
            picture[:, y : y + 28, x : x + 28] += whole
        return canvas.clamp_(max=255).to(torch.uint8)

    return make


def crops_one_by_one(images: Tensor, generator: torch.Generator) -> Tensor:
    y, x = (torch.randint(11, (len(images),), generator=generator).tolist() for _ in range(2))
    return torch.stack([image[:, b : b + 54, a : a + 54] for image, a, b in zip(images, x, y, strict=True)])


@contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def race(title: str, images: Tensor, makes: dict[str, Make], benchmark, config: pytest.Config) -> None:
    variants = []
    for name, make in makes.items():
        generator = torch.Generator().manual_seed(0)
        variants.append(Variant(name, lambda k, make=make, generator=generator: [make(images, generator)], setting=one_thread))
    runners = [HostRunner(variant, 1, "cpu") for variant in variants]
    times = take_turns(benchmark, runners, config)
    rows = [figures.row(name, seconds) for name, seconds in times.items()]
    for row in rows:
        row["note"] = f"{BATCH / row['median']:,.0f} images/s"
    record({"title": title, "measured": f"a batch of {BATCH}", "floor": None, "rows": rows}, benchmark, config)


@pytest.mark.parametrize(
    ("name", "layout"),
    [("cluttered-mnist", CLUTTERED), ("cluttered-mnist-60", CLUTTERED_60), ("two-digits", TWO_DIGITS)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_composed(name, layout, benchmark, pytestconfig):
    digits = torch.randint(0, 256, DIGITS, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    makes: dict[str, Make] = {"make": Composer(layout, digits), "reference": one_by_one(layout, digits)}
    race(f"{name} {layout.side}x{layout.side}", digits[:BATCH], makes, benchmark, pytestconfig)


def test_crops(benchmark, pytestconfig):
    photographs = torch.randint(0, 256, (BATCH, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    makes: dict[str, Make] = {"make": RandomCrops(54), "reference": crops_one_by_one}
    race("svhn 54x54 of 64x64", photographs, makes, benchmark, pytestconfig)
