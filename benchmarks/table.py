"""The file that `pytest --benchmark --benchmark-log=FILE` wrote, as the tables of docs/performance.md."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from fastdraw.profile import table

if __name__ == "__main__":
    logged = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    print(table.markdown(logged), "", table.roofline(logged), sep="\n")
