"""The second call: the paper's MNIST model, trained for as long as the call lasts, and measured on the test images at its end.

The run lies in `state`, which a later call on the same machine goes on from; what is to be kept goes to `out` every minute.
Whatever becomes of training, the last checkpoint is evaluated.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import os
import shlex
import subprocess
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from benchmarks import checkout
from benchmarks.checkout import ROOT
from benchmarks.gpu.learn import seed_folder
from benchmarks.gpu.processes import append, end, environment, python
from fastdraw.files import write_atomically

#: Seconds kept for the evaluation and what it leaves; of these, for the last packing.
TESTING, PACKING = 55.0, 6.0
#: Seconds that a process has for its end once its time is over, and again once it was told so.
GRACE = 4.0
#: Seconds between packings.
EVERY = 60.0
#: Bytes that a file may have where it has to come back from: a checkpoint beyond that stays behind.
MOST = 16 << 20
#: Bytes that an archive may have, unpacked.
UNPACKED = 1 << 28
LARGE = "checkpoint.safetensors"


class Training:
    def __init__(
        self, out: Path, state: Path, data_dir: str | None, seconds: float, given: Sequence[str], samples: int
    ) -> None:
        self.end = time.monotonic() + seconds
        self.out, self.state, self.given, self.samples = out, state, given, samples
        self.data = [] if data_dir is None else ["--data-dir", data_dir]
        self.seconds, self.packed = seconds, 0.0

    def __call__(self) -> int:
        self.out.mkdir(parents=True, exist_ok=True)
        self.state.mkdir(parents=True, exist_ok=True)
        testing = min(TESTING, 0.9 * self.seconds)
        left = self.end - testing - time.monotonic()
        # It ends by itself. A little later it is told to, which leaves a checkpoint, and then it has to.
        trained = self.run("train", left + GRACE, "--until", f"{time.time() + left:.1f}", *self.data, *self.given)
        packing = min(PACKING, testing / 8)
        tested = self.run("test", self.end - packing - time.monotonic(), "--samples", str(self.samples), *self.data)
        self.pack()
        found = seed_folder(self.state) / "test.json"
        print(found.read_text() if found.exists() else "the test images were not evaluated")
        print(f"trained: exit {trained}; tested: exit {tested}")
        return 0 if trained == 0 and found.exists() else 1

    def run(self, what: str, limit: float, *arguments: str) -> int | None:
        """Exit status; None where the limit was reached. What it prints goes to the log as it comes, then to the screen."""
        until, log = time.monotonic() + limit, self.out / "log.txt"
        append(log, f"\n===== {what}, {limit:.0f} s\n")
        start = log.stat().st_size
        with log.open("ab") as output:
            process = subprocess.Popen(
                python("benchmarks.gpu.learn", what, str(self.state), *arguments),
                cwd=ROOT,
                env=environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                while process.poll() is None and time.monotonic() < until:
                    time.sleep(0.2)
                    if time.monotonic() - self.packed > EVERY:
                        self.pack()
                code = process.poll()
                if code is None:
                    process.terminate()
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(timeout=GRACE)
            finally:
                end(process)
        print(log.read_bytes()[start:].decode(errors="replace")[-3000:], flush=True)
        return code

    def pack(self) -> None:
        """Everything but the checkpoint in one archive, the checkpoint beside it; each put in place whole."""
        self.packed = time.monotonic()
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
            for path in sorted(self.state.rglob("*")):
                relative = path.relative_to(self.state)
                if path.is_file() and path.name != LARGE and relative.parts[0] != "timed" and not path.name.startswith("."):
                    try:
                        archive.add(path, str(relative))
                    except OSError as error:
                        append(self.out / "log.txt", f"not packed: {relative}: {error}\n")
        self._put("run.tgz", packed.getvalue())
        checkpoint = seed_folder(self.state) / LARGE
        if checkpoint.exists():
            self._put(LARGE, checkpoint.read_bytes())

    def _put(self, name: str, data: bytes) -> None:
        if len(data) > MOST:
            append(self.out / "log.txt", f"left behind: {name} has {len(data)} bytes\n")
            return
        new = self.out / f".{name}.new"
        new.write_bytes(data)
        os.replace(new, self.out / name)


def unpacked(out: Path, folder: Path) -> None:
    """A call's files as a folder of `benchmarks.reproduce`. Raises ValueError for an archive that `pack` did not make."""
    with gzip.open(out / "run.tgz") as packed:
        content = packed.read(UNPACKED + 1)
    if len(content) > UNPACKED:
        raise ValueError(f"run.tgz: expected at most {UNPACKED:,} bytes unpacked, got more")
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            parts = PurePosixPath(member.name).parts
            if not member.isreg() or not parts or parts[0] == "/" or ".." in parts:
                raise ValueError(f"run.tgz: expected plain files within a folder, got {member.name!r}")
            path = folder.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            file = archive.extractfile(member)
            assert file is not None
            write_atomically(path, file.read())
    if (out / LARGE).exists():
        (seed_folder(folder) / LARGE).write_bytes((out / LARGE).read_bytes())


def reproduced(folder: Path) -> str:
    """The command that draws and reports what was unpacked there, and trains nothing that was trained."""
    options = json.loads((folder / "plan.json").read_text())["options"]
    said = [f"{name}={value}" for name, value in options.items() if name != "data_dir"]
    words = ["benchmarks.reproduce", "mnist", "--data-dir", "DATA", "--out", str(folder), "--set", *said]
    return shlex.join(["python3", "-m", *words])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.gpu.train", description=unpacked.__doc__)
    parser.add_argument("out", type=checkout.folder, help="what the call wrote")
    parser.add_argument("folder", type=checkout.folder, help="where to unpack it")
    said = parser.parse_args()
    unpacked(said.out, said.folder)
    print(reproduced(said.folder))
