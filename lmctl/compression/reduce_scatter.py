"""Quantised reduce-scatter of gradients: an all-to-all of quantised shards, averaged in float32 by their owners.

As in ZeRO++ (Wang et al. 2023, section 3.3), without its second hop inside of a node. The mean stays where it is, so it
is quantised once, and not twice as in `dense.py`. With error feedback a process keeps what it has not sent of *all*
shards, which is a float32 number for each weight of the model: as much as sharding saves elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from lmctl.compression.coding import FLOAT, raw, read
from lmctl.compression.quantise import Quantiser
from lmctl.compression.wire import Wire


class Column(NamedTuple):
    """A parameter in the gradients of a group, which are one row per shard."""

    size: int
    """Values per shard."""
    quantised: bool


@dataclass(frozen=True)
class Columns:
    """All parameters of a group that is reduced at once, in their order."""

    columns: Sequence[Column]
    quantise: Quantiser

    @property
    def width(self) -> int:
        """Values per shard."""
        return sum(column.size for column in self.columns)

    @property
    def quantised(self) -> int:
        """Those that are quantised."""
        return sum(column.size for column in self.columns if column.quantised)

    @cached_property
    def message(self) -> int:
        """Bytes of a message, which has one shard."""
        body = self.quantise.encode(torch.empty(1, self.quantised, device="meta")).shape[1] if self.quantised else 0
        return int(body) + FLOAT * (self.width - self.quantised)

    def parts(self, rows: Tensor, quantised: bool) -> list[Tensor]:
        """The columns [W, n] of one kind, as views of `rows` [W, width]."""
        views = rows.split([column.size for column in self.columns], dim=1)
        return [view for view, column in zip(views, self.columns, strict=True) if column.quantised == quantised]


@dataclass(frozen=True)
class ShardCompression:
    """How the gradients of all groups are sent."""

    quantise: Quantiser
    feedback: bool
    """Error feedback."""
    whole: Set[str]
    """Names of parameters that are sent in float32."""
    what: str
    """The method in a few words."""

    def columns(self, parameters: Mapping[str, Tensor], shards: int) -> Columns:
        """Those of a group of `parameters` by name, in their order; FSDP fills up their rows to a multiple of
        `shards`."""
        sizes = {name: -(-p.shape[0] // shards) * math.prod(p.shape[1:]) for name, p in parameters.items()}
        return Columns([Column(size, name not in self.whole) for name, size in sizes.items()], self.quantise)


class QuantisedReduceScatter:
    """The reduce-scatter of one group (torch's interface `torch.distributed.fsdp` `ReduceScatter`)."""

    def __init__(self, columns: Columns, wire: Wire, feedback: bool, device: torch.device) -> None:
        self.columns, self.wire = columns, wire
        size = (wire.world, columns.quantised) if feedback else (0, 0)
        self.residual = torch.zeros(size, device=device)
        """What this process has not sent of its gradients [W, n]; empty without error feedback."""

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    @torch.no_grad()
    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: Any, op: Any, async_op: bool = False
    ) -> None:
        """The mean (with `op` SUM the sum) of row w of all inputs float32 [W * width], in process w: [width]. It is
        not finite where one of the inputs is not."""
        columns, world = self.columns, self.wire.world
        rows = input_tensor.view(world, -1)
        if rows.shape[1] != columns.width:
            raise RuntimeError(f"a group of {columns.width} gradients per shard was reduced with {rows.shape[1]}")
        message, n = [], columns.quantised
        if n:
            values = torch.cat(columns.parts(rows, quantised=True), dim=1)
            if self.residual.numel():
                values += self.residual
            message.append(columns.quantise.encode(values))
            if self.residual.numel():
                fine = torch.isfinite(values).all()
                for row, sent in zip(values, message[0], strict=True):
                    row -= columns.quantise.decode(sent[None], n)[0]
                torch.where(fine, values, self.residual, out=self.residual)
        if whole := columns.parts(rows, quantised=False):
            message.append(raw(torch.cat(whole, dim=1)))
        received = self.wire.all_to_all(torch.cat(message, dim=1))
        total, at = output_tensor.zero_().view(1, -1), message[0].shape[1] if n else 0
        for one in received.split(1):  # one after the other, so that no more than one is in memory
            if n:
                self._add(total, columns.quantise.decode(one[:, :at], n), quantised=True)
            if whole:
                self._add(total, read(one[:, at:], torch.float32), quantised=False)
        if op != dist.ReduceOp.SUM:  # which is divided by FSDP
            total /= world

    def _add(self, total: Tensor, values: Tensor, quantised: bool) -> None:
        parts = self.columns.parts(total, quantised)
        for part, more in zip(parts, values.split([part.shape[1] for part in parts], dim=1), strict=True):
            part += more
