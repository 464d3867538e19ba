"""Files that are either wholly the old ones or wholly the new ones, whatever happens in between."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def temporary(path: Path) -> Path:
    """The name a file is written under before it takes `path`'s place: the same folder, hidden, the same suffix.

    It is fixed, so that what a killed process left behind is overwritten by the next one and does not pile up.
    """
    return path.with_name(f".{path.stem}.part{path.suffix}")


def write_atomically(path: Path, data: bytes) -> None:
    """Puts `data` at `path`. Whenever the process or the machine dies, the file is the old one or the new one, never torn.

    Raises OSError (a full disk, say) with the old file in place and the temporary one removed.
    """
    part = temporary(path)
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        if error.filename is None:
            error.filename = str(path)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` outlive a power cut, where the system lets a folder be opened."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        # Some network file systems refuse; the rename itself is atomic all the same.
        pass
    finally:
        os.close(handle)
