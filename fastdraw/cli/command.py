"""Commands: with the whole package behind them when they run, and options that may be the fields of a dataclass."""

# Annotations are objects here, not strings: typer reads them.
import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any, get_type_hints

#: Options that are words on the command line, whatever they are in Python.
_WORDS = {"resume": "no"}


def whole(command: Any) -> Any:
    """`command` with all of fastdraw imported before it runs: until then the package may be empty (fastdraw_command.py)."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> Any:
        package = sys.modules["fastdraw"]
        if not hasattr(package, "__all__") and package.__spec__ and package.__spec__.loader:
            package.__spec__.loader.exec_module(package)
        try:
            return command(*args, **options)
        except KeyboardInterrupt:
            # Of which typer would say nothing.
            from fastdraw.cli import error_line

            return error_line("interrupted", 130)

    return run


def of_options(function: Callable[[Any, set[str]], int], kind: Any, *arguments: str) -> Any:
    """`function(options, explicit)`, which gives an exit code, as typer wants it: with a parameter for each field of `kind`,
    made by `runs.options.option`. explicit: the fields that were given. arguments: fields that are given without a flag."""
    import typer

    def command(ctx: typer.Context, **values: Any) -> None:
        explicit = {name for name in values if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"}
        code = function(kind(**values), explicit)
        if code:
            raise typer.Exit(code)

    hints = get_type_hints(kind)
    parameters = [inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)]
    for f in fields(kind):
        made, flag = (typer.Argument, []) if f.name in arguments else (typer.Option, [f"--{f.name.replace('_', '-')}"])
        about = made(
            *flag,
            help=f.metadata["help"],
            rich_help_panel=f.metadata["panel"],
            metavar=f.metadata["metavar"],
            show_default=f.metadata["shown"] or True,
        )
        hint: Any = Annotated[str if f.name in _WORDS else hints[f.name], about]
        default = _WORDS.get(f.name, f.default)
        parameters.append(inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__doc__ = function.__doc__
    return command
