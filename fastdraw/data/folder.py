"""A folder of image files, of any depth, in the order of their names."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastdraw.data.splits import DataError, Parts, needs_extra

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
_GREY = ("1", "L", "LA", "La")
_COLOUR = ("RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr", "HSV", "LAB")


def load(path: Path, image_size: tuple[int, int] | None = None) -> Parts:
    """Every image under `path`, all to train on; grey where more than half of them are, RGB otherwise.

    image_size: (height, width) that each is brought to, by the largest middle part of that form; None: all must have one size.
    Hidden files and files with other suffixes are passed over. Transparent pixels are laid on black. Raises DataError.
    """
    files = find(path)
    if not files:
        raise DataError(f"{path}: expected a folder with images ({', '.join(SUFFIXES)}), got none")
    modes = Counter(_open(file).mode in _GREY for file in files)
    mode = "L" if modes[True] > modes[False] else "RGB"
    pixels: np.ndarray | None = None
    for i, file in enumerate(files):
        image = _decode(file, mode, image_size)
        if pixels is None:
            pixels = np.empty((len(files), *image.shape), np.uint8)
        if image.shape != pixels.shape[1:]:
            (height, width), (h, w) = pixels.shape[2:], image.shape[1:]
            raise DataError(
                f"{file}: expected the size of {files[0].name}, {height} x {width} (height x width), got {h} x {w}; "
                "image_size brings all to one"
            )
        pixels[i] = image
    assert pixels is not None
    return {"train": (pixels, None)}


def find(path: Path) -> list[Path]:
    """Image files under `path`, sorted by their names from there on; links to folders are not followed."""
    found = []
    for folder, folders, files in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names = [name for name in files if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
        found += [Path(folder, name) for name in names]
    return sorted(found, key=lambda file: file.relative_to(path).as_posix())


def _open(file: Path) -> Image:
    with needs_extra("a folder of images"):
        from PIL import Image
    try:
        with warnings.catch_warnings():
            # Pillow only warns of the smaller ones of images that unpack to more than they should.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                if image.mode not in (*_GREY, *_COLOUR):
                    raise DataError(f"{file}: expected 8 bits per channel, got mode {image.mode}")
                return image
    except Exception as error:
        raise _unreadable(file, error) from error


def _decode(file: Path, mode: str, image_size: tuple[int, int] | None) -> np.ndarray:
    """uint8 [C, H, W]."""
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as opened:
                image = ImageOps.exif_transpose(opened)
                if image.has_transparency_data:
                    image = image.convert("RGBA")
                    image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
                image = image.convert(mode)
                if image_size is not None and image.size != image_size[::-1]:
                    image = ImageOps.fit(image, image_size[::-1], Image.Resampling.BICUBIC)
                array = np.asarray(image)
    except Exception as error:
        raise _unreadable(file, error) from error
    return array[None] if mode == "L" else array.transpose(2, 0, 1)


def _unreadable(file: Path, error: Exception) -> Exception:
    """A decoder in the face of damaged bytes may raise anything; to the user it is one thing."""
    if isinstance(error, DataError):
        return error
    return DataError(f"{file}: expected a whole image, got: {error}")
