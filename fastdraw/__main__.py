"""python -m fastdraw: the same as the command fastdraw."""

import sys

from fastdraw.cli import main

sys.exit(main())
