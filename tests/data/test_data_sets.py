"""CIFAR-10 and Omniglot in all their forms, and archives that mean harm."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datafiles import (
    CIFAR_FILES,
    REAL,
    chardata,
    chardata_bytes,
    check_form,
    cifar_archive,
    cifar_rows,
    mat_bytes,
    npz_bytes,
    packed,
    pixels,
    sizes,
)

from fastdraw import data
from fastdraw.data import DataError

pytestmark = pytest.mark.usefixtures("miniatures")


@pytest.mark.parametrize("form", ["archive", "folder", "within"])
def test_cifar10(tmp_path, form):
    if form == "archive":
        (tmp_path / "cifar-10-binary.tar.gz").write_bytes(cifar_archive(4))
    else:
        folder = tmp_path / "cifar-10-batches-bin" if form == "folder" else tmp_path
        folder.mkdir(exist_ok=True)
        for i, name in enumerate(CIFAR_FILES):
            (folder / name).write_bytes(cifar_rows(4, i).tobytes())
    splits = data.load("cifar10", tmp_path)
    check_form(splits, 3, 32, 32)
    assert sizes(splits) == (18, 2, 4)
    assert splits.make is None
    assert splits.labels is not None
    for images, labels, seeds in (
        (splits.test, splits.labels.test, (5,)),
        (torch.cat(splits[:2]), torch.cat(splits.labels[:2]), range(5)),
    ):
        # Each row once, its label with it: plane after plane, line after line.
        rows = {row[1:].tobytes(): row[0] for seed in seeds for row in cifar_rows(4, seed)}
        assert len(rows) == len(images)
        for image, label in zip(images.numpy(), labels.tolist(), strict=True):
            assert rows[image.tobytes()] == label


def test_small_cifar10(tmp_path):
    arrays = {"train_images": pixels(20, 32, 32, 3), "train_labels": pixels(20) % 10}
    arrays |= {"test_images": pixels(5, 32, 32, 3, seed=1), "test_labels": pixels(5, seed=1) % 10}
    (tmp_path / "cifar10_small.npz").write_bytes(npz_bytes(**arrays))
    splits = data.load("cifar10", tmp_path)
    assert sizes(splits) == (18, 2, 5)
    assert np.array_equal(splits.test.numpy(), arrays["test_images"].transpose(0, 3, 1, 2))
    (tmp_path / "cifar10_small.npz").write_bytes(npz_bytes(train_images=pixels(9, 28, 28), test_images=pixels(9, 28, 28)))
    with pytest.raises(DataError, match=r"cifar10_small\.npz: expected images of shape \[3, 32, 32\]"):
        data.load("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (cifar_rows(4).tobytes()[:-1], r"expected rows of 3073 bytes, got 12,291 bytes"),
        (b"", "expected rows of 3073 bytes, got 0 bytes"),
        (b"\x0a" + cifar_rows(4).tobytes()[1:], "expected labels from 0 to 9, got 10"),
    ],
)
def test_cifar10_of_another_form(tmp_path, content, message):
    for name in CIFAR_FILES:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        data.load("cifar10", tmp_path)
    (tmp_path / CIFAR_FILES[3]).unlink()
    with pytest.raises(DataError, match=r"data_batch_4\.bin: expected a readable file, got: No such file"):
        data.load("cifar10", tmp_path)


# Omniglot.


def test_omniglot_of_burda(tmp_path):
    (tmp_path / "chardata.mat").write_bytes(chardata_bytes(200, 30))
    splits = data.load("omniglot", tmp_path)
    check_form(splits, 1, 28, 28)
    # His validation split is the last 1,345 of 24,345 in an order of his own.
    assert sizes(splits) == (189, 11, 30)
    assert splits.labels is None
    order = np.random.RandomState(123).permutation(200)
    images = chardata(200)[:, None]
    assert np.array_equal(splits.train.numpy(), images[order[:189]])
    assert np.array_equal(splits.validation.numpy(), images[order[189:]])
    assert np.array_equal(splits.test.numpy(), chardata(30, 1)[:, None])
    by_path = data.load(tmp_path / "chardata.mat")
    assert by_path.name == "chardata"
    assert torch.equal(by_path.train, splits.train)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"data": np.ones((784, 30))}, "expected an array of numbers named testdata, got data"),
        ({"data": np.ones((30, 784)), "testdata": np.ones((784, 3))}, r"data: expected an array of shape \[784, n\]"),
        ({"data": 2 * np.ones((784, 30)), "testdata": np.ones((784, 3))}, r"expected floating-point values in \[0, 1\]"),
        ({"data": np.ones((784, 2)), "testdata": np.ones((784, 3))}, "expected more than a few images to train on"),
        ({"data": np.ones((784, 0)), "testdata": np.ones((784, 3))}, "expected at least one image"),
    ],
)
def test_omniglot_of_another_form(tmp_path, named, message):
    (tmp_path / "chardata.mat").write_bytes(mat_bytes(**named))
    with pytest.raises(DataError, match=rf"chardata\.mat: .*{message}"):
        data.load("omniglot", tmp_path)


def test_omniglot_from_npz(tmp_path):
    background, evaluation = pixels(40, 28, 28, binary=True), pixels(12, 28, 28, seed=1, binary=True)
    shape = np.array([[40, 784], [12, 784]])
    content = npz_bytes(background=packed(background), evaluation=packed(evaluation), shape=shape)
    (tmp_path / "omniglot28.npz").write_bytes(content)
    splits = data.load("omniglot", tmp_path)
    assert sizes(splits) == (36, 4, 12)
    assert np.array_equal(splits.test.numpy(), evaluation[:, None] * 255)
    (tmp_path / "omniglot28.npz").write_bytes(npz_bytes(background=pixels(9, 8, 8), evaluation=pixels(9, 8, 8)))
    with pytest.raises(DataError, match=r"omniglot28\.npz: expected images of shape \[1, 28, 28\]"):
        data.load("omniglot", tmp_path)


@pytest.mark.skipif(not (REAL / "omniglot28.npz").exists(), reason="needs omniglot28.npz")
def test_real_omniglot():
    splits = data.load("omniglot", REAL)
    assert sizes(splits) == (17_352, 1_928, 13_180)
    everything = torch.cat(splits[:3])
    assert ((everything == 0) | (everything == 255)).all()
    # The share of ink that the file's own description states, and no empty image.
    assert (everything > 0).float().mean() == pytest.approx(0.0803, abs=0.0003)
    assert (everything.flatten(1).amax(1) == 255).all()


def test_folders_without_them(tmp_path):
    for name, form in (("cifar10", "cifar-10-binary"), ("omniglot", "chardata.mat"), ("svhn", r"train\.tar\.gz")):
        with pytest.raises(DataError, match=rf"^data_dir: expected a folder with .*{form}"):
            data.load(name, tmp_path)
        with pytest.raises(DataError, match=r"expected it in .*, since download is off"):
            data.load(name, download=False)
