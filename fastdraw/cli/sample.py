"""`fastdraw sample`."""

# Annotations are objects here, not strings: typer reads them.
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from fastdraw.cli import RUN, say, say_shipped

if TYPE_CHECKING:
    import typer


def register(app: "typer.Typer") -> None:
    import typer

    def sample(
        run: Annotated[str, typer.Argument(metavar="RUN", help=RUN, show_default=False)],
        number: Annotated[int, typer.Option("--number", "-n", metavar="IMAGES", help="Images to draw.")] = 64,
        seed: Annotated[int, typer.Option(metavar="NUMBER", help="Seed of the noise, and so of the images.")] = 0,
        labels: Annotated[
            str | None,
            typer.Option(
                metavar="0,1,...",
                help="Classes to draw, again and again in this order, by a model trained with --conditional.",
                show_default="all of them",
            ),
        ] = None,
        out: Annotated[str, typer.Option(metavar="PNG", help="A grid of the first 400; everything else is put beside it.")] = (
            "samples.png"
        ),
        npz: Annotated[
            bool, typer.Option("--npz", help="Also the images as numbers: float32 (n, C, H, W) from 0 to 1.")
        ] = False,
        pngs: Annotated[
            bool,
            typer.Option("--pngs", help="Also each image as a PNG of its own, in a folder: what tools that compute FID read."),
        ] = False,
        nearest: Annotated[
            bool, typer.Option("--nearest", help="Also each sample beside the training image nearest to it (pixelwise L2).")
        ] = False,
        gif: Annotated[bool, typer.Option("--gif", help="Also how they are drawn, as GIF.")] = False,
        mp4: Annotated[bool, typer.Option("--mp4", help="Also how they are drawn, as MP4.")] = False,
        data: Annotated[
            str | None, typer.Option(metavar="NAME|PATH", help="Training images for --nearest.", show_default="the run's")
        ] = None,
        data_dir: Annotated[
            str | None, typer.Option(metavar="FOLDER", help="Folder in which these images lie.", show_default="the run's")
        ] = None,
        device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")] = "auto",
    ) -> None:
        """Draw images with a trained model, from nothing but noise."""
        from fastdraw.files import expanded
        from fastdraw.view.saving import save_samples

        say_shipped(run)
        also = npz, nearest, gif, mp4, data, data_dir, pngs, sys.stderr.isatty()
        for path in save_samples(run, Path(expanded(out)), number, seed, labels, device, *also):
            say(path)

    app.command("sample")(sample)
