"""What both sides of the benchmark share: their arguments, the clock, the held-out rows, the line they print.

`mlm.py` writes the work folder that the sides read:

    train.txt     paragraphs of text, a blank line between them
    valid.txt     the held-out ones
    tokenizer/    a WordPiece tokenizer in Hugging Face format
    heldout.npz   `inputs` and `labels` of rows that nobody trains on, masked once for all
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

VOCABULARY_ROWS = 30_522  # rows of the embedding and of the head, BERT's number, whatever the tokenizer's size


def parser(description: str | None) -> argparse.ArgumentParser:
    """The settings that a side must follow to the letter."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--steps", type=int, default=20, help="optimiser steps")
    p.add_argument("--warmup", type=int, default=4, help="steps at the start that are not measured")
    p.add_argument("--rows", type=int, default=16, help="rows per step")
    p.add_argument("--seq-len", type=int, default=128, help="tokens per row")
    p.add_argument("--lr", type=float, default=5e-4, help="peak of a linear schedule, a tenth of the steps warming up")
    p.add_argument("--weight-decay", type=float, default=0.01)
    p.add_argument("--seed", type=int, default=17)
    return p


def side_arguments(description: str | None) -> argparse.Namespace:
    """The arguments of one side's own process."""
    p = parser(description)
    p.add_argument("--work", type=Path, required=True, help="the work folder that mlm.py wrote")
    return p.parse_args()


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
        if self.step > self.warmup:
            self.tokens += tokens
        if self.step == self.warmup:
            self.start = (time.perf_counter(), cpu_seconds())
        if self.step == self.steps:
            seconds, cpu = time.perf_counter() - self.start[0], cpu_seconds() - self.start[1]
            self.figures = {
                "tokens_per_cpu_second": self.tokens / cpu,
                "tokens_per_second": self.tokens / seconds,
                "peak_rss_mb": peak_rss_mb(),
            }

    def report(self, **more: Any) -> None:
        """Print the side's one line of JSON."""
        if not self.figures:
            raise SystemExit(f"the run ended after {self.step} of {self.steps} steps")
        print(json.dumps(self.figures | more), flush=True)


def full_rows(texts: Iterable[Sequence[int]], seq_len: int, cls: int, sep: int) -> np.ndarray:
    """The token lists one after the other, each ended by [SEP], cut into full rows `[CLS] ... [SEP]`."""
    stream = np.array([token for ids in texts for token in (*ids, sep)], dtype=np.int64)
    body = seq_len - 2
    rows = stream[: len(stream) // body * body].reshape(-1, body)
    return np.pad(rows, ((0, 0), (1, 1)), constant_values=((0, 0), (cls, sep)))


def heldout_loss(model: Any, work: Path, rows: int) -> float:
    """Mean loss of a `BertForMaskedLM` over the targets of the held-out rows."""
    import torch

    data = np.load(work / "heldout.npz")
    inputs, labels = torch.from_numpy(data["inputs"]), torch.from_numpy(data["labels"])
    total = 0.0
    model.eval()
    with torch.no_grad():
        for part_in, part_out in zip(inputs.split(rows), labels.split(rows), strict=True):
            loss = model(input_ids=part_in, labels=part_out).loss
            total += loss.item() * (part_out != -100).sum().item()
    return total / int((labels != -100).sum())
