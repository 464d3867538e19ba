"""Whole training steps at the paper's MNIST setting, launched as people launch them, against every peer that is at hand."""

from __future__ import annotations

import pytest

from benchmarks.cases import DEVICE
from benchmarks.models import mnist
from benchmarks.steps import (
    compiled_variants,
    forward_case,
    jax_variants,
    large_variants,
    slow_variants,
    step_case,
    step_variants,
)
from benchmarks.timing import clock

#: On a CPU the same figures, but for the optimiser, are in test_model.py, at a fraction of the time.
pytestmark = [
    pytest.mark.benchmark(timer=clock),
    pytest.mark.skipif(DEVICE != "cuda", reason="needs a CUDA device; test_model.py has the CPU's"),
]
TITLE = "step of DRAW MNIST"


def test_step(race):
    race(step_case(mnist(), TITLE, 128, step_variants))


def test_forward(race):
    race(forward_case(mnist(), "forward of DRAW MNIST", 128))


def test_step_of_jax(race):
    race(step_case(mnist(), f"{TITLE}, JAX", 128, jax_variants))


def test_step_compiled(race):
    race(step_case(mnist(), f"{TITLE}, torch.compile", 128, compiled_variants))


def test_large_batch(race):
    race(step_case(mnist(), TITLE, 2048, large_variants))


def test_slow_compilers(race):
    race(step_case(mnist(), f"{TITLE}, slow compilers", 128, slow_variants))
