"""Text generation with transformers' `generate`, by the given settings only.

A model's generation_config.json (penalties, sampling, number of sequences) holds preferences of its authors, not
weights; a comparison of models needs the same search for all. Its special token ids (start, end) are kept: they define
the format of texts.
"""

from __future__ import annotations

from typing import Any


def generate(model: Any, inputs: dict[str, Any], settings: dict[str, Any], **how: Any) -> Any:
    """`model.generate(**inputs)` with a fresh GenerationConfig of `settings` and the model's special token ids only:
    int64 [R, T]. `how`: logits processors and stopping criteria."""
    from transformers import GenerationConfig

    brought = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        config = GenerationConfig(**{**_start_tokens(model, brought), **settings})
        return model.generate(**inputs, generation_config=config, **how)
    finally:
        model.generation_config = brought


def ends_of(model: Any, special: set[int]) -> set[int]:
    """The end tokens that the model's own files name, if they are `special` in its tokenizer: chat models have
    several."""
    candidates = [getattr(model.generation_config, "eos_token_id", None), getattr(model.config, "eos_token_id", None)]
    return {piece for ids in candidates for piece in (ids if isinstance(ids, list) else [ids]) if piece in special}


def _start_tokens(model: Any, brought: Any) -> dict[str, Any]:
    """Start tokens of the output: of an encoder-decoder and, for a multilingual model, of the language."""
    found = {}
    for name in ("bos_token_id", "decoder_start_token_id", "forced_bos_token_id"):
        candidates = (getattr(place, name, None) for place in (brought, model.config))
        found[name] = next((piece for piece in candidates if piece is not None), None)
    return {name: piece for name, piece in found.items() if piece is not None}
