"""Global memory as a launch's arguments, and the shared memory of its programs.

Each tensor argument has addresses of its own, whatever storage it lies in, and of these its elements alone may be touched.
What two arguments share of a storage they share in value and in the record of who touched it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np

from .faults import Misaligned, OutOfBounds, Race, Unknown
from .formats import I64, UNSIGNED, Array
from .shadows import Shadow

#: Bits of an address below the argument's number.
_SPAN = np.uint64(40)
#: By size, what to show a value as.
FLOATS = {4: np.dtype(np.float32), 8: np.dtype(np.float64)}
#: Where shared memory begins: not at zero, so that a null address is out of bounds; sm_90 keeps the first KiB for itself.
SHARED_BASE = 1024


class Storage:
    """The bytes of one or more tensors."""

    def __init__(self, pointer: int, nbytes: int) -> None:
        self.begin = pointer & ~15
        size = pointer + nbytes - self.begin
        whole = np.ctypeslib.as_array((ctypes.c_ubyte * size).from_address(self.begin)) if nbytes else np.zeros(0, np.uint8)
        self.size = size if nbytes else 0
        self.views = {width: whole[: self.size // width * width].view(kind) for width, kind in UNSIGNED.items()}
        self.grain = 4
        self.shadow: Shadow | None = None


class Argument:
    """A tensor argument. address: what the kernel is given."""

    def __init__(self, number: int, name: str, tensor: Any, storage: Storage) -> None:
        self.name, self.storage, self.itemsize = name, storage, tensor.element_size()
        storage.grain = min(storage.grain, self.itemsize)
        self.base = np.uint64(((number + 1) << int(_SPAN)) | (storage.begin & 0xFF0))
        self.address = int(self.base) + tensor.data_ptr() - storage.begin if tensor.numel() else int(self.base)
        self.elements = np.zeros(storage.size // self.itemsize, bool)
        if tensor.numel():
            first = (tensor.data_ptr() - storage.begin) // self.itemsize
            np.lib.stride_tricks.as_strided(self.elements[first:], tensor.shape, tensor.stride())[...] = True
        self.shape = tuple(tensor.shape)

    def offsets(self, addresses: Array, width: int) -> Array:
        """Of accesses of `width` bytes, all of them within the elements."""
        offset = (addresses - self.base).astype(I64)
        inside = (offset >= 0) & (offset + width <= self.storage.size)
        if inside.all():
            first = offset // self.itemsize
            for step in range(max(1, width // self.itemsize)):
                inside &= self.elements[first + step]
        if not inside.all():
            bad = int(offset[~inside][0])
            where = (bad + self.storage.begin - (self.address - int(self.base) + self.storage.begin)) / self.itemsize
            raise OutOfBounds(f"{width} bytes at element {where:g} of {self.name} {self.shape}, counted from its first")
        return offset


class Memory:
    """Global memory."""

    def __init__(self, arguments: list[Argument]) -> None:
        self.arguments = {number + 1: argument for number, argument in enumerate(arguments)}

    def forget(self) -> None:
        """Between launches: what an earlier kernel did is done."""
        for argument in self.arguments.values():
            storage = argument.storage
            storage.shadow = Shadow(storage.size // storage.grain)

    def _parts(self, addresses: Array, width: int) -> Iterator[tuple[Argument, Any, Array]]:
        if (addresses & np.uint64(width - 1)).any():
            raise Misaligned(f"{width} bytes of global memory at {int(addresses[0]):#x}")
        numbers = addresses >> _SPAN
        for number in [numbers[0]] if (numbers == numbers[0]).all() else np.unique(numbers):
            argument = self.arguments.get(int(number))
            which = slice(None) if (numbers == number).all() else numbers == number
            if argument is None:
                raise OutOfBounds(f"global memory at {int(addresses[which][0]):#x}, which is no argument's")
            yield argument, which, argument.offsets(addresses[which], width)

    def load(self, addresses: Array, size: int, count: int, codes: Array) -> list[Array]:
        """`count` values of `size` bytes for each address."""
        values = [np.empty(len(addresses), UNSIGNED[size]) for _ in range(count)]
        for argument, which, offset in self._parts(addresses, size * count):
            storage = argument.storage
            assert storage.shadow is not None
            note_read(storage.shadow, storage.grain, offset, size * count, codes[which], argument.name)
            for i, value in enumerate(values):
                value[which] = storage.views[size][offset // size + i]
        return values

    def store(self, addresses: Array, size: int, values: list[Array], codes: Array) -> None:
        for argument, which, offset in self._parts(addresses, size * len(values)):
            storage = argument.storage
            assert storage.shadow is not None
            own = [value[which] for value in values]
            store(storage.views, storage.shadow, storage.grain, offset, size, own, codes[which], argument.name)


def places_of(offset: Array, width: int, grain: int) -> Array:
    """[accesses, places of each]."""
    if width < grain:
        raise Unknown(f"{width} bytes of memory that is otherwise accessed by {grain}")
    first = offset // grain
    return first[:, None] if width == grain else first[:, None] + np.arange(width // grain)


def note_read(shadow: Shadow, grain: int, offset: Array, width: int, codes: Array, name: str) -> None:
    places = places_of(offset, width, grain)
    if shadow.read(places.ravel(), codes if places.shape[1] == 1 else np.repeat(codes, places.shape[1])):
        raise Race(f"a read of {name} and another thread's write of the same element, with no barrier in between")


def note_write(shadow: Shadow, grain: int, offset: Array, width: int, codes: Array, name: str) -> tuple[Array, Array]:
    """Notes the writes; which of them another thread's write came before, unordered, and which of them at once."""
    places = places_of(offset, width, grain)
    each = np.broadcast_to(codes[:, None], places.shape)
    after_read, after_write = shadow.write(places, each)
    if after_read.any():
        raise Race(f"a write of {name} and another thread's read of the same element, with no barrier in between")
    # Of several writes at once the last one stands.
    return after_write.any(1), (shadow.wrote[places] != each).any(1)


def store(
    views: dict[int, Array], shadow: Shadow, grain: int, offset: Array, size: int, values: list[Array], codes: Array, name: str
) -> None:
    """Stores, and compares what is stored in one place unordered: equal values are no race."""
    width = size * len(values)
    earlier, at_once = note_write(shadow, grain, offset, width, codes, name)
    for i, value in enumerate(values):
        place = offset // size + i
        if earlier.any():
            _compare(value[earlier], views[size][place[earlier]], size, name)
        views[size][place] = value
        if at_once.any():
            _compare(value[at_once], views[size][place[at_once]], size, name)


def _compare(own: Array, other: Array, size: int, name: str) -> None:
    differ = own != other
    if differ.any():
        a, b = own[differ][0], other[differ][0]
        pair = f"{a:#x} and {b:#x}"
        if size in FLOATS:
            # Copies of one sum, of which lanes have rounded different parts, are often next to each other.
            pair = f"{a.view(FLOATS[size])} and {b.view(FLOATS[size])} ({pair})"
        raise Race(f"two threads' writes of different values to one element of {name}, with no barrier in between: {pair}")


class Shared:
    """The shared memory of the programs that run side by side, one after another in one array. All bits are set at first,
    which is NaN, and -1."""

    def __init__(self, programs: int, size: int, grain: int) -> None:
        self.size, self.grain = size, grain
        self.stride = max(size + 15, 16) // 16 * 16
        whole = np.full(programs * self.stride, 0xFF, np.uint8)
        self.views = {width: whole.view(kind) for width, kind in UNSIGNED.items()}
        self.shadow = Shadow(len(whole) // grain)
        #: Written by ordinary stores, and not yet fenced for the asynchronous proxy, which wgmma reads by.
        self.unfenced = np.zeros(len(whole) // grain, bool)

    def offsets(self, addresses: Array, width: int, programs: Array) -> Array:
        local = addresses.astype(I64) - SHARED_BASE
        if (local % width).any():
            raise Misaligned(f"{width} bytes of shared memory at {int(local[(local % width) != 0][0])}")
        self.check(local, width)
        return local + programs * self.stride

    def check(self, local: Array, width: int) -> None:
        if local.size and (local.min() < 0 or local.max() + width > self.size):
            raise OutOfBounds(f"shared memory at {int(local.min())} to {int(local.max()) + width} of {self.size} bytes")

    def note_read(self, offset: Array, width: int, codes: Array) -> None:
        note_read(self.shadow, self.grain, offset, width, codes, "shared memory")

    def load(self, offset: Array, size: int, count: int, codes: Array) -> list[Array]:
        self.note_read(offset, size * count, codes)
        return [self.views[size][offset // size + i] for i in range(count)]

    def store(self, offset: Array, size: int, values: list[Array], codes: Array) -> None:
        self.unfenced[places_of(offset, size * len(values), self.grain)] = True
        store(self.views, self.shadow, self.grain, offset, size, values, codes, "shared memory")

    def arrive(self, offset: Array, words: Array, codes: Array, now: bool) -> None:
        """Of copies: the lanes' words [lanes, words], or what stands there until they come."""
        earlier, at_once = note_write(self.shadow, self.grain, offset, 4 * words.shape[1], codes, "shared memory")
        if earlier.any() or at_once.any():
            raise Race("a copy to shared memory and another thread's write, with no barrier in between")
        places = places_of(offset, 4 * words.shape[1], 4)
        self.views[4][places] = words if now else np.uint32(0xFFFFFFFF)
        self.unfenced[places_of(offset, 4 * words.shape[1], self.grain)] = False

    def fence(self, codes: Array) -> None:
        """fence.proxy.async by these threads: what they wrote, and what a barrier has shown them, wgmma will see."""
        for program in np.unique(codes >> np.uint64(40)):
            own = codes[(codes >> np.uint64(40)) == program]
            open_ = np.flatnonzero(self.unfenced)
            wrote = self.shadow.wrote[open_]
            ordered = ((wrote >> np.uint64(40)) == program) & ((wrote >> np.uint64(24)) != (own[0] >> np.uint64(24)))
            self.unfenced[open_[ordered | np.isin(wrote, own)]] = False
