"""Weights of a sharded network, written as transformers would write them, with one whole tensor in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmctl.core.safetensors_stream import SafetensorsStream, aligned
from lmctl.core.shards import whole
from lmctl.model.artifact import EXTRA_HEADS
from lmctl.model.lora import AdaptedWeight, merged_tensors

if TYPE_CHECKING:
    from torch import Tensor


def gather(models: Mapping[str, Any], network: Any, folder: Path | None = None) -> None:
    """Write what `writer.write_weights` writes of weights. A collective operation: without a `folder` this process only
    gives its shards."""
    for place, model in models.items():
        _write(merged_tensors(model), folder and folder / place / "model.safetensors")
    if extra := network.extra_heads():
        _write(extra, folder and folder / EXTRA_HEADS)


def _write(tensors: Mapping[str, Tensor | AdaptedWeight], path: Path | None) -> None:
    tensors = aligned(tensors)
    with nullcontext() if path is None else SafetensorsStream(path, tensors) as stream:
        for tensor in tensors.values():
            values = tensor.whole() if isinstance(tensor, AdaptedWeight) else whole(tensor)
            if stream is not None:
                stream.write(values)
