"""The sampler as a graph of its own: with fastdraw's operator, in PyTorch's own operators, and as ONNX."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import fastdraw
from fastdraw import DRAW, DRAWClassifier, Sampler


def draw(**changes: Any) -> DRAW:
    torch.manual_seed(0)
    model = DRAW(**{"image_shape": (1, 6, 5), "glimpses": 3, "hidden_size": 4, "latent_size": 2, "read_size": 2, **changes})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def exported(model: DRAW, noise: torch.Tensor) -> Any:
    return torch.export.export(Sampler(model).eval(), (noise,), dynamic_shapes={"noise": {1: torch.export.Dim("n")}})


@pytest.mark.parametrize("name", ["auto", "reference"])
def test_the_sampler_exports_with_the_operator_and_without(tmp_path: Path, name: str) -> None:
    """From the reference backend the file needs no fastdraw: another process loads it that never imports it."""
    model = draw()
    noise, more = torch.randn(3, 2, 2), torch.randn(3, 5, 2)
    with fastdraw.backend(name):
        program = exported(model, noise)
    images = model.sample(5, more)
    torch.testing.assert_close(program.module()(more), images)
    calls = [n for part in program.graph_module.modules() for n in part.graph.nodes if "fastdraw" in str(n.target)]
    if name != "reference":
        (call,) = calls
        names = [argument.name for argument in call.target._schema.arguments]
        options = dict(zip(names, call.args, strict=True))
        # Two glimpses' states serve all of them, where no gradient will be asked for.
        assert not options["keep"]
        assert not options["keep_canvases"]
    assert bool(calls) == (name != "reference")
    if name == "reference":
        torch.export.save(program, tmp_path / "sampler.pt2")
        torch.save({"noise": more, "images": images}, tmp_path / "data.pt")
        code = """
import sys, torch
program, data = torch.export.load("sampler.pt2"), torch.load("data.pt")
torch.testing.assert_close(program.module()(data["noise"]), data["images"])
print("fastdraw" in sys.modules)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120)
        assert done.stdout == "False\n", done.stderr


def test_a_class_conditional_sampler_exports_with_its_labels() -> None:
    model, shapes = draw(num_classes=3), {"noise": {1: torch.export.Dim("n")}, "labels": {0: torch.export.Dim("n")}}
    example = torch.randn(3, 2, 2), torch.tensor([0, 2])
    program = torch.export.export(Sampler(model).eval(), example, dynamic_shapes=shapes)
    noise, labels = torch.randn(3, 5, 2), torch.tensor([0, 1, 2, 1, 0])
    torch.testing.assert_close(program.module()(noise, labels), model.sample(5, noise, labels=labels))


@pytest.mark.slow
def test_the_sampler_becomes_onnx_on_the_reference_backend(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator
    model = draw()
    with fastdraw.backend("reference"):
        program = exported(model, torch.randn(3, 2, 2))
    torch.onnx.export(program, (), tmp_path / "sampler.onnx", dynamo=True, verbose=False)
    more = torch.randn(3, 5, 2)
    (images,) = evaluator(str(tmp_path / "sampler.onnx")).run(None, {"noise": more.numpy()})
    torch.testing.assert_close(torch.from_numpy(images), model.sample(5, more))


def test_a_sampler_wants_a_model_that_samples() -> None:
    with pytest.raises(TypeError, match="model: expected a DRAW, which can sample"):
        Sampler(DRAWClassifier((1, 6, 5), 2, 4, 2, 3))
