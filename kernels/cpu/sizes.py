"""The whole numbers that each C++ function takes, by name: the structures of sizes.h, field for field."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import TypeVar


def _fields(names: str) -> list[tuple[str, type[ctypes.c_int64]]]:
    return [(name, ctypes.c_int64) for name in names.split()]


class FilterbankSizes(ctypes.Structure):
    _fields_ = _fields("batch height width rows columns numbers threads")


class WholeSizes(ctypes.Structure):
    _fields_ = _fields("batch channels height width rows columns power numbers threads")


class WindowsSizes(ctypes.Structure):
    _fields_ = _fields(
        "batch windows channels height width rows columns power numbers image_kind"
        " from_image from_channel from_row from_pixel to_image to_channel to_row to_pixel keeps kept_numel threads"
    )


class SeenSizes(ctypes.Structure):
    _fields_ = _fields("windows channels height width rows columns numbers")


class LstmSizes(ctypes.Structure):
    _fields_ = _fields("batch hidden threads")


class ElementwiseSizes(ctypes.Structure):
    _fields_ = _fields("function count")


class PackSizes(ctypes.Structure):
    _fields_ = _fields("order outputs depth backward split first_row threads")


class PeakSizes(ctypes.Structure):
    _fields_ = _fields("rounds threads")


class ProductSizes(ctypes.Structure):
    _fields_ = _fields("batch outputs depth row threads")


class LinearSizes(ProductSizes):
    _fields_ = _fields("out_row")


class CellSizes(ProductSizes):
    _fields_ = _fields("h_row h_2_row")


class CellBackwardSizes(ProductSizes):
    _fields_ = _fields("other_row other_2_row")


class LatentSizes(ProductSizes):
    _fields_ = _fields("z_row")


class InputBackwardSizes(ProductSizes):
    _fields_ = _fields("latents")


class WeightGradientSizes(ctypes.Structure):
    _fields_ = _fields("rows outputs inputs grad_row input_row split first_row threads")


class CanvasSizes(ctypes.Structure):
    _fields_ = _fields("batch channels height width read_size write_size head_row r_row writes rebuild threads")


Sizes = TypeVar("Sizes", bound=ctypes.Structure)


def fields(kind: type[ctypes.Structure]) -> list[str]:
    """A structure's names in their order, those of what it extends first."""
    return [field[0] for base in reversed(kind.__mro__) for field in base.__dict__.get("_fields_", ())]


@lru_cache(maxsize=1024)
def named(kind: type[Sizes], *numbers: int, **more: int) -> Sizes:
    """A structure of these numbers, one for each field, in its order or by name. It is shared, so nobody changes it.

    Small reads and writes give theirs in order, which saves a microsecond. Raises TypeError where a field is left out or has
    another name: ctypes would take it for 0, or for an attribute.
    """
    if set(more) != set(fields(kind)[len(numbers) :]) or len(numbers) > len(fields(kind)):
        raise TypeError(f"{kind.__name__}: expected {', '.join(fields(kind))}, got {[*numbers, *more]}")
    return kind(*numbers, **more)
