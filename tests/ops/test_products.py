"""torch's two interfaces to tf32: either may be used, before fastdraw's own switching and inside it."""

from __future__ import annotations

import pytest
from commands import python

#: What a user writes, and whether torch then runs float32 products in tf32.
SETTINGS = {
    "": False,
    "torch.set_float32_matmul_precision('high')": True,
    "torch.set_float32_matmul_precision('medium')": True,
    "torch.backends.cuda.matmul.allow_tf32 = True": True,
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'": True,
    "torch.backends.cuda.matmul.fp32_precision = 'ieee'": False,
    "torch.backends.fp32_precision = 'tf32'": True,
    "torch.backends.fp32_precision = 'tf32'; torch.backends.cuda.matmul.fp32_precision = 'ieee'": False,
    "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'": False,
    "torch.set_float32_matmul_precision('high'); torch.backends.cuda.matmul.fp32_precision = 'ieee'": False,
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'; torch.set_float32_matmul_precision('highest')": False,
}
#: Said, switched to and fro, and asked again; every line of torch's own state that can be read is as it was.
PROGRAM = """
import torch
from fastdraw.kernels.triton import launch
from fastdraw.products import float32_products, tf32_allowed
from fastdraw.runs.numerics import numerics

def state():
    b = torch.backends
    return b.fp32_precision, b.cuda.matmul.fp32_precision, b.mkldnn.matmul.fp32_precision, older()

def older():
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return "unreadable"

for setting, allowed in SETTINGS.items():
    torch.backends.fp32_precision = torch.backends.mkldnn.matmul.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.fp32_precision = torch.backends.mkldnn.matmul.fp32_precision = "none"
    exec(setting)
    before = state()
    assert tf32_allowed() == launch.tf32_allowed() == allowed, setting
    for name, inside in (("high", True), ("highest", False)):
        with float32_products(name):
            assert tf32_allowed() == inside, setting
        assert state() == before, (setting, state(), before)
    with numerics("tf32", deterministic=False):
        assert launch.tf32_allowed()
    assert state() == before, setting
print("done")
"""


def test_products_follow_whichever_interface_was_used() -> None:
    """In a process of its own: the switches are the process's."""
    pytest.importorskip("triton")
    code = f"SETTINGS = {SETTINGS!r}\n{PROGRAM}"
    assert python(code) == "done\n"
