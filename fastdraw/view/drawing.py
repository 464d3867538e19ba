"""How images come to be: every glimpse's canvas with its windows, as GIF or as one still picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch

from fastdraw.checks import check_size, check_tensor, expected
from fastdraw.data.splits import needs_extra
from fastdraw.reference import Trajectory
from fastdraw.view import picture, windows

if TYPE_CHECKING:
    from PIL.Image import Image

WRITE = (255, 48, 48)
READ = (40, 208, 88)
#: Milliseconds that the finished images stay.
HOLD = 2000


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
    frame_time: int = 80,
) -> None:
    """Writes a GIF of a trajectory's images being drawn side by side, and the finished images for two seconds at its end.

    The write window is a red rectangle and the read window a green one, round the centres of their N x N filters, its line as
    wide as sigma (equation 21), but at least one pixel and at most an eighth of the image. What reaches over an image's border
    is drawn along the border; windows wholly outside, and those that are not finite, are left out.

    trajectory: from `sample` or `reconstruct` with return_trajectory=True: canvases [T, n, C, H, W] of logits, fields of the
                windows [T, n].
    write_size, read_size: N of the model's windows; needed for those that the trajectory has.
    columns, scale, padding: as in `save_grid`.
    max_frames: of more glimpses than that, so many are shown, evenly spaced.
    frame_time: milliseconds a glimpse, in steps of 10.

    Writes and raises as `save_grid` does.
    """
    with needs_extra("drawing pictures"):
        from PIL import Image
    scenes = _Scenes(trajectory, write_size, read_size, scale)
    chosen = _evenly(len(trajectory.canvases), check_size("max_frames", max_frames))
    frame_time = check_size("frame_time", frame_time, least=10)
    frames = [picture.tile(scenes.at(t), columns, padding) for t in chosen]
    frames.append(picture.tile(scenes.at(-1, with_windows=False), columns, padding))
    # One palette for all frames, made of a few of them; with one of its own each, colours would flicker.
    palette = _palette([frames[i] for i in _evenly(len(frames), 8)])
    first, *rest = (Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    duration = [frame_time] * len(rest) + [HOLD]

    def write(file: BinaryIO) -> None:
        first.save(file, "GIF", save_all=True, append_images=rest, duration=duration, loop=0, optimize=False)

    picture.save(path, write)


def save_strip(
    trajectory: Trajectory,
    path: str | os.PathLike[str],
    *,
    write_size: int | None = None,
    read_size: int | None = None,
    glimpses: int | Sequence[int] = 8,
    scale: int | None = None,
    padding: int = 4,
) -> None:
    """Writes a PNG with a row for each image of a trajectory: its canvas at some glimpses, then the finished image.

    glimpses: how many, evenly spaced, or which, counted from 0. Other arguments and windows as in `save_drawing`.
    Writes and raises as `save_grid` does.
    """
    with needs_extra("drawing pictures"):
        from PIL import Image
    scenes = _Scenes(trajectory, write_size, read_size, scale)
    steps = len(trajectory.canvases)
    if isinstance(glimpses, Sequence):
        if not glimpses or not all(0 <= check_size("glimpses", t, least=0) < steps for t in glimpses):
            raise expected("glimpses", f"glimpses from 0 to {steps - 1}", glimpses)
        chosen = list(glimpses)
    else:
        chosen = _evenly(steps, check_size("glimpses", glimpses))
    columns = [scenes.at(t) for t in chosen] + [scenes.at(-1, with_windows=False)]
    tiles = np.stack(columns, axis=1)
    result = Image.fromarray(picture.tile(tiles.reshape(-1, *tiles.shape[2:]), len(columns), padding))
    picture.save(path, lambda file: result.save(file, "PNG", optimize=True))


class _Scenes:
    """The images of a trajectory, enlarged, with the windows on them."""

    def __init__(self, trajectory: Trajectory, write_size: int | None, read_size: int | None, scale: int | None) -> None:
        canvases, write_windows, read_windows = trajectory
        self.canvases = check_tensor("canvases", canvases, "T", "n", "C", "H", "W")
        if 0 in canvases.shape:
            raise expected("canvases", "at least one glimpse of one image", canvases)
        shape = (canvases.shape[0], canvases.shape[1])
        self.height, self.width = canvases.shape[3:]
        self.scale = picture.default_scale(scale, self.height, self.width)
        write = windows.to_numpy("write_windows", write_windows, "write_size", write_size, shape)
        read = windows.to_numpy("read_windows", read_windows, "read_size", read_size, shape)
        # The read window first: what is written lies on top.
        self.windows = [(colour, found) for colour, found in ((READ, read), (WRITE, write)) if found is not None]

    def at(self, t: int, with_windows: bool = True) -> np.ndarray:
        """uint8 [n, H scale, W scale, 3] after glimpse t."""
        tiles = picture.enlarge(picture.to_bytes("canvases", torch.sigmoid(self.canvases[t].float())), self.scale)
        for colour, found in self.windows if with_windows else ():
            for pixels, window in zip(tiles, found[t], strict=True):
                pixels[windows.outline(window, self.height, self.width, self.scale)] = colour
        return tiles


def _evenly(n: int, count: int) -> list[int]:
    """At most `count` of 0 .. n-1, evenly spaced, the last one with them, the first too where there is room for two."""
    return list(range(n)) if n <= count else [round(i) for i in np.linspace(n - 1, 0, count)[::-1]]


def _palette(frames: list[np.ndarray]) -> Image:
    """An image whose palette has the windows' colours and the gap's exactly, and shares the rest among the frames' colours."""
    from PIL import Image

    fixed = (WRITE, READ, picture.GAP)
    together = Image.fromarray(np.concatenate([frame.reshape(-1, 1, 3) for frame in frames]))
    colours = together.quantize(256 - len(fixed), dither=Image.Dither.NONE).getpalette() or []
    image = Image.new("P", (1, 1))
    image.putpalette([value for colour in fixed for value in colour] + colours[: 3 * (256 - len(fixed))])
    return image
