"""The memory that a training step adds at its peak, against reference.DRAW."""

from __future__ import annotations

import pytest

from benchmarks import memory
from benchmarks.conftest import record


@pytest.mark.parametrize(("setting", "glimpses"), memory.CASES)
def test_memory(setting, glimpses, pytestconfig):
    reason = memory.unavailable()
    if reason is not None:
        pytest.skip(reason)
    record(memory.result(setting, glimpses), None, pytestconfig)
