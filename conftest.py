"""`pytest` runs tests/; `pytest --benchmark` runs benchmarks/ instead, and nothing of tests/."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import checkout

_BENCHMARKS = checkout.ROOT / "benchmarks"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fastdraw")
    group.addoption("--benchmark", action="store_true", help="run benchmarks/ and print times and ratios; no test is run")
    group.addoption("--benchmark-log", metavar="PATH", help="add each case's figures to this file as a line of JSON")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("benchmark"):
        return
    if not config.pluginmanager.hasplugin("benchmark"):
        raise pytest.UsageError("--benchmark needs pytest-benchmark: pip install 'fastdraw-torch[bench]'")
    if config.getoption("numprocesses", None):
        raise pytest.UsageError("--benchmark measures times: run it in one process, without -n")
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = [str(_BENCHMARKS)]
    # The plugin's own table has one figure a case. It is shown to whoever uses the plugin's own options.
    theirs = ("--benchmark-log", "--benchmark-m")
    if not any(a.startswith("--benchmark-") and not a.startswith(theirs) for a in map(str, config.invocation_params.args)):
        config.option.benchmark_quiet = True


def pytest_report_header(config: pytest.Config) -> str | None:
    """Said before the measuring, not only beside the figures: plain ATen is not what is to be measured."""
    if not config.getoption("benchmark"):
        return None
    import torch

    from fastdraw import dispatch

    return dispatch.slower("cuda" if torch.cuda.is_available() else "cpu")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves folders unread; None lets other rules decide."""
    wanted = collection_path.is_relative_to(_BENCHMARKS) == config.getoption("benchmark")
    return None if wanted or not (collection_path.is_file() or collection_path == _BENCHMARKS) else True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The rule again for paths named on the command line, which are read whatever pytest_ignore_collect says."""
    benchmark = config.getoption("benchmark")
    left_out = [item for item in items if item.path.is_relative_to(_BENCHMARKS) != benchmark]
    if left_out:
        items[:] = [item for item in items if item.path.is_relative_to(_BENCHMARKS) == benchmark]
        config.hook.pytest_deselected(items=left_out)
