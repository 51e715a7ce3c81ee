"""Filling the masks of a prompt with a masked language model."""

from __future__ import annotations

from collections.abc import Iterator

from lmctl.core.errors import ConfigError, DataError
from lmctl.core.pretrained_files import BROKEN
from lmctl.inference.length_check import check_prompt
from lmctl.inference.likelihood import vocabulary_logits
from lmctl.inference.load import Loaded


def check_masks(loaded: Loaded, prompt: str, where: str) -> None:
    """DataError, beginning with `where`, if the prompt has no mask or is too long for the model."""
    if loaded.mask not in loaded.prompt(prompt):
        name = loaded.tokenizer.mask_token
        raise DataError(f"{where}the prompt has no {name}: {prompt!r}", f"write {name} where a word is missing")
    check_prompt(loaded, prompt, where)


def fill(loaded: Loaded, prompt: str, top_k: int) -> Iterator[str]:
    """The prompt with the most probable token at each mask (predicted independently), then the `top_k` tokens per
    mask."""
    import torch

    model, tokenizer = loaded.model, loaded.tokenizer
    inputs = tokenizer(prompt, return_tensors="pt").to(loaded.device)
    masks = (inputs["input_ids"][0] == loaded.mask).nonzero().flatten()
    with torch.no_grad():
        logits = vocabulary_logits(model(**loaded.arguments(inputs)))
    known = logits[0, masks, : len(tokenizer)].float()  # the embedding may have unused rows
    if known.isnan().any():
        raise ConfigError(f"model_path={loaded.path}: {BROKEN}")
    best = known.softmax(dim=-1).topk(min(top_k, known.shape[-1]))
    words = [tokenizer.decode([piece]).strip().removeprefix("##") for piece in best.indices[:, 0].tolist()]
    yield _filled(loaded, prompt, words)
    for number, (values, pieces) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True), start=1):
        choices = "  ".join(
            f"{piece} {value:.1%}" for piece, value in zip(tokenizer.convert_ids_to_tokens(pieces), values, strict=True)
        )
        yield f"  mask {number}: {choices}"


def _filled(loaded: Loaded, prompt: str, words: list[str]) -> str:
    """`prompt` with each mask replaced by a word. The tokenizer's offsets locate the masks: some tokenizers accept any
    case, some include the space before."""
    if not loaded.tokenizer.is_fast:
        first, *rest = prompt.split(str(loaded.tokenizer.mask_token))
        return first + "".join(word + text for word, text in zip(words, rest, strict=False))
    framed = loaded.tokenizer(prompt, return_offsets_mapping=True)
    spans = [
        span for piece, span in zip(framed["input_ids"], framed["offset_mapping"], strict=True) if piece == loaded.mask
    ]
    filled, end = "", 0
    for word, (start, stop) in zip(words, spans, strict=True):
        gap = prompt[start:stop]
        space = gap[: len(gap) - len(gap.lstrip())]
        filled, end = filled + prompt[end:start] + space + word + gap[len(gap.rstrip()) :], stop
    return filled + prompt[end:]
