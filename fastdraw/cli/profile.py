"""`fastdraw profile`."""

from typing import TYPE_CHECKING, Any

from fastdraw.cli.command import of_options

if TYPE_CHECKING:
    import typer


def register(app: "typer.Typer") -> None:
    from fastdraw.profile.options import Options

    app.command("profile")(of_options(_profile, Options, "operators"))


def _profile(options: Any, explicit: set[str]) -> int:
    """Measure fastdraw's operators on this machine: time, rates, share of the roofline, memory, and the same of others."""
    from fastdraw.profile.command import run

    return run(options)
