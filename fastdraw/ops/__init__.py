"""The public operators, one file each: check the input, choose the kernels, register the gradient."""

from fastdraw.ops import flops
from fastdraw.ops.filterbank import filterbank
from fastdraw.ops.lstm import lstm_step
from fastdraw.ops.read import read
from fastdraw.ops.write import write

__all__ = ["filterbank", "lstm_step", "read", "write"]

flops.tell()
