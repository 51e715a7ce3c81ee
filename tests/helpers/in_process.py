"""`lmctl ...` as in command.py, but in this process: the same answer without the seconds that a new process takes."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from command import environment

from lmctl.cli.main import main


def lmctl(*arguments: str, cwd: Path, cache: Path | None = None, typed: str = "") -> subprocess.CompletedProcess[str]:
    """Run `lmctl arguments` to its end, in the folder `cwd`, with `typed` on standard input; no curves are drawn, which
    takes longer than all else that a short run does."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        patch.setattr("lmctl.train.loss_plot.plot_losses", lambda *_: None)
        patch.setattr(sys, "stdin", io.StringIO(typed))
        for name, value in environment(cache or cwd / "cache").items():
            patch.setenv(name, value)
        code = main(list(arguments))
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def succeed(*arguments: str, cwd: Path, cache: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`lmctl arguments`, which must end with 0."""
    done = lmctl(*arguments, cwd=cwd, cache=cache)
    assert done.returncode == 0, done.stderr
    return done


def run_here(*arguments: str, cwd: Path, ends: int = 0) -> str:
    """What `lmctl arguments` prints, on either stream; it must end with the code `ends`."""
    done = lmctl(*arguments, cwd=cwd)
    assert done.returncode == ends, done.stderr
    return done.stdout + done.stderr
