"""Small data files of the forms that the real ones have, made in memory, and what is asked of every data set."""

from __future__ import annotations

import io
import struct

import numpy as np
import torch

from fastdraw import data


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
