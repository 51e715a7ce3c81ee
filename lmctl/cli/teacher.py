"""Defaults implied by `teacher=X`: X's tokenizer, a small model of its architecture, its data and tasks."""

from __future__ import annotations

import json
from pathlib import Path

from lmctl.config.overrides import Override, Overrides
from lmctl.core.files import path_of
from lmctl.core.paths import Paths, run_of
from lmctl.model import rnn

SMALL = {
    "bert": "bert_tiny",
    "modernbert": "modernbert_tiny",
    "electra": "electra_tiny",
    "gpt2": "gpt2_tiny",
    "llama": "llama_tiny",
    "t5": "t5_tiny",
    "marian": "transformer_mt_tiny",
    rnn.LANGUAGE_MODEL: "lstm_tiny",
    rnn.CLASSIFIER: "bilstm_tiny",
    rnn.SEQ2SEQ: "rnn_mt_tiny",
}
"""The default student for each type of teacher."""
TEXT = ("data", "augment", "mix")
"""Groups that a student takes from its teacher's run, besides the sequence length."""


def named(overrides: Overrides) -> str | None:
    """The path of the first teacher; None if the command line has none."""
    if (text := overrides.text("teacher")) is None:
        return None
    several = Override("teacher", overrides.get("teacher")).parsed_value()
    if not isinstance(several, list):
        return text
    return str(getattr(several[0], "text", several[0])) if several else None


def implied(overrides: Overrides) -> Overrides:
    """The implied overrides, for settings that the command line does not have."""
    teacher, more = named(overrides), Overrides()
    if teacher is None:
        return more
    if "tokenizer" not in overrides and "init_from" not in overrides:
        more = more.set("tokenizer", "pretrained")
        if "tokenizer.path" not in overrides:
            more = more.set("tokenizer.path", teacher)
    if "model" not in overrides and "init_from" not in overrides:
        like = overrides.text("student.from_teacher") is not None
        small = "teacher_layers" if like else SMALL.get(_type_of(path_of(teacher)))
        more = more if small is None or overrides.get("recipe") else more.set("model", small)
    return more


def text_of(overrides: Overrides) -> str | None:
    """The config of the teacher's run, if it is a run of lmctl and the command line chooses no other data."""
    teacher = named(overrides)
    if teacher is None or "mix" in overrides or "recipe" in overrides:
        return None
    config = Paths(run_of(path_of(teacher))).config
    return str(config) if config.is_file() else None


def _type_of(folder: Path) -> str:
    """transformers' model type of the model in `folder`; empty if unknown."""
    run = Paths(run_of(folder))
    for file in (Paths(folder).model / "config.json", folder / "config.json", run.template / "config.json"):
        try:
            return str(json.loads(file.read_text(encoding="utf-8")).get("model_type", ""))
        except (OSError, ValueError, AttributeError):
            continue
    return ""
