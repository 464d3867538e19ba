"""Mistakes a user can make with tensors and numbers: each error names the argument, what came and what was expected."""

from __future__ import annotations

import pytest
import torch

import fastdraw
from fastdraw import DRAW, DRAWConfig

IMAGE, PARAMS, PATCH = torch.rand(2, 1, 6, 5), torch.randn(2, 5), torch.rand(2, 1, 3, 3)
SEVERAL = torch.rand(2, 3, 1, 4, 4)
LSTM = [torch.randn(size) for size in [(2, 3), (2, 4), (2, 4), (16, 3), (16, 4), (16,), (16,)]]
NAN = torch.full((2, 1, 6, 5), float("nan"))


def lstm(**changes) -> object:
    names = ["x", "h", "c", "weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    x, h, c, *weights = (changes.get(name, tensor) for name, tensor in zip(names, LSTM, strict=True))
    return fastdraw.lstm_step(x, (h, c), *weights)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fastdraw.read(IMAGE[0], PARAMS, 3), ValueError, r"image: expected shape \[B, C, H, W\], got .*\(1, 6, 5\)"),
        (
            lambda: fastdraw.read(IMAGE.int(), PARAMS, 3),
            TypeError,
            r"image: expected a floating-point or uint8 tensor, got a int32",
        ),
        (lambda: fastdraw.read([1.0], PARAMS, 3), TypeError, r"image: expected a tensor, got \[1.0\]"),
        (lambda: fastdraw.read(IMAGE, PARAMS[:1], 3), ValueError, r"params: expected shape \[2, 5\], got .*\(1, 5\)"),
        (lambda: fastdraw.read(IMAGE, PARAMS[:, :4], 3), ValueError, r"params: expected shape \[2, 5\], got .*\(2, 4\)"),
        (lambda: fastdraw.read(IMAGE, PARAMS.long(), 3), TypeError, "params: expected a floating-point tensor"),
        (
            lambda: fastdraw.read(IMAGE, PARAMS.to("meta"), 3),
            ValueError,
            r"params: expected the device of image \(cpu\), got meta",
        ),
        (lambda: fastdraw.read(IMAGE, PARAMS, 0), ValueError, "size: expected at least 1, got 0"),
        (lambda: fastdraw.read(IMAGE, PARAMS, 2.5), TypeError, "size: expected a whole number, got 2.5"),
        (lambda: fastdraw.read(IMAGE, PARAMS, True), TypeError, "size: expected a whole number, got True"),
        (lambda: fastdraw.read(IMAGE, PARAMS, (3,)), ValueError, r"size: expected \(height, width\), got \(3,\)"),
        (lambda: fastdraw.read(IMAGE, PARAMS, (3, 0)), ValueError, "size: expected at least 1, got 0"),
        (lambda: fastdraw.read(IMAGE, torch.zeros(2, 6), 3), ValueError, r"params: expected shape \[2, 5\]"),
        (lambda: fastdraw.filterbank(torch.zeros(2, 3, 7), 3, (6, 5)), ValueError, r"params: expected shape \[B, 7\]"),
        (
            lambda: fastdraw.read(IMAGE, torch.zeros(3, 2, 5), 3),
            ValueError,
            r"params: expected shape \[2, K, 5\], got .*\(3, 2, 5\)",
        ),
        (
            lambda: fastdraw.read(IMAGE, torch.zeros(2, 2, 4), 3),
            ValueError,
            r"params: expected shape \[2, K, 5\], got .*\(2, 2, 4\)",
        ),
        (lambda: fastdraw.read(IMAGE, torch.zeros(2, 2, 2, 5), 3), ValueError, r"params: expected shape \[2, 5\]"),
        (lambda: fastdraw.write(SEVERAL, PARAMS, (8, 8)), ValueError, r"params: expected shape \[2, 3, 5\]"),
        (lambda: fastdraw.write(PATCH, torch.zeros(2, 1, 5), (8, 8)), ValueError, r"params: expected shape \[2, 5\]"),
        (lambda: fastdraw.write(SEVERAL[..., :0], torch.zeros(2, 3, 5), (8, 8)), ValueError, "patch: expected shape"),
        (lambda: fastdraw.write(PATCH[:, :, :0, :0], PARAMS, (6, 5)), ValueError, "patch: expected .* sides of at least 1"),
        (lambda: fastdraw.write(PATCH, PARAMS, 6), ValueError, r"image_size: expected \(height, width\), got 6"),
        (lambda: fastdraw.write(PATCH, PARAMS, (6, 0)), ValueError, "image_size: expected at least 1, got 0"),
        (lambda: fastdraw.filterbank(PARAMS[0], 3, (6, 5)), ValueError, r"params: expected shape \[B, 5\]"),
        (lambda: lstm(h=LSTM[1][:1]), ValueError, r"h: expected shape \[2, H\]"),
        (lambda: lstm(c=LSTM[2][:, :3]), ValueError, r"c: expected shape \[2, 4\]"),
        (lambda: lstm(weight_ih=LSTM[3].mT), ValueError, r"weight_ih: expected shape \[16, 3\]"),
        (lambda: lstm(bias_hh=LSTM[6][:4]), ValueError, r"bias_hh: expected shape \[16\]"),
        (lambda: lstm(weight_hh=LSTM[4].double()), ValueError, r"weight_hh: expected the dtype of x \(torch.float32\)"),
        (lambda: fastdraw.lstm_step(LSTM[0], LSTM[1], *LSTM[3:]), TypeError, r"state: expected \(h, c\)"),
    ],
)
def test_operators(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"glimpses": 0}, ValueError, "glimpses: expected at least 1, got 0"),
        ({"read_size": 0}, ValueError, "read_size: expected at least 1, got 0"),
        ({"write_size": -1}, ValueError, "write_size: expected at least 1, got -1"),
        ({"hidden_size": 2.0}, TypeError, "hidden_size: expected a whole number, got 2.0"),
        ({"latent_size": "5"}, TypeError, "latent_size: expected a whole number, got '5'"),
        ({"image_shape": (28, 28)}, ValueError, r"image_shape: expected \(channels, height, width\), got \(28, 28\)"),
        ({"image_shape": (1, 0, 28)}, ValueError, "image_shape: expected at least 1, got 0"),
    ],
)
def test_configurations(change: dict, error: type[Exception], message: str) -> None:
    for make in (DRAW, DRAWConfig, fastdraw.reference.DRAW):
        with pytest.raises(error, match=message):
            make(**change)


@pytest.mark.parametrize("kind", [DRAW, fastdraw.reference.DRAW])
@pytest.mark.parametrize(
    ("x", "noise", "error", "message"),
    [
        (IMAGE[0], None, ValueError, r"x: expected shape \[B, 1, 6, 5\], got a float32 tensor of shape \(1, 6, 5\)"),
        (IMAGE.expand(2, 3, 6, 5), None, ValueError, r"x: expected shape \[B, 1, 6, 5\], got .*\(2, 3, 6, 5\)"),
        (IMAGE.mT, None, ValueError, r"x: expected shape \[B, 1, 6, 5\], got .*\(2, 1, 5, 6\)"),
        ((IMAGE * 255).byte(), None, TypeError, "x: expected a floating-point tensor, got a uint8 tensor"),
        (IMAGE.to("meta"), None, ValueError, "x: expected the device of the model's weights"),
        (NAN, None, ValueError, r"x: expected values in \[0, 1\], got values from nan to nan"),
        (IMAGE / 0.0, None, ValueError, r"x: expected values in \[0, 1\]"),
        (IMAGE * 255, None, ValueError, r"x: expected values in \[0, 1\], got values from .* to 2"),
        (IMAGE - 0.9, None, ValueError, r"x: expected values in \[0, 1\], got values from -0"),
        (IMAGE, torch.randn(3, 2, 5), ValueError, r"noise: expected shape \[3, 2, 4\], got .*\(3, 2, 5\)"),
        (IMAGE, torch.randn(2, 4), ValueError, r"noise: expected shape \[3, 2, 4\]"),
        (IMAGE, torch.zeros(3, 2, 4, dtype=torch.long), TypeError, "noise: expected a floating-point tensor"),
    ],
)
def test_images_and_noise(
    kind: type, x: torch.Tensor, noise: torch.Tensor | None, error: type[Exception], message: str
) -> None:
    model = kind((1, 6, 5), glimpses=3, hidden_size=5, latent_size=4)
    for method in (model, model.reconstruct):
        with pytest.raises(error, match=message):
            method(x, noise)


def test_samples() -> None:
    model = DRAW((1, 6, 5), glimpses=3, hidden_size=5, latent_size=4)
    with pytest.raises(ValueError, match="n: expected at least 0, got -1"):
        model.sample(-1)
    with pytest.raises(ValueError, match=r"noise: expected shape \[3, 2, 4\]"):
        model.sample(2, torch.randn(3, 1, 4))
    assert model.sample(0).shape == (0, 1, 6, 5)


def test_a_state_dict_of_another_configuration_changes_nothing() -> None:
    model, other = DRAW((1, 6, 5), 3, 5, 4), DRAW((1, 6, 5), 3, 7, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"state_dict: expected .* of shape .* for DRAWConfig.*, got"):
        model.load_state_dict(other.state_dict())
    without = DRAW((1, 6, 5), 3, 5, 4, read_size=None).state_dict()
    with pytest.raises(ValueError, match="state_dict: "):
        model.load_state_dict(without)
    with pytest.raises(TypeError, match="state_dict: expected a mapping"):
        model.load_state_dict([1])
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_value_checks_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    model = DRAW((1, 6, 5), glimpses=3, hidden_size=5, latent_size=4)
    monkeypatch.setenv("FASTDRAW_CHECK_VALUES", "0")
    assert model(NAN).loss.isnan()
    monkeypatch.setenv("FASTDRAW_CHECK_VALUES", "1")
    with pytest.raises(ValueError, match="x: expected values"):
        model(NAN)
    monkeypatch.setenv("FASTDRAW_CHECK_VALUES", "yes")
    with pytest.raises(ValueError, match="FASTDRAW_CHECK_VALUES: expected 0 or 1, got 'yes'"):
        model(IMAGE)


def test_backends_by_name() -> None:
    with (
        pytest.raises(ValueError, match="name: expected one of auto, reference, aten, native, triton, got 'cuda'"),
        fastdraw.backend("cuda"),
    ):
        pass
    for name, reason in fastdraw.backends().items():
        if reason is not None:
            with pytest.raises(RuntimeError, match=f"backend '{name}' cannot run here: .*"), fastdraw.backend(name):
                pass


@pytest.mark.parametrize("dims", range(6))
def test_gradients_of_any_rank_are_told_by_name(backend: str, dims: int) -> None:
    """Handed to a registered operator itself, which takes what torch takes."""
    operators, grad = torch.ops.fastdraw, torch.rand((3,) * dims)
    image, patch, params = torch.rand(2, 1, 9, 9), torch.rand(2, 1, 2, 2), torch.zeros(2, 5)
    for call in (
        lambda: operators.read_backward(grad, image, params, True, True, backend),
        lambda: operators.write_backward(grad, patch, params, True, True, backend),
        lambda: operators.filterbank_backward(grad, grad, torch.rand(2), params, backend),
        lambda: operators.lstm_step_backward(grad, *[torch.rand(2, 4)] * 8, backend),
    ):
        with pytest.raises(ValueError, match=r"^(grad|grad_y|grad_x|grad_h|gates): expected shape \[(?!\])(?!.*\b0[,\]])"):
            call()


@pytest.mark.parametrize("name", ["reference", "cuda", ""])
def test_registered_operators_name_the_backends_that_they_have(name: str) -> None:
    for call in (
        lambda: torch.ops.fastdraw.read(IMAGE, torch.zeros(len(IMAGE), 5), 2, 2, name),
        lambda: torch.ops.fastdraw.write(torch.rand(2, 1, 2, 2), torch.zeros(2, 5), 9, 9, name),
        lambda: torch.ops.fastdraw.filterbank(torch.zeros(2, 5), 2, 2, 9, 9, name),
    ):
        with pytest.raises(ValueError, match=f"backend: expected one of auto, aten, native, triton, got '{name}'"):
            call()
