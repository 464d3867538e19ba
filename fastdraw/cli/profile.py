"""`fastdraw profile`."""

# Annotations are objects here, not strings: typer reads them.
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

if TYPE_CHECKING:
    import typer


def register(app: "typer.Typer") -> None:
    import typer

    def profile(
        operators: Annotated[
            list[str] | None,
            typer.Argument(metavar="[read|write|lstm|draw|all]...", help="What to measure.", show_default="all"),
        ] = None,
        shape: Annotated[
            list[str] | None,
            typer.Option(
                metavar="SIZES[,NAME=VALUE]...",
                help="As the table writes it: 4x3x1024x1024,N=32,window=0.25 (batch, channels, height, width) for read and "
                "write, and K=4 for several windows, grad=params for no gradient to the image; 128x264x256 (batch, inputs, "
                "hidden units) for lstm; 128x1x28x28,T=64,h=256,Z=100,read=2,write=5 for draw. May be given several times.",
                show_default="a list for each operator",
            ),
        ] = None,
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
                help="What to measure fastdraw against: plain (PyTorch, dense products), einsum, grid_sample (approximate), "
                "LSTMCell; and compile, jax, which take long to compile and are not in standard.",
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
        from fastdraw.profile.command import Options, run

        return run(
            Options(
                operators=operators or [],
                shapes=shape or [],
                backend=backend,
                device=device,
                dtype=dtype,
                seconds=seconds,
                peers=peers,
                json=json,
                plot=plot,
                trace=trace,
                compare=compare,
                fail_slower=fail_slower,
            )
        )

    app.command("profile")(profile)
