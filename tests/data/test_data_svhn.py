"""SVHN: full numbers cut out of their photographs, cropped digits, and files of other forms."""

from __future__ import annotations

import io
import struct
import sys
import zlib

import h5py
import numpy as np
import pytest
import torch
from datafiles import (
    chardata_bytes,
    check_form,
    digit_struct,
    house_number,
    mat_bytes,
    npz_bytes,
    pixels,
    sizes,
    svhn_archive,
    svhn_folder,
    tar_bytes,
)
from PIL import Image

from fastdraw import data
from fastdraw.data import DataError, arrays, housenumbers, svhn
from fastdraw.data.crops import RandomCrops, central

pytestmark = pytest.mark.usefixtures("miniatures")


def write_full_numbers(folder, form: str, **counts: int) -> None:
    for part, n in counts.items():
        if form == "archives":
            (folder / f"{part}.tar.gz").write_bytes(svhn_archive(part, n))
        else:
            svhn_folder(folder / part, n)


@pytest.mark.parametrize("form", ["archives", "folders"])
def test_full_numbers(tmp_path, form):
    write_full_numbers(tmp_path, form, train=12, test=3)
    splits = data.load("svhn", tmp_path)
    assert sizes(splits) == (11, 1, 3)
    assert splits.labels is None
    assert splits.image_shape == (3, 54, 54)
    check_form(splits._replace(train=splits.test), 3, 54, 54)
    assert splits.train.shape == (11, 3, 64, 64)
    # Every photograph once, told apart by the red of its ground.
    red = torch.cat((splits.train[:, 0, 0, 0], splits.validation[:, 0, 0, 0]))
    assert sorted(red.tolist()) == list(range(1, 13))
    assert splits.test[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert splits.make is not None
    batch = splits.make(splits.train[:5], torch.Generator().manual_seed(0))
    assert batch.shape == (5, 3, 54, 54)


def test_extra_numbers(tmp_path):
    write_full_numbers(tmp_path, "archives", train=12, test=3)
    with pytest.raises(DataError, match=r"^data_dir: expected a folder with .*extra\.tar\.gz"):
        data.load("svhn-extra", tmp_path)
    write_full_numbers(tmp_path, "archives", extra=8)
    splits = data.load("svhn-extra", tmp_path)
    assert sizes(splits) == (18, 2, 3)
    assert splits.name == "svhn-extra"
    assert sizes(data.load("svhn", tmp_path)) == (11, 1, 3)


def test_validation_is_never_more_than_the_papers(tmp_path, monkeypatch):
    write_full_numbers(tmp_path, "archives", train=50, test=3)
    assert sizes(data.load("svhn", tmp_path)) == (45, 5, 3)
    monkeypatch.setattr(svhn, "_MOST_VALIDATION", 2)
    assert sizes(data.load("svhn", tmp_path)) == (48, 2, 3)


def test_numbers_are_prepared_once(tmp_path, monkeypatch):
    write_full_numbers(tmp_path, "archives", train=12, test=3)
    first = data.load("svhn", tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(housenumbers, "read", lambda *_: pytest.fail("read again"))
        assert torch.equal(data.load("svhn", tmp_path).train, first.train)
    # Other archives are another data set.
    write_full_numbers(tmp_path, "archives", train=20)
    assert sizes(data.load("svhn", tmp_path)) == (18, 2, 3)
    left = sorted(file.name for file in (tmp_path / "cache").iterdir() if file.suffix != ".lock")
    assert len(left) == 3
    assert all(name.startswith("svhn-t") and name.endswith(".npz") for name in left)


def test_the_box_is_widened_by_three_tenths():
    # White from (20, 10) to (60, 30) on 80 x 40: widened to (14, 7) - (66, 33), so white begins at 6/52 and 3/26 of it.
    image = Image.fromarray(house_number(100))
    for box in ((20, 10, 60, 30), (20.0, 10.0, 60.0, 30.0)):
        cut = housenumbers.cut(image, box)
        assert cut.shape == (3, 64, 64)
        white = cut[1] > 142
        rows, columns = np.nonzero(white)
        edge = 64 * 3 / 26
        assert (rows.min(), rows.max() + 1) == pytest.approx((edge, 64 - edge), abs=0.51)
        assert (columns.min(), columns.max() + 1) == pytest.approx((edge, 64 - edge), abs=0.51)
        assert white[9:55, 9:55].all()


def test_the_cut_against_pillow_itself():
    image = Image.fromarray(pixels(50, 90, 3))
    wanted = image.resize((64, 64), Image.Resampling.BICUBIC, box=(10, 4, 62, 43))
    assert np.array_equal(housenumbers.cut(image, (16, 8.5, 56, 38.5)), np.asarray(wanted).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ((-5, -5, 200, 200), (0, 0, 80, 40)),
        ((0, 0, 40, 20), (0, 0, 46, 23)),
        # Nothing at all, and nothing of the image.
        ((30, 10, 30, 10), (30, 10, 31, 11)),
        ((500, 500, 520, 520), (79, 39, 80, 40)),
        ((-50, -50, -40, -40), (0, 0, 1, 1)),
    ],
)
def test_boxes_are_cut_off_at_the_edges(box, kept):
    image = Image.fromarray(pixels(40, 80, 3))
    wanted = image.resize((64, 64), Image.Resampling.BICUBIC, box=kept)
    assert np.array_equal(housenumbers.cut(image, box), np.asarray(wanted).transpose(2, 0, 1))


def test_boxes_go_round_all_digits(tmp_path):
    digits = {"1.png": [(246, 77, 81, 219), (323, 81, 96, 219)], "2.png": [(5, -1, 10, 20)]}
    digits["10.png"] = [(40, 10, 8, 20), (10, 14, 8, 20), (25, 12, 8, 25)]
    digit_struct(tmp_path / "digitStruct.mat", digits)
    boxes = housenumbers.read_boxes(tmp_path / "digitStruct.mat")
    assert boxes == {"1.png": (246, 77, 419, 300), "2.png": (5, -1, 15, 19), "10.png": (10, 10, 48, 37)}
    assert list(boxes) == list(digits)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ({"../1.png": [(0, 0, 9, 9)]}, r"expected image names such as 1\.png, got '\.\./1\.png'"),
        ({"/etc/passwd": [(0, 0, 9, 9)]}, "expected image names such as"),
        ({"1.png": [(0, 0, float("nan"), 9)]}, r"expected finite boxes, got another one for 1\.png"),
        ({"1.png": []}, "expected the boxes of SVHN's full numbers"),
        ({}, "expected boxes of at least one image"),
    ],
)
def test_boxes_of_another_form(tmp_path, boxes, message):
    file = tmp_path / "digitStruct.mat"
    digit_struct(file, boxes)
    with pytest.raises(DataError, match=message) as caught:
        housenumbers.read_boxes(file)
    assert str(file) in str(caught.value)


def test_boxes_that_are_not_there(tmp_path):
    """HDF5 takes a file's word for rows that it does not hold, and for files that hold them."""
    file = tmp_path / "digitStruct.mat"
    (tmp_path / "other").write_bytes(bytes(80))
    makers = {
        "rows": {"shape": (400_000_000, 1), "dtype": h5py.ref_dtype, "chunks": (1000, 1)},
        "elsewhere": {"shape": (5, 1), "dtype": "u8", "external": [("other", 0, 40)]},
        "wide": {"shape": (1, 400_000_000), "dtype": "u8", "chunks": (1, 1000)},
    }
    for kind, how in makers.items():
        with h5py.File(file, "w") as made:
            struct = made.create_group("digitStruct")
            for key in ("name", "bbox"):
                struct.create_dataset(key, **how)
        message = "kept in the file" if kind == "elsewhere" else "expected columns of at most"
        with pytest.raises(DataError, match=rf"digitStruct\.mat: .*{message}"):
            housenumbers.read_boxes(file)
    with h5py.File(file, "w") as made:
        made["digitStruct"] = h5py.ExternalLink("other", "/")
    with pytest.raises(DataError, match=r"digitStruct\.mat: expected "):
        housenumbers.read_boxes(file)


def test_photographs_that_fill_the_memory(tmp_path):
    svhn_folder(tmp_path / "train", 2)
    Image.new("RGB", (9000, 9000)).save(tmp_path / "train" / "2.png", compress_level=1)
    with pytest.raises(DataError, match=r"2\.png: expected at most 67,108,864 bytes unpacked, got 9000 x 9000 pixels"):
        housenumbers.read(tmp_path / "train", "train")


@pytest.mark.parametrize("kind", ["zeros", "a name", "twice"])
def test_mat_files_that_fill_the_memory(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(arrays, "LARGEST_SMALL", 1 << 16)
    if kind == "zeros":
        content = mat_bytes(X=np.zeros((32, 32, 3, 300), np.uint8), y=np.ones(300))
    elif kind == "twice":
        one, other = (mat_bytes(X=pixels(8, 8, 3, n), y=np.ones(n)) for n in (5, 6))
        content = one + other[128:]
    else:
        # An array whose name goes on for a mebibyte.
        head = struct.pack("<12I", 14, 1 << 30, 6, 8, 6, 0, 5, 8, 5, 5, 1, 1 << 20)
        packed = zlib.compress(head + bytes(1 << 20))
        content = mat_bytes()[:128] + struct.pack("<2I", 15, len(packed)) + packed
    (tmp_path / "some.mat").write_bytes(content)
    message = "a name that comes twice" if kind == "twice" else "bytes unpacked for a file of its size"
    with pytest.raises(DataError, match=rf"some\.mat: .*{message}"):
        data.load(tmp_path / "some.mat")


def test_files_that_hold_no_boxes(tmp_path):
    file = tmp_path / "digitStruct.mat"
    with h5py.File(file, "w") as other:
        other["digitStruct"] = [1, 2]
    whole = io.BytesIO()
    with h5py.File(whole, "w") as other:
        other["something"] = [1, 2]
    for content in (file.read_bytes(), whole.getvalue(), whole.getvalue()[:300], b"text", b"", mat_bytes(X=np.ones(3))):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"digitStruct\.mat: expected the boxes of SVHN's full numbers, got: "):
            housenumbers.read_boxes(file)
    with pytest.raises(DataError, match="No such file"):
        housenumbers.read_boxes(tmp_path / "missing.mat")


@pytest.mark.parametrize("damage", ["empty", "truncated", "another kind", "missing"])
@pytest.mark.parametrize("form", ["archives", "folders"])
def test_damaged_photographs(tmp_path, form, damage):
    svhn_folder(tmp_path / "train", 4)
    bad = tmp_path / "train" / "3.png"
    if damage == "missing":
        bad.unlink()
    elif damage == "another kind":
        Image.fromarray(house_number(1)).save(bad, format="JPEG")
    else:
        bad.write_bytes(b"" if damage == "empty" else bad.read_bytes()[:-40])
    if form == "archives":
        files = {f"train/{file.name}": file.read_bytes() for file in (tmp_path / "train").iterdir()}
        source = tmp_path / "train.tar.gz"
        source.write_bytes(tar_bytes(files))
    else:
        source = tmp_path / "train"
    with pytest.raises(DataError, match=r"train.*3\.png"):
        housenumbers.read(source, "train")


def test_small_numbers(tmp_path):
    images, is_test = pixels(40, 64, 64, 3), np.arange(40) >= 30
    (tmp_path / "svhn_small.npz").write_bytes(npz_bytes(images=images, is_test=is_test.astype(np.uint8)))
    splits = data.load("svhn", tmp_path)
    assert sizes(splits) == (27, 3, 10)
    assert np.array_equal(splits.test.numpy(), images[30:, 5:59, 5:59].transpose(0, 3, 1, 2))
    with pytest.raises(DataError, match=r"expected a folder with train.tar.gz, extra.tar.gz and"):
        data.load("svhn-extra", tmp_path)
    (tmp_path / "svhn_small.npz").write_bytes(npz_bytes(images=images[:, :32], is_test=is_test.astype(np.uint8)))
    with pytest.raises(DataError, match=r"expected images of shape \[n, 3, 64, 64\]"):
        data.load("svhn", tmp_path)


@pytest.mark.parametrize(("module", "name"), [("h5py", "svhn"), ("scipy.io", "chardata.mat"), ("filelock", "svhn")])
def test_without_the_extra(tmp_path, monkeypatch, module, name):
    write_full_numbers(tmp_path, "archives", train=3, test=3)
    (tmp_path / "chardata.mat").write_bytes(chardata_bytes(40, 7))
    monkeypatch.setitem(sys.modules, module, None)
    source, folder = (tmp_path / name, None) if name == "chardata.mat" else (name, tmp_path)
    with pytest.raises(ModuleNotFoundError, match=rf'needs {module}, .*pip install "fastdraw-torch\[train\]"'):
        data.load(source, folder)


def test_random_crops():
    side, size = 9, 6
    images = torch.arange(2000 * 3 * side * side, dtype=torch.int64).view(2000, 3, side, side)
    crops = RandomCrops(size)(images, torch.Generator().manual_seed(0))
    assert crops.shape == (2000, 3, size, size)
    first = crops[:, 0, 0, 0] - images[:, 0, 0, 0]
    y, x = first // side, first % side
    for i in range(0, 2000, 50):
        assert torch.equal(crops[i], images[i, :, y[i] : y[i] + size, x[i] : x[i] + size])
    # All sixteen places, each with equal probability: chi-square within six standard deviations of its mean.
    counts = (y * 4 + x).bincount(minlength=16).double()
    assert len(counts) == 16
    assert ((counts - 125) ** 2 / 125).sum() <= 15 + 6 * 30**0.5
    assert torch.equal(crops, RandomCrops(size)(images, torch.Generator().manual_seed(0)))


def test_central_crops():
    images = torch.arange(64 * 64).view(1, 1, 64, 64)
    assert torch.equal(central(images, 54), images[:, :, 5:59, 5:59])
    assert central(images, 54).is_contiguous()
