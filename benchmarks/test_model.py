"""Training steps of DRAW and its classifier with the paper's sizes, and sampling, against the reference and other ways to
compute them; and the memory that a step adds at its peak."""

from __future__ import annotations

import pytest

import fastdraw
from benchmarks import memory
from benchmarks.cases import DEVICE
from benchmarks.cases.classifier import classifier_case
from benchmarks.cases.models import compiled_whole_case, mnist, mnist_case, sampling_case
from benchmarks.conftest import record


def test_training_step(race):
    race(mnist_case())


def test_training_step_compiled_whole(race):
    """Few glimpses: on two cores 16 take 100 s to compile."""
    race(compiled_whole_case(8 if DEVICE == "cuda" else 4))


def test_sampling(race):
    race(sampling_case(mnist(), "MNIST", 128))


@pytest.mark.parametrize("name", fastdraw.classifier_presets)
def test_classifier(race, name):
    race(classifier_case(fastdraw.classifier_presets[name], f"classifier {name}", 128))


@pytest.mark.parametrize("case", memory.CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_memory(case, pytestconfig):
    reason = memory.unavailable()
    if reason is not None:
        pytest.skip(reason)
    record(memory.result(*case), None, pytestconfig)
