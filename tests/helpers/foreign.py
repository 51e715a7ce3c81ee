"""Models as people have them from elsewhere: every architecture random and of width 32, a tokenizer framed this way or
that, and directories with one part missing, damaged or of another size."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
import use_models
from safetensors.torch import load_file, save_file

WIDTH = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


def model(kind: str, positions: int = 24, **settings: Any) -> Any:
    """A random model by the name of its transformers class, on the vocabulary of `use_models`."""
    torch.manual_seed(0)
    made = getattr(transformers, kind)
    config = made.config_class(vocab_size=use_models.SIZE, pad_token_id=0, **{**sizes(kind, positions), **settings})
    return made(config)


def sizes(kind: str, positions: int) -> dict[str, Any]:
    """What makes it small, in the words of its config."""
    if kind.startswith("T5"):
        return {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0,
                "eos_token_id": 3}  # fmt: skip
    if kind.startswith(("Bart", "Marian", "MBart")):
        layers = {f"{side}_{what}": size for side in ("encoder", "decoder")
                  for what, size in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 64))}  # fmt: skip
        return {"d_model": 32, **layers, "max_position_embeddings": positions, "bos_token_id": 2, "eos_token_id": 3,
                "decoder_start_token_id": 3, "forced_eos_token_id": 3}  # fmt: skip
    if kind.startswith("GPT2"):
        return {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": positions, "bos_token_id": 3,
                "eos_token_id": 3, "initializer_range": 0.3}  # fmt: skip
    if kind.startswith("OPT"):
        return {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64,
                "word_embed_proj_dim": 32, "max_position_embeddings": positions, "bos_token_id": 3,
                "eos_token_id": 3}  # fmt: skip
    if kind.startswith("Bloom"):
        return {"hidden_size": 32, "n_layer": 2, "n_head": 2, "bos_token_id": 3, "eos_token_id": 3}
    if kind.startswith("DistilBert"):
        return {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2, "max_position_embeddings": positions}
    extra: dict[str, Any] = {"max_position_embeddings": positions}
    if kind.startswith("Longformer"):
        extra["attention_window"] = 4
    if kind.startswith("Llama"):
        extra |= {"bos_token_id": 3, "eos_token_id": 3}
    return {**WIDTH, **extra}


def save(folder: Path, kind: str, frame: str | None = None, **settings: Any) -> Path:
    """The model with its tokenizer, which has no limit of its own."""
    return use_models.save(folder, model(kind, **settings), frame)


def edit(folder: Path, file: str, **changes: Any) -> Path:
    """Change keys of a JSON file; None takes one away."""
    path = folder / file
    value = {**(json.loads(path.read_text()) if path.exists() else {}), **changes}
    path.write_text(json.dumps({key: one for key, one in value.items() if one is not None}))
    return folder


def reweigh(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Change the tensors of a checkpoint in place."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def copied(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target
