"""Dropout masks shared by several passes over the same rows, by replay of the random generator's state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


def dropout_state(device: torch.device) -> Tensor:
    """State of the random generator of dropout on `device`."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def set_dropout_state(state: Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


class DropoutStream:
    """Generator states for the passes of one `Learner.forward`: a pass that replays the first one uses the same dropout
    masks, in its network and in its heads, which run later."""

    def __init__(self, device: torch.device, replays: Sequence[bool]) -> None:
        """`replays`, per pass: whether it repeats the masks of the first pass."""
        self.device, self.replays = device, replays
        self.shared = any(replays)
        self.first: Tensor | None = None
        self.states: dict[int, Tensor] = {}
        """Generator state of each pass that shares masks, after its last use."""

    @contextmanager
    def reading(self, number: int) -> Iterator[None]:
        """Context of the network's forward pass `number`."""
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
        """Context of a head's forward pass, for pass `number`."""
        if number not in self.states:
            yield
            return
        set_dropout_state(self.states[number], self.device)
        yield
        self.states[number] = dropout_state(self.device)
