"""What an installed fastdraw must do, wherever and however it was installed: python tests/smoke.py, in any other folder."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import torch

import fastdraw

assert "site-packages" in fastdraw.__file__, fastdraw.__file__
about = metadata("fastdraw-torch")
assert about["Version"] == fastdraw.__version__
assert about["License-Expression"] == "MIT"
assert about.get_all("License-File") == ["LICENSE"]
assert fastdraw.backends()["native"] is None, fastdraw.backends()
model = fastdraw.DRAW((1, 6, 5), 2, 4, 3)
reference = fastdraw.reference.DRAW((1, 6, 5), 2, 4, 3)
reference.load_state_dict(model.state_dict())
x, noise = torch.rand(2, 1, 6, 5), torch.randn(2, 2, 3)
loss = model(x, noise).loss
loss.backward()
torch.testing.assert_close(loss, reference(x, noise).loss)
assert model.sample(2).shape == (2, 1, 6, 5)
version = f"fastdraw {fastdraw.__version__}\n"
for command in ([str(Path(sys.executable).with_name("fastdraw"))], [sys.executable, "-m", "fastdraw"]):
    assert subprocess.run([*command, "--version"], capture_output=True, text=True).stdout == version, command
    told = subprocess.run([*command, "info"], capture_output=True, text=True)
    assert (told.returncode, told.stderr) == (0, ""), told
    assert "on cpu: native kernels" in told.stdout, told.stdout
print(told.stdout)
