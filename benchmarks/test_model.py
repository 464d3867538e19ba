"""Training steps and sampling of DRAW with the paper's MNIST sizes, against reference.DRAW and other ways to compute it."""

from __future__ import annotations

import pytest

from benchmarks.cases import DEVICE
from benchmarks.cases.models import compiled_whole_case, mnist, mnist_case, sampling_case
from benchmarks.clock import clock

pytestmark = pytest.mark.benchmark(timer=clock)


def test_training_step(race):
    race(mnist_case())


def test_training_step_compiled_whole(race):
    """Few glimpses: on two cores 16 take 100 s to compile."""
    race(compiled_whole_case(8 if DEVICE == "cuda" else 4))


def test_sampling(race):
    race(sampling_case(mnist(), "MNIST", 128))
