"""A trap for attacks: a package that notes when it is imported, secrets in the environment, a machine to compare."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from lmctl.cli.main import main

TOKEN = "hf_" + "aB3" * 9
SECRET = "correct-horse-battery-staple"


@dataclass
class Trap:
    """A folder in which `evil` can be imported; `sprung` is a file that only an attack makes."""

    root: Path
    capsys: pytest.CaptureFixture[str]

    @property
    def sprung(self) -> Path:
        return self.root / "sprung"

    @property
    def work(self) -> Path:
        """The current directory of the command."""
        return self.root / "work"

    def refused(self, *words: str, code: int = 2) -> str:
        """The message of a command that must end with `code`, plainly, having changed nothing; without its hints."""
        before = dict(os.environ)
        there = sorted(self.root.rglob("*"))
        assert main(list(words)) == code, self.capsys.readouterr().err
        captured = self.capsys.readouterr()
        assert "error: " in captured.err, captured.err
        assert "Traceback" not in captured.err, captured.err
        assert len(captured.err) < 3000, "a message is a few lines"
        assert " at lmctl/" not in captured.err, f"not foreseen: {captured.err}"
        for secret in (TOKEN, SECRET):
            assert secret not in captured.out + captured.err
        assert not self.sprung.exists()
        assert "evil" not in sys.modules
        assert dict(os.environ) == before
        assert sorted(self.root.rglob("*")) == there, "nothing is written"
        return captured.err
