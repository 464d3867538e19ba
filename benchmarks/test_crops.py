"""Crops by boxes against grid_sample and interpolate, of uint8 against float32, and of a pyramid against the exact ones."""

from __future__ import annotations

import pytest

from benchmarks.cases.crops import CROPS


@pytest.mark.parametrize("name", CROPS)
def test_crops(name, race):
    race(CROPS[name]())
