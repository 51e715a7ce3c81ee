"""The shape of the configs of the verbs that use a finished model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

from omegaconf import MISSING

from lmctl.config.schema import FORMAT, FORMATS, check_seed, one_of, positive
from lmctl.config.table import key
from lmctl.core.places import FreeText, Place

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
INPUTS = ("auto", "table", "jsonl", "lines")
LENGTH = ("max_length", "max_tokens", "length")
"""What other tools call max_new_tokens."""
BEAMS = ("num_beams", "beam_size", "beam_width")
BATCH = ("batch_size", "per_device_eval_batch_size")
MODEL_PATH = "a run, finished or not, one of its checkpoints, a Hugging Face directory or a hub id"
CASE = "before a text is scored: as_is, lower, or sentence (lower, but first letters and I), for upper-case speech text"


@dataclass(frozen=True)
class EvalConfig:
    """Root of `lmctl eval`."""

    data: Any = None
    precision: Any = None
    quantize: Any = None
    runner: Any = MISSING
    model_path: Place = key(MISSING, MODEL_PATH)
    suite: str = key("auto", f"{', '.join(SUITES)}; auto: what the model's own tasks call for")
    task: Optional[str] = key(None, "one of the model's own tasks; null: all of them that the data fit")
    split: str = key("auto", "all, train or valid rows of the data; auto: all, but valid if the model learnt from them")
    rows: Optional[int] = key(None, "use at most so many rows of the data")
    out: Optional[Place] = key(None, "file for the results; null: eval.json of the run, or here")
    batch: int = key(16, "rows at a time", BATCH)
    seq_len: Optional[int] = key(None, "positions per row; null: what the model takes, at most 1024")
    stride: Optional[int] = key(None, "perplexity: how far windows of long texts move on; null: half of seq_len")
    stream: Optional[bool] = key(
        None, "perplexity: documents see those before them; null: only if the model carries a state"
    )
    limit: int = key(100, "mlm: rows for pseudo-perplexity, which takes a pass per piece")
    seed: int = key(1, "mlm, robustness: seed of masks and noise")
    beams: int = key(5, "translation: hypotheses kept at each step", BEAMS)
    length_penalty: float = key(1.0, "translation: log-probability is divided by length to this power")
    max_new_tokens: Optional[int] = key(None, "translation: longest output; null: twice the source and 20", LENGTH)
    file: Optional[Place] = key(None, "minimal_pairs: good<TAB>bad lines or jsonl; nbest: jsonl with id, ref, hyps")
    dev: Optional[Place] = key(None, "nbest: jsonl on which weight and word bonus are tuned")
    case: str = key("as_is", f"nbest: {CASE}")
    format: str = key("text", FORMAT)
    trusted: list[str] = field(
        default_factory=list, metadata={"help": "further packages whose classes a _target_ may name"}
    )

    def __post_init__(self) -> None:
        one_of(FORMATS, format=self.format)
        one_of(SUITES, suite=self.suite)
        one_of(SPLITS, split=self.split)
        one_of(CASES, case=self.case)
        positive(rows=self.rows, batch=self.batch, stride=self.stride, limit=self.limit, beams=self.beams)
        positive(max_new_tokens=self.max_new_tokens)
        check_seed(self.seed)
        if self.seq_len is not None and self.seq_len < 8:
            raise ValueError(f"seq_len must be at least 8, got {self.seq_len}")


@dataclass(frozen=True)
class GenerateConfig:
    """Root of `lmctl generate`."""

    model_path: Place = key(MISSING, MODEL_PATH)
    prompt: Optional[FreeText] = key(
        None, "text to go on with, or with one or more [MASK]; null: lines from standard input"
    )
    file: Optional[Place] = key(None, "text file with one prompt per line")
    top_k: Optional[int] = key(
        None, "masks: candidates shown for each; sampling: choose among so many pieces (0: all); null: 5"
    )
    max_new_tokens: int = key(50, "longest continuation, in pieces", LENGTH)
    do_sample: Optional[bool] = key(
        None, "draw each piece, or take the likeliest; null: draw if temperature, top_p or top_k is given"
    )
    temperature: Optional[float] = key(
        None, "sampling: below 1 keeps closer to the likeliest pieces; null: 1", ("temp",)
    )
    top_p: Optional[float] = key(
        None, "sampling: choose among the fewest pieces that together have this probability; null: 1"
    )
    beams: int = key(1, "continuations kept at each step; above 1: beam search", BEAMS)
    seed: int = key(1, "seed of sampling")
    batch: int = key(8, "prompts at a time", BATCH)
    runner: Any = MISSING

    def __post_init__(self) -> None:
        positive(max_new_tokens=self.max_new_tokens, beams=self.beams, batch=self.batch)
        check_seed(self.seed)
        if self.temperature == 0:
            raise ValueError("temperature must be above 0, got 0: leave it out to take the likeliest pieces")
        positive(temperature=self.temperature)
        if self.top_k is not None and (self.top_k < 0 or (self.top_k == 0 and self.do_sample is False)):
            raise ValueError(f"top_k must be above 0, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.prompt is not None and self.file is not None:
            raise ValueError("give prompt or file, not both")
        if self.do_sample is False and (self.temperature is not None or self.top_p is not None):
            raise ValueError("temperature and top_p are for sampling: leave do_sample=false out")

    @property
    def draws(self) -> tuple[str, ...]:
        """What was given that only means something if pieces are drawn (of a model that writes; where masks are
        filled, top_k is something else)."""
        given = {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}
        return tuple(f"{name}={value:g}" for name, value in given.items() if value is not None)

    @property
    def samples(self) -> bool:
        """Whether a model that writes draws its pieces."""
        return bool(self.draws) if self.do_sample is None else self.do_sample


@dataclass(frozen=True)
class TranslateConfig:
    """Root of `lmctl translate`."""

    model_path: Place = key(MISSING, MODEL_PATH)
    file: Optional[Place] = key(None, "text file with one text per line; null: standard input")
    prefix: FreeText = key("", "put before each line, for models trained with one (T5)")
    beams: int = key(5, "hypotheses kept at each step", BEAMS)
    length_penalty: float = key(1.0, "log-probability is divided by length to this power")
    max_new_tokens: Optional[int] = key(None, "longest translation, in pieces; null: twice the source and 20", LENGTH)
    batch: int = key(16, "lines at a time", BATCH)
    runner: Any = MISSING

    def __post_init__(self) -> None:
        positive(beams=self.beams, max_new_tokens=self.max_new_tokens, batch=self.batch)


@dataclass(frozen=True)
class ScoreConfig:
    """Root of `lmctl score`."""

    model_path: Place = key(MISSING, MODEL_PATH)
    mode: str = key(
        "auto", "lines, pairs (good<TAB>bad) or nbest (jsonl: id, ref, hyps); auto: by the first line that is not blank"
    )
    file: Optional[Place] = key(None, "what to score; null: standard input")
    dev: Optional[Place] = key(None, "nbest: jsonl on which weight and word bonus are tuned")
    case: str = key("as_is", CASE)
    out: Optional[Place] = key(None, "nbest: file for the chosen hypotheses, one line each")
    batch: int = key(32, "texts at a time", BATCH)
    seq_len: Optional[int] = key(None, "positions per row; null: what the model takes, at most 1024")
    format: str = key("text", FORMAT)
    runner: Any = MISSING

    def __post_init__(self) -> None:
        one_of(FORMATS, format=self.format)
        one_of(MODES, mode=self.mode)
        one_of(CASES, case=self.case)
        positive(batch=self.batch)
        if self.seq_len is not None and self.seq_len < 8:
            raise ValueError(f"seq_len must be at least 8, got {self.seq_len}")


@dataclass(frozen=True)
class PredictConfig:
    """Root of `lmctl predict`."""

    model_path: Place = key(MISSING, MODEL_PATH)
    file: Optional[Place] = key(None, "csv, tsv, parquet, jsonl or text file, or a pattern; null or -: standard input")
    task: Optional[str] = key(None, "which of the model's own tasks labels; null: the only one that can")
    text: Optional[str] = key(None, "column of the text; null: the one that the run was trained on, or text")
    text_b: Optional[str] = key(
        "auto", "column of a pair's second text; null: none; auto: the run's, or text_b where there is one"
    )
    input: str = key(
        "auto", "table, jsonl or lines (pairs: a<TAB>b); auto: by the file's name or the first line, such as a header"
    )
    on_bad_row: str = key("error", "error: end at the first bad row; skip: give it an empty answer and go on")
    probabilities: bool = key(False, "text, csv, tsv: a column for the probability of every class (json has them all)")
    format: str = key(
        "text",
        "text (label<TAB>probability<TAB>text), csv or tsv (the input's columns, and label and probability), or json "
        "(one object per line with every field)",
    )
    out: Optional[Place] = key(None, "write to this file, whole or not at all; null: standard output")
    batch: int = key(32, "rows at a time; from standard input an answer comes at the latest after so many", BATCH)
    seq_len: Optional[int] = key(None, "positions per row; null: what the model takes, at most 1024")
    runner: Any = MISSING
    trusted: list[str] = field(
        default_factory=list, metadata={"help": "further packages whose classes a _target_ may name"}
    )

    def __post_init__(self) -> None:
        one_of(INPUTS, input=self.input)
        one_of(("error", "skip"), on_bad_row=self.on_bad_row)
        one_of((*FORMATS, "csv", "tsv"), format=self.format)
        positive(batch=self.batch)
        if self.seq_len is not None and self.seq_len < 8:
            raise ValueError(f"seq_len must be at least 8, got {self.seq_len}")
