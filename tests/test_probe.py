"""The probe of a chip's limits, without one: it compiles, its waits and hops are in the machine code, its lines are read."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import probe


def nvcc_missing() -> str | None:
    try:
        probe.compiler()
    except probe.Unavailable as reason:
        return str(reason)
    return None


needs_nvcc = pytest.mark.skipif(nvcc_missing() is not None, reason=str(nvcc_missing()))

#: What must be in a kernel's machine code, by the start of its name: once a round of the loop that is timed at least.
INSTRUCTIONS = {
    "copy_kernel": ("LDG.E.EF.128", "STG.E.EF.128"),
    "read_kernel": ("LDG.E.128.STRONG.GPU",),
    "dependent_kernel": ("ACQBULK", "PREEXIT"),
    "flag_barrier_kernel": ("REDG.E.ADD.STRONG.GPU", "LDG.E.STRONG.GPU"),
    "memory_answer_kernel": ("STG.E.STRONG.GPU", "LDG.E.STRONG.GPU"),
    "cluster_barrier_kernelILb0": ("UCGABAR_ARV", "UCGABAR_WAIT"),
    "cluster_barrier_kernelILb1": ("UCGABAR_ARV", "UCGABAR_WAIT", "MEMBAR.ALL.GPU"),
    # A remote load has no name of its own in SASS: a generic load from an address in the cluster's window.
    "shared_load_kernelILb1": ("LD.E",),
    "shared_load_kernelILb0": ("LDS",),
    "shared_answer_kernelIL6Answer0": ("ST.E.STRONG.GPU", "LDS"),
    "shared_answer_kernelIL6Answer1": ("SYNCS.ARRIVE.TRANS64.RED.A1T0", "SYNCS.PHASECHK.TRANS64.TRYWAIT"),
    "shared_answer_kernelIL6Answer2": ("STAS", "SYNCS.PHASECHK.TRANS64.TRYWAIT"),
}


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    return probe.build(tmp_path_factory.mktemp("probe") / "probe", "90a")


@needs_nvcc
def test_what_is_timed_is_in_the_machine_code(program):
    spec = importlib.util.find_spec("triton")
    if spec is None or spec.origin is None:
        pytest.skip("Triton's package has the disassembler")
    tool = Path(spec.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    text = subprocess.run([tool, "-sass", program], capture_output=True, text=True, check=True).stdout
    bodies = {body.split("\n", 1)[0]: body for body in text.split("Function : ")[1:]}
    for kernel, instructions in INSTRUCTIONS.items():
        found = [body for name, body in bodies.items() if kernel in name]
        assert found, kernel
        for body in found:
            opcodes = re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\d+ )?([A-Z][\w.]+)", body, re.MULTILINE)
            for instruction in instructions:
                assert instruction in opcodes, f"{kernel}: no {instruction}"
    relaxed = next(body for name, body in bodies.items() if "cluster_barrier_kernelILb0" in name)
    assert "MEMBAR" not in relaxed


@needs_nvcc
@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="there may be a GPU")
def test_without_a_device_it_says_so(program):
    limits = probe.run([str(program)])
    assert not limits.values
    assert set(limits.problems) == {"device", "the program"}


@needs_nvcc
@pytest.mark.parametrize("arch", ["100a", "80"])
def test_it_compiles_for_other_devices(arch, tmp_path):
    assert probe.build(tmp_path / "probe", arch).stat().st_size > 0


@needs_nvcc
def test_a_compiler_that_fails_is_quoted(tmp_path):
    with pytest.raises(RuntimeError, match=r"nvcc could not compile main.cu for sm_1: .*compute_1"):
        probe.build(tmp_path / "probe", "1")


def test_without_a_compiler(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(probe.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(probe, "device", lambda: (9, 0))
    assert probe.main(str(tmp_path / "probe.json")) == probe.CANNOT_RUN
    assert capsys.readouterr().out.startswith("nvcc was not found")
    assert not (tmp_path / "probe.json").exists()


@pytest.mark.parametrize(("capability", "name"), [((8, 0), "80"), ((9, 0), "90a"), ((10, 0), "100a"), ((12, 0), "120a")])
def test_names_of_devices(capability, name):
    assert probe.architecture(*capability) == name


def test_lines_are_read():
    lines = [
        '{"name": "copy of 1 GiB by a kernel", "value": 3000, "unit": "GB/s"}\n',
        '{"name": "cluster barrier of 16 blocks, one cluster", "error": "no cluster of this size fits on this device"}\n',
        "terminate called\n",
    ]
    limits = probe.parse(lines)
    assert limits.values == {"copy of 1 GiB by a kernel, GB/s": 3000.0}
    assert limits.problems["cluster barrier of 16 blocks, one cluster"] == "no cluster of this size fits on this device"
    assert limits.problems["the program"] == "it printed 'terminate called'"


def test_a_program_that_hangs_is_stopped_and_its_figures_are_kept(monkeypatch):
    monkeypatch.setattr(probe, "RUN_LIMIT", 8)
    line = '{"name": "a", "value": 1, "unit": "us"}'
    limits = probe.run([sys.executable, "-c", f"import time; print('{line}', flush=True); time.sleep(600)"])
    assert limits == probe.Limits({"a, us": 1.0}, {"the program": "it was stopped after 8 s"})
