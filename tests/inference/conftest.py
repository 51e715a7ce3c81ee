"""Random models of each family, as directories and loaded, and standard input for the verbs that use them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import use_models
from predictions import NAMES, classifier

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


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of three classes."""
    return classifier(tmp_path_factory.mktemp("class"), id2label=dict(enumerate(NAMES)))


@pytest.fixture(scope="session")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that says any number of three labels."""
    problem = "multi_label_classification"
    return classifier(tmp_path_factory.mktemp("classes"), id2label=dict(enumerate(NAMES)), problem_type=problem)
