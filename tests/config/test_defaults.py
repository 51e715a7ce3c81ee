"""What a key is set to if nobody sets it: the same in YAML as in Python, and what papers and comments say."""

from __future__ import annotations

import dataclasses
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from lmctl.config.comments import first_comment
from lmctl.config.compose import conf_dir
from lmctl.config.use_schema import EvalConfig
from lmctl.distill.texts import TeacherTexts
from lmctl.verbs.translate import TranslateConfig

FILES = sorted(path for path in conf_dir().glob("*/*.yaml") if path.parent.name != "recipe")
TRANSLATING = (EvalConfig, TranslateConfig, TeacherTexts)
ON_PURPOSE: dict[str, dict[str, Any]] = {
    **{name: {"error_feedback": False} for name in ("compression/bf16", "compression/fp16")},
    "compression/topk": {"density": 0.01},
    "compression/topk_int8": {"density": 0.01, "quantise.block": 64},
    **{name: {"hard": 0.5} for name in ("distill/attention", "distill/hidden", "distill/minilm")},
    "distill/logits": {"hard": 0.5, "terms.logits.weight": 0.5},
    "distill/on_policy": {"hard": 0.0, "terms.logits.divergence": "js", "terms.logits.temperature": 1.0},
    "distill/tinybert": {
        "hard": 0.0,
        **{f"terms.{term}.between": "step" for term in ("hidden", "attention", "logits")},
        **{f"terms.{term}.weight": [[0.0, 1.0], [0.6, 0.0]] for term in ("hidden", "attention")},
        "terms.hidden.embeddings": True,
        "terms.attention.metric": "scores",
        "terms.logits.weight": [[0.0, 0.0], [0.6, 1.0]],
        "terms.logits.temperature": 1.0,
    },
    "mix/curriculum": {
        "tasks.corpus.weight": [[0.0, 1.0], [0.5, 0.8], [1.0, 0.1]],
        "tasks.topics.weight": [[0.0, 0.0], [0.5, 0.2], [1.0, 0.9]],
    },
    "mix/multitask": {"tasks.corpus.weight": 0.8, "tasks.topics.weight": 0.2,
                      "sampling.unit": "tokens", "conflict_every": 100},
    "model/gru": {"cell": "gru"},
    "model/lstm_awd": {"dropout": 0.4, "embedding_dropout": 0.1, "weight_drop": 0.5, "locked_dropout": True},
    "model/lstm_medium": {"dropout": 0.5},
    "model/rnn_mt_tiny": {"dropout": 0.1},
    "optim/adamw8bit": {"state_bits": 8},
}  # fmt: skip
"""Options that are other settings of a component, by what sets them apart."""
PUBLISHED: dict[str, dict[str, Any]] = {
    "bert_base": {"layers": 12, "hidden": 768, "heads": 12, "feed_forward": 3072, "max_positions": 512, "dropout": 0.1},
    "bert_small": {"layers": 4, "hidden": 512, "heads": 8, "feed_forward": 2048},
    "bert_mini": {"layers": 4, "hidden": 256, "heads": 4, "feed_forward": 1024},
    "bert_tiny": {"layers": 2, "hidden": 128, "heads": 2, "feed_forward": 512},
    "modernbert_base": {"layers": 22, "hidden": 768, "heads": 12, "feed_forward": 1152, "max_positions": 8192,
                        "global_every": 3, "local_window": 128},
    "gpt2_small": {"layers": 12, "hidden": 768, "heads": 12, "max_positions": 1024, "dropout": 0.1},
    "t5_small": {"layers": 8, "decoder_layers": 8, "hidden": 512, "feed_forward": 1024, "gated": True},
    "t5_base": {"layers": 12, "decoder_layers": 12, "hidden": 768, "heads": 12, "feed_forward": 2048, "gated": True},
    "transformer_mt_base": {"layers": 6, "decoder_layers": 6, "hidden": 512, "heads": 8, "feed_forward": 2048},
    "lstm": {"layers": 2, "hidden": 200, "cell": "lstm"},
    "lstm_medium": {"layers": 2, "hidden": 650, "dropout": 0.5},
}  # fmt: skip
"""Sizes of the papers and of the models that their authors published."""


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def differences(node: DictConfig, before: str = "") -> dict[str, Any]:
    """Keys whose value in YAML is not the one that Python gives them, components inside components included."""
    fields: dict[str, Any] = {}
    if "_target_" in node:
        module, _, name = node["_target_"].rpartition(".")
        fields = {field.name: field for field in dataclasses.fields(getattr(importlib.import_module(module), name))}
    found: dict[str, Any] = {}
    for key in node:
        if key == "_target_" or OmegaConf.is_interpolation(node, key) or OmegaConf.is_missing(node, key):
            continue
        value = node[key]
        if isinstance(value, DictConfig):
            found |= differences(value, f"{before}{key}.")
            continue
        if (field := fields.get(key)) is None:
            continue
        plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if default is not dataclasses.MISSING and plain != default:
            found[before + key] = plain
    return found


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_yaml_says_what_python_says(path: Path):
    """Whoever builds a component in Python gets what the command line gets, but where an option is another setting."""
    made = OmegaConf.load(path)
    assert isinstance(made, DictConfig)
    assert differences(made) == ON_PURPOSE.get(name_of(path), {})


def test_no_option_is_named_that_is_not_there():
    assert {*ON_PURPOSE, *(f"model/{name}" for name in PUBLISHED)} <= set(map(name_of, FILES))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_has_its_published_size(name: str):
    made = OmegaConf.load(conf_dir() / "model" / f"{name}.yaml")
    assert {key: made[key] for key in PUBLISHED[name]} == PUBLISHED[name]


SIZED = [
    path for path in FILES if "layer" in first_comment(path.read_text(encoding="utf-8")) and path.parent.name == "model"
]


@pytest.mark.parametrize("path", [path for path in SIZED if path.stem != "teacher_layers"], ids=name_of)
def test_the_first_line_of_a_model_says_its_size(path: Path):
    made, words = OmegaConf.load(path), first_comment(path.read_text(encoding="utf-8"))
    said = re.search(r"(\d+)(?: \+ (\d+))? layers? of width (\d+)", words)
    assert said is not None, words
    layers, decoder_layers, width = said.groups()
    assert (made.layers, made.hidden) == (int(layers), int(width))
    assert made.get("decoder_layers") == (None if decoder_layers is None else int(decoder_layers))


@pytest.mark.parametrize("key", ["beams", "length_penalty", "max_new_tokens"])
def test_translations_are_searched_alike_everywhere(key: str):
    """What `eval` measures is what `translate` prints, and what a teacher writes."""
    defaults = [{field.name: field.default for field in dataclasses.fields(made)}[key] for made in TRANSLATING]
    assert len(set(defaults)) == 1
