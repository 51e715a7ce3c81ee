"""Planning for a GPU machine that is not this one: `lmctl plan runner=gpu gpu=h100` on a laptop.

Configs are refused as on that machine: during the checks torch's queries about GPUs are patched with its properties
(`pretended`). The step is rehearsed on CPU tensors, because autograd needs devices that torch was built for, patched to
save what a GPU's kernels save (`fake_tensors.on_gpu`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from lmctl.core.errors import ConfigError
from lmctl.core.suggest import did_you_mean
from lmctl.runner.base import Runner
from lmctl.runner.places import Cpu, Either, Launched

GIB = 1 << 30


@dataclass(frozen=True)
class Card:
    """A GPU model."""

    words: str
    memory: int | None
    """Bytes; None: unknown."""
    capability: tuple[int, int]
    """CUDA compute capability, which decides the supported precisions."""


def _card(words: str, gib: int, major: int, minor: int) -> Card:
    return Card(words, gib * GIB, (major, minor))


CARDS = {
    "t4": _card("NVIDIA T4, 16 GB", 15, 7, 5),
    "v100": _card("NVIDIA V100, 16 GB", 16, 7, 0),
    "v100_32": _card("NVIDIA V100, 32 GB", 32, 7, 0),
    "rtx3090": _card("NVIDIA RTX 3090, 24 GB", 24, 8, 6),
    "rtx4090": _card("NVIDIA RTX 4090, 24 GB", 24, 8, 9),
    "rtx5090": _card("NVIDIA RTX 5090, 32 GB", 32, 12, 0),
    "a10": _card("NVIDIA A10, 24 GB", 22, 8, 6),
    "a40": _card("NVIDIA A40, 48 GB", 45, 8, 6),
    "a100_40": _card("NVIDIA A100, 40 GB", 40, 8, 0),
    "a100": _card("NVIDIA A100, 80 GB", 80, 8, 0),
    "l4": _card("NVIDIA L4, 24 GB", 22, 8, 9),
    "l40s": _card("NVIDIA L40S, 48 GB", 45, 8, 9),
    "h100": _card("NVIDIA H100, 80 GB", 80, 9, 0),
    "h200": _card("NVIDIA H200, 141 GB", 140, 9, 0),
    "b200": _card("NVIDIA B200, 180 GB", 179, 10, 0),
}
"""Memory as reported by CUDA, in whole GiB: less than the nominal size where ECC takes a part."""

NEVER = (
    "its step was rehearsed with the tensors that a GPU keeps; of GPUs only an H200 was compared: leave some room",
    "what CUDA, cuDNN and cuBLAS take besides (some hundred MiB) and holes in torch's allocator are not in it",
)
"""What every plan for another machine lacks."""

NEWEST = (9, 0)
"""Assumed compute capability of a GPU of which only the memory is known."""


@dataclass(frozen=True)
class Machine:
    """Some GPUs of one model, on another machine."""

    card: Card
    count: int
    assumed: tuple[str, ...] = ()
    """Assumptions about it, as text."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        card = self.card
        return {"gpu": card.words, "gpus": self.count, "memory_bytes": card.memory, "capability": list(card.capability)}

    @contextmanager
    def pretended(self) -> Iterator[None]:
        """Context manager in which torch's queries about GPUs return this machine's properties."""
        import torch

        answers: dict[str, Any] = {
            "is_available": lambda: True,
            "device_count": lambda: self.count,
            "get_device_capability": lambda device=None: self.card.capability,
        }
        with mock.patch.multiple(torch.cuda, **answers):
            yield


def machine_for(where: Runner, gpu: str | None, memory_gib: float | None, gpus: int | None) -> Machine | None:
    """The machine given by the runner and the keys of `plan`; None: this one. ConfigError if they conflict, or the card
    is unknown."""
    named = (gpu, memory_gib, gpus) != (None, None, None)
    if named and (isinstance(where, Cpu) or (isinstance(where, Either) and where.device == "cpu")):
        raise ConfigError("gpu, gpu_memory_gib and gpus are about GPUs, and the runner stays on the CPU", "runner=gpu")
    card, assumed = _known(gpu, memory_gib)

    import torch

    here = torch.cuda.is_available()
    if not named and (here or where.on_cpu()):
        return None
    count = gpus or (where.processes if isinstance(where, Launched) else None) or 1
    why = "planned for GPUs that are not those here" if here else "there is no GPU here"
    return Machine(card, count, (f"{why}: assumed {count} x {card.words}", *assumed, *NEVER))


def _known(gpu: str | None, memory_gib: float | None) -> tuple[Card, tuple[str, ...]]:
    if gpu is not None:
        card = CARDS.get(gpu.lower().replace("-", "_"))
        if card is None:
            raise ConfigError(
                f"gpu={gpu}: no such card is known{did_you_mean(gpu, CARDS)}",
                "for a card that is not in the list give its memory: gpu_memory_gib=80",
            )
        return (card if memory_gib is None else Card(card.words, round(memory_gib * GIB), card.capability)), ()
    newest = (
        f"assumed: its compute capability is {NEWEST[0]}.{NEWEST[1]}, as on a Hopper GPU; gpu=NAME says which it is"
    )
    if memory_gib is not None:
        return Card(f"GPU of {memory_gib:g} GiB", round(memory_gib * GIB), NEWEST), (newest,)
    return Card("GPU", None, NEWEST), (newest, "how much memory it has was not said: gpu=h100 or gpu_memory_gib=80")
