"""Decoding: translation by beam search, and continuation of prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from lmctl.core import progress
from lmctl.core.errors import ConfigError
from lmctl.core.pretrained_files import BROKEN
from lmctl.inference.length_batches import by_length
from lmctl.inference.load import Loaded
from lmctl.model import generation


def translate(
    loaded: Loaded,
    lines: Iterable[str],
    rows: int,
    beams: int,
    length_penalty: float,
    max_new_tokens: int | None,
    prefix: str = "",
) -> Iterator[str]:
    """The translation of each line, in order, without line breaks; an empty line stays empty. Beam search with
    hypotheses compared by log-probability / length ** `length_penalty`: transformers' rule (Wu et al. 2016, section 7,
    divide by ((5 + length) / 6) ** penalty). A translation has at most twice as many tokens as its line plus 20, unless
    `max_new_tokens` is given, independent of the batch."""

    def answer(batch: list[str]) -> list[str]:
        full = [line for line in batch if line.strip()]
        if not full:
            return [""] * len(batch)
        inputs = loaded.framed([prefix + line for line in full], length=loaded.positions)
        widths = inputs["attention_mask"].sum(dim=1).tolist()
        longest = [max_new_tokens or 2 * width + 20 for width in widths]
        output = generate(loaded, inputs, longest, num_beams=beams, length_penalty=length_penalty, early_stopping=False)
        texts = iter(loaded.tokenizer.batch_decode(output, skip_special_tokens=True))
        progress.advance(len(batch), "lines")
        return [" ".join(next(texts).split()) if line.strip() else "" for line in batch]

    return by_length(lines, len, rows, answer)


def complete(loaded: Loaded, prompts: Iterable[str], rows: int, max_new_tokens: int, **how: Any) -> Iterator[str]:
    """Each prompt with its continuation (of an encoder-decoder the output alone), in order; `how` is passed to
    `generate`."""
    return go_on(loaded, (loaded.prompt(text) for text in prompts), rows, max_new_tokens, **how)


def go_on(loaded: Loaded, prompts: Iterable[list[int]], rows: int, max_new_tokens: int, **how: Any) -> Iterator[str]:
    """As `complete`, for prompts of token ids, each shorter than the model's maximum length.

    Prompts of a batch are left-padded, and get the same number of new tokens. A recurrent network would read the
    padding, so its batches have prompts of one length.
    """
    import torch

    seq2seq = loaded.family == "seq2seq"
    alike = len if not seq2seq and not _of_transformers(loaded) else _new_tokens_allowed(loaded, max_new_tokens)

    def answer(batch: list[list[int]]) -> list[str]:
        width = max(map(len, batch))
        sides = [(ids, [loaded.pad] * (width - len(ids))) for ids in batch]
        ids = torch.tensor([ids + gap if seq2seq else gap + ids for ids, gap in sides], device=loaded.device)
        real = [([1] * len(ids), [0] * len(gap)) for ids, gap in sides]
        mask = torch.tensor([one + gap if seq2seq else gap + one for one, gap in real], device=loaded.device)
        room = _new_tokens_allowed(loaded, max_new_tokens)(batch[0])
        output = generate(loaded, {"input_ids": ids, "attention_mask": mask}, [room] * len(batch), **how)
        progress.advance(len(batch), "prompts")
        return [str(text) for text in loaded.tokenizer.batch_decode(output, skip_special_tokens=True)]

    return by_length(prompts, len, rows, answer, alike)


def generate(loaded: Loaded, inputs: Any, max_new_tokens: Sequence[int], **how: Any) -> Any:
    """Output of `lmctl.model.generation.generate`, int64 [R, T]: at most `max_new_tokens` for each row and (for
    encoder-decoders, whose outputs are separate rows) never more than the model's maximum length."""
    import torch
    from transformers import LogitsProcessorList

    if loaded.family == "seq2seq" and loaded.positions is not None:
        max_new_tokens = [max(1, min(most, loaded.positions - 1)) for most in max_new_tokens]
    settings: dict[str, Any] = {
        "max_new_tokens": max(max_new_tokens),
        "pad_token_id": loaded.pad,
        "eos_token_id": loaded.ends,
        "do_sample": False,
        "use_cache": True,  # training may have switched it off
        **how,
    }
    if loaded.pad != loaded.end and loaded.family == "seq2seq":
        settings["suppress_tokens"] = [loaded.pad]  # the start token of many models, never part of the output
    stop: dict[str, Any] = {}
    if len(set(max_new_tokens)) > 1:
        begun = 1 if loaded.family == "seq2seq" else inputs["input_ids"].shape[1]
        limits = torch.tensor([begun + most for most in max_new_tokens], device=loaded.device)
        stop["stopping_criteria"] = [
            lambda ids, scores, **_: ids.shape[1] >= limits.repeat_interleave(len(ids) // len(limits))
        ]
    numbers = LogitsProcessorList([_refuse_nan(loaded)])
    with torch.no_grad():
        given = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        return generation.generate(loaded.model, given, settings, logits_processor=numbers, **stop)


def _refuse_nan(loaded: Loaded) -> Callable[[Any, Any], Any]:
    """A logits processor that raises for NaN, whose argmax would be an arbitrary token."""

    def checked(ids: Any, scores: Any) -> Any:
        if scores.isnan().any():
            raise ConfigError(f"model_path={loaded.path}: {BROKEN}")
        return scores

    return checked


def _new_tokens_allowed(loaded: Loaded, max_new_tokens: int) -> Any:
    """Function from a prompt to its maximum number of new tokens."""

    def room(prompt: list[int]) -> int:
        if loaded.family == "seq2seq" or loaded.positions is None:
            return max_new_tokens
        return max(1, min(max_new_tokens, loaded.positions - len(prompt)))

    return room


def _of_transformers(loaded: Loaded) -> bool:
    return type(loaded.model).__module__.startswith("transformers.")
