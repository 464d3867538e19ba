"""How fastdraw came onto this machine, and what else is there under its name.

The distribution is called fastdraw-torch, since `fastdraw` on PyPI is an unrelated package of 2017 (interactive segmentation
of images; its module is FastDRaW). Where a file system does not tell capitals apart, its files land among ours.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

DISTRIBUTION = "fastdraw-torch"


def how() -> str:
    """The distribution's version and place; or that there is none."""
    from importlib import metadata

    place = Path(__file__).parent
    try:
        return f"{DISTRIBUTION} {metadata.version(DISTRIBUTION)}, {place}"
    except metadata.PackageNotFoundError:
        return f"no, {place} is used as it lies there"


def foreign() -> str | None:
    """A sentence on the unrelated package where it is installed; None where it is not."""
    from importlib import metadata

    try:
        other = metadata.distribution("fastdraw")
    except metadata.PackageNotFoundError:
        return None
    # An editable install of this project from before it was called fastdraw-torch has files of other names.
    if not any(file.as_posix().lower() == "fastdraw/__init__.py" for file in other.files or ()):
        return None
    return f"fastdraw {other.version}, which is another project's, is installed beside {DISTRIBUTION}: {MEND}"


#: `pip uninstall` of one takes files of the other along.
MEND = f"pip uninstall fastdraw {DISTRIBUTION}, then pip install {DISTRIBUTION}"


def mixed() -> str | None:
    """The same, found without asking for distributions: by a file of its among ours. Cheap enough for every import."""
    if os.path.exists(os.path.join(os.path.dirname(__file__), "fastdraw.py")):
        return f"files of another project, `fastdraw` of PyPI, lie among those of {DISTRIBUTION}: {MEND}"
    return None


def extra(name: str) -> str:
    """The command that installs an extra."""
    return f'pip install "{DISTRIBUTION}[{name}]"'


@contextlib.contextmanager
def needs_extra(purpose: str, name: str = "train") -> Iterator[None]:
    """Around imports of packages that only an extra installs: says how to get them."""
    try:
        yield
    except ModuleNotFoundError as error:
        message = f"{purpose} needs {error.name}, which is not installed: {extra(name)}"
        raise ModuleNotFoundError(message, name=error.name) from error
