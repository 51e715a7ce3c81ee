"""Proof of an export: a process of its own reads the files with a foreign runtime, and its logits are compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmctl.core import child_process
from lmctl.core.errors import LmctlError
from lmctl.core.pretrained_files import BROKEN
from lmctl.export.base import ExportFormat
from lmctl.export.foreign.exchange import Arrays, read_answers, write_batches
from lmctl.export.subject import Subject

TEXTS = (
    "The cat sat on the mat.",
    "In 1969, two people walked on the Moon; a third one waited in orbit and took photographs of the far side.",
    "人工智能正在改变我们写作、翻译和学习的方式。",
    "E = mc^2, 3.14159 and 100 % of x[i] -> y",
    "yes",
    "Der Zug nach München fährt um 7:45 Uhr ab, l'été à Paris est très chaud, ¿dónde está la biblioteca?",
)
"""Fixed texts: short and long ones, in several languages and scripts."""
POSITIONS = 64
"""Longest row that is compared."""
LIMITS = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 0.1, "q8_0": 0.1, "int8": 0.5}
"""Largest relative difference of logits (`Agreement.relative`) by number format. Rounding stays far below; a wrong
layout gives about 1.4, the difference of two unrelated networks."""
REPORT = "please report this with the model's config.json"
"""The remedy for an export that is wrong."""


@dataclass(frozen=True)
class Agreement:
    """How far the logits of two programs are the same."""

    runtime: str
    """Name and version of the foreign one."""
    predictions: int
    """Rows of logits compared: one per position, or one per text of a classifier."""
    largest: float
    """Largest absolute difference of two logits."""
    relative: float
    """Root mean square of the differences, in units of the standard deviation of the logits over their classes."""
    top1: float
    """Share of predictions whose likeliest class is the same."""

    def line(self) -> str:
        """One line for the terminal."""
        return (
            f"verified by {self.runtime}, in a process of its own: largest logit difference {self.largest:.2g}, "
            f"top-1 agreement {self.top1:.1%} of {self.predictions:,} predictions"
        )


class VerificationFailed(LmctlError):
    """What was written is not the model; exit code 1."""


def verify(subject: Subject, format: ExportFormat, folder: Path) -> Agreement:
    """Compare the files in `folder` with the model itself on fixed texts. VerificationFailed if they cannot be read, or
    if their logits differ more than the number format explains."""
    batches = fixed_batches(subject)
    expected = [logits_of(subject, batch) for batch in batches]
    runtime, found, _ = ask(subject, format, folder, batches, [1] * len(batches))
    agreement = compared(runtime, batches, expected, found)
    limit = LIMITS["int8" if subject.quantize is not None else subject.dtype]
    if not agreement.relative <= limit:
        raise VerificationFailed(
            f"the {format.name} export of {subject.name} is wrong: {runtime} computes logits that differ by "
            f"{agreement.relative:.2g} of their standard deviation (limit {limit:g}; largest difference "
            f"{agreement.largest:.2g}, top-1 agreement {agreement.top1:.1%})",
            f"nothing was written; {REPORT if subject.quantize is None else 'quantize.exclude keeps layers in float'}",
        )
    return agreement


def fixed_batches(subject: Subject) -> list[Arrays]:
    """The fixed texts as the model takes them: one alone, and all of them padded at their ends; and rows of pieces from
    the whole vocabulary."""
    length = subject.loaded.row(POSITIONS)
    texts = [batch_of(subject, [text], [TEXTS[0]], length) for text in TEXTS[1:2]]
    texts.append(batch_of(subject, list(TEXTS), [*TEXTS[1:], TEXTS[0]], length))
    drawn = np.random.default_rng(0)
    rows = drawn.integers(0, len(subject.loaded.tokenizer), (2, min(length, 24)), dtype=np.int64)
    rows = np.where(rows == subject.loaded.pad, subject.loaded.end, rows)
    pieces = {name: np.zeros_like(rows) for name in texts[0]} | {"input_ids": rows, "attention_mask": rows * 0 + 1}
    if "decoder_input_ids" in pieces:
        pieces["decoder_input_ids"] = rows[:, ::2]
    return [*texts, pieces]


def batch_of(subject: Subject, texts: Sequence[str], targets: Sequence[str], length: int) -> Arrays:
    """Texts as int64 arrays [R, L] by input name; for encoder-decoders `targets` are what the decoder reads."""
    loaded = subject.loaded
    framed = loaded.framed(list(texts), length=length)
    inputs = {name: value.numpy() for name, value in loaded.arguments(framed).items()}
    if loaded.family != "encoder" and not loaded.classifies:
        inputs.pop("token_type_ids", None)  # language models of GPT-2's kind were not trained with them
    inputs.setdefault("attention_mask", framed["attention_mask"].numpy())
    if subject.model.config.is_encoder_decoder:
        ids = loaded.framed(list(targets), length=length)["input_ids"].numpy()
        first = np.full((len(ids), 1), subject.decoder_start, dtype=np.int64)
        inputs["decoder_input_ids"] = np.concatenate([first, ids[:, :-1]], axis=1)
    return inputs


def logits_of(subject: Subject, batch: Arrays) -> np.ndarray:
    """The model's own logits: float32 [R, L, V], or [R, C] of a classifier."""
    import torch

    with torch.inference_mode():
        found = subject.model(**{name: torch.from_numpy(value) for name, value in batch.items()})
    logits: Any = next(value for name, value in found.items() if name.endswith("logits"))
    if not logits.isfinite().all():
        raise LmctlError(f"{subject.name}: {BROKEN}")
    return np.asarray(logits.float().numpy())


def ask(
    subject: Subject, format: ExportFormat, folder: Path, batches: list[Arrays], repeats: list[int]
) -> tuple[str, list[np.ndarray], list[np.ndarray]]:
    """The foreign runtime's name, its logits of each batch, and the seconds of each time that it was run."""
    import torch

    with tempfile.TemporaryDirectory(prefix="lmctl-verify-") as work:
        asked, answered = Path(work, "batches.npz"), Path(work, "answers.npz")
        write_batches(asked, batches, repeats)
        words = ["-m", f"lmctl.export.foreign.{format.runtime(subject)}", str(folder), str(asked), str(answered)]
        done = subprocess.run(
            [sys.executable, "-P", *words, json.dumps(dict(format.arguments(subject)))],
            env=os.environ
            | child_process.environment()
            | {"OMP_NUM_THREADS": str(torch.get_num_threads()), "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": work},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            reason = next(iter(done.stderr.strip().splitlines()[::-1]), f"exit code {done.returncode}")
            raise VerificationFailed(
                f"the {format.name} export of {subject.name} cannot be used: {reason}",
                f"nothing was written; {REPORT}",
            )
        answers, seconds = read_answers(answered)
    return done.stdout.strip().splitlines()[-1], [format.logits(subject, one) for one in answers], seconds


def compared(runtime: str, batches: list[Arrays], expected: list[np.ndarray], found: list[np.ndarray]) -> Agreement:
    """Compare logits at the positions that are not padding."""
    rows, others = (np.concatenate([_rows(batch, one) for batch, one in zip(batches, logits, strict=True)])
                    for logits in (expected, found))  # fmt: skip
    differences = rows.astype(np.float64) - others
    spread = float(rows.std(axis=-1, dtype=np.float64).mean()) or 1.0
    relative = float(np.sqrt((differences**2).mean())) / spread
    same = rows.argmax(axis=-1) == others.argmax(axis=-1)
    return Agreement(runtime, len(rows), float(np.abs(differences).max()), relative, float(same.mean()))


def _rows(batch: Mapping[str, np.ndarray], logits: np.ndarray) -> np.ndarray:
    """Logits [N, V] of the predictions of one batch."""
    if logits.ndim == 2 or "decoder_input_ids" in batch:
        return logits.reshape(-1, logits.shape[-1])
    return logits[batch["attention_mask"].astype(bool)]
