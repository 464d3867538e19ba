"""Where a classifier looks: its windows on the image, glimpse by glimpse, and its whole path over it."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fastdraw.checks import check_size, check_tensor, expected
from fastdraw.installed import needs_extra
from fastdraw.outputs import Window
from fastdraw.view import film, picture
from fastdraw.view.drawing import above, choose_glimpses, save_film, save_rows
from fastdraw.view.record import look
from fastdraw.view.scenes import READ, Overlay, Scenes

#: The path's first and last point: from pale to the read window's own colour.
FIRST = (255, 236, 150)


def save_attention(
    images: Tensor,
    found: Window,
    path: str | os.PathLike[str],
    size: int,
    notes: Sequence[str] = (),
    glimpses: int | Sequence[int] = 8,
    scale: int | None = None,
    padding: int = 4,
) -> None:
    """Writes a PNG with a row for each image: the path of the windows' centres over it, then the window of each glimpse.

    images:   float [n, C, H, W] in [0, 1].
    found:    windows with fields [T, n], as `model.attend(images)` gives them.
    size:     N of the N x N filters, the model's read_size.
    notes:    n short texts, to stand below the paths, a line for each part that ends in a comma.
    glimpses: how many are shown, evenly spaced, or which, counted from 0. Below each of them stands the patch that was read.

    The path goes from pale yellow to blue, a dot at each centre. Windows as in `save_drawing`; writes and raises as
    `save_grid` does.
    """
    scenes = _scenes(images, found, size, scale)
    if notes and len(notes) != len(images):
        raise expected("notes", f"{len(images)} texts", list(notes))
    chosen = choose_glimpses(glimpses, len(scenes))
    patches = look(scenes.images, found, size)
    paths = _paths(scenes, found)
    columns = [above(paths, _texts(notes or [""] * len(images), paths.shape))]
    for t in chosen:
        tiles = scenes.at(t)
        columns.append(above(tiles, _fitted(patches[t], tiles.shape[1], tiles.shape[2])))
    save_rows(columns, path, padding)


def save_attention_film(
    images: Tensor,
    found: Window,
    path: str | os.PathLike[str],
    size: int,
    columns: int | None = None,
    scale: int | None = None,
    padding: int = 4,
    frame_time: int = 400,
) -> None:
    """Writes a film, .gif or .mp4, of the windows moving over the images; arguments as in `save_attention`, `save_drawing`."""
    path = film.check_path(path)
    save_film(_scenes(images, found, size, scale), path, columns, padding, max_frames=100, frame_time=frame_time)


def _scenes(images: Tensor, found: Window, size: int, scale: int | None) -> Scenes:
    images = check_tensor("images", images, "n", "C", "H", "W")
    size, steps = check_size("size", size), len(found.sigma)
    overlay = Overlay(READ, "windows", found, "size", size)
    return Scenes("images", images[None].expand(steps, *images.shape), (overlay,), scale)


def _fitted(patches: Tensor, height: int, width: int) -> np.ndarray:
    """[n, C, N, N] in [0, 1] -> uint8 [n, height, width, 3]: each as large a square of whole pixels as fits, in the middle."""
    pixels = picture.to_bytes("patches", patches.clamp(0, 1))
    pixels = picture.enlarge(pixels, max(1, min(height, width) // pixels.shape[1]))[:, :height, :width]
    top, left = (height - pixels.shape[1]) // 2, (width - pixels.shape[2]) // 2
    rest = ((0, 0), (top, height - pixels.shape[1] - top), (left, width - pixels.shape[2] - left))
    padded = [np.pad(pixels[..., c], rest, constant_values=picture.GAP[c]) for c in range(3)]
    return np.stack(padded, axis=-1)


def _paths(scenes: Scenes, found: Window) -> np.ndarray:
    """The images with the way of the windows' centres over them."""
    with needs_extra("drawing pictures"):
        from PIL import Image, ImageDraw
    centres = torch.stack([found.centre_x, found.centre_y], -1).detach().cpu().double()
    points = ((centres + 0.5) * scenes.scale).permute(1, 0, 2).numpy()
    steps, thick = len(scenes), 2
    shades = np.linspace(FIRST, READ, steps).astype(int)
    tiles = []
    for i, pixels in enumerate(scenes.at(0, with_windows=False)):
        image = Image.fromarray(pixels)
        draw = ImageDraw.Draw(image)
        # What lies far outside is drawn to the border, and what is not finite nowhere.
        way = [tuple(np.clip(p, -1e4, 1e4)) if np.isfinite(p).all() else None for p in points[i]]
        for t in range(steps):
            shade, here, before = tuple(int(c) for c in shades[t]), way[t], way[t - 1] if t else None
            if here is None:
                continue
            if before is not None:
                draw.line([before, here], fill=shade, width=thick)
            draw.ellipse([here[0] - 3, here[1] - 3, here[0] + 3, here[1] + 3], fill=shade, outline=(0, 0, 0))
        tiles.append(np.asarray(image))
    return np.stack(tiles)


def _texts(notes: Sequence[str], shape: tuple[int, ...]) -> np.ndarray:
    """uint8 of this shape [n, h, w, 3]: a text on each tile."""
    from PIL import Image, ImageDraw, ImageFont

    tiles = []
    for note in notes:
        image = Image.new("RGB", (shape[2], shape[1]), picture.GAP)
        draw, lines = ImageDraw.Draw(image), note.replace(", ", ",\n")
        draw.text((8, 8), lines, fill=(255, 255, 255), font=ImageFont.load_default(16))
        tiles.append(np.asarray(image))
    return np.stack(tiles)
