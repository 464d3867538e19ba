"""How images come to be: every glimpse's canvas with its windows, as a film or as one still picture."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from fastdraw.checks import check_size, check_tensor, expected
from fastdraw.outputs import Trajectory
from fastdraw.view import film, picture
from fastdraw.view.scenes import READ, WRITE, Overlay, Scenes, evenly, of_trajectory


def save_drawing(
    trajectory: Trajectory,
    path: str | os.PathLike[str],
    *,
    write_size: int | None = None,
    read_size: int | None = None,
    columns: int | None = None,
    scale: int | None = None,
    padding: int = 4,
    max_frames: int = 100,
    frame_time: int | None = None,
) -> None:
    """Writes a film of a trajectory's images being drawn side by side, and the finished images for two seconds at its end.

    The write window is a red rectangle and the read window a blue one, round the centres of their N x N filters. Along its
    line runs a band, which the image shows through, as wide as sigma (equation 21), but at most an eighth of the image. What
    reaches over an image's border is drawn along the border; windows wholly outside, or not finite, are left out.

    trajectory: from `sample` or `reconstruct` with return_trajectory=True: canvases [T, n, C, H, W] of logits, fields of the
                windows [T, n].
    path:       its suffix says what is written: .gif, or .mp4 (H.264, 4:2:0).
    write_size, read_size: N of the model's windows; needed for those that the trajectory has.
    columns, scale, padding: as in `save_grid`.
    max_frames: of more glimpses than that, so many are shown, evenly spaced.
    frame_time: milliseconds a glimpse; a GIF knows steps of 10. None: about six seconds in all, from 80 to 400 a glimpse.

    Writes and raises as `save_grid` does.
    """
    path = film.check_path(path)
    save_film(of_trajectory(trajectory, write_size, read_size, scale), path, columns, padding, max_frames, frame_time)


def save_film(
    scenes: Scenes, path: str | os.PathLike[str], columns: int | None, padding: int, max_frames: int, frame_time: int | None
) -> None:
    """`save_drawing` for images from anywhere."""
    path = film.check_path(path)
    chosen = evenly(len(scenes), check_size("max_frames", max_frames))
    if frame_time is None:
        frame_time = min(400, max(80, 600 // max(len(chosen), 1) * 10))
    frame_time = check_size("frame_time", frame_time, least=10)
    frames = [picture.tile(scenes.at(t), columns, padding) for t in chosen]
    frames.append(picture.tile(scenes.at(-1, with_windows=False), columns, padding))
    film.save(path, frames, frame_time, (WRITE, READ, picture.GAP))


def save_strip(
    trajectory: Trajectory,
    path: str | os.PathLike[str],
    *,
    write_size: int | None = None,
    read_size: int | None = None,
    glimpses: int | Sequence[int] = 8,
    scale: int | None = None,
    padding: int = 4,
    images: Tensor | None = None,
) -> None:
    """Writes a PNG with a row for each image of a trajectory: its canvas at some glimpses, then the finished image.

    glimpses: how many, evenly spaced, or which, counted from 0.
    images:   [n, C, H, W] in [0, 1], what was read: each canvas then has it above itself, with the read window on it.

    Other arguments and windows as in `save_drawing`. Writes and raises as `save_grid` does.
    """
    picture.save_png(path, strip(trajectory, write_size, read_size, glimpses, scale, padding, images))


def strip(
    trajectory: Trajectory,
    write_size: int | None = None,
    read_size: int | None = None,
    glimpses: int | Sequence[int] = 8,
    scale: int | None = None,
    padding: int = 4,
    images: Tensor | None = None,
) -> np.ndarray:
    """The picture that `save_strip` writes, uint8 [h, w, 3]."""
    scenes = of_trajectory(trajectory, write_size, read_size, scale)
    chosen = choose_glimpses(glimpses, len(scenes))
    if images is None:
        return _rows([scenes.at(t) for t in chosen] + [scenes.at(-1, with_windows=False)], padding)
    images = check_tensor("images", images, *trajectory.canvases.shape[1:])
    reading = Overlay(READ, "read_windows", trajectory.read_windows, "read_size", read_size)
    read = Scenes("images", images.expand(len(scenes), *images.shape), (reading,), scale)
    scenes = of_trajectory(trajectory._replace(read_windows=None), write_size, None, scale)
    columns = [above(read.at(t), scenes.at(t)) for t in chosen]
    return _rows([*columns, above(read.at(-1, with_windows=False), scenes.at(-1, with_windows=False))], padding)


def above(tiles: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Tiles [n, h, w, 3] over others [n, H, w, 3], with a narrow gap."""
    gap = np.broadcast_to(np.array(picture.GAP, np.uint8), (len(tiles), 1, *tiles.shape[2:]))
    return np.concatenate([tiles, gap, others], axis=1)


def save_rows(columns: list[np.ndarray], path: str | os.PathLike[str], padding: int) -> None:
    """Writes a PNG of tiles, uint8 [n, h, w, 3] a column, so that tile i of each column stands in row i."""
    picture.save_png(path, _rows(columns, padding))


def _rows(columns: list[np.ndarray], padding: int) -> np.ndarray:
    tiles = np.stack(columns, axis=1)
    return picture.tile(tiles.reshape(-1, *tiles.shape[2:]), len(columns), padding)


def choose_glimpses(glimpses: int | Sequence[int], steps: int) -> list[int]:
    if not isinstance(glimpses, Sequence):
        return evenly(steps, check_size("glimpses", glimpses))
    if not glimpses or not all(0 <= check_size("glimpses", t, least=0) < steps for t in glimpses):
        raise expected("glimpses", f"glimpses from 0 to {steps - 1}", glimpses)
    return list(glimpses)
