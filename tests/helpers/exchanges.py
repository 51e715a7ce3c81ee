"""Exchanges of gradients between workers that are threads, by every method of compression."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lmctl.compression.compressor import Compressor
from lmctl.compression.option import Option
from lmctl.compression.powersgd import PowerSgd
from lmctl.compression.quantise import Bf16, Fp16, Int8, Sign
from lmctl.parallel.simulate import Baton, ThreadWire, in_turns

WORKERS = 3
SHAPES = {"first": (30, 40), "second": (25, 16), "bias": (40,), "small": (3, 4)}
COMPRESSED = ("first", "second")

METHODS: dict[str, Option] = {
    "fp16": Compressor(quantise=Fp16(), error_feedback=False),
    "bf16": Compressor(quantise=Bf16(), error_feedback=False),
    "int8": Compressor(quantise=Int8(64)),
    "onebit": Compressor(quantise=Sign(128)),
    "topk": Compressor(density=0.1),
    "topk_int8": Compressor(density=0.1, quantise=Int8(16), warmup_steps=3),
    "momentum": Compressor(density=0.1, momentum=0.9),
    "topk_sign": Compressor(density=0.2, quantise=Sign(16)),
    "powersgd": PowerSgd(rank=2),
    "powersgd_cold": PowerSgd(rank=2, warm_start=False),
}


class Learner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for name, shape in SHAPES.items():
            setattr(self, name, nn.Parameter(torch.zeros(shape)))


class Steps:
    """Exchanges of workers that are threads, and the gradients that they bring."""

    def __init__(self, option: Option, workers: int = WORKERS, clip_norm: float | None = None) -> None:
        option = replace(option, dense_below=20)
        self.learners = [Learner() for _ in range(workers)]
        self.wires = [ThreadWire(rank, Baton(workers)) for rank in range(workers)]
        both = zip(self.learners, self.wires, strict=True)
        self.exchanges: list[Any] = [option.exchange(learner, wire, clip_norm) for learner, wire in both]
        self.exchange = self.exchanges[0]
        self.random, self.workers, self.number = torch.Generator().manual_seed(5), workers, 0

    def gradients(self) -> list[dict[str, Tensor]]:
        """One step's, for each worker: a part in common, and a part of its own."""
        common = {name: torch.randn(shape, generator=self.random) for name, shape in SHAPES.items()}
        return [
            {name: value + torch.randn(value.shape, generator=self.random) for name, value in common.items()}
            for _ in range(self.workers)
        ]

    def take(self, gradients: list[dict[str, Tensor]], scale: float = 1.0, taken: bool = True) -> dict[str, Tensor]:
        """What arrives, by name; in all workers the same."""

        def work(rank: int, baton: Baton) -> dict[str, Tensor]:
            self.wires[rank].baton = baton
            parameters = dict(self.learners[rank].named_parameters())
            for name, parameter in parameters.items():
                parameter.grad = gradients[rank][name] * scale
            self.exchanges[rank].reduce(scale, self.number)
            return {name: p.grad / scale for name, p in parameters.items() if p.grad is not None}

        first, *others = in_turns(self.workers, work)
        for other in others:
            assert all(torch.equal(first[name], other[name]) or first[name].isnan().any() for name in first)
        self.number += taken
        return first

    def kept(self, kind: str = "residual") -> list[dict[str, Tensor]]:
        return [memory.get(kind, {}) for memory in (state["method"]["memory"] for state in self.states())]

    def states(self) -> list[dict[str, Any]]:
        return [exchange.state_dict() for exchange in self.exchanges]


def mean(gradients: list[dict[str, Tensor]], name: str) -> Tensor:
    return torch.stack([mine[name] for mine in gradients]).mean(dim=0)
