"""Recomputation of activations in the backward pass (gradient checkpointing), under the modes of the first pass.

torch turns autocast on again when it repeats a layer, but not a `TorchFunctionMode` (the emulation of half precision is
one), and no context of a forward pass is open in the backward pass.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from typing import Any

from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint


def recompute_layers(model: Any, compiled: bool = False) -> None:
    """Let each layer of a transformers model compute its activations again in the backward pass."""
    model.gradient_checkpointing_enable(_settings(compiled))


def recomputed(compiled: bool = False) -> Any:
    """A function that calls a layer (its first argument) with the rest, and again in the backward pass."""
    return partial(checkpoint, **_settings(compiled))


def _settings(compiled: bool) -> dict[str, Any]:
    """Arguments of torch's `checkpoint`; torch.compile takes no contexts, and has the modes in the compiled code."""
    return {"use_reentrant": False} | ({} if compiled else {"context_fn": _contexts})


def _contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """For the first computation of a layer, and for the second."""
    modes = _get_current_function_mode_stack()
    return nullcontext(), _Again(modes) if modes else nullcontext()


class _Again(ExitStack):
    """Context that turns on those of `modes` that are not on."""

    def __init__(self, modes: list[TorchFunctionMode]) -> None:
        super().__init__()
        self.modes = modes

    def __enter__(self) -> _Again:
        on = _get_current_function_mode_stack()
        for mode in self.modes:
            if mode not in on:
                self.enter_context(mode)
        return self
