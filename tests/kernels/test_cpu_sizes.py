"""The structures that Python hands to C++ are those that C++ reads: their names, in their order."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest

from fastdraw.kernels.cpu import sizes
from fastdraw.kernels.cpu.sizes import LinearSizes, LstmSizes, named

HEADER = Path(sizes.__file__).with_name("sizes.h").read_text()
STRUCTURES = {name: value for name, value in vars(sizes).items() if name.endswith("Sizes") and isinstance(value, type)}


def header_fields(name: str) -> list[str]:
    body = re.search(rf"struct {name} {{(.*?)}};", HEADER, re.DOTALL)
    assert body is not None, f"sizes.h has no {name}"
    found: list[str] = []
    for kind, names in re.findall(r"(\w+) ([\w, ]+);", body[1]):
        found += names.split(", ") if kind == "int64_t" else header_fields(kind)
    return found


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures_are_those_of_the_header(name: str) -> None:
    assert sizes.fields(STRUCTURES[name]) == header_fields(name)
    assert ctypes.sizeof(STRUCTURES[name]) == 8 * len(header_fields(name))


def test_header_has_no_other_structures() -> None:
    assert set(re.findall(r"struct (\w+)", HEADER)) == set(STRUCTURES)


def test_numbers_stand_where_the_names_say() -> None:
    made = named(LinearSizes, batch=1, outputs=2, depth=3, row=4, threads=5, out_row=6)
    assert list((ctypes.c_int64 * 6).from_buffer_copy(made)) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("numbers", [{"batch": 1, "hidden": 2}, {"batch": 1, "hidden": 2, "thread": 3}])
def test_a_field_left_out_or_misspelt_is_refused(numbers: dict[str, int]) -> None:
    with pytest.raises(TypeError, match="LstmSizes: expected batch, hidden, threads, got"):
        named(LstmSizes, **numbers)
