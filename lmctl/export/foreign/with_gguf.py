"""Run a BERT or ModernBERT encoder from a GGUF file: `gguf` reads the file, plain transformers computes.

The answer is its last hidden states. Argument: `gguf`, the file. (Files of decoders are read by plain transformers
itself: `with_transformers`.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from lmctl.export.foreign.exchange import Arrays, Run, answer

BERT = {
    "token_embd": "embeddings.word_embeddings",
    "position_embd": "embeddings.position_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "token_embd_norm": "embeddings.LayerNorm",
    "attn_q": "attention.self.query",
    "attn_k": "attention.self.key",
    "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense",
    "attn_output_norm": "attention.output.LayerNorm",
    "ffn_up": "intermediate.dense",
    "ffn_down": "output.dense",
    "layer_output_norm": "output.LayerNorm",
}
"""llama.cpp's names of BERT's tensors -> those of transformers."""
MODERNBERT = {
    "token_embd": "embeddings.tok_embeddings",
    "token_embd_norm": "embeddings.norm",
    "output_norm": "final_norm",
    "attn_norm": "attn_norm",
    "attn_qkv": "attn.Wqkv",
    "attn_output": "attn.Wo",
    "ffn_norm": "mlp_norm",
    "ffn_up": "mlp.Wi",
    "ffn_down": "mlp.Wo",
}
"""The same of ModernBERT's."""


def opened(folder: Path, arguments: Mapping[str, str]) -> tuple[str, Run]:
    import gguf
    import torch

    reader = gguf.GGUFReader(folder / arguments["gguf"])
    architecture = reader.fields["general.architecture"].contents()

    def field(name: str) -> Any:
        return reader.fields[f"{architecture}.{name}"].contents()

    is_bert = architecture == "bert"
    names, layers = (BERT, "encoder.layer") if is_bert else (MODERNBERT, "layers")
    types = reader.fields["tokenizer.ggml.token_type_count"].contents() if is_bert else 0
    model = _bert(field, types) if is_bert else _modernbert(field)
    weights = {}
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        weights[_name(tensor.name, names, layers)] = torch.from_numpy(values.reshape(tensor.shape[::-1].tolist()))
    model.load_state_dict(weights)

    @torch.inference_mode()
    def run(batch: Arrays) -> np.ndarray:
        found = model(**{name: torch.from_numpy(value) for name, value in batch.items()})
        return found.last_hidden_state.numpy()

    return f"gguf {version('gguf')}", run


def _sizes(field: Callable[[str], Any]) -> dict[str, int]:
    return {
        "vocab_size": field("vocab_size"),
        "hidden_size": field("embedding_length"),
        "num_hidden_layers": field("block_count"),
        "num_attention_heads": field("attention.head_count"),
        "intermediate_size": field("feed_forward_length"),
        "max_position_embeddings": field("context_length"),
    }


def _bert(field: Callable[[str], Any], types: int) -> Any:
    import transformers

    eps = field("attention.layer_norm_epsilon")
    config = transformers.BertConfig(**_sizes(field), layer_norm_eps=eps, type_vocab_size=types)
    return transformers.BertModel(config, add_pooling_layer=False).eval()


def _modernbert(field: Callable[[str], Any]) -> Any:
    import transformers

    bases = {"full_attention": field("rope.freq_base"), "sliding_attention": field("rope.freq_base_swa")}
    config = transformers.ModernBertConfig(
        **_sizes(field),
        norm_eps=field("attention.layer_norm_epsilon"),
        local_attention=field("attention.sliding_window"),
        global_attn_every_n_layers=field("attention.sliding_window_pattern"),
        rope_parameters={kind: {"rope_type": "default", "rope_theta": base} for kind, base in bases.items()},
        pad_token_id=0,
    )
    return transformers.ModernBertModel(config).eval()


def _name(name: str, names: Mapping[str, str], layers: str) -> str:
    """`blk.0.attn_q.weight` as `encoder.layer.0.attention.self.query.weight`."""
    *block, short, kind = name.split(".")
    place = f"{layers}.{block[1]}." if block else ""
    return f"{place}{names[short]}.{kind}"


if __name__ == "__main__":
    answer(opened)
