"""Checkpoints: what goes in comes out; what is damaged is refused by name; what is there survives a failed save."""

from __future__ import annotations

import json
import os
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load, save

from fastdraw import DRAW
from fastdraw.runs import checkpoint as module
from fastdraw.runs.checkpoint import (
    NAME,
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    load_model,
    load_optimizer,
    optimizer_tensors,
    save_checkpoint,
)


def small() -> tuple[DRAW, torch.optim.Adam]:
    """A model and its optimizer after one step."""
    model = DRAW((1, 6, 5), glimpses=2, hidden_size=4, latent_size=3, read_size=2, write_size=None)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    model(torch.rand(2, 1, 6, 5)).loss.backward()
    optimizer.step()
    return model, optimizer


def checkpoint() -> Checkpoint:
    model, optimizer = small()
    sums = torch.arange(4, dtype=torch.float64)
    adam = optimizer_tensors(model, optimizer)
    return Checkpoint(model.config, model.state_dict(), 7, adam, {"sums": sums}, {"options": {"é": [1, None]}})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(folder, checkpoint())
    return folder / NAME


def rewritten(file: Path, to: Path, **about: object) -> Path:
    """The checkpoint with some of its JSON replaced."""
    data = file.read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    text = json.dumps({**json.loads(header["__metadata__"]["fastdraw"]), **about})
    to.write_bytes(save(load(data), {"fastdraw": text}))
    return to


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    saved = checkpoint()
    save_checkpoint(tmp_path / "a.safetensors", saved)
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert loaded.config == saved.config
    assert loaded.step == 7
    assert loaded.training == saved.training
    assert same(loaded.model, saved.model)
    assert same(loaded.optimizer, saved.optimizer)
    assert same(loaded.progress, saved.progress)
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_a_model_loads_from_the_folder_and_computes_the_same(tmp_path: Path) -> None:
    model, _ = small()
    save_checkpoint(tmp_path, Checkpoint(model.config, model.state_dict()))
    noise, x = torch.randn(2, 3, 3), torch.rand(3, 1, 6, 5)
    assert torch.equal(load_model(tmp_path)(x, noise).canvas, model(x, noise).canvas)


def test_the_moving_average_is_what_is_loaded(tmp_path: Path) -> None:
    model, _ = small()
    average = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    save_checkpoint(tmp_path, Checkpoint(model.config, model.state_dict(), ema=average))
    assert same(load_checkpoint(tmp_path).ema, average)
    assert same(load_model(tmp_path).state_dict(), average)
    assert same(load_model(tmp_path, ema=False).state_dict(), model.state_dict())


def test_an_optimizer_goes_on_as_if_nothing_had_happened() -> None:
    model, optimizer = small()
    other, _ = small()
    other.load_state_dict(model.state_dict())
    again = torch.optim.Adam(other.parameters(), fused=True)
    load_optimizer(other, again, optimizer_tensors(model, optimizer))
    x, noise = torch.rand(2, 1, 6, 5), torch.randn(2, 2, 3)
    for m, o in ((model, optimizer), (other, again)):
        o.zero_grad()
        m(x, noise).loss.backward()
        o.step()
    assert same(model.state_dict(), other.state_dict())
    assert same(optimizer_tensors(model, optimizer), optimizer_tensors(other, again))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors"):
        load_checkpoint(tmp_path / "nowhere.safetensors")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 3000) | st.just(0), new=st.binary(max_size=200), cut=st.booleans())
def test_damaged_bytes_give_a_sound_checkpoint_or_one_error(
    whole: Path, tmp_path: Path, at: int, new: bytes, cut: bool
) -> None:
    """Other bytes at any place, the end or more of the file after them."""
    data = bytearray(whole.read_bytes())
    # Mostly in the header, whose length varies little; the rest are weights, of which any finite value is a weight.
    data[at : at + len(new)] = new
    file = tmp_path / "damaged.safetensors"
    file.write_bytes(data[: at + len(new)] if cut else data)
    try:
        loaded = load_checkpoint(file)
    except CheckpointError as error:
        assert "damaged.safetensors: expected" in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert not cut or file.stat().st_size == whole.stat().st_size
        DRAW.from_config(loaded.config).load_state_dict(loaded.model)


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"format": 2}, "expected checkpoint format 1, got 2"),
        ({"format": None}, "expected checkpoint format 1, got None"),
        ({"task": "sing"}, "task: expected one of draw"),
        ({"task": ["draw"]}, "task: expected one of draw"),
        ({"config": {}}, "expected model.initial_canvas to be floats of shape"),
        ({"config": {"glimpses": -1}}, "glimpses: expected at least 1, got -1"),
        ({"config": {"wings": 2}}, "expected a model's configuration"),
        ({"config": 3}, "expected a model's configuration"),
        # More weights than any memory holds, and more than an index can count.
        ({"config": {"glimpses": 10**12}}, "sizes that no memory holds|to be floats"),
        ({"config": {"hidden_size": 10**9}}, "expected"),
        ({"config": {"hidden_size": 10**30}}, "expected"),
        ({"step": -1}, "step: expected"),
        ({"step": True}, "step: expected"),
        ({"step": "7"}, "step: expected"),
        ({"training": []}, "training's options"),
    ],
)
def test_hostile_metadata_is_refused(whole: Path, tmp_path: Path, about: dict[str, object], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(rewritten(whole, tmp_path / "hostile.safetensors", **about))


def test_deeply_nested_metadata_is_refused(whole: Path, tmp_path: Path) -> None:
    file = tmp_path / "deep.safetensors"
    file.write_bytes(save(load(whole.read_bytes()), {"fastdraw": "[" * 100_000}))
    with pytest.raises(CheckpointError, match=r"deep\.safetensors: expected a checkpoint of fastdraw"):
        load_checkpoint(file)


def test_safetensors_of_another_kind_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    file.write_bytes(save({"weight": torch.zeros(3)}))
    with pytest.raises(CheckpointError, match="of another kind"):
        load_checkpoint(file)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.model.pop("latent.bias"), "expected model.latent.bias .* got nothing"),
        (lambda c: c.model.update({"latent.bias": torch.zeros(5)}), "expected model.latent.bias .* shape"),
        (lambda c: c.model.update({"latent.bias": torch.zeros(6, dtype=torch.int32)}), "to be floats"),
        (lambda c: c.model["latent.bias"].fill_(float("nan")), "finite numbers in model.latent.bias"),
        (lambda c: c.model.update(more=torch.zeros(2)), "got more as well"),
        (lambda c: c.ema.update({"latent.bias": torch.zeros(6)}), "expected ema.* got nothing"),
        (lambda c: c.optimizer.pop("latent.bias.step"), "expected optimizer.latent.bias.step"),
        (lambda c: c.optimizer["latent.bias.exp_avg"].fill_(float("inf")), "finite numbers in optimizer.latent.bias.exp_avg"),
    ],
)
def test_weights_that_do_not_fit_are_neither_written_nor_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change, words: str
) -> None:
    save_checkpoint(tmp_path, checkpoint())
    before, broken = (tmp_path / NAME).read_bytes(), checkpoint()
    change(broken)
    with pytest.raises(CheckpointError, match=words):
        save_checkpoint(tmp_path, broken)
    assert (tmp_path / NAME).read_bytes() == before
    with monkeypatch.context() as patch:
        # As another program writes it.
        patch.setattr(module, "_check", lambda file, checkpoint: None)
        save_checkpoint(tmp_path, broken)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(tmp_path)


def test_what_is_no_checkpoint_is_not_written(tmp_path: Path) -> None:
    good = checkpoint()
    for wrong in (None, good.model, replace(good, step=-1), replace(good, step=1.5), replace(good, training=[])):
        with pytest.raises(TypeError, match="checkpoint: expected"):
            save_checkpoint(tmp_path, wrong)  # type: ignore[arg-type]
    for path in (5, None, b"bytes"):
        with pytest.raises(TypeError, match="path: expected a path"):
            load_checkpoint(path)  # type: ignore[arg-type]
    assert not os.listdir(tmp_path)


def test_strangers_text_is_escaped(whole: Path, tmp_path: Path) -> None:
    """Escapes of terminals, and letters that turn the direction of a line."""
    evil = "x\x1b]0;owned\x07\x1b[2J\u202eall is well"
    tensors, about = load(whole.read_bytes()), safe_open(whole, "pt").metadata()
    for name in (evil, f"model.{evil}", f"optimizer.{evil}"):
        (tmp_path / "evil.safetensors").write_bytes(save({**tensors, name: torch.zeros(1)}, about))
        with pytest.raises(CheckpointError, match=r"x\\x1b\]0;owned") as caught:
            load_checkpoint(tmp_path / "evil.safetensors")
        assert str(caught.value).isprintable()
    for said in ({"config": {evil: 1}}, {"task": evil}, {"format": evil}):
        with pytest.raises(CheckpointError, match=r"x\\+x1b\]0;owned") as caught:
            load_checkpoint(rewritten(whole, tmp_path / "evil.safetensors", **said))
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.bool])
def test_tensors_of_other_kinds_are_one_sentence(whole: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    tensors, about = load(whole.read_bytes()), safe_open(whole, "pt").metadata()
    tensors["model.latent.bias"] = torch.zeros(6).to(dtype)
    (tmp_path / "odd.safetensors").write_bytes(save(tensors, about))
    with pytest.raises(CheckpointError, match=r"odd.safetensors: expected (model.latent.bias to be floats|a whole)"):
        load_checkpoint(tmp_path / "odd.safetensors")


def test_shared_weights_are_written_once_for_each_name(tmp_path: Path) -> None:
    model, _ = small()
    state = model.state_dict()
    state["encoder.bias_hh"] = state["encoder.bias_ih"]
    save_checkpoint(tmp_path, Checkpoint(model.config, state, ema=state))
    assert same(load_checkpoint(tmp_path).model, state)


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path: Path, no_space: Any, function: str) -> None:
    save_checkpoint(tmp_path, checkpoint())
    before = (tmp_path / NAME).read_bytes()
    no_space(os, function)
    with pytest.raises(OSError, match="No space left on device") as caught:
        save_checkpoint(tmp_path, checkpoint())
    assert caught.value.filename == str(tmp_path / NAME)
    assert os.listdir(tmp_path) == [NAME]
    assert (tmp_path / NAME).read_bytes() == before
