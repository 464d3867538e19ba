"""The kernels behind fastdraw's operators: plain ATen, C++ for the CPU, Triton for CUDA. Nothing here is public."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastdraw.ops.contract import Backend, Pieces

    from . import aten, aten_pieces, cpu, triton
    from .cpu import pieces as cpu_pieces
    from .triton import pieces as triton_pieces

    # mypy holds each backend to the contract.
    _aten: Backend = aten
    _native: Backend = cpu
    _triton: Backend = triton
    _aten_pieces: Pieces = aten_pieces
    _native_pieces: Pieces = cpu_pieces
    _triton_pieces: Pieces = triton_pieces
