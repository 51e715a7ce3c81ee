"""What is written into the files of a checkpoint, so that it can be copied first and written later."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from lmctl.core.files import sync_file
from lmctl.core.safetensors_stream import SafetensorsStream, aligned


class Contents(ABC):
    """The contents of one file."""

    @abstractmethod
    def copied(self) -> Contents:
        """The same on the CPU, in memory of its own: training may go on and change what it was taken from."""

    @abstractmethod
    def save(self, path: Path) -> None: ...

    def write(self, path: Path) -> None:
        """Write the file, and wait until it is on the disk."""
        self.save(path)
        sync_file(path)


@dataclass(frozen=True)
class Archive(Contents):
    """A tree of tensors and plain values, as torch writes it."""

    value: Any

    def copied(self) -> Archive:
        return Archive(mapped(self.value, lambda leaf, _: _copy(leaf) if isinstance(leaf, Tensor) else leaf))

    def save(self, path: Path) -> None:
        torch.save(self.value, path)


@dataclass(frozen=True)
class Tensors(Contents):
    """Tensors by name, on the CPU and contiguous, as safetensors."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str] | None = None

    def copied(self) -> Tensors:
        return replace(self, tensors={name: _copy(tensor) for name, tensor in self.tensors.items()})

    def save(self, path: Path) -> None:
        save_file(self.tensors, path, self.metadata)


@dataclass(frozen=True)
class Streamed(Tensors):
    """The same, written one by one: safetensors' own writer copies all of them first."""

    def save(self, path: Path) -> None:
        tensors = aligned(self.tensors)
        with SafetensorsStream(path, tensors, self.metadata) as stream:
            for tensor in tensors.values():
                stream.write(tensor)


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)


def mapped(tree: Any, change: Callable[[Any, str], Any], name: str = "") -> Any:
    """A tree of mappings and lists with other leaves: `change(leaf, its name)`. What is contained several times is
    gone through once: a small file may hold a list in a list, thirty deep and twice each."""
    done: dict[int, Any] = {}

    def inside(node: Any, name: str) -> Any:
        if not isinstance(node, Mapping | list):
            return change(node, name)
        if id(node) not in done:
            if isinstance(node, Mapping):
                made: Any = {key: inside(value, f"{name}/{key}" if name else str(key)) for key, value in node.items()}
            else:
                made = [inside(value, f"{name}/{place}") for place, value in enumerate(node)]
            done[id(node)] = made
        return done[id(node)]

    return inside(tree, name)
