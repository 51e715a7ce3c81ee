"""What `teacher=X` implies where nothing else is said: X's tokenizer, a small model of its kind, its text and tasks."""

from __future__ import annotations

import json
from pathlib import Path

from lmctl.cli.arguments import Arguments, parsed
from lmctl.core.files import path_of
from lmctl.core.places import Paths, run_of
from lmctl.core.words import read, setting
from lmctl.model import rnn

SMALL = {
    "bert": "bert_tiny",
    "modernbert": "modernbert_tiny",
    "gpt2": "gpt2_tiny",
    "llama": "llama_tiny",
    "t5": "t5_tiny",
    "marian": "transformer_mt_tiny",
    rnn.LANGUAGE_MODEL: "lstm_tiny",
    rnn.CLASSIFIER: "bilstm_tiny",
    rnn.SEQ2SEQ: "rnn_mt_tiny",
}
"""A student for a teacher of each type."""
TEXT = ("data", "augment", "mix")
"""What a student takes over from the run of its teacher, besides the length of rows."""


def named(arguments: Arguments) -> str | None:
    """Where the first teacher lies; None if the command line names none."""
    value = arguments.value("teacher")
    if value in (None, "", "null"):
        return None
    override = parsed(f"teacher={value}")
    several = None if override is None else override.value()
    if not isinstance(several, list):
        return read(str(value))
    return str(getattr(several[0], "text", several[0])) if several else None


def implied(arguments: Arguments) -> list[str]:
    """Overrides for what is not on the command line."""
    teacher, words = named(arguments), []
    if teacher is None:
        return []
    if arguments.value("tokenizer") is None and arguments.value("init_from") is None:
        words.append("tokenizer=pretrained")
    if "tokenizer=pretrained" in words and arguments.value("tokenizer.path") is None:
        words.append(setting("tokenizer.path", teacher))
    if arguments.value("model") is None and arguments.value("init_from") is None:
        like = arguments.value("student.from_teacher") not in (None, "null")
        small = "teacher_layers" if like else SMALL.get(_type_of(path_of(teacher)))
        words += [] if small is None or arguments.value("recipe") else [f"model={small}"]
    return words


def text_of(arguments: Arguments) -> str | None:
    """The config of the teacher's run, if it is a run of lmctl and no other text is named."""
    teacher = named(arguments)
    if teacher is None or arguments.value("mix") is not None or arguments.value("recipe") is not None:
        return None
    config = Paths(run_of(path_of(teacher))).config
    return str(config) if config.is_file() else None


def _type_of(folder: Path) -> str:
    """What transformers calls the architecture of the model in `folder`; empty if nothing says so."""
    run = Paths(run_of(folder))
    for file in (Paths(folder).model / "config.json", folder / "config.json", run.template / "config.json"):
        try:
            return str(json.loads(file.read_text(encoding="utf-8")).get("model_type", ""))
        except (OSError, ValueError, AttributeError):
            continue
    return ""
