"""read and write at sizes that fill a GPU, against dense products, einsum and grid_sample; and an LSTM's whole sequence."""

from __future__ import annotations

import pytest

from benchmarks.cases import DEVICE
from benchmarks.cases.glimpses import WIDE
from benchmarks.cases.sequence import sequence_case
from benchmarks.clock import clock

pytestmark = [
    pytest.mark.benchmark(timer=clock),
    pytest.mark.skipif(DEVICE != "cuda", reason="needs a CUDA device; test_operators.py and test_large.py have the CPU's"),
]


@pytest.mark.parametrize("name", WIDE)
def test_wide(name, race):
    race(WIDE[name]())


def test_sequence(race):
    """The paper's MNIST decoder, were its inputs known beforehand."""
    race(sequence_case(128, 100, 256, 64))
