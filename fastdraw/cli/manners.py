"""How the command line behaves with its surroundings: streams that are gone, names that no encoding has, flags."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

#: What a stream says whose reader has gone: `| head`, a terminal that was closed.
_GONE = (errno.EPIPE, errno.EIO, errno.EBADF)
#: Arguments of Python functions by the names that commands have for them.
_NAMES = {"batch_size": "batch", "path": "run"}


class Lasting:
    """A stream that swallows what its reader, who has gone, can no longer see: a run of hours does not end with its pipe."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._outliving():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._outliving():
            self._stream.flush()

    @contextlib.contextmanager
    def _outliving(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _GONE:
                raise
            # What is still to be written, by Python at its end, too, goes nowhere.
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def lasting_streams() -> Iterator[None]:
    """Inside, stdout and stderr take any text and outlive their readers; where one was closed, there is one to nowhere."""
    for handle in range(3):
        try:
            os.fstat(handle)
        except OSError:
            # Otherwise the next file would get the number, and what libraries print would stand in it.
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    opened = [stream or open(os.devnull, "w") for stream in before]  # noqa: SIM115 (open as long as the process)
    errors = [getattr(stream, "errors", None) for stream in opened]
    for stream in opened:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = (Lasting(stream) for stream in opened)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, old in zip(opened, errors, strict=True):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors=old)
        sys.stdout, sys.stderr = (old or new for old, new in zip(before, opened, strict=True))


def with_flags(message: str, command: Any) -> str:
    """An error's message that begins with a Python argument's name, with the name that `command` (click's) has for it."""
    found = re.match(r"(\w+): expected ", message)
    if found is None or command is None:
        return message
    known = {parameter.name: parameter for parameter in command.params}
    parameter = known.get(found[1]) or known.get(_NAMES.get(found[1], ""))
    if parameter is None:
        return message
    if parameter.param_type_name == "argument":
        name = parameter.metavar or ""
        # "[read|write|...]..." lists what it takes, and is no name.
        name = name if name.isidentifier() else parameter.name
    else:
        name = max(parameter.opts, key=len)
    return name + message[len(found[1]) :]
