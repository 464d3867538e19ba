"""`fastdraw profile`."""

# Annotations are objects here, not strings: typer reads them.
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

if TYPE_CHECKING:
    import typer


def register(app: "typer.Typer") -> None:
    import typer

    def of_shape(metavar: str, text: str, default: str) -> Any:
        return typer.Option(metavar=metavar, help=text, show_default=default, rich_help_panel="With --shape")

    def profile(
        operators: Annotated[
            list[str] | None,
            typer.Argument(metavar="[read|write|lstm|draw|all]...", help="What to measure.", show_default="all"),
        ] = None,
        shape: Annotated[
            list[str] | None,
            typer.Option(
                metavar="SIDES",
                help="4x3x1024x1024 (batch, channels, height, width) for read, write and draw, 128x264x256 (batch, inputs, "
                "hidden units) for lstm. May be given several times.",
                show_default="a list for each operator",
            ),
        ] = None,
        size: Annotated[int | None, of_shape("N", "Filters along a side of read's and write's patch.", "12")] = None,
        window: Annotated[
            float | None, of_shape("FRACTION", "Side of read's and write's window, of the image's longer one.", "0.5")
        ] = None,
        windows: Annotated[int | None, of_shape("K", "Windows of each image, for read and write.", "1")] = None,
        params_only: Annotated[bool, typer.Option("--params-only", help="No gradient to read's image.")] = False,
        glimpses: Annotated[int | None, of_shape("T", "Of draw.", "64")] = None,
        hidden_size: Annotated[int | None, of_shape("UNITS", "Of draw's LSTMs.", "256")] = None,
        latent_size: Annotated[int | None, of_shape("Z", "Latent variables of draw's glimpse.", "100")] = None,
        read_size: Annotated[int | None, of_shape("N", "Filters along a side of draw's read.", "2")] = None,
        write_size: Annotated[int | None, of_shape("N", "Filters along a side of draw's write.", "5")] = None,
        backend: Annotated[str, typer.Option(metavar="auto|native|aten|triton|reference", help="Of fastdraw.")] = "auto",
        device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")] = "auto",
        dtype: Annotated[
            str, typer.Option(metavar="float32|bfloat16|float16", help="Of images, patches and products; autocast for draw.")
        ] = "float32",
        seconds: Annotated[float, typer.Option(metavar="SECONDS", help="Measuring time for each variant.")] = 0.4,
        peers: Annotated[
            str,
            typer.Option(
                metavar="standard|all|none|NAME,...",
                help="What to measure fastdraw against: reference (plain PyTorch, dense products), einsum, grid_sample "
                "(approximate), LSTMCell; and compile, jax, which take long to compile and are not in standard.",
            ),
        ] = "standard",
        json: Annotated[
            Path | None,
            typer.Option(metavar="FILE.json", help="Write every figure, machine and versions.", show_default=False),
        ] = None,
        plot: Annotated[
            Path | None, typer.Option(metavar="FILE.png", help="Draw a roofline plot.", show_default=False)
        ] = None,
        trace: Annotated[
            Path | None,
            typer.Option(
                metavar="FILE.json", help="Write a trace of a step of each, for ui.perfetto.dev.", show_default=False
            ),
        ] = None,
        compare: Annotated[
            str | None, typer.Option(metavar="OLD.json", help="Say what got slower since that --json.", show_default=False)
        ] = None,
        fail_slower: Annotated[
            bool, typer.Option("--fail-slower", help="Exit with 1 where something of fastdraw's got slower; needs --compare.")
        ] = False,
    ) -> int:
        """Measure fastdraw's operators on this machine: time, rates, share of the roofline, memory, and the same of others."""
        from fastdraw.files import expanded
        from fastdraw.profile.command import Options, run

        said = {
            "size": size,
            "window": window,
            "windows": windows,
            "params_only": params_only or None,
            "glimpses": glimpses,
            "hidden_size": hidden_size,
            "latent_size": latent_size,
            "read_size": read_size,
            "write_size": write_size,
        }
        return run(
            Options(
                operators=operators or [],
                shapes=shape or [],
                said={name: value for name, value in said.items() if value is not None},
                backend=backend,
                device=device,
                dtype=dtype,
                seconds=seconds,
                peers=peers,
                json=expanded(json),
                plot=expanded(plot),
                trace=expanded(trace),
                compare=expanded(compare),
                fail_slower=fail_slower,
            )
        )

    app.command("profile")(profile)
