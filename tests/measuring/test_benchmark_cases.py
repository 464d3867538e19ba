"""What benchmarks time is proven: every case, at sizes that take no time, and what they would find out."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from benchmarks import memory, scaling
from benchmarks.cases import classifier, glimpses, models, products, steps, stepwise
from benchmarks.cases.operators import filterbank_case, lstm_case, read_case, write_case
from benchmarks.proof import prove
from fastdraw import reference
from fastdraw.config import ClassifierConfig, DRAWConfig
from fastdraw.profile import cost
from fastdraw.profile.cases import Case, jax_variant
from fastdraw.profile.shapes import Glimpses
from fastdraw.profile.timing import Variant

#: Two channels, height unlike width, patches unlike each other: what a mixed-up axis would show in.
CONFIG = DRAWConfig((2, 9, 7), glimpses=3, hidden_size=16, latent_size=5, read_size=2, write_size=3)
CLASSIFIER = ClassifierConfig((2, 9, 7), glimpses=3, hidden_size=16, read_size=3, num_classes=4)
NEEDS_JAX = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")


def step_case(make: Callable) -> Case:
    return steps.step_case(CONFIG, "tiny", 4, make)


def model_case(make: Callable) -> Case:
    return models.model_case(CONFIG, "tiny", 4, make)


def with_eager(*others: Callable) -> Case:
    return model_case(lambda problem: [*models.eager_variants(problem), *(make(problem) for make in others)])


def loop(problem) -> Variant:
    model = stepwise.StepwiseDRAW.from_config(problem.config)
    return Variant("loop", lambda _: problem.step(model)())


def cells(problem) -> Variant:
    model = stepwise.with_lstm_cell(problem.config)
    return Variant("cells", lambda _: problem.step(model)())


CASES: dict[str, Callable[[], Case]] = {
    "read": lambda: read_case(2, 2, 9, 7, 3, precision="bfloat16"),
    "write": lambda: write_case(2, 2, 9, 7, 3, precision="tf32"),
    "filterbank": lambda: filterbank_case(2, 9, 7, 3),
    "lstm, half": lambda: lstm_case(2, 3, 5, precision="bfloat16"),
    "models": lambda: model_case(lambda problem: [*models.own_variants(problem), *models.eager_variants(problem)]),
    "peers": lambda: with_eager(loop, cells),
    "sampling": lambda: models.sampling_case(CONFIG, "tiny", 4),
    "classifier": lambda: classifier.classifier_case(CLASSIFIER, "tiny", 4),
    "steps": lambda: step_case(steps.step_variants),
    "steps of a large batch": lambda: step_case(steps.large_variants),
    "forward": lambda: steps.forward_case(CONFIG, "tiny", 4),
    "large": lambda: glimpses.large_case(Glimpses("read", 1, 1, 70, 70, 4, 0.3)),
    "channels last": lambda: glimpses.large_case(Glimpses("read", 1, 3, 70, 70, 4, 0.3, 2, image_gradient=False), True),
}


@pytest.mark.parametrize("name", CASES)
def test_every_variant_is_proven(name):
    case = CASES[name]()
    assert prove(case) == {}
    names = [variant.name for variant in case.variants]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("operator", ["read", "write"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_wide_cases_are_proven_small_and_timed_large(operator, dtype):
    case = glimpses.wide_case(Glimpses(operator, 5, 2, 70, 61, 4, 0.25, image_gradient=operator == "write"), dtype)
    assert prove(case) == {}
    names = [variant.name for variant in case.variants]
    assert names[1:] == ["reference", "einsum", *(["~ grid_sample"] if operator == "read" else [])]
    # What is timed is the large one, and gives the gradients that are said.
    assert [result.shape[0] for result in case.variants[0].step(0)] == [5] * (3 if operator == "write" else 2)
    assert [result.shape[0] for result in case.twin.variants[0].step(0)] == [3] * (3 if operator == "write" else 2)


def test_a_wrong_variant_is_found():
    """One whose values or gradients are off by a thousandth, fastdraw's or a peer's; one whose KL alone is; none in a twin."""
    case = read_case(2, 1, 9, 7, 3)
    right = case.variants[0]
    for index in range(3):

        def wrong(k: int, index: int = index) -> list[torch.Tensor]:
            return [value * 1.001 if i == index else value for i, value in enumerate(right.step(k))]

        case.variants[0] = right._replace(step=wrong)
        (reason,) = prove(case).values()
        assert f"result {index}" in str(reason)
    case.variants = [right, *case.variants[1:], Variant("a peer", wrong)]
    assert list(prove(case)) == ["a peer"]
    assert list(prove(replace(case, variants=[], twin=case))) == ["a peer"]


def test_a_wrong_kl_is_found(monkeypatch):
    def make(problem) -> Variant:
        monkeypatch.setattr(stepwise.reference, "kl_divergence", lambda *args: right(*args) * 1.001)
        results = loop(problem).step(0)
        monkeypatch.undo()
        return Variant("loop", lambda _: results)

    right = reference.kl_divergence
    assert list(prove(with_eager(make))) == ["loop"]


@NEEDS_JAX
@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, read_size=1, write_size=1)], ids=["patches", "one filter"])
def test_jax_computes_the_same(config):
    case = models.model_case(config, "tiny", 4, lambda p: [*models.eager_variants(p), jax_variant(p)])
    assert prove(case) == {}
    assert case.variants[-1].step.first_seconds > 0


@pytest.mark.slow
@NEEDS_JAX
def test_jax_takes_the_same_step():
    """Weights given away come back: a second step gives the same. On a CPU both precisions are one."""
    case = step_case(
        lambda problem: [v for v in steps.jax_variants(problem) if v.name in ("reference", "jax.jit of lax.scan, tf32")]
    )
    assert len(case.variants) == 2
    assert prove(case) == {}
    assert prove(case) == {}


def test_compiled_steps(monkeypatch):
    """Without the compiler, whose part on a CPU is the C++: what is put into it is right, and the mode reaches it."""
    asked = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: asked.append(options["mode"]) or function)
    modes = ("reduce-overhead", None)
    assert prove(step_case(lambda p: [steps.pair(p)[1], *(steps.compiled(p, mode, "float32") for mode in modes)])) == {}
    assert asked == list(modes)


def test_a_compiler_that_takes_too_long_is_stopped(monkeypatch):
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
    case = step_case(lambda p: [steps.pair(p)[1], steps.compiled(p, None, "float32", limit=0.2)])
    ((name, reason),) = prove(case).items()
    assert (name, str(reason)) == ("torch.compile, float32", "took more than 0.2 s")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_way_to_a_product_gives_it(dtype):
    a, b = torch.randn(3, 4, 6).to(dtype), torch.randn(6, 5).to(dtype)
    for layout in (b, b.t().contiguous().t()):
        for way in products._ways(layout):
            torch.testing.assert_close(way(a[1])(), a[1] @ b)
    grads, inputs = torch.randn(8, 6).to(dtype), torch.randn(8, 5).to(dtype)
    torch.testing.assert_close(products._weight_gradient(grads, inputs)(), grads.t() @ inputs)


def test_costs_count_what_the_formulas_say():
    b, c, h, w, n = 3, 2, 10, 20, 4
    image, patch = b * c * h * w, b * c * n * n
    least = cost.read(b, c, h, w, n, 4)
    assert least.bytes == 4 * (3 * image + 2 * patch + 3 * 5 * b)
    # F_Y I and F_X^T; P F_X and F_Y^T; (P F_X) I^T; F_Y I and P^T.
    assert least.operations == 2 * b * c * (
        (n * h * w + n * n * w) + (n * n * w + n * h * w) + n * h * w + (n * h * w + n * n * w)
    )
    assert cost.write(b, c, h, w, n, 4).bytes == 4 * (2 * image + 3 * patch + 3 * 5 * b)
    # Two windows of each image that see 6 x 6 pixels, each filter three along its axis; then with the image's gradient.
    seen = cost.Support(b * 2 * 36, b * 2 * n * 3 * 6, b * 2 * n * n * 3)
    least, more = (cost.read_support(b, c, 2, n, seen, 4, pixels) for pixels in (0, h * w))
    assert least.bytes == 2 * (4 * b * c * (2 * 36 + 2 * n * n) + 4 * 3 * 5 * b)
    assert least.operations == 2 * 2 * b * c * (3 * n * 3 * 6 + 3 * n * n * 3)
    assert (more.bytes - least.bytes, more.operations - least.operations) == (4 * image, 2 * 2 * b * c * n * 3 * 6)
    # Two products of [B, K] with [K, 4h] forward, four backward.
    assert cost.lstm_step(128, 264, 256, 4).operations == 3 * 2 * 128 * 1024 * (264 + 256)
    # Forward, to inputs, to weights: six operations for every weight, image and glimpse; windows come on top.
    config = models.mnist()
    numel = sum(i * o for i, o in products.layers(config))
    assert products.operations(config, 128) == 6 * 64 * 128 * numel
    assert cost.draw(128, 64, config.image_shape, 100, 2, 5, numel, 4).operations > products.operations(config, 128)


@pytest.mark.skipif(memory.unavailable() is not None, reason="peaks cannot be measured here")
def test_peaks_see_what_a_step_keeps():
    """Eight more glimpses of the reference keep at least their gates: two cells, 4 x 256 numbers, 128 images."""
    few, many = (min(memory.peaks("MNIST", glimpses, "reference", False, "keep")) for glimpses in (1, 9))
    assert many - few > 8 * 2 * 4 * 256 * 128 * 4


def test_a_sweep_times_every_variant_and_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    figures = scaling.times({"batch": 2, "glimpses": 2, "hidden": 8, "side": 9, "patch": 2})
    assert list(figures) == [name for name, *_ in scaling.VARIANTS[:3]]
    assert all(figure > 0 for figure in figures.values())
    times = {name: {str(size): figures for size in sizes} for name, (_, sizes) in scaling.SWEEPS.items()}
    found = {"times": times, "memory": {"8": dict.fromkeys((v[0] for v in scaling.VARIANTS), 2.0**20)}}
    scaling.plot(json.loads(json.dumps(found)), tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
