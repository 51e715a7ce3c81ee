"""Dropout of several passes over the same rows: whether a pass drops the units that the one before it dropped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


def dropout_state(device: torch.device) -> Tensor:
    """The state of the generator that dropout on `device` draws from."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def set_dropout_state(state: Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


class DropoutStream:
    """The generator that the passes of one `Learner.forward` share. A pass that replays another one sees the same
    numbers, in its network and in its heads, which run later."""

    def __init__(self, device: torch.device, replays: Sequence[bool]) -> None:
        """`replays`, for each pass: whether it repeats what the first one drew."""
        self.device, self.replays = device, replays
        self.shared = any(replays)
        self.first: Tensor | None = None
        self.states: dict[int, Tensor] = {}
        """Where each pass of those that see the same numbers is."""

    @contextmanager
    def reading(self, number: int) -> Iterator[None]:
        """Inside it, the `number`-th pass reads."""
        if self.shared and number == 0:
            self.first = dropout_state(self.device)
        if self.replays[number]:
            assert self.first is not None
            set_dropout_state(self.first, self.device)
        yield
        if self.shared and (number == 0 or self.replays[number]):
            self.states[number] = dropout_state(self.device)

    @contextmanager
    def answering(self, number: int) -> Iterator[None]:
        """Inside it, a head of the `number`-th pass answers."""
        if number not in self.states:
            yield
            return
        set_dropout_state(self.states[number], self.device)
        yield
        self.states[number] = dropout_state(self.device)
