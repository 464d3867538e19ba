"""`fastdraw train`."""

from typing import TYPE_CHECKING, Any

from fastdraw.cli import error_line, say, tell_launcher
from fastdraw.cli.command import of_options

if TYPE_CHECKING:
    import typer


def register(app: "typer.Typer") -> None:
    from fastdraw.train.options import TrainOptions

    app.command("train")(of_options(_train, TrainOptions))


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
