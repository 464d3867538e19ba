"""Each operator against the same maths as a user would write it in PyTorch, and against what else there is: on small images,
on large ones, and at sizes that fill a GPU."""

from __future__ import annotations

from functools import partial

import pytest

from benchmarks.cases import DEVICE
from benchmarks.cases.glimpses import LARGE, WIDE
from benchmarks.cases.operators import filterbank_case, lstm_case, read_case, write_case

#: (B, C, H, W, N): the paper's MNIST with its read, its write and its classifier's glimpse; its SVHN.
GLIMPSES = [(128, 1, 28, 28, 2), (128, 1, 28, 28, 5), (128, 1, 28, 28, 12), (64, 3, 54, 54, 12)]


def glimpse_cases(make):
    cases = [partial(make, *shape, compiled=shape in (GLIMPSES[1], GLIMPSES[3])) for shape in GLIMPSES]
    if DEVICE == "cuda":
        # The paper's cluttered MNIST, and a batch that fills the device; then half precision.
        cases += [partial(make, 128, 1, 100, 100, 12), partial(make, 4096, 1, 28, 28, 5)]
        cases += [partial(make, *shape, precision="bfloat16") for shape in (GLIMPSES[1], GLIMPSES[3])]
    return cases


CASES = [*glimpse_cases(read_case), *glimpse_cases(write_case)]
CASES += [partial(filterbank_case, 128, 28, 28, 5), partial(filterbank_case, 64, 54, 54, 12, compiled=True)]
CASES += [partial(lstm_case, 128, 264, 256, compiled=True)]
if DEVICE == "cuda":
    CASES += [partial(lstm_case, 128, 264, 256, precision=precision) for precision in ("tf32", "bfloat16")]


def identity(case: partial) -> str:
    """A name that holds from run to run, so that saved runs can be compared: read-128x1x28x28x5-float32."""
    name = case.func.__name__.removesuffix("_case")
    return f"{name}-{'x'.join(map(str, case.args))}-{case.keywords.get('precision', 'float32')}"


@pytest.mark.parametrize("case", CASES, ids=identity)
def test_operator(case, race):
    race(case())


@pytest.mark.parametrize("name", LARGE)
def test_large(name, race):
    """Large images, against the dense form."""
    race(LARGE[name]())


@pytest.mark.skipif(DEVICE != "cuda", reason="needs a CUDA device; the other cases are the CPU's")
@pytest.mark.parametrize("name", WIDE)
def test_wide(name, race):
    race(WIDE[name]())
