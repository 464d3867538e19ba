"""A launch by its handle is the launch that Triton would have made, in everything that the driver is told; and Triton makes it
itself wherever anything about it is new, or somebody watches.
"""

from __future__ import annotations

from collections import Counter

import pytest
import torch

pytest.importorskip("triton", reason="there is nothing to launch without triton")
from triton import knobs

import fastdraw
from benchmarks.recording_driver import Driver, Noted, recording
from fastdraw import env
from fastdraw.kernels import triton as kernels
from fastdraw.kernels.triton import handles, lstm, piece_tables, pieces
from fastdraw.kernels.triton.cell import cell_backward_launch
from fastdraw.kernels.triton.launch import run
from fastdraw.kernels.triton.linear import linear_launch
from fastdraw.products import float32_products

pytestmark = pytest.mark.skipif(
    env.triton_interpreted() or torch.cuda.is_available(), reason="a driver that runs nothing takes the place of the device's"
)
CONFIG = fastdraw.DRAWConfig((1, 20, 20), glimpses=3, hidden_size=32, latent_size=20, read_size=2, write_size=3)


@pytest.fixture
def noted():
    found: list[Noted] = []
    with recording(found):
        yield found


@pytest.fixture
def driver(noted) -> Driver:
    return handles.driver.active


def calls_of(monkeypatch, function):
    """What `function` launches: (launcher, arguments), each kind once."""
    found = {}

    def noting(launcher, *arguments):
        described = [launcher]
        handles._describe(arguments, described, [])
        found.setdefault(tuple(described), (launcher, arguments))
        return handles.launched(launcher, *arguments)

    with monkeypatch.context() as patch:
        for module in (pieces, kernels, lstm):
            patch.setattr(module, "launched", noting)
        function()
    return list(found.values())


def assert_same(noted, calls):
    """The third launch of each call is by a handle, and is Triton's own; how many calls of each launcher have one."""
    kept = Counter()
    for launcher, arguments in calls:
        launch = launcher(*arguments)
        if launch is None:
            assert not handles.launched(launcher, *arguments)
            continue
        noted.clear()
        run(launch)
        assert handles.launched(launcher, *arguments)
        before = dict(handles._handles)
        assert handles.launched(launcher, *arguments)
        own, first, second = noted
        assert own == first == second, launcher.__name__
        assert own.dependent == ("DEPENDENT" in launch.kernel.arg_names)
        assert before == handles._handles
        described = [launcher, handles._products()]
        device = handles._describe(arguments, described, [])
        kept[launcher.__name__] += isinstance(handles._handles[(device, *described)], handles.Handle)
    return kept


def step(batch):
    model = fastdraw.DRAW(**CONFIG.to_dict())
    x = torch.rand(batch, *CONFIG.image_shape)

    def run_step():
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(x).loss
        loss.backward()

    return run_step


def test_pieces_of_a_step(noted, monkeypatch):
    calls = calls_of(monkeypatch, step(6))
    kept = assert_same(noted, calls)
    launchers = {launcher.__name__ for launcher, _ in calls}
    assert launchers >= {"canvas_launch", "canvas_backward_launch", "cell_launch", "cell_backward_launch", "latent_launch"}
    # Every one of them has its handle; none goes by Triton each time.
    assert kept == Counter(launcher.__name__ for launcher, arguments in calls if launcher(*arguments) is not None)


def test_operators(noted, monkeypatch):
    image, params = torch.rand(2, 1, 20, 24, requires_grad=True), torch.randn(2, 5, requires_grad=True)
    state, weights = [torch.rand(2, 16) for _ in range(3)], [torch.rand(64, 16, requires_grad=True) for _ in range(2)]
    biases = [torch.rand(64) for _ in range(2)]

    def some():
        fastdraw.read(image, params, 3).sum().backward()
        fastdraw.write(torch.rand(2, 1, 3, 3), params, (20, 24)).sum().backward()
        fastdraw.lstm_step(state[0], tuple(state[1:]), *weights, *biases)[0].sum().backward()

    kept = assert_same(noted, calls_of(monkeypatch, some))
    assert {"read_launch", "write_launch", "window_grad_launch", "lstm_launch", "lstm_backward_launch"} <= set(kept)
    assert all(kept[name] for name in ("read_launch", "write_launch", "window_grad_launch", "lstm_launch"))


def linear_arguments(batch=8, depth=32, offset=0, dtype=torch.bfloat16):
    """offset: elements by which the operand's memory begins past what an allocator gives."""
    h = torch.zeros(batch * depth + offset, dtype=dtype)[offset:].view(batch, depth)
    return h, torch.zeros(16, depth, dtype=dtype), torch.zeros(16, dtype=dtype), torch.zeros(batch, 16)


def test_alignment_and_shapes_make_other_kernels(noted):
    aligned, shifted, wider = linear_arguments(), linear_arguments(offset=4), linear_arguments(depth=48)
    another = linear_arguments()
    calls = [(linear_launch, arguments) for arguments in (aligned, shifted, wider, another)]
    # Once over, so that each handle is asked for while the others are there.
    for _ in range(2):
        assert assert_same(noted, calls)["linear_launch"] == 4
    functions = []
    for launcher, arguments in calls:
        noted.clear()
        handles.launched(launcher, *arguments)
        functions.append(noted[0].function)
        assert noted[0].arguments[:4] == tuple(tensor.data_ptr() for tensor in arguments)
    assert functions[0] == functions[3]
    assert len(set(functions)) == 3


def test_one_tensor_in_two_places(noted):
    """The next call of the same kind may have two."""
    batch, hidden = 8, 16
    gates, weight, grad = torch.zeros(batch, 4 * hidden), torch.zeros(16, hidden), torch.zeros(batch, 16)
    c, other, grad_c = (torch.zeros(batch, hidden) for _ in range(3))
    for c_new in (c, other, c):
        calls = [(cell_backward_launch, (grad, weight, [], gates, c, c_new, grad_c, gates))]
        assert assert_same(noted, calls)["cell_backward_launch"] == 1
        assert c_new.data_ptr() in noted[-1].arguments


def test_switches_streams_and_tables_are_followed(noted, driver, monkeypatch):
    arguments = linear_arguments(dtype=torch.float32)
    functions = {}
    for name in ("highest", "high", "highest"):
        with float32_products(name):
            for _ in range(2):
                noted.clear()
                assert handles.launched(linear_launch, *arguments)
                assert functions.setdefault(name, noted[0].function) == noted[0].function
    assert functions["high"] != functions["highest"]
    driver.stream = 5
    handles.launched(linear_launch, *arguments)
    assert noted[-1].stream == 5
    monkeypatch.setattr(piece_tables, "FUSED_LIMIT", dict.fromkeys(piece_tables.FUSED_LIMIT, 0))
    handles.forget()
    assert not handles.launched(linear_launch, *arguments)
    # Known now, and still left to torch.
    assert not handles.launched(linear_launch, *arguments)


def test_who_watches_sees_all_launches(noted):
    arguments, seen = linear_arguments(), []
    handles.launched(linear_launch, *arguments)
    hook = lambda metadata: seen.append(metadata.get()["name"])  # noqa: E731
    knobs.runtime.launch_enter_hook.add(hook)
    try:
        handles.launched(linear_launch, *arguments)
    finally:
        knobs.runtime.launch_enter_hook.remove(hook)
    handles.launched(linear_launch, *arguments)
    assert seen == ["linear_kernel"]
    assert len(noted) == 3


def test_other_devices_and_tensors_are_triton_s(noted, driver, monkeypatch):
    class Other(torch.Tensor):
        pass

    arguments = linear_arguments()
    handles.launched(linear_launch, *arguments)
    own = []
    monkeypatch.setattr(handles, "run", lambda launch: own.append(launch))
    handles.launched(linear_launch, *arguments)
    assert not own
    h, *rest = arguments
    handles.launched(linear_launch, h.as_subclass(Other), *rest)
    # Triton launches on the current device, which is no longer the tensors'.
    driver.device = 1
    handles.launched(linear_launch, *arguments)
    assert len(own) == 2


def test_handles_do_not_grow_without_end(noted, monkeypatch):
    monkeypatch.setattr(handles, "MOST", 3)
    for batch in range(1, 9):
        handles.launched(linear_launch, *linear_arguments(batch=batch))
        assert len(handles._handles) <= 3
