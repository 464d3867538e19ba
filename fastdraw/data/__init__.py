"""Images to train on: data sets by name, or a file or folder of one's own.

    splits = fastdraw.data.load("digits")
    x = fastdraw.data.binarize(splits.train[:100], generator)      # float32 [100, 1, 28, 28] of 0 and 1

`import fastdraw` imports nothing of this. Needs the extra: pip install "fastdraw[train]".
"""

from __future__ import annotations

import os
from pathlib import Path

from fastdraw import env
from fastdraw.checks import check_pair
from fastdraw.data import digits, folder, idx, mnist, npz
from fastdraw.data.arrays import as_images, resized
from fastdraw.data.splits import DataError, Labels, Make, Splits, binarize, complete, images

__all__ = ["DataError", "Labels", "Make", "Splits", "binarize", "images", "load", "names"]


def names() -> tuple[str, ...]:
    """The data sets known by name."""
    return ("digits", "mnist", "binarized-mnist")


def load(
    name_or_path: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    image_size: tuple[int, int] | None = None,
    download: bool = True,
    progress: bool = False,
) -> Splits:
    """A data set in three splits.

    name_or_path: digits (1,797 real handwritten ones, nothing to download), mnist, binarized-mnist; or the path of an .npz
                  file, an idx file (also gzipped) or a folder of images. What has no splits of its own is split 80/10/10,
                  always the same way.
    data_dir:     where mnist and binarized-mnist lie already, as .npz or in their original files; nothing is downloaded then.
                  None: FASTDRAW_DATA if they are there, otherwise the cache folder, filled by a download.
    image_size:   (height, width) to bring all images to, by the largest middle part of that form. None: as they are.
    download:     whether the network may be used.
    progress:     whether to show a bar on stderr while downloading.

    Raises DataError, a ValueError, in one sentence that names the file, for whatever cannot be had or read.
    """
    if image_size is not None:
        image_size = check_pair("image_size", image_size)
    name = os.fspath(name_or_path)
    if name == "digits":
        splits = digits.load()
    elif name in names():
        load_set = mnist.load if name == "mnist" else mnist.load_binarized
        splits = load_set(_data_folder(name, data_dir), download, progress)
    else:
        splits = _load_path(Path(name), image_size)
    if image_size is None:
        return splits
    train, validation, test = (resized(part, image_size) for part in splits[:3])
    return splits._replace(train=train, validation=validation, test=test)


def _data_folder(name: str, data_dir: str | os.PathLike[str] | None) -> Path | None:
    """The folder that `name` is read from; None for the cache."""
    if data_dir is None:
        found = env.data_dir()
        return Path(found) if found and mnist.holds(Path(found), name) else None
    if not mnist.holds(Path(data_dir), name):
        raise DataError(f"data_dir: expected a folder with {mnist.FORMS[name]}, got {os.fspath(data_dir)}")
    return Path(data_dir)


def _load_path(path: Path, image_size: tuple[int, int] | None) -> Splits:
    if path.is_dir():
        return complete(folder.load(path, image_size), path.resolve().name)
    try:
        with open(path, "rb") as file:
            head = file.read(4)
    except FileNotFoundError:
        raise DataError(f"data: expected {', '.join(names())}, or the path of a file or folder, got {str(path)!r}") from None
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: expected a readable file or folder, got: {getattr(error, 'strerror', None) or error}"
        ) from error
    if head[:2] == b"PK" or path.suffix == ".npz":
        return complete(npz.load(path), path.stem)
    if head[:2] in (b"\0\0", b"\x1f\x8b") or "idx" in path.name:
        return complete({"train": (as_images(idx.read(path), str(path)), None)}, path.name)
    raise DataError(
        f"{path}: expected an .npz file, an idx file (also gzipped) or a folder of images, got another kind of file"
    )
