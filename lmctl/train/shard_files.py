"""Tensors of a checkpoint in shards. Each process writes its rows of every tensor; any number of processes read them.

    model-0-of-2.safetensors    the first of two shards of the weights
    state-0-of-2.safetensors    of optimiser states, averages, and whatever else has the shape of weights

A file's metadata say under "rows", as JSON, for each tensor the number of its first row and of all rows; a tensor that
is not named there is whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lmctl.core.shards import ShardPlace, is_sharded, local, place_of, rows_of
from lmctl.train.checkpoint_files import Streamed, Tensors, mapped

MODEL, STATE = "model", "state"
NAME = re.compile(r"(model|state)-(0|[1-9]\d{0,5})-of-([1-9]\d{0,5})\.safetensors")
ELSEWHERE = "sharded"
"""The only key of what stands in a tree for a tensor that is in shards; its value is the tensor's name there."""


def shard_names(shards: int) -> set[str]:
    """The names of all files, if there are so many shards."""
    return {f"{kind}-{shard}-of-{shards}.safetensors" for kind in (MODEL, STATE) for shard in range(shards)}


def contents(weights: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensors]:
    """This process's shards of `weights`, at least one of which is sharded, and of `state`, by the names of their
    files. Nothing in a process whose shard another one has as well."""
    place = place_of(next(tensor for tensor in weights.values() if is_sharded(tensor)))
    if place.replica:
        return {}
    return {
        f"{kind}-{place.shard}-of-{place.shards}.safetensors": _shard(some, place)
        for kind, some in ((MODEL, weights), (STATE, state))
    }


def _shard(tensors: Mapping[str, Tensor], place: ShardPlace) -> Tensors:
    """One file; of names for the same memory the first."""
    rows: dict[str, tuple[int, int]] = {}
    mine: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        own = local(tensor)
        if own.data_ptr() in seen or (not own.numel() if is_sharded(tensor) else place.shard):
            continue
        seen.add(own.data_ptr())
        mine[name] = own.cpu().contiguous()
        if is_sharded(tensor):
            rows[name] = (rows_of(tensor.shape[0], place.shards, place.shard).start, tensor.shape[0])
    return Streamed(mine, {"rows": json.dumps(rows)})


class _Part(NamedTuple):
    """The rows of a tensor in one file."""

    file: Any
    first: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Piece:
    """A tensor in shards, which is read when rows of it are asked for."""

    name: str
    parts: tuple[_Part, ...]
    shape: tuple[int, ...]

    def __getitem__(self, rows: slice) -> Tensor:
        """Some of its rows, as a tensor of its own."""
        if not self.shape:
            return self.parts[0].file.get_tensor(self.name)
        first, last, _ = rows.indices(self.shape[0])
        found: list[Tensor] = []
        for part in self.parts:
            begin, end = max(first - part.first, 0), min(last - part.first, part.shape[0])
            if begin < end or not found:
                found.append(part.file.get_slice(self.name)[begin : max(begin, end)])
        return torch.cat([some for some in found if len(some)] or found[:1])


def pieces(folder: Path, kind: str) -> dict[str, Piece]:
    """The tensors in all shards of a kind; ValueError if they do not fit together."""
    parts: dict[str, list[_Part]] = {}
    totals: dict[str, int] = {}
    try:
        for path in sorted(folder.glob(f"{kind}-*-of-*.safetensors")):
            file = safe_open(path, "pt")
            rows = json.loads((file.metadata() or {}).get("rows", "{}"))
            for name in file.keys():  # noqa: SIM118 - no mapping
                shape = tuple(file.get_slice(name).get_shape())
                first, total = rows.get(name, (0, shape[0] if shape else 1))
                parts.setdefault(name, []).append(_Part(file, first, shape))
                if totals.setdefault(name, total) != total:
                    raise ValueError(f"its shards do not agree on {name[:200]}")
    except (SafetensorError, AttributeError, TypeError, RecursionError, OSError) as error:
        raise ValueError(f"a shard cannot be read: {str(error)[:200]}") from None
    return {name: _joined(name, some, totals[name]) for name, some in parts.items()}


def _joined(name: str, parts: list[_Part], total: int) -> Piece:
    parts.sort(key=lambda part: part.first)
    end = 0
    for part in parts:
        if part.first != end or part.shape[1:] != parts[0].shape[1:]:
            raise ValueError(f"its shards leave a gap in {name[:200]}")
        end += part.shape[0] if part.shape else 1
    if end != total:
        raise ValueError(f"its shards have {end:,} of {total:,} rows of {name[:200]}")
    return Piece(name, tuple(parts), (total, *parts[0].shape[1:]) if parts[0].shape else ())


def split(tree: Any, name: str = "") -> tuple[Any, dict[str, Tensor]]:
    """A tree of mappings and lists without its sharded tensors, and these by name."""
    found: dict[str, Tensor] = {}

    def taken(leaf: Any, place: str) -> Any:
        if not is_sharded(leaf):
            return leaf
        found[place] = leaf
        return ELSEWHERE, place

    return mapped(tree, taken, name), found


def joined(tree: Any, found: Mapping[str, Piece]) -> Any:
    """What `split` took apart, with pieces in the place of tensors. ValueError if one is missing."""

    def put_back(leaf: Any, _: str) -> Any:
        match leaf:
            case (marker, str(name)) if marker == ELSEWHERE:
                if name not in found:
                    raise ValueError(f"its shards lack {name[:200]}")
                return found[name]
        return leaf

    return mapped(tree, put_back)


def placed(tree: Any, place: Callable[[Any], Tensor]) -> Any:
    """A tree of tensors or pieces with rows as a strategy keeps them (`Strategy.placed`); scalars as they are."""
    return mapped(tree, lambda leaf, _: place(leaf) if isinstance(leaf, Piece | Tensor) and leaf.shape else leaf)


@torch.no_grad()
def put(module: nn.Module, values: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """`load_state_dict(strict=False)` of tensors or pieces, into a module that may be sharded: the names that are
    missing, and those that are more."""
    own = module.state_dict()
    sharded = {name: tensor for name, tensor in own.items() if is_sharded(tensor)}
    for name, tensor in sharded.items():
        if name in values:
            place = place_of(tensor)
            local(tensor).copy_(values[name][rows_of(tensor.shape[0], place.shards, place.shard)])
    plain = {n: v[:] if isinstance(v, Piece) else v for n, v in values.items() if n not in sharded}
    missing, unexpected = module.load_state_dict(plain, strict=False)
    return [name for name in missing if name not in values], unexpected


def put_all(module: nn.Module, values: Mapping[str, Any]) -> None:
    """The same; ValueError if a name is missing, or one too many."""
    missing, unexpected = put(module, values)
    if wrong := [*missing, *unexpected]:
        raise ValueError(f"its state is not that of {type(module).__name__} ({str(wrong[0])[:200]})")
