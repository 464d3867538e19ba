"""The cases that only a GPU is asked for, at sizes that take no time: what they time is proven here, on the CPU."""

from __future__ import annotations

import importlib.util
import time

import pytest
import torch

from benchmarks import sequence, steps, stepwise, wide
from benchmarks.cases import fastdraw_backends
from benchmarks.conftest import add_compile_times, prove
from fastdraw.config import DRAWConfig
from fastdraw.profile import figures
from fastdraw.profile.shapes import Glimpses

CONFIG = DRAWConfig((1, 9, 7), glimpses=3, hidden_size=16, latent_size=5, read_size=2, write_size=3)


def test_every_step_is_proven():
    case = steps.step_case(CONFIG, "tiny", 4, steps.step_variants)
    assert prove(case) == {}
    names = [variant.name for variant in case.variants]
    assert names[0] == "GraphedStep, bfloat16"
    assert len(set(names)) == len(names)
    assert "reference" in names
    # 3 glimpses, 4 images, every weight in three products.
    assert case.product_operations == 6 * 3 * 4 * steps.problem_numel(CONFIG)


def test_the_variants_of_a_large_batch_are_proven():
    assert prove(steps.step_case(CONFIG, "tiny", 4, steps.large_variants)) == {}


def test_a_wrong_step_is_found(monkeypatch):
    """One that does not clip where it should, would not be: so what is found is a gradient that is off."""
    right = steps._gradients

    def make(problem):
        variants = steps.pair(problem)
        monkeypatch.setattr(steps, "_gradients", lambda model: [g * 1.02 for g in right(model)])
        variants[0].step(0)
        results = [r.clone() for r in variants[0].step(0)]
        monkeypatch.undo()
        return [variants[0]._replace(step=lambda _: results), variants[1]]

    assert list(prove(steps.step_case(CONFIG, "tiny", 4, make))) == ["GraphedStep, bfloat16"]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_jax_takes_the_same_step():
    def make(problem):
        # On a CPU both precisions are the same.
        names = ("reference", "jax.jit of lax.scan, tf32")
        return [v for v in steps.jax_variants(problem) if v.name in names]

    case = steps.step_case(CONFIG, "tiny", 4, make)
    assert len(case.variants) == 2
    assert prove(case) == {}
    # Weights given away came back: a second step, and a third, give the same.
    assert prove(case) == {}


def test_compiled_steps(monkeypatch):
    """Without the compiler, whose part on a CPU is the C++: what is put into it is right, and the mode reaches it."""
    asked = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: asked.append(options) or function)

    def make(problem):
        found = [*steps.compiled_variants(problem), *steps.slow_variants(problem)[2:]]
        return [v for v in found if v.name == "reference" or v.name.startswith("torch.compile")]

    case = steps.step_case(CONFIG, "tiny", 4, make)
    assert prove(case) == {}
    assert [options["mode"] for options in asked] == [
        "reduce-overhead",
        None,
        "reduce-overhead",
        "max-autotune",
        "max-autotune",
    ]


def test_a_compiler_that_takes_too_long_is_stopped(monkeypatch):
    monkeypatch.setattr(steps, "COMPILE_LIMIT", 0.2)

    def slow(function, **_):
        def compiled(*arguments):
            for _ in range(600):
                try:
                    time.sleep(1)
                except TimeoutError:
                    # As compilers do that try out kernels and take none that fails.
                    time.sleep(1)
            return function(*arguments)

        return compiled

    monkeypatch.setattr(torch, "compile", slow)

    def make(problem):
        reference = next(v for v in steps.step_variants(problem) if v.name == "reference")
        return [reference, steps.compiled(problem, None, "float32", limit=0.2)]

    (name, reason), *rest = prove(steps.step_case(CONFIG, "tiny", 4, make)).items()
    assert (name, rest) == ("torch.compile, float32", [])
    assert reason == "TimeoutError: took more than 0.2 s"


def test_forward_is_proven():
    case = steps.forward_case(CONFIG, "tiny", 4)
    assert prove(case) == {}
    assert case.variants[0].backend == fastdraw_backends()[0]
    assert [len(variant.step(0)) for variant in case.variants] == [2] * len(case.variants)


def test_sequences_are_proven():
    case = sequence.sequence_case(4, 7, 9, 3)
    assert prove(case) == {}
    assert {variant.name.split(",")[0] for variant in case.variants} == {"lstm_step", "reference", "nn.LSTMCell", "nn.LSTM"}


def test_compile_times_are_those_of_the_first_call():
    timed = stepwise.Timed(lambda: lambda: [])
    assert timed.first_seconds is None
    timed(0)
    assert timed.first_seconds is not None
    case = steps.step_case(CONFIG, "tiny", 4, lambda problem: [steps.compiled(problem, None, "float32")])
    case.variants = [case.variants[0]._replace(step=timed)]
    rows = [figures.row(case.variants[0].name, [0.0])]
    add_compile_times(rows, case)
    assert rows[0]["compile"] == timed.first_seconds


@pytest.mark.parametrize("operator", ["read", "write"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("gradient", [True, False])
def test_wide_cases_are_proven_small_and_timed_large(operator, dtype, gradient):
    if operator == "write" and not gradient:
        return
    shape = Glimpses(5, 2, 70, 61, 4, 0.25, image_gradient=gradient)
    case = wide.wide_case(operator, shape, dtype)
    assert prove(case) == {}
    assert case.variants[0].name == case.twin.variants[0].name
    names = [variant.name for variant in case.variants]
    assert names[1:] == ["reference", "einsum", *(["~ grid_sample"] if operator == "read" else [])]
    # What is timed is the large one, and gives the gradients that are said.
    assert [result.shape[0] for result in case.variants[0].step(0)] == [5] * (3 if gradient else 2)
    assert case.cost.bytes == wide.least_bytes(operator, shape, dtype)
    assert case.title == f"{operator} 5x2x70x61,N=4,window=0.25{'' if gradient else ',grad=params'}, {dtype}"
