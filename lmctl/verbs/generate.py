"""`lmctl generate`: go on with a prompt, or fill its masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, TypeAlias

from omegaconf import DictConfig

from lmctl.config.build import build, check_root
from lmctl.config.use_schema import GenerateConfig
from lmctl.core.errors import ConfigError, DataError
from lmctl.core.places import Where

Prompt: TypeAlias = "tuple[int, str]"
"""The number of its line, and what it says."""


def run(cfg: DictConfig) -> None:
    """Print each prompt with its continuation; or with its masks filled, and the likeliest pieces for every mask."""
    config = check_root(cfg, GenerateConfig)
    where = build(cfg.runner, Where)
    prompts = _prompts(config)

    from lmctl.run.display import quiet_libraries
    from lmctl.use.load import load

    quiet_libraries()
    loaded = load(config.model_path, where)
    if loaded.family == "classifier":
        raise ConfigError(
            f"model_path={config.model_path} is a classifier: it writes no text",
            f"how good it is: lmctl eval model_path={config.model_path} data=...",
        )
    if loaded.family == "encoder":
        _fill(loaded, prompts, config)
        return
    import torch

    from lmctl.use.decode import complete
    from lmctl.use.room import check_prompt

    checked = _checked(prompts, config, lambda prompt, where: check_prompt(loaded, prompt, where))
    torch.manual_seed(config.seed)
    for text in complete(loaded, checked, config.batch, config.max_new_tokens, **settings(config)):
        print(text, flush=True)


def settings(config: GenerateConfig) -> dict[str, Any]:
    """What transformers' `generate` is told."""
    how: dict[str, Any] = {"num_beams": config.beams, "do_sample": config.do_sample}
    if config.do_sample:
        how |= {"temperature": config.temperature, "top_k": config.top_k, "top_p": config.top_p}
    return how


def _fill(loaded: Any, prompts: Iterator[Prompt], config: GenerateConfig) -> None:
    from lmctl.use.fill import check_masks, fill

    if config.do_sample or config.beams > 1:
        raise ConfigError(
            f"model_path={config.model_path} fills masks: it neither samples nor searches",
            "leave do_sample and beams out; top_k=... shows more candidates",
        )
    for prompt in _checked(prompts, config, lambda prompt, where: check_masks(loaded, prompt, where)):
        for line in fill(loaded, prompt, config.top_k):
            print(line)


def _checked(prompts: Iterator[Prompt], config: GenerateConfig, check: Callable[[str, str], None]) -> Iterator[str]:
    """The prompts alone, each after `check(prompt, where)`: those of a file all before the first is answered, those
    of standard input as they come."""
    from lmctl.use.room import Place

    place = Place(config.file, typed=config.prompt is not None)

    def checked() -> Iterator[str]:
        for number, prompt in prompts:
            check(prompt, place.of(number))
            yield prompt

    return checked() if config.file is None else iter(list(checked()))


def _prompts(config: GenerateConfig) -> Iterator[Prompt]:
    """At least one, each with the number of its line."""
    from lmctl.use.lines import incoming

    example = 'prompt="The [MASK] statement", file=..., or lines on standard input'
    lines = iter([config.prompt]) if config.prompt is not None else incoming(config.file, "prompt", example)
    numbered = enumerate(lines, start=1)
    prompts = ((number, line) for number, line in numbered if line.strip() or config.prompt is not None)
    first = next(prompts, None)
    if first is None:
        raise DataError(f"no prompt: {config.file or 'standard input'} is empty", 'give one: prompt="Once upon a time"')
    return chain([first], prompts)
