"""The command line: each option explained, each mistake one line and exit code 2."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from commands import mistake

import fastdraw
from fastdraw.cli import main
from fastdraw.train.options import TrainOptions
from fastdraw.train.resume import continued

TINY = "--data digits --glimpses 2 --hidden-size 8 --latent-size 2 --steps 2 --threads 1 --samples 4".split()  # noqa: SIM905


def test_help_explains_every_option_with_its_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")
    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    for panel in ("Data", "Model", "Optimisation", "Machine", "Output"):
        assert panel in text
    # Each option begins a row of a panel; what follows up to the next one is about it.
    rows = dict(re.findall(r"│ +(--[a-z-]+)(.*?)(?=│ +--|╭|$)", text, re.DOTALL))
    for f in fields(TrainOptions):
        about = rows[f"--{f.name.replace('_', '-')}"]
        assert len(about.split()) > 6
        if f.default is False:
            continue
        assert f.metadata["metavar"] in about
        default = f.metadata["shown"] or str(f.default)
        assert default.split()[0] in about
        assert "default" in about


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for word in (fastdraw.__version__, "torch", "threads", "device cpu", *fastdraw.backends()):
        assert word in out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("--bogus", "No such option"),
        ("--epochs", "requires an argument"),
        ("--epochs many", "--epochs"),
        ("--epochs 0", "--epochs: expected at least 1, got 0"),
        ("--glimpses -3", "--glimpses: expected at least 1, got -3"),
        ("--seed -1", "--seed: expected at least 0, got -1"),
        ("--read-size half", "--read-size: expected a number of at least 1, or none, got 'half'"),
        ("--write-size 0", "--write-size: expected a number of at least 1, or none, got '0'"),
        ("--learning-rate nan", "--learning-rate: expected a number above 0, got nan"),
        ("--clip 0", "--clip: expected a number above 0, got 0.0"),
        ("--binarize always", "--binarize: expected one of auto, none, dynamic, got 'always'"),
        ("--precision fp8", "--precision: expected one of fp32, tf32, bf16, got 'fp8'"),
        ("--precision tf32 --device cpu", "--precision: expected fp32 or bf16 on the CPU, which has no tf32, got tf32"),
        ("--ema 1", "--ema: expected a number of at least 0 and below 1, got 1.0"),
        ("--schedule linear --warmup-steps -1", "--warmup-steps: expected at least 0, got -1"),
        ("--schedule zigzag", "--schedule: expected one of constant, linear, cosine, step, got 'zigzag'"),
        ("--patience 0", "--patience: expected at least 1, got 0"),
        ("--accumulate 0", "--accumulate: expected at least 1, got 0"),
        ("--accumulate 51", "--accumulate: expected at most 50, the images of one step, got 51"),
        ("--task sing", "--task: expected one of draw, classify, got 'sing'"),
        ("--task draw --preset cluttered-mnist", "--task: expected classify, which the preset cluttered-mnist is for"),
        ("--task classify", "--latent-size: expected no such option with --task classify, which draws nothing, got 2"),
        ("--conditional --preset cluttered-mnist", "expected no such option with --task classify"),
        ("--device tpu", "--device: expected one of auto, cpu, cuda, got 'tpu'"),
        ("--initial-canvas blue", "--initial-canvas: expected mean, zero or a finite number, got 'blue'"),
        ("--initial-canvas nan", "--initial-canvas: expected mean, zero or a finite number, got 'nan'"),
        ("--weight-std 0", "--weight-std: expected a number above 0, got 0.0"),
        ("--forget-bias inf", "--forget-bias: expected a finite number, got inf"),
        ("--minutes -1", "--minutes: expected a number above 0, got -1.0"),
        ("--preset imagenet", "--preset: expected one of mnist"),
        ("--batch-size 5000", "--batch-size: expected at most"),
        ("--resume --overwrite", "--overwrite: expected no --resume"),
        ("--resume", "--resume: expected a checkpoint in"),
        ("extra", "extra"),
    ],
)
def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path, args: str, words: str) -> None:
    out = ("--out", str(tmp_path / "run"))
    assert words in mistake(capsys, "train", *TINY, *out, *args.split())


def test_no_cuda_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    words = mistake(capsys, "train", *TINY, "--out", str(tmp_path / "run"), "--device", "cuda")
    assert "device: expected cpu or auto, got cuda" in words
    assert not (tmp_path / "run").exists()


def test_data_that_cannot_be_read_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bad = tmp_path / "images.npz"
    bad.write_bytes(b"PK\x03\x04 and then nothing of use")
    where = ("--out", str(tmp_path / "run"))
    assert "images.npz" in mistake(capsys, "train", "--data", str(bad), *where)
    assert "nowhere" in mistake(capsys, "train", "--data", str(tmp_path / "nowhere.npz"), *where)


def test_a_folder_with_a_run_is_not_written_to(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["train", *TINY, "--out", str(run)]) == 0
    out = capsys.readouterr().out
    for word in ("validation:", "test:", "nats per image", str(run / "samples.png"), str(run / "drawing.gif")):
        assert word in out
    before = {file.name: file.read_bytes() for file in run.iterdir()}
    assert "--resume or --overwrite" in mistake(capsys, "train", *TINY, "--out", str(run))
    words = mistake(capsys, "train", "--resume", "--out", str(run), "--clip", "3")
    assert "clip: expected 10.0, as the run to resume was started with, got 3.0" in words
    assert {file.name: file.read_bytes() for file in run.iterdir()} == before
    (run / "notes.txt").write_text("mine")
    assert main(["train", *TINY, "--out", str(run), "--overwrite"]) == 0
    # What the run did not write is not its to delete.
    assert (run / "notes.txt").read_text() == "mine"
    assert len(list(run.glob("events.out.tfevents*"))) == 1


def test_options_of_a_resumed_run() -> None:
    saved = replace(TrainOptions(steps=10), learning_rate=0.002)
    assert continued(TrainOptions(resume=True), saved).learning_rate == 0.002
    assert continued(TrainOptions(resume=True, learning_rate=0.002), saved).learning_rate == 0.002
    with pytest.raises(ValueError, match=r"learning_rate: expected 0\.002, as the run to resume was started with, got 0\.1"):
        continued(TrainOptions(resume=True, learning_rate=0.1), saved)
    # A default that was typed in counts as given; one that was not does not.
    with pytest.raises(ValueError, match="seed: expected 4"):
        continued(TrainOptions(resume=True, seed=0), replace(saved, seed=4), {"seed"})
    assert continued(TrainOptions(resume=True, seed=0), replace(saved, seed=4), set()).seed == 4
    assert continued(TrainOptions(resume=True, epochs=9), saved).steps is None
    assert continued(TrainOptions(resume=True, steps=20), saved).steps == 20


def test_a_damaged_checkpoint_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"not one")
    words = mistake(capsys, "train", "--resume", "--out", str(tmp_path))
    assert "checkpoint.safetensors: expected a whole safetensors file" in words


def test_an_out_that_cannot_be_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "out: expected a folder" in mistake(capsys, "train", *TINY, "--out", str(tmp_path / "file"))
    assert "Not a directory" in mistake(capsys, "train", *TINY, "--out", str(tmp_path / "file" / "run"))


def test_a_full_disk_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path, no_space: Any) -> None:
    no_space()
    words = mistake(capsys, "train", *TINY, "--out", str(tmp_path / "run"))
    assert "No space left on device" in words
    assert str(tmp_path / "run") in words


def test_a_missing_extra_is_one_line(tmp_path: Path) -> None:
    # In the order in which the command first needs them: what was imported cannot be missing any more.
    packages = ["typer", "safetensors", "tensorboard"]
    code = """
import sys
from fastdraw.cli import main
for package in sys.argv[1].split():
    sys.modules[package] = None
    print(main(sys.argv[2:]))
    del sys.modules[package]
"""
    command = [sys.executable, "-c", code, " ".join(packages), "train", *TINY, "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    lines = [f'fastdraw: error: {package} is not installed: pip install "fastdraw-torch[train]"' for package in packages]
    assert done.stderr.splitlines() == lines
    assert done.stdout.split() == ["2"] * len(packages)
    assert not (tmp_path / "run").exists()


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only messages written for users are cut to one line."""

    def bug(args: list[str]) -> int:
        raise ValueError("not enough values to unpack")

    monkeypatch.setattr("fastdraw.cli._run", bug)
    with pytest.raises(ValueError, match="unpack"):
        main([])
