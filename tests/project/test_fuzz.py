"""Random and damaged inputs of `scripts/fuzz.py`, a few for each reader: read, or refused in words. Twenty thousand are
for a longer day: `python scripts/fuzz.py all`."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "scripts"))

import fuzz  # noqa: E402

FEW = {"words": 12, "configs": 12, "help": 6, "nbest": 25, "models": 25, "files": 30, "prompts": 30}


@pytest.mark.parametrize("reader", fuzz.READERS)
def test_a_few_inputs_are_read_or_refused_in_words(reader):
    tally = fuzz.run(reader, range(FEW.get(reader, 150)))
    assert tally.failures == []
    assert tally.kinds["read"] > 0
    assert len(tally.kinds) > 1 or reader == "help"  # help answers with an exit code itself


def test_what_has_no_words_takes_too_long_or_cannot_be_printed_is_a_failure(tmp_path):
    """The harness can fail."""

    def surprise(draw, folder):
        raise KeyError("x")

    def endless(draw, folder):
        while True:
            pass

    def unprintable(draw, folder):
        print("\ud83d")

    from lmctl.core.errors import DataError, LmctlError

    def refusal(message):
        def reader(draw, folder):
            raise DataError(message)

        return reader

    with fuzz.in_empty_folder() as folder:

        def what(reader, limit=5.0):
            return fuzz.tried(reader, random.Random(0), folder, limit, show=False)

        assert "KeyError" in what(surprise)[1]
        assert "more than 0.2 seconds" in what(endless, 0.2)[1]
        assert "UnicodeEncodeError" in what(unprintable)[1]
        assert "empty message" in what(refusal(" "))[1]
        assert "cannot be printed" in what(refusal("\ud83d"))[1]
        assert what(refusal("a.csv:3: no label")) == ("DATA", "")
        assert issubclass(DataError, LmctlError)
