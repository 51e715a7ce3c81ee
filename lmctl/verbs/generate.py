"""`lmctl generate`: continue prompts, or fill their masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Optional, TypeAlias

from lmctl.config.groups import Run
from lmctl.config.schema import check_seed, positive
from lmctl.config.table import MISSING, key, same
from lmctl.config.use_schema import BATCH, BEAMS, LENGTH, MODEL_PATH
from lmctl.config.verb import Verb
from lmctl.core.errors import ConfigError, DataError
from lmctl.core.paths import FreeText, Place
from lmctl.runner.base import Runner

Prompt: TypeAlias = "tuple[int, str]"
"""(line number, text)."""
TOP_K = 5
"""Default number of candidates."""
LONG = 12
"""Tokens at the end of a text that are checked for repetition."""


@dataclass(frozen=True)
class GenerateConfig:
    """Root config of `lmctl generate`."""

    model_path: Place = key(MISSING, MODEL_PATH)
    prompt: Optional[FreeText] = key(
        None, "text to go on with, or with one or more [MASK]; null: lines from standard input"
    )
    file: Optional[Place] = key(None, "text file with one prompt per line")
    top_k: Optional[int] = key(
        None, "masks: candidates shown for each; sampling: choose among so many pieces (0: all); null: 5"
    )
    max_new_tokens: int = key(50, "longest continuation, in pieces", LENGTH)
    do_sample: Optional[bool] = key(
        None, "draw each piece, or take the likeliest; null: draw if temperature, top_p or top_k is given"
    )
    temperature: Optional[float] = key(
        None, "sampling: below 1 keeps closer to the likeliest pieces; null: 1", ("temp",)
    )
    top_p: Optional[float] = key(
        None, "sampling: choose among the fewest pieces that together have this probability; null: 1"
    )
    beams: int = key(1, "continuations kept at each step; above 1: beam search", BEAMS)
    seed: int = key(1, "seed of sampling")
    batch: int = key(8, "prompts at a time", BATCH)
    runner: Runner = same(Run, "runner")

    def __post_init__(self) -> None:
        positive(max_new_tokens=self.max_new_tokens, beams=self.beams, batch=self.batch)
        check_seed(self.seed)
        if self.temperature == 0:
            raise ValueError("temperature must be above 0, got 0: leave it out to take the likeliest pieces")
        positive(temperature=self.temperature)
        if self.top_k is not None and (self.top_k < 0 or (self.top_k == 0 and self.do_sample is False)):
            raise ValueError(f"top_k must be above 0, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.prompt is not None and self.file is not None:
            raise ValueError("give prompt or file, not both")
        if self.do_sample is False and (self.temperature is not None or self.top_p is not None):
            raise ValueError("temperature and top_p are for sampling: leave do_sample=false out")

    @property
    def draws(self) -> tuple[str, ...]:
        """The given settings that imply sampling (for a generative model; for mask filling, top_k has another
        meaning)."""
        given = {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}
        return tuple(f"{name}={value:g}" for name, value in given.items() if value is not None)

    @property
    def samples(self) -> bool:
        """Whether a generative model samples its tokens."""
        return bool(self.draws) if self.do_sample is None else self.do_sample


class Generate(Verb[GenerateConfig]):
    purpose = "Continue prompts (decoders, recurrent and seq2seq models), or fill their masks (encoders)."
    examples = (
        'lmctl generate model_path=runs/mine prompt="The [MASK] statement"',
        'lmctl generate model_path=runs/mine prompt="The file" do_sample=true top_p=0.9 seed=7',
        "lmctl generate model_path=bert-base-uncased < prompts.txt",
    )
    often = (
        "model_path", "prompt", "file", "max_new_tokens", "do_sample", "temperature", "top_p", "top_k", "batch",
        "seed",
    )  # fmt: skip
    schema = GenerateConfig
    words = ("model_path", "prompt")

    def run(self, config: GenerateConfig) -> None:
        """Print each prompt with its continuation; or with its masks filled, and the top-k tokens for each."""
        prompts = _prompts(config)

        from lmctl.inference.heads import refuse_classifier
        from lmctl.inference.load import load
        from lmctl.train.display import quiet_libraries

        quiet_libraries()
        loaded = load(config.model_path, config.runner)
        refuse_classifier(loaded, "it writes no text")
        if loaded.family == "encoder":
            _fill(loaded, prompts, config)
            return
        import torch

        from lmctl.inference.decode import complete
        from lmctl.inference.length_check import check_prompt
        from lmctl.inference.progress import inputs_done
        from lmctl.train.display import Display

        good, total = _checked(prompts, config, lambda prompt, where: check_prompt(loaded, prompt, where))
        display = Display()
        say = display.say
        if config.do_sample is None and config.samples:
            say(f"{', '.join(config.draws)}: pieces are drawn (do_sample=true seed={config.seed})")
        torch.manual_seed(config.seed)
        repetitive = 0
        good = _report_lowercasing(loaded, good, say)
        with inputs_done(display, "generating", total, "prompts"):
            for text in complete(loaded, good, config.batch, config.max_new_tokens, **settings(config)):
                print(text, flush=True)
                repetitive += not config.samples and is_repetitive(loaded.pieces([text])[0][-config.max_new_tokens :])
        if repetitive:
            say("greedy decoding repeats itself here: temperature=0.8 samples instead")


def _report_lowercasing(loaded: Any, prompts: Iterator[str], say: Callable[[str], None]) -> Iterator[str]:
    """Pass the prompts on; report once if the tokenizer lowercases them."""
    silent = True
    for text in prompts:
        if silent and text != text.lower() and loaded.pieces([text]) == loaded.pieces([text.lower()]):
            silent = False
            say("the model's tokenizer knows no capitals, so its text has none (tokenizer=bpe in training keeps them)")
        yield text


def settings(config: GenerateConfig) -> dict[str, Any]:
    """Arguments for transformers' `generate`."""
    how: dict[str, Any] = {"num_beams": config.beams, "do_sample": config.samples}
    if config.samples:
        how["temperature"] = 1.0 if config.temperature is None else config.temperature
        how["top_p"] = 1.0 if config.top_p is None else config.top_p
        how["top_k"] = TOP_K if config.top_k is None else config.top_k
    return how


def is_repetitive(pieces: Sequence[int]) -> bool:
    """Whether generated text is repetitive: it ends in a loop of few tokens, or has hardly any distinct ones."""
    if len(pieces) < LONG:
        return False
    end = pieces[-LONG:]
    again = any(all(end[i] == end[i - gap] for i in range(gap, LONG)) for gap in range(1, LONG // 3 + 1))
    return again or len(set(pieces)) <= len(pieces) / 5


def _fill(loaded: Any, prompts: Iterator[Prompt], config: GenerateConfig) -> None:
    from lmctl.core.progress import advance
    from lmctl.inference.fill import check_masks, fill
    from lmctl.inference.progress import inputs_done
    from lmctl.train.display import Display

    if config.do_sample or config.beams > 1 or config.temperature is not None or config.top_p is not None:
        raise ConfigError(
            f"model_path={config.model_path} fills masks: it neither samples nor searches",
            "leave do_sample, temperature, top_p and beams out; top_k=... shows more candidates",
        )
    if config.top_k == 0:
        raise ConfigError("top_k must be above 0 where masks are filled, got 0", "top_k=... candidates are shown")
    good, total = _checked(prompts, config, lambda prompt, where: check_masks(loaded, prompt, where))
    with inputs_done(Display(), "filling masks", total, "prompts"):
        for prompt in good:
            for line in fill(loaded, prompt, TOP_K if config.top_k is None else config.top_k):
                print(line)
            advance(1, "prompts")


def _checked(
    prompts: Iterator[Prompt], config: GenerateConfig, check: Callable[[str, str], None]
) -> tuple[Iterator[str], int]:
    """The prompts as plain text, each validated by `check(prompt, where)`: those of a file all before the first output,
    those of standard input one by one. And their number; 0: not known yet."""
    from lmctl.inference.input_lines import comes_once
    from lmctl.inference.length_check import LinePosition

    place = LinePosition(config.file, typed=config.prompt is not None)

    def checked() -> Iterator[str]:
        for number, prompt in prompts:
            check(prompt, place.of(number))
            yield prompt

    if comes_once(config.file) and config.prompt is None:
        return checked(), 0
    good = list(checked())
    return iter(good), len(good)


def _prompts(config: GenerateConfig) -> Iterator[Prompt]:
    """The prompts with their line numbers; DataError if there are none."""
    from lmctl.inference.input_lines import incoming, is_standard_input

    example = 'prompt="The [MASK] statement", file=..., or lines on standard input'
    lines = iter([config.prompt]) if config.prompt is not None else incoming(config.file, "prompt", example)
    numbered = enumerate(lines, start=1)
    prompts = ((number, line) for number, line in numbered if line.strip() or config.prompt is not None)
    first = next(prompts, None)
    if first is None:
        place = "standard input" if is_standard_input(config.file) else config.file
        raise DataError(f"no prompt: {place} is empty", 'give one: prompt="Once upon a time"')
    return chain([first], prompts)
