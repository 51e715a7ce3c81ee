"""What the checks stand on: inputs of `scripts/fuzz.py`, a few for each reader, are read or refused in words (twenty
thousand are for a longer day: `python scripts/fuzz.py all`), and `pytest --turn N` runs the Nth of the slow tests."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from unittest.mock import Mock

import pytest
from command import ROOT

from lmctl.core.errors import DataError

sys.path.append(str(ROOT / "scripts"))

import fuzz

FEW = {"words": 12, "configs": 12, "help": 6, "nbest": 25, "models": 25, "files": 30, "prompts": 30, "cache": 20}


@pytest.mark.parametrize("reader", fuzz.READERS)
def test_a_few_inputs_are_read_or_refused_in_words(reader):
    tally = fuzz.run(reader, range(FEW.get(reader, 150)))
    assert tally.failures == []
    assert tally.kinds["read"] > 0
    assert len(tally.kinds) > 1 or reader in ("help", "cache")  # these are never refused


@pytest.mark.parametrize("reader", ["csv", "nbest"])
def test_bytes_of_a_fuzzer_are_inputs_as_well(reader):
    """With --atheris; atheris itself is not needed for this."""
    with fuzz.in_empty_folder() as folder:
        for data in (b"", b"\xff" * 50, random.Random(0).randbytes(5_000)):
            assert fuzz.tried(fuzz.reader_of(reader), fuzz.Guided(data), folder, 5.0, show=False)[1] == ""
            fuzz.empty(folder)


def test_what_has_no_words_takes_too_long_or_cannot_be_printed_is_a_failure():
    """The harness can fail."""

    def endless(draw, folder):
        while True:
            pass

    def refusal(message: str) -> Mock:
        return Mock(side_effect=DataError(message))

    with fuzz.in_empty_folder() as folder:

        def what(reader, limit=5.0):
            return fuzz.tried(reader, random.Random(0), folder, limit, show=False)

        assert "KeyError" in what(Mock(side_effect=KeyError("x")))[1]
        assert "more than 0.2 seconds" in what(endless, 0.2)[1]
        assert "UnicodeEncodeError" in what(lambda *_: print("\ud83d"))[1]
        assert "empty message" in what(refusal(" "))[1]
        assert "cannot be printed" in what(refusal("\ud83d"))[1]
        assert what(refusal("a.csv:3: no label")) == ("DATA", "")


TESTS = """
import pytest

@pytest.mark.parametrize("kind", ["quick", pytest.param("a", marks=pytest.mark.slow), "also quick"])
def test_one(kind): pass

@pytest.mark.slow
@pytest.mark.parametrize("kind", ["b", "c"])
def test_all(kind): pass
"""


def test_one_of_three_slow_tests_has_its_turn(tmp_path):
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_some.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "--collect-only", "-q", "--turn=5"]
    said = subprocess.run([*command, tmp_path], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    chosen = [line.partition("[")[2].rstrip("]") for line in said.splitlines() if "::" in line]
    assert chosen == ["c", "quick", "also quick"]
