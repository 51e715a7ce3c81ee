"""Random models of width 32 with their tokenizer in a directory, as a user would have them."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from tokenizers.decoders import WordPiece

from lmctl.config.table import structured
from lmctl.config.verb import verb as named
from lmctl.core.batch import Row
from lmctl.data.base import Source
from lmctl.inference.load import Loaded, load
from lmctl.runner.places import Cpu
from lmctl.tokenizer.training import finish

WORDS = [*"abcdefghijklmnop", "the", "cat", "dog", "sits", "runs", "on", "mat", "red", "blue", ",", "."]
SIZE = 5 + len(WORDS)


@dataclass(frozen=True)
class Rows(Source):
    """A source whose rows stand in the config: lists of texts, the last text of each in place of its label."""

    yields: str = "documents"
    train: list[list[str]] = field(default_factory=list)
    valid: list[list[str]] = field(default_factory=list)

    def fingerprint(self) -> dict[str, Any]:
        return {"train": self.train, "valid": self.valid}

    def rows(self, split: str) -> Iterator[Row]:
        for texts in getattr(self, split):
            yield Row(texts[:-1], texts[-1]) if self.yields == "labelled" else Row(texts)

    def describe(self) -> str:
        return "rows"


def tokenizer(frame: str | None = None) -> Any:
    """One piece per word; `frame` replaces BERT's [CLS] $A [SEP]."""
    backend = Tokenizer(models.WordLevel({}, unk_token="[UNK]"))
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
    vocabulary |= {word: 5 + place for place, word in enumerate(WORDS)}
    backend.model = models.WordLevel(vocabulary, unk_token="[UNK]")
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = WordPiece(cleanup=False)
    result = finish(backend)
    if frame is not None:
        result.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=frame, special_tokens=[("[SEP]", 3)]
        )
        result.eos_token = "[SEP]"
    if frame == "[SEP] $A":
        result.bos_token = "[SEP]"
    return result


def save(folder: Path, model: Any, frame: str | None = None) -> Path:
    model.eval().save_pretrained(folder)
    tokenizer(frame).save_pretrained(folder)
    return folder


def opened(folder: Path) -> Loaded:
    return load(str(folder), Cpu())


def gpt2(folder: Path, positions: int = 64, seed: int = 0) -> Path:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    config = GPT2Config(vocab_size=SIZE, n_positions=positions, n_embd=32, n_layer=2, n_head=2, initializer_range=0.3)
    return save(folder, GPT2LMHeadModel(config), "[SEP] $A")


def bert(folder: Path, kind: str = "BertForMaskedLM", **settings: Any) -> Path:
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=SIZE,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.3,
        **settings,
    )
    return save(folder, getattr(transformers, kind)(config))


def marian(folder: Path, ends: float = 0.0) -> Path:
    """`ends`: how much likelier than by chance it is to end a translation."""
    from transformers import MarianConfig, MarianMTModel

    torch.manual_seed(0)
    config = MarianConfig(
        vocab_size=SIZE,
        decoder_vocab_size=SIZE,
        encoder_layers=1,
        decoder_layers=1,
        d_model=32,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
        init_std=0.3,
        pad_token_id=0,
        eos_token_id=3,
        bos_token_id=2,
        decoder_start_token_id=0,
        forced_eos_token_id=None,
        use_cache=False,
    )
    model = MarianMTModel(config)
    model.final_logits_bias[0, 3] = ends
    return save(folder, model, "$A [SEP]")


def run(verb: str, model: Path, **settings: Any) -> None:
    """`lmctl VERB model_path=... key=value` on the CPU, in this process."""
    cfg = structured(named(verb).schema)
    OmegaConf.set_readonly(cfg, False)
    cpu = {"_target_": "lmctl.runner.places.Cpu"}
    for key, value in ({"runner": cpu, "model_path": str(model)} | settings).items():
        cfg[key] = OmegaConf.create(value) if isinstance(value, dict) else value
    named(verb).run(named(verb).read(cfg))


def said(verb: str, model: Path, typed: str = "", **settings: Any) -> str:
    """What it prints on standard output for `typed` on standard input."""
    before = sys.stdin, sys.stdout
    sys.stdin, sys.stdout = io.StringIO(typed), io.StringIO()
    try:
        run(verb, model, **settings)
        return sys.stdout.getvalue()
    finally:
        sys.stdin, sys.stdout = before


def records(printed: str) -> list[dict[str, Any]]:
    """The objects of `format=json`."""
    return [json.loads(line) for line in printed.splitlines()]


def generate(model: Path, **settings: Any) -> None:
    run("generate", model, **settings)


def translated(model: Path, **settings: Any) -> None:
    run("translate", model, **settings)


def score(model: Path, **settings: Any) -> None:
    run("score", model, **settings)


def evaluate(model: Path, data: dict[str, Any] | None = None, **settings: Any) -> None:
    data = {"_target_": "use_models.Rows"} | (data or {"train": [["the cat"], ["a dog ."]], "valid": [["a b c"]]})
    run("eval", model, data=data, trusted=["use_models"], **settings)
