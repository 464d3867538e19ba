"""Glimpses of large images against the dense form: two batched products in ATen, by hand and by autograd."""

from __future__ import annotations

import pytest

from benchmarks.cases.glimpses import LARGE
from benchmarks.clock import clock

pytestmark = pytest.mark.benchmark(timer=clock)


@pytest.mark.parametrize("name", LARGE)
def test_large(name, race):
    race(LARGE[name]())
