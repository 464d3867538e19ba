"""Files out of a .tar archive, plain or gzipped, into memory.

Nothing is ever written: a member is asked for by its name, and whatever else the archive holds (links, devices, names that
lead out of a folder) is passed over. The archive is unpacked as a stream, of which tarfile is never given more than the next
member may take, so that no header, long name or list of holes fills the memory.
"""

from __future__ import annotations

import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from fastdraw.data.arrays import check_unpacked, reading, unzipped
from fastdraw.data.splits import DataError

#: Bytes that all headers of one member may have; long names and extended headers are a few hundred.
HEADERS = 1 << 20


def members(path: Path, names: Collection[str], largest: int) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each of the members named, in the archive's order.

    names:   as `folder/file`; all of them must be there.
    largest: bytes that a member may have.
    Raises DataError: an archive that is damaged or unpacks to far more than its size, a member that is missing, too large or
    no plain file.
    """
    what = "a whole .tar archive, plain or gzipped"
    with reading(path, what, ".tar archive"), unzipped(path) as file:
        yield from _members(_Allowance(file, path), path, names, largest)


def _members(file: _Allowance, path: Path, names: Collection[str], largest: int) -> Iterator[tuple[str, bytes]]:
    missing = set(names)
    with tarfile.open(fileobj=file, mode="r|") as archive:  # type: ignore[call-overload]
        while missing and (member := archive.next()) is not None:
            # It would keep them all, millions of empty ones too.
            archive.members.clear()
            if member.size < 0:
                raise DataError(f"{path}: expected a whole .tar archive, got a member of {member.size:,} bytes")
            end = member.offset_data + (member.size if _has_content(member) else 0)
            check_unpacked(str(path), path, end)
            file.allowed = end + HEADERS
            name = member.name.removeprefix("./")
            if name not in missing:
                continue
            if not member.isreg() or member.issparse():
                raise DataError(f"{path}: expected a plain file as {name}, got a link or something else")
            if member.size > largest:
                raise DataError(f"{path}: expected at most {largest:,} bytes in {name}, got {member.size:,}")
            content = archive.extractfile(member)
            assert content is not None
            data = content.read()
            if len(data) != member.size:
                raise DataError(f"{path}: expected a whole .tar archive, got one that ends within {name}")
            missing.remove(name)
            yield name, data
    if missing:
        raise DataError(f"{path}: expected {len(names):,} members, got none named {min(missing)}")


def _has_content(member: tarfile.TarInfo) -> bool:
    """Whether `size` bytes follow the header, as tarfile sees it."""
    return member.isreg() or member.type not in tarfile.SUPPORTED_TYPES


class _Allowance:
    """What tarfile reads from: `file` up to `allowed` bytes from its beginning, and a block more."""

    def __init__(self, file: Any, path: Path) -> None:
        self._file, self._path, self._given, self.allowed = file, path, 0, HEADERS

    def read(self, size: int) -> bytes:
        if self._given > self.allowed:
            raise DataError(f"{self._path}: expected at most {HEADERS:,} bytes of headers before a member, got more")
        data = self._file.read(size)
        self._given += len(data)
        return data
