"""docs/limits.md, entry by entry: each row of its tables is held to what this machine does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from documents import ROOT
from torch import Tensor
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import fastdraw
from fastdraw import dispatch
from fastdraw.train.options import TrainOptions

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
#: What a call is, and its tensors: the last one is differentiated.
Call = tuple[Callable[..., Tensor], tuple[Tensor, ...]]


def table(first: str) -> dict[str, list[str]]:
    """The rows of the table whose head begins with `first`: their cells by their names."""
    lines = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8").splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(first))
    rows = [[cell.strip() for cell in line.replace("\\|", "\0").strip("|").split("|")] for line in lines[at:]]
    end = next((i for i, line in enumerate(lines[at:]) if not line.startswith("|")), len(rows))
    return {row[0]: row[1:] for row in (rows[0], *rows[2:end])}


BACKENDS = table("| backend |")
LIMITS = table("| what |")
HERE = [name for name in BACKENDS["backend"] if fastdraw.backends().get(name, "") is None]


def calls(dtype: torch.dtype) -> dict[str, Call]:
    def normal(*shape: int, by: float = 0.3) -> Tensor:
        return (by * torch.randn(*shape)).to(dtype)

    image, patch, params = torch.rand(2, 1, 9, 7).to(dtype), normal(2, 1, 3, 3), normal(2, 5, by=0.1)
    boxes = torch.tensor([[[1.0, 1, 6, 5]], [[0, 2, 4, 8]]]).to(dtype)
    cell = (normal(2, 3), normal(2, 4), normal(2, 4), normal(16, 4), normal(16), normal(16), normal(16, 3))
    drawing = fastdraw.DRAW((1, 9, 7), 2, 8, 4, 3, 3).to(dtype)
    classifier = fastdraw.DRAWClassifier((1, 9, 7), 2, 8, 3, 4).to(dtype)
    x, noise, labels = torch.rand(2, 1, 9, 7).to(dtype), normal(2, 2, 4, by=1), torch.tensor([0, 1])

    def draw(weight: Tensor) -> Tensor:
        return functional_call(drawing, {"patch.weight": weight}, (x, noise)).loss

    def classify(weight: Tensor) -> Tensor:
        return functional_call(classifier, {"output.weight": weight}, (x, labels)).loss

    return {
        "read": (lambda i, p: fastdraw.read(i, p, 3), (image, params)),
        "write": (lambda i, p: fastdraw.write(i, p, (9, 7)), (patch, params)),
        "filterbank": (lambda p: fastdraw.filterbank(p, 3, (9, 7)).y, (params,)),
        "lstm_step": (lambda x, h, c, hh, ih_, hh_, ih: fastdraw.lstm_step(x, (h, c), ih, hh, ih_, hh_)[0], cell),
        "crop": (lambda i, b: fastdraw.crop(i, b, 3), (image, boxes)),
        "paste": (lambda i, b: fastdraw.paste(i[:, None], b, (9, 7)), (patch, boxes)),
        "DRAW": (draw, (drawing.patch.weight.detach(),)),
        "DRAWClassifier": (classify, (classifier.output.weight.detach(),)),
    }


def scalar(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *tensors: f(*tensors).square().sum()


def gradient(f: Callable[..., Tensor], tensors: tuple[Tensor, ...], create_graph: bool = False) -> tuple[Tensor, Tensor]:
    *others, last = tensors
    at = last.clone().requires_grad_()
    return torch.autograd.grad(scalar(f)(*others, at), at, create_graph=create_graph)[0], at


def twice(f: Callable[..., Tensor], tensors: tuple[Tensor, ...]) -> Tensor:
    first, at = gradient(f, tensors, create_graph=True)
    return torch.autograd.grad(first.square().sum(), at)[0]


def batched(f: Callable[..., Tensor], tensors: tuple[Tensor, ...]) -> Tensor:
    *others, last = tensors
    return vmap(f, in_dims=(*[None] * len(others), 0))(*others, torch.stack([last] * 2))


def last(tensors: tuple[Tensor, ...]) -> int:
    return len(tensors) - 1


Transform = Callable[[Callable[..., Tensor], tuple[Tensor, ...]], Any]
TRANSFORMS: dict[str, dict[str, Transform]] = {
    "gradients of gradients": {"twice": twice},
    "torch.func: grad, vjp, jacrev, vmap": {
        "grad": lambda f, a: grad(scalar(f), last(a))(*a),
        "vjp": lambda f, a: vjp(f, *a)[1](torch.ones_like(f(*a)))[-1],
        "jacrev": lambda f, a: jacrev(f, last(a))(*a),
        "vmap": batched,
    },
    "forward mode: jvp, jacfwd, hessian": {
        "jvp": lambda f, a: jvp(f, a, tuple(map(torch.ones_like, a)))[1],
        "jacfwd": lambda f, a: jacfwd(f, last(a))(*a),
        "hessian": lambda f, a: hessian(scalar(f), last(a))(*a),
    },
}


def few(backend: str) -> tuple[str, ...]:
    """The calls of which tracing takes seconds are left out where they are PyTorch's own all through."""
    return ("read", "lstm_step") if backend == "reference" else ("read", "lstm_step", "DRAW")


def claims(row: str, backend: str) -> str:
    return BACKENDS[row][BACKENDS["backend"].index(backend)]


def device(backend: str) -> None:
    where = {"CPU": ["cpu"], "CUDA": ["cuda"], "any that PyTorch has": ["cpu", "cuda", "mps"]}[claims("device", backend)]
    for kind in ("cpu", "cuda", "mps"):
        with fastdraw.backend(backend):
            if kind in where:
                assert dispatch.chosen(kind) == backend
            else:
                with pytest.raises(RuntimeError, match="cannot run here: its tensors live"):
                    dispatch.chosen(kind)


def dtypes(backend: str) -> None:
    assert claims("float32, float64, float16, bfloat16", backend) == "yes"
    for dtype in DTYPES:
        for name, (f, tensors) in calls(dtype).items():
            out, (found, _) = f(*tensors), gradient(f, tensors)
            assert out.isfinite().all(), (name, dtype)
            assert found.isfinite().all(), (name, dtype)
            assert found.dtype == dtype, name


def small_integers(backend: str) -> None:
    assert claims("uint8 images, to be read", backend) != "no"
    image, params = torch.randint(0, 256, (2, 1, 80, 7), dtype=torch.uint8), torch.zeros(2, 5)
    for rows in (80, 9):
        some = image[:, :, :rows]
        torch.testing.assert_close(fastdraw.read(some, params, 3), fastdraw.read(some.float(), params, 3))


def by_hand(backend: str) -> None:
    ours = {"written by hand": True, "PyTorch's": False}[claims("gradients", backend)]
    for name in ("read", "write", "filterbank", "lstm_step"):
        f, (*others, at) = calls(torch.float32)[name]
        out = f(*others, at.requires_grad_())
        # The names of PyTorch's own end with a digit.
        assert type(out.grad_fn).__name__[-1].isdigit() != ours, (name, out.grad_fn)


def compiled(backend: str) -> None:
    assert claims("torch.compile", backend) == "yes"
    given = {name: call for name, call in calls(torch.float32).items() if name in few(backend)}
    every = [tensors for _, tensors in given.values()]

    def together(*all_of_them: tuple[Tensor, ...]) -> list[Tensor]:
        return [f(*tensors) for (f, _), tensors in zip(given.values(), all_of_them, strict=True)]

    torch.compiler.reset()
    found = torch.compile(together, backend="aot_eager", fullgraph=True)(*every)
    torch.testing.assert_close(found, together(*every))


def seen_alone(backend: str) -> None:
    """What a window does not see is NaN, which shows where it is multiplied by a weight of zero."""
    claim = claims("only the pixels that a window sees are read", backend)
    params = torch.tensor([[-0.5, -0.5, 0.0, -3.0, 0.0]])
    for side in (64, 96):
        image = torch.rand(1, 1, side, side)
        image[..., side - 4 :, side - 4 :] = float("nan")
        expected = {"yes": True, "no": False, "above 64x64 pixels": side > 64}[claim]
        assert bool(fastdraw.read(image, params, 3).isfinite().all()) == expected, side


ROWS: dict[str, Callable[[str], None]] = {
    "device": device,
    "float32, float64, float16, bfloat16": dtypes,
    "uint8 images, to be read": small_integers,
    "gradients": by_hand,
    "torch.compile": compiled,
    "only the pixels that a window sees are read": seen_alone,
}


def sides() -> None:
    """A train's glimpses and filters are at most so many; an operator's are not."""
    with pytest.raises(ValueError, match="65,536"):
        TrainOptions(read_size="65537").check()
    image, params = torch.rand(1, 1, 1, 70_000), torch.zeros(1, 5)
    assert fastdraw.read(image, params, (1, 3)).isfinite().all()
    assert fastdraw.read(image[..., :2], params, (1, 70_000)).isfinite().all()


def any_params() -> None:
    image = torch.rand(1, 1, 9, 7)
    largest = torch.finfo(torch.float32).max
    for value in (largest, -largest):
        for i in range(5):
            params = torch.zeros(1, 5)
            params[0, i] = value
            assert fastdraw.read(image, params, 3).isfinite().all(), (value, i)
    for log_gamma in (20.0, -20.0):
        f = lambda i, p: fastdraw.read(i, p, 3)  # noqa: E731
        found, _ = gradient(f, (image, torch.tensor([[0.3, 0.2, -1e3, -1e3, log_gamma]])))
        assert found.isfinite().all()


def values() -> None:
    for value in (-0.1, 1.1):
        with pytest.raises(ValueError, match=r"x: expected .*\[0, 1\]"):
            fastdraw.DRAW((1, 4, 4), 1, 4, 2)(torch.full((1, 1, 4, 4), value))


def channels(folder: Path) -> None:
    view = pytest.importorskip("fastdraw.view")
    for number in (2, 7):
        images = fastdraw.DRAW((number, 6, 5), 2, 4, 3).sample(2)
        assert images.shape == (2, number, 6, 5)
        with pytest.raises(ValueError, match="images: expected"):
            view.save_grid(images, folder / "grid.png")


def test_limits_are_so(tmp_path: Path) -> None:
    tried: dict[str, Callable[[], None]] = {
        "sides of an image, filters along a side": sides,
        "window parameters": any_params,
        "values of `x` for DRAW": values,
        "channels": lambda: channels(tmp_path),
    }
    # Systems are not tried by calls.
    assert {"what", "Windows", "macOS", *tried} == set(LIMITS)
    for try_it in tried.values():
        try_it()


def test_every_row_is_tried() -> None:
    assert {"backend", *ROWS, *TRANSFORMS} == set(BACKENDS)
    assert set(BACKENDS["backend"]) == set(fastdraw.backends())


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("name", HERE)
def test_a_row_is_so(name: str, row: str) -> None:
    with fastdraw.backend(name):
        ROWS[row](name)


@pytest.mark.parametrize("row", TRANSFORMS)
@pytest.mark.parametrize("name", HERE)
def test_a_transform_is_so(name: str, row: str) -> None:
    """Where it is said to work its result is the reference's; where it is not, the error names the way out."""
    claim = claims(row, name)
    for call, (f, tensors) in calls(torch.float32).items():
        for kind, transform in TRANSFORMS[row].items():
            # Of the slow ones one call; tests/ops/test_transforms.py has all.
            if call not in (("read",) if kind in ("jacfwd", "hessian") else few(name)):
                continue
            with fastdraw.backend(name):
                if claim == "no":
                    with pytest.raises((RuntimeError, NotImplementedError), match=r'with fastdraw.backend\("reference"\)'):
                        transform(f, tensors)
                    continue
                found = transform(f, tensors)
            if name == "reference":
                assert found.isfinite().all(), (call, kind)
                continue
            with fastdraw.backend("reference"):
                expected = transform(f, tensors)
            torch.testing.assert_close(found, expected, msg=lambda text, at=(call, kind): f"{at}: {text}")
