"""Files that are either wholly the old ones or wholly the new ones, whatever happens in between, and folders of one owner.

Whoever else may write to a folder can put links there under any name that is known beforehand. So temporary names are
drawn at random and opened only where nothing stands yet, and no file is opened through a link.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows.
    fcntl = None  # type: ignore[assignment]

#: Flags that some systems lack.
_NO_LINK, _NO_WAIT, _BINARY = (getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
#: What a system says that has no locks on this file system.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
LOCK = ".lock"


class OwnedError(ValueError):
    """A folder that another process owns."""


def temporary(path: Path) -> Path:
    """A fixed hidden name beside `path`, with its suffix: for what another process is to go on with, as downloads are. Others
    may have put anything there: see `disown`."""
    return path.with_name(f".{path.stem}.part{path.suffix}")


def write_atomically(path: Path, data: bytes) -> None:
    """Puts `data` at `path`. Whenever the process or the machine dies, the file is the old one or the new one, never torn.

    Of several processes that write one file, one wins and no file is torn. A link at `path` is replaced, not followed. What
    is no regular file (/dev/null, /dev/stdout, a pipe) is written to.

    Raises OSError (a full disk, say) with the old file in place and the temporary one removed.
    """
    write_together({path: data})


def write_together(files: Mapping[Path, bytes]) -> None:
    """As `write_atomically` for each file; no old one is replaced before all new ones are written and on the disk."""
    parts: dict[Path, Path] = {}
    path = Path()
    try:
        for path, data in files.items():
            if _is_stream(path):
                _pour(path, data)
            else:
                parts[path] = _written(path, data)
        for path in list(parts):
            os.replace(parts[path], path)
            del parts[path]
    except OSError as error:
        # Named by what the caller knows, not by the temporary name.
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        for part in parts.values():
            with contextlib.suppress(OSError):
                part.unlink()
    for folder in {path.parent for path in files if not _is_stream(path)}:
        sync_folder(folder)


@contextlib.contextmanager
def growing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to as it comes, which stands at `path` once all within has ended well, and is gone otherwise.

    Raises OSError, named by `path`, and leaves what stood there.
    """
    part = _part(path)
    try:
        with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_LINK | _BINARY, 0o666), "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_folder(path.parent)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


@contextlib.contextmanager
def growing_folder(path: Path) -> Iterator[Path]:
    """The same with a folder of files: `path` must be free, or an empty folder. Raises OSError."""
    part = _part(path)
    try:
        part.mkdir()
        yield part
        sync_folder(part)
        # Onto what is there now, this fails where it is no empty folder.
        os.rename(part, path)
        sync_folder(path.parent)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def second_name(path: Path) -> Iterator[Path]:
    """A hidden second name of the file at `path`, gone afterwards unless it was moved; a copy where there are no links."""
    part = _part(path)
    try:
        try:
            os.link(path, part, follow_symlinks=False)
        except OSError:
            part.write_bytes(path.read_bytes())
        yield part
    finally:
        # Also where both names were of one file already: to move one over the other does nothing.
        with contextlib.suppress(OSError):
            part.unlink()


def append_to(path: Path) -> BinaryIO:
    """`path` opened for appending. A link, a second name of another file, and what is no file are refused with OSError."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _NO_LINK | _NO_WAIT | _BINARY, 0o666)
    if not _is_own(os.fstat(handle)):
        os.close(handle)
        raise OSError(errno.EEXIST, "expected a file of one name, got something else", str(path))
    return os.fdopen(handle, "ab")


def disown(path: Path) -> None:
    """Takes away what `append_to` would refuse at `path`: the name alone, not what is behind it."""
    with contextlib.suppress(FileNotFoundError):
        if not _is_own(os.lstat(path)):
            os.unlink(path)


def _is_own(about: os.stat_result) -> bool:
    """Whether a file has one name only; what has more may be anybody's."""
    return stat.S_ISREG(about.st_mode) and about.st_nlink == 1


def sweep(folder: Path) -> None:
    """Removes what killed processes left of files that they were writing to `folder`. For its owner: see `owned`."""
    for path in folder.glob(".fastdraw-*"):
        if _PARTS.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode):
            with contextlib.suppress(OSError):
                path.unlink()


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Within it this process alone owns `folder`, which is made where it is missing, and taken away again if it stays empty.

    The system gives the folder free when the process ends, however it ends. Raises OwnedError, naming the other process,
    where there is one; OSError where the folder cannot be written to.
    """
    made = missing(folder)
    os.makedirs(folder, exist_ok=True)
    try:
        handle = _locked(folder)
        try:
            yield
        finally:
            if handle is not None:
                # While the lock is held: whoever opened the file meanwhile sees that it is gone.
                with contextlib.suppress(OSError):
                    os.unlink(folder / LOCK)
                os.close(handle)
    finally:
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()


def missing(folder: Path) -> list[Path]:
    """`folder` and those above it that are not there, the innermost first: what `os.makedirs` would make."""
    return [path for path in (folder, *folder.parents) if not os.path.lexists(path)]


def expanded(path: Any) -> Any:
    """`path`, text or Path, with a leading ~ as the home folder, which shells leave alone after `--out=`; None stays None."""
    return path if path is None else type(path)(os.path.expanduser(path))


def check_writable(name: str, path: Path) -> None:
    """Finds out before long work that a file cannot be written after it. Nothing is made: `write_in` makes missing folders.

    Raises ValueError, naming the argument `name`, where `path` is a folder or lies in what is none or may not be written to.
    """
    if path.is_dir():
        raise ValueError(f"{name}: expected a file, got the folder {path}")
    above = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    if not above.is_dir() or not (os.access(above, os.W_OK | os.X_OK) or _is_stream(path)):
        raise ValueError(f"{name}: expected a file in a folder that can be written to, got {path}")


def write_in(path: Path, data: bytes) -> None:
    """As `write_atomically`; the folders that `path` lies in are made where they are missing."""
    os.makedirs(path.absolute().parent, exist_ok=True)
    write_atomically(path, data)


@contextlib.contextmanager
def utf8_name(path: Path) -> Iterator[str]:
    """A name of `path` for libraries that take UTF-8 alone: its own, or that of a link which is there for the time being."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory(prefix="fastdraw-") as folder:
            link = os.path.join(folder, "link")
            os.symlink(os.path.abspath(path), link)
            yield link
    else:
        yield str(path)


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


def _part(path: Path) -> Path:
    return path.with_name(f".fastdraw-{os.urandom(8).hex()}.part")


#: Temporary names, as `_part` makes them.
_PARTS = re.compile(r"\.fastdraw-[0-9a-f]{16}\.part")


def _written(path: Path, data: bytes) -> Path:
    """A new file beside `path` with these bytes, on the disk, with the rights of the file that it is to replace."""
    part = _part(path)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK | _BINARY, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            with contextlib.suppress(OSError, AttributeError):
                old = os.lstat(path)
                if stat.S_ISREG(old.st_mode):
                    os.fchmod(handle, stat.S_IMODE(old.st_mode))
            file.write(data)
            file.flush()
            os.fsync(handle)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    return part


def _is_stream(path: Path) -> bool:
    """Whether `path` is there and no regular file; the system's own names of open files (/dev/stdout) are such too."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    if stat.S_ISREG(mode):
        return os.path.abspath(path).startswith(("/dev/fd/", "/dev/std", "/proc/"))
    return not stat.S_ISDIR(mode)


def _pour(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | _BINARY), "wb") as file:
        file.write(data)


def _locked(folder: Path) -> int | None:
    """The open lock file of `folder`, signed by this process; None where the system or file system has no locks."""
    if fcntl is None:
        return None
    while True:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its owner may have ended, and taken the file away, between the two calls.
            if _is_at(handle, folder / LOCK):
                _sign(handle)
                return handle
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                owner = f"process {_signed(handle)}" if _signed(handle) else "another process"
                message = f"out: expected a folder in which nothing else trains, got {folder}: {owner} does"
                os.close(handle)
                raise OwnedError(message) from None
            os.close(handle)
            if error.errno in _NO_LOCKS:
                return None
            raise
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def _signed(handle: int) -> str:
    """Who owns a lock, as `_sign` wrote it; empty where that is not what is in it."""
    text = os.pread(handle, 200, 0).decode(errors="replace")
    return text if re.fullmatch(r"\d+ on [\w.-]+", text) else ""


def _sign(handle: int) -> None:
    about = os.fstat(handle)
    # Anything else under this name is somebody's own, a second name of their file, say.
    if about.st_nlink == 1 and (about.st_size == 0 or _signed(handle)):
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()} on {os.uname().nodename}".encode(), 0)
