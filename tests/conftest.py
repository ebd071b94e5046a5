"""Options and fixtures that several rooms share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.killing import KILLS

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden", type=Path, default=GOLDEN, help="folder of reference cases for test_reference"
    )
    parser.addoption("--device", default="cpu", help="where test_reference computes, e.g. cuda")
    parser.addoption("--weights", type=Path, help="folder of the released MAGI-1 weights")
    parser.addoption("--openenv", type=Path, help="a Python in which the package openenv is")


def pytest_configure(config: pytest.Config) -> None:
    # The tests run tiny models, where a second thread costs more than it brings.
    torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    missing = {}
    if not torch.cuda.is_available():
        missing["gpu"] = "needs a CUDA device"
    if config.getoption("--weights") is None:
        missing["weights"] = "needs the released weights: pytest --weights DIR"
    for item in items:
        for marker, reason in missing.items():
            # Not `in item.keywords`: the names of folders are among those.
            if item.get_closest_marker(marker) is not None:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if KILLS:
        jobs = ", ".join(f"{name} {count}" for name, count in sorted(KILLS.items()))
        terminalreporter.write_line(f"{KILLS.total()} kills: {jobs}")
