"""What llama.cpp calls the tensors and sizes of an architecture, and how it lays them out.

Names come from the table of the `gguf` package; layouts from llama.cpp's `convert_hf_to_gguf.py`: rotary pairs are
neighbours instead of halves in Llama (not in ModernBERT), GPT-2's matrices are [outputs, inputs], heads of encoders are
left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lmctl.export.subject import Subject

ARCHITECTURES = {"llama": "llama", "gpt2": "gpt2", "bert": "bert", "modernbert": "modern-bert"}
"""Model types of transformers that are written, and llama.cpp's names for them."""
ACTIVATIONS = {"llama": "silu", "gpt2": "gelu_new", "bert": "gelu", "modernbert": "gelu"}
"""What llama.cpp computes them with."""
SKIPPED = {"bert": ("cls.", "pooler.", "embeddings.position_ids"), "modernbert": ("head.", "decoder.")}
"""Tensors that an encoder for embeddings has not."""


def refuse(subject: Subject) -> str | None:
    """Why a model has no place in GGUF, with the nearest format, or None."""
    kind, config = subject.loaded.artifact.model_type, subject.model.config
    if kind not in ARCHITECTURES:
        return (
            f"llama and gpt2 decoders, bert and modernbert encoders are written, and this is {kind}; "
            "nearest: format=onnx"
        )
    if subject.loaded.classifies:
        return "GGUF has no place for the head that labels texts; nearest: format=onnx"
    if kind == "llama" and config.rope_parameters.get("rope_type", "default") != "default":
        return f"rope_type={config.rope_parameters['rope_type']} is not written; nearest: format=onnx"
    own = {"gpt2": "activation_function", "modernbert": "hidden_activation"}.get(kind, "hidden_act")
    if (activation := getattr(config, own)) != ACTIVATIONS[kind]:
        return (
            f"llama.cpp computes {kind} with {ACTIVATIONS[kind]}, and this model has {activation}; nearest: format=onnx"
        )
    return _refuse_modernbert(config) if kind == "modernbert" else None


def _refuse_modernbert(config: Any) -> str | None:
    rope = [config.rope_parameters[kind].get("rope_type", "default") for kind in set(config.layer_types)]
    if set(rope) != {"default"}:
        return f"rope_type={', '.join(sorted(set(rope)))} is not written; nearest: format=onnx"
    every = global_every(config)
    if [place % every == 0 for place in range(len(config.layer_types))] != _is_global(config):
        return "its layers attend globally elsewhere than in every n-th one from the first on; nearest: format=onnx"
    if config.norm_bias or config.attention_bias or config.mlp_bias:
        return "llama.cpp's ModernBERT has no biases, and this model has; nearest: format=onnx"
    return None


def global_every(config: Any) -> int:
    """n, if each n-th layer of a ModernBERT, from the first on, attends globally."""
    places = [place for place, is_global in enumerate(_is_global(config)) if is_global]
    return places[1] if len(places) > 1 else len(config.layer_types)


def _is_global(config: Any) -> list[bool]:
    return [kind == "full_attention" for kind in config.layer_types]


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
    if kind in SKIPPED:
        _encoder_sizes(writer, kind, config)
        return
    width = config.head_dim
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))


def _encoder_sizes(writer: Any, kind: str, config: Any) -> None:
    import gguf

    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.NONE)
    if kind == "bert":
        writer.add_layer_norm_eps(config.layer_norm_eps)
        writer.add_token_type_count(config.type_vocab_size)
        return
    writer.add_layer_norm_eps(config.norm_eps)
    writer.add_sliding_window(config.local_attention)
    writer.add_sliding_window_pattern(global_every(config))
    writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
    writer.add_rope_freq_base(float(config.rope_parameters["full_attention"]["rope_theta"]))
    writer.add_rope_freq_base_swa(float(config.rope_parameters["sliding_attention"]["rope_theta"]))


def tensors(model: Any, kind: str) -> Iterator[tuple[str, Tensor]]:
    """llama.cpp's name and layout of every tensor, float32. KeyError for one that it has no name for."""
    import gguf

    config = model.config
    arch = {value: key for key, value in gguf.MODEL_ARCH_NAMES.items()}[ARCHITECTURES[kind]]
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    tied = set(model.all_tied_weights_keys)
    for name, value in model.state_dict().items():
        short = name.removeprefix({"bert": "bert.", "modernbert": "model."}.get(kind, ""))
        if name in tied or short.startswith(SKIPPED.get(kind, ())):
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
