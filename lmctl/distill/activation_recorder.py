"""Recorder of hidden states (forward hooks on layers) and of attention inputs (hook on the attention function).

All architectures compute attention through one function that transformers looks up by name. While a recording is on,
the look-up returns a function that records queries, keys and values and then calls the original.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lmctl.core.errors import ConfigError, LmctlError
from lmctl.distill.base import AttentionInputs, ModelShape, States
from lmctl.model.attention_function import OWN, dense

CROSS = ("cross", "encoder_attn", "EncDecAttention")
"""Name parts of cross-attention modules."""


class ActivationRecorder:
    """Forward hooks on all layers of a network; they record inside `recording()` only."""

    def __init__(self, network: Any, attends: bool) -> None:
        """`attends`: whether attention inputs are recorded, too."""
        self.network, self.attends = network, attends
        self.function: str = network.model.config._attn_implementation
        """The name under which the network looks its attention function up."""
        self.stacks: dict[str, list[nn.Module]] = network.recordable_stacks()
        if attends and self.model_shape.heads and self.function not in ("sdpa", OWN):
            raise ConfigError(
                f"distill: attention cannot be recorded with model.attention={self.function}", "model.attention=auto"
            )
        self._hidden: dict[str, list[Tensor | None]] | None = None
        self._attended: dict[str, list[AttentionInputs | None]] = {}
        self._places: dict[int, tuple[str, int]] = {}
        network.compute_every_position()
        for stack, layers in self.stacks.items():
            layers[0].register_forward_pre_hook(self._before(stack), with_kwargs=True)
            for place, layer in enumerate(layers):
                layer.register_forward_hook(self._after(stack, place + 1))
                for name, module in layer.named_modules():
                    if not any(part in name for part in CROSS):
                        self._places[id(module)] = (stack, place)

    @property
    def model_shape(self) -> ModelShape:
        config = self.network.model.config
        recurrent = not hasattr(config, "num_attention_heads")
        layers = {stack: len(layers) for stack, layers in self.stacks.items()}
        heads = 0 if recurrent else int(config.num_attention_heads)
        width, embedding = int(config.hidden_size), int(self.network.word_embeddings().embedding_dim)
        other = None if embedding == width else embedding
        return ModelShape(type(self.network.model).__name__, layers, width, heads, other)

    def _before(self, stack: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            if self._hidden is not None and self._hidden[stack][0] is None:
                self._hidden[stack][0] = args[0] if args else kwargs.get("hidden_states")

        return hook

    def _after(self, stack: str, place: int) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if self._hidden is not None and self._hidden[stack][place] is None:
                self._hidden[stack][place] = output if isinstance(output, Tensor) else output[0]

        return hook

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Context in which a forward pass is recorded."""
        self._hidden = {stack: [None] * (len(layers) + 1) for stack, layers in self.stacks.items()}
        self._attended = {stack: [None] * len(layers) for stack, layers in self.stacks.items()}
        if not self.attends:
            yield
            return
        original = ALL_ATTENTION_FUNCTIONS[self.function]
        ALL_ATTENTION_FUNCTIONS[self.function] = self._attending(original)
        try:
            yield
        finally:
            ALL_ATTENTION_FUNCTIONS[self.function] = original

    def pop(self, real: Mapping[str, Tensor]) -> States:
        """Return and forget the last recording; `real` bool [R, L] by stack: True where not padding."""
        hidden, attended = self._hidden, self._attended
        assert hidden is not None
        self._hidden, self._attended = None, {}
        if any(h is None for states in hidden.values() for h in states):
            raise LmctlError(f"distill: not every layer of {type(self.network.model).__name__} was passed through")
        if self.attends and any(a is None for layers in attended.values() for a in layers):
            raise LmctlError(f"distill: not every layer of {type(self.network.model).__name__} attended")
        return States(
            {stack: [h for h in states if h is not None] for stack, states in hidden.items()},
            {stack: [a for a in layers if a is not None] for stack, layers in attended.items()},
            dict(real),
        )

    def _attending(self, original: Any) -> Any:
        def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **kwargs: Any) -> Any:
            if (place := self._places.get(id(module))) is not None:
                stack, layer = place
                self._attended[stack][layer] = _taken_down(module, query, key, value, mask, kwargs)
            return original(module, query, key, value, mask, **kwargs)

        return attend


def _taken_down(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, kwargs: Any) -> AttentionInputs:
    groups = query.shape[1] // key.shape[1]
    if groups > 1:  # grouped-query attention: several query heads share one key head
        key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    scale = kwargs.get("scaling")
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", False) if causal is None else causal
    bias, allowed = kwargs.get("position_bias"), None
    if mask is None:
        if causal:
            length = query.shape[2]
            allowed = torch.ones(1, 1, length, length, dtype=torch.bool, device=query.device).tril()
    elif mask.dtype == torch.bool:
        allowed = mask
    elif mask.dtype == torch.int32:
        allowed = dense(mask, key.shape[2])
    else:  # an additive mask: 0, or a large negative number
        allowed = mask > torch.finfo(mask.dtype).min / 2
    return AttentionInputs(query, key, value, query.shape[-1] ** -0.5 if scale is None else float(scale), allowed, bias)
