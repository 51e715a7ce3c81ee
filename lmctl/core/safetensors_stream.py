"""A safetensors file that is written tensor by tensor, so that no more than one of them need be in memory."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_KINDS = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32"}
_KINDS |= {"int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL"}


class Outline(Protocol):
    """Shape and number format of a tensor, or of what becomes one when it is written."""

    @property
    def shape(self) -> torch.Size: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def element_size(self) -> int: ...


Outlined = TypeVar("Outlined", bound=Outline)


def aligned(tensors: Mapping[str, Outlined]) -> dict[str, Outlined]:
    """The tensors in an order in which each begins at a multiple of its number format's size."""
    return dict(sorted(tensors.items(), key=lambda entry: -entry[1].element_size()))


class SafetensorsStream:
    """Writes the tensors of `outline`, which are `aligned`, in its order, each by one call of `write`."""

    def __init__(self, path: Path, outline: Mapping[str, Outline], metadata: Mapping[str, str] | None = None) -> None:
        header: dict[str, Any] = {"__metadata__": metadata or {"format": "pt"}}
        end = 0
        for name, tensor in outline.items():
            begin, end = end, end + math.prod(tensor.shape) * tensor.element_size()
            kind = _KINDS[str(tensor.dtype).removeprefix("torch.")]
            header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [begin, end]}
        words = json.dumps(header).encode()
        words += b" " * (-len(words) % 8)  # the format aligns the data
        self.file = open(path, "wb")  # noqa: SIM115 - closed by `__exit__`
        self.file.write(len(words).to_bytes(8, "little") + words)

    def write(self, tensor: Tensor) -> None:
        import torch

        self.file.write(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)

    def __enter__(self) -> SafetensorsStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
