"""`python -m fastdraw` is the command `fastdraw`."""

import os
import sys
import traceback

from fastdraw.cli import main, tell_launcher

if "TORCHELASTIC_RUN_ID" not in os.environ:
    sys.exit(main())
# One of torchrun's processes.
try:
    code = main()
except Exception:
    traceback.print_exc()
    tell_launcher(traceback.format_exc())
    code = 1
# Everything is written and closed. Gloo's threads may outlive the interpreter that ends under them, which was seen to abort a
# process that had done its work.
sys.stdout.flush()
sys.stderr.flush()
os._exit(code)
