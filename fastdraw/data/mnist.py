"""MNIST, and its fixed binarisation (Salakhutdinov and Murray 2008), which the paper measures nats on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastdraw.data import idx, npz
from fastdraw.data.arrays import as_images, as_labels, reading
from fastdraw.data.download import fetch, original
from fastdraw.data.splits import DataError, Parts, Splits, check_shape, complete

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://raw.githubusercontent.com/fgnt/mnist/master/",
)
BINARIZED_MIRRORS = tuple(
    f"{scheme}://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/" for scheme in ("https", "http")
)

#: Names and md5 of the original files.
TRAIN_IMAGES = ("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873")
TRAIN_LABELS = ("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432")
TEST_IMAGES = ("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3")
TEST_LABELS = ("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c")
BINARIZED = {
    "train": ("binarized_mnist_train.amat", "db28b1a6ae0fe70cbd3da91acf46e477"),
    "validation": ("binarized_mnist_valid.amat", "bf37822a04e94123630de6a7dfd9c9ef"),
    "test": ("binarized_mnist_test.amat", "14e41ae11040adba6ab8cb291eda0dd8"),
}
#: md5 of the idx files of MNIST once unpacked, by what they hold.
UNPACKED = {
    "train images": "6bbc9ace898e44ae57da46a324031adb",
    "train labels": "a25bea736e30d166cdddb491f175f624",
    "test images": "2646ac647ad5339dbf082846283269ea",
    "test labels": "27ae3e4e09519cfbb04c329615203637",
}
#: What a folder may hold them as, for messages.
FORMS = {
    "mnist": "mnist.npz or the idx files of MNIST",
    "binarized-mnist": "binarized_mnist.npz or binarized_mnist_train.amat, _valid.amat and _test.amat",
}


def load(folder: Path | None, download: bool, progress: bool) -> Splits:
    """MNIST from mnist.npz or the four idx files in `folder`; from the cache or the network where that is None.

    The last sixth of the training images are the validation split: 50,000 / 10,000 / 10,000.
    """
    if folder is None:
        wanted = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)
        parts = _from_idx([fetch(*file, MIRRORS, download, progress) for file in wanted])
    elif (folder / "mnist.npz").exists():
        parts = npz.load(folder / "mnist.npz")
    else:
        parts = _from_idx([_idx_file(folder, name) for name, _ in (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)])
        _check_original(parts, folder)
    check_shape(parts, (1, 28, 28), folder)
    if "validation" not in parts:
        pixels, labels = parts["train"]
        kept = len(pixels) * 5 // 6
        if kept == 0:
            raise DataError(f"{folder}: expected more than one image to train on, got {len(pixels)}")
        parts["train"] = (pixels[:kept], None if labels is None else labels[:kept])
        parts["validation"] = (pixels[kept:], None if labels is None else labels[kept:])
    return complete(parts, "mnist")


def load_binarized(folder: Path | None, download: bool, progress: bool) -> Splits:
    """The fixed binarisation from binarized_mnist.npz or the three .amat files in `folder`; otherwise as `load`.

    50,000 / 10,000 / 10,000 as Larochelle split them, which is not MNIST's order; without labels.
    """
    if folder is not None and (folder / "binarized_mnist.npz").exists():
        parts = npz.load(folder / "binarized_mnist.npz")
    else:
        parts = {}
        for part, (name, md5) in BINARIZED.items():
            file = fetch(name, md5, BINARIZED_MIRRORS, download, progress) if folder is None else original(folder / name, md5)
            parts[part] = (_from_text(file), None)
    check_shape(parts, (1, 28, 28), folder)
    for part, (pixels, _) in parts.items():
        if ((pixels != 0) & (pixels != 255)).any():
            raise DataError(f"{folder}: expected binary images, got grey ones in {part}")
    return complete(parts, "binarized-mnist")


def holds(folder: Path, name: str) -> bool:
    """Whether `folder` has the data set of that name, in one of its forms."""
    if name == "mnist":
        return (folder / "mnist.npz").exists() or _idx_file(folder, TRAIN_IMAGES[0]).exists()
    return (folder / "binarized_mnist.npz").exists() or (folder / BINARIZED["train"][0]).exists()


def _idx_file(folder: Path, name: str) -> Path:
    """The file under one of the names that it goes by, gzipped or not; under the first where there is none."""
    plain = name.removesuffix(".gz")
    names = (name, plain, plain.replace("-idx", ".idx"), plain.replace("-idx", ".idx") + ".gz")
    return next((folder / n for n in names if (folder / n).exists()), folder / name)


def _from_idx(files: list[Path]) -> Parts:
    parts: Parts = {}
    for part, (image_file, label_file) in zip(("train", "test"), (files[:2], files[2:]), strict=True):
        pixels = as_images(idx.read(image_file), str(image_file))
        parts[part] = (pixels, as_labels(idx.read(label_file, (1,)), len(pixels), str(label_file)))
    return parts


def _check_original(parts: Parts, folder: Path) -> None:
    """Refuses idx files under MNIST's names that are not MNIST's, as those of its many likes are."""
    for part, (pixels, labels) in parts.items():
        assert labels is not None
        for what, array in (("images", pixels[:, 0] if pixels.shape[1] == 1 else pixels), ("labels", labels)):
            if idx.md5_of(array) != UNPACKED[f"{part} {what}"]:
                raise DataError(
                    f"{folder}: expected MNIST's own {part} {what} (md5 {UNPACKED[f'{part} {what}']} unpacked), got others; "
                    "as images of one's own they are named by the path of their file"
                )


def _from_text(path: Path) -> np.ndarray:
    """Lines of 784 digits 0 or 1 with single spaces between them -> uint8 [n, 1, 28, 28], 0 and 255."""
    with reading(path):
        text = np.fromfile(path, np.uint8)
    if not len(text) or len(text) % (2 * 784):
        raise DataError(f"{path}: expected lines of {2 * 784} bytes, got {len(text):,} bytes")
    lines = text.reshape(-1, 784, 2)
    bits = lines[..., 0] - np.uint8(ord("0"))
    if bits.max() > 1 or not np.isin(lines[..., 1], (ord(" "), ord("\n"))).all():
        raise DataError(f"{path}: expected digits 0 and 1 with single spaces between them, got something else")
    return bits.reshape(-1, 1, 28, 28) * np.uint8(255)
