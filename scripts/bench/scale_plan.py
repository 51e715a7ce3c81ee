"""From 1 to 1,024 GPUs, by simulation: memory, traffic and speed of some models for each way to share the work.

    python scripts/bench/scale_plan.py            # a Markdown table for each model, on standard output
    python scripts/bench/scale_plan.py --write    # the same, in the place of those in docs/scaling.md

Parameters and activations are those that `lmctl plan gpu=h100` counts. The rest is arithmetic, with the assumptions
below; nothing is run, and no machine is asked.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from page import show

from lmctl.core.collectives import BUCKET, Collective, Link, ddp, diloco, exposed, fsdp

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scaling.md"
GIB = 2**30
FLOPS = 989e12 * 0.40
"""bf16 products per second of an H100 SXM, and the share of them that a well-filled step uses."""
NODE = 8
"""GPUs of a node."""
INSIDE = Link(bandwidth=450e9, latency=5e-6)
"""NVLink 4: 900 GB/s in both directions together."""
BETWEEN = Link(bandwidth=50e9, latency=15e-6)
"""A network card of 400 Gbit/s for each GPU."""
SLOW = Link(bandwidth=0.125e9, latency=20e-3)
"""1 Gbit/s for each GPU between two sites, for DiLoCo."""
CARD = 80 * GIB
RESERVED = 2 * GIB
"""What CUDA, cuBLAS and NCCL take, and holes in torch's allocator."""
EVERY = 100
"""Steps between two synchronisations of DiLoCo."""
GPUS = (1, 8, 64, 256, 1024)


@dataclass(frozen=True)
class Model:
    """A model and the rows of a GPU and step."""

    title: str
    words: str
    layers: int
    hidden: int
    rows: int
    length: int
    checkpointed: bool


MODELS = (
    Model("BERT-base", "model=bert_base mix=mlm tokenizer.vocab_size=30522", 12, 768, 64, 512, False),
    Model("GPT-2 124M", "model=gpt2_small mix=clm tokenizer.vocab_size=50257", 12, 768, 16, 1024, False),
    Model(
        "Llama 1.1B",
        "model=llama_tiny mix=clm model.layers=22 model.hidden=2048 model.heads=32 model.key_value_heads=4 "
        "model.feed_forward=5632 tokenizer.vocab_size=32000",
        *(22, 2048, 8, 2048, True),
    ),
    Model(
        "Llama 6.7B",
        "model=llama_tiny mix=clm model.layers=32 model.hidden=4096 model.heads=32 model.key_value_heads=32 "
        "model.feed_forward=11008 model.max_positions=4096 model.tied_embeddings=false tokenizer.vocab_size=32000",
        *(32, 4096, 2, 4096, True),
    ),
)


@dataclass(frozen=True)
class Planned:
    """What `lmctl plan` counts for one GPU."""

    parameters: int
    kept: int
    """Bytes of activations, logits and what else a step holds besides weights, gradients and states."""


def planned(model: Model) -> Planned:
    """Ask `lmctl plan` for a step of one H100."""
    words = f"{model.words} precision=bf16 gpu=h100 batch.size={model.rows} batch.seq_len={model.length} format=json"
    words += f" gradient_checkpointing={str(model.checkpointed).lower()} runner=gpu"
    command = [sys.executable, "-m", "lmctl", "plan", *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    shared = ("weights", "master weights", "gradients", "optimiser states")
    parts = found["memory"]["components"]
    kept = sum(part["most_bytes"] for name, part in parts.items() if name not in shared)
    return Planned(found["parameters"]["total"], kept)


@dataclass(frozen=True)
class Cell:
    """One row of a table."""

    gpus: int
    way: str
    memory: float
    """Bytes of one GPU."""
    sent: float
    """Bytes that one GPU sends per step."""
    compute: float
    waits: float
    """Seconds per step."""
    tokens: int
    """Of a step, of all GPUs."""

    @property
    def efficiency(self) -> float:
        return self.compute / (self.compute + self.waits)

    @property
    def speed(self) -> float:
        """Tokens per second."""
        return self.tokens / (self.compute + self.waits)


def seconds_of(model: Model, parameters: int) -> tuple[float, float]:
    """Forward and backward seconds of a step: 6 N + 12 L h s operations per token, a third of them forward (Chowdhery
    et al. 2022, PaLM, appendix B); with checkpointing the forward pass is computed twice."""
    tokens = model.rows * model.length
    forward = (2 * parameters + 4 * model.layers * model.hidden * model.length) * tokens / FLOPS
    return forward, forward * (3 if model.checkpointed else 2)


def cells(model: Model, plan: Planned) -> Iterator[Cell]:
    """The ways to share the work over each number of GPUs, of which some do not fit."""
    for gpus in GPUS:
        if gpus <= NODE:
            ways = _within(model, plan, gpus, INSIDE)
        else:
            ways = [*_within(model, plan, gpus, BETWEEN), *_of_nodes(model, plan, gpus)]
        for way, memory, sent, waits in ways:
            total = memory + plan.kept + RESERVED
            yield Cell(gpus, way, total, sent, sum(seconds_of(model, plan.parameters)), waits, _tokens(model, gpus))


Way = tuple[str, float, float, float]
"""Name, bytes of weights, gradients and states, bytes sent, and seconds waited."""


def _within(model: Model, plan: Planned, gpus: int, link: Link) -> list[Way]:
    """All GPUs over the same link: the whole in each of them, or a shard."""
    forward, backward = seconds_of(model, plan.parameters)
    own = 16.0 * plan.parameters
    if gpus == 1:
        return [("one GPU", own, 0.0, 0.0)]
    whole = ddp(4 * plan.parameters, gpus)
    shards = fsdp(2 * plan.parameters, 2 * plan.parameters, model.layers, gpus)
    buckets = max(1, round(4 * plan.parameters / BUCKET))
    return [
        ("ddp", own, _sent(whole), exposed(whole, link, forward, backward, buckets)),
        (
            "fsdp",
            own / gpus + _gathered(model, plan),
            _sent(shards),
            exposed(shards, link, forward, backward, model.layers),
        ),
    ]


def _of_nodes(model: Model, plan: Planned, gpus: int) -> list[Way]:
    """A shard in each GPU of a node, and nodes that average: in each step, or now and then."""
    forward, backward = seconds_of(model, plan.parameters)
    replicas, own = gpus // NODE, 16 * plan.parameters / NODE + _gathered(model, plan)
    *inside, averaged = fsdp(2 * plan.parameters, 2 * plan.parameters, model.layers, NODE, replicas)
    rare = diloco(plan.parameters / NODE, replicas, EVERY)
    within = exposed(tuple(inside), INSIDE, forward, backward, model.layers)
    found = [
        (name, own, _sent((*inside, averaged)), within + exposed((averaged,), link, forward, backward, model.layers))
        for name, link in (("fsdp, replicas", BETWEEN), ("the same over 1 Gbit/s", SLOW))
    ]
    kept = own + 8 * plan.parameters / NODE
    return [*found, ("diloco over 1 Gbit/s", kept, _sent((*inside, *rare)), within + exposed(rare, SLOW, 0, 0, 1))]


def _gathered(model: Model, plan: Planned) -> float:
    """Two layers' weights and one layer's gradients, whole, in bf16."""
    return 3 * 2 * plan.parameters / model.layers


def _sent(parts: Sequence[Collective]) -> float:
    return float(sum(part.bytes for part in parts))


def _tokens(model: Model, gpus: int) -> int:
    return gpus * model.rows * model.length


def table(model: Model, plan: Planned) -> list[str]:
    """Markdown lines."""
    rows = f"{model.rows} x {model.length} tokens per GPU and step"
    recomputed = ", activations recomputed" if model.checkpointed else ""
    lines = [
        f"### {model.title}",
        "",
        f"{plan.parameters / 1e6:,.0f} M parameters, {rows}{recomputed}:",
        "",
        "| GPUs | shared by | GiB per GPU | sent per GPU and step | waits | step | tokens/s | efficiency |",
        "|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for cell in cells(model, plan):
        fits = cell.memory <= CARD
        memory = f"{cell.memory / GIB:,.1f}" if fits else f"{cell.memory / GIB:,.1f} (too much)"
        speed = f"{cell.speed:,.0f} | {cell.efficiency:.0%}" if fits else "- | -"
        step = f"{1000 * cell.waits:,.0f} ms | {1000 * (cell.compute + cell.waits):,.0f} ms" if fits else "- | -"
        lines.append(f"| {cell.gpus:,} | {cell.way} | {memory} | {cell.sent / GIB:,.2f} GiB | {step} | {speed} |")
    return [*lines, ""]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the tables into docs/scaling.md")
    options = parser.parse_args()
    lines = [line for model in MODELS for line in table(model, planned(model))]
    show("scale plan", lines[:-1], options.write, PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
