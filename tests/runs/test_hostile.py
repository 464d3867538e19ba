"""Checkpoints are strangers': what they say commands no terminal, opens nothing, and is one line where it is wrong."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import mistake
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import fastdraw
from fastdraw import data
from fastdraw.cli import main
from fastdraw.evaluation import evaluate_run
from fastdraw.runs.checkpoint import NAME, Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from fastdraw.view.plot import save_kl

EVIL = "x\x1b]0;owned\x07\x1b[2J\u202e</script>$\\frac"
OPTIONS = {"data": "digits", "data_dir": None, "image_size": None, "binarize": "dynamic"}


@pytest.fixture(autouse=True)
def nothing_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, no folder of data, no network, and a present folder of its own."""

    def connect(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was asked")

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("FASTDRAW_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FASTDRAW_DATA", raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    monkeypatch.setattr(socket.socket, "connect", connect)


def made(file: Path, config: dict[str, Any] | None = None, **options: Any) -> str:
    """A checkpoint with these options, whatever they are."""
    model = fastdraw.DRAW((1, 28, 28), glimpses=2, hidden_size=6, latent_size=2, read_size=2, write_size=3)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(file, Checkpoint(model.config, model.state_dict(), training={"options": {**OPTIONS, **options}}))
    if config is not None:
        about = json.loads(safe_open(file, "pt").metadata()["fastdraw"])
        about["config"].update(config)
        save_file(load_file(file), file, {"fastdraw": json.dumps(about)})
    return str(file)


def images(file: Path) -> str:
    np.savez(file, train_images=np.random.default_rng(0).integers(0, 256, (40, 28, 28), np.uint8))
    return str(file)


WRONG: list[dict[str, Any]] = [
    *({"data": value} for value in (5, 1.5, True, [], {}, ["digits"])),
    *({"data_dir": value} for value in (5, [], {"a": 1}, False)),
    *({"image_size": value} for value in ("28x", "wide", -1, 0, 1.5, [28, 28], True)),
    *({"binarize": value} for value in (5, [], "sometimes", EVIL)),
    *({"eval_batch": value} for value in ("many", 0, None, 2.5)),
    *({"seed": value} for value in ("x", -1, [], 1.5)),
    *({"precision": value} for value in (16, EVIL, None, [])),
]


@pytest.mark.parametrize("options", WRONG, ids=str)
def test_wrong_types_among_the_options_are_one_line(
    options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = made(tmp_path / "a.safetensors", **options)
    for command in (["evaluate", file], ["view", file, "--what", "page"], ["sample", file, "--out", "a.png"]):
        assert f"{file}: expected the options of a run, got {next(iter(options))}: expected" in mistake(capsys, *command)
    with pytest.raises(CheckpointError):
        evaluate_run(file)


def test_what_another_version_says_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = made(tmp_path / "a.safetensors", wings=[2], **{EVIL: 3})
    assert main(["view", file, "--what", "samples", "-n", "1"]) == 0


def test_text_reaches_a_terminal_and_a_page_only_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = made(tmp_path / "here" / "a.safetensors", data=EVIL)
    error = mistake(capsys, "evaluate", file)
    assert r"x\x1b]0;owned\x07\x1b[2J\u202e" in error
    assert main(["view", file, "-n", "1"]) == 0
    out, error = capsys.readouterr()
    page = Path(file).parent / "view" / "page.html"
    for text in (out, error, page.read_text()):
        assert not {"\x1b", "\x07", "\u202e"} & set(text)
    assert page.read_text().count("</script>") == 2
    # Names of images that are there, too: a folder's, in a picture's title and in what is printed.
    there = images(tmp_path / "here" / "a\x1b[2J$\\frac.npz")
    file = made(tmp_path / "here" / "a.safetensors", data=Path(there).name)
    for command in (["evaluate", file], ["view", file, "--what", "kl", "-n", "1"]):
        assert main(command) == 0
        assert "\x1b" not in "".join(capsys.readouterr())
    save_kl(torch.ones(2, 3), tmp_path / "kl.png", "$\\frac{")


@pytest.mark.parametrize("name", [name for name in data.names() if name != "digits"])
def test_a_data_set_that_only_a_checkpoint_names_is_not_downloaded(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = made(tmp_path / "run" / "a.safetensors", data=name, data_dir=str(tmp_path / "elsewhere"))
    expected = f"data: expected {name} where this call may look, or named by it (--data {name} --data-dir"
    assert expected in mistake(capsys, "evaluate", file)
    assert expected in mistake(capsys, "view", file, "--what", "kl")
    assert expected in mistake(capsys, "sample", file, "--nearest", "--out", "a.png")


def test_images_that_only_a_checkpoint_names_are_not_opened_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "private").mkdir()
    secret = images(tmp_path / "private" / "my photos.npz")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "link.npz").symlink_to(secret)
    run, load = tmp_path / "run" / NAME, data.load
    opened: list[str] = []

    def watched(name: Any, *args: Any, **kwargs: Any) -> Any:
        opened.append(str(name))
        return load(name, *args, **kwargs)

    monkeypatch.setattr(data, "load", watched)
    for name in (secret, "../private/my photos.npz", str(tmp_path / "run" / "link.npz"), "/dev/zero", "~root"):
        file = made(run, data=name)
        if name == "~root":
            assert "data: expected" in mistake(capsys, "evaluate", file)
            continue
        assert "data: expected images in the folders of this call, or named by it" in mistake(capsys, "evaluate", file)
        assert name in mistake(capsys, "view", file, "--what", "kl")
    assert opened == ["~root"]
    # What is asked for is opened, and so is what lies in a folder of the call.
    file = made(run, data=secret)
    assert f"--data '{secret}'" in mistake(capsys, "evaluate", file)
    assert main(["evaluate", file, "--data", secret]) == 0
    assert main(["evaluate", file, "--data-dir", str(tmp_path / "private")]) == 0
    for place in (tmp_path / "here", tmp_path / "run"):
        assert main(["evaluate", made(run, data=images(place / "mine.npz"))]) == 0
    images(tmp_path / "here" / "near.npz")
    assert main(["evaluate", made(run, data="near.npz")]) == 0
    capsys.readouterr()


@pytest.mark.parametrize("config", [{"glimpses": 10**12}, {"glimpses": 10**30}, {"hidden_size": 10**12}])
def test_sizes_that_no_memory_holds_are_one_line(
    config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = made(tmp_path / "a.safetensors", config)
    with pytest.raises(CheckpointError):
        load_checkpoint(file)
    for command in (["evaluate", file], ["view", file], ["sample", file]):
        assert f"{file}: expected" in mistake(capsys, *command)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried 5 TB"
        ),
        RuntimeError("Storage size calculation overflowed with sizes=[10, 10]"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 5 TiB"),
        MemoryError(),
        OverflowError("Python int too large to convert to C long"),
    ],
    ids=repr,
)
def test_sizes_that_this_machine_does_not_hold_are_one_line(
    error: Exception, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(*args: object) -> None:
        raise error

    monkeypatch.setattr("fastdraw.view.pictures.drawn", draw)
    said = mistake(capsys, "sample", made(tmp_path / "a.safetensors"), "--out", "a.png")
    assert said.startswith("fastdraw: error: memory: expected sizes that this machine's holds, got: ")
