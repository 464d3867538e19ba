"""`fastdraw evaluate`."""

# Annotations are objects here, not strings: typer reads them.
import json as text_of
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastdraw.cli import RUN, say, say_shipped

if TYPE_CHECKING:
    import typer


def register(app: "typer.Typer") -> None:
    import typer

    def evaluate(
        run: Annotated[str, typer.Argument(metavar="RUN", help=RUN, show_default=False)],
        data: Annotated[
            str | None, typer.Option(metavar="NAME|PATH", help="Images to evaluate.", show_default="the run's")
        ] = None,
        data_dir: Annotated[
            str | None, typer.Option(metavar="FOLDER", help="Folder in which these images lie.", show_default="the run's")
        ] = None,
        split: Annotated[str, typer.Option(metavar="test|validation|train", help="The split to evaluate.")] = "test",
        samples: Annotated[
            int,
            typer.Option(
                "--samples", "-k", metavar="K", help="Samples of the importance-weighted estimate; 1: the bound only."
            ),
        ] = 1,
        batch: Annotated[
            int | None, typer.Option(metavar="IMAGES", help="Images times samples at once.", show_default="the run's")
        ] = None,
        limit: Annotated[
            int | None,
            typer.Option(metavar="IMAGES", help="Evaluate only so many, drawn by the seed.", show_default="all"),
        ] = None,
        ema: Annotated[bool, typer.Option(help="Evaluate the moving average of the weights, where the run kept one.")] = True,
        precision: Annotated[
            str | None, typer.Option(metavar="fp32|tf32|bf16", help="Precision of matrix products.", show_default="the run's")
        ] = None,
        seed: Annotated[
            int | None, typer.Option(metavar="NUMBER", help="Seed of noise and binarisation.", show_default="the run's")
        ] = None,
        device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")] = "auto",
        json: Annotated[
            str | None, typer.Option(metavar="FILE", help="Write all figures there as JSON; -: to stdout, and no text.")
        ] = None,
    ) -> None:
        """Measure a trained model on held-out images: nats (the paper's bound, and a tighter estimate from K samples), the KL
        of each glimpse; of a classifier the error, and which classes it takes for which. All with standard errors."""
        from fastdraw.evaluation import evaluate_run

        say_shipped(run)
        how = data, data_dir, split, samples, batch, limit, ema, precision, seed, device
        _evaluated(partial(evaluate_run, run, *how), json)

    app.command("evaluate")(evaluate)


def _evaluated(evaluate: Callable[..., Any], json: str | None) -> None:
    from fastdraw.data.bar import bar
    from fastdraw.evaluation.text import lines
    from fastdraw.files import check_writable, expanded, write_in
    from fastdraw.runs.parallel import rank

    json = expanded(json)
    if json not in (None, "-"):
        check_writable("json", Path(str(json)))
    with bar("evaluating", not rank() and sys.stderr.isatty(), lasting=False) as progress:
        report = evaluate(progress=progress)
    if rank():
        # The first process tells for all.
        return
    text = text_of.dumps(report.to_dict(), indent=2) + "\n"
    if json == "-":
        print(text, end="")
        return
    if json is not None:
        write_in(Path(json), text.encode())
    for line in lines(report):
        say(line)
