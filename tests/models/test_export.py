"""The sampler as a graph of its own: with fastdraw's operator, in PyTorch's own operators, and as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from commands import python

import fastdraw
from fastdraw import DRAW, DRAWClassifier, Sampler


def draw(**changes: Any) -> DRAW:
    torch.manual_seed(0)
    model = DRAW(**{"image_shape": (1, 6, 5), "glimpses": 2, "hidden_size": 4, "latent_size": 2, "read_size": 2, **changes})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def exported(model: DRAW, noise: torch.Tensor) -> Any:
    return torch.export.export(Sampler(model).eval(), (noise,), dynamic_shapes={"noise": {1: torch.export.Dim("n")}})


def calls(program: Any) -> list[Any]:
    """Of fastdraw's operators."""
    return [n for part in program.graph_module.modules() for n in part.graph.nodes if "fastdraw" in str(n.target)]


def test_the_sampler_exports_with_the_operator() -> None:
    model, more = draw(), torch.randn(2, 5, 2)
    program = exported(model, torch.randn(2, 2, 2))
    torch.testing.assert_close(program.module()(more), model.sample(5, more))
    (call,) = calls(program)
    names = [argument.name for argument in call.target._schema.arguments]
    options = dict(zip(names, call.args, strict=True))
    # Two glimpses' states serve all of them, where no gradient will be asked for.
    assert not options["keep"]
    assert not options["keep_canvases"]


@pytest.mark.slow
def test_the_sampler_exports_without_the_operator(tmp_path: Path) -> None:
    """From the reference backend the file needs no fastdraw: another process loads it that never imports it, or ONNX."""
    model, more = draw(), torch.randn(2, 5, 2)
    with fastdraw.backend("reference"):
        program = exported(model, torch.randn(2, 2, 2))
    assert not calls(program)
    images = model.sample(5, more)
    torch.testing.assert_close(program.module()(more), images)
    torch.export.save(program, tmp_path / "sampler.pt2")
    torch.save({"noise": more, "images": images}, tmp_path / "data.pt")
    code = """
import sys, torch
program, data = torch.export.load("sampler.pt2"), torch.load("data.pt")
torch.testing.assert_close(program.module()(data["noise"]), data["images"])
print("fastdraw" in sys.modules)
"""
    assert python(code, folder=tmp_path) == "False\n"
    pytest.importorskip("onnxscript")
    evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator
    torch.onnx.export(program, (), tmp_path / "sampler.onnx", dynamo=True, verbose=False)
    (drawn,) = evaluator(str(tmp_path / "sampler.onnx")).run(None, {"noise": more.numpy()})
    torch.testing.assert_close(torch.from_numpy(drawn), images)


def test_a_class_conditional_sampler_exports_with_its_labels() -> None:
    model, shapes = draw(num_classes=3), {"noise": {1: torch.export.Dim("n")}, "labels": {0: torch.export.Dim("n")}}
    example = torch.randn(2, 2, 2), torch.tensor([0, 2])
    program = torch.export.export(Sampler(model).eval(), example, dynamic_shapes=shapes)
    noise, labels = torch.randn(2, 5, 2), torch.tensor([0, 1, 2, 1, 0])
    torch.testing.assert_close(program.module()(noise, labels), model.sample(5, noise, labels=labels))


def test_a_sampler_wants_a_model_that_samples() -> None:
    with pytest.raises(TypeError, match="model: expected a DRAW, which can sample"):
        Sampler(DRAWClassifier((1, 6, 5), 2, 4, 2, 3))
