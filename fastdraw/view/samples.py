"""Any number of samples on disk, written as they are drawn: what is kept of them in memory does not grow with their number."""

from __future__ import annotations

import contextlib
import math
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from fastdraw.checks import expected
from fastdraw.files import growing, growing_folder
from fastdraw.installed import needs_extra
from fastdraw.view import picture

#: Files in one folder of PNGs have names of at least so many digits.
DIGITS = 6

#: Takes the next images, float [n, C, H, W] in [0, 1].
Write = Callable[[Tensor], None]


@contextlib.contextmanager
def npz(path: Path, shape: tuple[int, ...], labels: Tensor | None) -> Iterator[Write]:
    """An .npz with `images`, float32 of this shape [n, C, H, W], and `labels`. Whole at the end or not there."""
    check_room(path, 4 * math.prod(shape), packed=True)
    with growing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        if labels is not None:
            with archive.open("labels.npy", "w") as member:
                np.lib.format.write_array(member, labels.numpy(), allow_pickle=False)
        about = {"descr": "<f4", "fortran_order": False, "shape": shape}
        with archive.open("images.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, about)
            yield lambda images: _pour(member, images)


def _pour(member: object, images: Tensor) -> None:
    member.write(np.ascontiguousarray(images.numpy(), "<f4").data)  # type: ignore[attr-defined]


@contextlib.contextmanager
def pngs(path: Path, shape: tuple[int, ...]) -> Iterator[Write]:
    """A folder of PNGs, one an image: 000000.png and so on, 8 bits, grey or RGB. Whole at the end or not there."""
    with needs_extra("drawing pictures"):
        from PIL import Image
    check_free(path)
    # Small files take a block each.
    check_room(path, shape[0] * max(4096, math.prod(shape[1:])))
    digits, done = max(DIGITS, len(str(shape[0] - 1))), 0
    with growing_folder(path) as folder:

        def write(images: Tensor) -> None:
            nonlocal done
            pixels = picture.to_bytes("images", images)
            for image in pixels if images.shape[1] == 3 else pixels[..., 0]:
                Image.fromarray(np.ascontiguousarray(image)).save(folder / f"{done:0{digits}}.png", "PNG")
                done += 1

        yield write


def check_free(path: Path) -> None:
    """Refuses a folder with anything in it, before anything is drawn."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise expected("out", f"no file, or an empty folder, at {path}, where a PNG of each image is put", "something there")


def check_room(path: Path, size: int, packed: bool = False) -> None:
    """Refuses what the disk has no room for, even if it packs eight times smaller. Raises OSError as a full disk does."""
    above = next(folder for folder in path.absolute().parents if folder.exists())
    free = shutil.disk_usage(above).free
    if size // (8 if packed else 1) > free:
        raise expected("number", f"images that fit into {free:,} bytes free for {path}", f"{size:,} bytes")
