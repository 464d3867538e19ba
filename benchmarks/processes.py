"""Many processes, and more data than memory holds: the rows of docs/scaling.md's table, each by a command that prints it.

    python -m benchmarks.processes [NAME ...]      all rows without a name

    share     batch and noise of one process of 64, 128 images each, as a share of its step
    many      batch and noise of one process of 1,024 against one of 1, and the memory of each
    photos    2,000 photos of 1280 x 960 brought to 64 x 64: the first start, and the second
    memory    what a run on 1,000,000 images of 64 x 64 x 3 holds of its own, in a file made for it, beyond one on 10,000
    epoch     an epoch of batches out of a mapped file against the same out of memory
    killed    30 workers killed under torchrun
    samples   20,000 samples

The first two are of the paper's MNIST setting, one thread, under torch's fake process group, which answers at once, so that no
network's time is in them; what is compared takes turns. Times are wall clock where a row says so, otherwise processor time.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import kills

SHARE = 128
#: Of the three that are taken in turn, the median counts.
ROUNDS = 3


def status(field: str) -> float:
    """Of this process, MiB: VmHWM, the most that was resident; RssAnon, what is now but for files."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def one_of(size: int, turns: int) -> dict[str, float]:
    """One process of so many: milliseconds of batch and noise and of the step without them, and the most memory."""
    import torch
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    import fastdraw
    from fastdraw.runs.parallel import Processes
    from fastdraw.runs.randomness import normal_rows
    from fastdraw.train.batches import Batches

    torch.set_num_threads(1)
    dist.init_process_group("fake", store=FakeStore(), rank=size // 2, world_size=size)
    processes = Processes(dist.group.WORLD)
    batch, cpu = SHARE * size, torch.device("cpu")
    # As many as the largest batch has; every image is the same memory, since it is the drawing that is timed.
    images = torch.randint(0, 256, (1, 1, 28, 28), dtype=torch.uint8).expand(SHARE * 1024 * 4, -1, -1, -1)
    batches = Batches(images, None, None, batch, True, 0, cpu, processes)
    model = fastdraw.DRAW.from_config(fastdraw.presets["mnist"])
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    step = fastdraw.GraphedStep(model, optimizer, batches(0).images, clip=10.0, process_group=processes.group)
    shape = model.config.glimpses, model.config.latent_size
    drawing, stepping = [], []
    for turn in range(turns + 2):
        began = time.process_time()
        x = batches(turn).images
        e = normal_rows(0, "noise", turn, processes.rows(batch), batch, shape, cpu).transpose(0, 1)
        drawn = time.process_time()
        step(x, e)
        # The first two fill caches and choose libraries.
        if turn >= 2:
            drawing.append(drawn - began)
            stepping.append(time.process_time() - drawn)
    dist.destroy_process_group()
    # A sixteenth of the steps finds the order for all of them.
    return {"drawing": 1e3 * statistics.mean(drawing), "step": 1e3 * statistics.median(stepping), "most": status("VmHWM")}


def loads(folder: str) -> dict[str, float]:
    from fastdraw import data

    began = time.perf_counter()
    splits = data.load(folder, image_size=(64, 64))
    return {"images": sum(map(len, splits[:3])), "seconds": time.perf_counter() - began}


def holds(file: str) -> dict[str, float]:
    """A few steps of a small model on a file's images, and an evaluation: the most that was held but for mapped files, MiB."""
    from threading import Thread

    from fastdraw.train import TrainOptions, train
    from fastdraw.train.display import Silent

    found, over = [0.0], False

    def watch() -> None:
        while not over:
            found.append(status("RssAnon"))
            time.sleep(0.01)

    watcher = Thread(target=watch)
    watcher.start()
    with tempfile.TemporaryDirectory() as folder:
        small: dict[str, Any] = {"glimpses": 4, "hidden_size": 64, "latent_size": 8, "read_size": "4", "write_size": "4"}
        how: dict[str, Any] = {"epochs": 1, "steps": 20, "batch_size": 64, "skip_test": True, "threads": 1, "samples": 4}
        train(TrainOptions(data=file, out=f"{folder}/run", **small, **how), None, Silent())
    over = True
    watcher.join()
    return {"most": max(found)}


def epochs(file: str) -> dict[str, list[float]]:
    """Milliseconds of each epoch's batches, mapped and out of memory in turn; the first of each warms up."""
    import torch

    from fastdraw import data
    from fastdraw.runs.parallel import ALONE
    from fastdraw.train.batches import Batches

    torch.set_num_threads(1)
    mapped = data.load(file).train
    of = {"mapped": mapped, "memory": mapped.clone()}
    batches = {name: Batches(images, None, None, SHARE, False, 0, torch.device("cpu"), ALONE) for name, images in of.items()}
    found: dict[str, list[float]] = {name: [] for name in of}
    for turn in range(2 * ROUNDS + 1):
        for name in sorted(of, reverse=turn % 2 == 1):
            steps = batches[name].steps_per_epoch
            began = time.process_time()
            for step in range(turn * steps, (turn + 1) * steps):
                batches[name](step)
            if turn:
                found[name].append(1e3 * (time.process_time() - began))
    return found


def trains(folder: str) -> None:
    """A run of the paper's model for MNIST, of a single step."""
    from fastdraw.train import TrainOptions, train
    from fastdraw.train.display import Silent

    train(TrainOptions(data="digits", preset="mnist", steps=1, skip_test=True, out=folder), None, Silent())


#: What is done in a process of its own.
MEASURES: dict[str, Callable[..., Any]] = {
    "one_of": one_of,
    "loads": loads,
    "holds": holds,
    "epochs": epochs,
    "trains": trains,
}


def apart(measure: str, *args: Any, **env: str) -> tuple[Any, float]:
    """What a measure gives, and the processor seconds of its process and that one's."""
    command = [sys.executable, "-m", "benchmarks.processes", "--measure", json.dumps([measure, *args])]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **env})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return json.loads(done.stdout), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def share() -> str:
    found, _ = apart("one_of", 64, 32)
    part = found["drawing"] / (found["drawing"] + found["step"])
    return f"{100 * part:.2f} % of a step ({found['drawing']:.2f} of {found['drawing'] + found['step']:.0f} ms); want <= 2 %"


def many() -> str:
    found: dict[int, list[dict[str, float]]] = {1: [], 1024: []}
    for size in [1, 1024] * ROUNDS:
        found[size].append(apart("one_of", size, 16)[0])
    one, all_ = ({k: statistics.median(each[k] for each in found[size]) for k in found[size][0]} for size in found)
    ratio = 100 * (all_["drawing"] / one["drawing"] - 1)
    return (
        f"{all_['drawing']:.2f} against {one['drawing']:.2f} ms, {ratio:+.1f} %, {all_['most']:.0f} against "
        f"{one['most']:.0f} MiB; want within 10 %"
    )


def photos() -> str:
    import numpy as np
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "photos").mkdir()
        for i in range(2000):
            if i % 100 == 0:
                # Light as in photographs: noise whose amplitude falls with its frequency.
                spread = np.hypot(np.fft.fftfreq(960)[:, None], np.fft.rfftfreq(1280)) + 1e-3
                wave = np.fft.rfft2(np.random.default_rng(i).standard_normal((3, 960, 1280))) / spread
                light = np.fft.irfft2(wave, (960, 1280))
                # Colours differ less than light does.
                light[1:] = light[:1] + 0.3 * light[1:]
                pixels = np.clip(128 + 48 * light / light.std((1, 2), keepdims=True), 0, 255).astype(np.uint8)
                file = io.BytesIO()
                Image.fromarray(pixels.transpose(1, 2, 0)).save(file, "JPEG", quality=90)
            (Path(folder) / "photos" / f"{i:04}.jpg").write_bytes(file.getvalue())
        (first, cpu), (second, _) = (apart("loads", f"{folder}/photos", FASTDRAW_CACHE=f"{folder}/cache") for _ in (1, 2))
    cores = len(os.sched_getaffinity(0))
    return (
        f"first start {first['seconds']:.1f} s on {cores} cores ({cpu:.1f} s of processor time with the imports), second "
        f"{second['seconds']:.2f} s; want <= 8 s, <= 2 s"
    )


def _images(file: str, count: int) -> None:
    """[count, 3, 64, 64] as .npy, of which the disk holds the first thousand: the others, holes in the file, are black."""
    import numpy as np

    shape = (count, 3, 64, 64)
    with open(file, "wb") as out:
        np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
        end = out.tell() + math.prod(shape)
        out.write(np.random.default_rng(0).integers(0, 256, (min(1000, count), *shape[1:]), np.uint8).tobytes())
        out.truncate(end)


def memory() -> str:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in (10_000, 1_000_000):
            _images(f"{folder}/{count}.npy", count)
            found[count] = apart("holds", f"{folder}/{count}.npy")[0]["most"]
    more = found[1_000_000] - found[10_000]
    return f"{found[1_000_000]:.0f} MiB but for mapped files, {more:+.0f} against 10,000 images; want < 500 more"


def epoch() -> str:
    with tempfile.TemporaryDirectory() as folder:
        # 491 MB: from 256 MiB on files are mapped.
        _images(f"{folder}/images.npy", 40_000)
        found, _ = apart("epochs", f"{folder}/images.npy")
    mapped, held = (statistics.median(found[name]) for name in ("mapped", "memory"))
    return f"mapped {mapped:.0f} ms, out of memory {held:.0f} ms, {100 * (mapped / held - 1):+.1f} %; want within 5 %"


def killed() -> str:
    count = kills.KILLS
    there, outlived, restarts, same = kills.under_torchrun(count)
    end = "the same bits as" if same else "ANOTHER END THAN"
    return f"{outlived} of {there} outlived, by {restarts} restarts, and {end} the undisturbed run; want {count} of {count}"


def samples() -> str:
    with tempfile.TemporaryDirectory() as folder:
        # Not in this process, whose memory a child's figure would begin with.
        apart("trains", f"{folder}/run")
        began = time.perf_counter()
        command = [sys.executable, "-m", "fastdraw", "sample", f"{folder}/run", "-n", "20000", "--npz"]
        process = subprocess.Popen([*command, "--out", f"{folder}/samples.png"], stdout=subprocess.DEVNULL)
        _, code, used = os.wait4(process.pid, 0)
    assert code == 0, f"sample ended with {code}"
    return f"{used.ru_maxrss / 1e6:.2f} GB, {time.perf_counter() - began:.0f} s; want 0.6 GB, 40 s"


ROWS: dict[str, Callable[[], str]] = {
    "share": share,
    "many": many,
    "photos": photos,
    "memory": memory,
    "epoch": epoch,
    "killed": killed,
    "samples": samples,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"rows: {', '.join(ROWS)} (default all)")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.measure:
        name, *args = json.loads(said.measure)
        print(json.dumps(MEASURES[name](*args)))
        return
    for name in said.names:
        if name not in ROWS:
            parser.error(f"NAME: expected some of {', '.join(ROWS)}, got {name}")
    from benchmarks import environment

    environment.warn()
    for name in said.names or ROWS:
        print(f"{name:<8} {ROWS[name]()}", flush=True)


if __name__ == "__main__":
    main()
