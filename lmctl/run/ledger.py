"""What the passes over one micro-batch tell each other, so that all of them see the same network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Ledger:
    """Passes so far, and how the first one began."""

    passes: int = 0
    ended: bool = False
    """The last pass was made."""
    dropout: Tensor | None = None
    """State of the generator before the first pass."""
    before: Any = None
    """What a recurrent network carried before the first pass."""
    after: Any = None
    """What it carried after it, which is what the next micro-batch goes on from."""

    @contextmanager
    def another(self, network: Any, device: torch.device, fresh: bool) -> Iterator[None]:
        """Inside it, a pass: carried states, and dropout unless it is to be `fresh`, are those of the first one."""
        first, self.passes = self.passes == 0, self.passes + 1
        if first:
            self.dropout, self.before = _dropout(device), network.memory()
        else:
            network.recall(self.before)
            if not fresh:
                _drop_again(device, self.dropout)
        yield
        if first:
            self.after = network.memory()
        network.recall(self.after)


def _dropout(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _drop_again(device: torch.device, state: Tensor | None) -> None:
    assert state is not None
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
