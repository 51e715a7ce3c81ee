"""Random models of each family for the tests of this folder, as directories and loaded."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import use_models

from lmctl.inference.load import Loaded


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return use_models.gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return use_models.bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def marian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return use_models.marian(tmp_path_factory.mktemp("marian"))


@pytest.fixture(scope="module")
def decoder(gpt2: Path) -> Loaded:
    return use_models.opened(gpt2)


@pytest.fixture(scope="module")
def encoder(bert: Path) -> Loaded:
    return use_models.opened(bert)


@pytest.fixture(scope="module")
def translator(marian: Path) -> Loaded:
    return use_models.opened(marian)


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put text on standard input."""
    return lambda text: monkeypatch.setattr("sys.stdin", io.StringIO(text))
