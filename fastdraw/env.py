"""Every environment variable that fastdraw reads, in one place.

FASTDRAW_CHECK_VALUES  1: look for NaN, infinity and values outside [0, 1] in images on every device;
                       0: never look. Default: on the CPU only, since looking at a CUDA tensor waits for the device.
FASTDRAW_BACKEND       the backend in force when the process starts: auto (default), reference, aten, native, triton.
FASTDRAW_DATA          folder in which data sets are looked for before anything is downloaded.
FASTDRAW_CACHE         folder that downloaded and prepared data sets are kept in; default: the user's cache folder.
FASTDRAW_CACHE_LIMIT   bytes of decoded images that are kept there; default: 100 GB.
FASTDRAW_GEMM          float32 products of lstm_step on the CPU: auto (default: the faster library, by one short measurement
                       per process), or mkl or onednn, for results that are the same bits on every run.
FASTDRAW_LEVEL         instruction set of the C++ kernels: 0 any machine, 1 AVX2, 2 AVX-512; default: the highest that runs.
FASTDRAW_LIBRARY       a file that stands in for the C++ library: one with sanitizers, for tests.
FASTDRAW_BUILD         read by setup.py: 0 leaves the C++ kernels out, 1 makes their failing to build an error.
FASTDRAW_HOME, FASTDRAW_REF  read by setup.py: the repository's address and the tag, for a package index.
TRITON_INTERPRET       Triton's own: 1 runs Triton kernels on CPU tensors, slowly, for tests.
"""

from __future__ import annotations

import os


def check_values(default: bool) -> bool:
    return _flag("FASTDRAW_CHECK_VALUES", default)


def initial_backend() -> str:
    return os.environ.get("FASTDRAW_BACKEND", "auto")


def gemm() -> str:
    choice = os.environ.get("FASTDRAW_GEMM", "auto")
    if choice not in ("auto", "mkl", "onednn"):
        raise ValueError(f"FASTDRAW_GEMM: expected one of auto, mkl, onednn, got {choice!r}")
    return choice


def level() -> int | None:
    choice = os.environ.get("FASTDRAW_LEVEL", "")
    if choice not in ("", "0", "1", "2"):
        raise ValueError(f"FASTDRAW_LEVEL: expected one of 0, 1, 2, got {choice!r}")
    return int(choice) if choice else None


def library() -> str | None:
    return _path("FASTDRAW_LIBRARY")


def data_dir() -> str | None:
    return _path("FASTDRAW_DATA")


def cache_dir() -> str | None:
    return _path("FASTDRAW_CACHE")


def cache_limit() -> int:
    text = os.environ.get("FASTDRAW_CACHE_LIMIT") or "100000000000"
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise ValueError(f"FASTDRAW_CACHE_LIMIT: expected a number of bytes, got {text!r}")
    return int(text)


def triton_interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def _path(name: str) -> str | None:
    return os.path.expanduser(os.environ.get(name, "")) or None


def _flag(name: str, default: bool) -> bool:
    value = os.environ.get(name, "")
    if value in ("", "0", "1"):
        return default if value == "" else value == "1"
    raise ValueError(f"{name}: expected 0 or 1, got {value!r}")
