"""Training end to end on real digits: it learns, it goes on bit for bit after any kill, and it says what it did."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fastdraw.train import CheckpointError, DivergedError, Interrupted, TrainOptions, train
from fastdraw.train import checkpoint as checkpoint_module
from fastdraw.train import loop as loop_module
from fastdraw.train.checkpoint import NAME, load_checkpoint, load_model, save_checkpoint
from fastdraw.train.display import Display
from fastdraw.train.evaluate import evaluate
from fastdraw.train.options import RECIPES
from fastdraw.train.signals import Interruptions

#: A model that takes a few milliseconds a step; 28 steps are an epoch of the 1,437 training digits or nearly so.
SMALL: dict[str, Any] = {
    "data": "digits",
    "glimpses": 3,
    "hidden_size": 16,
    "latent_size": 4,
    "read_size": "3",
    "write_size": "5",
    "batch_size": 50,
    "threads": 1,
    "evaluate_every": 1,
    "checkpoint_every": 7,
    "log_every": 5,
    "samples": 4,
}
#: Figures that are about the machine and not about the run.
TIMING = ("seconds", "images_per_second")


class Quiet(Display):
    def note(self, text: str) -> None: ...


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Runs set torch's number of threads; other tests keep theirs."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(folder: Path, **changes: Any) -> Any:
    options = TrainOptions(**{**SMALL, "out": str(folder), **changes})
    given = {"out", *changes} if options.resume else None
    return train(options, given, Quiet())


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_timing(folder: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name not in TIMING} for record in records(folder)]


def assert_same_run(a: Path, b: Path) -> None:
    """The same bits in weights and optimizer, and the same metrics."""
    one, other = load_checkpoint(a), load_checkpoint(b)
    assert one.step == other.step
    for part in ("model", "optimizer", "progress"):
        x, y = getattr(one, part), getattr(other, part)
        assert x.keys() == y.keys()
        for name in x:
            assert torch.equal(x[name], y[name]), name
    assert without_timing(a) == without_timing(b)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 uninterrupted steps."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(folder, steps=70)
    return folder


def test_nats_fall(tmp_path: Path) -> None:
    """The mean image costs 163 nats per held-out digit: well below it the model must read and draw, and use its latents."""
    limits = {"steps": 250, "epochs": 20, "evaluate_every": 20}
    result = run(tmp_path / "run", hidden_size=64, latent_size=8, kl_warmup=100, **limits)
    training = [r for r in records(tmp_path / "run") if r["split"] == "train"]
    assert result.validation.nats < 145
    assert result.test.nats < 145
    assert result.validation.kl > 3
    assert training[-1]["nats"] < training[0]["nats"] - 15


def test_a_run_leaves_everything_in_its_folder(whole: Path) -> None:
    names = {name for name in os.listdir(whole) if not name.startswith("events.out.tfevents")}
    assert names == {NAME, "config.json", "metrics.jsonl", "samples.png", "drawing.gif"}
    assert len(list(whole.glob("events.out.tfevents*"))) == 1
    assert (whole / "samples.png").read_bytes().startswith(b"\x89PNG")
    assert (whole / "drawing.gif").read_bytes().startswith(b"GIF8")


def test_config_repeats_the_run(whole: Path, tmp_path: Path) -> None:
    options = json.loads((whole / "config.json").read_text())["options"]
    assert None not in {name: value for name, value in options.items() if name not in ("data_dir", "image_size")}.values()
    train(TrainOptions(**{**options, "out": str(tmp_path / "again")}), None, Quiet())
    assert without_timing(whole) == without_timing(tmp_path / "again")


def test_metrics_say_what_happened(whole: Path) -> None:
    lines = records(whole)
    per_epoch = json.loads((whole / "config.json").read_text())["images"]["train"] // 50
    training = [r for r in lines if r["split"] == "train"]
    assert [r["step"] for r in training] == list(range(5, 71, 5))
    assert [r["epoch"] for r in training] == [-(-step // per_epoch) for step in range(5, 71, 5)]
    assert [(r["step"], r["split"]) for r in lines if r["split"] != "train"] == [
        *((step, "validation") for step in (*range(per_epoch, 70, per_epoch), 70)),
        (70, "test"),
    ]
    for r in lines:
        assert r["nats"] == pytest.approx(r["reconstruction"] + r["kl"], rel=1e-5)
    for r in training:
        assert r["images_per_second"] > 0
        assert r["learning_rate"] == RECIPES["digits"].learning_rate
        assert r["gradient_norm"] > 0
    for r in lines:
        if r["split"] != "train":
            assert 0 < r["standard_error"] < 10


def test_tensorboard_has_the_same_figures(whole: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(whole))
    events.Reload()
    for split in ("train", "validation", "test"):
        written = [(r["step"], pytest.approx(r["nats"])) for r in records(whole) if r["split"] == split]
        assert [(e.step, e.value) for e in events.Scalars(f"nats/{split}")] == written


def test_the_checkpoint_is_the_model_that_was_evaluated(whole: Path) -> None:
    from fastdraw import data

    model = load_model(whole)
    validation = torch.as_tensor(data.load("digits").validation)
    last = [r for r in records(whole) if r["split"] == "validation"][-1]
    torch.set_num_threads(1)
    assert evaluate(model, validation, batch_size=500, seed=0, binarize=True).nats == last["nats"]


def test_evaluation_adds_up() -> None:
    """The bound over all images is the mean over them, its error the spread over the root of their number."""
    from fastdraw import DRAW

    model = DRAW((1, 4, 4), 2, 4, 3, 2, 2)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.01)
    images = torch.randint(0, 256, (7, 1, 4, 4), dtype=torch.uint8)
    each = [evaluate(model, image[None], 1, seed=3, binarize=False) for image in images]
    assert each[0].standard_error is None
    together = evaluate(model, images, 7, seed=3, binarize=False)
    torch.manual_seed(5)
    noise = torch.randn(2, 7, 3)
    out = model(images.float() / 255, noise)
    # With weights this small nats hardly depend on the noise, which differs between the two.
    assert together.nats == pytest.approx(out.loss.item(), abs=0.05)
    assert together.nats == pytest.approx(sum(e.nats for e in each) / 7, abs=0.05)
    assert together.standard_error == pytest.approx((out.reconstruction + out.kl.sum(0)).std().item() / 7**0.5, abs=0.05)
    assert together.nats == pytest.approx(together.reconstruction + together.kl)


def test_evaluation_leaves_training_and_torch_alone(whole: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    run(tmp_path / "run", steps=70, evaluate_every=10, checkpoint_every=1000)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1))
    training = [r for r in without_timing(whole) if r["split"] == "train"]
    assert [r for r in without_timing(tmp_path / "run") if r["split"] == "train"] == training


class Crash(BaseException):
    """Stands for SIGKILL: nothing of the program runs after it, as far as Python allows."""


#: Moments at which a kill would do the most harm: where, and the how many-th time that the program comes by.
MOMENTS = [
    ("between the metrics and the checkpoint", loop_module, "save_checkpoint", 3),
    ("before the new checkpoint takes its place", os, "replace", 9),
    ("before the new checkpoint is on the disk", os, "fsync", 14),
    ("before an evaluation", loop_module, "evaluate", 2),
    ("after an evaluation was written, before its checkpoint", loop_module.pictures, "samples", 1),
    ("while drawing at the end", loop_module.pictures, "drawing", 1),
]


@pytest.mark.parametrize(("module", "name", "count"), [m[1:] for m in MOMENTS], ids=[m[0] for m in MOMENTS])
def test_resuming_after_a_crash_at_a_bad_moment(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, count: int
) -> None:
    original, calls = getattr(module, name), 0

    def crashing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            raise Crash
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, crashing)
        with pytest.raises(Crash):
            run(tmp_path / "run", steps=70)
    run(tmp_path / "run", resume=True)
    assert_same_run(whole, tmp_path / "run")


def command(folder: Path, *more: str) -> list[str]:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    return [sys.executable, "-m", "fastdraw", "train", *options, "--out", str(folder), *more]


def wait_for_lines(process: subprocess.Popen[bytes], folder: Path, lines: int) -> None:
    """Until the run has written so many lines of metrics, or is done."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if (folder / "metrics.jsonl").read_bytes().count(b"\n") >= lines:
                return
        time.sleep(0.002)


def test_resuming_after_kill_nine(tmp_path: Path) -> None:
    """Killed at two random moments by SIGKILL, a run ends with the bits of the uninterrupted one."""
    run(tmp_path / "whole", steps=400, epochs=100, evaluate_every=4)
    folder, moment, killed = tmp_path / "killed", random.Random(), 0
    limits = ("--steps=400", "--epochs=100", "--evaluate-every=4")
    for lines in (moment.randint(3, 30), moment.randint(35, 60)):
        again = ("--resume",) if (folder / NAME).exists() else ()
        process = subprocess.Popen(command(folder, *limits, *again), stdout=subprocess.DEVNULL)
        wait_for_lines(process, folder, lines)
        time.sleep(moment.uniform(0, 0.05))
        process.kill()
        killed += process.wait() == -signal.SIGKILL
    assert killed == 2, "the run was over before it was killed"
    run(folder, resume=True)
    assert_same_run(tmp_path / "whole", folder)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_with_a_checkpoint(tmp_path: Path, signum: signal.Signals) -> None:
    folder = tmp_path / "run"
    process = subprocess.Popen(
        command(folder, "--epochs=10000", "--checkpoint-every=100000", "--evaluate-every=1000"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_lines(process, folder, 4)
    process.send_signal(signum)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    assert errors == ""
    step = load_checkpoint(folder).step
    assert step >= 20
    assert f"stopped at step {step}; add --resume to go on" in out


def test_a_signal_between_two_steps(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint of an interruption lies within a line of metrics, and the run still ends with the same bits."""
    original = loop_module.Run.step

    def step(self: Any) -> None:
        original(self)
        if self.progress.step == 33:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop_module.Run, "step", step)
        with pytest.raises(Interrupted) as caught:
            run(tmp_path / "run", steps=70)
    assert caught.value.signum == signal.SIGTERM
    assert load_checkpoint(tmp_path / "run").step == 33
    run(tmp_path / "run", resume=True)
    assert_same_run(whole, tmp_path / "run")


def test_a_second_signal_is_not_held_back() -> None:
    def own(signum: int, frame: object) -> None:
        raise Crash

    before = signal.signal(signal.SIGTERM, own)
    try:
        with Interruptions() as interruptions:
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(Interrupted):
                interruptions.check()
            with pytest.raises(Crash):
                os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


def test_nats_that_are_not_finite_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = loop_module.Run.batch

    def batch(self: Any, step: int) -> torch.Tensor:
        if step == 30:
            with torch.no_grad():
                self.model.patch.weight.fill_(float("nan"))
        return original(self, step)

    monkeypatch.setattr(loop_module.Run, "batch", batch)
    with pytest.raises(DivergedError, match=r"not finite at step 31: lower --learning-rate .* the checkpoint of step 28"):
        run(tmp_path / "run", steps=70)
    assert load_checkpoint(tmp_path / "run").step == 28


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = checkpoint_module.write_atomically
    calls = 0

    def full(path: Path, data: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise OSError(28, "No space left on device", str(path))
        original(path, data)

    monkeypatch.setattr(checkpoint_module, "write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path / "run", steps=70)
    assert load_checkpoint(tmp_path / "run").step == 14


def test_a_finished_run_goes_on_with_more_steps(whole: Path, tmp_path: Path) -> None:
    run(tmp_path / "run", steps=40)
    run(tmp_path / "run", resume=True, steps=70)
    one, other = load_checkpoint(whole), load_checkpoint(tmp_path / "run")
    assert all(torch.equal(one.model[name], other.model[name]) for name in one.model)
    training = [r for r in without_timing(whole) if r["split"] == "train"]
    assert [r for r in without_timing(tmp_path / "run") if r["split"] == "train"] == training


def test_a_finished_run_resumed_stays_as_it_is(tmp_path: Path) -> None:
    first = run(tmp_path / "run", steps=10)
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    second = run(tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    assert (second.validation, second.test) == (first.validation, first.test)


def test_other_images_are_refused_on_resume(tmp_path: Path) -> None:
    run(tmp_path / "run", steps=5)
    saved = load_checkpoint(tmp_path / "run")
    saved.training["fingerprint"] = "0"
    save_checkpoint(tmp_path / "run", saved)
    with pytest.raises(ValueError, match="data: expected the training images that the run"):
        run(tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    "change",
    [
        {"options": {"wings": 2}},
        {"options": {"glimpses": "many"}},
        {"options": 3},
        {"progress": {"step": 5}},
        {"progress": None},
    ],
)
def test_a_hostile_checkpoint_is_refused_on_resume(tmp_path: Path, change: dict[str, Any]) -> None:
    if not (tmp_path / "run").exists():
        run(tmp_path / "run", steps=5)
    saved = load_checkpoint(tmp_path / "run")
    saved.training.update(change)
    save_checkpoint(tmp_path / "run", saved)
    with pytest.raises(CheckpointError, match="expected a checkpoint of `fastdraw train`"):
        run(tmp_path / "run", resume=True)


def test_bfloat16_trains(tmp_path: Path) -> None:
    result = run(tmp_path / "run", steps=5, precision="bf16")
    assert all(tensor.dtype == torch.float32 for tensor in load_checkpoint(tmp_path / "run").model.values())
    assert 0 < result.test.nats < 400


def test_intensities_and_no_attention_train(tmp_path: Path) -> None:
    result = run(tmp_path / "run", steps=5, read_size="none", write_size="none", binarize="none", initial_canvas="zero")
    assert load_model(tmp_path / "run").config.read_size is None
    assert 0 < result.test.nats < 600
