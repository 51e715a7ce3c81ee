"""What tests want to know of two real processes, all in one launch: each writes its findings to rank-<n>.pt.

python -m torch.distributed.run --standalone --nproc-per-node=2 tests/helpers/two_processes.py FOLDER
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import adversary_workers
import disk_workers
import distill_workers
import fsdp_workers
import numpy as np
import torch
import torch.distributed as dist
from precisions import stored_bits
from small import plan, poison, prepared
from small_tasks import two_tasks
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook as theirs
from torch.nn.parallel import DistributedDataParallel

from lmctl.compression.compressor import Compressor
from lmctl.compression.none import Uncompressed
from lmctl.compression.powersgd import PowerSgd
from lmctl.compression.quantise import Bf16, Fp16, Int8, Sign
from lmctl.compression.wire import ProcessWire
from lmctl.config.schema import Budget, Evaluation
from lmctl.model.bert import Bert
from lmctl.model.recurrent import RecurrentLM
from lmctl.objective.streamed_lm import StreamedLM
from lmctl.optim.sgd import Sgd
from lmctl.parallel.processes import Processes
from lmctl.parallel.simulate import as_workers
from lmctl.plan import Plan
from lmctl.precision.fp16 import Fp16 as Fp16Products
from lmctl.runner.diloco import DiLoCo
from lmctl.runner.fsdp import Fsdp
from lmctl.runner.places import Ddp
from lmctl.train.checkpoint import Checkpoints
from lmctl.train.checkpoint_reader import read
from lmctl.train.trainer import Trainer

OPTIONS: dict[str, Any] = {
    "none": {"compression": Uncompressed()},
    "everything": {"compression": Compressor(error_feedback=False)},
    "fp16": {"compression": Compressor(quantise=Fp16(), error_feedback=False)},
    "bf16": {"compression": Compressor(quantise=Bf16(), error_feedback=False)},
    "int8": {"compression": Compressor(quantise=Int8())},
    "onebit": {"compression": Compressor(quantise=Sign())},
    "topk_int8": {"compression": Compressor(density=0.05, quantise=Int8(64), probe_every=1)},
    "momentum": {
        "compression": Compressor(density=0.1, momentum=0.9, local_clip=True, warmup_steps=2),
        "optim": Sgd(lr=0.1),
    },
    "powersgd": {"compression": PowerSgd(rank=2)},
}


def trained(processes: Processes, **changes: Any) -> dict[str, Any]:
    """A run of the small plan: its weights, and what it counted."""
    own = plan(**changes)
    return as_workers(own.simulated_workers, processes, lambda worker: counted(own, worker))


def counted(own: Plan, processes: Processes) -> dict[str, Any]:
    trainer = Trainer(own, prepared(), processes)
    norms = [float(report.grad_norm) for report in trainer.steps()]
    return {
        "weights": weights(trainer.network),
        "norms": norms,
        "sent": trainer.strategy.sent,
        "dense": trainer.strategy.dense,
        "bytes": (trainer.state.bytes_sent, trainer.state.bytes_dense),
        "figures": trainer.strategy.figures(),
        "state": trainer.strategy.state_dict(),
    }


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


DILOCO: dict[str, dict[str, Any]] = {
    "none": {"compression": Uncompressed()},
    "topk_int8": {"compression": Compressor(density=0.05, quantise=Int8(64))},
}
"""Workers that train apart, with dropout: seven steps, of which the last comes before the third exchange."""


def diloco(processes: Processes, compression: Any, simulated: bool = False) -> dict[str, Any]:
    """Such a run: this worker's weights after each step, and what it counted."""
    workers = processes.world if simulated else None
    own = plan(
        runner=DiLoCo(every=3, workers=workers, device="cpu"),
        model=Bert(2, 32, 2, 64, max_positions=64),
        budget=Budget(steps=7),
        compression=compression,
    )
    trainer = Trainer(own, prepared(), processes)
    steps = [weights(trainer.network) for _ in trainer.steps()]
    counted = (trainer.state.bytes_sent, trainer.state.bytes_dense)
    return {"weights": torch.stack(steps), "bytes": counted, "figures": trainer.strategy.figures()}


def overflow(processes: Processes) -> dict[str, Any]:
    """fp16 whose third step overflows in the second process only."""
    changes = {"compression": OPTIONS["topk_int8"]["compression"], "precision": Fp16Products(initial_scale=64.0)}
    trainer = Trainer(plan(**changes), prepared(), processes)
    if processes.rank == 1:
        poison(trainer, float("inf"), 3)
    residuals, taken, network = [], [], []
    for report in trainer.steps():
        memory = trainer.strategy.state_dict()["method"]["memory"]
        residuals.append(torch.cat([t.clone() for t in memory["residual"].values()]))
        taken.append(report.taken)
        network.append(weights(trainer.network))
    return {"residuals": residuals, "taken": taken, "weights": network, "skipped": trainer.state.skipped}


def resumed(processes: Processes, folder: Path, keep: bool, **changes: Any) -> torch.Tensor:
    """The weights of a run that ended after its second step and went on in new objects, from a checkpoint; without
    `keep`, as if another number of processes had written it."""
    trainer = Trainer(plan(**changes), prepared(), processes)
    checkpoints = Checkpoints(folder, 2, processes.rank, lambda bad: any(processes.sum([bad])))
    for number, _ in enumerate(trainer.steps(), start=1):
        if number == 2:
            checkpoints.save(number, trainer.network.state_dict(), trainer.state_dict(), trainer.own_state())
            break
    trainer = Trainer(plan(**changes), prepared(), processes)
    saved = read(folder / "step-00000002")
    trainer.load(saved.weights, saved.state, saved.of_rank(processes.rank) if keep else None)
    assert len(list(trainer.steps())) == 3
    return weights(trainer.network)


def stream_plan(**changes: Any) -> Any:
    """Four tracks whose state is carried, and validation on all rows."""
    model = RecurrentLM(1, 16, dropout=0.0, embedding_dropout=0.0)
    settings = {"model": model, "objective": StreamedLM(), "size": 4, "seq_len": 8, "eval": Evaluation(rows=None)}
    return plan(**settings | changes)


def stream(processes: Processes, folder: Path, **changes: Any) -> dict[str, Any]:
    """A run that carries states, its validations and a checkpoint after two steps."""
    trainer = Trainer(stream_plan(**changes), prepared(), processes)
    checkpoints = Checkpoints(folder, 9, processes.rank, lambda bad: any(processes.sum([bad])))
    scores = []
    for number, _ in enumerate(trainer.steps(), start=1):
        scores.append(trainer.validation.scores(trainer.learner))
        if number == 2:
            checkpoints.save(number, trainer.network.state_dict(), trainer.state_dict(), trainer.own_state())
    return {"scores": scores, "weights": weights(trainer.network), "carried": trainer.network.carried()}


def conflicts(processes: Processes) -> list[dict[str, float]]:
    """The cosines of a run of two tasks."""
    own, text = two_tasks(optim=Sgd(lr=0.1))
    trainer = Trainer(replace(own, mix=replace(own.mix, conflict_every=1)), text, processes)
    return [report.cosines for report in trainer.steps()]


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(40, 50, bias=False), nn.Tanh(), nn.Linear(50, 30, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)


def powersgd(rank: int) -> dict[str, Any]:
    """Gradients of the same steps by torch's hook, in a single bucket, and by ours."""
    state = theirs.PowerSGDState(None, matrix_approximation_rank=2, start_powerSGD_iter=2, min_compression_rate=1)
    peer, mine = DistributedDataParallel(Mlp()), Mlp()
    peer.register_comm_hook(state, theirs.powerSGD_hook)
    exchange: Any = PowerSgd(rank=2, least_ratio=1.0, dense_below=0).exchange(mine, ProcessWire(rank, 2), None)
    found = []
    for step in range(6):
        x = torch.randn(16, 40, generator=torch.Generator().manual_seed(10 * step + rank))
        for network in (peer, mine):
            network.zero_grad(set_to_none=True)
            (network(x) ** 2).mean().backward()
        if step < 2:  # theirs begins with steps that are not compressed
            continue
        if step == 2:  # the same random beginning
            bucket = [p.shape for p in reversed(list(mine.parameters()))]
            torch.manual_seed(np.random.RandomState(0).randint(1_000_000_000))
            first = [torch.randn(1, shape[1], 2)[0] for shape in bucket]
            for ours, start in zip(reversed(exchange.method.right), first, strict=True):
                ours.copy_(start)
        exchange.reduce(1.0, step)
        found.append([(p.grad.clone(), q.grad.clone()) for p, q in zip(peer.parameters(), mine.parameters())])  # noqa: B905
    return {"gradients": found}


def main() -> None:
    processes = Processes(on_cpu=True)
    assert processes.world == 2
    findings: dict[str, Any] = {name: trained(processes, **changes) for name, changes in OPTIONS.items()}
    findings["accumulated"] = trained(processes, micro=2, **OPTIONS["topk_int8"])
    for name, keep in (("resumed", True), ("dropped", False)):
        findings[name] = {
            option: resumed(processes, Path(sys.argv[1]) / name / option, keep, **OPTIONS[option])
            for option in ("topk_int8", "int8", "momentum", "powersgd")
        }
    findings["diloco"] = {name: diloco(processes, **changes) for name, changes in DILOCO.items()}
    findings["overflow"] = overflow(processes)
    findings["stream"] = stream(processes, Path(sys.argv[1]) / "stream")
    findings["conflicts"] = conflicts(processes)
    findings["powersgd_peer"] = powersgd(processes.rank)
    findings["adversaries"] = adversary_workers.found(processes)
    if processes.first:
        distill_workers.save_teachers(Path(sys.argv[1]))
    dist.barrier()
    findings["lessons"] = distill_workers.found(processes, Path(sys.argv[1]), micro=2)
    findings["fsdp"] = fsdp_workers.found(processes, fsdp_workers.QUICK)
    sharded = {"micro": 2, "runner": Fsdp(processes=2)}
    findings["fsdp"]["lessons"] = distill_workers.found(processes, Path(sys.argv[1]), fsdp_workers.LESSONS, **sharded)
    shards = Path(sys.argv[1]) / "fsdp"
    findings["fsdp"]["undisturbed"] = fsdp_workers.saved(processes, shards)
    findings["fsdp"]["resumed"] = fsdp_workers.resumed(processes, shards)
    findings["fsdp"]["replicated"] = fsdp_workers.resumed(processes, shards, runner=Ddp(processes=2))
    sent = {"compression": Compressor(quantise=Int8())}
    findings["fsdp"]["undisturbed int8"] = fsdp_workers.saved(processes, shards / "int8", **sent)
    findings["fsdp"]["resumed int8"] = fsdp_workers.resumed(processes, shards / "int8", **sent)
    findings["fsdp"]["traffic"] = fsdp_workers.traffic(processes)
    findings["stored"] = stored_bits(processes)
    findings["disks"] = disk_workers.found(processes, Path(sys.argv[1]))
    torch.save(findings, Path(sys.argv[1]) / f"rank-{processes.rank}.pt")
    dist.barrier()
    processes.close()


if __name__ == "__main__":
    main()
