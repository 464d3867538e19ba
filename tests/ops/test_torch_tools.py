"""Torch's own tools see the operators and models: shapes without values, counted operations, traces, a second import."""

from __future__ import annotations

import pytest
import torch
from commands import python
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

import fastdraw
from fastdraw import reference

B, SIDES, N = 2, (5, 6), 3


def draw(package=fastdraw, **options):
    return package.DRAW(**{"image_shape": (2, *SIDES), "glimpses": 3, "hidden_size": 4, "latent_size": 3, **options})


def classifier(package=fastdraw, **options):
    return package.DRAWClassifier((2, *SIDES), 2, 4, N, 3, **options)


def lstm_tensors(make):
    return [make(*shape) for shape in ((B, 3), (B, 2), (B, 2), (8, 3), (8, 2), (8,), (8,))]


@pytest.mark.parametrize("where", ["meta", "fake"])
def test_shapes_without_values(backend: str, where: str) -> None:
    device = "meta" if where == "meta" else "cpu"

    def wanted(*shape):
        return torch.rand(*shape, device=device, requires_grad=True)

    def run():
        x, labels = torch.rand(B, 2, *SIDES, device=device), torch.zeros(B, dtype=torch.int64, device=device)
        for options in ({}, {"num_classes": 3, "read_size": None, "canvas_memory": "rebuild"}):
            model = draw(**options, device=device)
            own = labels if options else None
            out = model(x, labels=own)
            out.loss.backward()
            assert out.canvas.shape == x.shape
            assert all(parameter.grad.shape == parameter.shape for parameter in model.parameters())
            images, trajectory = model.sample(B, labels=own, return_trajectory=True)
            assert (images.shape, trajectory.canvases.shape) == (x.shape, (3, *x.shape))
            assert model.reconstruct(x, labels=own).shape == x.shape
        told = classifier(device=device)
        told(x, labels).loss.backward()
        assert told.predict(x).shape == (B,)
        assert told.attend(x)[1].sigma.shape == (2, B)
        image, params, patch = wanted(B, 2, *SIDES), wanted(B, 5), wanted(B, 2, N, N)
        outputs = fastdraw.read(image, params, N), fastdraw.write(patch, params, SIDES), *fastdraw.filterbank(params, N, SIDES)
        assert [tuple(t.shape) for t in outputs] == [(B, 2, N, N), (B, 2, *SIDES), (B, N, 5), (B, N, 6), (B,)]
        torch.stack([output.sum() for output in outputs]).sum().backward()
        assert (image.grad.shape, params.grad.shape, patch.grad.shape) == (image.shape, params.shape, patch.shape)
        tensors = lstm_tensors(wanted)
        sum(fastdraw.lstm_step(tensors[0], tensors[1:3], *tensors[3:])).sum().backward()
        assert all(tensor.grad.shape == tensor.shape for tensor in tensors)

    if where == "meta":
        run()
    else:
        with FakeTensorMode():
            run()


def counted(function) -> int:
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def backward(output, *_):
    if output.requires_grad:
        output.sum().backward()


def needs(tensor, wanted):
    return tensor.clone().requires_grad_(wanted)


X, LABELS, NOISE = torch.rand(B, 2, *SIDES), torch.tensor([0, 2]), torch.randn(3, B, 3)
IMAGE, PATCH, PARAMS = torch.rand(B, 2, *SIDES), torch.rand(B, 2, N, N), torch.zeros(B, 5)
SEVERAL = PARAMS[:, None].repeat(1, 4, 1)
WHICH = [(False, False), (False, True), (True, False), (True, True)]
OPTIONS = [{}, {"read_size": None}, {"write_size": None}, {"num_classes": 3, "canvas_memory": "rebuild"}]
#: Each counts for the operators and for the reference, whose module it is given.
COUNTS = {
    **{f"read {w}": lambda o, w=w: backward(o.read(needs(IMAGE, w[0]), needs(PARAMS, w[1]), N)) for w in WHICH},
    **{f"write {w}": lambda o, w=w: backward(o.write(needs(PATCH, w[0]), needs(PARAMS, w[1]), SIDES)) for w in WHICH},
    "read, several windows": lambda o: backward(o.read(IMAGE, needs(SEVERAL, True), N)),
    "write, several windows": lambda o: backward(o.write(PATCH[:, None].repeat(1, 4, 1, 1, 1), needs(SEVERAL, True), SIDES)),
    "filterbank": lambda o: backward(o.filterbank(needs(PARAMS, True), N, SIDES).y),
    **{
        f"DRAW {k}": lambda o, k=k: backward(draw(o, **k)(X, NOISE, LABELS if "num_classes" in k else None).loss)
        for k in OPTIONS
    },
    "DRAW, x": lambda o: backward(draw(o)(needs(X, True), NOISE).loss),
    "sample": lambda o: backward(draw(o).sample(B)),
    "sample, noise": lambda o: backward(draw(o).sample(B, needs(NOISE, True))),
    "sample, weights": lambda o: backward(draw(o).recurrence(None, NOISE).canvas),
    "DRAWClassifier": lambda o: backward(classifier(o)(X, LABELS).loss),
    "DRAWClassifier, x": lambda o: backward(classifier(o)(needs(X, True), LABELS).loss),
}


@pytest.mark.parametrize("name", COUNTS)
def test_operations_are_counted_as_the_references_products(name: str) -> None:
    expected = counted(lambda: COUNTS[name](reference))
    assert counted(lambda: COUNTS[name](fastdraw)) == expected
    assert expected > 0 or name == "filterbank"


def test_an_lstm_steps_operations() -> None:
    def run(package):
        x, h, c, *weights = lstm_tensors(lambda *shape: torch.rand(*shape, requires_grad=True))
        sum(package.lstm_step(x, (h, c), *weights)).sum().backward()

    assert counted(lambda: run(fastdraw)) == counted(lambda: run(reference)) > 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("wanted", [True, False])
def test_traces(backend: str, wanted: bool) -> None:
    """torch.jit.trace checks its graph against a second trace, without gradients; what was traced has them all the same."""
    for model, arguments in ((draw(), (X, NOISE)), (classifier(), (X, LABELS))):
        model.requires_grad_(wanted)
        traced = torch.jit.trace(model, arguments)
        for one, other in zip(traced(*arguments), model(*arguments), strict=True):
            assert_close(one, other)
        if wanted:
            leaves = list(model.parameters())
            expected = torch.autograd.grad(model(*arguments)[0], leaves)
            for one, other in zip(torch.autograd.grad(traced(*arguments)[0], leaves), expected, strict=True):
                assert_close(one, other)


def test_graphs_of_make_fx_look_at_no_values(backend: str) -> None:
    model = draw()
    graph = make_fx(lambda x, noise: model(x, noise).loss)(X, NOISE)
    # It is the call of any images, not of those that it was made with.
    assert_close(graph(0.5 * X, NOISE), model(0.5 * X, NOISE).loss)


@pytest.mark.slow
def test_values_are_looked_at_in_compiled_calls_where_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    bad, labels = X.clone(), torch.tensor([0, 3])
    bad[1, 1, 4, 5] = float("nan")
    conditional, told = draw(num_classes=3), classifier()
    calls = [torch.compile(model, backend="aot_eager") for model in (conditional, told)]
    calls[0](X, NOISE, LABELS), calls[1](X, LABELS)
    monkeypatch.setenv("FASTDRAW_CHECK_VALUES", "1")
    for call in (lambda: calls[0](bad, NOISE, LABELS), lambda: calls[1](bad, LABELS)):
        with pytest.raises(ValueError, match=r"x: expected values in \[0, 1\], got values from nan"):
            call()
    with pytest.raises(ValueError, match="labels: expected class numbers from 0 to 2"):
        calls[0](X, NOISE, labels)


def test_a_second_import_and_reloads() -> None:
    """Of the package, of its modules, and anew after sys.modules forgot it: old models go on, new ones work beside them."""
    code = """
import gc, importlib, sys, torch, fastdraw as old
assert not {"triton", "torch.utils.flop_counter"} & set(sys.modules)
from torch.utils.flop_counter import FlopCounterMode, flop_registry
first = flop_registry[torch.ops.fastdraw.read]
model, x, noise = old.DRAW((1, 5, 6), 2, 4, 3, 2, 2), torch.rand(2, 1, 5, 6), torch.randn(2, 2, 3)
loss = model(x, noise).loss
importlib.reload(old)
for name in ("registry", "direct", "read", "recurrence", "flops"):
    importlib.reload(sys.modules[f"fastdraw.ops.{name}"])
for name in [name for name in sys.modules if name.partition(".")[0] == "fastdraw"]:
    del sys.modules[name]
import fastdraw as new
assert new is not old
again = new.DRAW((1, 5, 6), 2, 4, 3, 2, 2)
again.load_state_dict(model.state_dict())
results = [own(x, noise).loss for own in (model, again)]
assert all(torch.equal(result, loss) for result in results)
sum(results).backward()
assert torch.equal(model.latent.weight.grad, again.latent.weight.grad)
assert flop_registry[torch.ops.fastdraw.read] is not first
# What torch has registered must not hang on the first import.
del old, model, results, loss
gc.collect()
params = torch.zeros(2, 5, requires_grad=True)
torch.ops.fastdraw.read(x, params, 3, 3, "auto").sum().backward()
with torch.autocast("cpu", torch.bfloat16):
    again(x, noise).loss.backward()
print(torch.func.vmap(lambda p: torch.ops.fastdraw.read(x, p, 3, 3, "auto"))(torch.zeros(4, 2, 5)).shape)
"""
    assert python(code) == "torch.Size([4, 2, 1, 3, 3])\n"
