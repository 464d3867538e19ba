"""`python -m fastdraw` is the command `fastdraw`."""

import os
import sys

from fastdraw.cli import main

code = main()
if "TORCHELASTIC_RUN_ID" not in os.environ:
    sys.exit(code)
# One of torchrun's processes: everything is written and closed. Gloo's threads may outlive the interpreter that ends under
# them, which was seen to abort a process that had done its work.
sys.stdout.flush()
sys.stderr.flush()
os._exit(code)
