"""The file that `pytest --benchmark --benchmark-log=FILE` wrote, as the tables of docs/performance.md."""

from __future__ import annotations

import argparse
import json

from benchmarks import checkout
from fastdraw.profile import table

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__)
    parser.add_argument("log", type=checkout.folder, help="that file")
    logged = [json.loads(line) for line in parser.parse_args().log.read_text().splitlines()]
    print(table.markdown(logged), "", table.roofline(logged), sep="\n")
