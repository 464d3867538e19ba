"""Read and write where the image is larger than what a window sees: what is left out, what is touched, several windows."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from kernel_calls import needs_library
from operators import WINDOWED
from shapes import WINDOWS
from torch import Tensor

import fastdraw
from fastdraw import env, reference
from fastdraw.kernels import cpu
from fastdraw.ops.read import memory_format
from fastdraw.testing import error

# The interpreter runs a tile in milliseconds; half the side still makes many of them.
IMAGE_SIZE = (49, 115) if env.triton_interpreted() else (97, 230)
HEIGHT, WIDTH = (45, 41) if env.triton_interpreted() else (90, 82)

#: (g~x, g~y, log sigma^2, log delta~, log gamma), beside those of every image, each with what it is there for.
FAR_WINDOWS = [
    (0.2, -0.1, 2.0, -2.0, 0.3),  # an ordinary window, a seventh of the image
    (0.0, 0.0, -4.0, 0.0, 0.0),  # sigma far below the stride: filters see a pixel each, and nothing between
    (0.1, 0.0, 1.5, -0.5, 0.0),  # filters that nearly touch each other
    (1.05, 0.9, 3.0, -2.0, 0.0),  # partly outside
    (-1.2, 1.3, 5.0, -3.0, 0.0),  # wholly outside
    (0.01, 0.02, 1.0, -7.0, 0.0),  # zoomed in: all filters within a few pixels
    (0.0, -0.3, 11.0, -1.0, 0.0),  # sigma as wide as the image
]


@pytest.mark.levels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["read", "write"])
@pytest.mark.parametrize("values", [*WINDOWS, *FAR_WINDOWS])
def test_windows_on_a_large_image(backend: str, device: str, values: tuple[float, ...], name: str, dtype: torch.dtype) -> None:
    params = torch.tensor([values], dtype=torch.float64).clamp(-3e38, 3e38)
    WINDOWED[name](1, 2, *IMAGE_SIZE, 7, params=params).prove(dtype, device)


@pytest.mark.levels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sides", [(80, 71), (9, 12)])
@pytest.mark.parametrize("name", ["read", "write"])
def test_several_windows(backend: str, device: str, name: str, sides: tuple[int, int], dtype: torch.dtype) -> None:
    params = torch.randn(2, 3, 5, dtype=torch.float64) * torch.tensor([0.5, 0.5, 1.0, 0.5, 0.5])
    WINDOWED[name](2, 2, *sides, 4, 3, params=params).prove(dtype, device)


@pytest.mark.levels
def test_several_windows_are_those_windows(backend: str, device: str) -> None:
    """The specification of [B, K, 5], in its own words."""
    image = torch.rand(2, 3, HEIGHT, WIDTH, dtype=torch.float64, device=device)
    params = torch.randn(2, 4, 5, dtype=torch.float64, device=device)
    patches = fastdraw.read(image, params, 5)
    assert patches.shape == (2, 4, 3, 5, 5)
    for k in range(4):
        torch.testing.assert_close(patches[:, k], fastdraw.read(image, params[:, k], 5))
    parts = [fastdraw.write(patches[:, k], params[:, k], (33, 44)) for k in range(4)]
    torch.testing.assert_close(fastdraw.write(patches, params, (33, 44)), torch.stack(parts).sum(0))


@needs_library
@pytest.mark.levels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_many_windows(dtype: torch.dtype) -> None:
    """As many as make a task each, narrow and wide ones side by side: a window's neighbours in a task leave nothing behind."""
    values = torch.tensor([*WINDOWS, *FAR_WINDOWS], dtype=torch.float64).clamp(-3e38, 3e38)
    order = torch.randperm(4 * len(values)) % len(values)
    with fastdraw.backend("native"):
        WINDOWED["read"](4, 2, *IMAGE_SIZE, 7, len(values), params=values[order].view(4, len(values), 5)).prove(dtype, "cpu")


@needs_library
@pytest.mark.parametrize("kind", [torch.float32, torch.uint8, torch.bfloat16])
@pytest.mark.parametrize("kept", [False, True])
def test_many_windows_are_the_same_bits_alone_and_by_any_number_of_threads(kind: torch.dtype, kept: bool) -> None:
    """Sixteen windows are a task each, and so is any of them among sixteen others. Some are NaN, which only they show."""
    image = (torch.rand(4, 3, 230, 240) * 255).to(kind)
    params = torch.randn(4, 10, 7) * 0.5 + torch.tensor([0, 0, 2, 2, -1, -1, 0])
    params[1, 3, 0] = params[2, 7, 5] = torch.nan
    grad = torch.randn(4, 10, 3, 9, 6).to(torch.float32 if kind == torch.uint8 else kind)

    def both(windows: Tensor, grads: Tensor) -> tuple[Tensor, Tensor]:
        keep = cpu.keeps(image, windows, (9, 6)) if kept else None
        assert (keep is not None) == kept
        patch = cpu.read(image, windows, (9, 6), 1, keep)
        return patch, cpu.read_backward(grads, image, windows, 1, False, kept=keep)[1]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        patch, grad_params = both(params, grad)
        torch.set_num_threads(2)
        others = both(params, grad)
        # Every second window: others beside it.
        halves = both(params[:, ::2].contiguous(), grad[:, ::2].contiguous())
    finally:
        torch.set_num_threads(before)
    for one, other, half in zip((patch, grad_params), others, halves, strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(half, one[:, ::2], rtol=0, atol=0, equal_nan=True)
    shows = patch.isnan().flatten(2).any(2)
    assert shows.nonzero().tolist() == [[1, 3], [2, 7]]


@pytest.mark.levels
@pytest.mark.parametrize("shape", [(0, 2, 3), (2, 0, 3), (2, 2, 0)])
def test_nothing_to_read(backend: str, device: str, shape: tuple[int, int, int]) -> None:
    batch, several, channels = shape
    image = torch.rand(batch, channels, 6, 7, device=device).requires_grad_()
    params = torch.randn(batch, several, 5, device=device).requires_grad_()
    patches = fastdraw.read(image, params, 3)
    drawn = fastdraw.write(patches, params, (5, 4))
    assert patches.shape == (batch, several, channels, 3, 3)
    assert torch.equal(drawn, torch.zeros(batch, channels, 5, 4, device=device))
    assert fastdraw.reference.read(image, params, 3).shape == patches.shape
    assert fastdraw.reference.write(patches, params, (5, 4)).shape == drawn.shape
    (patches.sum() + drawn.sum()).backward()
    assert torch.equal(params.grad, torch.zeros_like(params))
    assert torch.equal(image.grad, torch.zeros_like(image))


@pytest.mark.levels
@pytest.mark.parametrize("layout", ["channels last", "rows of a wider image", "transposed", "every other pixel"])
def test_images_of_any_strides(backend: str, device: str, layout: str) -> None:
    plain = torch.rand(2, 3, HEIGHT, WIDTH, device=device)
    image = {
        "channels last": lambda: plain.to(memory_format=torch.channels_last),
        "rows of a wider image": lambda: torch.cat([plain, plain], 3)[..., :WIDTH],
        "transposed": lambda: plain.mT.contiguous().mT,
        "every other pixel": lambda: plain.repeat_interleave(2, 3)[..., ::2],
    }[layout]()
    assert torch.equal(image, plain)
    assert not image.is_contiguous()
    params = torch.tensor([[0.1, -0.2, 1.0, -1.0, 0.2], [0.6, 0.1, 3.0, -2.0, 0.0]], device=device)
    weights = torch.randn(2, 3, 6, 6, device=device)

    def results(source: Tensor, drawn_grad: Tensor) -> list[Tensor]:
        leaves = source.detach().requires_grad_(), params.clone().requires_grad_(), weights.clone().requires_grad_()
        patch, drawn = fastdraw.read(leaves[0], leaves[1], 6), fastdraw.write(leaves[2], leaves[1], (HEIGHT, WIDTH))
        return [patch, drawn, *torch.autograd.grad([patch, drawn], leaves, [weights, drawn_grad])]

    actual, expected = results(image, image), results(plain, plain)
    torch.testing.assert_close(actual, expected)
    if layout == "channels last":
        assert actual[2].stride() == image.stride()


@needs_library
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_what_no_window_sees_is_not_loaded(memory_format: torch.memory_format) -> None:
    """NaN everywhere but where pixels weigh more than rounding does, within 6.4 sigma of a filter."""
    size, sigma, delta = 8, 3.0, 3.0
    height, width, centre_y, centre_x = 400, 300, 210, 120
    reach = math.ceil(3.5 * delta + 6.4 * sigma)
    params = torch.tensor(
        [[2 * (centre_x + 1) / (width + 1) - 1, 2 * (centre_y + 1) / (height + 1) - 1, 2 * math.log(sigma),
          math.log(delta * (size - 1) / (height - 1)), 0.0]]
    )  # fmt: skip
    clean = torch.rand(1, 2, height, width)
    image = torch.full_like(clean, float("nan"))
    seen = (..., slice(centre_y - reach, centre_y + reach + 1), slice(centre_x - reach, centre_x + reach + 1))
    image[seen] = clean[seen]
    image = image.to(memory_format=memory_format)
    patch, grad = cpu.read(image, params, (size, size), 1), torch.randn(1, 2, size, size)
    assert torch.equal(patch, cpu.read(clean, params, (size, size), 1))
    torch.testing.assert_close(patch, reference.read(clean, params, size))
    read_params = cpu.read_backward(grad, image, params, 1, False)[1]
    write_patch, write_params = cpu.write_backward(image, grad, params, -1)
    assert all(t.isfinite().all() for t in (read_params, write_patch, write_params))
    drawn = cpu.write(grad, params, height, width, -1, memory_format)
    assert (drawn[seen] != 0).any()
    drawn[seen] = 0
    assert not drawn.any()


@pytest.mark.levels
def test_the_smallest_weights_make_the_gradient_of_a_sharp_window(backend: str, device: str) -> None:
    """Sigma of 0.14 pixels: the pixel beside the filter's weighs 1e-12, and is all that the window's gradient is made of."""
    image = torch.randn(1, 2, 99, 101, dtype=torch.float64)
    params = torch.tensor([[0.0, 0.0, -4.0, 0.0, 0.0]], dtype=torch.float64).requires_grad_()
    (exact,) = torch.autograd.grad(reference.read(image, params, 1).sum(), params)
    low = params.detach().float().to(device).requires_grad_()
    (grad,) = torch.autograd.grad(fastdraw.read(image.float().to(device), low, 1).sum(), low)
    assert (exact[0, :3] != 0).all()
    torch.testing.assert_close(grad.cpu().double()[0, :3], exact[0, :3], rtol=1e-4, atol=0)


@needs_library
def test_bands_that_lie_apart_leave_out_what_is_between() -> None:
    """Sigma far below the stride: every filter sees its pixel, and those up to the next are not loaded."""
    image = torch.full((1, 1, 901, 1001), float("nan"))
    params = torch.tensor([[0.0, 0.0, -8.0, 0.0, 0.0]])
    # delta = 1000 / 8 = 125 on both axes: the window is square and the image is not.
    rows, columns = (450 + 125 * torch.arange(-4, 5)).clamp(0, 900), torch.arange(0, 1001, 125)
    for row in rows:
        image[0, 0, row, columns] = row + columns / 1000
    patch = cpu.read(image, params, (9, 9), 1)
    torch.testing.assert_close(patch[0, 0], rows[:, None] + columns / 1000)


@needs_library
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_as_torch_does(dtype: torch.dtype) -> None:
    """Every finite number of 16 bits is read."""
    image = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype).view(1, 1, 256, 256)
    image = torch.where(image.isfinite(), image, 1.0).to(dtype)
    params = torch.tensor([[0.0, 0.0, -20.0, 0.0, 0.0]])
    size = 256
    assert torch.equal(cpu.read(image, params, (size, size), 1), cpu.read(image.float(), params, (size, size), 1).to(dtype))
    torch.testing.assert_close(cpu.read(image, params, (size, size), 1), image, rtol=1e-2, atol=0)


@needs_library
def test_infinite_half_precision_shows() -> None:
    image = torch.zeros(2, 1, 70, 70, dtype=torch.float16)
    image[0, 0, 34, 34], image[1, 0, 34, 34] = float("inf"), float("nan")
    params = torch.tensor([[0.0, 0.0, -2.0, -3.0, 0.0]]).repeat(2, 1)
    patch = cpu.read(image, params, (3, 3), 1)
    assert patch[0].isposinf().any()
    assert patch[1].isnan().any()


@needs_library
@pytest.mark.parametrize("shape", [(1030, 1, 66, 65, 2), (40, 1, 300, 300, 128)])
def test_waves_of_images(shape: tuple[int, ...]) -> None:
    """More windows, or wider filters, than are made at once."""
    batch, channels, height, width, size = shape
    image, params = torch.randn(batch, channels, height, width), torch.randn(batch, 5) + torch.tensor([0, 0, 4.0, 0, 0])
    patch = torch.randn(batch, channels, size, size)
    grads = cpu.read_backward(patch, image, params, 1, True)
    picked = [0, batch // 2, batch - 3, batch - 1]
    exact = [t[picked].double() for t in (image, params, patch)]
    leaves = [t.requires_grad_() for t in exact[:2]]
    read = reference.read(*leaves, size)
    assert error(cpu.read(image, params, (size, size), 1)[picked], read) < 1e-5
    for grad, value in zip(grads, torch.autograd.grad(read, leaves, exact[2]), strict=True):
        assert error(grad[picked], value) < 1e-5


@needs_library
def test_more_numbers_than_32_bits_count(tmp_path: Path) -> None:
    """An image of 2.6e9 pixels in a file with holes: only what the window sees is ever read from it."""
    height, width = 65_536, 40_000
    pixels = torch.from_file(str(tmp_path / "image"), shared=True, size=height * width, dtype=torch.bfloat16)
    image = pixels.view(1, 1, height, width)
    clean = torch.rand(40, 40).bfloat16()
    image[0, 0, -40:, -40:] = clean
    centre = torch.tensor([width - 12.0, height - 13.0])
    g = 2 * (centre + 1) / (torch.tensor([width, height]) + 1) - 1
    params = torch.tensor([[*g.double(), 0.5, math.log(2 * 3 / (height - 1)), 0.3]], dtype=torch.float32)
    # The reference sees the corner alone, and the same window there.
    small = torch.tensor([[2 * (28 + 1) / 41 - 1, 2 * (27 + 1) / 41 - 1, 0.5, math.log(2 * 3 / 39), 0.3]])
    grad = torch.randn(1, 1, 4, 4).bfloat16()
    moved = reference.window(params.double(), 4, (height, width))
    # float32 counts so many pixels to a few thousandths.
    assert abs(float(moved.centre_y) - float(centre[1])) < 0.01
    expected = reference.read(clean.double()[None, None], small.double(), 4)
    assert error(cpu.read(image, params, (4, 4), 1), expected) < 2e-2
    assert cpu.read_backward(grad, image, params, 1, False)[1].isfinite().all()


def test_the_window_gradient_is_not_made_where_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    kernels = fastdraw.dispatch.kernels(backend, "cpu")

    def made(*_: object) -> Tensor:
        raise AssertionError("a gradient to params was made")

    monkeypatch.setattr(kernels, "read_backward", made)
    monkeypatch.setattr(kernels, "write_backward", made)
    image, patch = torch.rand(1, 1, 9, 9).requires_grad_(), torch.rand(1, 1, 4, 4).requires_grad_()
    params = torch.zeros(1, 5)
    fastdraw.read(image, params, 4).sum().backward()
    fastdraw.write(patch, params, (9, 9)).sum().backward()
    expected = torch.autograd.grad(reference.read(image, params, 4).sum() + reference.write(patch, params, (9, 9)).sum(),
                                   [image, patch])  # fmt: skip
    torch.testing.assert_close([image.grad, patch.grad], list(expected))


@needs_library
def test_memory_follows_the_window_and_not_the_image() -> None:
    """Peak resident memory, over a read of a 200 MB image of which a window sees 2.4 MB, and its gradient."""
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not clear.exists():
        pytest.skip("needs Linux's /proc")

    def resident(field: str) -> int:
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith(field))

    image = torch.rand(1, 1, 512, 4096).expand(1, 3, 512, 4096).repeat(1, 1, 8, 1)
    params = torch.tensor([[0.0, 0.0, 2 * math.log(3.25), math.log(0.1), 0.0]]).requires_grad_()
    clear.write_text("5")
    before = resident("VmRSS")
    with fastdraw.backend("native"):
        fastdraw.read(image, params, 64).sum().backward()
    assert resident("VmHWM") - before < image.nbytes / 10


def test_memory_format_of_the_gradient() -> None:
    image = torch.rand(2, 3, 4, 5)
    assert memory_format(image) == torch.contiguous_format
    assert memory_format(image.to(memory_format=torch.channels_last)) == torch.channels_last
    assert memory_format(image[..., ::2]) == torch.contiguous_format
    # One channel lies either way.
    assert memory_format(image[:, :1].to(memory_format=torch.channels_last)) == torch.contiguous_format


@pytest.mark.levels
def test_rows_longer_than_float32_counts(backend: str, device: str) -> None:
    """The number of the last of 2^24 + 4 pixels is none of float32's."""
    width = 2**24 + 4
    image = torch.zeros(1, 1, 1, width, device=device)
    image[..., -1] = 1
    # A filter of some pixels at the right edge.
    params = torch.tensor([[1.0, 0.0, 2.0, -30.0, 0.0]], device=device)
    assert fastdraw.read(image, params, 1).item() > 0.1
