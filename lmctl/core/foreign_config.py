"""What is taken from the config.json of a model from elsewhere: sizes and the keys that its architecture declares.

transformers acts on more: it imports what `auto_map` names, downloads kernels that `_attn_implementation` names, asks
for libraries of `quantization_config`, opens files that `transformers_weights` names, asks the hub for what `backbone`
names, and keeps every unknown key as an attribute. Here text, lists and mappings under keys that the architecture does
not declare are left out, so that no such key, known today or not, does anything.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from lmctl.core.errors import ConfigError
from lmctl.core.safetensors_header import AGAIN

_EARLIER_NAMES = ("rope_scaling", "torch_dtype", "moe_layer_freq", "linear_attn_config")
"""Keys that classes read although they declare others by now."""
_NEVER = re.compile(
    r"implementation|kernel|auto_map|quantization|transformers_weights|fusion_config|distributed|backbone|^_"
)
"""Keys that are not taken at any depth, whoever declares them."""
_NUMBERS = (bool, int, float, type(None))
_SIZE = re.compile(
    r"(^|_)((vocab|hidden|intermediate|embedding|ffn|expert)_size|(\w+_)?dim|d_model|d_ff|d_kv|n_embd|n_inner"
    r"|(\w+_)?heads|n_head|(\w+_)?experts|num_labels)$"
)
"""Keys whose number is a dimension of some weight."""


def declared_keys(config_class: Any) -> set[str]:
    """The keys that a config class of transformers declares, as fields, as parameters or as other names of these."""
    names = {field.name for field in fields(config_class)} if is_dataclass(config_class) else set()
    return {*names, *inspect.signature(config_class.__init__).parameters, *config_class.attribute_map, *_EARLIER_NAMES}


def taken(config: Mapping[str, Any], config_class: Any) -> dict[str, Any]:
    """The entries of `config`, a config.json, that its class is made of."""
    known = declared_keys(config_class)
    return {
        key: _without_never(value)
        for key, value in config.items()
        if not _NEVER.search(key) and (key in known or isinstance(value, _NUMBERS))
    }


def _without_never(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_never(child) for key, child in value.items() if not _NEVER.search(str(key))}
    return [_without_never(child) for child in value] if isinstance(value, list) else value


def refuse_quantised(what: str, config: Mapping[str, Any]) -> None:
    """ConfigError for weights that were quantised by another library."""
    if (quantised := config.get("quantization_config")) is not None:
        method = quantised.get("quant_method") if isinstance(quantised, dict) else None
        raise ConfigError(
            f"{what}: its weights are quantised{f' ({method})' if isinstance(method, str) else ''}, and lmctl reads "
            "floating-point weights",
            "give the model that it was made from; lmctl quantises itself: quantize=..., precision=int8_weights",
        )


def refuse_sizes(what: str, name: str, config: Mapping[str, Any], numbers: int, tensors: int) -> None:
    """ConfigError if a size in `config`, the file `name`, cannot be that of weights with so many `numbers` in so many
    `tensors`: building such a network would take hours, or all memory, before the missing weights are noticed. (Layers
    may share weights, so the bound for layers is loose.)"""
    for key, value in config.items():
        if isinstance(value, dict):
            refuse_sizes(what, name, value, numbers, tensors)
        if type(value) is not int:
            continue
        is_layers = key.endswith(("layers", "n_layer"))
        if value > (10 * tensors if is_layers else numbers if _SIZE.search(key) else 1 << 40):
            raise ConfigError(
                f"{what}: {name}: {key} is {value:,}, and its weights are {tensors:,} tensors of {numbers:,} numbers: "
                "they do not belong together",
                AGAIN,
            )
