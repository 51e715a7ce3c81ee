"""What people type instead of a setting's own words: `lmctl eval runs/x`, `lmctl export format=onnx`."""

from __future__ import annotations

import os
from collections.abc import Container, Mapping
from dataclasses import replace

from lmctl.config.overrides import Override, Overrides
from lmctl.core.files import path_of


def as_settings(overrides: Overrides, keys: Container[str]) -> Overrides:
    """With a first word that is a place as the model of a verb with the key `model_path`, and a second one after it as
    the prompt of a verb that has one. `keys` are those of the verb; other words stay as they are."""
    words = list(overrides)
    if not words or "model_path" not in keys or "model_path" in overrides or not _is_place(words[0]):
        return overrides
    words[0] = Override("model_path", str(words[0]))
    if len(words) > 1 and "prompt" in keys and "prompt" not in overrides and _is_plain(words[1]):
        words[1] = Override("prompt", str(words[1]))
    return Overrides(tuple(words))


def by_group_name(overrides: Overrides, names: Mapping[str, str]) -> Overrides:
    """With other names of groups replaced by the groups' own: `format=onnx`, `format.opset=18`, `export=onnx` there.
    `names`: see `lmctl.config.table.typed_names`."""

    def renamed(override: Override) -> Override:
        head, dot, rest = override.key.partition(".")
        return replace(override, key=f"{names[head]}{dot}{rest}") if head in names else override

    return overrides.map(renamed)


def _is_plain(word: Override) -> bool:
    return word.value is None and not word.sign


def _is_place(word: Override) -> bool:
    """Whether a word is a path or an id on a hub, and no config file."""
    text = str(word)
    return _is_plain(word) and not text.endswith((".yaml", ".yml")) and ("/" in text or os.path.exists(path_of(text)))
