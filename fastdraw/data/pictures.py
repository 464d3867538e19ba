"""One picture out of a file: by the format that its suffix names, its size checked before it is unpacked."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastdraw.data.arrays import LARGEST_SMALL, check_unpacked
from fastdraw.data.splits import DataError
from fastdraw.installed import needs_extra

if TYPE_CHECKING:
    from PIL import Image

#: What a file of each suffix may hold. Pillow left to itself goes by content, and starts Ghostscript on PostScript.
FORMATS = {
    **dict.fromkeys((".png", ".apng"), "PNG"),
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **dict.fromkeys((".pgm", ".ppm", ".pbm", ".pnm"), "PPM"),
    ".bmp": "BMP",
    ".gif": "GIF",
    ".webp": "WEBP",
}
#: The number of the tag that tells how a photograph is to be turned; from 5 on by a right angle.
_ORIENTATION = 0x0112
_GREY = ("1", "L", "LA", "La")
_COLOUR = ("RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr", "HSV", "LAB")


class Look(NamedTuple):
    """What a picture is, before it is known what all of them become.

    frames: those of a film and pages; one is used. ink: of transparent ones how much of it is seen, and how light that is.
    """

    grey: bool
    frames: int
    ink: tuple[float, float]


class Encoded(NamedTuple):
    """A picture that is no file of its own: what it is called in messages, and its bytes, of any format that is read."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


def look(file: Path | Encoded, image_size: tuple[int, int] | None) -> Look:
    """Unpacks transparent ones and palettes only. Raises DataError."""
    with _opened(file, image_size) as image:
        # The second picture in a photograph's file is a preview.
        frames = getattr(image, "n_frames", 1) if image.format != "MPO" else 1
        grey, ink = image.mode in _GREY, (0.0, 0.0)
        if image.has_transparency_data:
            pixels = np.asarray(image.convert("RGBA"))
            alpha = pixels[..., 3].astype(np.float32) / 255
            light = np.asarray(image.convert("RGBA").convert("RGB").convert("L"))
            ink = (float(alpha.sum()), float((alpha * light).sum()))
            if image.mode in ("P", "PA"):
                grey = _is_grey(pixels[alpha > 0])
        elif image.mode == "P":
            grey = _is_grey(np.asarray(image.convert("RGB")))
        return Look(grey, frames, ink)


def decode(file: Path | Encoded, mode: str, image_size: tuple[int, int] | None, ground: int) -> np.ndarray:
    """uint8 [C, H, W]. ground: what transparent pixels are laid on, 0 or 255. Raises DataError."""
    with _opened(file, image_size, reduced=True) as opened:
        from PIL import Image, ImageOps

        image = ImageOps.exif_transpose(opened)
        if image.has_transparency_data:
            image = _laid(image.convert("RGBA"), ground)
        image = image.convert(mode)
        if image_size is not None and image.size != image_size[::-1]:
            image = ImageOps.fit(image, image_size[::-1], Image.Resampling.BICUBIC)
        array = np.asarray(image)
    return array[None] if mode == "L" else array.transpose(2, 0, 1)


@contextmanager
def _opened(file: Path | Encoded, image_size: tuple[int, int] | None, reduced: bool = False) -> Iterator[Image.Image]:
    """Whatever goes wrong within it is a DataError that names the file: a decoder may raise anything at damaged bytes."""
    with needs_extra("a folder of images"):
        from PIL import Image
    formats = sorted(set(FORMATS.values())) if isinstance(file, Encoded) else [FORMATS[file.suffix.lower()]]
    try:
        # A pipe would be waited for.
        if isinstance(file, Path) and not file.is_file():
            raise DataError(f"{file}: expected a plain file, got a link to none, or something else")
        with warnings.catch_warnings():
            # Pillow warns of large ones by their pixels; below, they are refused by what the file can honestly hold.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(file.content) if isinstance(file, Encoded) else file, formats=formats) as image:
                if image.mode not in (*_GREY, *_COLOUR):
                    raise DataError(f"{file}: expected 8 bits per channel, got mode {image.mode}")
                if image_size is not None and (reduced or _bytes(image) > LARGEST_SMALL):
                    # A JPEG can be unpacked smaller than it is, in a fraction of the time and of the memory.
                    turned = image.getexif().get(_ORIENTATION, 1) >= 5
                    image.draft(None, image_size if turned else image_size[::-1])
                check_unpacked(str(file), len(file.content) if isinstance(file, Encoded) else file, _bytes(image))
                yield image
    except DataError:
        raise
    except Exception as error:
        if isinstance(error, Image.UnidentifiedImageError):
            if isinstance(file, Encoded):
                raise DataError(f"{file}: expected an image ({', '.join(formats)}), got {_kind(file.content)}") from error
            raise DataError(f"{file}: expected a {formats[0]} image, as its name says, got {_kind(_head(file))}") from error
        raise DataError(f"{file}: expected a whole image, got: {error}") from error


def _bytes(image: Image.Image) -> int:
    return image.width * image.height * len(image.getbands())


def _head(file: Path) -> bytes:
    with open(file, "rb") as content:
        return content.read(12)


def _kind(head: bytes) -> str:
    """What a file is by its first bytes, for a message."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WEBP image"
    return next((name for start, name in _STARTS.items() if head.startswith(start)), "something else")


#: First bytes of files that come under others' names.
_STARTS = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"BM": "a BMP image",
    b"II*\0": "a TIFF image",
    b"%!PS": "PostScript",
    b"<": "text with marks, a web page, say",
}


def _is_grey(pixels: np.ndarray) -> bool:
    """Of colours [..., 3 or 4] whether all are grey."""
    return bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all())


def _laid(image: Image.Image, ground: int) -> Image.Image:
    """RGBA laid on black or white; on the other one, where nothing could be told from the ground."""
    from PIL import Image

    for level in (ground, 255 - ground):
        laid = Image.alpha_composite(Image.new("RGBA", image.size, (level, level, level, 255)), image)
        if np.ptp(np.asarray(laid), axis=(0, 1)).any():
            return laid
    return Image.alpha_composite(Image.new("RGBA", image.size, (ground, ground, ground, 255)), image)
