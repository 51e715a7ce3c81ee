"""What llama.cpp calls the tensors and sizes of an architecture, and how it lays them out.

Names come from the table of the `gguf` package; layouts from llama.cpp's `convert_hf_to_gguf.py`: rotary pairs are
neighbours instead of halves, GPT-2's matrices are [outputs, inputs], BERT's heads are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lmctl.export.subject import Subject

ARCHITECTURES = ("llama", "gpt2", "bert")
"""Model types of transformers that are written; llama.cpp has the same names for them."""
SKIPPED = ("cls.", "pooler.", "embeddings.position_ids")
"""Tensors of BERT that an encoder for embeddings has not."""


def refuse(subject: Subject) -> str | None:
    """Why a model has no place in GGUF, with the nearest format, or None."""
    kind, config = subject.loaded.artifact.model_type, subject.model.config
    if kind not in ARCHITECTURES:
        return f"llama and gpt2 decoders and bert encoders are written, and this is {kind}; nearest: format=onnx"
    if subject.loaded.classifies:
        return "GGUF has no place for the head that labels texts; nearest: format=onnx"
    if kind == "llama" and config.rope_parameters.get("rope_type", "default") != "default":
        return f"rope_type={config.rope_parameters['rope_type']} is not written; nearest: format=onnx"
    activation = {"llama": "silu", "gpt2": "gelu_new", "bert": "gelu"}[kind]
    own = config.activation_function if kind == "gpt2" else config.hidden_act
    if own != activation:
        return f"llama.cpp computes {kind} with {activation}, and this model has {own}; nearest: format=onnx"
    return None


def sizes(writer: Any, kind: str, config: Any) -> None:
    """Add the sizes of an architecture to a `gguf.GGUFWriter`."""
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    if kind == "gpt2":
        writer.add_feed_forward_length(config.n_inner or 4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_feed_forward_length(config.intermediate_size)
    if kind == "bert":
        import gguf

        writer.add_layer_norm_eps(config.layer_norm_eps)
        writer.add_causal_attention(False)
        writer.add_pooling_type(gguf.PoolingType.NONE)
        writer.add_token_type_count(config.type_vocab_size)
        return
    width = config.head_dim
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))


def tensors(model: Any, kind: str) -> Iterator[tuple[str, Tensor]]:
    """llama.cpp's name and layout of every tensor, float32. KeyError for one that it has no name for."""
    import gguf

    config = model.config
    arch = {value: key for key, value in gguf.MODEL_ARCH_NAMES.items()}[kind]
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    tied = set(model.all_tied_weights_keys)
    for name, value in model.state_dict().items():
        short = name.removeprefix("bert.")
        if name in tied or (kind == "bert" and short.startswith(SKIPPED)):
            continue
        found = names.get_name(short, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise KeyError(name)
        yield found, _laid_out(kind, short, value.float(), config)


def _laid_out(kind: str, name: str, value: Tensor, config: Any) -> Tensor:
    if kind == "gpt2" and name.endswith(("c_attn.weight", "c_fc.weight", "c_proj.weight")):
        return value.T.contiguous()
    if kind == "llama" and ".q_proj." in name:
        return neighbours(value, config.num_attention_heads)
    if kind == "llama" and ".k_proj." in name:
        return neighbours(value, config.num_key_value_heads)
    return value


def neighbours(value: Tensor, heads: int) -> Tensor:
    """Rows of a projection [heads * D, ...] whose rotary pairs are (i, i + D/2) in each head, with the pairs as
    neighbours (2i, 2i + 1)."""
    pairs = value.unflatten(0, (heads, 2, -1))
    return torch.transpose(pairs, 1, 2).reshape(value.shape).contiguous()
