"""Frames as GIF or as MP4."""

from __future__ import annotations

import os
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastdraw.checks import expected
from fastdraw.files import write_atomically
from fastdraw.installed import needs_extra
from fastdraw.view import picture

if TYPE_CHECKING:
    from PIL.Image import Image

#: Milliseconds that the last frame stays.
HOLD = 2000
#: H.264's constant rate factor: 18 cannot be told from the original by eye.
QUALITY = 18


def check_path(path: str | os.PathLike[str]) -> Path:
    """A path whose suffix says which kind of film is wanted."""
    path = Path(path)
    if path.suffix.lower() not in (".gif", ".mp4"):
        raise expected("path", "a name that ends in .gif or .mp4", os.fspath(path))
    return path


def save(path: Path, frames: list[np.ndarray], frame_time: int, colours: tuple[tuple[int, int, int], ...]) -> None:
    """Writes frames, uint8 [h, w, 3], `frame_time` milliseconds each and the last one two seconds.

    A GIF runs for ever and has the same 256 colours in all frames, `colours` exactly among them. An MP4 is H.264, 4:2:0,
    which browsers, phones and slides play.
    """
    encode = _gif if path.suffix.lower() == ".gif" else _mp4
    write_atomically(path, encode(frames, frame_time, colours))


def _gif(frames: list[np.ndarray], frame_time: int, colours: tuple[tuple[int, int, int], ...]) -> bytes:
    with needs_extra("drawing pictures"):
        from PIL import Image
    # One palette for all frames, made of a few of them; with one of its own each, colours would flicker.
    palette = _palette([frames[round(i)] for i in np.linspace(len(frames) - 1, 0, min(8, len(frames)))], colours)
    first, *rest = (Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    duration = [frame_time] * len(rest) + [HOLD]
    return picture.encoded(
        lambda file: first.save(file, "GIF", save_all=True, append_images=rest, duration=duration, loop=0, optimize=False)
    )


def _palette(frames: list[np.ndarray], fixed: tuple[tuple[int, int, int], ...]) -> Image:
    """An image whose palette has the fixed colours exactly, and shares the rest among the frames' colours."""
    from PIL import Image

    together = Image.fromarray(np.concatenate([frame.reshape(-1, 1, 3) for frame in frames]))
    colours = together.quantize(256 - len(fixed), dither=Image.Dither.NONE).getpalette() or []
    image = Image.new("P", (1, 1))
    image.putpalette([value for colour in fixed for value in colour] + colours[: 3 * (256 - len(fixed))])
    return image


def _mp4(frames: list[np.ndarray], frame_time: int, colours: tuple[tuple[int, int, int], ...]) -> bytes:
    with needs_extra("MP4"):
        import av
    height, width, _ = frames[0].shape
    # With 4:2:0 two by two pixels share a colour: both sides must be even.
    padding = ((0, height % 2), (0, width % 2), (0, 0))
    frames = frames + frames[-1:] * (HOLD // frame_time)
    # The index is put in front of the pictures, so that a film plays while it loads; for that the library must open the file
    # once more by its name, and so needs one.
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "film.mp4")
        with av.open(str(file), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("libx264", rate=Fraction(1000, frame_time))
            stream.width, stream.height = width + width % 2, height + height % 2
            stream.pix_fmt = "yuv420p"
            stream.options = {"crf": str(QUALITY), "preset": "medium", "tune": "animation"}
            for pixels in frames:
                frame = av.VideoFrame.from_ndarray(np.pad(pixels, padding, mode="edge"), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return file.read_bytes()
