"""What all tests share."""

from __future__ import annotations

import os
import sys

import pytest

# Tests run tiny models: more threads cost more than they bring (two test processes of two threads each on two cores
# wait for one another most of the time), and nothing may reach for the network.
# Set before torch and transformers are imported; subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    """A test that draws random tensors draws the same ones wherever and in whatever order it runs."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
