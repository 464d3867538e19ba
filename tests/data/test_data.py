"""Data sets by name: digits, and MNIST in both forms from folders."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from datafiles import (
    BINARIZED,
    IDX_FILES,
    MNIST,
    REAL,
    amat_bytes,
    check_form,
    idx_bytes,
    npz_bytes,
    packed,
    pixels,
    same,
    sizes,
)

from fastdraw import data
from fastdraw.data import DataError, mnist

pytestmark = pytest.mark.usefixtures("miniatures")


@pytest.fixture
def miniature(tmp_path) -> Path:
    """A folder with small files of the very forms that the real ones have."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "mnist.npz").write_bytes(npz_bytes(**MNIST))
    shape = np.array([[len(bits), 784] for bits in BINARIZED.values()], np.int32)
    (folder / "binarized_mnist.npz").write_bytes(
        npz_bytes(**{part: packed(bits) for part, bits in BINARIZED.items()}, shape=shape)
    )
    return folder


def test_digits():
    splits = data.load("digits")
    check_form(splits, 1, 28, 28)
    assert sizes(splits) == (1437, 180, 180)
    assert splits.labels is not None
    for images, labels in zip(splits[:3], splits.labels, strict=True):
        assert len(images) == len(labels)
        counts = labels.bincount(minlength=10)
        # Each class has its share to within one image.
        share = torch.cat(splits.labels).bincount() * len(labels) / 1797
        assert (counts - share).abs().max() < 1.5
    # Every digit is there once, as the bitmap's ink says: enlarging moves no digit to another label.
    from sklearn.datasets import load_digits

    assert torch.equal(torch.cat(splits.labels).bincount(), torch.from_numpy(load_digits().target).bincount())
    everything = torch.cat(splits[:3]).flatten(1)
    assert len(torch.unique(everything, dim=0)) == len(np.unique(load_digits().data, axis=0))
    # The rim is blank as MNIST's is, and ink reaches full white.
    blank = torch.cat(splits[:3]).clone()
    blank[:, :, 3:-3, 3:-3] = 0
    assert blank.max() == 0
    assert everything.max() == 255


def test_digits_stand_where_the_small_ones_do():
    small = np.zeros((8, 8))
    small[2, 5] = small[3, 5] = small[2, 4] = small[3, 4] = 16
    large = data.digits.enlarge(small)
    rows, columns = np.nonzero(large > 127)
    # Pixel a of 8 reaches from 4 + 2.5 a to 4 + 2.5 (a + 1).
    assert (rows.mean() + 0.5, columns.mean() + 0.5) == pytest.approx((4 + 2.5 * 3, 4 + 2.5 * 5), abs=0.01)
    # Two of them are five wide; a corner may be rounded off.
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == pytest.approx((5, 5), abs=1)


def test_digits_are_the_same_each_time():
    assert all(torch.equal(one, other) for one, other in zip(data.load("digits")[:3], data.load("digits")[:3], strict=True))


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_mnist_from_a_folder(miniature, monkeypatch, how):
    if how == "variable":
        monkeypatch.setenv("FASTDRAW_DATA", str(miniature))
    splits = data.load("mnist", miniature if how == "argument" else None, download=False)
    check_form(splits, 1, 28, 28)
    assert same(splits.train, MNIST["train_images"][:50])
    assert same(splits.validation, MNIST["train_images"][50:])
    assert same(splits.test, MNIST["test_images"])
    assert splits.labels is not None
    assert same(splits.labels.train, MNIST["train_labels"][:50])
    assert same(splits.labels.test, MNIST["test_labels"])


def test_binarized_mnist_from_a_folder(miniature):
    splits = data.load("binarized-mnist", miniature)
    check_form(splits, 1, 28, 28)
    for images, bits in zip(splits[:3], BINARIZED.values(), strict=True):
        assert same(images, bits * 255)


@pytest.mark.parametrize("form", ["{}.gz", "{}", "dotted"])
def test_mnist_from_idx_files(tmp_path, form):
    for name, content in IDX_FILES.items():
        file = tmp_path / (name.replace("-idx", ".idx") if form == "dotted" else form.format(name))
        file.write_bytes(gzip.compress(content, mtime=0) if file.suffix == ".gz" else content)
    splits = data.load("mnist", tmp_path)
    assert same(splits.train, MNIST["train_images"][:50])
    assert splits.labels is not None
    assert same(splits.labels.test, MNIST["test_labels"])


def test_binarized_mnist_from_text(tmp_path):
    for part, bits in BINARIZED.items():
        (tmp_path / f"binarized_mnist_{part}.amat").write_bytes(amat_bytes(bits))
    splits = data.load("binarized-mnist", tmp_path)
    assert same(splits.validation, BINARIZED["valid"] * 255)


@pytest.mark.parametrize("wrong", [b"", b"0 1 ", amat_bytes(BINARIZED["train"]).replace(b"1", b"2"), b"0,1," * 392])
def test_damaged_text(tmp_path, wrong):
    for part in BINARIZED:
        (tmp_path / f"binarized_mnist_{part}.amat").write_bytes(wrong)
    with pytest.raises(DataError, match=r"binarized_mnist_train.amat: expected "):
        data.load("binarized-mnist", tmp_path)


@pytest.fixture(params=["miniature", "real"] if (REAL / "mnist.npz").exists() else ["miniature"])
def folder(request, miniature) -> tuple[Path, list[str], list[str]]:
    """A folder with mnist.npz and binarized_mnist.npz, md5 of the idx images in it, and md5 of the binarised text."""
    if request.param == "real":
        # The published ones; those of the text are the ones that downloads are checked by.
        texts = [md5 for _, md5 in mnist.BINARIZED.values()]
        return REAL, ["6bbc9ace898e44ae57da46a324031adb", "2646ac647ad5339dbf082846283269ea"], texts
    images = [hashlib.md5(idx_bytes(MNIST[key])).hexdigest() for key in ("train_images", "test_images")]
    return miniature, images, [hashlib.md5(amat_bytes(bits)).hexdigest() for bits in BINARIZED.values()]


def test_mnist_holds_every_byte_of_the_original(folder):
    path, images, _ = folder
    splits = data.load("mnist", path)
    assert len(splits.train) == 5 * len(splits.validation)
    for part, md5 in zip((torch.cat(splits[:2]), splits.test), images, strict=True):
        assert hashlib.md5(idx_bytes(part[:, 0].numpy())).hexdigest() == md5


def test_binarized_mnist_holds_every_byte_of_the_original(folder):
    path, _, texts = folder
    for images, md5 in zip(data.load("binarized-mnist", path)[:3], texts, strict=True):
        text = np.full((len(images), 784, 2), ord(" "), np.uint8)
        text[..., 0] = images.flatten(1).numpy() // 255 + ord("0")
        text[:, -1, 1] = ord("\n")
        assert hashlib.md5(text.tobytes()).hexdigest() == md5


def test_files_under_the_originals_names(tmp_path, monkeypatch):
    """Fashion-MNIST and others have MNIST's names for their files; and files are damaged on the way."""
    for name, content in IDX_FILES.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(IDX_FILES["t10k-labels-idx1-ubyte"][:-1] + b"\x07")
    with pytest.raises(DataError, match=r"expected MNIST's own test labels \(md5 [0-9a-f]{32} unpacked\), got others"):
        data.load("mnist", tmp_path)
    # As one's own they are welcome.
    assert same(data.load(tmp_path / "t10k-images-idx3-ubyte").train, MNIST["test_images"][np.sort(order(12)[2:])])
    monkeypatch.undo()
    for name, file in (
        ("binarized-mnist", "binarized_mnist_train.amat"),
        ("cifar10", "cifar-10-binary.tar.gz"),
        ("svhn", "train.tar.gz"),
    ):
        for other in (file, "test.tar.gz"):
            (tmp_path / other).write_bytes(amat_bytes(BINARIZED["train"]))
        monkeypatch.setenv("FASTDRAW_CACHE", str(tmp_path / "cache"))
        with pytest.raises(DataError, match=rf"{file}: expected the original file \(md5 [0-9a-f]{{32}}\), got a damaged one"):
            data.load(name, tmp_path)


def order(n: int) -> np.ndarray:
    return np.random.RandomState(0).permutation(n)


def test_folder_without_the_data(tmp_path):
    for name in ("mnist", "binarized-mnist"):
        with pytest.raises(DataError, match=r"^data_dir: expected a folder with .*mnist"):
            data.load(name, tmp_path)
    with pytest.raises(DataError, match=r"^data: expected digits, mnist, binarized-mnist, .*, or the path .* got 'mnits'"):
        data.load("mnits")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "mnist",
            {"train_images": pixels(6, 8, 8), "test_images": pixels(6, 8, 8)},
            r"expected images of shape \[1, 28, 28\]",
        ),
        ("mnist", {"train_images": pixels(1, 28, 28), "test_images": pixels(6, 28, 28)}, "expected more than one image"),
        ("binarized-mnist", {"train": pixels(9, 28, 28), "test": pixels(9, 28, 28)}, "expected binary images, got grey"),
    ],
)
def test_named_sets_of_another_form(tmp_path, name, content, message):
    (tmp_path / f"{name.replace('-', '_')}.npz").write_bytes(npz_bytes(**content))
    with pytest.raises(DataError, match=message):
        data.load(name, tmp_path)


# What a batch becomes.


def test_images_and_binarize():
    batch = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    x = data.images(batch)
    assert x.dtype == torch.float32
    assert torch.equal(x, batch / 255)
    many = batch.expand(4000, 1, 16, 16)
    bits = data.binarize(many, torch.Generator().manual_seed(0))
    assert set(bits.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(bits, data.binarize(many, torch.Generator().manual_seed(0)))
    assert not torch.equal(bits, data.binarize(many, torch.Generator().manual_seed(1)))
    # Five standard errors of 4000 draws.
    p = x[0].double()
    assert ((bits.double().mean(0) - p).abs() <= 5 * (p * (1 - p) / 4000).sqrt()).all()


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r'digits needs sklearn.*pip install "fastdraw-torch\[train\]"'):
        data.load("digits")
