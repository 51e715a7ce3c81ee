"""Teachers that the tests of this room share; whoever asks first has them made."""

from __future__ import annotations

from pathlib import Path

import pytest
from taught import save_teacher


@pytest.fixture(scope="session")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for `small_teachers.teacher`."""
    return tmp_path_factory.mktemp("teachers")


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of three layers, as lmctl exports it."""
    return save_teacher(tmp_path_factory.mktemp("teacher"))
