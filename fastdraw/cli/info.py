"""`fastdraw info`."""

import platform
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer


def register(app: "typer.Typer") -> None:
    app.command("info")(_info)


def _info() -> None:
    """Say which versions, backends, threads and devices there are."""
    import numpy
    import torch

    import fastdraw
    from fastdraw.data import decoded
    from fastdraw.data.cache import cache_folder
    from fastdraw.env import cache_limit

    versions = f"torch {torch.__version__}, numpy {numpy.__version__}, Python {platform.python_version()}"
    print(f"fastdraw {fastdraw.__version__}, {versions}")
    print(f"threads: {torch.get_num_threads()}")
    for name, missing in fastdraw.backends().items():
        print(f"backend {name}: {missing or 'ready'}")
    for i in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(i)
        print(f"device cuda:{i}: {about.name}, {about.total_memory / 2**30:.0f} GiB")
    sets = decoded.sets()
    used = f"{sum(each[1] for each in sets) / 1e9:.2f} of at most {cache_limit() / 1e9:g} GB"
    print(f"cache {cache_folder()}: {len(sets)} sets of decoded images, {used}")
    print(f"device cpu: {platform.processor() or platform.machine()}")
