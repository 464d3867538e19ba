"""`fastdraw info`."""

import platform
from typing import TYPE_CHECKING

from fastdraw import installed

if TYPE_CHECKING:
    import typer


def register(app: "typer.Typer") -> None:
    app.command("info")(info)


def info() -> None:
    """Say which versions, backends, threads and devices there are."""
    import numpy
    import torch

    import fastdraw
    from fastdraw import dispatch

    versions = f"torch {torch.__version__}, numpy {numpy.__version__}, Python {platform.python_version()}"
    print(f"fastdraw {fastdraw.__version__}, {versions}")
    print(f"installed: {installed.how()}")
    if (foreign := installed.foreign()) is not None:
        print(f"another package: {foreign}")
    print(f"system: {platform.system()} {platform.release()}, {platform.machine()}")
    print(f"threads: {torch.get_num_threads()}")
    for name, missing in fastdraw.backends().items():
        print(f"backend {name}: {missing or 'ready'}")
    devices = [f"device cpu: {platform.processor() or platform.machine()}"]
    for i in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(i)
        devices.append(f"device cuda:{i}: {about.name}, {about.total_memory / 2**30:.0f} GiB")
    print(*devices, sep="\n")
    for kind in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        print(f"on {kind}: {dispatch.slower(kind) or f'{dispatch.chosen(kind)} kernels'}")
    print(f"cache {_cache()}")


def _cache() -> str:
    try:
        from fastdraw.data import decoded
        from fastdraw.data.cache import cache_folder
        from fastdraw.env import cache_limit

        sets = decoded.sets()
        used = f"{sum(each[1] for each in sets) / 1e9:.2f} of at most {cache_limit() / 1e9:g} GB"
        return f"{cache_folder()}: {len(sets)} sets of decoded images, {used}"
    except ModuleNotFoundError as error:
        return f"of data sets: none without {error.name}: {installed.extra('train')}"
