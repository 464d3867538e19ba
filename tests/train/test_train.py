"""Training end to end on real digits: it learns, and it says what it did."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from training import Quiet, after_step, records, run, without_timing

from fastdraw.evaluation import likelihood
from fastdraw.runs.checkpoint import NAME, PREVIOUS
from fastdraw.train import DivergedError, TrainOptions, load_checkpoint, load_model, train
from fastdraw.train.recipes import DIGITS


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
    assert names == {NAME, PREVIOUS, "config.json", "metrics.jsonl", "samples.png", "drawing.gif"}
    assert len(list(whole.glob("events.out.tfevents*"))) == 1
    assert (whole / "samples.png").read_bytes().startswith(b"\x89PNG")
    assert (whole / "drawing.gif").read_bytes().startswith(b"GIF8")


def test_config_repeats_the_run(whole: Path, tmp_path: Path) -> None:
    options = json.loads((whole / "config.json").read_text())["options"]
    off = ("data_dir", "image_size", "patience", "weight_std", "minutes")
    assert None not in {name: value for name, value in options.items() if name not in off}.values()
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
        assert r["learning_rate"] == DIGITS.learning_rate
        assert r["gradient_norm"] > 0
    for r in lines:
        if r["split"] != "train":
            assert 0 < r["standard_error"] < 10


def test_tensorboard_has_the_same_figures(whole: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(whole), {"images": 0, "histograms": 0})
    events.Reload()
    for split in ("train", "validation", "test"):
        written = [(r["step"], pytest.approx(r["nats"])) for r in records(whole) if r["split"] == split]
        assert [(e.step, e.value) for e in events.Scalars(f"nats/{split}")] == written
    # Pictures, and where the windows were, at every evaluation.
    steps = [r["step"] for r in records(whole) if r["split"] == "validation"]
    for name in ("samples", "drawing", "reconstructions"):
        assert [e.step for e in events.Images(name)] == steps
        assert all(e.encoded_image_string.startswith(b"\x89PNG") for e in events.Images(name))
    parts = ("centre_x", "centre_y", "stride", "sigma", "gamma")
    names = {f"windows {kind}/{part}/glimpse {t}" for kind in ("read", "write") for part in parts for t in (1, 2, 3)}
    assert set(events.Tags()["histograms"]) == names
    for name in names:
        assert [e.step for e in events.Histograms(name)] == steps
        assert all(e.histogram_value.num == 64 for e in events.Histograms(name))


def test_the_checkpoint_is_the_model_that_was_evaluated(whole: Path) -> None:
    from fastdraw import data

    model = load_model(whole)
    validation = torch.as_tensor(data.load("digits").validation)
    last = [r for r in records(whole) if r["split"] == "validation"][-1]
    torch.set_num_threads(1)
    assert likelihood(model, validation, batch_size=500, seed=0, binarize=True).bound.mean == last["nats"]


def test_evaluation_leaves_training_and_torch_alone(whole: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    run(tmp_path / "run", steps=70, evaluate_every=10, checkpoint_every=1000)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1))
    training = [r for r in without_timing(whole) if r["split"] == "train"]
    assert [r for r in without_timing(tmp_path / "run") if r["split"] == "train"] == training


def test_nats_that_are_not_finite_end_the_run(tmp_path: Path) -> None:
    spoil = lambda run: run.model.patch.weight.detach().fill_(float("nan"))  # noqa: E731
    words = r"not finite at step 31: lower --learning-rate .* the checkpoint of step 28"
    with after_step(30, spoil), pytest.raises(DivergedError, match=words):
        run(tmp_path / "run", steps=70)
    assert load_checkpoint(tmp_path / "run").step == 28


def test_bfloat16_trains(tmp_path: Path) -> None:
    result = run(tmp_path / "run", steps=5, precision="bf16")
    assert all(tensor.dtype == torch.float32 for tensor in load_checkpoint(tmp_path / "run").model.values())
    assert 0 < result.test.nats < 400


def test_intensities_and_no_attention_train(tmp_path: Path) -> None:
    result = run(tmp_path / "run", steps=5, read_size="none", write_size="none", binarize="none", initial_canvas="zero")
    assert load_model(tmp_path / "run").config.read_size is None
    assert 0 < result.test.nats < 600
