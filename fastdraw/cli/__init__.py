"""The command `fastdraw`. A user's mistake is one line on stderr and exit code 2, never a traceback."""

# Annotations are objects here, not strings: typer reads them, and knows no names of the functions around its own.
import contextlib
import importlib
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastdraw._version import __version__
from fastdraw.cli.command import whole
from fastdraw.cli.manners import lasting_streams, with_flags
from fastdraw.installed import extra
from fastdraw.text import printable, short

if TYPE_CHECKING:
    import typer

#: Modules of this package, each with `register(app)`, in the order of the help text.
COMMANDS = ("train", "evaluate", "sample", "view", "profile", "info")
#: Modules of the extra `train`, by the names they are imported under.
EXTRA = (
    "typer",
    "rich",
    "safetensors",
    "tensorboard",
    "requests",
    "platformdirs",
    "filelock",
    "PIL",
    "matplotlib",
    "av",
    "sklearn",
    "scipy",
    "h5py",
)


def main(args: list[str] | None = None) -> int:
    """Runs `args` (by default those of the process) and returns the exit code.

    0 done; 1 training diverged; 2 a mistake that the user can mend; 130, 143, 142 stopped by SIGINT, SIGTERM, --minutes with
    a checkpoint.
    """
    args = sys.argv[1:] if args is None else args
    with lasting_streams():
        return guarded(lambda: _run(args or ["--help"]))


def guarded(work: Callable[[], int]) -> int:
    """What `work()` returns, an exit code; what a user can mend is one line on stderr and the code 2."""
    try:
        return work()
    except KeyboardInterrupt:
        return error_line("interrupted", 130)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("datasets", "pyarrow"):
            return error_line(f"{package} is not installed: {extra('datasets')}", 2)
        if package not in EXTRA:
            raise
        return error_line(f"{package} is not installed: {extra('train')}", 2)
    except (MemoryError, OverflowError) as error:
        return error_line(_too_large(error), 2)
    except RuntimeError as error:
        from fastdraw.runs.parallel import ProcessLost

        if isinstance(error, ProcessLost):
            return _lost(error)
        # Torch has no type of its own for this on the CPU.
        if not re.search("allocate|out of memory|overflow", str(error), re.IGNORECASE):
            raise
        return error_line(_too_large(error), 2)
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        return error_line(f"{where}{error.strerror or error}", 2)
    except (ValueError, TypeError) as error:
        if not _is_users(error):
            raise
        return error_line(str(error), 2)


def _run(args: list[str]) -> int:
    if args == ["--version"]:
        print(f"fastdraw {__version__}")
        return 0
    if args == ["info"]:
        # Needs no package of the extra, since it says what is missing.
        from fastdraw.cli.info import info

        return whole(info)() or 0
    import typer

    from fastdraw.cli.train import spelled

    args = spelled(args) if args[:1] == ["train"] else args
    group: Any = typer.main.get_command(_app())
    try:
        # Without standalone_mode typer neither prints errors its own way nor exits.
        code = group(args, prog_name="fastdraw", standalone_mode=False)
    except typer.Abort:
        return error_line("interrupted", 130)
    except typer.Exit as stop:
        return stop.exit_code
    except (ValueError, TypeError) as error:
        if not _is_users(error):
            raise
        return error_line(with_flags(str(error), group.commands.get(args[0])), 2)
    except Exception as error:
        # A click exception, in typer's own copy of click or in the package, by what both have.
        if not hasattr(error, "format_message"):
            raise
        return error_line(error.format_message(), 2)
    return code if isinstance(code, int) else 0


def _app() -> "typer.Typer":
    import typer

    app = typer.Typer(
        name="fastdraw",
        help="DRAW (Gregor et al. 2015): train it, and see what it draws.",
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )

    def version(wanted: bool) -> None:
        if wanted:
            print(f"fastdraw {__version__}")
            raise typer.Exit

    @app.callback()
    def root(
        wanted: Annotated[bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")] = False,
    ) -> None: ...

    for name in COMMANDS:
        importlib.import_module(f"fastdraw.cli.{name}").register(app)
    for command in app.registered_commands:
        command.callback = whole(command.callback)
    return app


def _is_users(error: Exception) -> bool:
    """Whether the message was written for the user: checks raise "name: expected ..., got ..."; anything else is a bug."""
    return ": expected " in str(error) or type(error) not in (ValueError, TypeError)


def _too_large(error: Exception) -> str:
    return f"memory: expected sizes that this machine's holds, got: {short(error) or 'no room left'}"


def say(text: object) -> None:
    """Prints a line, or lines: strangers' text in it, from a checkpoint, say, commands no terminal."""
    print(printable(text))


#: What commands say of the argument that names a model.
RUN = "A run's folder, a checkpoint's file, a folder of save_pretrained, or a model that comes with fastdraw: mnist."


def say_shipped(run: str) -> None:
    """On stderr, where `run` is no path here, but the name of a model that comes with fastdraw."""
    from fastdraw.pretrained import shipped

    if (folder := shipped(run)) is not None:
        print(f"fastdraw: {run} is the model that comes with it: {printable(folder)}/README.md", file=sys.stderr)


def error_line(message: str, code: int) -> int:
    """Prints the one line that says what went wrong, and gives the exit code back."""
    line = f"fastdraw: error: {printable(' '.join(message.split()))}"
    print(line, file=sys.stderr, flush=True)
    tell_launcher(line)
    return code


def tell_launcher(line: str) -> None:
    """For the table of failures that torchrun ends with, in the form that it reads."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file:
        about = {"py_callstack": line, "timestamp": str(int(time.time()))}
        with contextlib.suppress(OSError):
            Path(file).write_text(json.dumps({"message": {"message": line, "extraInfo": about}}))


#: Seconds that a process which lost another one stays, so that torchrun sees the other one's failure first, and names that.
LINGER = 2.0


def _lost(error: Exception) -> int:
    code = error_line(str(error), 1)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        time.sleep(LINGER)
    return code
