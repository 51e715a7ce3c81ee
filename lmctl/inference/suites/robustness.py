"""`suite=robustness`: the metrics of the model's default suite under increasing noise in the text.

Typing errors in 5, 10 and 20 % of the characters (half substitutions, half swaps; `lmctl.core.typing_errors`), word
drops, or word swaps, in every text that the model reads: for translation the source alone. The noise of each row is
always the same. Classifiers are also tested with adversarial embedding shifts (`embedding_ball.py`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from lmctl.core.batch import DocumentWithText, Row
from lmctl.core.counter_rng import CounterRng
from lmctl.core.typing_errors import drop_words, mistype, swap_words
from lmctl.inference.suites.embedding_ball import in_the_ball
from lmctl.inference.suites.job import Figures, SuiteJob, natural

LEVELS = (0.05, 0.10, 0.20)

Noise = Callable[[str, float, np.random.Generator], str]


NOISES: dict[str, Noise] = {"typos": mistype, "dropped_words": drop_words, "swapped_words": swap_words}


def evaluate(job: SuiteJob) -> Figures:
    """`<metric>` of clean text, `<metric>_<noise>_<percent>` of noisy text."""
    suite = natural(job.loaded, job.task)
    with TemporaryDirectory() as folder:  # translations of noisy text are not kept
        # Without pseudo-perplexity, which takes most of the time of `mlm`.
        job = replace(job, folder=Path(folder), config=replace(job.config, limit=1))
        figures: Figures = {"suite": suite, **_metrics(suite, job)}
        for name, noise in NOISES.items():
            for level in LEVELS:
                rows = _noisy_rows(job, noise, level, CounterRng(job.config.seed, f"eval/{name}"))
                worse = _metrics(suite, replace(job, rows=rows))
                figures |= {f"{metric}_{name}_{level * 100:.0f}": value for metric, value in worse.items()}
    return figures | (in_the_ball(job) if suite == "classification" else {})


KEPT = {
    "perplexity": ("loss", "perplexity_per_word", "bits_per_byte"),
    "mlm": ("loss", "accuracy"),
    "classification": ("accuracy", "macro_f1", "matthews", "micro_f1", "pearson", "spearman"),
    "translation": ("bleu", "chrf"),
    "loss": ("loss",),
}


def _metrics(suite: str, job: SuiteJob) -> Figures:
    figures: Figures = importlib.import_module(f"lmctl.inference.suites.{suite}").evaluate(job)
    return {name: figures[name] for name in KEPT[suite] if name in figures}


def _noisy_rows(job: SuiteJob, noise: Noise, level: float, draws: CounterRng) -> Callable[[], Iterator[Row]]:
    def rows() -> Iterator[Row]:
        for number, row in enumerate(job.rows()):
            rng = draws.generator(round(level * 100), number)
            read = 1 if job.yields == "parallel" else len(row.texts)
            texts = [*(noise(text, level, rng) for text in row.texts[:read]), *row.texts[read:]]
            yield row._replace(texts=row.texts.rewritten(texts) if isinstance(row.texts, DocumentWithText) else texts)

    return rows
