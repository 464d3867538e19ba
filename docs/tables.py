"""For mkdocs: a table's corner that says nothing is no heading, which screen readers would announce without a word."""

from __future__ import annotations

import re
from typing import Any


def on_page_content(html: str, **_: Any) -> str:
    return re.sub(r"<th([^>]*)></th>", r"<td\1></td>", html)
