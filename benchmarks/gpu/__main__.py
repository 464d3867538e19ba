"""What a machine with a GPU is asked: two calls, each within ten minutes, with no network and nothing installed.

    python3 -m benchmarks.gpu figures [--out FOLDER] [--seconds 300] [--only WORD ...] [--commit NAME]
    python3 -m benchmarks.gpu train --data-dir FOLDER [--out FOLDER] [--seconds 450] [--state FOLDER] [--set OPTION=VALUE ...]

docs/gpu.md says what comes out, and what to do with it. Exit status: 0, 1 where something failed, 2 without a GPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import checkout
from benchmarks.gpu.processes import gpu


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python3 -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    calls = parser.add_subparsers(dest="call", required=True, metavar="figures | train")
    figures, train = calls.add_parser("figures"), calls.add_parser("train")
    for call, seconds in ((figures, 300.0), (train, 450.0)):
        call.add_argument(
            "--out", type=checkout.folder, default=Path("results"), help="folder for what comes out; default: results"
        )
        call.add_argument("--seconds", type=float, default=seconds, help=f"of the whole call; default: {seconds:.0f}")
        call.add_argument("--tiny", action="store_true", help="sizes that a CPU carries: tries the call without a GPU")
        call.add_argument("--commit", help="what is measured, where git cannot be asked")
    figures.add_argument("--only", nargs="+", metavar="WORD", help="only the steps whose names contain one of these")
    train.add_argument("--data-dir", help="folder with binarized_mnist.npz")
    train.add_argument(
        "--state", type=checkout.folder, default=Path(tempfile.gettempdir()) / "fastdraw-train", help="where the run lies"
    )
    train.add_argument("--samples", type=int, default=100, help="of the importance-weighted estimate; default: 100")
    train.add_argument("--set", nargs="+", default=[], metavar="OPTION=VALUE", help="options of `fastdraw train`")
    said = parser.parse_args(arguments)
    if not said.tiny and (reason := gpu()) is not None:
        print(f"a machine with a GPU is needed: {reason}", file=sys.stderr)
        return 2
    # Not at the top: they may import torch, which may have been missing up to here.
    from benchmarks.gpu.figures import Figures
    from benchmarks.gpu.train import Training

    out = said.out.resolve()
    if said.call == "figures":
        return Figures(out, said.commit, said.tiny)(said.seconds, said.only)
    small = ["glimpses=2", "hidden_size=8", "latent_size=4", "samples=4", "batch_size=20"] if said.tiny else []
    timed = ["--timed", "6"] if said.tiny else []
    timed += ["--commit", said.commit] if said.commit else []
    return Training(
        out, said.state.resolve(), said.data_dir, said.seconds, [*timed, "--set", *small, *said.set], said.samples
    )()


if __name__ == "__main__":
    sys.exit(main())
