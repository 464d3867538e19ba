"""A page of two groups of images, made once for the tests of what it holds and of what a browser shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import two_records, write_page

from fastdraw.view import Record


@pytest.fixture(scope="session")
def records() -> tuple[Record, Record]:
    return two_records()


@pytest.fixture(scope="session")
def page(records: tuple[Record, Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(records, tmp_path_factory.mktemp("page") / "page.html")
