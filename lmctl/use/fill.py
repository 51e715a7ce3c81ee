"""The masks of a prompt, filled by a masked language model."""

from __future__ import annotations

from collections.abc import Iterator

from lmctl.core.errors import ConfigError, DataError
from lmctl.use.likelihood import vocabulary_logits
from lmctl.use.load import Loaded


def fill(loaded: Loaded, prompt: str, top_k: int) -> Iterator[str]:
    """The prompt with its likeliest pieces (each mask on its own, the others unseen), then `top_k` per mask."""
    import torch

    model, tokenizer = loaded.model, loaded.tokenizer
    if tokenizer.mask_token is None:
        raise ConfigError(f"model_path={loaded.path}: its tokenizer has no mask piece, so there are no masks to fill")
    inputs = tokenizer(prompt, return_tensors="pt").to(loaded.device)
    ids = inputs["input_ids"][0]
    masks = (ids == tokenizer.mask_token_id).nonzero().flatten()
    if not len(masks):
        raise DataError(
            f"the prompt has no {tokenizer.mask_token}: {prompt!r}",
            f"write {tokenizer.mask_token} where a word is missing",
        )
    if loaded.positions is not None and len(ids) > loaded.positions:
        raise DataError(f"the prompt has {len(ids)} tokens, and the model takes {loaded.positions}")
    with torch.no_grad():
        logits = vocabulary_logits(model(**loaded.arguments(inputs)))
    known = logits[0, masks, : len(tokenizer)].float()  # the embedding may have rows that no piece uses
    best = known.softmax(dim=-1).topk(min(top_k, known.shape[-1]))
    filled, *rest = prompt.split(str(tokenizer.mask_token))
    for piece, text in zip(best.indices[:, 0].tolist(), rest, strict=True):
        filled += tokenizer.decode([piece]).strip().removeprefix("##") + text
    yield filled
    for number, (values, pieces) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True), start=1):
        choices = "  ".join(
            f"{piece} {value:.1%}" for piece, value in zip(tokenizer.convert_ids_to_tokens(pieces), values, strict=True)
        )
        yield f"  mask {number}: {choices}"
