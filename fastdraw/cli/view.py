"""`fastdraw view`."""

# Annotations are objects here, not strings: typer reads them.
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from fastdraw.cli import RUN, say, say_shipped
from fastdraw.text import printable

if TYPE_CHECKING:
    import typer


def register(app: "typer.Typer") -> None:
    import typer

    def view(
        run: Annotated[str, typer.Argument(metavar="RUN", help=RUN, show_default=False)],
        what: Annotated[
            str,
            typer.Option(
                metavar="all|NAME,...",
                help="What to draw. DRAW: samples, drawing (GIF and MP4), reconstructions, windows, kl, nearest (figure 6), "
                "page. A classifier: attention, page.",
            ),
        ] = "all",
        out: Annotated[
            str | None,
            typer.Option(metavar="FOLDER", help="Where to put the pictures.", show_default="RUN/view; mnist-view for mnist"),
        ] = None,
        number: Annotated[int, typer.Option("--number", "-n", metavar="IMAGES", help="Images in each picture.")] = 16,
        seed: Annotated[int, typer.Option(metavar="NUMBER", help="Seed of noise, and of which images are shown.")] = 0,
        data: Annotated[
            str | None, typer.Option(metavar="NAME|PATH", help="Images to show.", show_default="the run's")
        ] = None,
        data_dir: Annotated[
            str | None, typer.Option(metavar="FOLDER", help="Folder in which these images lie.", show_default="the run's")
        ] = None,
        split: Annotated[
            str,
            typer.Option(metavar="test|validation|train", help="The split whose images are shown."),
        ] = "test",
        device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")] = "auto",
    ) -> None:
        """Draw pictures of a trained model, and a page in which to scrub through its glimpses (page.html, for any browser)."""
        from fastdraw.files import expanded
        from fastdraw.view.saving import view_run

        say_shipped(run)
        folder = Path(expanded(out)) if out is not None else None
        for path in view_run(
            run,
            what,
            folder,
            number,
            seed,
            data,
            data_dir,
            split,
            device,
            lambda line: print(printable(line), file=sys.stderr),
        ):
            say(path)

    app.command("view")(view)
