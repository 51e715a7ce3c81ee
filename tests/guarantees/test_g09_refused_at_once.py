"""G9: what cannot be trained on (no data, too little, rows that are too long) is refused
before the first step, in a line or two, and leaves no run behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import SMALL
from in_process import lmctl

REFUSED = {
    "missing file": (None, [], 3, ["bad.txt does not exist"]),
    "empty file": (b"", [], 3, ["empty"]),
    "nothing but spaces": (b" \n\n \t\n", [], 3, ["bad.txt"]),
    "binary file": (b"MZ\x00\x01\x00" * 50, [], 3, ["binary"]),
    "invalid UTF-8": (b"A good line.\nA bad \xff one.\n", [], 3, ["bad.txt", "byte offset 19"]),
    "one document": (b"One line.\nTwo lines.\nThree lines.\nFour.\n", ["data.layout=one_document_per_file"], 3,
                     ["needs at least two documents"]),
    "rows longer than the model": (b"x", ["batch.seq_len=600"], 2, ["seq_len=600 is longer than the model's 512"]),
}  # fmt: skip
"""The text, words of the command line, the exit code and words of the message."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the cache of all cases."""
    return tmp_path_factory.mktemp("home")


@pytest.mark.parametrize(("content", "more", "code", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_g09_refused_in_a_line_or_two(home: Path, tmp_path: Path, content, more, code, words):
    path = tmp_path / "bad.txt"
    if content is not None:
        path.write_bytes(content)
    done = lmctl("train", *SMALL, f"data.path={path}", *more, cwd=tmp_path, cache=home / "cache")
    assert done.returncode == code, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert all(word in done.stderr for word in words), done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("runs/*"))
