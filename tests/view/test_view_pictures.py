"""Films, pairs, nearest training images, plots and attention paths: what they hold, read back from the files."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

import fastdraw
from fastdraw import view
from fastdraw.outputs import Trajectory, Window
from fastdraw.view import picture, scenes


def windows(steps: int, n: int, x: float = 8.0, y: float = 6.0) -> Window:
    return Window(*(torch.full((steps, n), value) for value in (x, y, 2.0, 0.5, 1.0)))


def trajectory(steps: int = 4, n: int = 3, channels: int = 1) -> Trajectory:
    canvases = torch.linspace(-3, 3, steps).view(-1, 1, 1, 1, 1).expand(steps, n, channels, 13, 17)
    return Trajectory(canvases, windows(steps, n), None)


def film(path: Path) -> tuple[list[np.ndarray], av.VideoStream, float]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return frames, stream, float(container.duration / av.time_base)


def test_mp4_is_what_every_player_plays(tmp_path: Path) -> None:
    # 17 x 13 at scale 3 with a gap of 1: odd sides, which H.264 with 4:2:0 does not know.
    view.save_drawing(trajectory(), tmp_path / "a.mp4", write_size=3, scale=3, padding=1, columns=3, frame_time=100)
    frames, stream, seconds = film(tmp_path / "a.mp4")
    assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    assert frames[0].shape == (42, 158, 3)
    assert seconds == pytest.approx(0.1 * 4 + 0.1 + 2.0, abs=0.11)
    # The index comes before the pictures, so that it plays while it loads.
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_gif_and_mp4_show_the_same(tmp_path: Path) -> None:
    for suffix in ("gif", "mp4"):
        view.save_drawing(trajectory(channels=3), tmp_path / f"a.{suffix}", write_size=3, scale=8)
    frames, _, _ = film(tmp_path / "a.mp4")
    with Image.open(tmp_path / "a.gif") as image:
        for t in range(image.n_frames):
            image.seek(t)
            still = np.asarray(image.convert("RGB")).astype(int)
            assert np.abs(still - frames[t][: still.shape[0], : still.shape[1]]).mean() < 4


def test_a_film_of_another_kind_is_refused(tmp_path: Path) -> None:
    for name in ("a.avi", "a", "gif"):
        with pytest.raises(ValueError, match=r"^path: expected a name that ends in \.gif or \.mp4"):
            view.save_drawing(trajectory(), tmp_path / name, write_size=3)


def test_pairs_stand_side_by_side(tmp_path: Path) -> None:
    left, right = torch.rand(6, 3, 4, 5), torch.rand(6, 3, 4, 5)
    view.save_pairs(left, right, tmp_path / "p.png", scale=1, padding=1)
    pixels = np.asarray(Image.open(tmp_path / "p.png"))
    # Two columns of three, so that no row is left with less.
    assert pixels.shape == (3 * (4 + 1) + 1, 2 * (10 + 1) + 1, 3)
    for i in range(6):
        top, start = 1 + i // 2 * 5, 1 + i % 2 * 11
        both = torch.cat([left[i], right[i]], 2).permute(1, 2, 0)
        np.testing.assert_array_equal(pixels[top : top + 4, start : start + 10], (both * 255).round().byte().numpy())
    with pytest.raises(ValueError, match=r"^others: expected shape \[6, 3, 4, 5\]"):
        view.save_pairs(left, right[:5], tmp_path / "q.png")


def test_nearest_is_what_a_search_through_all_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastdraw.view.neighbours.CHUNK", 64)
    monkeypatch.setattr("fastdraw.view.neighbours.ROWS", 5)
    training = torch.randint(0, 256, (301, 1, 6, 5), dtype=torch.uint8)
    samples = torch.rand(17, 1, 6, 5)
    samples[0] = training[3].float() / 255
    exact = ((samples.double()[:, None] - training.double() / 255) ** 2).flatten(2).sum(2)
    found = view.nearest(samples, training)
    assert found.tolist() == exact.argmin(1).tolist()
    assert found[0] == 3


def test_nearest_tells_neighbours_apart_that_float32_products_do_not() -> None:
    """Bright images, whose squares are large and whose distances differ little."""
    training = torch.full((6, 3, 60, 60), 250, dtype=torch.uint8)
    for i in range(6):
        training[i, 0, 0, : 6 - i] = 249
    samples = torch.full((1, 3, 60, 60), 250 / 255)
    assert view.nearest(samples, training).tolist() == [5]


def test_nearest_names_what_is_wrong() -> None:
    samples = torch.rand(2, 1, 4, 4)
    with pytest.raises(TypeError, match=r"^training: expected a uint8 tensor"):
        view.nearest(samples, samples)
    for shape in ((0, 1, 4, 4), (3, 1, 4, 5), (3, 3, 4, 4)):
        with pytest.raises(ValueError, match=r"^training: expected at least one image"):
            view.nearest(samples, torch.zeros(shape, dtype=torch.uint8))


def test_kl_plot(tmp_path: Path) -> None:
    view.save_kl(torch.rand(5, 9), tmp_path / "kl.png", "some data")
    low = np.asarray(Image.open(tmp_path / "kl.png").convert("RGB"))
    assert low.shape[1] > low.shape[0] > 300
    view.save_kl(torch.full((1, 1), 2.0), tmp_path / "one.png")
    for wrong in (torch.zeros(0, 3), torch.zeros(3), torch.full((2, 2), float("nan"))):
        with pytest.raises(ValueError, match=r"^kl: expected"):
            view.save_kl(wrong, tmp_path / "no.png")


def test_attention_shows_windows_patches_and_the_path(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = fastdraw.DRAWClassifier((1, 20, 20), glimpses=3, hidden_size=8, read_size=4, num_classes=3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "read_attention" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape))
    x = torch.rand(2, 1, 20, 20)
    _, found = model.attend(x)
    view.save_attention(x, found, tmp_path / "a.png", 4, notes=["says 1", "says 2"], scale=4, padding=0)
    pixels = np.asarray(Image.open(tmp_path / "a.png")).astype(int)
    # A row is images of 80 pixels, a gap of one and patches; a column for the path and one for each glimpse.
    assert pixels.shape == (2 * 161, 4 * 80, 3)
    blue = (pixels == scenes.READ).all(-1)
    for row in (0, 161):
        assert all(blue[row : row + 80, 80 * t : 80 * (t + 1)].any() for t in (1, 2, 3))
        # The path begins pale.
        assert (pixels[row : row + 80, :80] == (255, 236, 150)).all(-1).any()
        assert (pixels[row + 81 : row + 161, :80] == 255).all(-1).any()
    # The patch of the first image's first glimpse, 4 x 4 enlarged to 80 x 80.
    shown = pixels[81 + 10 : 161 : 20, 80 + 10 : 160 : 20, 0]
    from fastdraw import reference
    from fastdraw.view.record import window_params

    w = Window(*(field[0, :1] for field in found))
    expected = reference.read(x[:1].double(), window_params(w, 4, (20, 20)), 4)[0, 0]
    np.testing.assert_allclose(shown, (expected * 255).numpy(), atol=1)


def test_attention_film(tmp_path: Path) -> None:
    moving = windows(5, 2)._replace(centre_x=torch.linspace(2, 14, 5)[:, None].expand(5, 2))
    view.save_attention_film(torch.zeros(2, 1, 13, 17), moving, tmp_path / "a.gif", 3, scale=4, padding=0)
    with Image.open(tmp_path / "a.gif") as image:
        lefts = []
        for t in range(image.n_frames - 1):
            image.seek(t)
            lefts.append(np.nonzero((np.asarray(image.convert("RGB")) == scenes.READ).all(-1))[1].min())
    assert lefts == sorted(set(lefts))
    with pytest.raises(ValueError, match=r"^notes: expected 2 texts"):
        view.save_attention(torch.zeros(2, 1, 13, 17), moving, tmp_path / "b.png", 3, notes=["one"])


def test_strip_with_what_was_read(tmp_path: Path) -> None:
    both = trajectory(n=2)._replace(read_windows=windows(4, 2, x=4.0))
    images = torch.rand(2, 1, 13, 17)
    view.save_strip(both, tmp_path / "s.png", write_size=3, read_size=3, glimpses=2, scale=4, padding=0, images=images)
    pixels = np.asarray(Image.open(tmp_path / "s.png"))
    assert pixels.shape == (2 * 105, 3 * 68, 3)
    red, blue = ((pixels == colour).all(-1) for colour in (scenes.WRITE, scenes.READ))
    for row in (0, 105):
        read, drawn = slice(row, row + 52), slice(row + 53, row + 105)
        # Read windows on the image alone, write windows on the canvas alone, neither on the finished picture.
        assert blue[read, :136].any()
        assert red[drawn, :136].any()
        assert not red[read].any()
        assert not blue[drawn].any()
        assert not (red | blue)[row : row + 105, 136:].any()
    assert (pixels[52] == picture.GAP).all()
