"""The library bitsandbytes, imported without the package `kernels`.

On CPUs with AVX-512 BF16 bitsandbytes asks `kernels`, where that is installed, for native code of a hub while it is
imported. lmctl uses none of it, and neither the network nor foreign code unless a command names it.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

_MISSING = object()


def bitsandbytes() -> Any:
    """The package, with `functional` and `optim`; imported where it is needed, because it imports torch."""
    before = sys.modules.get("kernels", _MISSING)
    sys.modules["kernels"] = None  # type: ignore[assignment]  # Python's way to say that there is no such package
    try:
        import bitsandbytes
        import bitsandbytes.functional
    finally:
        if isinstance(before, ModuleType):
            sys.modules["kernels"] = before
        else:
            del sys.modules["kernels"]
    return bitsandbytes
