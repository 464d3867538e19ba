"""Small data files of the forms that the real ones have, made in memory, and what is asked of every data set."""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import os
import struct
import tarfile
import tempfile
from pathlib import Path

import h5py
import numpy as np
import scipy.io
import torch
from PIL import Image

from fastdraw import data
from fastdraw.data import cifar10, mnist, svhn

#: Where the real files lie, on a machine that has them.
REAL = Path(os.environ.get("FASTDRAW_DATA") or Path(__file__).parents[3] / "shared" / "data")


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


def take_miniatures(monkeypatch) -> None:
    """These files for the originals, whose names they have."""
    names = ("train images", "train labels", "test images", "test labels")
    md5s = (hashlib.md5(content).hexdigest() for content in IDX_FILES.values())
    monkeypatch.setattr(mnist, "UNPACKED", dict(zip(names, md5s, strict=True)))
    for module in (mnist, cifar10, svhn):
        monkeypatch.setattr(module, "original", lambda file, md5: file)


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


def digit_struct(path: Path, boxes: dict[str, list[tuple[float, float, float, float]]]) -> None:
    """An HDF5 file as MATLAB writes SVHN's: name -> (left, top, width, height) of each digit."""
    with h5py.File(path, "w") as file:
        struct = file.create_group("digitStruct")
        for key in ("name", "bbox"):
            struct.create_dataset(key, (len(boxes), 1), h5py.ref_dtype)
        for i, (name, digits) in enumerate(boxes.items()):
            text = file.create_dataset(
                f"#refs#/name{i}", data=np.frombuffer(name.encode(), np.uint8)[:, None].astype(np.uint16)
            )
            struct["name"][i, 0] = text.ref
            group = file.create_group(f"#refs#/box{i}")
            struct["bbox"][i, 0] = group.ref
            for column, key in enumerate(("left", "top", "width", "height")):
                values = [float(digit[column]) for digit in digits]
                if len(values) == 1:
                    group.create_dataset(key, data=[values])
                    continue
                # More than one digit: references to numbers.
                group.create_dataset(key, (len(values), 1), h5py.ref_dtype)
                for k, value in enumerate(values):
                    group[key][k, 0] = file.create_dataset(f"#refs#/{key}{i}_{k}", data=[[value]]).ref


def house_number(i: int, width: int = 80, height: int = 40) -> np.ndarray:
    """[height, width, 3] with a white rectangle from (20, 10) to (60, 30) and a colour of its own around it."""
    image = np.full((height, width, 3), (i % 200, 30, 40), np.uint8)
    image[10:30, 20:60] = 255
    return image


def svhn_folder(folder: Path, n: int) -> Path:
    """Images 1.png to {n}.png and digitStruct.mat: two digits side by side, those of every third image one."""
    folder.mkdir(parents=True, exist_ok=True)
    two, one = [(20, 10, 20, 20), (40, 10, 20, 20)], [(20, 10, 40, 20)]
    digit_struct(folder / "digitStruct.mat", {f"{i}.png": one if i % 3 == 0 else two for i in range(1, n + 1)})
    for i in range(1, n + 1):
        Image.fromarray(house_number(i)).save(folder / f"{i}.png")
    return folder


def svhn_archive(part: str, n: int) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        folder = svhn_folder(Path(scratch, part), n)
        return tar_bytes({f"{part}/{file.name}": file.read_bytes() for file in sorted(folder.iterdir())})


def tar_bytes(files: dict[str, bytes], *others: tarfile.TarInfo) -> bytes:
    """A .tar.gz of plain files after `others`: links, and whatever else a test wants to have in it."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for other in others:
            archive.addfile(other)
        for name, data_of_it in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data_of_it)
            archive.addfile(info, io.BytesIO(data_of_it))
    return content.getvalue()


def cifar_rows(n: int, seed: int = 0) -> np.ndarray:
    """uint8 [n, 3073]: a label, and the pixels plane by plane."""
    rows = pixels(n, 3073, seed=seed)
    rows[:, 0] %= 10
    return rows


CIFAR_FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")


@functools.cache
def cifar_archive(n: int) -> bytes:
    """`n` images in each of the five training files and in the test file."""
    files = {f"cifar-10-batches-bin/{name}": cifar_rows(n, i).tobytes() for i, name in enumerate(CIFAR_FILES)}
    return tar_bytes({"cifar-10-batches-bin/readme.html": b"text", **files})


def mat_bytes(**named: np.ndarray) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, named, do_compression=True)
    return file.getvalue()


def chardata(n: int, seed: int = 0) -> np.ndarray:
    """Images uint8 [n, 28, 28]."""
    return pixels(n, 28, 28, seed=seed)


def chardata_bytes(n: int, test: int) -> bytes:
    """As Burda's file: each image a column, its own columns one after another, in [0, 1]."""
    columns = {
        key: (chardata(count, seed).transpose(0, 2, 1).reshape(count, 784) / 255).T
        for key, count, seed in (("data", n, 0), ("testdata", test, 1))
    }
    return mat_bytes(**columns, target=np.zeros((50, n)), targetchar=np.zeros((1, n)))


#: What most downloads are of.
PAYLOAD = gzip.compress(idx_bytes(pixels(12, 28, 28)), mtime=0)
MD5 = hashlib.md5(PAYLOAD).hexdigest()


def cached(tmp_path: Path) -> list[str]:
    """The files that downloads have left, but for locks."""
    names = os.listdir(tmp_path / "cache") if (tmp_path / "cache").exists() else []
    return sorted(name for name in names if not name.endswith(".lock"))
