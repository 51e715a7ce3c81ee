"""Factories of a training run's parts: examples of every task, heads, network, and checks that need them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from lmctl.config.schema import BatchShape
from lmctl.core.batch import Family, Split
from lmctl.core.counter_rng import CounterRng
from lmctl.core.errors import ConfigError, DataError, LmctlError
from lmctl.core.vocabulary import NO_PIECE
from lmctl.kernels import backend, kernel
from lmctl.mix.block_stream import ReadBlock
from lmctl.mix.mix import Mix
from lmctl.model.base import no_dropout
from lmctl.model.loading import DROPOUTS
from lmctl.objective.base import Examples, Material
from lmctl.plan import Plan
from lmctl.tokenizer.pretrained import Pretrained
from lmctl.train.prepare import Prepared
from lmctl.train.stream_blocks import BlockMaker


def examples_of(
    mix: Mix, family: Family, batch: BatchShape, prepared: Prepared, split: Split, augmented: bool
) -> dict[str, Examples]:
    """Examples of one split for every task, in the layout of the model `family`."""
    return {name: _examples(mix, name, family, batch, prepared, split, augmented) for name in mix.tasks}


def blocks_of(plan: Plan, prepared: Prepared) -> dict[str, ReadBlock]:
    """Block readers of the streamed tasks."""
    readers: dict[str, ReadBlock] = {}
    for name, task in plan.mix.tasks.items():
        if task.data.streamed:
            material = _material(plan.mix, name, plan.model.family, plan.batch, prepared, "train", augmented=True)
            order = CounterRng(plan.seed, f"{name}/shards")
            readers[name] = BlockMaker(task.data, task.objective, material, prepared.tokenizer.backend_tokenizer, order)
    return readers


def _material(
    mix: Mix, name: str, family: Family, batch: BatchShape, prepared: Prepared, split: Split, augmented: bool
) -> Material:
    task, store = mix.tasks[name], getattr(prepared.corpora[name], split)
    rewrite = None
    if augmented and task.augment is not None:
        rewrite = task.augment.rewriter(prepared.tokenizer, prepared.vocabulary)
    grows = batch.seq_len_at if split == "train" and batch.length_ramp is not None else None
    return Material(name, store, prepared.vocabulary, family, batch.seq_len, batch.rows, rewrite, grows)


def _examples(
    mix: Mix, name: str, family: Family, batch: BatchShape, prepared: Prepared, split: Split, augmented: bool
) -> Examples:
    task, material = mix.tasks[name], _material(mix, name, family, batch, prepared, split, augmented)
    if family == "encoder" and task.objective.reads == "documents" and prepared.vocabulary.mask == NO_PIECE:
        raise ConfigError("the tokenizer has no mask piece, so there is nothing to mask with", "tokenizer=wordpiece")
    try:
        examples = task.objective.examples(material)
        if not len(examples):
            raise DataError("the text is too short for a single row", "give more text, or a smaller batch.seq_len")
    except DataError as error:
        raise DataError(f"{name}, {split} split: {error}", error.hint) from error
    return examples


def heads_of(plan: Plan, prepared: Prepared) -> dict[str, int]:
    """All heads of all tasks, with their number of outputs."""
    heads: dict[str, int] = {}
    for name, task in plan.mix.tasks.items():
        heads |= task.objective.heads(name, prepared.corpora[name].train, prepared.vocabulary)
    return heads


def network_of(plan: Plan, prepared: Prepared) -> Any:
    """The network with the heads of all tasks, on the CPU."""
    check_pieces(plan, prepared)
    network = plan.model.load(prepared.vocabulary, heads_of(plan, prepared))
    if plan.gradient_checkpointing:
        network.checkpoint_activations()
    return network


def with_functions(plan: Plan, device: torch.device) -> Plan:
    """The plan with the functions that `model.attention=auto` and `cross_entropy=auto` stand for on `device`."""
    kernels = device.type == "cpu" and not plan.compile and plan.kernels != "torch" and backend.has_numba()
    ours = "fused" if kernels else "torch"
    loss = ours if plan.cross_entropy == "auto" else plan.cross_entropy
    return replace(plan, model=plan.model.settled(kernels), cross_entropy=loss)


def check_pieces(plan: Plan, prepared: Prepared) -> None:
    """ConfigError unless a pretrained model and the tokenizer have the same vocabulary ids."""
    path = plan.model.tokenizer_path
    if path is None:
        return
    theirs, ours = Pretrained(path).obtain(iter(())).get_vocab(), prepared.tokenizer.get_vocab()
    other = next((piece for piece, number in theirs.items() if ours.get(piece) != number), None)
    if other is not None:
        raise ConfigError(
            f"the tokenizer of this run is not that of {path}: piece {other!r} is number {theirs[other]} there and "
            f"{ours.get(other, 'missing')} here",
            f"tokenizer=pretrained tokenizer.path={path}",
        )


def check_network(plan: Plan, network: Any) -> None:
    """ConfigError for settings that the network, now that it is known, does not support."""
    if plan.adversary.needs_dropout:
        modules = (m.p for m in network.model.modules() if isinstance(m, nn.Dropout))
        rates = (getattr(network.model.config, name, None) for name in (*DROPOUTS, "weight_drop"))
        if not any(modules) and not any(rates):
            raise no_dropout(plan)


def check(plan: Plan, world: int, device: torch.device, examples: Mapping[str, Examples]) -> None:
    """ConfigError for settings that do not work with the number of processes, the device or the text."""
    workers = plan.workers(world)
    ordered = [name for name, some in examples.items() if some.tracks is not None]
    if ordered and len(examples) > 1 and workers > 1:
        raise ConfigError(
            f"mix.tasks.{ordered[0]} carries its state from row to row, which several tasks of several workers cannot",
            "nearest: runner=cpu or runner=gpu, or objective: clm for this task",
        )
    for group, reason in (("precision", plan.precision.refuse(device)), ("model", plan.model.refuse(device))):
        if reason is not None:
            raise ConfigError(f"{group}: {reason}")


def check_kernels(plan: Plan, device: torch.device, say: Callable[[str], None]) -> None:
    """Check the kernels of a CPU, and say which ones the run uses."""
    if device.type != "cpu":
        return
    if kernel.to_be_compiled():
        say("kernels: compiling them for this machine, which is done once and takes some ten seconds")
    kernel.check_all()
    for line in kernel.faults():
        if plan.kernels == "numba":
            raise LmctlError(f"kernels=numba: {line}", "kernels=auto")
        say(f"warning: kernels: {line}")
    say(f"kernels: {kernel.described()}")
