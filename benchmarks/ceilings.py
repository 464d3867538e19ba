"""`python -m benchmarks.ceilings PATH` writes the rates that fastdraw.profile.ceilings measures as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks import checkout

checkout.activate()

from benchmarks.cases import DEVICE  # noqa: E402
from fastdraw.profile import ceilings  # noqa: E402

if __name__ == "__main__":
    text = json.dumps(ceilings.describe(DEVICE), indent=1)
    Path(sys.argv[1]).write_text(text) if len(sys.argv) > 1 else print(text)
