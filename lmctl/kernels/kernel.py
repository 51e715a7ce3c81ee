"""A kernel in its two kinds, plain and compiled, and the self-check of the compiled one before its first use.

A front module (`lmctl/kernels/dropout.py`) makes one `Kernel` per operation and asks it for the function to call. The
compiled kind is compared with the plain one on a small input, bit by bit, once per process. One that differs, or that
numba cannot compile here, is not used: the plain one computes the same, and `faults` says why it is the one in use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from lmctl.core import progress
from lmctl.kernels import backend

Function = TypeVar("Function", bound=Callable[..., Any])

KERNELS: dict[str, Kernel[Any]] = {}
"""The kernels of the front modules that are imported, by name."""


class Kernel(Generic[Function]):
    """One operation on CPU tensors, in both kinds."""

    def __init__(
        self,
        name: str,
        plain: Function,
        compiled: Callable[[], Function],
        trial: Callable[[Function], Iterable[Tensor]],
    ) -> None:
        """`compiled` imports the compiled function. `trial` calls a function on a small input and returns its results;
        it must draw nothing from torch's generators."""
        self.name, self.plain = name, plain
        self.fault: str | None = None
        """Why the compiled kind is not used although it is wanted."""
        self._import, self._trial = compiled, trial
        self._checked: Function | None = None
        KERNELS[name] = self

    def function(self) -> Function:
        """The function to call in this process, checked."""
        if not backend.compiled():
            return self.plain
        if self._checked is None:
            self._checked = self._check()
        return self._checked

    def _check(self) -> Function:
        """The compiled function if it computes here what the plain one does, else the plain one."""
        expected = list(self._trial(self.plain))
        try:
            try:
                compiled = self._import()
                found = list(self._trial(compiled))
            except Exception:  # machine code that was kept may be damaged: compile it anew
                from lmctl.kernels.compiled import jit

                jit.forget()
                compiled = self._import()
                found = list(self._trial(compiled))
        except Exception as error:
            said = (str(error).strip().splitlines() or [""])[0]
            self.fault = f"cannot be compiled here ({type(error).__name__}: {said[:200]})"
            return self.plain
        if not _same_bits(expected, found):
            self.fault = "computes something else on this machine than plain torch"
            return self.plain
        return compiled


def to_be_compiled() -> bool:
    """Whether compiled kernels are used and no machine code of them is kept yet."""
    if not backend.compiled():
        return False
    try:
        from lmctl.kernels.compiled import jit
    except Exception:  # a numba that cannot be imported: `check_all` says so
        return False
    folder = jit.machine_code()
    return folder is None or next(folder.iterdir(), None) is None


def check_all() -> None:
    """Check every kernel that this process has imported, if compiled kernels are used."""
    for kernel in KERNELS.values():
        kernel.function()
        progress.beat()  # compiling one for the first time takes seconds


def faults() -> list[str]:
    """A line per kernel that is wanted compiled and cannot be, for people."""
    return [f"{kernel.name} {kernel.fault}; plain torch does the same, slower" for kernel in _faulty()]


def described() -> str:
    """The kernels of this process in words, for the record of a run."""
    names = ", ".join(kernel.name for kernel in _faulty())
    return f"{backend.described()}, but for {names}" if names else backend.described()


def _faulty() -> list[Kernel[Any]]:
    return [kernel for kernel in KERNELS.values() if kernel.fault] if backend.compiled() else []


def _same_bits(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(
        a.dtype == b.dtype and torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))
        for a, b in zip(one, other, strict=True)
    )
