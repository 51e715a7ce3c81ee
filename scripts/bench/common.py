"""What both sides of a benchmark share: arguments, sizes of networks, clock, held-out loss, and the line of figures.

A benchmark (`mlm.py`, `clm.py`, ...) writes the work folder that its sides read:

    train.txt     paragraphs of text, a blank line between them; of a translation train.tsv, a pair a line
    valid.txt     the held-out ones (valid.tsv)
    tokenizer/    a WordPiece tokenizer in Hugging Face format
    heldout.npz   arguments of a model's forward pass by name, `labels` among them: rows that nobody trains on
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil


class Sizes(NamedTuple):
    """Sizes of a network."""

    layers: int
    hidden: int
    heads: int


MODELS = {
    "bert_mini": Sizes(4, 256, 4),
    "bert_small": Sizes(4, 512, 8),
    "bert_base": Sizes(12, 768, 12),
    "gpt2_mini": Sizes(4, 256, 4),
    "gpt2_small": Sizes(12, 768, 12),
    "transformer_mt": Sizes(3, 256, 4),
}
"""By lmctl's names. All have feed-forward layers of four times their width; of translation, layers of either half."""
PRECISIONS = ("fp32", "bf16", "fp16", "int8", "int8_full", "fp8")
"""lmctl's names; the peers have the first two on a CPU."""

SETTINGS = ("steps", "warmup", "rows", "seq_len", "lr", "weight_decay", "seed", "model", "vocabulary", "dropout")
"""Names of the settings that a side is told, besides its precision."""


def parser(description: str | None) -> argparse.ArgumentParser:
    """The settings that a side must follow to the letter."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--model", choices=MODELS, default="bert_mini")
    p.add_argument("--precision", choices=PRECISIONS, default="fp32")
    p.add_argument("--vocabulary", type=int, default=30_522, help="rows of embedding and head, more than pieces")
    p.add_argument("--dropout", type=float, default=0.1)
    p.add_argument("--steps", type=int, default=20, help="optimiser steps")
    p.add_argument("--warmup", type=int, default=4, help="steps at the start that are not measured")
    p.add_argument("--rows", type=int, default=16, help="rows per step")
    p.add_argument("--seq-len", type=int, default=128, help="tokens per row")
    p.add_argument("--lr", type=float, default=5e-4, help="peak of a linear schedule, a tenth of the steps warming up")
    p.add_argument("--weight-decay", type=float, default=0.01)
    p.add_argument("--seed", type=int, default=17)
    return p


def side_parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments of one side's own process."""
    p = parser(description)
    p.add_argument("--work", type=Path, required=True, help="the work folder that the benchmark wrote")
    return p


def cpu_seconds() -> float:
    """CPU time of this process, all its threads, and of its living children (data workers, if any)."""
    total = time.process_time()
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def peak_rss_mb() -> float:
    """The most memory this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # macOS counts bytes, Linux KiB


class Clock:
    """Measures from the end of step `warmup` to the end of the last step, and the peak memory up to there."""

    def __init__(self, warmup: int, steps: int) -> None:
        if not 0 < warmup < steps:
            raise SystemExit(f"--warmup must be between 1 and --steps - 1, got {warmup} of {steps}")
        self.warmup, self.steps = warmup, steps
        self.step = self.tokens = 0
        self.start = (0.0, 0.0)
        self.figures: dict[str, float] = {}

    def tick(self, tokens: int) -> None:
        """One optimiser step is done; it saw `tokens` real (non-padding) tokens."""
        self.step += 1
        if self.step == 1:
            born = psutil.Process().create_time()
            self.figures = {"first_step_s": time.time() - born, "first_step_cpu_s": cpu_seconds()}
        if self.step > self.warmup:
            self.tokens += tokens
        if self.step == self.warmup:
            self.start = (time.perf_counter(), cpu_seconds())
        if self.step == self.steps:
            seconds, cpu = time.perf_counter() - self.start[0], cpu_seconds() - self.start[1]
            self.figures |= {
                "tokens_per_cpu_second": self.tokens / cpu,
                "tokens_per_second": self.tokens / seconds,
                "cpu_ms_per_step": 1000 * cpu / (self.steps - self.warmup),
                "peak_rss_mb": peak_rss_mb(),
            }

    def report(self, **more: Any) -> None:
        """Print the side's one line of JSON."""
        if self.step < self.steps:
            raise SystemExit(f"the run ended after {self.step} of {self.steps} steps")
        print(json.dumps(self.figures | more), flush=True)


def full_rows(texts: Iterable[Sequence[int]], seq_len: int, first: int | None, sep: int) -> np.ndarray:
    """The token lists one after the other, each ended by [SEP], cut into full rows: `[CLS] ... [SEP]` where `first`
    is the number of [CLS], or with None as they come."""
    stream = np.array([token for ids in texts for token in (*ids, sep)], dtype=np.int64)
    body = seq_len if first is None else seq_len - 2
    rows = stream[: len(stream) // body * body].reshape(-1, body)
    return rows if first is None else np.pad(rows, ((0, 0), (1, 1)), constant_values=((0, 0), (first, sep)))


def heldout_loss(model: Any, work: Path, rows: int) -> float:
    """Mean loss of a transformers model over the targets of the held-out rows."""
    import torch

    data = {name: torch.from_numpy(array) for name, array in np.load(work / "heldout.npz").items()}
    total, targets = 0.0, 0
    model.eval()
    with torch.no_grad():
        for start in range(0, len(data["labels"]), rows):
            part = {name: array[start : start + rows] for name, array in data.items()}
            count = int((part["labels"] != -100).sum())
            total, targets = total + model(**part).loss.item() * count, targets + count
    return total / targets
