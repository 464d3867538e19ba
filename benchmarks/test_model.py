"""Training steps of DRAW with the paper's MNIST sizes, against reference.DRAW."""

from __future__ import annotations

import pytest

from benchmarks.cases import DEVICE, draw_case
from benchmarks.timing import clock

pytestmark = pytest.mark.benchmark(timer=clock)

PRECISIONS = ["float32", "bfloat16"] if DEVICE == "cuda" else ["float32"]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("glimpses", [8, 64])
def test_draw(glimpses, precision, race):
    race(draw_case(128, glimpses, precision))
