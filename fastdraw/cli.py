"""The command `fastdraw`. A user's mistake is one line on stderr and exit code 2, never a traceback."""

# Annotations are objects here, not strings: typer reads them, and knows no names of the functions around its own.
import inspect
import platform
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from fastdraw._version import __version__

if TYPE_CHECKING:
    import typer

#: Modules of the extra `train`, by the names they are imported under.
EXTRA = ("typer", "rich", "safetensors", "tensorboard", "pooch", "PIL", "sklearn")


def main(args: list[str] | None = None) -> int:
    """Runs `args` (by default those of the process) and returns the exit code.

    0 done; 1 training diverged; 2 a mistake that the user can mend; 130, 143 stopped by SIGINT, SIGTERM with a checkpoint.
    """
    args = sys.argv[1:] if args is None else args
    try:
        return _run(args)
    except KeyboardInterrupt:
        return _error("interrupted", 130)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRA:
            raise
        return _error(f'{package} is not installed: pip install "fastdraw[train]"', 2)
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        return _error(f"{where}{error.strerror or error}", 2)
    except (ValueError, TypeError) as error:
        if not _is_users(error):
            raise
        return _error(str(error), 2)


def _run(args: list[str]) -> int:
    import typer

    try:
        # Without standalone_mode typer neither prints errors its own way nor exits.
        code = typer.main.get_command(_app())(args, prog_name="fastdraw", standalone_mode=False)
    except typer.Abort:
        return _error("interrupted", 130)
    except typer.Exit as stop:
        return stop.exit_code
    except Exception as error:
        # A click exception, in typer's own copy of click or in the package, by what both have.
        if not hasattr(error, "format_message"):
            raise
        return _error(error.format_message(), 2)
    return code if isinstance(code, int) else 0


def _app() -> "typer.Typer":
    import typer

    app = typer.Typer(
        name="fastdraw",
        help="DRAW (Gregor et al. 2015): train it, and see what it draws.",
        add_completion=False,
        no_args_is_help=True,
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

    app.command("train")(_command(_train))
    app.command("info")(_info)
    return app


def _train(options: Any, explicit: set[str]) -> int:
    """Train DRAW on images: checkpoints, metrics in nats, samples and the drawing process go to one folder.

    Exit codes: 0 done, 1 nats no longer finite, 2 a mistake in the options or the data, 130 or 143 stopped by SIGINT or
    SIGTERM after writing a checkpoint.
    """
    from fastdraw.train import DivergedError, Interrupted, train
    from fastdraw.train.loop import summary

    try:
        result = train(options, explicit)
    except DivergedError as error:
        return _error(str(error), 1)
    except Interrupted as error:
        return 128 + error.signum
    for line in summary(result):
        print(line)
    return 0


def _info() -> None:
    """Say which versions, backends, threads and devices there are."""
    import numpy
    import torch

    import fastdraw

    print(f"fastdraw {__version__}, torch {torch.__version__}, numpy {numpy.__version__}, Python {platform.python_version()}")
    print(f"threads: {torch.get_num_threads()}")
    for name, missing in fastdraw.backends().items():
        print(f"backend {name}: {missing or 'ready'}")
    for i in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(i)
        print(f"device cuda:{i}: {about.name}, {about.total_memory / 2**30:.0f} GiB")
    print(f"device cpu: {platform.processor() or platform.machine()}")


def _command(function: Any) -> Any:
    """`function(options, explicit)` as typer wants it: with one parameter for each field of TrainOptions."""
    import typer

    from fastdraw.train.options import TrainOptions

    def command(ctx: typer.Context, **values: Any) -> None:
        explicit = {name for name in values if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"}
        code = function(TrainOptions(**values), explicit)
        if code:
            raise typer.Exit(code)

    hints = get_type_hints(TrainOptions)
    parameters = [inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)]
    for f in fields(TrainOptions):
        about = typer.Option(
            f"--{f.name.replace('_', '-')}",
            help=f.metadata["help"],
            rich_help_panel=f.metadata["panel"],
            metavar=f.metadata["metavar"],
            show_default=f.metadata["shown"] or True,
        )
        hint: Any = Annotated[hints[f.name], about]
        parameters.append(inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hint))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__doc__ = function.__doc__
    return command


def _is_users(error: Exception) -> bool:
    """Whether the message was written for the user: checks raise "name: expected ..., got ..."; anything else is a bug."""
    return ": expected " in str(error) or type(error) not in (ValueError, TypeError)


def _error(message: str, code: int) -> int:
    print(f"fastdraw: error: {' '.join(message.split())}", file=sys.stderr)
    return code
