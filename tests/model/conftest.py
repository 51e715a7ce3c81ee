"""Models from elsewhere that the tests of this room share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import foreign
import pytest


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign.save(tmp_path_factory.mktemp("models") / "gpt2", "GPT2LMHeadModel", "[SEP] $A")


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign.save(tmp_path_factory.mktemp("models") / "bert", "BertForMaskedLM")


@pytest.fixture(scope="session")
def bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign.save(tmp_path_factory.mktemp("models") / "bart", "BartForConditionalGeneration", "$A [SEP]")


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Path], Path]:
    """A copy that may be changed."""
    return lambda source: foreign.copied(source, tmp_path / source.name)
