"""`fastdraw train`."""

# Annotations are objects here, not strings: typer reads them.
import inspect
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from fastdraw.cli import error_line, say, tell_launcher

if TYPE_CHECKING:
    import typer


def register(app: "typer.Typer") -> None:
    app.command("train")(_command(_train))


def _train(options: Any, explicit: set[str]) -> int:
    """Train DRAW on images, or its classifier: checkpoints, metrics, samples and the drawing process go to one folder.

    On several GPUs, or several CPU processes: torchrun --nproc-per-node 2 -m fastdraw train ...

    Exit codes: 0 done, 1 nats no longer finite, 2 a mistake in the options or the data; stopped with a checkpoint: 130 by
    SIGINT, 143 by SIGTERM, 142 after --minutes.
    """
    from fastdraw.train import DivergedError, Interrupted, train
    from fastdraw.train.display import summary

    try:
        result = train(options, explicit)
    except DivergedError as error:
        return error_line(str(error), 1)
    except Interrupted as error:
        tell_launcher(f"fastdraw: {error}")
        return 128 + error.signum
    if result.rank == 0:
        for line in summary(result):
            say(line)
    return 0


def spelled(args: list[str]) -> list[str]:
    """`args` with `--resume` spelled out: alone it means yes, and typer has no option whose value may be left out."""
    out: list[str] = []
    for word in args:
        if out and out[-1] == "--resume":
            given = word in ("yes", "no", "auto")
            out[-1] = f"--resume={word if given else 'yes'}"
            if given:
                continue
        out.append(word)
    if out and out[-1] == "--resume":
        out[-1] = "--resume=yes"
    return out


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
        # What is True, False or a word is a word here.
        spelled_out = f.name == "resume"
        hint: Any = Annotated[str if spelled_out else hints[f.name], about]
        default = "no" if spelled_out else f.default
        parameters.append(inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__doc__ = function.__doc__
    return command
