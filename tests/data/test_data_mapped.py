"""Large .npy and .npz files are mapped where they are stored as they are."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import python
from datafiles import pixels

from fastdraw import data
from fastdraw.data import DataError, arrays


@pytest.fixture(autouse=True)
def all_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "MAPPED", 1)


def is_mapped(file: Path) -> bool:
    return str(file) in Path("/proc/self/maps").read_text()


def test_an_array_is_mapped(tmp_path: Path) -> None:
    """Channels last, as they are stored; validation and test are its end."""
    images, file = pixels(20, 6, 5, 3), tmp_path / "images.npy"
    np.save(file, images)
    splits = data.load(file)
    assert is_mapped(file)
    assert [len(part) for part in splits[:3]] == [16, 2, 2]
    np.testing.assert_array_equal(torch.cat(splits[:3]).permute(0, 2, 3, 1).numpy(), images)
    assert "validation and test are the last of train, which is mapped" in splits.notes
    splits.train.zero_()
    np.testing.assert_array_equal(np.load(file), images)


@pytest.mark.parametrize("packed", [False, True])
def test_members_of_an_npz(tmp_path: Path, packed: bool) -> None:
    parts = {"train": pixels(20, 6, 5), "validation": pixels(4, 6, 5, seed=1), "test": pixels(5, 6, 5, seed=2)}
    file = tmp_path / "images.npz"
    (np.savez_compressed if packed else np.savez)(file, **parts, train_labels=np.arange(20))
    splits = data.load(file)
    assert is_mapped(file) == (not packed)
    for part, images in parts.items():
        np.testing.assert_array_equal(getattr(splits, part)[:, 0].numpy(), images)


@pytest.mark.parametrize(
    "what", [np.zeros((20, 6, 5), bool), pixels(20, 6, 5) / np.float32(255), np.asfortranarray(pixels(20, 6, 5))]
)
def test_what_must_be_turned_into_images_is_read(tmp_path: Path, what: Any) -> None:
    file = tmp_path / "images.npy"
    np.save(file, what)
    assert data.load(file).image_shape == (1, 6, 5)
    assert not is_mapped(file)


def test_a_cut_array(tmp_path: Path) -> None:
    file = tmp_path / "images.npy"
    np.save(file, pixels(20, 6, 5))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match="expected 600 bytes of uint8, got 599"):
        data.load(file)


def test_a_member_whose_own_header_differs(tmp_path: Path) -> None:
    """Extra fields stand in a member's own header, and not in the list of all."""
    file, part = tmp_path / "images.npz", tmp_path / "part.npy"
    np.save(part, pixels(20, 6, 5))
    with zipfile.ZipFile(file, "w") as archive, archive.open("images.npy", "w", force_zip64=True) as member:
        member.write(part.read_bytes())
    np.testing.assert_array_equal(torch.cat(data.load(file)[:3])[:, 0].numpy(), pixels(20, 6, 5))


#: What a process holds of its own after an epoch's worth of batches of a file of 300 MB; that file's pages left out.
HELD = """
import sys
import torch
from fastdraw import data
from fastdraw.runs.parallel import ALONE
from fastdraw.runs.fingerprint import fingerprint
from fastdraw.train.batches import Batches
def own():
    return sum(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(("RssAnon", "RssShmem"))) / 1024
before = own()
splits = data.load(sys.argv[1])
data.found(splits), fingerprint(splits.train)
batches = Batches(splits.train, None, None, 128, False, 0, torch.device("cpu"), ALONE)
for step in range(0, batches.steps_per_epoch, 4):
    batches(step)
print(own() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    """25,000 images of 64 x 64 x 3, a file of 300 MB that takes no disk: all zeros."""
    file = tmp_path / "images.npy"
    with open(file, "wb") as out:
        np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": (25_000, 3, 64, 64)})
        out.truncate(out.tell() + 25_000 * 3 * 64 * 64)
    assert float(python(HELD, str(file))) < 100
