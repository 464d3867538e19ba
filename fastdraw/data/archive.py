"""Files out of a .tar archive, packed or not, into memory.

Nothing is ever written: a member is asked for by its name, and whatever else the archive holds (links, devices, names that
lead out of a folder) is passed over.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

from fastdraw.data.arrays import check_unpacked
from fastdraw.data.splits import DataError


def members(path: Path, names: Collection[str], largest: int) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each of the members named, in the archive's order.

    names:   as `folder/file`; all of them must be there.
    largest: bytes that a member may have.
    Raises DataError: an archive that is damaged or unpacks to far more than its size, a member that is missing, too large or
    no plain file.
    """
    missing = set(names)
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                check_unpacked(str(path), path, member.offset)
                name = member.name.removeprefix("./")
                if name not in missing:
                    continue
                if not member.isreg():
                    raise DataError(f"{path}: expected a plain file as {name}, got a link or something else")
                if member.size > largest:
                    raise DataError(f"{path}: expected at most {largest:,} bytes in {name}, got {member.size:,}")
                check_unpacked(str(path), path, member.offset + member.size)
                file = archive.extractfile(member)
                assert file is not None
                content = file.read()
                if len(content) != member.size:
                    raise DataError(f"{path}: expected a whole .tar archive, got one that ends within {name}")
                missing.remove(name)
                yield name, content
                if not missing:
                    return
    # What a damaged archive raises hangs on how it was packed.
    except (tarfile.TarError, zlib.error, EOFError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: expected a whole .tar archive, got a damaged one ({error})") from error
    except OSError as error:
        raise DataError(f"{path}: expected a readable .tar archive, got: {error.strerror or error}") from error
    raise DataError(f"{path}: expected {len(names):,} members, got none named {min(missing)}")
