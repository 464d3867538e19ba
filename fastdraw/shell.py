"""Commands that are told to the user, as a shell takes them."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def quoted(text: object) -> str:
    """`text` as a shell takes it for one word, whatever its bytes are."""
    word = str(text)
    if word.isprintable():
        return shlex.quote(word)
    inside = "".join(chr(b) if 32 <= b < 127 and chr(b) not in "\\'" else f"\\x{b:02x}" for b in os.fsencode(word))
    return f"$'{inside}'"


def own_command() -> str:
    """How this process was started, as far as it says: `fastdraw`, its path, or Python with -m."""
    called = Path(sys.argv[0] or "-")
    if called.name == "fastdraw" and called.exists():
        found = shutil.which("fastdraw")
        return "fastdraw" if found is not None and os.path.samefile(found, called) else quoted(called)
    found = shutil.which("python")
    same = found is not None and os.path.realpath(found) == os.path.realpath(sys.executable)
    return f"{'python' if same and found == sys.executable else quoted(sys.executable)} -m fastdraw"
