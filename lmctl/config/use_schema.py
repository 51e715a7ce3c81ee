"""Config keys shared by the verbs that use a finished model, and the config of `eval`, which its suites import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

from lmctl.config.groups import Run
from lmctl.config.schema import FORMAT, FORMATS, check_seed, one_of, positive
from lmctl.config.table import MISSING, group, key, same
from lmctl.core.extras import require
from lmctl.core.paths import Place, ResultFile
from lmctl.data.base import Source
from lmctl.precision.base import Precision, Quantization
from lmctl.runner.base import Runner

SUITES: Mapping[str, tuple[str, ...]] = {
    "auto": (),
    "perplexity": (),
    "mlm": (),
    "classification": (),
    "translation": ("sacrebleu",),
    "minimal_pairs": (),
    "nbest": (),
    "robustness": (),
    "loss": (),
}
"""The suites by name, each with the optional libraries that it needs."""
SPLITS = ("auto", "all", "train", "valid")
CASES = ("as_is", "lower", "sentence")
LENGTH = ("max_length", "max_tokens", "length")
"""Names of max_new_tokens in other tools."""
BEAMS = ("num_beams", "beam_size", "beam_width")
BATCH = ("batch_size", "per_device_eval_batch_size")
MODEL_PATH = "a run, finished or not, one of its checkpoints, a Hugging Face directory or a hub id"
CASE = "before a text is scored: as_is, lower, or sentence (lower, but first letters and I), for upper-case speech text"


@dataclass(frozen=True)
class EvalConfig:
    """Root config of `lmctl eval`."""

    data: Optional[Source] = same(Run, "data", group=None)  # null: the held-out part of the run's training data
    precision: Optional[Precision] = same(Run, "precision", group=None)  # null: as saved; another is compared
    quantize: Optional[Quantization] = group(None, "weights of a finished model in fewer bits")
    runner: Runner = same(Run, "runner")
    model_path: Place = key(MISSING, MODEL_PATH)
    suite: str = key("auto", f"{', '.join(SUITES)}; auto: what the model's own tasks call for")
    task: Optional[str] = key(None, "one of the model's own tasks; null: all of them that the data fit")
    split: str = key("auto", "all, train or valid rows of the data; auto: all, but valid if the model learnt from them")
    rows: Optional[int] = key(None, "use at most so many rows of the data")
    out: Optional[ResultFile] = key(None, "file for the results; null: eval.json of the run, or here")
    batch: int = key(16, "rows at a time", BATCH)
    seq_len: Optional[int] = key(None, "positions per row; null: as in training, or what the model takes, at most 1024")
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
    trusted: list[str] = key(list, "further packages whose classes a _target_ may name")

    def __post_init__(self) -> None:
        one_of(FORMATS, format=self.format)
        one_of(SUITES, suite=self.suite)
        require(f"suite={self.suite}", SUITES[self.suite])
        one_of(SPLITS, split=self.split)
        one_of(CASES, case=self.case)
        positive(rows=self.rows, batch=self.batch, stride=self.stride, limit=self.limit, beams=self.beams)
        positive(max_new_tokens=self.max_new_tokens)
        check_seed(self.seed)
        if self.seq_len is not None and self.seq_len < 8:
            raise ValueError(f"seq_len must be at least 8, got {self.seq_len}")
