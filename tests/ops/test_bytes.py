"""uint8 images, and narrow ones in general: read where they lie, without a copy, by every operator that reads an image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import fastdraw
from fastdraw.kernels import aten, cpu

#: Read whole, and by what a window sees; widths over and under a vector.
SIDES = [(13, 20), (90, 75)]


def pixels(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def lying(image: Tensor, how: str) -> Tensor:
    """The same numbers, otherwise in memory."""
    if how == "last":
        return image.contiguous(memory_format=torch.channels_last)
    if how == "every other":
        wide = image.new_zeros(*image.shape[:3], 2 * image.shape[3])
        wide[..., ::2] = image
        return wide[..., ::2]
    return image.mT.contiguous().mT if how == "turned" else image


@pytest.mark.levels
@pytest.mark.parametrize("how", ["first", "last", "every other", "turned"])
@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_bytes_are_the_numbers_that_they_are(backend: str, device: str, sides, channels: int, how: str) -> None:
    image = pixels(2, channels, *sides)
    for shape in ((2, 7), (2, 3, 5)):
        params = (torch.randn(shape) * 0.7).to(device)
        of = [params.clone().requires_grad_() for _ in range(2)]
        patch = fastdraw.read(lying(image, how).to(device), of[0], (4, 6))
        expected = fastdraw.read(image.float().to(device), of[1], (4, 6))
        assert patch.dtype == torch.float32
        torch.testing.assert_close(patch, expected, rtol=1e-5, atol=1e-3)
        weight = torch.randn_like(patch)
        (grad,), (wanted,) = (torch.autograd.grad((p * weight).sum(), to) for p, to in zip((patch, expected), of, strict=True))
        torch.testing.assert_close(grad, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))


@pytest.mark.levels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.uint8])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_channels_last_is_the_same_patch(backend: str, device: str, dtype: torch.dtype, channels: int) -> None:
    """Windows of all widths, at the image's end too, behind which nobody may read."""
    image = pixels(1, channels, 70, 67).to(dtype).to(device)
    boxes = torch.tensor(
        [[[3.0, 5, 10, 60], [0, 0, 67, 70], [60, 66, 67, 70], [20, 1, 53, 2], [66, 69, 67, 70]]], device=device
    )
    last = torch.empty(1, 70, 67, channels, dtype=dtype, device=device).copy_(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(fastdraw.crop(last, boxes, 5), fastdraw.crop(image, boxes, 5), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.uint8])
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_no_copy_is_made(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, form: torch.memory_format) -> None:
    """What the C++ is given is the image's own memory."""
    if fastdraw.backends()["native"] is not None:
        pytest.skip("no native backend")
    image = pixels(1, 3, 128, 130).to(dtype).contiguous(memory_format=form)
    given, through = [], cpu._through_windows

    def spy(shape, size, power, params, image, *others, **more) -> None:
        given.append(image)
        through(shape, size, power, params, image, *others, **more)

    monkeypatch.setattr(cpu, "_through_windows", spy)
    params = torch.zeros(1, 5, requires_grad=True)
    with fastdraw.backend("native"):
        fastdraw.read(image, params, 4).sum().backward()
    assert len(given) == 2
    assert all(one.data_ptr() == image.data_ptr() and one.dtype == dtype for one in given)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.uint8])
def test_plain_aten_widens_what_windows_see(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """The same patches and gradients as of the whole image in float32, from far fewer numbers; wide windows see all of it."""
    widened, views = [], aten._views
    monkeypatch.setattr(aten, "_views", lambda *given: widened.append(views(*given)) or widened[-1])
    image = pixels(2, 3, 300, 280).to(dtype)
    for count, log_delta, share in ((1, -4.0, 0.2), (2, -4.0, 0.2), (2, 0.5, 1.0)):
        params = torch.tensor([0.2, -0.3, 0.5, log_delta, 0.1]).expand(2, count, 5).clone()
        params[:, 1:, 0] = -0.6
        results = []
        for pixel in (image, image.float()):
            own = params.clone().requires_grad_()
            with fastdraw.backend("aten"):
                patch = fastdraw.read(pixel, own, 6)
            results.append([patch.float(), torch.autograd.grad(patch.sum(), own)[0]])
            seen = max(part.shape[2] * part.shape[3] for part, _ in widened[-1]) / (300 * 280)
            assert seen <= share if pixel is image and share < 1 else seen == 1
        # A patch in bfloat16 is rounded once.
        torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-3)
        torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-4 * float(results[1][1].abs().max()))


def test_a_photograph_as_it_is_decoded(backend: str) -> None:
    """[H, W, C], and the numbers from 0 to 1 that a network wants."""
    photograph = pixels(80, 90, 3)
    image, box = photograph.permute(2, 0, 1)[None], torch.tensor([[10.0, 5.0, 70.0, 75.0]])
    patch = fastdraw.crop(image, box, 8, scale=1 / 255)
    torch.testing.assert_close(patch, fastdraw.crop(image.float() / 255, box, 8))
    white = fastdraw.crop(torch.full_like(image, 255), box, 8, scale=1 / 255)
    torch.testing.assert_close(white, torch.ones_like(white))


def test_a_gradient_to_bytes_is_refused(backend: str) -> None:
    image, params = pixels(2, 1, 9, 9), torch.zeros(2, 5)
    with pytest.raises(TypeError, match="image: expected a floating-point tensor, where its gradient is wanted, got a uint8"):
        torch.ops.fastdraw.read_backward(torch.ones(2, 1, 3, 3), image, params, True, True, backend)


def test_other_integers_are_refused(backend: str) -> None:
    for dtype in (torch.int8, torch.int32, torch.bool):
        with pytest.raises(TypeError, match="image: expected a floating-point or uint8 tensor, got a"):
            fastdraw.read(torch.zeros(2, 1, 9, 9, dtype=dtype), torch.zeros(2, 5), 3)
    with pytest.raises(ValueError, match=r"image: expected shape \[B, C, H, W\]"):
        fastdraw.read(pixels(9, 9), torch.zeros(2, 5), 3)
    with pytest.raises(TypeError, match="patch: expected a floating-point tensor"):
        fastdraw.write(pixels(2, 1, 3, 3), torch.zeros(2, 5), (9, 9))


def test_the_operator_is_registered_for_bytes(backend: str, device: str) -> None:
    image, params = pixels(2, 2, 8, 9).to(device), torch.randn(2, 7, device=device, requires_grad=True)
    torch.library.opcheck(torch.ops.fastdraw.read.default, (image, params, 2, 3, backend))
    assert fastdraw.read(image[:0], params[:0], 3).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert fastdraw.read(image, params, 3).dtype == torch.float32
    glimpse = fastdraw.GaussianGlimpse(3, antialias=True)
    torch.testing.assert_close(glimpse(image, params), glimpse(image.float(), params))
