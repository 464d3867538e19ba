"""Models as folders: what is saved is loaded, here and by the hub's own code; what is damaged is refused by name."""

from __future__ import annotations

import json
import os
import pickle
import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import python
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn.utils import prune

import fastdraw
from fastdraw import DRAW, DRAWClassifier
from fastdraw.runs.checkpoint import load_checkpoint

FILES = {"README.md", "config.json", "model.safetensors"}


def draw(**changes: Any) -> DRAW:
    torch.manual_seed(0)
    return DRAW(**{"image_shape": (1, 6, 5), "glimpses": 3, "hidden_size": 4, "latent_size": 2, "read_size": 2, **changes})


def classifier() -> DRAWClassifier:
    torch.manual_seed(1)
    return DRAWClassifier((2, 7, 9), glimpses=2, hidden_size=4, read_size=3, num_classes=5)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) and one[k].dtype == other[k].dtype for k in one)


@pytest.mark.parametrize(
    "model", [draw(), draw(read_size=None, write_size=None), draw(num_classes=3), draw().double(), classifier()]
)
def test_what_is_saved_is_loaded(model: Any, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "model"
    model.save_pretrained(folder)
    assert {path.name for path in folder.iterdir()} == FILES
    loaded = type(model).from_pretrained(folder)
    assert loaded.config == model.config
    assert same(loaded, model)
    assert not loaded.training
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == [type(model).__name__]
    assert config["fastdraw_version"] == fastdraw.__version__


def test_a_later_save_replaces_the_model_and_leaves_the_card(tmp_path: Path) -> None:
    draw().save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "library_name: fastdraw" in card
    assert "DRAW.from_pretrained" in card
    (tmp_path / "README.md").write_text("mine")
    other = draw(glimpses=5)
    torch.nn.init.ones_(other.initial_canvas)
    other.save_pretrained(str(tmp_path))
    assert (tmp_path / "README.md").read_text() == "mine"
    loaded = DRAW.from_pretrained(str(tmp_path))
    assert loaded.config.glimpses == 5
    assert same(loaded, other)


def test_a_save_that_fails_leaves_the_old_model(tmp_path: Path, no_space: Any) -> None:
    model = draw()
    model.save_pretrained(tmp_path)
    no_space()
    with pytest.raises(OSError, match="No space left"):
        draw(hidden_size=7).save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == FILES
    assert same(DRAW.from_pretrained(tmp_path), model)


def test_one_file_of_each_of_two_models_is_refused(tmp_path: Path) -> None:
    """As a process leaves them that dies between the two: T = 3 and T = 4 have weights of the same shapes."""
    draw().save_pretrained(tmp_path)
    old = (tmp_path / "config.json").read_text()
    draw(glimpses=4).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(old)
    with pytest.raises(ValueError, match=r"model.safetensors: expected the weights that config.json describes"):
        DRAW.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", b"{", "config.json: expected the configuration of a DRAW"),
        ("config.json", b"\xff\xfe", "config.json: expected a readable JSON text"),
        ("config.json", b"[" * 100_000, "config.json: expected the configuration of a DRAW"),
        ("config.json", b"[]", "one without image_shape"),
        ("config.json", b"7", "config.json: expected the configuration of a DRAW"),
        ("model.safetensors", b"", "model.safetensors: expected a whole safetensors file"),
        ("model.safetensors", b"\xff" * 64, "model.safetensors: expected a whole safetensors file"),
    ],
)
def test_damaged_files_are_refused_by_name(file: str, content: bytes, message: str, tmp_path: Path) -> None:
    draw().save_pretrained(tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        DRAW.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"glimpses": 0}, "glimpses: expected at least 1"),
        ({"glimpses": "3"}, "glimpses: expected a whole number"),
        ({"hidden_size": 5}, "to be floats of shape"),
        ({"glimpses": 10**12}, "sizes that no memory holds"),
        ({"hidden_size": 10**12}, "to be floats of shape|sizes that no memory holds"),
        ({"hidden_size": 10**30}, "sizes that no memory holds"),
        ({"image_shape": None}, r"image_shape: expected \(channels, height, width\)"),
    ],
)
def test_a_hostile_configuration_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    draw().save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ValueError, match=message):
        DRAW.from_pretrained(tmp_path)


def normed(model: DRAW) -> None:
    torch.nn.utils.parametrizations.weight_norm(model.patch)


def old_normed(model: DRAW) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.nn.utils.weight_norm(model.decoder, "weight_hh")


def pruned(model: DRAW) -> None:
    prune.l1_unstructured(model.patch, "weight", 0.5)


def diverged(model: DRAW) -> None:
    torch.nn.init.constant_(model.initial_canvas, float("nan"))


def of_nothing(model: DRAW) -> None:
    model.to("meta")


def in_bytes(model: DRAW) -> None:
    model.patch.to(torch.float8_e4m3fn)


def without_bias(model: DRAW) -> None:
    model.patch.bias = None


def quantised(model: DRAW) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, inplace=True)


def with_more(model: DRAW) -> None:
    model.head = torch.nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (diverged, "expected finite numbers in initial_canvas"),
        (normed, r"patch.weight .*nothing but patch.parametrizations.*remove_parametrizations"),
        (old_normed, r"decoder.weight_hh .*nothing but decoder.weight_hh_g.*remove_weight_norm"),
        (pruned, r"patch.weight .*nothing but patch.weight_mask.*prune.remove"),
        (of_nothing, "to hold values"),
        (in_bytes, "float8_e4m3fn"),
        (without_bias, "patch.bias .*nothing"),
        (quantised, "latent.weight .*nothing"),
        (with_more, "got head.bias as well"),
    ],
)
def test_what_would_not_load_is_not_written(change: Any, words: str, tmp_path: Path) -> None:
    good, model = draw(), draw()
    good.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    change(model)
    with pytest.raises(ValueError, match=words):
        model.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert same(DRAW.from_pretrained(tmp_path), good)
    with pytest.raises(ValueError, match=words):
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_weights_that_are_not_finite_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = draw()
    diverged(model)
    with monkeypatch.context() as patch:
        patch.setattr("fastdraw.weights.check", lambda *args: None)
        model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"model.safetensors: expected finite numbers in initial_canvas"):
        DRAW.from_pretrained(tmp_path)


def test_tied_weights_come_back_as_equal_ones(tmp_path: Path) -> None:
    model = draw()
    model.decoder.weight_hh = model.encoder.weight_hh
    model.save_pretrained(tmp_path)
    loaded = DRAW.from_pretrained(tmp_path)
    assert same(loaded, model)


def test_subclasses_load_what_they_save(tmp_path: Path) -> None:
    class More(DRAW):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.head = torch.nn.Linear(2, 3)

    class Other(DRAW):
        def __init__(self, beta: float) -> None:
            super().__init__((1, 6, 5), 2, 4, 3)

    more, other = More((1, 6, 5), 2, 4, 3), Other(0.5)
    more.save_pretrained(tmp_path / "more")
    assert same(More.from_pretrained(tmp_path / "more"), more)
    other.save_pretrained(tmp_path / "other")
    assert same(DRAW.from_pretrained(tmp_path / "other"), other)


@pytest.mark.parametrize("call", [DRAW.from_pretrained, lambda name: draw().save_pretrained(name)])
def test_wrong_types_are_one_sentence(call: Any, tmp_path: Path) -> None:
    for name in (5, None, b"bytes", ["x"]):
        with pytest.raises(TypeError, match="expected a path, got"):
            call(name)
    draw().save_pretrained(tmp_path)
    for device, error in ((None, TypeError), (1.5, TypeError), ("gpu", ValueError), ("cuda:77", ValueError), (99, ValueError)):
        with pytest.raises(error, match="device: expected a device"):
            DRAW.from_pretrained(tmp_path, device=device)
    for model in ("x", None, DRAW, random, torch.nn.Linear(1, 1), classifier()):
        with pytest.raises(TypeError, match="model: expected a DRAW"):
            fastdraw.Sampler(model)  # type: ignore[arg-type]
    for noise in ("x", None, [1.0], torch.zeros(3), torch.zeros(3, 1, 2, dtype=torch.int64)):
        with pytest.raises((TypeError, ValueError), match="noise: expected"):
            fastdraw.Sampler(draw())(noise)
    model = draw()
    before, weights = {k: v.clone() for k, v in model.state_dict().items()}, model.state_dict()
    for change, words in (
        ({"latent.bias": [1.0]}, r"latent.bias: expected a tensor, got \[1.0\]"),
        ({"latent.bias": None}, "latent.bias: expected a tensor, got None"),
        ({"patch.weight": "x"}, "patch.weight: expected a tensor"),
        ({5: torch.zeros(1)}, "names that are strings, got 5"),
        (model, r"a mapping of names to tensors, got a DRAW: its .state_dict\(\)"),
        (7, "a mapping of names to tensors, got 7"),
    ):
        with pytest.raises(TypeError, match=words):
            model.load_state_dict({**weights, **change} if isinstance(change, dict) else change)
    with pytest.raises(ValueError, match="Unexpected key") as caught:
        model.load_state_dict({**weights, "\x1b[2J": torch.zeros(1)})
    assert "\x1b" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, ("went-off",)


def test_a_pickle_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw().save_pretrained("model")
    Path("model", "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"model.safetensors: expected a whole safetensors file"):
        DRAW.from_pretrained("model")
    with pytest.raises(ValueError, match=r"expected a whole safetensors file"):
        load_checkpoint("model/model.safetensors")
    Path("model", "model.safetensors").unlink()
    torch.save({"x": Bomb()}, "model/pytorch_model.bin")
    with pytest.raises(ValueError, match=r"got no model.safetensors"):
        DRAW.from_pretrained("model")
    assert not Path("went-off").exists()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    draw().save_pretrained(folder)
    return folder


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_gets_through_but_as_other_finite_numbers(saved: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Cut or overwritten anywhere: the file is refused by name, or it holds whole weights of the same shapes."""
    for name in FILES:
        (tmp_path / name).write_bytes((saved / name).read_bytes())
    file = tmp_path / data.draw(st.sampled_from(["config.json", "model.safetensors"]))
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:at]
    else:
        content[at : at + 4] = data.draw(st.binary(min_size=1, max_size=4))
    file.write_bytes(content)
    try:
        model, said = DRAW.from_pretrained(tmp_path), None
    except ValueError as error:
        model, said = draw(), str(error)
    # A damaged config.json may be read, and then the weights do not fit it.
    assert said is None or str(tmp_path) in said
    assert said is None or "expected" in said
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_what_is_no_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected config.json and model.safetensors.*got no config.json.*load_model"):
        DRAW.from_pretrained(tmp_path)
    file = tmp_path / "file"
    file.write_text("")
    for name in (str(file), str(tmp_path / "missing" / "deep"), "no such name", ""):
        with pytest.raises(ValueError, match="name_or_path: expected a folder, or user/model"):
            DRAW.from_pretrained(name)
    classifier().save_pretrained(tmp_path / "classifier")
    with pytest.raises(ValueError, match=r"config.json: expected the configuration of a DRAW, got one without latent_size"):
        DRAW.from_pretrained(tmp_path / "classifier")


def test_a_model_on_the_hub_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    model = draw()
    model.save_pretrained(tmp_path / "remote")
    asked = []

    def download(repo_id: str, filename: str, **options: Any) -> str:
        asked.append((repo_id, filename, options["revision"], options["local_files_only"]))
        return str(tmp_path / "remote" / filename)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    monkeypatch.chdir(tmp_path)
    loaded = DRAW.from_pretrained("somebody/draw-mnist", revision="v2", local_files_only=True)
    assert same(loaded, model)
    assert asked == [("somebody/draw-mnist", name, "v2", True) for name in ("config.json", "model.safetensors")]


def test_a_model_that_the_hub_does_not_give_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    # Nothing is in this cache, and the network is not to be asked.
    with pytest.raises(ValueError, match="or a model on the Hugging Face hub, got 'somebody/draw-mnist'"):
        DRAW.from_pretrained("somebody/draw-mnist", cache_dir=tmp_path, local_files_only=True)


def test_the_hubs_own_mixin_reads_and_writes_the_same_folders(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")

    class Mixed(hub.PyTorchModelHubMixin, DRAW): ...

    model = draw()
    model.save_pretrained(tmp_path / "ours")
    theirs = Mixed.from_pretrained(str(tmp_path / "ours"))
    assert theirs.config == model.config
    assert same(theirs, model)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = DRAW.from_pretrained(tmp_path / "theirs")
    assert ours.config == model.config
    assert same(ours, model)


def test_missing_packages_are_said(tmp_path: Path) -> None:
    draw().save_pretrained(tmp_path / "model")
    code = """
import sys
for package in ("safetensors", "huggingface_hub"):
    sys.modules[package] = None
import fastdraw
model = fastdraw.DRAW((1, 6, 5), 2, 4, 3)
load = fastdraw.DRAW.from_pretrained
for attempt in (lambda: model.save_pretrained("new"), lambda: load("model"), lambda: load("somebody/model")):
    try:
        attempt()
    except ModuleNotFoundError as error:
        print(error)
"""
    lines = python(code, folder=tmp_path).splitlines()
    assert len(lines) == 3
    assert all(line.endswith('is not installed: pip install "fastdraw-torch[hub]"') for line in lines)
    assert [("safetensors" in line, "huggingface_hub" in line) for line in lines] == [(True, False)] * 2 + [(False, True)]
    assert not (tmp_path / "new").exists()
