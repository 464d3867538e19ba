"""What the C++ library is built of: its interface is no stable one, so a library of other sources would crash Python.

setup.py runs this file by itself, before anything is installed; CMakeLists.txt says the same in its own words.
"""

from hashlib import sha256
from pathlib import Path


def digest(folder: Path) -> "str | None":
    """Of the C++ sources in `folder`; None where there are none, as in an installed wheel."""
    files = sorted(path for kind in ("*.cpp", "*.h", "levels.txt") for path in folder.glob(kind))
    return sha256("".join(sha256(path.read_bytes()).hexdigest() for path in files).encode()).hexdigest() if files else None
