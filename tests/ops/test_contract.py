"""Every backend has the functions of the contract, with its arguments; mypy checks their types (kernels/__init__.py)."""

from __future__ import annotations

import importlib
import inspect
from types import SimpleNamespace
from typing import Any

import pytest

from fastdraw import dispatch
from fastdraw.kernels import aten
from fastdraw.ops.contract import Backend, Pieces

MODULES = [(Backend, module) for module in dispatch._MODULES.values()] + [
    (Pieces, module) for module in dispatch._PIECES.values()
]


def faults(module: Any, contract: type) -> list[str]:
    """What a module lacks, or has otherwise."""
    found = []
    for name, wanted in inspect.getmembers(contract, inspect.isfunction):
        if name.startswith("_"):
            continue
        own = getattr(module, name, None)
        if own is None:
            found.append(f"{name} is missing")
            continue
        arguments = [(p.name, p.default) for p in inspect.signature(own).parameters.values()]
        expected = [(p.name, p.default) for p in inspect.signature(wanted).parameters.values() if p.name != "self"]
        if arguments != expected:
            found.append(f"{name}: expected {expected}, got {arguments}")
    return found


@pytest.mark.parametrize(("contract", "module"), MODULES, ids=lambda value: getattr(value, "__name__", value))
def test_a_backend_has_what_the_contract_says(contract: type, module: str) -> None:
    if "triton" in module:
        pytest.importorskip("triton")
    assert faults(importlib.import_module(module), contract) == []


def test_what_is_missing_or_otherwise_is_found() -> None:
    changed = SimpleNamespace(**vars(aten))
    del changed.keeps
    changed.read = lambda image, params, size, power: image
    first, second = faults(changed, Backend)
    assert first == "keeps is missing"
    assert second.startswith("read: expected")
    assert "kept" in second
