"""Run a BERT encoder from a GGUF file: `gguf` reads the file, plain transformers computes.

The answer is its last hidden states. Argument: `gguf`, the file. (Files of decoders are read by plain transformers
itself: `with_transformers`.)
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from lmctl.export.foreign.exchange import Arrays, Run, answer

NAMES = {
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


def opened(folder: Path, arguments: Mapping[str, str]) -> tuple[str, Run]:
    import gguf
    import torch
    import transformers

    reader = gguf.GGUFReader(folder / arguments["gguf"])
    field: Any = lambda name: reader.fields[f"bert.{name}"].contents()  # noqa: E731
    config = transformers.BertConfig(
        vocab_size=field("vocab_size"),
        hidden_size=field("embedding_length"),
        num_hidden_layers=field("block_count"),
        num_attention_heads=field("attention.head_count"),
        intermediate_size=field("feed_forward_length"),
        max_position_embeddings=field("context_length"),
        layer_norm_eps=field("attention.layer_norm_epsilon"),
        type_vocab_size=reader.fields["tokenizer.ggml.token_type_count"].contents(),
    )
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    weights = {}
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        weights[_name(tensor.name)] = torch.from_numpy(values.reshape(tensor.shape[::-1].tolist()))
    model.load_state_dict(weights)

    @torch.inference_mode()
    def run(batch: Arrays) -> np.ndarray:
        found = model(**{name: torch.from_numpy(value) for name, value in batch.items()})
        return found.last_hidden_state.numpy()

    return f"gguf {version('gguf')}", run


def _name(name: str) -> str:
    """`blk.0.attn_q.weight` as `encoder.layer.0.attention.self.query.weight`."""
    *block, short, kind = name.split(".")
    place = f"encoder.layer.{block[1]}." if block else ""
    return f"{place}{NAMES[short]}.{kind}"


if __name__ == "__main__":
    answer(opened)
