"""SVHN's full numbers (Netzer et al. 2011, format 1) as 64 x 64 images, cut out as Goodfellow et al. 2013 and DRAW do."""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fastdraw.data import archive
from fastdraw.data.arrays import check_memory, read_bytes
from fastdraw.data.bar import bar
from fastdraw.data.splits import DataError
from fastdraw.installed import needs_extra

SIDE = 64
#: The box round all digits of a number is made this much wider and higher.
WIDER = 1.3
BOXES = "digitStruct.mat"

#: Bytes; the largest of the originals have 50 million and 2 million.
_LARGEST_BOXES = 1 << 30
_LARGEST_IMAGE = 1 << 26
_MOST_DIGITS = 100
#: Bytes of a photograph once unpacked; the largest of the originals have three million.
_LARGEST_UNPACKED = 1 << 26
_NAME = re.compile(r"[0-9]{1,9}\.png")

#: (left, top, right, bottom) in pixels.
Box = tuple[float, float, float, float]


def read(source: Path, part: str, progress: bool = False) -> np.ndarray:
    """uint8 [n, 3, 64, 64], in the order of digitStruct.mat.

    source: the archive {part}.tar.gz, or the folder {part} that it unpacks to: n images and digitStruct.mat, which says where
            the digits in each are.
    Raises DataError.
    """
    with tempfile.TemporaryDirectory() as scratch:
        boxes = read_boxes(_boxes_file(source, part, Path(scratch)), f"{source.name}, boxes", progress)
    check_memory(str(source), len(boxes) * 3 * SIDE * SIDE)
    images = np.empty((len(boxes), 3, SIDE, SIDE), np.uint8)
    place = {name: i for i, name in enumerate(boxes)}
    with bar(f"{source.name}, {SIDE} x {SIDE}", progress) as report:
        for done, (name, content) in enumerate(_contents(source, part, place)):
            images[place[name]] = _decoded(content, boxes[name], f"{source}: {name}")
            report(done + 1, len(boxes))
    return images


def _boxes_file(source: Path, part: str, scratch: Path) -> Path:
    """digitStruct.mat as a file: HDF5 is read from nothing else."""
    if source.is_dir():
        return source / BOXES
    (_, content), *_ = archive.members(source, [f"{part}/{BOXES}"], _LARGEST_BOXES)
    file = scratch / BOXES
    file.write_bytes(content)
    return file


def _contents(source: Path, part: str, names: dict[str, int]) -> Iterator[tuple[str, bytes]]:
    """Each image's name and bytes."""
    if not source.is_dir():
        wanted = {f"{part}/{name}": name for name in names}
        for member, content in archive.members(source, wanted, _LARGEST_IMAGE):
            yield wanted[member], content
        return
    for name in names:
        yield name, read_bytes(source / name, "image")


def read_boxes(path: Path, text: str = BOXES, progress: bool = False) -> dict[str, Box]:
    """The box round all digits of each image, by its name, from a digitStruct.mat. Raises DataError.

    The file is HDF5: digitStruct/name and digitStruct/bbox are references [n, 1], to characters [length, 1] and to groups with
    left, top, width and height; each of these is a number [1, 1], or references [k, 1] to numbers where there are k digits.
    """
    with needs_extra("SVHN's full numbers"):
        import h5py
    try:
        with h5py.File(path, "r") as file:
            struct, boxes = file["digitStruct"], {}
            if not all(isinstance(link, h5py.HardLink) for link in (file.get("digitStruct", getlink=True), *_links(struct))):
                raise DataError("expected boxes kept in the file, got a link to others")
            # Each row refers to a name and a group of its own.
            most = path.stat().st_size // 64
            rows = list(zip(_column(struct["name"], most), _column(struct["bbox"], most), strict=True))
            with bar(text, progress) as report:
                for done, row in enumerate(rows):
                    name, box = _box(file, *row)
                    boxes[name] = box
                    report(done + 1, len(rows))
            if not boxes:
                raise DataError("expected boxes of at least one image, got none")
            return boxes
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    # h5py in the face of another file's form raises whatever its own steps do.
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"{path}: expected the boxes of SVHN's full numbers, got: {reason}") from error


def _box(file: Any, name: Any, group: Any) -> tuple[str, Box]:
    text = bytes(_column(file[name], 255).astype(np.uint8)).decode("ascii", "replace")
    # It becomes part of a path.
    if not _NAME.fullmatch(text):
        raise DataError(f"expected image names such as 1.png, got {text[:40]!r}")
    numbers = file[group]
    left, top, width, height = (_numbers(file, numbers[key]) for key in ("left", "top", "width", "height"))
    box = (left.min(), top.min(), (left + width).max(), (top + height).max())
    if not all(math.isfinite(edge) for edge in box):
        raise DataError(f"expected finite boxes, got another one for {text}")
    return text, box


def _numbers(file: Any, dataset: Any) -> np.ndarray:
    values = _column(dataset, _MOST_DIGITS)
    if values.dtype.kind != "O":
        return values.astype(np.float64)
    return np.array([_column(file[reference], 1)[0] for reference in values], np.float64)


def _links(struct: Any) -> list[Any]:
    return [struct.get(key, getlink=True) for key in ("name", "bbox")]


def _column(dataset: Any, most: int) -> np.ndarray:
    """The first column of a dataset [n, 1] of at most so many rows: HDF5 takes the file's word for rows that are not there."""
    if dataset.ndim != 2 or dataset.shape[1] != 1 or dataset.shape[0] > most or dataset.dtype.itemsize > 8:
        raise DataError(f"expected columns of at most {most:,} numbers, got {dataset.dtype} of shape {list(dataset.shape)}")
    # Rows kept in another file could be of any file.
    if dataset.external or dataset.is_virtual:
        raise DataError("expected rows kept in the file, got some that are kept in others")
    return dataset[:, 0]


def _decoded(content: bytes, box: Box, where: str) -> np.ndarray:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # Pillow only warns of the smaller ones of images that unpack to more than they should.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                if 3 * image.width * image.height > _LARGEST_UNPACKED:
                    raise DataError(f"at most {_LARGEST_UNPACKED:,} bytes unpacked, got {image.width} x {image.height} pixels")
                return cut(image, box)
    except DataError as error:
        raise DataError(f"{where}: expected {error}") from error
    except Exception as error:
        raise DataError(f"{where}: expected a whole PNG image, got: {error}") from error


def cut(image: Any, box: Box) -> np.ndarray:
    """uint8 [3, 64, 64]: the box, widened round its centre and cut off at the image's edges, resampled (bicubic)."""
    from PIL import Image

    (left, right), (top, bottom) = (_span(box[axis], box[axis + 2], size) for axis, size in enumerate(image.size))
    pixels = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=(left, top, right, bottom))
    return np.asarray(pixels).transpose(2, 0, 1)


def _span(low: float, high: float, size: int) -> tuple[float, float]:
    """One side of a box widened, within 0 to `size` and at least a pixel long."""
    centre, half = (low + high) / 2, (high - low) / 2 * WIDER
    low = min(max(centre - half, 0), size - 1)
    return low, max(min(centre + half, size), low + 1)


def stamp(source: Path) -> tuple[str, int, int]:
    """What tells an archive or folder from a changed one: where it is, and the size and time of what is read first."""
    file = source / BOXES if source.is_dir() else source
    with contextlib.suppress(OSError):
        status = os.stat(file)
        return str(file.resolve()), status.st_size, status.st_mtime_ns
    raise DataError(f"{file}: expected a readable file, got none")
