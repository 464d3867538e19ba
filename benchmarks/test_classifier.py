"""Training steps of DRAWClassifier with the paper's cluttered MNIST sizes, against reference.DRAWClassifier."""

from __future__ import annotations

import pytest

import fastdraw
from benchmarks.cases.classifier import classifier_case
from benchmarks.clock import clock

pytestmark = pytest.mark.benchmark(timer=clock)


@pytest.mark.parametrize("name", fastdraw.classifier_presets)
def test_training_step(race, name):
    race(classifier_case(fastdraw.classifier_presets[name], f"classifier {name}", 128))
