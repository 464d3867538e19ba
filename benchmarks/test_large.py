"""Glimpses of large images against the dense form: two batched products in ATen, by hand and by autograd."""

from __future__ import annotations

from functools import partial

import pytest

from benchmarks.large import large_case
from benchmarks.timing import clock

pytestmark = pytest.mark.benchmark(timer=clock)

#: B, C, side, N, the window's side as a fraction of the image's.
MEGAPIXEL, SIXTEEN = (4, 3, 1024, 32, 0.25), (1, 3, 4096, 64, 0.1)
CASES = {
    "megapixel-params": partial(large_case, *MEGAPIXEL),
    "megapixel-image": partial(large_case, *MEGAPIXEL, image=True),
    "megapixel-channels-last": partial(large_case, *MEGAPIXEL, channels_last=True),
    "megapixel-four-windows": partial(large_case, 1, *MEGAPIXEL[1:], windows=4),
    "megapixel-whole": partial(large_case, 1, 3, 1024, 32, 1.0),
    "sixteen-megapixels-params": partial(large_case, *SIXTEEN),
    "sixteen-megapixels-image": partial(large_case, *SIXTEEN, image=True),
}


@pytest.mark.parametrize("name", CASES)
def test_large(name, race):
    race(CASES[name]())
