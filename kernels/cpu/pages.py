"""Memory for the large buffers of a training step: large pages, and the same ones at the next step.

A step's tape is fresh memory each time, and what costs is not to use it but that the system hands it out, and zeroes it: 32 ms
for 64 MiB in pages of 4 KiB, 8 ms in large ones, nothing where the buffers of the step before are used again. Torch does so on
CUDA and not on the CPU. What is kept here is what serves the last step, never more than twice what it asked for, and at most
64 MiB for reads of large images.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch
from torch import Tensor

#: Of a large page on x86-64 and on most of ARM; where it is another size the advice is taken for fewer bytes, or for none.
_PAGE = 2 << 20
_MADV_HUGEPAGE = 14

#: Bytes that reads keep for their gradients, all that are alive together. More would be new memory at every call, and the
#: system takes longer to hand it out than it saves.
READS = 64 << 20

_probe = [np.empty(0)]
#: References to a block that no tensor uses: the list's, and that of the question itself, as this Python counts them.
_UNUSED = sys.getrefcount(_probe[0])


class _Pool:
    """Blocks that served the last calls, none below `least` bytes. Those that no tensor uses serve the next one; of those that
    are left over, the newest stay, as long as all of them are at most `most` bytes with what is in use."""

    def __init__(self, least: int, most: int) -> None:
        self._least, self._most = least, most
        self.forget()

    def forget(self) -> None:
        """As new. A child made by fork may have another thread's lock, which nobody gives back there, and half of its work."""
        self._kept: list[np.ndarray] = []
        self._lock = threading.RLock()
        self._busy = False

    def buffers(self, wanted: Sequence[tuple[tuple[int, ...], torch.dtype]]) -> list[Tensor]:
        with self._alone() as alone:
            if not alone:
                return [torch.empty(sizes, dtype=dtype) for sizes, dtype in wanted]
            return self._serve(wanted, self._most)

    def within(self, sizes: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
        """None where it would be more than `most` bytes with what is in use."""
        with self._alone() as alone:
            if not alone:
                return None
            used = sum(self._kept[i].nbytes for i in range(len(self._kept)) if sys.getrefcount(self._kept[i]) != _UNUSED)
            if used + dtype.itemsize * math.prod(sizes) > self._most:
                return None
            return self._serve([(sizes, dtype)], self._most)[0]

    def release(self) -> None:
        """Gives back what no tensor uses."""
        with self._alone() as alone:
            if alone:
                self._serve([], 0)

    def nbytes(self) -> int:
        return sum(block.nbytes for block in self._kept)

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whoever looks at the list of blocks, or changes it, does so within. False in a signal's handler or a finaliser that
        runs in the middle of that, on the same thread: the list is not whole, and must stay as it is."""
        with self._lock:
            if self._busy:
                yield False
                return
            self._busy = True
            try:
                yield True
            finally:
                self._busy = False

    def _serve(self, wanted: Sequence[tuple[tuple[int, ...], torch.dtype]], most: int) -> list[Tensor]:
        free = [self._kept[i] for i in range(len(self._kept)) if sys.getrefcount(self._kept[i]) == _UNUSED]
        self._kept = [block for block in self._kept if not any(block is other for other in free)]
        tensors = [self._take(free, *one) for one in wanted]
        self._kept = self._left_over(free, most - self.nbytes()) + self._kept
        return tensors

    def _take(self, free: list[np.ndarray], sizes: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        nbytes = dtype.itemsize * math.prod(sizes)
        if nbytes < self._least:
            return torch.empty(sizes, dtype=dtype)
        # The smallest that is large enough, and not more than twice as large.
        fits = [(block.nbytes, i) for i, block in enumerate(free) if nbytes <= block.nbytes <= 2 * nbytes]
        block = free.pop(min(fits)[1]) if fits else _new_block(nbytes)
        self._kept.append(block)
        return _poisoned(torch.from_numpy(block)[:nbytes].view(dtype).view(sizes))

    @staticmethod
    def _left_over(free: list[np.ndarray], room: int) -> list[np.ndarray]:
        kept: list[np.ndarray] = []
        for block in reversed(free):
            room -= block.nbytes
            if room >= 0:
                kept.insert(0, block)
        return kept


#: A step's buffers are all asked for at once, a read's one at a time, while those of other reads are in use or not.
_step, _reads = _Pool(_PAGE, 0), _Pool(0, READS)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_step.forget)
    os.register_at_fork(after_in_child=_reads.forget)


def new_buffers(wanted: Sequence[tuple[tuple[int, ...], torch.dtype]]) -> list[Tensor]:
    """Uninitialised CPU tensors of these sizes and dtypes; large ones in memory that freed tensors of the last call left."""
    return _step.buffers(wanted)


def read_buffer(sizes: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
    """The same for what a read keeps; None where all reads together would keep more than READS."""
    return _reads.within(sizes, dtype)


def kept_bytes() -> int:
    """What is kept for the next call, in use or not."""
    return _step.nbytes() + _reads.nbytes()


def release() -> None:
    """Gives back what no tensor uses."""
    _step.release()
    _reads.release()


def prefer_large(*tensors: Tensor) -> None:
    """Asks for large pages under whole 2 MiB blocks of these new CPU tensors. Advice only: it never fails."""
    for tensor in tensors:
        _advise_range(tensor.data_ptr(), tensor.nbytes)


def _new_block(nbytes: int) -> np.ndarray:
    block = np.empty(nbytes, dtype=np.uint8)
    _advise_range(block.ctypes.data, nbytes)
    return block


def _advise_range(start: int, nbytes: int) -> None:
    first = -(-start // _PAGE) * _PAGE
    count = (start + nbytes - first) // _PAGE
    advise = _advise()
    if advise is not None and count > 1:
        # Whether it is taken, and whether it fails, changes nothing but time.
        advise(first, count * _PAGE, _MADV_HUGEPAGE)


def _poisoned(tensor: Tensor) -> Tensor:
    """As torch.empty: with deterministic algorithms new memory is NaN, so that an element nobody wrote shows."""
    fill = getattr(torch.utils.deterministic, "fill_uninitialized_memory", False)
    if fill and torch.are_deterministic_algorithms_enabled():
        tensor.fill_(torch.nan)
    return tensor


@cache
def _advise() -> Callable[[int, int, int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return advise
