"""SVHN's cropped digits, and MATLAB's files in all their forms."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from datafiles import check_form, mat_bytes, pixels, sizes

from fastdraw import data
from fastdraw.data import DataError

pytestmark = pytest.mark.usefixtures("miniatures")


def write_cropped(folder, **counts: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Files of 32 x 32 -> their images as [n, 3, 32, 32] and MATLAB's class numbers."""
    written = {}
    for seed, (part, n) in enumerate(counts.items()):
        images, labels = pixels(n, 3, 32, 32, seed=seed), np.arange(n) % 10 + 1
        written[part] = images, labels
        content = mat_bytes(X=images.transpose(2, 3, 1, 0), y=labels.astype(np.uint8)[:, None])
        (folder / f"{part}_32x32.mat").write_bytes(content)
    return written


def test_cropped_digits(tmp_path):
    written = write_cropped(tmp_path, train=30, test=12, extra=10)
    splits = data.load("svhn", tmp_path)
    check_form(splits, 3, 32, 32)
    assert sizes(splits) == (27, 3, 12)
    assert splits.make is None
    images, labels = written["test"]
    assert np.array_equal(splits.test.numpy(), images)
    assert splits.labels is not None
    # Ten stands for zero.
    assert splits.labels.test.tolist() == (labels % 10).tolist()
    assert splits.labels.test[9] == 0
    # Labels stay with their images when validation is dealt out.
    known = {image.tobytes(): label % 10 for image, label in zip(*written["train"], strict=True)}
    for image, label in zip(splits.train.numpy(), splits.labels.train.tolist(), strict=True):
        assert known[image.tobytes()] == label
    assert sizes(data.load("svhn-extra", tmp_path)) == (36, 4, 12)
    # A single file is a data set of its own.
    alone = data.load(tmp_path / "extra_32x32.mat")
    assert sizes(alone) == (8, 1, 1)
    assert alone.labels is not None


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"X": pixels(32, 32, 3, 5)}, "expected arrays X and y, .* got X"),
        ({"X": pixels(32, 32, 3, 5), "y": pixels(4)}, r"expected X of shape \[H, W, 3, n\] and y of n numbers"),
        ({"X": pixels(5, 32, 32), "y": pixels(5)}, r"expected X of shape \[H, W, 3, n\]"),
        ({"X": pixels(32, 32, 3, 5), "y": np.array([1, 2, 3, 4, 11])}, "expected class numbers from 1 to 10, got .* 11"),
        ({"X": pixels(32, 32, 3, 5).astype(np.int32), "y": np.ones(5)}, "expected uint8, bool or floating-point"),
        ({"other": np.ones(3)}, "expected arrays X and y, .* got other"),
        ({"X": "text", "y": "text"}, "expected arrays X and y, .* got none"),
    ],
)
def test_cropped_digits_of_another_form(tmp_path, named, message):
    (tmp_path / "some.mat").write_bytes(mat_bytes(**named))
    with pytest.raises(DataError, match=message):
        data.load(tmp_path / "some.mat")


def test_damaged_matlab_files(tmp_path):
    content = mat_bytes(X=pixels(32, 32, 3, 5), y=np.ones(5))
    for damaged in (content[:4000], content[:130], content[:50], content[:2000] + b"\0" * 50 + content[2050:], b"MATLAB", b""):
        (tmp_path / "some.mat").write_bytes(damaged)
        with pytest.raises(DataError, match=r"some\.mat: expected "):
            data.load(tmp_path / "some.mat")
    with h5py.File(tmp_path / "some.mat", "w", userblock_size=512) as file:
        file["X"] = [1]
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM"
    (tmp_path / "some.mat").write_bytes(header + (tmp_path / "some.mat").read_bytes()[128:])
    with pytest.raises(DataError, match=r"got one of version 7\.3 \(HDF5\)"):
        data.load(tmp_path / "some.mat")
