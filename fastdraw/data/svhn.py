"""Street View House Numbers (Netzer et al. 2011): full numbers as the paper uses them, or cropped digits of 32 x 32.

Its page says: for non-commercial use only.
"""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import numpy as np

from fastdraw.data import housenumbers, matlab
from fastdraw.data.arrays import as_images
from fastdraw.data.cache import prepared
from fastdraw.data.crops import RandomCrops, central
from fastdraw.data.download import fetch, original
from fastdraw.data.npz import Arrays
from fastdraw.data.splits import DataError, Parts, Splits, complete

#: One server under two addresses.
MIRRORS = tuple(f"{scheme}://ufldl.stanford.edu/housenumbers/" for scheme in ("https", "http"))
#: md5 as three public sources give them independently: a data set's version control, and two loaders.
ARCHIVES = {
    "train": ("train.tar.gz", "a649f4cb15c35520e8a8c342d4c0005a"),
    "test": ("test.tar.gz", "790d9c8d42f1fcbd219b59956c853a81"),
    "extra": ("extra.tar.gz", "606f41243d71ca4d5fe66dbaf1f02bee"),
}
CROPPED = {part: f"{part}_32x32.mat" for part in ARCHIVES}
CROPPED_MD5 = {
    "train": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test": "eb5a983be6a315427106f1b164d9cef3",
    "extra": "a93ce644f1a588dc4d68dda5feec44a7",
}
SMALL = "svhn_small.npz"
FORM = f"train.tar.gz and test.tar.gz, or what they unpack to, {SMALL}, or train_32x32.mat and test_32x32.mat"
FORM_EXTRA = "train.tar.gz, extra.tar.gz and test.tar.gz, or what they unpack to, or the three _32x32.mat"

#: Height and width of what a model gets, out of images of 64 x 64.
CROP = 54
#: The paper validates on 4,701 images, of all 235,755.
_MOST_VALIDATION = 4_701
#: Counts up when prepared images come to differ from those that are in a cache.
_VERSION = 1


def load(folder: Path | None, download: bool, progress: bool, extra: bool = False) -> Splits:
    """House numbers: random crops of 54 x 54 out of 64 x 64 to train on, central ones to validate and to test on; no labels.

    Without a folder, 383 + 264 MiB are downloaded, and 1.8 GiB with `extra`; the 64 x 64 images made of them are kept in the
    cache. The validation split is dealt out of the training images: a tenth of them, but at most the paper's 4,701.
    extra: whether the additional images are trained on too, as in the paper: 231,054 / 4,701 / 13,068 instead of 30,062 /
           3,340 / 13,068. Of those in the folder, cropped digits have class numbers as labels, and are 32 x 32 and whole.
    """
    wanted = ("train", "extra", "test") if extra else ("train", "test")
    name = "svhn-extra" if extra else "svhn"
    sources: dict[str, Path] | dict[str, None] | None = dict.fromkeys(wanted) if folder is None else _sources(folder, wanted)
    if folder is not None and sources is None:
        if (folder / SMALL).exists() and not extra:
            return _cropping(_from_small(folder / SMALL), name)
        return _cropped(folder, wanted, name)
    assert sources is not None
    found = {part: _full_numbers(part, sources[part], download, progress) for part in wanted}
    train = np.concatenate((found["train"], found["extra"])) if extra else found["train"]
    return _cropping({"train": (train, None), "test": (found["test"], None)}, name)


def holds(folder: Path, extra: bool = False) -> bool:
    parts = ("train", "extra", "test") if extra else ("train", "test")
    whole = _sources(folder, parts) is not None or all((folder / CROPPED[part]).exists() for part in parts)
    return whole or (not extra and (folder / SMALL).exists())


def read_cropped(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A file like train_32x32.mat -> (uint8 [n, 3, 32, 32], class numbers [n], the digit zero being 0)."""
    pixels, labels = matlab.read(path, "X", "y")
    if pixels.ndim != 4 or pixels.shape[2] != 3 or labels.size != pixels.shape[3]:
        raise DataError(
            f"{path}: expected X of shape [H, W, 3, n] and y of n numbers, got {list(pixels.shape)} and {list(labels.shape)}"
        )
    labels = labels.ravel().astype(np.int64)
    if labels.min() < 0 or labels.max() > 10:
        raise DataError(f"{path}: expected class numbers from 1 to 10, got some from {labels.min()} to {labels.max()}")
    # MATLAB counts from one, so the digit zero is ten there.
    return as_images(pixels.transpose(3, 2, 0, 1), str(path)), labels % 10


def _sources(folder: Path, parts: tuple[str, ...]) -> dict[str, Path] | None:
    """The archive or folder of each part; None where one has neither."""
    found = {}
    for part in parts:
        if (folder / part / housenumbers.BOXES).exists():
            found[part] = folder / part
        elif (folder / ARCHIVES[part][0]).exists():
            found[part] = folder / ARCHIVES[part][0]
        else:
            return None
    return found


def _full_numbers(part: str, source: Path | None, download: bool, progress: bool) -> np.ndarray:
    """uint8 [n, 3, 64, 64] of an archive or folder; None: of the published archive, which is needed this once only."""
    archive, md5 = ARCHIVES[part]

    def prepare() -> np.ndarray:
        if source is None:
            # The largest has 1.8 GiB.
            file = fetch(archive, md5, MIRRORS, download, progress, largest=1 << 31)
        else:
            file = source if source.is_dir() else original(source, md5)
        return housenumbers.read(file, part, progress)

    made_of = md5 if source is None else housenumbers.stamp(source)
    key = blake2b(repr((made_of, _VERSION)).encode(), digest_size=8).hexdigest()
    return prepared(f"svhn-{part}-{key}", prepare)


def _cropped(folder: Path, parts: tuple[str, ...], name: str) -> Splits:
    train, *rest = (read_cropped(original(folder / CROPPED[part], CROPPED_MD5[part])) for part in parts)
    test = rest.pop()
    for pixels, labels in rest:
        train = np.concatenate((train[0], pixels)), np.concatenate((train[1], labels))
    return complete({"train": train, "test": test}, name, most_validation=_MOST_VALIDATION)


def _from_small(path: Path) -> Parts:
    """svhn_small.npz: `images` of 64 x 64 made as housenumbers does, and `is_test`, one for those to test on."""
    with Arrays(path) as arrays:
        pixels, is_test = arrays.images("images"), arrays.read("is_test")
    if pixels.shape[1:] != (3, housenumbers.SIDE, housenumbers.SIDE) or is_test.shape != (len(pixels),):
        shapes = f"{list(pixels.shape)} and {list(is_test.shape)}"
        raise DataError(f"{path}: expected images of shape [n, 3, 64, 64] and is_test of shape [n], got {shapes}")
    testing = is_test != 0
    return {"train": (pixels[~testing], None), "test": (pixels[testing], None)}


def _cropping(parts: Parts, name: str) -> Splits:
    whole = complete(parts, name, most_validation=_MOST_VALIDATION)
    validation, test = central(whole.validation, CROP), central(whole.test, CROP)
    return whole._replace(validation=validation, test=test, make=RandomCrops(CROP))
