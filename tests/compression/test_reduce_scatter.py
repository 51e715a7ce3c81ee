"""The quantised mean of sharded gradients is that of the quantiser's own numbers, and nothing is lost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lmctl.compression.quantise import Bf16, Fp32, Int8, Quantiser
from lmctl.compression.reduce_scatter import QuantisedReduceScatter, ShardCompression
from lmctl.parallel.simulate import Baton, ThreadWire, in_turns

WORKERS = 3
SHAPES = {"matrix": (10, 40), "bias": (7,), "other": (9, 16)}
WHOLE = {"bias"}


class Scattered:
    """Workers that are threads, whose reduce-scatters go on from step to step."""

    def __init__(self, quantise: Quantiser, feedback: bool) -> None:
        parameters = {name: torch.empty(shape, device="meta") for name, shape in SHAPES.items()}
        method = ShardCompression(quantise, feedback, WHOLE, "")
        self.columns = method.columns(parameters, WORKERS)
        wires = [ThreadWire(rank, Baton(WORKERS)) for rank in range(WORKERS)]
        self.workers = [QuantisedReduceScatter(self.columns, w, feedback, torch.device("cpu")) for w in wires]

    def mean(self, inputs: list[Tensor]) -> Tensor:
        """What arrives in all workers of inputs [W, width]: [W, width]."""

        def work(rank: int, baton: Baton) -> Tensor:
            wire: Any = self.workers[rank].wire
            wire.baton = baton
            found = torch.empty(self.columns.width)
            self.workers[rank](found, inputs[rank].clone().flatten(), None, None)
            return found

        return torch.stack(in_turns(WORKERS, work))


@pytest.fixture
def inputs() -> list[Tensor]:
    """Gradients of one step, in each worker a row per shard, of very different size from tensor to tensor."""
    random = torch.Generator().manual_seed(1)
    sizes = torch.tensor([1.0] * 160 + [1e-3] * 3 + [1e2] * 48)
    return [torch.randn(WORKERS, 211, generator=random) * sizes for _ in range(WORKERS)]


@pytest.mark.parametrize("quantise", [Int8(32), Bf16(), Fp32()])
def test_the_mean_is_that_of_the_quantised_gradients(quantise: Quantiser, inputs: list[Tensor]):
    scattered = Scattered(quantise, feedback=False)
    assert [column.size for column in scattered.columns.columns] == [4 * 40, 3, 3 * 16]
    found = scattered.mean(inputs)

    def through(rows: Tensor) -> Tensor:
        """What is left of a worker's gradients: the matrices quantised one after the other, the bias whole."""
        matrices = torch.cat([rows[:, :160], rows[:, 163:]], dim=1)
        left = quantise.decode(quantise.encode(matrices), 208)
        return torch.cat([left[:, :160], rows[:, 160:163], left[:, 160:]], dim=1)

    torch.testing.assert_close(found, torch.stack([through(rows) for rows in inputs]).mean(dim=0), rtol=1e-6, atol=0)
    assert (found - torch.stack(inputs).mean(dim=0)).abs().max() <= (0 if quantise == Fp32() else 1e2 * 5 / 254)
    sent = (WORKERS - 1) * scattered.columns.message
    assert [worker.wire.sent for worker in scattered.workers] == [sent] * WORKERS
    assert sent == (WORKERS - 1) * (len(quantise.encode(torch.zeros(1, 208))[0]) + 4 * 3)


def test_what_was_not_sent_is_sent_later(inputs: list[Tensor]):
    scattered = Scattered(Int8(32), feedback=True)
    steps = [scattered.mean([0.7**n * rows for rows in inputs]) for n in range(5)]
    owed = torch.stack([worker.residual for worker in scattered.workers]).mean(dim=0)
    arrived = torch.stack(steps).sum(dim=0)
    arrived[:, :160] += owed[:, :160]
    arrived[:, 163:] += owed[:, 160:]
    assert owed.abs().max() > 0
    torch.testing.assert_close(arrived, sum(0.7**n for n in range(5)) * torch.stack(inputs).mean(dim=0))


def test_a_gradient_that_is_not_finite_reaches_its_owner_and_leaves_no_trace(inputs: list[Tensor]):
    scattered = Scattered(Int8(32), feedback=True)
    scattered.mean(inputs)
    before = [worker.residual.clone() for worker in scattered.workers]
    inputs[1][2, 5] = torch.inf
    assert torch.isfinite(scattered.mean(inputs)).all(dim=1).tolist() == [True, True, False]
    after = [worker.residual for worker in scattered.workers]
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [False, True, False]
