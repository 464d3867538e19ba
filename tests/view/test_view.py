"""Pictures: sizes, frames, windows at the pixels they stand at, and files that are whole or untouched."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from PIL import Image

from fastdraw import reference, view
from fastdraw.outputs import Trajectory, Window
from fastdraw.view import picture, rectangles, scenes

RED, BLUE = scenes.WRITE, scenes.READ


def fixed_windows(steps: int, n: int, x: float, y: float, delta: float = 2.0, sigma: float = 0.1) -> Window:
    return Window(*(torch.full((steps, n), value) for value in (x, y, delta, sigma, 1.0)))


def trajectory(steps: int = 4, n: int = 3, channels: int = 1, height: int = 12, width: int = 16, **place: float) -> Trajectory:
    """Canvases that change from glimpse to glimpse, so that no frame of a GIF is dropped as a repetition."""
    canvases = torch.linspace(-3, 3, steps).view(-1, 1, 1, 1, 1).expand(steps, n, channels, height, width)
    return Trajectory(canvases, fixed_windows(steps, n, **{"x": 8.0, "y": 6.0, **place}), None)


def frames(path) -> tuple[list[np.ndarray], list[int]]:
    pixels, times = [], []
    with Image.open(path) as image:
        for i in range(image.n_frames):
            image.seek(i)
            times.append(image.info["duration"])
            pixels.append(np.asarray(image.convert("RGB")))
    return pixels, times


def box(pixels: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int, int, int] | None:
    """(left, top, right, bottom) of all pixels of exactly this colour, the last two inclusive."""
    rows, columns = np.nonzero((pixels == colour).all(-1))
    return (columns.min(), rows.min(), columns.max(), rows.max()) if len(rows) else None


@pytest.mark.parametrize("channels", [1, 3])
def test_grid_holds_every_pixel(tmp_path, channels):
    images = torch.rand(5, channels, 4, 6)
    view.save_grid(images, tmp_path / "grid.png", columns=2, scale=3, padding=2)
    pixels = np.asarray(Image.open(tmp_path / "grid.png"))
    # Three rows of two, the last place empty.
    assert pixels.shape == (3 * (12 + 2) + 2, 2 * (18 + 2) + 2, 3)
    expected = (images * 255).round().byte().permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()
    for i in range(5):
        top, left = 2 + (i // 2) * 14, 2 + (i % 2) * 20
        np.testing.assert_array_equal(pixels[top + 1 : top + 12 : 3, left + 1 : left + 18 : 3], expected[i])
    assert (pixels[2 + 2 * 14 :, 2 + 20 :] == picture.GAP).all()


@pytest.mark.parametrize(
    ("images", "error", "named"),
    [
        (torch.zeros(0, 1, 4, 4), ValueError, "images"),
        (torch.zeros(2, 2, 4, 4), ValueError, "images"),
        (torch.zeros(1, 4, 4), ValueError, "images"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), TypeError, "images"),
        (torch.full((2, 1, 4, 4), 2.0), ValueError, "images"),
        (torch.full((2, 1, 4, 4), float("nan")), ValueError, "images"),
        ([[0.0]], TypeError, "images"),
    ],
)
def test_grid_refuses_what_is_no_image(tmp_path, images, error, named):
    with pytest.raises(error, match=rf"^{named}: expected "):
        view.save_grid(images, tmp_path / "grid.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("argument", ["columns", "scale"])
def test_grid_refuses_sizes_of_zero(tmp_path, argument):
    with pytest.raises(ValueError, match=f"^{argument}: expected at least 1, got 0"):
        view.save_grid(torch.zeros(1, 1, 4, 4), tmp_path / "grid.png", **{argument: 0})


@pytest.mark.parametrize("channels", [1, 3])
def test_drawing_has_a_frame_a_glimpse_and_the_result(tmp_path, channels):
    view.save_drawing(trajectory(channels=channels), tmp_path / "a.gif", write_size=3, scale=4, padding=2, frame_time=100)
    pixels, times = frames(tmp_path / "a.gif")
    assert times == [100] * 4 + [2000]
    assert all(frame.shape == (2 * (48 + 2) + 2, 2 * (64 + 2) + 2, 3) for frame in pixels)
    for t, frame in enumerate(pixels[:-1]):
        assert box(frame, RED) is not None
        # A corner of the first image, away from the window; a grey is at most half a level of the palette off.
        grey = 255 / (1 + np.exp(-(-3 + 2 * t)))
        np.testing.assert_allclose(frame[2, 2], grey, atol=1.5)
    assert box(pixels[-1], RED) is None


@pytest.mark.parametrize(("steps", "milliseconds"), [(4, 400), (16, 370), (64, 90), (90, 80)])
def test_a_film_takes_about_six_seconds_whatever_the_glimpses(tmp_path, steps, milliseconds):
    view.save_drawing(trajectory(steps), tmp_path / "a.gif", write_size=3, scale=1)
    # Frames that come out alike are one.
    assert sum(frames(tmp_path / "a.gif")[1]) == milliseconds * steps + 2000


def test_many_glimpses_are_thinned_to_the_last(tmp_path):
    view.save_drawing(trajectory(steps=50), tmp_path / "a.gif", write_size=3, scale=1, max_frames=7)
    pixels, times = frames(tmp_path / "a.gif")
    assert len(times) == 7 + 1
    # The last glimpse before the result: same canvas, with the window on it.
    assert (pixels[-2][5, 5] == pixels[-1][5, 5]).all()
    assert scenes.evenly(50, 7)[0] == 0
    assert scenes.evenly(50, 7)[-1] == 49
    assert scenes.evenly(3, 7) == [0, 1, 2]
    assert scenes.evenly(50, 1) == [49]


def test_rectangle_stands_round_the_filter_centres(tmp_path):
    # Filters at 8 - 2, 8, 8 + 2 across and 6 - 2 .. 6 + 2 down; pixel a is the ten from 10 a on, its centre at 10 a + 5.
    view.save_drawing(trajectory(n=1), tmp_path / "a.gif", write_size=3, scale=10, padding=0)
    pixels, _ = frames(tmp_path / "a.gif")
    left, top, right, bottom = box(pixels[0], RED)
    np.testing.assert_allclose([left, right, top, bottom], [65, 105, 45, 85], atol=1)
    red = (pixels[0] == RED).all(-1)
    assert red.sum() == 2 * (right - left + 1) + 2 * (bottom - top + 1) - 4
    assert not red[top + 1 : bottom, left + 1 : right].any()


@pytest.mark.parametrize(("sigma", "pixels"), [(0.0, 1), (0.01, 1), (0.2, 2), (0.5, 5), (1.0, 10), (1e30, 15)])
def test_line_is_as_wide_as_sigma(sigma, pixels):
    # 10 times enlarged; never more than an eighth of the shorter side.
    mask = rectangles.outline(np.array([8.0, 6.0, 3.0, sigma]), 12, 16, 10)
    across = np.flatnonzero(mask[65])
    assert len(across) == 2 * pixels
    assert (across[pixels] - across[0]) == pytest.approx(60, abs=1)


@pytest.mark.parametrize("field", range(4))
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300, -1e300])
def test_no_window_makes_drawing_fail(field, value):
    window = np.array([8.0, 6.0, 3.0, 0.5])
    window[field] = value
    mask = rectangles.outline(window, 12, 16, 3)
    assert mask.shape == (36, 48)
    # Wholly outside, or not finite: nothing. A vast window or line is drawn as far as there is image.
    assert mask.any() == (np.isfinite(value) and (field == 3 or (field == 2 and value > 0)))


def test_read_windows_are_blue_and_below(tmp_path):
    for x, name in ((4.0, "apart.gif"), (8.0, "same.gif")):
        both = trajectory(n=1)._replace(read_windows=fixed_windows(4, 1, x, 6.0))
        view.save_drawing(both, tmp_path / name, write_size=3, read_size=3, scale=10, padding=0)
    apart, same = (frames(tmp_path / name)[0][0] for name in ("apart.gif", "same.gif"))
    assert box(apart, BLUE)[0] == pytest.approx(25, abs=1)
    assert box(same, RED) == box(apart, RED)
    assert box(same, BLUE) is None


def test_window_of_the_specification(tmp_path):
    """Params of zero are a window that spans the image: centres of its outermost filters on the outermost pixels."""
    w = reference.window(torch.zeros(1, 5), 5, (28, 28))
    t = Trajectory(torch.zeros(1, 1, 1, 28, 28), Window(*(field[None] for field in w)), None)
    view.save_drawing(t, tmp_path / "a.gif", write_size=5, scale=4, padding=0)
    pixels, _ = frames(tmp_path / "a.gif")
    # The line runs through the outermost pixels' middles, in a band four pixels wide (sigma is one) along the border of 112.
    assert box(pixels[0], RED) == (2, 2, 110, 110)
    banded = (np.abs(pixels[0].astype(int) - (np.array(RED) + 128) // 2) <= 1).all(-1) | (pixels[0] == RED).all(-1)
    assert banded[:4].all()
    assert not banded[4:-4, 4:-4].any()


@pytest.mark.parametrize("attention", [True, False])
def test_what_the_model_gives(tmp_path, attention):
    size = 2 if attention else None
    model = reference.DRAW((1, 8, 8), glimpses=3, hidden_size=4, latent_size=2, read_size=size, write_size=size)
    _, drawn = model.sample(4, return_trajectory=True)
    view.save_drawing(drawn, tmp_path / "a.gif", write_size=size)
    _, read = model.reconstruct(torch.rand(2, 1, 8, 8), return_trajectory=True)
    view.save_drawing(read, tmp_path / "b.gif", write_size=size, read_size=size)
    # The windows of a new model lie on one another: the read window alone.
    view.save_strip(read._replace(write_windows=None), tmp_path / "c.png", read_size=size)
    assert (box(frames(tmp_path / "a.gif")[0][0], RED) is not None) == attention
    assert (box(np.asarray(Image.open(tmp_path / "c.png")), BLUE) is not None) == attention


@pytest.mark.parametrize(
    ("change", "arguments", "named"),
    [
        ({}, {}, "write_size"),
        ({"read_windows": fixed_windows(4, 3, 1.0, 1.0)}, {"write_size": 3}, "read_size"),
        ({"write_windows": fixed_windows(4, 2, 1.0, 1.0)}, {"write_size": 3}, "write_windows.centre_x"),
        ({"canvases": torch.zeros(4, 3, 12, 16)}, {"write_size": 3}, "canvases"),
        ({"canvases": torch.zeros(0, 3, 1, 12, 16)}, {"write_size": 3}, "canvases"),
        ({"canvases": torch.full((4, 3, 1, 12, 16), float("nan"))}, {"write_size": 3}, "canvases"),
        ({}, {"write_size": 3, "max_frames": 0}, "max_frames"),
        ({}, {"write_size": 3, "frame_time": 0}, "frame_time"),
    ],
)
def test_drawing_names_what_is_wrong(tmp_path, change, arguments, named):
    with pytest.raises(ValueError, match=rf"^{named}: expected "):
        view.save_drawing(trajectory()._replace(**change), tmp_path / "a.gif", **arguments)
    assert not list(tmp_path.iterdir())


def test_strip_has_a_row_an_image(tmp_path):
    view.save_strip(trajectory(steps=20), tmp_path / "s.png", write_size=3, glimpses=5, scale=2, padding=1)
    pixels = np.asarray(Image.open(tmp_path / "s.png"))
    assert pixels.shape == (3 * (24 + 1) + 1, (5 + 1) * (32 + 1) + 1, 3)
    red = (pixels == RED).all(-1)
    # In each column but the last, which is the finished image.
    assert [red[:, i * 33 : (i + 1) * 33].any() for i in range(6)] == [True] * 5 + [False]
    # From dark to light, left to right.
    assert (np.diff(pixels[1, 1 : 5 * 33 : 33, 0].astype(int)) > 0).all()


def test_strip_of_chosen_glimpses(tmp_path):
    view.save_strip(trajectory(), tmp_path / "s.png", write_size=3, glimpses=[3, 0], scale=1, padding=0)
    pixels = np.asarray(Image.open(tmp_path / "s.png"))
    assert pixels.shape == (3 * 12, 3 * 16, 3)
    assert pixels[0, 0, 0] > pixels[0, 16, 0]
    for wrong in ([], [4], [-1]):
        with pytest.raises(ValueError, match=r"^glimpses: expected "):
            view.save_strip(trajectory(), tmp_path / "t.png", write_size=3, glimpses=wrong)


SAVERS = {
    "grid.png": lambda path: view.save_grid(torch.rand(2, 1, 4, 4), path),
    "drawing.gif": lambda path: view.save_drawing(trajectory(), path, write_size=3),
    "strip.png": lambda path: view.save_strip(trajectory(), path, write_size=3),
}


@pytest.mark.parametrize("name", SAVERS)
def test_files_are_whole_or_the_old_ones(tmp_path, no_space, name):
    (tmp_path / name).write_bytes(b"old")
    SAVERS[name](tmp_path / name)
    new = (tmp_path / name).read_bytes()
    assert Image.open(tmp_path / name).format == name[-3:].upper()
    no_space()
    with pytest.raises(OSError, match="No space left"):
        SAVERS[name](tmp_path / name)
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == new


def test_missing_folder_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        view.save_grid(torch.zeros(1, 1, 4, 4), tmp_path / "nowhere" / "grid.png")


def test_without_pillow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(ModuleNotFoundError, match=r'PIL.*pip install "fastdraw-torch\[train\]"') as caught:
        view.save_grid(torch.zeros(1, 1, 4, 4), tmp_path / "grid.png")
    assert caught.value.name == "PIL"
