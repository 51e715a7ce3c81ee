"""Size, speed and quality of an export beside the model as it is, both on the same texts in turns."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from lmctl.core.files import write_json, write_text
from lmctl.core.regular_files import read_json
from lmctl.export.base import ExportFormat
from lmctl.export.foreign.exchange import Arrays
from lmctl.export.subject import Subject
from lmctl.export.verify import ask, batch_of, compared, logits_of

BATCHES = (1, 8)
"""Texts at a time."""
POSITIONS = 128
TIMES = 30
"""Calls per batch size; the first three are not counted."""
WARM_UP = 3
TEXTS = 64
"""Texts on which quality is measured."""


@dataclass(frozen=True)
class Speed:
    """Calls with one number of texts."""

    median_ms: float
    p95_ms: float
    tokens_per_second: float


@dataclass(frozen=True)
class Form:
    """One form of the model."""

    name: str
    megabytes: float
    """Of weights."""
    speed: dict[int, Speed]
    """By texts at a time."""
    nats: float | None
    """Mean negative log-likelihood of held-out pieces, in nats; None for a classifier."""
    top1: float
    """Share of predictions that are those of the model as it is."""


def bench(subject: Subject, format: ExportFormat, folder: Path, name: str, texts: Iterable[str]) -> list[Form]:
    """The model as it is, and its export in `folder`, called `name`, on the first of `texts`."""
    length, lines = subject.loaded.row(POSITIONS), _long_enough(texts)
    timed = [batch_of(subject, lines[:rows], lines[1 : rows + 1], length) for rows in BATCHES]
    rows = [batch_of(subject, lines[at : at + 8], lines[at + 1 : at + 9], length) for at in range(0, len(lines) - 8, 8)]
    questions = [question(subject, batch, number) for number, batch in enumerate(rows)]
    batches = [*timed, *(batch for batch, _ in questions)]
    repeats = [TIMES] * len(timed) + [1] * len(rows)
    here, seconds = [], []
    for batch, times in zip(batches, repeats, strict=True):
        spent = []
        for _ in range(times):
            before = time.perf_counter()
            logits = logits_of(subject, batch)
            spent.append(time.perf_counter() - before)
        here.append(logits)
        seconds.append(np.array(spent))
    runtime, there, others = ask(subject, format, folder, batches, repeats)
    forms = []
    for title, size, logits_, spent_ in (
        ("as it is (torch)", subject.megabytes, here, seconds),
        (f"{name} ({runtime.partition(' ')[0]})", megabytes(folder), there, others),
    ):
        speed = {n: _speed(batch, one) for n, batch, one in zip(BATCHES, timed, spent_, strict=False)}
        scored = list(zip(questions, logits_[len(timed) :], strict=True))
        nats = None if subject.loaded.classifies else _nats(scored)
        top1 = compared(runtime, batches[len(timed) :], here[len(timed) :], logits_[len(timed) :]).top1
        forms.append(Form(title, size, speed, nats, top1))
    return forms


def question(subject: Subject, batch: Arrays, number: int) -> tuple[Arrays, np.ndarray]:
    """A batch, and the pieces that its logits should predict, -1 where nothing is asked. Of masked language models one
    piece in seven is masked; the others predict the next piece."""
    loaded, ids = subject.loaded, batch["input_ids"]
    if subject.model.config.is_encoder_decoder:
        read = batch["decoder_input_ids"]
        return batch, np.concatenate([read[:, 1:], np.full((len(read), 1), -1)], axis=1)
    real = batch["attention_mask"].astype(bool)
    if loaded.classifies or loaded.family == "decoder":
        later = np.concatenate([real[:, 1:], np.zeros((len(ids), 1), bool)], axis=1)
        return batch, np.where(later, np.roll(ids, -1, axis=1), -1)
    special = np.isin(ids, loaded.tokenizer.all_special_ids)
    hidden = (np.random.default_rng(number).random(ids.shape) < 1 / 7) & real & ~special
    return {**batch, "input_ids": np.where(hidden, loaded.mask, ids)}, np.where(hidden, ids, -1)


def _nats(scored: Iterable[tuple[tuple[Arrays, np.ndarray], np.ndarray]]) -> float:
    total, count = 0.0, 0
    for (_, targets), logits in scored:
        wanted = targets >= 0
        chosen = logits[wanted].astype(np.float64)
        top = chosen.max(axis=-1, keepdims=True)
        normaliser = np.log(np.exp(chosen - top).sum(axis=-1)) + top[:, 0]
        total += float((normaliser - chosen[np.arange(len(chosen)), targets[wanted]]).sum())
        count += len(chosen)
    return total / max(1, count)


def _speed(batch: Arrays, seconds: np.ndarray) -> Speed:
    counted = seconds[WARM_UP:]
    median, late = float(np.median(counted)), float(np.quantile(counted, 0.95))
    return Speed(median * 1e3, late * 1e3, float(batch["attention_mask"].sum()) / median)


def _long_enough(texts: Iterable[str]) -> list[str]:
    """The first of `texts`, again from the beginning if there are few."""
    found = [text for text, _ in zip((text for text in texts if text.strip()), range(TEXTS), strict=False)]
    return (found * (TEXTS // max(1, len(found)) + 1))[:TEXTS]


def megabytes(folder: Path) -> float:
    """Size of the weights in a directory."""
    kinds = (".safetensors", ".onnx", ".data", ".gguf")
    return sum(file.stat().st_size for file in folder.rglob("*") if file.suffix in kinds) / 1e6


def table(forms: Iterable[Form]) -> str:
    """Markdown: a form per line."""
    head = "| form | MB | " + " | ".join(f"batch {n}: median ms | p95 ms | tokens/s" for n in BATCHES)
    lines = [f"{head} | nats per piece | top-1 as the original |", f"|{'---|' * (4 + 3 * len(BATCHES))}"]
    for form in forms:
        speeds = [form.speed[n] for n in BATCHES]
        shown = [f"{one.median_ms:.2f} | {one.p95_ms:.2f} | {one.tokens_per_second:,.0f}" for one in speeds]
        nats = "" if form.nats is None else f"{form.nats:.4f}"
        lines.append(f"| {form.name} | {form.megabytes:.2f} | {' | '.join(shown)} | {nats} | {form.top1:.1%} |")
    return "\n".join(lines)


def save(forms: list[Form], folder: Path) -> list[Form]:
    """Merge `forms` into bench.json and bench.md in `folder`; returns all forms that were measured."""
    file = folder / "bench.json"
    before = read_json(file)
    found = {one.name: one for one in map(_form, before.values() if isinstance(before, dict) else ())}
    merged = {**found, **{one.name: one for one in forms}}
    write_json(file, {name: asdict(one) for name, one in merged.items()})
    write_text(folder / "bench.md", table(merged.values()) + "\n")
    return list(merged.values())


def lines(forms: Iterable[Form]) -> list[str]:
    """The table for a terminal of 80 columns."""
    rows = [("form", "MB", *(f"ms at {n} (p95)" for n in BATCHES), "tokens/s", "nats", "top-1")]
    for form in forms:
        speeds = [f"{one.median_ms:.2f} ({one.p95_ms:.2f})" for one in map(form.speed.__getitem__, BATCHES)]
        nats = "" if form.nats is None else f"{form.nats:.3f}"
        fastest = max(one.tokens_per_second for one in form.speed.values())
        rows.append((form.name, f"{form.megabytes:.1f}", *speeds, f"{fastest:,.0f}", nats, f"{form.top1:.1%}"))
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:<{width}}" if not place else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(row, wide, strict=True))
        )
        for row in rows
    ]


def _form(written: Mapping[str, object]) -> Form:
    speed = {int(rows): Speed(**one) for rows, one in json.loads(json.dumps(written["speed"])).items()}
    return Form(**{**written, "speed": speed})  # type: ignore[arg-type]
