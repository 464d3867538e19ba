"""How a kernel is launched: a Launch holds everything that one needs, `run` is the only place where one happens.

Launchers build a Launch without touching the device, so that ahead-of-time compilation (aot.py) makes its signatures and
constants from the very same functions, with tensors on the meta device.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from fastdraw import products
from fastdraw.ops.contract import wide_dtype

from ..images import strides
from .dependent import dependent
from .tables import Blocks

TL_DTYPES = {
    torch.float64: tl.float64,
    torch.float32: tl.float32,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
}


class Launch(NamedTuple):
    """arguments: every argument by name, constexprs in capitals; tensors have to be contiguous.

    max_registers: per thread, on NVIDIA. Left to itself ptxas spills a few registers of a large kernel to fit one more block
    on an SM; told the hardware's own limit it does not.

    fma: whether a product and a sum may become one instruction. Without it lanes that have copies of one sum have the same
    bits of it, so that it does not matter which of them stores it: where x y is added to another lane's, one lane would round
    its own product and the other the other's.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    num_warps: int
    num_stages: int
    max_registers: int | None = None
    fma: bool = True

    def options(self, nvidia: bool) -> dict[str, int]:
        options = {"num_warps": self.num_warps, "num_stages": self.num_stages, "enable_fp_fusion": self.fma}
        return {**options, "maxnreg": self.max_registers} if nvidia and self.max_registers is not None else options


def run(launch: Launch) -> Any:
    """Launches by Triton's own way, and gives the compiled kernel. What is launched often goes by handles.py."""
    device = next(value.device for value in launch.arguments.values() if isinstance(value, Tensor))
    # Triton launches on the current device, which need not be the tensors'.
    elsewhere = device.type == "cuda" and device.index != torch.cuda.current_device()
    with torch.cuda.device(device) if elsewhere else nullcontext():
        how = {**launch.options(nvidia=torch.version.hip is None), **dependence(launch, dependent())}
        return launch.kernel[launch.grid](**launch.arguments, **how)


def dependence(launch: Launch, able: bool) -> dict[str, bool]:
    """Arguments and options of a kernel that may begin while the one before it runs; see dependent.py."""
    if "DEPENDENT" not in launch.kernel.arg_names:
        return {}
    return {"DEPENDENT": able, **({"launch_pdl": True} if able else {})}


def near(image: Tensor) -> Tensor:
    """An image whose pixels in a few rows are less than 2^31 elements apart, as kernels expect; contiguous ones always are."""
    _, _, row, pixel = strides(image)
    return image if 128 * row + image.shape[3] * pixel < 2**31 else image.contiguous()


def image_strides(image: Tensor) -> dict[str, int]:
    """Arguments of kernels that read images of any strides."""
    names = ("stride_image", "stride_channel", "stride_row", "stride_pixel")
    return dict(zip(names, strides(image), strict=True))


def window_launch(
    kernel: Any, grid: tuple[int, ...], blocks: Blocks, own: dict[str, Any],
    image: Tensor, params: Tensor, patch: Tensor, power: int, precision: str,
) -> Launch:  # fmt: skip
    """Of a kernel of windows, with what all of these take of the sizes. image of any strides, params [B, P] or [B, K, P],
    patch [..., C, N_y, N_x]; own: the kernel's other arguments."""
    arguments = {
        **own,
        "windows": params.shape[:-1].numel() // image.shape[0],
        **dict(zip(("channels", "height", "width"), image.shape[1:], strict=True)),
        **image_strides(image),
        **dict(zip(("size_y", "size_x"), patch.shape[-2:], strict=True)),
        "PARAMS": params.shape[-1],
        "POWER": power,
        "DTYPE": tl_dtype(wide_dtype(image.dtype)),
        "PRECISION": precision,
        **blocks.constants,
    }
    return Launch(kernel, grid, arguments, blocks.num_warps, blocks.num_stages, max_registers=255, fma=False)


def tl_dtype(dtype: torch.dtype) -> Any:
    return TL_DTYPES[dtype]


def tf32_allowed() -> bool:
    """torch's own switches; ROCm has none that reaches Triton on all of its devices."""
    return torch.version.hip is None and products.tf32_allowed()


def dot_precision(dtype: torch.dtype) -> str:
    """`input_precision` of products for operands in `dtype`, which for half precision are held in float32.

    bfloat16 and float16 fit tf32 without a loss, and the filters' 11 bits are as many as float16 has.
    """
    if dtype == torch.float64 or torch.version.hip is not None:
        return "ieee"
    return "tf32" if dtype in (torch.bfloat16, torch.float16) or tf32_allowed() else "ieee"
