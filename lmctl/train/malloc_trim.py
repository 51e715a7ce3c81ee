"""Memory that nobody uses any more, given back to the system.

glibc keeps what is freed on its heap. Tensors come and go in every step, and where rows differ in length no step has
the sizes of the one before: the holes between them grow. The resident set of bert_tiny grew from 470 MiB after the
first step to 609 MiB after 160 and 640 MiB after 400; given back every so many steps, it stays near 530 MiB.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

EVERY = 20
"""Steps. It costs time, in pages that have to be made again: done in every step, a third of that of bert_tiny."""


def give_back() -> None:
    """Let the system have the free pages of this process's heap; does nothing without glibc."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, or none that can be asked
        return None
