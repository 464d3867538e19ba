"""Files of one's own to train on: .npz and idx, of every form, and damaged in every way."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zipfile

import numpy as np
import pytest
import torch
from datafiles import check_form, idx_bytes, npz_bytes, pixels, same, sizes

from fastdraw import data
from fastdraw.data import DataError, arrays


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


def test_npy_file(tmp_path):
    array = pixels(20, 5, 7, 3)
    np.save(tmp_path / "some.npy", array)
    splits = data.load(tmp_path / "some.npy")
    check_form(splits, 3, 5, 7)
    assert sizes(splits) == (16, 2, 2)
    whole = (tmp_path / "some.npy").read_bytes()
    np.save(tmp_path / "objects.npy", np.full((5, 4, 4), None), allow_pickle=True)
    for content in (b"", whole[:5], whole[:-1], whole + b"x", (tmp_path / "objects.npy").read_bytes()):
        (tmp_path / "some.npy").write_bytes(content)
        with pytest.raises(DataError, match=r"some\.npy: expected "):
            data.load(tmp_path / "some.npy")


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
        ({"images": pixels(5, 4, 4), "labels": np.arange(5) - 1}, "expected class numbers from 0 to 65,535, got some from -1"),
        ({"images": pixels(5, 4, 4), "labels": np.full(5, 2**64 - 1, np.uint64)}, "expected class numbers from 0 to 65,535"),
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


def npy_bytes(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


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
        npz_with(header(f"({2**63}, 0, 4)")),
        npz_with(header(f"({2**64}, 4, 4)"), bytes(80)),
        npz_with(header(f"({'1,' * 70})"), bytes(1)),
        npz_with(header("(5, 4, 4)", "|O"), bytes(80)),
        npz_with(b"(" * 5000),
    ],
)
def test_hostile_npz(tmp_path, content):
    (tmp_path / "some.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"some\.npz.*: expected "):
        data.load(tmp_path / "some.npz")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_npz_packed_otherwise(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "some.npz", "w", method) as archive:
        archive.writestr("a.npy", npy_bytes(pixels(5, 4, 4)))
    with pytest.raises(DataError, match=rf"some\.npz: a: expected a deflated array, got one packed by method {method}"):
        data.load(tmp_path / "some.npz")


def test_packed_bits_count_as_what_they_unpack_to(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "LARGEST_SMALL", 1 << 16)
    named = {"train": np.zeros((10, 1250), np.uint8), "shape": np.array([[10, 10_000]])}
    with pytest.raises(DataError, match=r"train: expected at most [\d,]+ bytes unpacked for a file of its size, got 100,000"):
        load_npz(tmp_path, **named)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_with_another_checksum(tmp_path, save):
    """One bit of the pixels, or of the checksum, and every array is one of the right size all the same."""
    array = pixels(40, 9, 8)
    save(tmp_path / "some.npz", train=array, test=array[:3])
    with zipfile.ZipFile(tmp_path / "some.npz") as archive:
        checksum = archive.getinfo("train.npy").CRC.to_bytes(4, "little")
    whole = (tmp_path / "some.npz").read_bytes()
    places = [whole.rindex(checksum)] + ([whole.index(array.tobytes()) + 5] if save is np.savez else [])
    for place in places:
        content = bytearray(whole)
        content[place] ^= 1
        (tmp_path / "some.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"some\.npz: train: expected a whole array, got a damaged one \(.*CRC"):
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
        (struct.pack(">4B3I", 0, 0, 8, 3, 0, 2**32 - 1, 2**32 - 1), "expected at least one image"),
        (struct.pack(">4B3I", 0, 0, 8, 3, 1, 2**32 - 1, 2**32 - 1), "bytes unpacked for a file of its size"),
        (gzip.compress(idx_bytes(pixels(9, 4, 4)))[:-9], "expected a whole gzip file"),
        (gzip.compress(b"text", mtime=0), "expected an idx file"),
    ],
)
def test_damaged_idx(tmp_path, content, message):
    (tmp_path / "some").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        data.load(tmp_path / "some")
    assert str(caught.value).startswith(str(tmp_path / "some"))


def test_unreadable_path(tmp_path):
    # Nobody writes to the pipe.
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", "", tmp_path / "none.npz", tmp_path / "none", "a\0b"):
        with pytest.raises(DataError, match=r": expected "):
            data.load(path)
