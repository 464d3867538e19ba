"""What fastdraw's models are measured against computes the same; memory, products and plots, on sizes that take no time."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace

import pytest
import torch

from benchmarks import classifier, gemms, memory, models, scaling, stepwise, table
from benchmarks.conftest import add_compile_times, add_shares_of_products, prove
from fastdraw import reference
from fastdraw.config import ClassifierConfig, DRAWConfig
from fastdraw.profile import cost, figures
from fastdraw.profile.timing import Variant

#: Two channels, height unlike width, patches unlike each other: what a mixed-up axis would show in.
CONFIG = DRAWConfig((2, 9, 7), glimpses=3, hidden_size=16, latent_size=5, read_size=2, write_size=3)


def case_of(make):
    return models.training_case(CONFIG, "tiny", 4, make)


def test_own_and_eager_variants_are_proven():
    """bfloat16 beside float32, each by its own budget."""
    case = case_of(lambda problem: [*models.own_variants(problem), *models.eager_variants(problem)])
    assert {variant.dtype for variant in case.variants} == {torch.float32, torch.bfloat16}
    assert prove(case) == {}


def test_the_loop_of_glimpses_is_the_references():
    case = case_of(lambda problem: [*models.eager_variants(problem), loop(problem, CONFIG), cells(problem)])
    assert prove(case) == {}


def loop(problem, config):
    model = stepwise.StepwiseDRAW.from_config(config)
    return Variant("loop", lambda _: problem.step(model)())


def cells(problem):
    model = stepwise.with_lstm_cell(CONFIG)
    return Variant("cells", lambda _: problem.step(model)())


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, read_size=1, write_size=1)], ids=["patches", "one filter"])
def test_jax_computes_the_same(config):
    def with_jax(problem):
        return [*models.eager_variants(problem), *(v for v in models.peers(problem) if v.name.startswith("jax"))]

    case = models.training_case(config, "tiny", 4, with_jax)
    assert prove(case) == {}
    step = case.variants[-1].step
    assert step.first_seconds > 0


def test_without_jax_the_table_says_so(monkeypatch):
    def with_jax(problem):
        return [*models.eager_variants(problem), *(v for v in models.peers(problem) if v.name.startswith("jax"))]

    monkeypatch.setitem(__import__("sys").modules, "jax", None)
    (reason,) = prove(case_of(with_jax)).values()
    assert reason.startswith("ModuleNotFoundError")
    assert "jax" in reason


def test_a_wrong_peer_is_found_though_only_its_kl_is_wrong(monkeypatch):
    right = reference.kl_divergence

    def make(problem):
        monkeypatch.setattr(stepwise.reference, "kl_divergence", lambda *args: right(*args) * 1.001)
        wrong = loop(problem, CONFIG)
        results = wrong.step(0)
        monkeypatch.undo()
        return [*models.eager_variants(problem), wrong._replace(step=lambda _: results)]

    assert list(prove(case_of(make))) == ["loop"]


def test_products_are_those_of_the_paper():
    config = models.mnist()
    assert gemms.layers(config) == [(520, 1024), (256, 200), (356, 1024), (256, 35)]
    # Forward, to inputs, to weights: six operations for every weight, image and glimpse; windows come on top.
    numel = sum(i * o for i, o in gemms.layers(config))
    assert gemms.operations(config, 128) == 6 * 64 * 128 * numel
    assert cost.draw(128, 64, config.image_shape, 100, 2, 5, numel, 4).operations > gemms.operations(config, 128)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_way_to_a_product_gives_it(dtype):
    a, b = torch.randn(3, 4, 6).to(dtype), torch.randn(6, 5).to(dtype)
    for layout in (b, b.t().contiguous().t()):
        for way in gemms._ways(layout):
            torch.testing.assert_close(way(a[1])(), a[1] @ b)
    grads, inputs = torch.randn(8, 6).to(dtype), torch.randn(8, 5).to(dtype)
    torch.testing.assert_close(gemms._weight_gradient(grads, inputs)(), grads.t() @ inputs)
    gemms.training_products(CONFIG, 4, dtype, "cpu")()


def test_shares_of_products_and_compile_times():
    timed = stepwise.Timed(lambda: list)
    timed.first_seconds = 3.0
    names = [("mine", torch.float32), ("half", torch.bfloat16), ("compiled", torch.float32)]
    variants = [Variant(name, timed if name == "compiled" else lambda _: [], dtype=dtype) for name, dtype in names]
    variants.append(Variant("products", lambda _: [], dtype=torch.float32, products=True))
    case = replace(case_of(models.eager_variants), variants=variants)
    rows = [
        figures.row("mine", [4.0]),
        figures.row("half", [2.0]),
        figures.row("compiled", [1.0]),
        figures.row("products", [3.0]),
    ]
    add_compile_times(rows, case)
    add_shares_of_products(rows, case)
    assert [row["products"] for row in rows] == [0.75, None, 3.0, None]
    assert [row["compile"] for row in rows] == [None, None, 2.0, None]


def test_tables_of_models_and_of_memory():
    rows = [figures.row("fastdraw", [0.1]) | {"products": 0.5, "compile": 12.0}, figures.row("reference", [0.25])]
    result = {"title": "DRAW", "measured": "a step", "floor": None, "batch": 128, "glimpses": 64, "rows": rows}
    text = "\n".join(table.block(result))
    for part in ("100 ms", "2.50x", "1562 us/glimpse", "1280 images/s", "products 50 % of it", "compiled in 12.0 s"):
        assert part in text
    assert "| fastdraw | 100 ms | 2.50x | 1562 | 1280 | 0.50 | 12.0 s |" in table.markdown([result])
    rows = [figures.row("fastdraw", [2.0**20]), figures.row("reference", [4 * 2.0**20])]
    result = {"title": "memory", "measured": "peak", "unit": "B", "floor": None, "rows": rows}
    assert "1.00 MiB" in "\n".join(table.block(result))
    assert "| fastdraw | 1.00 MiB | 0.25 |" in table.markdown([result])


@pytest.mark.skipif(memory.unavailable() is not None, reason="peaks cannot be measured here")
def test_peaks_see_what_a_step_keeps():
    """Eight more glimpses of the reference keep at least their gates: two cells, 4 x 256 numbers, 128 images."""
    few, many = (min(memory.peaks("MNIST", glimpses, "reference", False, "keep")) for glimpses in (1, 9))
    assert many - few > 8 * 2 * 4 * 256 * 128 * 4


def test_sampling_is_proven():
    assert prove(models.sampling_case(CONFIG, "tiny", 4)) == {}


def test_the_classifiers_variants_are_proven():
    case = classifier.training_case(
        ClassifierConfig((2, 9, 7), glimpses=3, hidden_size=16, read_size=3, num_classes=4), "tiny", 4
    )
    assert prove(case) == {}
    # The read without the image's gradient, and three products with every weight, for each of three glimpses.
    numel = 64 * (18 + 16) + 16 * (5 + 4)
    read = cost.read(4, 2, 9, 7, 3, 4).operations - 2 * 4 * 2 * 3 * 9 * 7
    assert case.cost.operations == 3 * (read + 6 * 4 * numel)


def test_plots_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    figures = {name: 0.1 for name, *_ in scaling.VARIANTS[:3]}
    times = {name: {str(size): figures for size in sizes} for name, (_, sizes) in scaling.SWEEPS.items()}
    found = {"times": times, "memory": {"8": dict.fromkeys((v[0] for v in scaling.VARIANTS), 2.0**20)}}
    scaling.plot(json.loads(json.dumps(found)), tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_a_sweep_times_every_variant_at_every_size():
    figures = scaling.times({"batch": 2, "glimpses": 2, "hidden": 8, "side": 9, "patch": 2})
    assert list(figures) == [name for name, *_ in scaling.VARIANTS[:3]]
    assert all(figure > 0 for figure in figures.values())
