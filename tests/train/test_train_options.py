"""What the options of training do: schedules, the moving average, early stop, parts of a batch, precision, determinism."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training import SMALL, after_step, assert_same_run, records, run, stop, without_timing

from fastdraw import DRAW, data
from fastdraw.evaluation import likelihood
from fastdraw.runs.numerics import numerics
from fastdraw.runs.signals import TIME_IS_UP
from fastdraw.train import Interrupted, TrainOptions, load_checkpoint, load_model
from fastdraw.train import loop as loop_module
from fastdraw.train.options import WHOLE
from fastdraw.train.recipes import RECIPES
from fastdraw.train.resume import Progress
from fastdraw.train.schedule import SHAPES, Average, scheduler
from fastdraw.train.setup import new_model


def rates(name: str, warmup: int, total: int, begin: int = 0) -> list[float]:
    """The rate of each step from `begin` on, by an optimizer that takes them."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    curve = scheduler(optimizer, name, warmup, total, begin)
    out = []
    for _ in range(begin, total):
        out.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        curve.step()
    return out


def test_schedules() -> None:
    assert rates("constant", 0, 3) == [2.0] * 3
    assert rates("linear", 0, 4) == [2.0, 1.5, 1.0, 0.5]
    assert rates("step", 0, 8) == pytest.approx([2.0] * 4 + [0.2] * 2 + [0.02] * 2)
    reference = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(reference, T_max=10)
    expected = []
    for _ in range(10):
        expected.append(cosine.get_last_lr()[0])
        reference.step()
        cosine.step()
    assert rates("cosine", 0, 10) == pytest.approx(expected)
    assert rates("constant", 3, 5) == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert rates("cosine", 3, 13)[3:] == pytest.approx(expected)


@pytest.mark.parametrize("name", SHAPES)
def test_a_schedule_goes_on_where_it_stopped(name: str) -> None:
    assert rates(name, 4, 20, begin=7) == rates(name, 4, 20)[7:]


def test_the_rate_that_is_taken_is_the_one_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken, original = [], torch.optim.Adam.step

    def step(self: Any, *args: Any) -> Any:
        taken.append(float(self.param_groups[0]["lr"]))
        return original(self, *args)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    run(tmp_path / "run", steps=20, log_every=1, schedule="cosine", warmup_steps=5, learning_rate=0.01)
    told = [r["learning_rate"] for r in records(tmp_path / "run") if r["split"] == "train"]
    assert told == pytest.approx(taken)
    assert max(told) == told[5] == 0.01


#: Options whose state a run must carry over an interruption.
CARRIED: list[dict[str, Any]] = [
    {"schedule": "cosine", "warmup_steps": 9, "ema": 0.9, "patience": 50},
    {"accumulate": 3, "precision": "bf16", "deterministic": True},
    {"task": "classify", "hidden_size": 16, "ema": 0.8, "read_size": "4", "write_size": None, "latent_size": None},
]


@pytest.mark.parametrize("changes", CARRIED, ids=lambda changes: next(iter(changes)))
def test_resuming_with_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    """Interrupted between two checkpoints and two lines of metrics, the run ends with the bits of the uninterrupted one."""
    run(tmp_path / "whole", steps=40, **changes)
    with after_step(33, stop), pytest.raises(Interrupted):
        run(tmp_path / "run", steps=40, **changes)
    switches = []

    original = loop_module.Run.step

    def checked(self: Any) -> None:
        switches.append(not torch.is_deterministic_algorithms_warn_only_enabled())
        original(self)

    monkeypatch.setattr(loop_module.Run, "step", checked)
    run(tmp_path / "run", resume=True)
    assert set(switches) == {bool(changes.get("deterministic"))}
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    one, other = load_checkpoint(tmp_path / "whole").ema, load_checkpoint(tmp_path / "run").ema
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_parts_of_a_batch_train_the_same(tmp_path: Path) -> None:
    run(tmp_path / "whole", steps=10)
    run(tmp_path / "parts", steps=10, accumulate=4)
    for one, other in zip(records(tmp_path / "whole"), records(tmp_path / "parts"), strict=True):
        assert other["nats"] == pytest.approx(one["nats"], rel=1e-4)


def test_the_moving_average() -> None:
    model = DRAW((1, 4, 4), 2, 3, 2, 2, 2)
    average = Average(model, 0.5)
    expected = [p.detach().clone() for p in model.parameters()]
    for step in range(12):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p))
        average.update(step)
        # Until step 8 more of the old average is forgotten.
        decay = min(0.5, (1 + step) / (10 + step))
        expected = [decay * e + (1 - decay) * p.detach() for e, p in zip(expected, model.parameters(), strict=True)]
    torch.testing.assert_close(list(average.model.parameters()), expected, check_stride=False)


def test_the_moving_average_is_evaluated_and_loaded(tmp_path: Path) -> None:
    result = run(tmp_path / "run", steps=60, ema=0.99, kl_warmup=0, learning_rate=0.01)
    images = data.load("digits").test
    averaged, last = load_model(tmp_path / "run"), load_model(tmp_path / "run", ema=False)
    torch.set_num_threads(1)
    assert likelihood(averaged, images, 500, 0, True).bound.mean == result.test.nats
    assert likelihood(last, images, 500, 0, True).bound.mean != result.test.nats


def test_patience_stops_and_keeps_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([5.0, 3.0, 4.0, 3.5, 3.0, 99.0])
    original = loop_module.Run._evaluate

    def evaluated(self: Any, split: str, *args: Any, **kwargs: Any) -> Any:
        result = original(self, split, *args, **kwargs)
        return replace(result, nats=next(scores)) if split == "validation" and kwargs.get("write", True) else result

    monkeypatch.setattr(loop_module.Run, "_evaluate", evaluated)
    result = run(tmp_path / "run", batch_size=500, epochs=20, patience=3)
    # Two steps an epoch: the second evaluation was the best, three more were not better.
    assert (result.step, next(scores)) == (10, 99.0)
    best = load_checkpoint(tmp_path / "run" / "best.safetensors")
    assert best.step == 4
    torch.set_num_threads(1)
    model, images = load_model(tmp_path / "run" / "best.safetensors"), data.load("digits").test
    assert likelihood(model, images, 500, 0, True).bound.mean == result.test.nats
    assert likelihood(model, data.load("digits").validation, 500, 0, True).bound.mean == result.validation.nats
    assert not torch.equal(best.model["initial_canvas"], load_checkpoint(tmp_path / "run").model["initial_canvas"])
    # With more patience it goes on.
    monkeypatch.setattr(loop_module.Run, "_evaluate", original)
    assert run(tmp_path / "run", resume=True, patience=4, steps=12).step == 12


def test_which_evaluation_is_the_best() -> None:
    progress = Progress()
    assert [progress.judge(score) for score in (3.0, 3.0, 2.5, float("nan"), 2.0)] == [True, False, True, False, True]
    assert (progress.best, progress.stale) == (2.0, 0)


def test_switches_are_put_back() -> None:
    memory: Any = torch.utils.deterministic
    torch.use_deterministic_algorithms(True, warn_only=True)
    before = torch.get_float32_matmul_precision(), memory.fill_uninitialized_memory
    with numerics("tf32", deterministic=True):
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.backends.cudnn.deterministic
    with numerics("fp32", deterministic=False):
        assert torch.get_float32_matmul_precision() == "highest"
    assert (torch.get_float32_matmul_precision(), memory.fill_uninitialized_memory) == before
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.backends.cudnn.deterministic


def test_a_deterministic_run_is_the_same_on_the_cpu(tmp_path: Path) -> None:
    run(tmp_path / "plain", steps=10)
    run(tmp_path / "checked", steps=10, deterministic=True)
    assert without_timing(tmp_path / "plain") == without_timing(tmp_path / "checked")


@pytest.mark.parametrize(
    ("said", "preset", "task"),
    [
        ({"data": "digits"}, "digits", "draw"),
        ({"data": "mnist"}, "mnist", "draw"),
        ({"data": "binarized-mnist"}, "mnist", "draw"),
        ({"data": "two-digits"}, "two-digits", "draw"),
        ({"data": "svhn"}, "svhn", "draw"),
        ({"data": "svhn-extra"}, "svhn", "draw"),
        ({"data": "cifar10"}, "cifar10", "draw"),
        ({"data": "omniglot"}, "omniglot", "draw"),
        ({"data": "cluttered-mnist"}, "cluttered-mnist", "classify"),
        ({"data": "cluttered-mnist-60"}, "cluttered-mnist-60", "classify"),
        ({"data": "cluttered-mnist-60", "task": "draw"}, "mnist", "draw"),
        ({"data": "digits", "task": "classify"}, "cluttered-mnist", "classify"),
        ({"data": "somewhere/pictures"}, "mnist", "draw"),
        ({"data": "mnist", "preset": "mnist-no-attention"}, "mnist-no-attention", "draw"),
    ],
)
def test_the_preset_of_a_data_set(said: dict[str, str], preset: str, task: str) -> None:
    options = TrainOptions(**said)
    assert options.recipe is RECIPES[preset]
    assert options.recipe.task == task
    resolved = options.resolved((1, 20, 20), 1)
    assert (resolved.preset, resolved.task) == (preset, task)
    assert TrainOptions(**resolved.to_dict()) == resolved
    assert resolved.resolved((1, 20, 20), 1) == resolved


@pytest.mark.parametrize(
    ("said", "batch_size", "rate", "rising", "kl_warmup", "ema"),
    [
        ({"data": "mnist", "glimpses": 32}, 50, 2e-3, 1000, 1000, 0.9995),
        ({"data": "somewhere/pictures", "glimpses": 8}, 50, 2e-3, 1000, 1000, 0.9995),
        ({"data": "mnist", "glimpses": 33}, 100, 3e-4, 0, 2000, 0.0),
        ({"data": "svhn"}, 100, 3e-4, 0, 500, 0.0),
        ({"data": "digits"}, 50, 4e-3, 0, 300, 0.0),
        ({"data": "cluttered-mnist"}, 128, 1e-3, 0, None, 0.0),
        ({"data": "mnist", "glimpses": 8, "ema": 0, "warmup_steps": 0, "kl_warmup": 0, "batch_size": 7}, 7, 2e-3, 0, 0, 0.0),
    ],
)
def test_settings_of_few_glimpses_and_of_many(
    said: dict[str, Any], batch_size: int, rate: float, rising: int, kl_warmup: int | None, ema: float
) -> None:
    found = TrainOptions(**said).resolved((1, 28, 28), 1)
    assert (found.batch_size, found.learning_rate, found.warmup_steps) == (batch_size, rate, rising)
    assert (found.kl_warmup, found.ema) == (kl_warmup, ema)


def test_every_name_among_the_whole_numbers_is_an_option() -> None:
    assert set(WHOLE) <= {name for name in TrainOptions().to_dict()}
    assert set(SMALL) <= set(TrainOptions().to_dict())


def test_what_a_new_model_starts_from() -> None:
    """The options' own part of new weights; all else is as without them."""
    splits = data.load("digits")
    config = TrainOptions(**SMALL).config(splits.image_shape)

    def made(**changes: Any) -> dict[str, torch.Tensor]:
        options = TrainOptions(**{**SMALL, **changes}).resolved(splits.image_shape, 1)
        return new_model(config, options, splits).state_dict()

    plain, forgetful, small = made(), made(forget_bias=1.0), made(weight_std=0.01)
    for cell in ("encoder", "decoder"):
        i, f, g, o = (forgetful[f"{cell}.bias_ih"] - plain[f"{cell}.bias_ih"]).view(4, -1)
        assert (f == 1).all()
        assert not any(part.any() for part in (i, g, o))
    assert all(torch.equal(plain[name], forgetful[name]) for name in plain if not name.endswith("bias_ih"))
    for weight in small.values():
        if weight.dim() == 2 and weight.numel() > 500:
            assert weight.std().item() == pytest.approx(0.01, rel=0.15)
    assert torch.equal(small["initial_canvas"], plain["initial_canvas"])
    mean = torch.cat([splits.train]).double().mean(0) / 255
    torch.testing.assert_close(torch.sigmoid(plain["initial_canvas"]).double(), mean.clamp(0.01, 0.99), atol=1e-5, rtol=1e-5)
    assert (made(initial_canvas="-6")["initial_canvas"] == -6).all()
    assert (made(initial_canvas="zero")["initial_canvas"] == 0).all()


def test_minutes_and_what_may_change_when_a_run_goes_on(tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="interrupted by the end of --minutes") as caught:
        run(tmp_path / "run", steps=10**6, epochs=10**6, minutes=0.01)
    assert caught.value.signum == TIME_IS_UP
    step = load_checkpoint(tmp_path / "run").step
    assert step < 10**5
    # The limit was that call's; and test images are left alone as long as they are asked to be.
    assert run(tmp_path / "run", resume=True, steps=step + 3, skip_test=True).test is None
    assert "test" not in {line["split"] for line in records(tmp_path / "run")}
    assert run(tmp_path / "run", resume=True, steps=step + 3, skip_test=False).test.images == 180
    assert records(tmp_path / "run")[-1]["split"] == "test"


@pytest.mark.parametrize(("said", "kept"), [(28, "28x28"), ("28", "28x28"), ("48x64", "48x64"), (None, None)])
def test_image_sizes(said, kept):
    assert TrainOptions(image_size=said).image_size == kept


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("image_size", value) for value in (0, "0x5", "x", "3x4x5", "", 10**20, "70000", 2.5, True)),
        *(("read_size", 10**20), ("threads", 10**11), ("samples", 10**12)),
    ],
)
def test_sizes_that_no_machine_holds(name, value):
    with pytest.raises((ValueError, TypeError), match=rf"^{name}: expected "):
        TrainOptions(**{name: value})
