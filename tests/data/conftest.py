"""What every test of data runs under: neither this machine's data nor its cache."""

from __future__ import annotations

import pytest
from datafiles import take_miniatures


@pytest.fixture(autouse=True)
def no_settings(monkeypatch, tmp_path):
    monkeypatch.delenv("FASTDRAW_DATA", raising=False)
    monkeypatch.setenv("FASTDRAW_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def miniatures(monkeypatch):
    """Small files for the originals, whose names they have."""
    take_miniatures(monkeypatch)
