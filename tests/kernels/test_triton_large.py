"""The Triton kernels of read and write where there is more than one program holds, called directly: images of many tiles,
several windows, patches of many filters, and more numbers than 32 bits count.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from operators import moderate_params
from torch import Tensor
from triton_calls import DEVICE, check

from fastdraw import env
from fastdraw.kernels import triton as kernels
from fastdraw.kernels.triton import launch, tables
from fastdraw.kernels.triton.filterbank import filterbank_grad_launch, filterbank_launch
from fastdraw.kernels.triton.read import read_launch
from fastdraw.kernels.triton.window_grad import window_grad_launch
from fastdraw.kernels.triton.write import write_launch
from fastdraw.testing import TOLERANCE, error
from fastdraw.testing import check as check_rule

#: As WINDOWS, for images of many tiles.
FAR_WINDOWS = [
    (0.2, -0.1, 0.0, -2.0, 0.3),  # an ordinary window, a seventh of the image
    (0.0, 0.0, -4.0, 0.0, 0.0),  # sigma far below the stride: tiles between filters
    (1.05, 0.9, 2.0, -2.0, 0.0),  # partly outside
    (-1.5, 1.4, 5.0, -3.0, 0.0),  # wholly outside: rows fall as exponentials
    (0.01, 0.02, 1.0, -7.0, 0.0),  # zoomed in: all filters within a pixel
    (0.0, -0.3, 9.0, -1.0, 0.0),  # sigma as wide as the image
]


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles of 16 x 16, so that a small image has many."""
    small = {kind: tuple(row._replace(side=16) for row in rows) for kind, rows in tables.WINDOW_ROWS.items()}
    monkeypatch.setattr(tables, "WINDOW_ROWS", small)


@pytest.fixture(params=[1, 2, 5], ids=lambda parts: f"{parts} parts")
def parts(request, monkeypatch):
    """Programs that share a patch: fewer than an image of 33 rows has rows of tiles, and more."""
    monkeypatch.setattr(tables, "SPLIT_PIXELS", 0 if request.param > 1 else 2**40)
    # The tests' patches are two, channels counted.
    monkeypatch.setattr(tables, "SPLIT_PROGRAMS", 2 * request.param)
    return request.param


@pytest.mark.parametrize("row", FAR_WINDOWS, ids=str)
def test_windows_of_images_of_many_tiles(row, parts, small_tiles):
    dtype = torch.float64 if parts == 2 else torch.float32
    check((1, 2, 33, 50, 3), torch.tensor([row], dtype=torch.float64), -1, dtype, dtype)


def test_parts_are_summed_in_float32(parts, small_tiles):
    check((2, 1, 33, 40, 17), moderate_params(2), 1, torch.bfloat16, torch.float32)


def test_what_no_window_sees_is_not_loaded(parts, small_tiles):
    """NaN everywhere but in the tiles that the window touches; what is written outside of them is zero."""
    size, sigma, delta, height, width = 3, 1.0, 2.0, 128, 112
    # Filters at 70, 72, 74 and 38, 40, 42: seen are at most sqrt(40) + 1 < 8 pixels more.
    window = (2 * 41 / (width + 1) - 1, 2 * 73 / (height + 1) - 1, 2 * math.log(sigma))
    params = torch.tensor([[*window, math.log(delta * (size - 1) / (height - 1)), 0.0]], device=DEVICE)
    tiles = (..., slice(48, 96), slice(16, 64))
    clean = torch.rand(1, 2, height, width, device=DEVICE)
    image = torch.full_like(clean, torch.nan)
    image[tiles] = clean[tiles]
    patch = torch.randn(1, 2, size, size, device=DEVICE)

    def results(image: Tensor) -> list[Tensor]:
        return [kernels.read(image, params, (size, size), 1), *kernels.write_backward(image, patch, params, -1)]

    assert all(torch.equal(a, e) for a, e in zip(results(image), results(clean), strict=True))
    drawn = kernels.write(patch, params, height, width, -1)
    assert drawn[tiles].any()
    drawn[tiles] = 0
    assert not drawn.any()


@pytest.mark.parametrize("column", range(5))
def test_nan_in_params_shows_in_every_pixel(column, small_tiles):
    params = torch.tensor([[0.0, 0.0, -2.0, -3.0, 0.0]], device=DEVICE)
    params[0, column] = torch.nan
    patch, image = torch.ones(1, 1, 3, 3, device=DEVICE), torch.ones(1, 1, 40, 50, device=DEVICE)
    assert kernels.write(patch, params, 40, 50, -1).isnan().all()
    assert kernels.read(image, params, (3, 3), 1).isnan().all()


@pytest.fixture
def few_filters(monkeypatch):
    """At most 16 filters a program and tiles of 16 x 16, so that a small patch has many programs."""
    few = {kind: tuple(row._replace(side=16) for row in rows if row.size <= 16) for kind, rows in tables.WINDOW_ROWS.items()}
    monkeypatch.setattr(tables, "WINDOW_ROWS", few)


@pytest.mark.parametrize("row", [FAR_WINDOWS[i] for i in (0, 1, 4, 5)], ids=str)
def test_tiles_of_patches(row, few_filters):
    assert tables.patch_tiles("read", 20, torch.float32, "ieee") == 4
    assert tables.patch_tiles("window_grad", 20, torch.float64, "ieee") == 25
    dtype = torch.float64 if row[3] == -7 else torch.float32
    check((1, 1, 20, 40, 20), torch.tensor([row], dtype=torch.float64), -1, dtype, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_tiles_of_patches_and_parts_of_images(dtype, few_filters, monkeypatch):
    monkeypatch.setattr(tables, "SPLIT_PIXELS", 0)
    # Two channels of four tiles of a patch, and three programs for each.
    monkeypatch.setattr(tables, "SPLIT_PROGRAMS", 24)
    check((1, 2, 20, 40, 17), moderate_params(1), 1, dtype, torch.float32)


#: One over what one program holds of each kernel.
@pytest.mark.parametrize(
    ("size", "dtype"),
    [
        (33, torch.float32),
        (65, torch.float32),
        pytest.param(65, torch.bfloat16, marks=pytest.mark.compiled),
        (9, torch.float64),
        (33, torch.float64),
    ],
)
def test_more_filters_than_registers_hold(size, dtype):
    check((1, 2, 11, 40, size), moderate_params(1), -1, dtype, dtype)


def several(size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Images, patches and params of two windows each."""
    image = torch.randn(2, 2, 17, 20, device=DEVICE).to(dtype)
    patch = torch.randn(2, 2, 2, size, size, device=DEVICE).to(dtype)
    return image, patch, moderate_params(4).view(2, 2, 5).float().to(DEVICE)


@pytest.mark.parametrize(("size", "dtype"), [(3, torch.bfloat16), (17, torch.float32)])
def test_several_windows_of_images_of_any_strides(size, dtype, few_filters):
    """Each as it is alone, and their images summed; images channels last are taken and given as they lie."""
    image, patch, params = several(size, dtype)
    apart = image.to(memory_format=torch.channels_last)
    read = kernels.read(apart, params, (size, size), 1)
    drawn = kernels.write(patch, params, 17, 20, -1, torch.channels_last)
    assert drawn.is_contiguous(memory_format=torch.channels_last)
    assert error(drawn, kernels.write(patch, params, 17, 20, -1)) < TOLERANCE[dtype]
    grads = kernels.write_backward(apart, patch, params, -1)
    kept, params_only = kernels.write_backward(apart, patch, params, -1, need_patch=False)
    assert kept is None
    assert error(params_only, grads[1]) < 1e-5
    total = torch.zeros_like(image, dtype=torch.float32)
    for k in range(2):
        one, part = params[:, k].contiguous(), patch[:, k].contiguous()
        assert error(read[:, k], kernels.read(image, one, (size, size), 1)) < TOLERANCE[dtype]
        for grad, alone in zip(grads, kernels.write_backward(image, part, one, -1), strict=True):
            assert error(grad[:, k], alone) < TOLERANCE[grad.dtype]
        total += kernels.write(part.float(), one, 17, 20, -1)
    check_rule([drawn], [total], [[total.to(dtype)]], dtype)


def test_one_window_of_several_that_no_other_sees(small_tiles):
    """The first is stored with zeros around it; the next are added where they see something, and nowhere else."""
    patch = torch.ones(1, 3, 1, 2, 2, device=DEVICE)
    corners = torch.tensor([[-0.9, -0.9], [0.9, 0.9], [0.9, 0.9]])
    params = torch.cat([corners, torch.tensor([-2.0, -5.0, 0.0]).expand(3, 3)], 1)[None].to(DEVICE)
    drawn = kernels.write(patch, params, 60, 70, -1)
    assert not drawn[..., 16:48, :].any()
    alone = [kernels.write(patch[:, k], params[:, k].contiguous(), 60, 70, -1) for k in (0, 1)]
    torch.testing.assert_close(drawn, alone[0] + 2 * alone[1])


#: Elements from one image, channel or row to another: more than 32 bits count, and within the memory if they were cut off.
FAR = 2**32 + 4096
#: (shape, strides) of images whose last pixels are so far away.
FAR_IMAGES = {
    "images": ((2, 1, 20, 24), (FAR, 480, 24, 1)),
    "channels": ((1, 2, 20, 24), (960, FAR, 24, 1)),
    "rows": ((1, 1, 270, 24), (1, 1, 2**24 - 64, 1)),
    # Further apart than kernels take: these are copied.
    "pixels": ((1, 1, 20, 80), (1, 1, 1, 2**25)),
}


@pytest.fixture
def far_offsets(monkeypatch):
    """Triton's interpreter looks for sums and products that 32 bits do not hold; and it does not copy every tensor onto itself
    after a launch, all 8 GB of it."""
    if env.triton_interpreted():
        from triton.runtime import interpreter

        monkeypatch.setattr(interpreter.interpreter_builder, "options", interpreter.InterpreterOptions(debug=True))
        monkeypatch.setattr(interpreter.GridExecutor, "_restore_args_dev", lambda *_: None)


def far_memory(elements: int, dtype: torch.dtype, file: Path) -> Tensor:
    """Of a GPU, or a file with holes, of which only what is touched takes any."""
    if DEVICE == "cpu":
        return torch.from_file(str(file), shared=True, size=elements, dtype=dtype)
    if torch.cuda.mem_get_info()[0] < 3 * elements * dtype.itemsize:
        pytest.skip("needs more of the GPU's memory")
    return torch.zeros(elements, dtype=dtype, device=DEVICE)


@pytest.mark.parametrize("axis", FAR_IMAGES)
def test_images_of_more_pixels_than_32_bits_count(axis, far_offsets, small_tiles, tmp_path):
    shape, strides = FAR_IMAGES[axis]
    last = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    far = far_memory(last + 1, torch.bfloat16, tmp_path / "image").as_strided(shape, strides)
    image = torch.randn(shape, device=DEVICE).bfloat16()
    patch, params = torch.randn(*shape[:2], 3, 3, device=DEVICE).bfloat16(), torch.zeros(shape[0], 5, device=DEVICE)
    far.copy_(image)
    assert (launch.near(far) is far) == (axis != "pixels")

    def results(image: Tensor) -> list[Tensor]:
        return [kernels.read(image, params, (3, 3), 1), *kernels.write_backward(image, patch, params, -1)]

    assert all(error(a, e) < TOLERANCE[a.dtype] for a, e in zip(results(far), results(image), strict=True))
    if axis != "pixels":
        launch.run(write_launch(patch, params, far, -1, "tf32"))
        assert error(far, kernels.write(patch, params, *shape[2:], -1)) < TOLERANCE[far.dtype]


@pytest.fixture
def run_last(far_offsets, monkeypatch):
    """Runs the programs of a launch's last image alone, of so many images."""
    if not env.triton_interpreted():
        pytest.skip("only the interpreter leaves out programs")
    from triton.runtime import interpreter

    builder = interpreter.interpreter_builder
    set_place = builder.set_grid_idx

    def run(one: launch.Launch, images: int) -> None:
        own = one.grid[0] // images

        def last(x: int, y: int, z: int) -> None:
            builder.grid_idx = (x + one.grid[0] - own, y, z)

        monkeypatch.setattr(builder, "set_grid_idx", last)
        launch.run(one._replace(grid=(own, *one.grid[1:])))
        monkeypatch.setattr(builder, "set_grid_idx", set_place)

    return run


@pytest.fixture
def far_rows(tmp_path):
    """Tensors [B, ...] of which only the last row is ever touched."""
    return lambda dtype, *shape: far_memory(math.prod(shape), dtype, tmp_path / str(len(list(tmp_path.iterdir())))).view(shape)


def test_patches_of_more_numbers_than_32_bits_count(run_last, far_rows):
    batch, size = 2**20 + 1, 64
    patch, params = far_rows(torch.bfloat16, batch, 1, size, size), far_rows(torch.float32, batch, 5)
    image, window = torch.randn(1, 1, 9, 14).bfloat16(), moderate_params(1).float()
    params[-1] = window[0]
    images = image.expand(batch, 1, 9, 14)
    run_last(read_launch(images, params, patch, 1, "tf32"), batch)
    assert torch.equal(patch[-1:], kernels.read(image, window, (size, size), 1))
    grads, drawn = far_rows(torch.float32, batch, 5), far_rows(torch.bfloat16, batch, 1, 9, 14)
    run_last(window_grad_launch(patch, images, params, grads, None, 1, "tf32"), batch)
    assert torch.equal(grads[-1:], kernels.read_backward(patch[-1:], image, window, 1, False)[1])
    run_last(write_launch(patch, params, drawn, -1, "tf32"), batch)
    assert torch.equal(drawn[-1:], kernels.write(patch[-1:], window, 9, 14, -1))


def test_filterbanks_of_more_numbers_than_32_bits_count(run_last, far_rows):
    batch, size, height, width = 2**20 + 1, 32, 80, 3
    params, window = far_rows(torch.float32, batch, 5), moderate_params(1).float()
    params[-1] = window[0]
    y, x = far_rows(torch.float32, batch, size, height), far_rows(torch.float32, batch, size, width)
    gamma, grads = far_rows(torch.float32, batch), far_rows(torch.float32, batch, 5)
    run_last(filterbank_launch(params, y, x, gamma), batch)
    banks = kernels.filterbank(window, (size, size), height, width)
    assert all(torch.equal(far[-1:], bank) for far, bank in zip((y, x, gamma), banks, strict=True))
    run_last(filterbank_grad_launch(y, x, gamma, params, grads), batch)
    assert torch.equal(grads[-1:], kernels.filterbank_backward(*banks, window, (size, size), height, width))
