"""A network of two matrices, for rules that treat those inside of layers in another way."""

from __future__ import annotations

import torch
from torch import nn


class TwoLayers(nn.Module):
    """`low`, a matrix outside of the layers, and `high`, one inside; both from the same seed each time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.low, self.high = nn.Linear(6, 4), nn.Linear(4, 5)

    def stacks(self) -> dict[str, list[nn.Module]]:
        return {"layers": [self.high]}
