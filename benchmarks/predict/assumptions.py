"""What the model of time assumes of the chip, in one table. None of it was measured by this project: a chip's own figures,
once there are some, take their place here.
"""

from __future__ import annotations

from typing import NamedTuple

#: Cycles until an instruction's result is there, where its wait is a scoreboard's and not its stall count's.
LATENCIES = {
    "LDG": 265,  # L2
    "LDGSTS": 300,
    "LDS": 30,
    "LDSM": 34,
    "STS": 20,
    "STSM": 30,
    "STG": 20,
    "SHFL": 24,
    "MUFU": 22,
    "HMMA": 33,
    "HGMMA": 40,
    "BAR": 22,
    "S2R": 25,
    "I2F": 20,
    "F2F": 20,
    "FRND": 20,
}
#: Cycles for which an instruction of one warp keeps its unit, one of each in every quarter of an SM. Others take one cycle of
#: issue alone.
UNITS = {
    **dict.fromkeys(("MUFU", "I2F", "F2F", "F2I", "FRND"), ("special functions", 8)),
    **dict.fromkeys(
        ("IADD3", "LOP3", "LEA", "SHF", "ISETP", "SEL", "PRMT", "FSETP", "FSEL", "FMNMX", "VIADD"), ("integers", 2)
    ),
    **dict.fromkeys(("IMAD", "FFMA", "FMUL", "FADD", "HFMA2"), ("float32", 1)),
    "HMMA": ("tensor cores", 8),
}

#: Operations of torch's products a us by dtype ("tf32": float32 under the switch).
PRODUCTS = {"float32": 40e6, "tf32": 250e6, "bfloat16": 450e6, "float16": 450e6}


class Chip(NamedTuple):
    """An H100 SXM. Rates are of the whole chip unless said."""

    target: str = "sm_90"
    clock_ghz: float = 1.755
    multiprocessors: int = 132
    registers: int = 65536
    shared_bytes: int = 228 * 1024
    shared_of_block: int = 1024  # what the system takes of each block
    warps: int = 64
    blocks: int = 32
    parameters_at: int = 0x210  # of the constant bank that holds a kernel's arguments
    l2_bytes_per_cycle: float = 3500.0  # 6.1 TB/s
    l2_bytes_per_cycle_of_one: float = 64.0
    l2_bytes: float = 50e6
    memory_bytes_per_us: float = 3.35e6 * 0.9
    shared_bytes_per_cycle: float = 128.0  # of one SM
    latencies: dict[str, int] = LATENCIES
    units: dict[str, tuple[str, int]] = UNITS
    #: Operations of a multiprocessor's wgmma a cycle, in half precision.
    wgmma_per_cycle: float = 4096.0
    #: Between a launch and the one before it in a graph, us: dependent launches, and others.
    dependent_launch_us: float = 0.8
    launch_us: float = 1.3
    #: torch's own kernels, beside launch, bytes and operations.
    torch_kernel_us: float = 1.5
    product_per_us: dict[str, float] = PRODUCTS


CHIP = Chip()
