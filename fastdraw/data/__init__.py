"""Images to train on: data sets by name, or a file or folder of one's own.

    splits = fastdraw.data.load("digits")
    x = fastdraw.data.binarize(splits.train[:100], generator)      # float32 [100, 1, 28, 28] of 0 and 1

`import fastdraw` imports nothing of this. Needs the extra: pip install "fastdraw-torch[train]".
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import torch

from fastdraw import env
from fastdraw.checks import check_pair
from fastdraw.data import cifar10, composed, digits, folder, hub, idx, matlab, mnist, npz, omniglot, svhn
from fastdraw.data.arrays import as_images, resized
from fastdraw.data.decoding import How
from fastdraw.data.splits import DataError, Labels, Make, Splits, binarize, complete, images
from fastdraw.data.summary import found

__all__ = ["DataError", "Labels", "Make", "Splits", "binarize", "found", "images", "load", "names"]


class _Set(NamedTuple):
    """A data set known by name."""

    #: (folder that it lies in, or None for the cache and the network; download; progress).
    load: Callable[[Path | None, bool, bool], Splits]
    #: Whether a folder has it, in one of its forms.
    holds: Callable[[Path], bool]
    #: These forms, for messages.
    form: str


def _composed(name: str, layout: composed.Layout) -> _Set:
    return _Set(partial(composed.load, layout, name), partial(mnist.holds, name="mnist"), mnist.FORMS["mnist"])


_SETS = {
    "mnist": _Set(mnist.load, partial(mnist.holds, name="mnist"), mnist.FORMS["mnist"]),
    "binarized-mnist": _Set(
        mnist.load_binarized, partial(mnist.holds, name="binarized-mnist"), mnist.FORMS["binarized-mnist"]
    ),
    "cluttered-mnist": _composed("cluttered-mnist", composed.CLUTTERED),
    "cluttered-mnist-60": _composed("cluttered-mnist-60", composed.CLUTTERED_60),
    "two-digits": _composed("two-digits", composed.TWO_DIGITS),
    "svhn": _Set(svhn.load, svhn.holds, svhn.FORM),
    "svhn-extra": _Set(partial(svhn.load, extra=True), partial(svhn.holds, extra=True), svhn.FORM_EXTRA),
    "cifar10": _Set(cifar10.load, cifar10.holds, cifar10.FORM),
    "omniglot": _Set(omniglot.load, omniglot.holds, omniglot.FORM),
}


def names() -> tuple[str, ...]:
    """The data sets known by name."""
    return ("digits", *_SETS)


def load(
    name_or_path: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    image_size: tuple[int, int] | None = None,
    download: bool = True,
    progress: bool = False,
    skip_bad: bool = False,
) -> Splits:
    """A data set in three splits.

    name_or_path: a name, or the path of an .npz or .npy file, an idx file (also gzipped), a .mat file of SVHN's cropped digits
                  or of Omniglot, or a folder of images (docs/data.md); hf:OWNER/NAME, Parquet or Arrow files, with the extra
                  `datasets`. What has no splits of its own is split 80/10/10, always
                  the same way.
                    digits              1,797 real handwritten ones, 28 x 28, nothing to download
                    mnist               28 x 28, grey; 50,000 / 10,000 / 10,000, as are the next four
                    binarized-mnist     the fixed binarisation that the paper measures nats on
                    cluttered-mnist     100 x 100, a digit among 8 pieces of 8 x 8; made anew for each batch
                    cluttered-mnist-60  60 x 60, a digit among 4 pieces
                    two-digits          60 x 60
                    svhn                house numbers, random crops of 54 x 54 out of 64 x 64, RGB; svhn-extra: all of them
                    cifar10             32 x 32, RGB
                    omniglot            28 x 28, Burda's split
    data_dir:     where the data set lies already, as .npz or in its original files; nothing is downloaded then.
                  None: FASTDRAW_DATA if it is there, otherwise the cache folder, filled by a download.
    image_size:   (height, width) to bring all images to, by the largest middle part of that form. None: as they are.
    download:     whether the network may be used.
    skip_bad:     whether files in a folder that cannot be read are left out, rather than all named in an error.
    progress:     whether to show a bar on stderr while downloading and preparing.

    Raises DataError, a ValueError, in one sentence that names the file, for whatever cannot be had or read.
    """
    for wanted in (data_dir, env.data_dir() if os.fspath(name_or_path) in _SETS else None):
        if wanted is not None and not os.path.isdir(wanted):
            raise DataError(f"data_dir: expected a folder that is there, got {os.fspath(wanted)!r}")
    if image_size is not None:
        image_size = check_pair("image_size", image_size)
    name = os.fspath(name_or_path)
    if name == "digits":
        splits = digits.load()
    elif name.startswith(hub.PREFIX):
        splits = _noted(hub.load_named(name, How(image_size, skip_bad, progress), download))
    elif name in _SETS:
        splits = _SETS[name].load(_data_folder(name, data_dir), download, progress)
    else:
        if not name:
            raise DataError("data: expected a name or a path, got an empty one")
        splits = _noted(_load_path(Path(name), How(image_size, skip_bad, progress)))
    if image_size is None or image_size == splits.image_shape[1:]:
        return splits
    if splits.make is not None:
        height, width = splits.image_shape[1:]
        raise DataError(f"image_size: expected none for {name}, whose images are made at {height} x {width}, got {image_size}")
    train, validation, test = (resized(part, image_size) for part in splits[:3])
    return splits._replace(train=train, validation=validation, test=test)


#: A look at more images takes longer than its remarks are worth.
MOST_LOOKED_AT = 200_000


def _noted(splits: Splits) -> Splits:
    """With what a look at a user's own images tells: such as are blank, and such as are in two splits."""
    notes = list(splits.notes)
    if sum(map(len, splits[:3])) > MOST_LOOKED_AT:
        return splits
    parts = dict(zip(("train", "validation", "test"), splits[:3], strict=True))
    blank = sum(int((part.flatten(1).amin(1) == part.flatten(1).amax(1)).sum()) for part in splits[:3])
    total = sum(map(len, splits[:3]))
    if blank:
        notes.append(f"{blank} of {total} images are blank: all their pixels are equal")
    if splits.image_shape[0] == 3 and all(torch.equal(part, part[:, :1].expand_as(part)) for part in splits[:3]):
        notes.append("the three channels are the same")
    seen = {
        name: {blake2b(image.tobytes(), digest_size=16).digest() for image in part.numpy()} for name, part in parts.items()
    }
    for one, other in (("validation", "train"), ("test", "train"), ("test", "validation")):
        common = len(seen[one] & seen[other])
        if seen[one] == seen[other]:
            notes.append(f"{one} and {other} are the same images")
        elif common:
            notes.append(f"{common} different images of {one} are in {other} too")
    return splits._replace(notes=tuple(notes))


def _data_folder(name: str, data_dir: str | os.PathLike[str] | None) -> Path | None:
    """The folder that `name` is read from; None for the cache."""
    known = _SETS[name]
    if data_dir is None:
        found = env.data_dir()
        return Path(found) if found and known.holds(Path(found)) else None
    if not known.holds(Path(data_dir)):
        raise DataError(f"data_dir: expected a folder with {known.form}, got {os.fspath(data_dir)}")
    return Path(data_dir)


def _load_path(path: Path, how: How) -> Splits:
    plain, _, column = (str(path), "", "") if path.exists() else str(path).rpartition("#")
    of_hub = hub.files(Path(plain)) if plain else None
    if of_hub is not None:
        return hub.load_files(Path(plain), column, *of_hub, how)
    if path.is_dir():
        return folder.load(path, how)
    try:
        # A pipe would be waited for.
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: expected a plain file or a folder, got something else")
        with open(path, "rb") as file:
            head = file.read(4)
    except FileNotFoundError:
        raise DataError(f"data: expected {', '.join(names())}, or the path of a file or folder, got {str(path)!r}") from None
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: expected a readable file or folder, got: {getattr(error, 'strerror', None) or error}"
        ) from error
    if head == b"\x93NUM" or path.suffix == ".npy":
        return complete({"train": (as_images(npz.load_array(path), str(path)), None)}, path.stem)
    if head[:2] == b"PK" or path.suffix == ".npz":
        return complete(npz.load(path), path.stem)
    if head[:2] in (b"\0\0", b"\x1f\x8b") or "idx" in path.name:
        return complete({"train": (as_images(idx.read(path), str(path)), None)}, path.name)
    if head == b"MATL" or path.suffix == ".mat":
        return _load_matlab(path)
    raise DataError(
        f"{path}: expected an .npz or .npy file, an idx file (also gzipped), a .mat file or a folder of images, "
        "got another kind of file"
    )


def _load_matlab(path: Path) -> Splits:
    there = matlab.names(path)
    if {"X", "y"} <= there.keys():
        return complete({"train": svhn.read_cropped(path)}, path.stem)
    if {"data", "testdata"} <= there.keys():
        return omniglot.read(path, path.stem)
    raise DataError(
        f"{path}: expected arrays X and y, as SVHN's cropped digits have, or data and testdata, as Omniglot has, "
        f"got {', '.join(there) or 'none'}"
    )
