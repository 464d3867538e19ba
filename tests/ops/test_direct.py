"""Operators called past the dispatcher: the same bits as through it, and never where something is looking."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

import fastdraw
from fastdraw.ops import direct

B, N, SIDE = 3, 4, 11
NATIVE = pytest.mark.skipif(fastdraw.backends()["native"] is not None, reason="the C++ kernels are not there")


def params(requires_grad=True):
    return (0.2 * torch.randn(B, 5)).requires_grad_(requires_grad)


def tensors(*shapes):
    return [torch.randn(*shape).requires_grad_() for shape in shapes]


#: Each operator as a function of leaves that it is called on.
CASES = {
    "read": (lambda i, p: fastdraw.read(i, p, N), lambda: [*tensors((B, 2, SIDE, SIDE)), params()]),
    "write": (lambda q, p: fastdraw.write(q, p, (SIDE, SIDE)), lambda: [*tensors((B, 2, N, N)), params()]),
    "filterbank": (lambda p: fastdraw.filterbank(p, N, (SIDE, SIDE)), lambda: [params()]),
    "lstm_step": (
        lambda x, h, c, *w: fastdraw.lstm_step(x, (h, c), *w),
        lambda: tensors((B, 6), (B, 5), (B, 5), (20, 6), (20, 5), (20,), (20,)),
    ),
}


@pytest.fixture(params=CASES)
def case(request):
    function, make = CASES[request.param]
    return request.param, function, make()


def everything(function, leaves):
    outputs = function(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    grads = torch.autograd.grad([(output * torch.arange(output.numel()).view_as(output)).sum() for output in outputs], leaves)
    return [*outputs, *grads]


class Record(TorchDispatchMode):
    """Which operators pass."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def test_the_same_bits_as_through_the_dispatcher(case):
    name, function, leaves = case
    short = everything(function, leaves)
    with Record() as record:
        long = everything(function, leaves)
    assert f"fastdraw.{name}.default" in record.names
    assert f"fastdraw.{name}_backward.default" in record.names
    for one, other in zip(short, long, strict=True):
        assert torch.equal(one, other)


@NATIVE
@pytest.mark.parametrize("wants_image", [False, True])
@pytest.mark.parametrize("windows", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_what_a_large_read_keeps_for_its_gradient(dtype, windows, wants_image, monkeypatch):
    from fastdraw.kernels import cpu

    size, found = 3, []
    keeps = cpu.keeps
    monkeypatch.setattr(cpu, "LEAST_SEEN", 0)
    monkeypatch.setattr(cpu, "keeps", lambda *arguments: found.append(keeps(*arguments)) or found[-1])
    image = torch.randn(2, 2, 150, 170).to(dtype).requires_grad_(wants_image)
    window = 0.3 * torch.randn(2, windows, 5, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    # One that sees half of the image and one that sees a few pixels, which lie in several tiles and in one.
    window[..., 3] = torch.tensor([-0.7, -3.0])[:windows]
    window = (window[:, 0] if windows == 1 else window).requires_grad_()
    leaves = [image, window] if wants_image else [window]

    def results():
        patch = fastdraw.read(image, window, size)
        return [patch, *torch.autograd.grad(patch.float().square().sum(), leaves)]

    with fastdraw.backend("native"):
        short = results()
        with Record():
            long = results()
    assert [kept is not None for kept in found] == [True]
    for one, other in zip(short, long, strict=True):
        assert torch.equal(one, other)


@NATIVE
def test_nothing_is_kept_where_it_would_be_large_or_is_not_wanted():
    image, window = torch.randn(1, 1, 800, 800).requires_grad_(), torch.zeros(1, 5)
    window[:, 2] = 12.0
    # Many filters in one place: their maps would be more than half of the pixels that they see.
    window[:, 3] = -20.0
    wanted = window.clone().requires_grad_()
    with fastdraw.backend("native"):
        assert fastdraw.read(image, wanted, 260).grad_fn.saved_tensors[2] is None
        assert fastdraw.read(image, wanted, 2).grad_fn.saved_tensors[2] is not None
        assert fastdraw.read(image, window, 2).grad_fn.saved_tensors[2] is None
        # So few pixels are read again sooner than kept.
        assert fastdraw.read(image[..., :300, :300], wanted, 2).grad_fn.saved_tensors[2] is None


@NATIVE
@pytest.mark.parametrize("windows", [1, 64])
def test_what_reads_keep_is_capped_together(windows):
    """Many glimpses of one step, alive at once: those beyond the cap read their pixels again, and give the same bits."""
    from fastdraw.kernels.cpu import pages

    image = torch.randn(1, 1, 512, 512).expand(4, -1, -1, -1)
    window = torch.zeros(4, windows, 5)
    window[..., 2:4] = torch.tensor([4.0, -0.5])
    window = (window[:, 0] if windows == 1 else window).requires_grad_()
    pages.release()
    with fastdraw.backend("native"):
        patches = [fastdraw.read(image, window, 40) for _ in range(500 if windows == 1 else 8)]
        kept = [patch.grad_fn.saved_tensors[2] for patch in patches]
        assert kept[0] is not None
        assert kept[-1] is None
        assert sum(one.nbytes for one in kept if one is not None) <= pages.kept_bytes() <= pages.READS
        first, last = (torch.autograd.grad(patch.sum(), window)[0] for patch in (patches[0], patches[-1]))
        assert torch.equal(first, last)


def test_a_plain_call_takes_the_shorter_way(case, monkeypatch):
    _, function, leaves = case
    asked = []
    seen = direct.seen
    monkeypatch.setattr(direct, "seen", lambda arguments: asked.append(seen(arguments)) or asked[-1])
    output = function(*leaves)
    first = output[0] if isinstance(output, tuple) else output
    first.sum().backward()
    assert asked == [False, False]
    assert "Fastdraw" in type(first.grad_fn).__name__


def test_the_profiler_sees_operators(case):
    name, function, leaves = case
    with torch.profiler.profile() as profile:
        everything(function, leaves)
    seen = {event.key for event in profile.key_averages()}
    assert {f"fastdraw::{name}", f"fastdraw::{name}_backward"} <= seen


def test_a_negated_view():
    # Its numbers in memory have the other sign.
    numbers = torch.complex(torch.zeros(B, 1, SIDE, SIDE), torch.randn(B, 1, SIDE, SIDE))
    image = numbers.conj().imag
    assert image.is_neg()
    window = params(False)
    assert torch.equal(fastdraw.read(image, window, N), fastdraw.read(image.resolve_neg(), window, N))


class Labelled(torch.Tensor):
    """A subclass that keeps its kind."""


def test_subclasses_go_through_the_dispatcher():
    image = torch.randn(B, 1, SIDE, SIDE).as_subclass(Labelled)
    assert isinstance(fastdraw.read(image, params(False), N), Labelled)


def test_hooks_on_saved_tensors_and_checkpoints():
    image, window = torch.randn(B, 1, SIDE, SIDE), params()
    plain = torch.autograd.grad(fastdraw.read(image, window, N).square().sum(), window)[0]
    packed = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t.shape) or t.clone(), lambda t: t):
        hooked = torch.autograd.grad(fastdraw.read(image, window, N).square().sum(), window)[0]
    patch = torch.utils.checkpoint.checkpoint(fastdraw.read, image, window, N, use_reentrant=False)
    again = torch.autograd.grad(patch.square().sum(), window)[0]
    assert image.shape in packed
    assert_close(hooked, plain, rtol=0, atol=0)
    assert_close(again, plain, rtol=0, atol=0)


def test_a_torch_without_the_private_names(monkeypatch):
    monkeypatch.setattr(direct, "_modes", direct._private("_no_such_function"))
    window = params(False)
    assert direct.seen((window,))
    assert fastdraw.filterbank(window, N, (SIDE, SIDE)).y.shape == (B, N, SIDE)
