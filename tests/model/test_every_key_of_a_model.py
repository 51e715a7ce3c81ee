"""Every key of every model has an effect: on the weights that two steps leave, or on what the model is asked to read.

The keys are those of the dataclasses, so that a new one cannot be forgotten here.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from small import tokenizer, vocabulary
from small_tasks import small_task
from walked import Key, Other, Seen, classes, ids, keys_in, trained

from lmctl.config.schema import Budget
from lmctl.core.errors import ConfigError
from lmctl.model.bert import Bert
from lmctl.model.t5 import T5
from lmctl.objective.mlm import MaskedLM
from lmctl.objective.translate import Translate

ENCODER = {"layers": 2, "hidden": 32, "heads": 2, "feed_forward": 48, "max_positions": 64}
BOTH = {"layers": 2, "decoder_layers": 2}
SIZES: dict[str, dict[str, Any]] = {
    "Bert": ENCODER,
    "Electra": ENCODER | {"embedding": 24},
    "ModernBert": ENCODER | {"layers": 3, "local_window": 8},
    "Gpt2": {"layers": 2, "hidden": 32, "heads": 2, "max_positions": 64},
    "Llama": ENCODER | {"heads": 4, "key_value_heads": 2},
    "RecurrentLM": {"layers": 2, "hidden": 24},
    "BiLSTM": {"layers": 2, "hidden": 16, "embedding": 24},
    "RecurrentMT": BOTH | {"hidden": 16, "embedding": 16},
    "T5": BOTH | {"hidden": 32, "heads": 2, "feed_forward": 48},
    "TransformerMT": BOTH | ENCODER,
}
TASK = {"Bert": "mlm", "ModernBert": "mlm", "Gpt2": "clm", "Llama": "clm", "RecurrentLM": "clm_stream", "T5": "t5"}
TASK |= {"Electra": "rtd", "BiLSTM": "class", "RecurrentMT": "translate", "TransformerMT": "translate"}
RATES = ("dropout", "attention_dropout", "embedding_dropout", "weight_drop")
DROPPING = ("Bert", "Electra", "Gpt2", "Llama", "TransformerMT")
"""Models whose attention has dropout, for which attention=tiled draws other random numbers on a CPU. T5's and
ModernBERT's functions differ only on a GPU and in long rows (`test_attention.py`)."""
OTHER: dict[str, Any] = {
    **dict.fromkeys(("layers", "decoder_layers", "heads", "key_value_heads"), 1),
    "hidden": 8,
    "embedding": 8,
    "generator_size": 0.5,
    "feed_forward": 40,
    "max_positions": 40,
    "pad_vocabulary_to": 64,
    "global_every": 2,
    "local_window": 4,
    "cell": "gru",
    "pooling": "mean",
    "attention": "tiled",
    "gated": False,
    "tied_embeddings": False,
    "locked_dropout": True,
    **dict.fromkeys(RATES, 0.5),
}
TIED: dict[Key, dict[str, Any]] = {
    ("Llama", "heads"): {"key_value_heads": 1},
    ("RecurrentMT", "embedding"): {"tied_embeddings": False},
    ("RecurrentMT", "hidden"): {"tied_embeddings": False},
    **{(name, "attention"): {"attention_dropout": 0.5, "attention": "sdpa"} for name in DROPPING},
}
"""What must be set for a key to be free."""
ALIKE = (("T5", "attention"), ("ModernBert", "attention"))
LOADED: dict[Key, Other] = {
    ("Pretrained", "init_from"): Other("other"),
    ("Pretrained", "dropout"): Other(0.5),
    ("Pretrained", "attention"): Other("tiled", given={"attention": "sdpa"}),
    ("Pretrained", "freeze"): Other(1),
    ("Pretrained", "lora_rank"): Other(2),
    ("Pretrained", "lora_alpha"): Other(4.0, given={"lora_rank": 2}),
    ("Pretrained", "lora_dropout"): Other(0.5, given={"lora_rank": 2}),
    ("Pretrained", "lora_targets"): Other(["query"], given={"lora_rank": 2}),
    ("TeacherLayers", "teacher"): Other("other", given={"layers": 2}),
    ("TeacherLayers", "layers"): Other(1, given={"layers": 2}),
    ("TeacherLayers", "decoder_layers"): Other(1, given={"teacher": "t5", "layers": 2}, run={"task": "t5"}),
    ("TeacherLayers", "keep"): Other([0], given={"keep": [0, 1]}),
    ("TeacherLayers", "dropout"): Other(0.5, given={"layers": 2}),
    ("TeacherLayers", "attention"): Other("tiled", given={"layers": 2, "attention": "sdpa"}),
}
"""Models that are made of others; places are those of the fixture."""
PLACES = ("init_from", "teacher")

KEYS = sorted((name, field.name) for name in SIZES for field in fields(classes("model")[name]))


def test_no_key_is_forgotten():
    assert {*KEYS, *LOADED} == keys_in("model")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Models on disk by name."""
    spec: dict[str, Any] = {
        name: Bert(3, width, 2, 48, max_positions=64) for name, width in (("first", 32), ("other", 16))
    }
    spec["t5"] = T5(3, 3, 32, 2, 48)
    places = {}
    for name, model in spec.items():
        torch.manual_seed(0)
        places[name] = str(tmp_path_factory.mktemp(name))
        heads = (Translate() if name == "t5" else MaskedLM()).heads("corpus", None, vocabulary())  # type: ignore[arg-type]
        model.load(vocabulary(), heads).pretrained().save_pretrained(places[name])
        tokenizer().save_pretrained(places[name])
    return places


def of(task: str, model: Any) -> Seen:
    return trained(*small_task(task, model=model, budget=Budget(steps=2)))


@pytest.mark.parametrize("key", [key for key in KEYS if key[1] != "max_positions" and key not in ALIKE], ids=ids)
def test_every_key_of_a_model_changes_what_is_learnt(key: Key):
    name, field = key
    first = classes("model")[name](**SIZES[name] | TIED.get(key, {}))
    other = replace(first, **{field: "luong" if key == ("RecurrentMT", "attention") else OTHER[field]})
    assert of(TASK[name], first).weights != of(TASK[name], other).weights


@pytest.mark.parametrize("name", [name for name, field in KEYS if field == "max_positions"])
def test_rows_may_be_as_long_as_the_key_says(name: str):
    model = classes("model")[name](**SIZES[name] | {"max_positions": 40})
    some, text = small_task(TASK[name], model=model, seq_len=40, budget=Budget(steps=1))
    trained(some, text)
    with pytest.raises(ConfigError, match="is longer than the model's 40 positions"):
        small_task(TASK[name], model=model, seq_len=41)
    heads = some.mix.tasks["corpus"].objective.heads("corpus", text.corpora["corpus"].train, vocabulary())
    config = model.load(vocabulary(), heads).pretrained().config
    assert config.max_position_embeddings == 40


@pytest.mark.parametrize("key", LOADED, ids=ids)
def test_every_key_of_a_model_that_was_trained_before_changes_what_is_learnt(key: Key, saved: dict[str, str]):
    (name, field), other = key, LOADED[key]
    settings = {"teacher" if name == "TeacherLayers" else "init_from": "first", **other.given}
    seen = []
    for changed in (settings, settings | {field: other.value}):
        placed = {key: saved[value] if key in PLACES else value for key, value in changed.items()}
        seen.append(of(other.run.get("task", "mlm"), classes("model")[name](**placed)).weights)
    assert seen[0] != seen[1]


COMMON = {"layers": "num_hidden_layers", "hidden": "hidden_size", "heads": "num_attention_heads"}
COMMON |= {"feed_forward": "intermediate_size"}
CONFIGS: dict[str, dict[str, str]] = {
    "Bert": COMMON | {"dropout": "hidden_dropout_prob", "attention_dropout": "attention_probs_dropout_prob"},
    "ModernBert": COMMON
    | {"global_every": "global_attn_every_n_layers", "local_window": "local_attention"}
    | {"dropout": "mlp_dropout embedding_dropout"},
    "Gpt2": {"layers": "n_layer", "hidden": "n_embd", "heads": "n_head"}
    | {"dropout": "resid_pdrop embd_pdrop", "attention_dropout": "attn_pdrop"},
    "Llama": COMMON | {"key_value_heads": "num_key_value_heads", "attention_dropout": "attention_dropout"},
    "T5": {"layers": "num_layers", "decoder_layers": "num_decoder_layers", "hidden": "d_model"}
    | {"heads": "num_heads", "feed_forward": "d_ff", "dropout": "dropout_rate"},
    "TransformerMT": {"layers": "encoder_layers", "decoder_layers": "decoder_layers", "hidden": "d_model"}
    | {"heads": "encoder_attention_heads decoder_attention_heads", "feed_forward": "encoder_ffn_dim decoder_ffn_dim"}
    | {"dropout": "dropout", "attention_dropout": "attention_dropout"},
}
"""What transformers' documentation calls the keys that all say how large or how often, so that two of them might be
exchanged."""


@pytest.mark.parametrize("name", CONFIGS)
def test_no_two_keys_are_exchanged(name: str):
    """A value of its own for each; and dropout is where its name says it is."""
    values = {"layers": 5, "decoder_layers": 3, "hidden": 48, "heads": 6, "key_value_heads": 2, "feed_forward": 40}
    values |= {"global_every": 4, "local_window": 12, "dropout": 0.3, "attention_dropout": 0.2}  # type: ignore[dict-item]
    made = {field.name for field in fields(classes("model")[name])}
    model = classes("model")[name](**{field: value for field, value in values.items() if field in made})
    some, text = small_task(TASK[name], model=model)
    heads = some.mix.tasks["corpus"].objective.heads("corpus", text.corpora["corpus"].train, vocabulary())
    config = model.load(vocabulary(), heads).pretrained().config
    for field, attributes in CONFIGS[name].items():
        for attribute in attributes.split():
            assert getattr(config, attribute) == values[field], attribute
