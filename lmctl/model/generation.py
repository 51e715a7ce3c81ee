"""Generation: transformers' `generate`, in which what is documented here decides and nothing else.

Models from elsewhere come with a generation_config.json: penalties, sampling, several answers. That is their author's
taste, and no part of the weights; whoever compares models wants the same search for all. Token numbers are kept (what
begins an output, what ends one): they say how texts are framed.
"""

from __future__ import annotations

from typing import Any


def generate(model: Any, inputs: dict[str, Any], settings: dict[str, Any], **how: Any) -> Any:
    """`model.generate(**inputs)` by `settings`, fields of GenerationConfig, and by nothing that the model brings along
    but its token numbers: int64 [R, T]. `how`: logits processors and stopping criteria."""
    from transformers import GenerationConfig

    brought = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        config = GenerationConfig(**{**_begins(model, brought), **settings})
        return model.generate(**inputs, generation_config=config, **how)
    finally:
        model.generation_config = brought


def ends_of(model: Any, special: set[int]) -> set[int]:
    """The pieces that end a text as the model's own files say, as far as they are `special` to its tokenizer: chat
    models have several."""
    said = [getattr(model.generation_config, "eos_token_id", None), getattr(model.config, "eos_token_id", None)]
    return {piece for ids in said for piece in (ids if isinstance(ids, list) else [ids]) if piece in special}


def _begins(model: Any, brought: Any) -> dict[str, Any]:
    """What an output begins with: of an encoder-decoder; and, of one of several languages, the language."""
    found = {}
    for name in ("bos_token_id", "decoder_start_token_id", "forced_bos_token_id"):
        said = (getattr(place, name, None) for place in (brought, model.config))
        found[name] = next((piece for piece in said if piece is not None), None)
    return {name: piece for name, piece in found.items() if piece is not None}
