"""What all tests share."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from lmctl.parallel.processes import Processes

# Tests run tiny models: more threads cost more than they bring (two test processes of two threads each on two cores
# wait for one another most of the time), and nothing may reach for the network.
# Set before torch and transformers are imported; subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

settings.register_profile("no deadline", deadline=None)  # how long an example takes is the machine's business
settings.load_profile("no deadline")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--turn", type=int, metavar="N", help="run the Nth of the slow tests as well, counted around")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--turn N` one of the slow tests counts as quick; it begins first, because it takes longest."""
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow and (turn := config.getoption("turn")) is not None:
        chosen = slow[turn % len(slow)]
        chosen.own_markers = [mark for mark in chosen.own_markers if mark.name != "slow"]
        items.remove(chosen)
        items.insert(0, chosen)


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    """A test that draws random tensors draws the same ones wherever and in whatever order it runs."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def alone() -> Processes:
    """This process on the CPU, as the only worker of a run."""
    from lmctl.parallel.processes import Processes

    return Processes(on_cpu=True)


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found (`helpers/two_processes.py`)."""
    from command import in_processes

    return in_processes(2, "two_processes.py", tmp_path_factory.mktemp("both"))
