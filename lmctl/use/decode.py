"""New text from a model: translations by beam search, and continuations of prompts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from lmctl.use.batches import by_length
from lmctl.use.load import Loaded


def translate(
    loaded: Loaded,
    lines: Iterable[str],
    rows: int,
    beams: int,
    length_penalty: float,
    max_new_tokens: int | None,
    prefix: str = "",
) -> Iterator[str]:
    """The translation of each line, in order, without line breaks; an empty line stays empty. Beam search, its
    hypotheses compared by log-probability / length ** `length_penalty` (Wu et al. 2016, section 7)."""

    def answer(batch: list[str]) -> list[str]:
        full = [line for line in batch if line.strip()]
        if not full:
            return [""] * len(batch)
        inputs = loaded.framed([prefix + line for line in full], length=loaded.positions)
        longest = max_new_tokens or 2 * inputs["input_ids"].shape[1] + 20
        output = generate(loaded, inputs, longest, num_beams=beams, length_penalty=length_penalty, early_stopping=False)
        texts = iter(loaded.tokenizer.batch_decode(output, skip_special_tokens=True))
        return [" ".join(next(texts).split()) if line.strip() else "" for line in batch]

    return by_length(lines, len, rows, answer)


def complete(loaded: Loaded, prompts: Iterable[str], rows: int, max_new_tokens: int, **how: Any) -> Iterator[str]:
    """Each prompt with its continuation (an encoder-decoder's output alone), in order; `how` goes to `generate`."""
    return go_on(loaded, (_prompt(loaded, text) for text in prompts), rows, max_new_tokens, **how)


def go_on(loaded: Loaded, prompts: Iterable[list[int]], rows: int, max_new_tokens: int, **how: Any) -> Iterator[str]:
    """As `complete`, for prompts that are pieces already.

    Prompts of a batch are padded at their beginnings. A recurrent network would read the padding, so its batches
    hold prompts of one length.
    """
    seq2seq = loaded.family == "seq2seq"
    same = not seq2seq and not _of_transformers(loaded)

    def answer(batch: list[list[int]]) -> list[str]:
        width = max(map(len, batch))
        import torch

        sides = [(ids, [loaded.pad] * (width - len(ids))) for ids in batch]
        ids = torch.tensor([ids + gap if seq2seq else gap + ids for ids, gap in sides], device=loaded.device)
        real = [([1] * len(ids), [0] * len(gap)) for ids, gap in sides]
        mask = torch.tensor([one + gap if seq2seq else gap + one for one, gap in real], device=loaded.device)
        output = generate(loaded, {"input_ids": ids, "attention_mask": mask}, max_new_tokens, **how)
        return [str(text) for text in loaded.tokenizer.batch_decode(output, skip_special_tokens=True)]

    return by_length(prompts, len, rows, answer, same)


def generate(loaded: Loaded, inputs: Any, max_new_tokens: int, **how: Any) -> Any:
    """transformers' `generate`, int64 [R, T], never asked for more than the model has positions for."""
    import torch

    if loaded.positions is not None:
        used = 1 if loaded.family == "seq2seq" else inputs["input_ids"].shape[1]
        max_new_tokens = max(1, min(max_new_tokens, loaded.positions - used))
    settings: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "pad_token_id": loaded.pad,
        "eos_token_id": loaded.end,
    }
    settings |= {"max_length": None, "do_sample": False, "use_cache": True} | how  # training may have no use for it
    if loaded.pad != loaded.end and loaded.family == "seq2seq":
        settings["suppress_tokens"] = [loaded.pad]  # begins the output of many models, and is never part of it
    arguments = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        return loaded.model.generate(**arguments, **settings)


def _prompt(loaded: Loaded, text: str) -> list[int]:
    """Framed as the tokenizer frames a text; the beginning alone if there is none."""
    return list(loaded.tokenizer(text)["input_ids"]) or [loaded.begin]


def _of_transformers(loaded: Loaded) -> bool:
    return type(loaded.model).__module__.startswith("transformers.")
