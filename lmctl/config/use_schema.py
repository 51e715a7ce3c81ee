"""The shape of the configs of the verbs that use a finished model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

from omegaconf import MISSING

from lmctl.config.schema import key, positive

SUITES = (
    "auto",
    "perplexity",
    "mlm",
    "classification",
    "translation",
    "minimal_pairs",
    "nbest",
    "robustness",
    "loss",
)
SPLITS = ("auto", "all", "train", "valid")
CASES = ("as_is", "lower", "sentence")
MODES = ("auto", "lines", "pairs", "nbest")
MODEL_PATH = "a run, finished or not, one of its checkpoints, a Hugging Face directory or a hub id"
CASE = "before a text is scored: as_is, lower, or sentence (lower, but first letters and I), for upper-case speech text"


def one_of(choices: tuple[str, ...], **values: str) -> None:
    for name, value in values.items():
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


@dataclass(frozen=True)
class EvalConfig:
    """Root of `lmctl eval`."""

    data: Any = None
    precision: Any = None
    quantize: Any = None
    runner: Any = MISSING
    model_path: str = key(MISSING, MODEL_PATH)
    suite: str = key("auto", f"{', '.join(SUITES)}; auto: what the model's own tasks call for")
    task: Optional[str] = key(None, "one of the model's own tasks; null: all of them that the data fit")
    split: str = key("auto", "all, train or valid rows of the data; auto: all, but valid if the model learnt from them")
    rows: Optional[int] = key(None, "use at most so many rows of the data")
    out: Optional[str] = key(None, "file for the results; null: eval.json of the run, or here")
    batch: int = key(16, "rows at a time")
    seq_len: Optional[int] = key(None, "positions per row; null: what the model takes, at most 1024")
    stride: Optional[int] = key(None, "perplexity: how far windows of long texts move on; null: half of seq_len")
    stream: Optional[bool] = key(
        None, "perplexity: documents see those before them; null: only if the model carries a state"
    )
    limit: int = key(100, "mlm: rows for pseudo-perplexity, which takes a pass per piece")
    seed: int = key(1, "mlm, robustness: seed of masks and noise")
    beams: int = key(5, "translation: hypotheses kept at each step")
    length_penalty: float = key(1.0, "translation: log-probability is divided by length to this power")
    max_new_tokens: Optional[int] = key(None, "translation: longest output; null: twice the source and 20")
    file: Optional[str] = key(None, "minimal_pairs: good<TAB>bad lines or jsonl; nbest: jsonl with id, ref, hyps")
    dev: Optional[str] = key(None, "nbest: jsonl on which weight and word bonus are tuned")
    case: str = key("as_is", f"nbest: {CASE}")
    trusted: list[str] = field(
        default_factory=list, metadata={"help": "further packages whose classes a _target_ may name"}
    )

    def __post_init__(self) -> None:
        one_of(SUITES, suite=self.suite)
        one_of(SPLITS, split=self.split)
        one_of(CASES, case=self.case)
        positive(rows=self.rows, batch=self.batch, stride=self.stride, limit=self.limit, beams=self.beams)
        positive(max_new_tokens=self.max_new_tokens)
        if self.seq_len is not None and self.seq_len < 8:
            raise ValueError(f"seq_len must be at least 8, got {self.seq_len}")


@dataclass(frozen=True)
class GenerateConfig:
    """Root of `lmctl generate`."""

    model_path: str = key(MISSING, MODEL_PATH)
    prompt: Optional[str] = key(None, "text to go on with, or with one or more [MASK]; null: lines from standard input")
    file: Optional[str] = key(None, "text file with one prompt per line")
    top_k: int = key(5, "masks: candidates shown for each; sampling: choose among so many pieces (0: all)")
    max_new_tokens: int = key(50, "longest continuation, in pieces")
    do_sample: bool = key(False, "draw each piece; false: take the likeliest")
    temperature: float = key(1.0, "sampling: below 1 keeps closer to the likeliest pieces")
    top_p: float = key(1.0, "sampling: choose among the fewest pieces that together have this probability")
    beams: int = key(1, "continuations kept at each step; above 1: beam search")
    seed: int = key(1, "seed of sampling")
    batch: int = key(8, "prompts at a time")
    runner: Any = MISSING

    def __post_init__(self) -> None:
        positive(max_new_tokens=self.max_new_tokens, temperature=self.temperature, beams=self.beams, batch=self.batch)
        if self.top_k < 0 or (self.top_k == 0 and not self.do_sample):
            raise ValueError(f"top_k must be above 0, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.prompt is not None and self.file is not None:
            raise ValueError("give prompt or file, not both")
        if not self.do_sample and (self.temperature != 1 or self.top_p != 1):
            raise ValueError("temperature and top_p are for sampling: add do_sample=true")


@dataclass(frozen=True)
class TranslateConfig:
    """Root of `lmctl translate`."""

    model_path: str = key(MISSING, MODEL_PATH)
    file: Optional[str] = key(None, "text file with one text per line; null: standard input")
    prefix: str = key("", "put before each line, for models trained with one (T5)")
    beams: int = key(5, "hypotheses kept at each step")
    length_penalty: float = key(1.0, "log-probability is divided by length to this power")
    max_new_tokens: Optional[int] = key(None, "longest translation, in pieces; null: twice the source and 20")
    batch: int = key(16, "lines at a time")
    runner: Any = MISSING

    def __post_init__(self) -> None:
        positive(beams=self.beams, max_new_tokens=self.max_new_tokens, batch=self.batch)


@dataclass(frozen=True)
class ScoreConfig:
    """Root of `lmctl score`."""

    model_path: str = key(MISSING, MODEL_PATH)
    mode: str = key("auto", "lines, pairs (good<TAB>bad) or nbest (jsonl: id, ref, hyps); auto: by the first line")
    file: Optional[str] = key(None, "what to score; null: standard input")
    dev: Optional[str] = key(None, "nbest: jsonl on which weight and word bonus are tuned")
    case: str = key("as_is", CASE)
    out: Optional[str] = key(None, "nbest: file for the chosen hypotheses, one line each")
    batch: int = key(32, "texts at a time")
    seq_len: Optional[int] = key(None, "positions per row; null: what the model takes, at most 1024")
    runner: Any = MISSING

    def __post_init__(self) -> None:
        one_of(MODES, mode=self.mode)
        one_of(CASES, case=self.case)
        positive(batch=self.batch)
        if self.seq_len is not None and self.seq_len < 8:
            raise ValueError(f"seq_len must be at least 8, got {self.seq_len}")
