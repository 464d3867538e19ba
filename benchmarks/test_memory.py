"""The memory that a training step adds at its peak, against reference.DRAW."""

from __future__ import annotations

import pytest

from benchmarks import memory
from benchmarks.conftest import record


@pytest.mark.parametrize("case", memory.CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_memory(case, pytestconfig):
    reason = memory.unavailable()
    if reason is not None:
        pytest.skip(reason)
    record(memory.result(*case), None, pytestconfig)
