"""Torch's transforms of functions against every operator and both models: first derivatives equal the reference's, in forward
mode too, and what is not had is refused by name."""

from __future__ import annotations

from functools import cache

import pytest
import torch
import torch.autograd.forward_ad as fa
from torch.autograd.functional import jacobian
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.testing import assert_close

import fastdraw

B, SIDES, N = 2, (5, 6), 3
PLAIN = torch.float64


def rand(*shape):
    return torch.rand(*shape, dtype=PLAIN)


def lstm(x, h, c, *weights):
    return torch.cat(fastdraw.lstm_step(x, (h, c), *weights), 1)


def draw(**options):
    torch.manual_seed(1)
    return fastdraw.DRAW((1, *SIDES), 2, 4, 3, 2, 2, **options).double()


def classifier():
    torch.manual_seed(1)
    return fastdraw.DRAWClassifier((1, *SIDES), 2, 4, 2, 3).double()


def with_weight(model, name, function):
    """`function(model)` of one of its weights."""
    others = {key: value.detach() for key, value in model.named_parameters()}

    class Call(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self):
            return function(self.model)

    return lambda weight: functional_call(
        Call(), {f"model.{key}": weight if key == name else value for key, value in others.items()}, ()
    )


def cases():
    """name: (function of one tensor, that tensor)."""
    torch.manual_seed(0)
    image, patch, params = rand(B, 1, *SIDES), rand(B, 1, N, N), 0.3 * torch.randn(B, 5, dtype=PLAIN)
    several, noise, labels = 0.3 * torch.randn(B, 2, 5, dtype=PLAIN), torch.randn(2, B, 3, dtype=PLAIN), torch.tensor([2, 0])
    state = [rand(B, 3), rand(B, 2), rand(B, 2)]
    weights = [rand(8, 3), rand(8, 2), rand(8), rand(8)]
    model, told, conditional = draw(), classifier(), draw(num_classes=3, canvas_memory="rebuild")
    return {
        "read, params": (lambda p: fastdraw.read(image, p, N), params),
        "read, image": (lambda i: fastdraw.read(i, params, N), image),
        "read, several windows": (lambda p: fastdraw.read(image, p, N), several),
        "write, params": (lambda p: fastdraw.write(patch, p, SIDES), params),
        "write, patch": (lambda q: fastdraw.write(q, params, SIDES), patch),
        "glimpse": (lambda p: fastdraw.GaussianGlimpse(N)(image, p), params),
        "filterbank": (lambda p: torch.cat(fastdraw.filterbank(p, N, SIDES)[:2], 2), params),
        "lstm_step, x": (lambda x: lstm(x, *state[1:], *weights), state[0]),
        "lstm_step, weight": (lambda w: lstm(*state, w, *weights[1:]), weights[0]),
        "DRAW, noise": (lambda n: model(image, n).loss[None], noise),
        "DRAW, weight": (
            with_weight(model, "latent.weight", lambda m: m(image, noise).loss[None]),
            model.latent.weight.detach(),
        ),
        "conditional DRAW": (lambda n: conditional(image, n, labels).canvas[:, :, 2], noise),
        "sample": (lambda n: model.sample(B, n)[:, :, 2], noise),
        "DRAWClassifier, x": (lambda x: told(x, labels).logits, image),
        "DRAWClassifier, weight": (
            with_weight(told, "lstm.weight_ih", lambda m: m(image, labels).logits),
            told.lstm.weight_ih.detach(),
        ),
    }


def several(a):
    return torch.stack([a, 0.9 * a, 0.8 * a])


def summed(f):
    return lambda a: f(a).square().sum()


def pulled(f, a):
    output, pull = vjp(f, a)
    return pull(torch.ones_like(output))[0]


def dual(f, a):
    with fa.dual_level():
        return fa.unpack_dual(f(fa.make_dual(a, torch.ones_like(a)))).tangent


#: Each as a function of (function of one tensor, that tensor).
TRANSFORMS = {
    "grad": lambda f, a: grad(summed(f))(a),
    "vjp": pulled,
    "jacrev": lambda f, a: jacrev(f)(a),
    "vmap": lambda f, a: vmap(f)(several(a)),
    "vmap of vmap": lambda f, a: vmap(vmap(f))(several(a)[:2].unsqueeze(1)),
    "vmap of grad": lambda f, a: vmap(grad(summed(f)))(several(a)),
    "grad of vmap": lambda f, a: grad(lambda all: vmap(f)(all).square().sum())(several(a)),
    "jacobian": lambda f, a: jacobian(f, a, vectorize=True),
}
FORWARD = {
    "jvp": lambda f, a: jvp(f, (a,), (torch.ones_like(a),))[1],
    "forward_ad": dual,
    "jacfwd": lambda f, a: jacfwd(f)(a),
    "hessian": lambda f, a: hessian(summed(lambda some: f(torch.cat([some, a.flatten()[2:]]).view_as(a))))(a.flatten()[:2]),
    "jacobian in forward mode": lambda f, a: jacobian(f, a, vectorize=True, strategy="forward-mode"),
}


@cache
def of_the_reference(name, transform):
    function, at = cases()[name]
    with fastdraw.backend("reference"):
        return TRANSFORMS[transform](function, at)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", cases())
def test_every_transform_of_every_operator(backend: str, name: str) -> None:
    """The reference is the specification here as elsewhere, and its derivatives are torch's own."""
    function, at = cases()[name]
    for transform, apply in TRANSFORMS.items():
        actual = apply(function, at)
        expected = of_the_reference(name, transform)
        assert_close(actual, expected, rtol=1e-9, atol=1e-10, msg=lambda text, t=transform: f"{t}: {text}")


@pytest.mark.parametrize("name", cases())
def test_forward_mode(name: str) -> None:
    """Against reverse mode, and in reverse mode of itself: the reference's maths on whatever backend is in force."""
    function, at = cases()[name]
    jacobians = of_the_reference(name, "jacrev")
    with fastdraw.backend("aten"):
        results = {transform: apply(function, at) for transform, apply in FORWARD.items()}
    along = jacobians.flatten(-at.dim()).sum(-1)
    assert along.abs().max() > 0
    for transform, actual in results.items():
        if transform != "hessian":
            expected = along if actual.shape == along.shape else jacobians
            assert_close(actual, expected, rtol=1e-9, atol=1e-10, msg=lambda text, t=transform: f"{t}: {text}")
    assert_close(results["hessian"], results["hessian"].mT, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["read, params", "lstm_step, x", "DRAW, noise", "DRAWClassifier, x"])
def test_second_derivatives_in_reverse_mode_are_refused(backend: str, name: str) -> None:
    function, at = cases()[name]
    with pytest.raises(RuntimeError, match=r'differentiated twice.*fastdraw.backend\("reference"\)'):
        jacrev(jacrev(summed(function)))(at)


def test_batches_of_gradients(backend: str) -> None:
    x, noise, model = rand(B, 1, *SIDES), torch.randn(2, B, 3, dtype=PLAIN).requires_grad_(), draw()
    kl, directions = model(x, noise).kl, torch.eye(4, dtype=PLAIN).view(4, 2, B)
    (together,) = torch.autograd.grad(kl, noise, directions, retain_graph=True, is_grads_batched=True)
    for direction, got in zip(directions, together, strict=True):
        assert_close(got, torch.autograd.grad(kl, noise, direction, retain_graph=True)[0], rtol=1e-9, atol=1e-10)


def test_a_gradient_made_after_its_transform_is_over(backend: str) -> None:
    """What it kept is wrapped by a transform that is no more."""
    function, at = cases()["read, params"]
    output, pull = vjp(function, at)
    weight = torch.ones_like(output).requires_grad_()
    assert_close(pull(weight)[0], pulled(function, at), rtol=1e-12, atol=0)


def test_images_of_all_calls_go_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastdraw.kernels import aten

    sizes, read = [], aten.read
    monkeypatch.setattr(aten, "read", lambda image, *rest: sizes.append(len(image)) or read(image, *rest))
    images, params = torch.rand(4, 3, 1, *SIDES), torch.zeros(3, 5)
    with fastdraw.backend("aten"):
        vmap(lambda image: fastdraw.read(image, params, N))(images)
    assert sizes == [12]


def test_values_are_looked_at_under_transforms_too() -> None:
    model, x, noise = draw(), rand(3, B, 1, *SIDES), torch.randn(2, B, 3, dtype=PLAIN)
    x[2, 1, 0, 4, 5] = 1.5
    with pytest.raises(ValueError, match=r"x: expected values in \[0, 1\]"):
        vmap(lambda image: model(image, noise).loss)(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_has_its_say_under_transforms(backend: str, dtype: torch.dtype) -> None:
    """Windows in float32, an LSTM's products in bfloat16, as without a transform."""
    image, params = torch.rand(B, 1, *SIDES, dtype=dtype), torch.zeros(B, 5)
    cell, x = torch.nn.LSTMCell(3, 2), torch.rand(B, 3)

    def results(p, w):
        patch = fastdraw.read(image, p, N)
        h, c = fastdraw.lstm_step(x, (x[:, :2], x[:, :2]), w, cell.weight_hh, cell.bias_ih, cell.bias_hh)
        assert (patch.dtype, h.dtype, c.dtype) == (torch.float32, torch.bfloat16, torch.float32)
        return patch.sum() + h.float().sum() + c.sum()

    leaves = params.requires_grad_(), cell.weight_ih
    with torch.autocast("cpu", torch.bfloat16):
        expected = torch.autograd.grad(results(*leaves), leaves)
        actual = grad(results, argnums=(0, 1))(*(leaf.detach() for leaf in leaves))
    for one, other in zip(actual, expected, strict=True):
        assert_close(one, other, rtol=0, atol=0)


def test_an_operator_itself_refuses_forward_mode() -> None:
    """By torch.ops, and from a graph that was made before."""
    image, params = torch.rand(B, 1, *SIDES), torch.zeros(B, 5, requires_grad=True)
    patch = fastdraw.read(image, params, N)
    with fa.dual_level():
        refused = pytest.raises(RuntimeError, match=r'no forward-mode derivative.*fastdraw.backend\("reference"\)')
        with refused:
            torch.ops.fastdraw.read(image, fa.make_dual(params.detach(), params.detach()), N, N, "aten")
        with refused:
            patch.backward(fa.make_dual(torch.ones_like(patch), torch.ones_like(patch)))


@pytest.mark.slow
def test_transforms_are_compiled() -> None:
    function, at = cases()["read, params"]
    for transform in (TRANSFORMS["grad"], TRANSFORMS["vmap of grad"], FORWARD["jvp"]):
        torch.compiler.reset()
        compiled = torch.compile(lambda a, t=transform: t(function, a), backend="aot_eager", fullgraph=True)
        assert_close(compiled(at), transform(function, at))
