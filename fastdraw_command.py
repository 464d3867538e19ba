"""The command `fastdraw` of an installed package.

`import fastdraw` imports torch, which takes seconds. The words that a shell completes, help, and mistakes in options need none
of it: the package stands there empty, for its command line's modules to be found in, until a command runs (cli/command.py).
"""

import sys
from importlib.util import find_spec, module_from_spec


def main() -> int:
    spec = find_spec("fastdraw")
    if spec is not None and "fastdraw" not in sys.modules:
        sys.modules["fastdraw"] = module_from_spec(spec)
    from fastdraw.cli import main

    return main()
