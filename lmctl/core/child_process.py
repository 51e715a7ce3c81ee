"""`lmctl` as a child process: the jobs of a sweep, stages, the control, workers of several processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmctl

PARENT = "LMCTL_PARENT"
"""Environment variable of a child: the process id of its parent, with which it ends (`lmctl.core.signals`)."""


def command(*words: str) -> list[str]:
    """The command line of `lmctl words...`. `-P`: Python must not import from the current directory, where a file
    `copy.py` that lies beside somebody's data would take the place of the library's."""
    return [sys.executable, "-P", "-m", "lmctl", *words]


def environment() -> dict[str, str]:
    """Environment variables that a child has besides those of this process."""
    own = {PARENT: str(os.getpid())}
    package = str(Path(lmctl.__file__).parents[1])
    if package not in sys.path[0 if sys.flags.safe_path else 1 :]:  # `python -m lmctl` in a checkout
        own["PYTHONPATH"] = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    return own


@contextmanager
def in_environment() -> Iterator[None]:
    """Context manager: `environment` is set, for children that a library starts."""
    own = environment()
    before = {name: os.environ[name] for name in own if name in os.environ}
    os.environ.update(own)
    try:
        yield
    finally:
        for name in own:
            del os.environ[name]
        os.environ.update(before)
