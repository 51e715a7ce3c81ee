"""Attention functions of networks, by the names that transformers looks them up by, and the masks that they take.

`OWN` is torch's scaled_dot_product_attention, but for what `lmctl.kernels.attention` computes faster on a CPU: dropout,
rows of several documents, local attention, and training in bfloat16. There a mask is spans of keys, int32 [R, 1, Q, 2].
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import (
    ALL_MASK_ATTENTION_FUNCTIONS,
    flex_attention_mask,
    padding_mask_function,
    sdpa_mask,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lmctl.core.errors import ConfigError
from lmctl.kernels import backend
from lmctl.kernels.attention import attention
from lmctl.kernels.attention_tiles import share

OWN = "tiled"
SPARSE = 0.75
"""Share of the scores that tiles have, below which computing these alone is faster than torch's fused kernel, which
computes all (scripts/bench/attention.py)."""
MORE = ("position_bias", "cache", "softcap", "s_aux")
"""What only torch's function takes."""
RATES = ("attention_probs_dropout_prob", "attn_pdrop", "attention_dropout", "dropout_rate")
"""The names by which configs of transformers call the dropout of attention weights."""


def choose(model: Any, choice: str) -> None:
    """Set the attention function of a transformers model to a value of `model.attention`. ConfigError if it has not
    got it."""
    config = model.config
    if choice in ("auto", "sdpa", OWN):
        if choice == OWN and config._attn_implementation == "sdpa" and model._can_set_attn_implementation():
            model.set_attn_implementation(OWN)
        return
    rates = [name for name in RATES if isinstance(rate := getattr(config, name, None), float) and rate > 0]
    if choice == "flex_attention" and rates:
        raise ConfigError(
            f"model.attention=flex_attention has no dropout, and the model's {rates[0]} is {getattr(config, rates[0])}",
            "model.attention_dropout=0 (of a trained model: model.dropout=0), or model.attention=auto",
        )
    try:
        model.set_attn_implementation(choice)
    except (ValueError, ImportError) as error:
        said = str(error).strip().splitlines()[0].partition(". ")[0]
        raise ConfigError(f"model.attention={choice}: {said}", "model.attention=auto") from error


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: `query` [R, A, Q, D], `key` and `value` [R, A or fewer, K, D], output
    [R, Q, A, D]."""
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    dtype = _dtype(query, dropout, attention_mask, kwargs)
    spans = None if dtype is None else _spans(query, key, attention_mask, causal)
    always = dropout > 0 or dtype == torch.bfloat16
    if spans is not None and dtype is not None and (always or _sparse(spans, query, key)):
        groups = query.shape[1] // key.shape[1]
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        with torch.autocast("cpu", enabled=False):
            return attention(query.to(dtype), key.to(dtype), value.to(dtype), spans, scale, dropout), None
    if attention_mask is not None and attention_mask.dtype == torch.int32:
        attention_mask = dense(attention_mask, key.shape[2])
    output: tuple[Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout, scaling, is_causal, **kwargs
    )
    return output


def mask(**asked: Any) -> Tensor | None:
    """The mask that a model of transformers asks for: spans where it learns on a CPU and they can say it."""
    found: Tensor | None = sdpa_mask(**asked)
    if found is None or not torch.is_grad_enabled() or not backend.takes(found):
        return found
    spans = spans_of(found)
    return found if spans is None else spans


ALL_ATTENTION_FUNCTIONS.register(OWN, attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(OWN, mask)


def spans_of(seen: Tensor) -> Tensor | None:
    """A mask bool [R, 1, Q, K] as spans int32 [R, 1, Q, 2]; None if a query sees keys with others between them."""
    if not backend.has_data(seen):
        return seen.new_empty(*seen.shape[:3], 2, dtype=torch.int32)
    last = (seen * torch.arange(1, seen.shape[-1] + 1, dtype=torch.int32)).amax(-1)
    spans = torch.stack([last - seen.sum(-1, dtype=torch.int32), last], -1)
    return spans if torch.equal(dense(spans, seen.shape[-1]), seen) else None


def dense(spans: Tensor, keys: int) -> Tensor:
    """Spans int32 [..., Q, 2] as a mask bool [..., Q, K]."""
    places = torch.arange(keys, dtype=torch.int32, device=spans.device)
    return (places >= spans[..., :1]) & (places < spans[..., 1:])


def key_mask(real: Tensor | None, model: Any) -> Any:
    """Of what is no padding, bool [R, K], the mask of an encoder as its attention function takes it."""
    if real is None or model.config._attn_implementation == "flash_attention_2":
        return real
    if model.config._attn_implementation == "flex_attention":
        rows, keys = real.shape
        return flex_attention_mask(rows, keys, keys, mask_function=padding_mask_function(real), device=real.device)
    return real[:, None, None, :]


def document_inputs(documents: Tensor, model: Any) -> dict[str, Any]:
    """What keeps documents that share a row apart, as arguments of a decoder: each position sees those before it in its
    document. `documents` int64 [R, L], -1 for padding, which sees itself."""
    kind, (rows, length) = model.config._attn_implementation, documents.shape
    if kind == "flash_attention_2":
        return _lengths(documents)
    if kind != OWN or not backend.takes(documents):
        make = flex_attention_mask if kind == "flex_attention" else partial(sdpa_mask, allow_is_causal_skip=False)
        sees = document_mask_function(documents)
        return {"attention_mask": make(rows, length, length, mask_function=sees, device=documents.device)}
    places = torch.arange(length, dtype=torch.int32)
    first = torch.where(_starts(documents), places, 0).cummax(1).values
    return {"attention_mask": torch.stack([first, (places + 1).expand(rows, -1)], -1)[:, None]}


def document_mask_function(documents: Tensor) -> Any:
    """Who sees whom, as a mask function of transformers."""

    def sees(row: Any, head: Any, query: Any, key: Any) -> Any:
        own = documents[row, query]
        return (own == documents[row, key]) & (own >= 0) & (key <= query) | (key == query)

    return sees


def _starts(documents: Tensor) -> Tensor:
    """bool [R, L]: where a document starts; each position of padding is one."""
    starts = documents < 0
    starts[:, 0] = True
    starts[:, 1:] |= documents[:, 1:] != documents[:, :-1]
    return starts


def _lengths(documents: Tensor) -> dict[str, Any]:
    """The documents of all rows one after the other, as flash attention's kernels for rows of different lengths take
    them."""
    begins = _starts(documents).flatten().nonzero().flatten()
    ends = torch.cat([begins, begins.new_tensor([documents.numel()])]).int()
    most = int(ends.diff().max())
    return {
        "attention_mask": None, "cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": most, "max_length_k": most
    }  # fmt: skip


def _dtype(query: Tensor, dropout: float, mask: Tensor | None, others: dict[str, Any]) -> torch.dtype | None:
    """The dtype in which kernels compute this; None if torch's function does, because it is as fast or has more."""
    if not backend.takes(query) or any(others.get(name) is not None for name in MORE):
        return None
    found = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
    gains = dropout > 0 or (mask is not None and mask.dtype == torch.int32)
    if found == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported():  # else products are emulated
        return found if gains or torch.is_grad_enabled() else None
    return found if found == torch.float32 and gains else None


def _spans(query: Tensor, key: Tensor, mask: Tensor | None, causal: bool) -> Tensor | None:
    """int32 [R or 1, Q, 2]: the keys that each query sees; None if spans cannot say it."""
    queries, keys = query.shape[2], key.shape[2]
    if mask is None:
        last = (
            torch.arange(1, queries + 1, dtype=torch.int32)
            if causal and queries > 1
            else torch.tensor(keys, dtype=torch.int32)
        )
        last = last.expand(1, queries)
        return torch.stack([torch.zeros_like(last), last], -1)
    if mask.dtype == torch.bool and mask.shape[1:3] == (1, 1):
        mask = spans_of(mask)
    if mask is None or mask.dtype != torch.int32:
        return None
    return mask[:, 0].expand(-1, queries, -1)


def _sparse(spans: Tensor, query: Tensor, key: Tensor) -> bool:
    """Whether computing only the tiles that are seen is faster than torch's fused kernel, which computes all."""
    seen = spans.numpy() if backend.has_data(spans) else np.zeros(spans.shape, np.int32)
    return share(seen, query.shape[1], key.shape[2]) < SPARSE
