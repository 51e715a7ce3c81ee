"""Entries of the cache with damaged files: the numbers of the undamaged ones come out, whatever happened to them."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache as once
from pathlib import Path
from random import Random
from typing import Any

from cached_text import figures, text_mix

from lmctl.core import cache_check
from lmctl.mix.mix import Mix
from lmctl.tokenizer.char import Char
from lmctl.train.prepare import prepare


def cache(draw: Random, folder: Path) -> None:
    """Some files of a cache changed, cut, removed or exchanged; half of the time they had just been checked."""
    root, mix, right = _whole()
    copy = folder / "cache"
    shutil.copytree(root, copy)
    if draw.random() < 0.5:
        for entry in copy.glob("*/*/"):
            cache_check.stamp(entry)
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    for file in draw.sample(files, draw.choice([1, 1, 2, 5])):
        before = file.stat()
        _damage(draw, file, draw.choice(files))
        if file.is_file() and draw.random() < 0.5:
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert figures(prepare(Char(), mix, str(copy), print)) == right, "other numbers than those of the whole cache"
    assert figures(prepare(Char(), mix, str(copy), print)) == right, "other numbers the second time"


@once
def _whole() -> tuple[Path, Mix, Any]:
    """A cache, the text that is in it, and what comes out of it."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    mix = text_mix(folder / "data")
    return folder / "cache", mix, figures(prepare(Char(), mix, str(folder / "cache"), print))


def _damage(draw: Random, file: Path, other: Path) -> None:
    content = bytearray(file.read_bytes()) if file.exists() else bytearray()
    match draw.randrange(6):
        case 0:
            file.unlink(missing_ok=True)
        case 1:
            file.write_bytes(draw.randbytes(draw.choice([0, 1, 100])))
        case 2:
            file.write_bytes(content[: draw.randrange(len(content) + 1)])
        case 3 if other.exists():
            file.write_bytes(other.read_bytes())
        case 4:
            file.write_bytes(content + bytes(draw.randrange(1, 9)))
        case _:
            for _ in range(draw.choice([1, 1, 3, 50]) if content else 0):
                content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
            file.write_bytes(content)
