"""What one process and several train with sharded weights, to be compared.

python -m torch.distributed.run --standalone --nproc-per-node=4 tests/helpers/fsdp_workers.py FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from planned import storage_of
from safetensors.torch import load_file
from small import plan, prepared
from small_tasks import small_task, two_tasks
from small_teachers import teacher

from lmctl.adversary.fgm import FastGradient
from lmctl.adversary.freelb import FreeLB
from lmctl.adversary.rdrop import RDrop
from lmctl.adversary.smart import Smart
from lmctl.average.ema import ExponentialAverage
from lmctl.compression.compressor import Compressor
from lmctl.compression.none import Uncompressed
from lmctl.compression.quantise import Bf16 as SentBf16
from lmctl.compression.quantise import Int8
from lmctl.config.schema import Evaluation
from lmctl.core.shards import is_sharded, local, whole
from lmctl.model.artifact.gathered import gather
from lmctl.model.artifact.writer import write_weights
from lmctl.model.bert import Bert
from lmctl.model.llama import Llama
from lmctl.model.modernbert import ModernBert
from lmctl.model.pretrained import Pretrained
from lmctl.model.recurrent import RecurrentLM
from lmctl.model.recurrent_classifier import BiLSTM
from lmctl.model.recurrent_mt import RecurrentMT
from lmctl.optim.adamw import AdamW
from lmctl.optim.sgd import Sgd
from lmctl.parallel.fsdp import FsdpStrategy, groups_of
from lmctl.parallel.processes import Processes
from lmctl.plan import Plan
from lmctl.precision.bf16 import Bf16
from lmctl.precision.fp16 import Fp16
from lmctl.runner.base import Runner
from lmctl.runner.fsdp import Fsdp
from lmctl.train.checkpoint import Checkpoints
from lmctl.train.checkpoint_reader import read
from lmctl.train.prepare import Prepared
from lmctl.train.trainer import Trainer
from lmctl.train.unfinished import models_of

STEPS = 2
BERT = Bert(2, 32, 2, 64, max_positions=64, dropout=0.0, attention_dropout=0.0)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("mlm_nsp", {}),
    "modernbert": ("mlm", {"model": ModernBert(2, 32, 2, 48, max_positions=64)}),
    "electra": ("rtd", {}),
    "gpt2": ("clm", {}),
    "llama": ("clm", {"model": Llama(2, 32, 2, 1, 64, max_positions=64)}),
    "marian": ("translate", {}),
    "t5": ("t5", {}),
    "lstm": ("clm_stream", {}),
    "weight drop": ("clm", {"model": RecurrentLM(1, 16, dropout=0.0, weight_drop=1e-9)}),
    "bilstm": ("class", {"model": BiLSTM(1, 16, 16, dropout=0.0)}),
    "bigru": ("class", {"model": BiLSTM(2, 16, 16, cell="gru", dropout=0.0)}),
    "rnn_mt": ("translate", {"model": RecurrentMT(1, 1, 16, 16, dropout=0.0)}),
}
OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "micro-batches": ("mlm_nsp", {"micro": 1}),
    "uneven": ("mlm_nsp", {"micro": 2, "eval": Evaluation(rows=5)}),
    "two tasks": ("two tasks", {"micro": 2}),
    "checkpointing": ("mlm_nsp", {"gradient_checkpointing": True}),
    "checkpointing gpt2": ("clm", {"gradient_checkpointing": True}),
    "sgd": ("mlm", {"optim": Sgd(lr=0.1, momentum=0.9)}),
    "cautious": ("mlm", {"optim": AdamW(lr=3e-3, cautious_updates=True, cautious_decay=True)}),
    "layer decay": ("mlm", {"optim": AdamW(lr=3e-3, layer_decay=0.8)}),
    "average": ("mlm", {"average": ExponentialAverage(0.5)}),
    "fgm": ("mlm", {"adversary": FastGradient(), "micro": 2}),
    "freelb": ("translate", {"adversary": FreeLB()}),
    "smart": ("class", {"adversary": Smart()}),
    "rdrop": ("mlm", {"adversary": RDrop(), "model": replace(BERT, dropout=1e-9)}),
}
HALF: dict[str, tuple[str, dict[str, Any]]] = {
    "bf16": ("mlm_nsp", {"precision": Bf16(), "optim": Sgd(lr=0.1)}),
    "bf16 gpt2": ("clm", {"precision": Bf16(), "optim": Sgd(lr=0.1), "gradient_checkpointing": True}),
    "fp16": ("mlm", {"precision": Fp16(initial_scale=64.0)}),
}
COMPRESSED: dict[str, tuple[str, dict[str, Any]]] = {
    "int8": ("mlm_nsp", {"compression": Compressor(quantise=Int8()), "optim": Sgd(lr=0.1), "micro": 2}),
    "bf16 sent": ("clm", {"compression": Compressor(quantise=SentBf16(), error_feedback=False), "optim": Sgd(lr=0.1)}),
}
"""With one process, which sends nothing, they are not compressed."""
LOADED: dict[str, tuple[str, dict[str, Any]]] = {
    "init_from": ("clm", {}),
    "init_from, new head": ("class", {"freeze": 1}),
    "adapters": ("clm", {"lora_rank": 2}),
    "adapters, new head": ("class", {"lora_rank": 2}),
}
"""Settings of a model that was trained before."""
CASES = FAMILIES | OPTIONS | HALF | COMPRESSED | LOADED
QUICK = [
    *FAMILIES,
    "uneven",
    "two tasks",
    "average",
    "fgm",
    "bf16 gpt2",
    "fp16",
    *COMPRESSED,
    "init_from",
    "adapters, new head",
]
"""The cases of the quick tests, with two processes."""
LESSONS = ("logits", "all")
"""Of `distill_workers.py`, with teachers in shards."""


def trained(processes: Processes, case: str, **more: Any) -> dict[str, Any]:
    """A short run of the case: the weights that it validates, its norms and its validation."""
    task, changes = CASES[case]
    if case in LOADED:
        before = ("gpt2 small", "clm") if task == "clm" else ("bert", "mlm")
        with TemporaryDirectory() as folder:  # of the first process
            place = processes.broadcast(processes.first_does(lambda: teacher(Path(folder), *before)))
            changes = {"model": Pretrained(place, dropout=0.0, **changes), "optim": Sgd(lr=0.1)}
            return run_of(processes, *small_task(task, **changes | more))
    make = two_tasks if task == "two tasks" else partial(small_task, task)
    if processes.world == 1:
        more |= {"compression": Uncompressed()}
    return run_of(processes, *make(**changes | more))


def run_of(processes: Processes, own: Plan, text: Prepared) -> dict[str, Any]:
    trainer = Trainer(own, text, processes)
    steps = trainer.steps()
    norms = [float(next(steps).grad_norm) for _ in range(STEPS)]
    steps.close()
    with trainer.step.average.in_use():
        weights = {name: whole(p).clone() for name, p in trainer.network.named_parameters()}
        scores = trainer.validation.scores(trainer.learner)
    kept = sum(local(p).numel() for p in trainer.learner.parameters())
    found = {"weights": weights, "norms": norms, "scores": scores, "sent": trainer.strategy.sent, "kept": kept}
    if isinstance(trainer.strategy, FsdpStrategy):
        found["as planned"] = as_planned(trainer.strategy)
    if own.model.lora_rank:
        found["weights"] = exported(trainer)
    return found


def exported(trainer: Trainer) -> dict[str, torch.Tensor]:
    """The tensors of its model/, with the adapters merged."""
    with TemporaryDirectory() as folder:
        models = models_of(trainer.network, trainer.plan.precision)
        if not is_sharded(next(trainer.network.parameters())):
            write_weights(Path(folder), models, trainer.network)
        else:
            gather(models, trainer.network, Path(folder))
        return load_file(Path(folder) / "model.safetensors")


def as_planned(strategy: FsdpStrategy) -> bool:
    """Whether torch's groups have the parameters, in the order, that the compression takes them for."""
    for module, parameters in groups_of(strategy.learner):
        (group,) = module._get_fsdp_state()._fsdp_param_groups  # type: ignore[operator, union-attr]
        theirs = [p.sharded_param for p in group.fsdp_params if p.sharded_param.requires_grad]
        if [id(p) for p in theirs] != [id(p) for p in parameters.values()]:
            return False
    return True


def found(processes: Processes, cases: Sequence[str]) -> dict[str, Any]:
    """By case what came of it, with shards over all processes."""
    return {case: trained(processes, case, runner=Fsdp(processes=processes.world)) for case in cases}


SENT: dict[str, dict[str, Any]] = {
    "none": {},
    "int8": {"compression": Compressor(quantise=Int8())},
    "int8, forgotten": {"compression": Compressor(quantise=Int8(), error_feedback=False)},
}


def traffic(processes: Processes) -> dict[str, dict[str, int]]:
    """The bytes of a step of the small plan, as they were counted, and of what a process keeps for the next one."""
    found = {}
    for name, changes in SENT.items():
        trainer = Trainer(plan(runner=Fsdp(processes=processes.world), **changes), prepared(), processes)
        steps = trainer.steps()
        next(steps)
        steps.close()
        kept = storage_of(trainer.strategy.state_dict())
        found[name] = {"sent": trainer.strategy.sent, "dense": trainer.strategy.dense, "kept": kept}
    return found


def run(processes: Processes, runner: Runner | None = None, **more: Any) -> Trainer:
    """Tied weights, two moments, an average and micro-batches."""
    changes = {"average": ExponentialAverage(0.5), "runner": runner or Fsdp(processes=processes.world)}
    return Trainer(*small_task("clm", micro=1, **changes | more), processes)


def weights(trainer: Trainer) -> torch.Tensor:
    """The newest weights, and their average."""
    tensors = [*trainer.network.parameters(), *trainer.step.average.mean.values()]
    return torch.cat([whole(tensor).flatten() for tensor in tensors])


def go_on(trainer: Trainer) -> torch.Tensor:
    for _ in trainer.steps():
        pass
    return weights(trainer)


def saved(processes: Processes, folder: Path, **more: Any) -> torch.Tensor:
    """Save a checkpoint after two steps, and go on to the end."""
    trainer = run(processes, **more)
    checkpoints = Checkpoints(folder, 2, processes.rank, lambda bad: any(processes.sum([bad])))
    for report in trainer.steps():
        if report.step == 2:
            state = trainer.state_dict()
            checkpoints.save(2, trainer.step.average.tensors(), state, trainer.own_state())
    return weights(trainer)


def resumed(
    processes: Processes, folder: Path, keep: bool = True, runner: Runner | None = None, **more: Any
) -> torch.Tensor:
    """Go on from that checkpoint in new objects; without `keep`, where another number of processes wrote it."""
    trainer, found = run(processes, runner, **more), read(folder / "step-00000002")
    trainer.load(found.weights, found.state, found.of_rank(processes.rank) if keep else None)
    return go_on(trainer)


def main() -> None:
    """All cases; in a folder with a checkpoint of another number of processes go on from it instead."""
    processes, folder = Processes(on_cpu=True), Path(sys.argv[1])
    findings: dict[str, Any]
    if (folder / "saved").is_dir():
        findings = {"resumed": resumed(processes, folder / "saved", keep=False)}
    else:
        findings = found(processes, list(CASES))
        findings["replicas"] = trained(processes, "bert", runner=Fsdp(processes=processes.world, replicas=2))
        findings["undisturbed"] = saved(processes, folder / "saved")
        findings["resumed"] = resumed(processes, folder / "saved")
    torch.save(findings, Path(sys.argv[1]) / f"rank-{processes.rank}.pt")
    processes.close()


if __name__ == "__main__":
    main()
