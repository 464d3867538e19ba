"""Data sets: by name, from files of every form, over the network, and every way in which they can be broken."""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import os
import struct
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fastdraw import data
from fastdraw.data import DataError, arrays, download, mnist

#: Where the real files lie, on a machine that has them.
REAL = Path(os.environ.get("FASTDRAW_DATA") or Path(__file__).parents[2] / "shared" / "data")


@pytest.fixture(autouse=True)
def no_settings(monkeypatch, tmp_path):
    """Neither this machine's data nor its cache."""
    monkeypatch.delenv("FASTDRAW_DATA", raising=False)
    monkeypatch.setenv("FASTDRAW_CACHE", str(tmp_path / "cache"))


def pixels(*shape: int, seed: int = 0, binary: bool = False) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2 if binary else 256, shape).astype(np.uint8)


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def amat_bytes(bits: np.ndarray) -> bytes:
    return b"".join(b" ".join(b"%d" % bit for bit in row) + b"\n" for row in bits.reshape(len(bits), -1))


def packed(bits: np.ndarray) -> np.ndarray:
    return np.packbits(bits.reshape(len(bits), -1), axis=1)


def npz_bytes(**named: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **named)
    return file.getvalue()


MNIST = {
    "train_images": pixels(60, 28, 28),
    "train_labels": pixels(60) % 10,
    "test_images": pixels(12, 28, 28, seed=1),
    "test_labels": pixels(12, seed=1) % 10,
}
BINARIZED = {part: pixels(n, 28, 28, seed=n, binary=True) for part, n in (("train", 50), ("valid", 11), ("test", 12))}
IDX_FILES = {
    name: idx_bytes(MNIST[key])
    for name, key in zip(
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
        MNIST,
        strict=True,
    )
}


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


def check_form(splits: data.Splits, *shape: int) -> None:
    for part in splits[:3]:
        assert part.dtype == torch.uint8
        assert part.is_contiguous()
        assert tuple(part.shape[1:]) == shape
        assert len(part) > 0


def same(images: torch.Tensor, array: np.ndarray) -> bool:
    return np.array_equal(images.numpy(), array.reshape(images.shape))


def sizes(splits: data.Splits) -> tuple[int, int, int]:
    return len(splits.train), len(splits.validation), len(splits.test)


# Data sets by name.


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
        file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
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


def test_folder_without_the_data(tmp_path):
    for name in ("mnist", "binarized-mnist"):
        with pytest.raises(DataError, match=r"^data_dir: expected a folder with .*mnist"):
            data.load(name, tmp_path)
    with pytest.raises(DataError, match=r"^data: expected digits, mnist, binarized-mnist, or the path .* got 'mnits'"):
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


# Files of one's own.


def load_npz(tmp_path, **named: np.ndarray) -> data.Splits:
    (tmp_path / "some.npz").write_bytes(npz_bytes(**named))
    return data.load(tmp_path / "some.npz")


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (pixels(20, 5, 7), (1, 5, 7)),
        (pixels(20, 5, 7, 1), (1, 5, 7)),
        (pixels(20, 1, 5, 7), (1, 5, 7)),
        (pixels(20, 5, 7, 3), (3, 5, 7)),
        (pixels(20, 3, 5, 7), (3, 5, 7)),
        # Fortran order, and a dimension of one.
        (np.asfortranarray(pixels(20, 5, 7)), (1, 5, 7)),
        (pixels(20, 1, 7), (1, 1, 7)),
    ],
)
def test_npz_of_a_single_array(tmp_path, array, shape):
    splits = load_npz(tmp_path, anything=array)
    check_form(splits, *shape)
    assert sizes(splits) == (16, 2, 2)
    assert splits.labels is None
    assert splits.name == "some"
    last = array.ndim == 4 and array.shape[-1] in (1, 3)
    wanted = np.moveaxis(array, -1, 1) if last else array
    assert sorted(image.numpy().tobytes() for part in splits[:3] for image in part) == sorted(
        np.ascontiguousarray(image).tobytes() for image in wanted
    )


def test_labels_stay_with_their_images(tmp_path):
    array = np.repeat(np.arange(40, dtype=np.uint8), 16).reshape(40, 4, 4)
    splits = load_npz(tmp_path, images=array, labels=np.arange(40))
    assert splits.labels is not None
    for images, labels in zip(splits[:3], splits.labels, strict=True):
        assert torch.equal(images[:, 0, 0, 0].long(), labels)
    again = load_npz(tmp_path, images=array, labels=np.arange(40))
    assert torch.equal(splits.test, again.test)


@pytest.mark.parametrize(
    "keys", [("train", "validation", "test"), ("train_images", "valid", "test_images"), ("x_train", "x_valid", "x_test")]
)
def test_npz_with_splits(tmp_path, keys):
    parts = [pixels(n, 4, 4, seed=n) for n in (6, 2, 3)]
    splits = load_npz(tmp_path, **dict(zip(keys, parts, strict=True)))
    assert all(same(images, part) for images, part in zip(splits[:3], parts, strict=True))


def test_npz_without_validation(tmp_path):
    splits = load_npz(tmp_path, train_images=pixels(20, 4, 4), test_images=pixels(5, 4, 4, seed=1))
    assert sizes(splits) == (18, 2, 5)
    assert same(splits.test, pixels(5, 4, 4, seed=1))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.dtype(">f4")])
def test_floats_are_intensities(tmp_path, dtype):
    array = pixels(20, 4, 4)
    splits = load_npz(tmp_path, train=(array / 255).astype(dtype), test=array[:2], validation=array[:2])
    assert same(splits.train, array)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
def test_zeros_and_ones_are_black_and_white(tmp_path, dtype):
    bits = pixels(20, 4, 4, binary=True)
    splits = load_npz(tmp_path, train=bits.astype(dtype), test=bits[:2], validation=bits[:2])
    assert same(splits.train, bits * 255)


def test_idx_file(tmp_path):
    array = pixels(20, 4, 6)
    for name, content in (("some", idx_bytes(array)), ("some.gz", gzip.compress(idx_bytes(array)))):
        (tmp_path / name).write_bytes(content)
        splits = data.load(str(tmp_path / name))
        check_form(splits, 1, 4, 6)
        assert sizes(splits) == (16, 2, 2)


def test_image_size(tmp_path):
    # Left half black, right half white; the middle part keeps the border in its middle.
    array = np.zeros((10, 8, 16), np.uint8)
    array[:, :, 8:] = 255
    (tmp_path / "some.npz").write_bytes(npz_bytes(a=array))
    splits = data.load(tmp_path / "some.npz", image_size=(4, 4))
    check_form(splits, 1, 4, 4)
    assert (splits.train[..., 0] < 32).all()
    assert (splits.train[..., 3] > 223).all()
    for wrong in ((0, 4), (4,), 4):
        with pytest.raises(ValueError, match=r"^image_size: expected "):
            data.load(tmp_path / "some.npz", image_size=wrong)


NONE = "expected arrays named train, validation and test"


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"a": pixels(5, 4, 4), "b": pixels(5, 4, 4)}, NONE),
        ({"test": pixels(5, 4, 4)}, NONE),
        ({}, NONE),
        ({"a": pixels(2, 4, 4)}, "expected at least 3 images"),
        ({"a": pixels(0, 4, 4)}, "expected at least one image"),
        ({"a": pixels(5, 0, 4)}, "expected at least one image"),
        ({"a": pixels(5, 16)}, "expected images of shape"),
        ({"a": pixels(5, 4, 4, 2)}, "expected images of shape"),
        ({"a": pixels(5, 3, 4, 3)}, "expected images of shape"),
        ({"a": pixels(5, 4, 4).astype(np.int64)}, "expected uint8, bool or floating-point values, got int64"),
        ({"a": pixels(5, 4, 4).astype(np.float32)}, r"expected floating-point values in \[0, 1\]"),
        ({"a": np.full((5, 4, 4), np.nan)}, r"expected floating-point values in \[0, 1\]"),
        ({"a": np.full((5, 4, 4), "x")}, "expected an array of numbers, got <U1"),
        ({"a": np.full((5, 4, 4), 1j)}, "expected an array of numbers, got complex128"),
        ({"a": np.full((5, 4, 4), None)}, "expected an array of numbers, got pickled objects"),
        ({"train": pixels(5, 4, 4), "test": pixels(5, 4, 5)}, "expected images of one shape"),
        ({"images": pixels(5, 4, 4), "labels": pixels(4)}, "expected 5 labels"),
        ({"images": pixels(5, 4, 4), "labels": np.zeros(5)}, "expected 5 labels, integers"),
        ({"train": pixels(5, 98), "shape": np.array([[5, 783]])}, "expected rows of packed bits"),
        ({"train": pixels(5, 98), "shape": np.array([[5, 900]])}, "expected rows of packed bits"),
        ({"train": pixels(5, 98), "shape": np.zeros((0, 2), int)}, "expected rows of packed bits"),
        ({"train": pixels(5, 98), "shape": np.array([[5, -784]])}, "expected rows of packed bits"),
    ],
)
def test_npz_of_another_form(tmp_path, named, message):
    with pytest.raises(DataError, match=message) as caught:
        load_npz(tmp_path, **named)
    assert str(tmp_path / "some.npz") in str(caught.value) or str(caught.value).startswith("some: ")


def npz_with(header: bytes, content: bytes = b"") -> bytes:
    """An .npz whose array a.npy claims to be what `header` says."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content)
    return file.getvalue()


def header(shape: str, dtype: str = "|u1") -> bytes:
    return f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}\n".encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK",
        b"PK\x05\x06" + bytes(18),
        b"\x93NUMPY",
        npz_with(b""),
        npz_with(b"__import__('os').getcwd()"),
        npz_with(header("(5, 4, 4)"), bytes(79)),
        npz_with(header("(5, 4, 4)"), bytes(81)),
        npz_with(header("(1000000, 1000000, 1000000)"), bytes(80)),
        npz_with(header("(5, -4, -4)"), bytes(80)),
        npz_with(header("(5, 4, 4)", "|O"), bytes(80)),
        npz_with(b"(" * 5000),
    ],
)
def test_hostile_npz(tmp_path, content):
    (tmp_path / "some.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"some\.npz.*: expected "):
        data.load(tmp_path / "some.npz")


@pytest.mark.parametrize("kind", ["npz", "idx.gz", "idx of nothing"])
def test_decompression_bombs(tmp_path, monkeypatch, kind):
    """Zeros pack a thousand times smaller: refused by the size that is stated, with nothing unpacked."""
    monkeypatch.setattr(arrays, "LARGEST_SMALL", 1 << 16)
    blank = np.zeros((3, 1000, 1000), np.uint8)
    content = {
        "npz": npz_bytes(a=blank),
        "idx.gz": gzip.compress(idx_bytes(blank)),
        "idx of nothing": struct.pack(">4B3I", 0, 0, 8, 3, *(2**32 - 1,) * 3),
    }[kind]
    path = tmp_path / ("some.npz" if kind == "npz" else "some")
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"some.*: expected at most [\d,]+ bytes unpacked for a file of its size, got "):
        data.load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "another kind of file"),
        (b"\0", "another kind of file"),
        (b"text", "another kind of file"),
        (b"\0\0", "expected an idx file"),
        (b"\x1f\x8b", "expected a whole gzip file"),
        (b"\0\0\x0d\x03" + bytes(12), "expected unsigned bytes"),
        (idx_bytes(pixels(9)), "in 3 or 4 dimensions, got type 8 in 1"),
        (idx_bytes(pixels(9, 4, 4))[:10], "expected an idx header of 16 bytes, got 10"),
        (idx_bytes(pixels(9, 4, 4))[:-1], "expected 144 bytes for 9 x 4 x 4 values, got 143"),
        (idx_bytes(pixels(9, 4, 4)) + b"x", "expected 144 bytes for 9 x 4 x 4 values, got more"),
        (idx_bytes(pixels(0, 4, 4)), "expected at least one image"),
        (gzip.compress(idx_bytes(pixels(9, 4, 4)))[:-9], "expected a whole gzip file"),
        (gzip.compress(b"text"), "expected an idx file"),
    ],
)
def test_damaged_idx(tmp_path, content, message):
    (tmp_path / "some").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        data.load(tmp_path / "some")
    assert str(caught.value).startswith(str(tmp_path / "some"))


WHOLE = {
    "npz": npz_bytes(train=pixels(8, 4, 4), test=pixels(3, 4, 4), train_labels=pixels(8), test_labels=pixels(3)),
    "idx": idx_bytes(pixels(12, 4, 4)),
    "gz": gzip.compress(idx_bytes(pixels(12, 4, 4))),
}


@settings(max_examples=300, deadline=None)
@given(
    form=st.sampled_from(sorted(WHOLE)),
    cut=st.floats(0, 1),
    damage=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
)
def test_damaged_files_load_or_are_refused(form, cut, damage):
    """No bytes raise anything but DataError, and what loads is whole."""
    content = bytearray(WHOLE[form][: round(cut * len(WHOLE[form]))])
    for place, value in damage:
        if content:
            content[int(place * (len(content) - 1))] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"some.{form}")
        path.write_bytes(content)
        result = loaded_or_said(path)
    if isinstance(result, str):
        assert ": expected " in result
        assert "some" in result
    else:
        assert all(part.dtype == torch.uint8 and part.numel() for part in result[:3])
        assert len({part.shape[1:] for part in result[:3]}) == 1


def loaded_or_said(path: Path) -> data.Splits | str:
    try:
        return data.load(path)
    except DataError as error:
        return str(error)


# Folders of images.


def save_image(path: Path, array: np.ndarray, mode: str | None = None, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)


def test_folder_of_images(tmp_path):
    images = pixels(20, 5, 7)
    for i, image in enumerate(images):
        save_image(tmp_path / "set" / f"class{i % 2}" / f"{i:02}.png", image)
    (tmp_path / "set" / "README.txt").write_text("not an image")
    (tmp_path / "set" / ".hidden.png").write_text("not an image")
    splits = data.load(tmp_path / "set")
    check_form(splits, 1, 5, 7)
    assert sizes(splits) == (16, 2, 2)
    assert splits.name == "set"
    # The order is that of the names: all of class0, then all of class1.
    ordered = np.concatenate([images[::2], images[1::2]])
    rows = [next(i for i, image in enumerate(ordered) if np.array_equal(image, one[0])) for one in splits.train.numpy()]
    assert rows == sorted(rows)


@pytest.mark.parametrize(("grey", "colour", "channels"), [(5, 4, 1), (4, 5, 3), (5, 5, 3)])
def test_most_images_decide_the_mode(tmp_path, grey, colour, channels):
    for i in range(grey + colour):
        save_image(tmp_path / f"{i}.png", pixels(4, 4) if i < grey else pixels(4, 4, 3))
    check_form(data.load(tmp_path), channels, 4, 4)


def test_modes_become_what_they_show(tmp_path):
    white = np.full((4, 4, 3), 255, np.uint8)
    save_image(tmp_path / "1.png", white, "1")
    save_image(tmp_path / "2.gif", white, "P")
    save_image(tmp_path / "3.png", white, "LA")
    save_image(tmp_path / "4.jpg", white, "CMYK")
    # Transparent white is nothing: black.
    save_image(tmp_path / "5.png", np.dstack([white, np.zeros((4, 4), np.uint8)]))
    splits = data.load(tmp_path)
    check_form(splits, 3, 4, 4)
    means = sorted(image.float().mean().item() for part in splits[:3] for image in part)
    assert means == pytest.approx([0, 255, 255, 255, 255], abs=2)


def test_photographs_stand_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    for i in range(3):
        save_image(tmp_path / f"{i}.jpg", pixels(8, 16), exif=exif)
    check_form(data.load(tmp_path), 1, 16, 8)


def test_sizes_that_differ(tmp_path):
    for i, side in enumerate((4, 4, 6, 8)):
        save_image(tmp_path / f"{i}.png", pixels(side, 8))
    with pytest.raises(DataError, match=r"2\.png: expected the size of 0\.png, 4 x 8 \(height x width\), got 6 x 8"):
        data.load(tmp_path)
    check_form(data.load(tmp_path, image_size=(4, 5)), 1, 4, 5)


def test_folder_without_images(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataError, match="expected a folder with images"):
        data.load(tmp_path)


@pytest.mark.parametrize("damage", ["empty", "truncated", "text", "16 bit", "bomb"])
def test_damaged_images(tmp_path, monkeypatch, damage):
    for i in range(4):
        save_image(tmp_path / f"{i}.png", pixels(32, 32))
    bad = tmp_path / "2.png"
    if damage == "16 bit":
        save_image(bad, np.zeros((32, 32), np.uint16))
    elif damage == "bomb":
        save_image(bad, np.zeros((60, 60), np.uint8))
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    else:
        bad.write_bytes({"empty": b"", "truncated": bad.read_bytes()[:-200], "text": b"not an image"}[damage])
    with pytest.raises(DataError, match=r"2\.png: expected "):
        data.load(tmp_path)


def test_unreadable_path(tmp_path):
    for path in (tmp_path / "none.npz", tmp_path / "none", "a\0b"):
        with pytest.raises(DataError, match=r": expected "):
            data.load(path)


# Downloads.

PAYLOAD = gzip.compress(idx_bytes(pixels(12, 28, 28)))
MD5 = hashlib.md5(PAYLOAD).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files` from memory, each mirror in its own way: /right/, /missing/, /broken/, /corrupt/, /stalled/."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked = files, []
        self.done = threading.Event()

    def mirrors(self, *kinds: str) -> tuple[str, ...]:
        return tuple(f"http://127.0.0.1:{self.server_port}/{kind}/" for kind in kinds)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        _, kind, name = self.path.split("/")
        content = self.server.files.get(name)
        if content is None or kind == "missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if kind == "broken":
            self.wfile.write(content[: len(content) // 2])
        elif kind == "corrupt":
            self.wfile.write(content[:-1] + bytes([content[-1] ^ 1]))
        elif kind == "stalled":
            self.server.done.wait(20)
        else:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server({"some.gz": PAYLOAD}) as server:
        thread = threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.02))
        thread.start()
        yield server
        server.done.set()
        server.shutdown()
        thread.join()


def cached(tmp_path) -> list[str]:
    return sorted(os.listdir(tmp_path / "cache")) if (tmp_path / "cache").exists() else []


def test_download_once(tmp_path, server, capfd):
    for _ in range(2):
        file = download.fetch("some.gz", MD5, server.mirrors("right"))
        assert file == tmp_path / "cache" / "some.gz"
        assert file.read_bytes() == PAYLOAD
    assert server.asked == ["/right/some.gz"]
    assert cached(tmp_path) == ["some.gz"]
    assert capfd.readouterr() == ("", "")


def test_download_with_a_bar(server, capfd):
    download.fetch("some.gz", MD5, server.mirrors("right"), progress=True)
    assert "some.gz from 127.0.0.1" in capfd.readouterr().err


FAILURES = {
    "missing": "HTTP 404",
    "broken": "the connection broke off",
    "corrupt": "a file with another checksum",
    "stalled": "no answer in 0.3 s",
}


@pytest.mark.parametrize("kind", FAILURES)
def test_download_from_the_next_mirror(tmp_path, monkeypatch, server, kind):
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    assert download.fetch("some.gz", MD5, server.mirrors(kind, "right")).read_bytes() == PAYLOAD
    assert server.asked == [f"/{kind}/some.gz", "/right/some.gz"]
    assert cached(tmp_path) == ["some.gz"]


@pytest.mark.parametrize("kind", FAILURES)
def test_failed_download(tmp_path, monkeypatch, server, kind):
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    with pytest.raises(
        DataError, match=rf"^some\.gz: expected a download, got 127\.0\.0\.1:\d+: {FAILURES[kind]}; "
    ) as caught:
        download.fetch("some.gz", MD5, server.mirrors(kind))
    assert "\n" not in str(caught.value)
    assert cached(tmp_path) == []


def test_no_network(tmp_path, server):
    mirrors = server.mirrors("right")
    server.server_close()
    with pytest.raises(DataError, match=r"no connection; .*data_dir or FASTDRAW_DATA"):
        download.fetch("some.gz", MD5, mirrors)
    assert cached(tmp_path) == []


def test_download_switched_off(tmp_path, server):
    with pytest.raises(DataError, match=r"^some\.gz: expected it in .*cache, since download is off"):
        download.fetch("some.gz", MD5, server.mirrors("right"), download=False)
    download.fetch("some.gz", MD5, server.mirrors("right"))
    assert download.fetch("some.gz", MD5, (), download=False).read_bytes() == PAYLOAD
    assert len(server.asked) == 1


def test_damaged_cache_is_filled_again(tmp_path, server):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "some.gz").write_bytes(PAYLOAD[:-5])
    assert download.fetch("some.gz", MD5, server.mirrors("broken", "right")).read_bytes() == PAYLOAD
    assert cached(tmp_path) == ["some.gz"]


def test_cache_that_cannot_be_written(tmp_path, monkeypatch, server):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASTDRAW_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match=r"cache: expected room for some\.gz, got: Not a directory"):
        download.fetch("some.gz", MD5, server.mirrors("right"))


def test_full_disk_while_downloading(tmp_path, monkeypatch, server):
    import pooch

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", fail)
    with pytest.raises(DataError, match=r"expected room for some\.gz, got: No space left on device"):
        download.fetch("some.gz", MD5, server.mirrors("right"))
    assert cached(tmp_path) == []


def test_mnist_is_downloaded(monkeypatch, server):
    server.files = {f"{name}.gz": gzip.compress(content) for name, content in IDX_FILES.items()}
    monkeypatch.setattr(mnist, "MIRRORS", server.mirrors("missing", "right"))
    for constant in ("TRAIN_IMAGES", "TRAIN_LABELS", "TEST_IMAGES", "TEST_LABELS"):
        name = getattr(mnist, constant)[0]
        monkeypatch.setattr(mnist, constant, (name, hashlib.md5(server.files[name]).hexdigest()))
    splits = data.load("mnist")
    assert same(splits.train, MNIST["train_images"][:50])
    # Out of the cache, and with the data folder passed over that does not hold it.
    server.files = {}
    monkeypatch.setenv("FASTDRAW_DATA", "nowhere")
    assert torch.equal(data.load("mnist", download=False).test, splits.test)


def test_binarized_mnist_is_downloaded(monkeypatch, server):
    server.files = {f"binarized_mnist_{part}.amat": amat_bytes(bits) for part, bits in BINARIZED.items()}
    monkeypatch.setattr(mnist, "BINARIZED_MIRRORS", server.mirrors("right"))
    texts = {part: (name, hashlib.md5(server.files[name]).hexdigest()) for part, (name, _) in mnist.BINARIZED.items()}
    monkeypatch.setattr(mnist, "BINARIZED", texts)
    assert same(data.load("binarized-mnist").test, BINARIZED["test"] * 255)


def test_an_interrupted_download_leaves_nothing(tmp_path, monkeypatch, server):
    import pooch

    def interrupt(self, url, output_file, *_: object) -> None:
        Path(output_file).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download.fetch("some.gz", MD5, server.mirrors("right"))
    assert cached(tmp_path) == []


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r'digits needs sklearn.*pip install "fastdraw\[train\]"'):
        data.load("digits")
