"""`lmctl generate`: go on with a prompt, or fill its masks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from omegaconf import DictConfig

from lmctl.config.build import build, check_root
from lmctl.config.use_schema import GenerateConfig
from lmctl.core.errors import ConfigError, DataError
from lmctl.core.places import Where
from lmctl.core.words import command


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
            f"how good it is: {command('lmctl eval', model_path=config.model_path)} data=...",
        )
    if loaded.family == "encoder":
        _fill(loaded, prompts, config)
        return
    import torch

    from lmctl.use.decode import complete

    torch.manual_seed(config.seed)
    for text in complete(loaded, prompts, config.batch, config.max_new_tokens, **settings(config)):
        print(text, flush=True)


def settings(config: GenerateConfig) -> dict[str, Any]:
    """What transformers' `generate` is told."""
    how: dict[str, Any] = {"num_beams": config.beams, "do_sample": config.do_sample}
    if config.do_sample:
        how |= {"temperature": config.temperature, "top_k": config.top_k, "top_p": config.top_p}
    return how


def _fill(loaded: Any, prompts: Iterator[str], config: GenerateConfig) -> None:
    from lmctl.use.fill import fill

    if config.do_sample or config.beams > 1:
        raise ConfigError(
            f"model_path={config.model_path} fills masks: it neither samples nor searches",
            "leave do_sample and beams out; top_k=... shows more candidates",
        )
    for prompt in prompts:
        for line in fill(loaded, prompt, config.top_k):
            print(line)


def _prompts(config: GenerateConfig) -> Iterator[str]:
    """At least one."""
    from lmctl.use.lines import incoming

    example = 'prompt="The [MASK] statement", file=..., or lines on standard input'
    lines = iter([config.prompt]) if config.prompt is not None else incoming(config.file, "prompt", example)
    prompts = (line for line in lines if line.strip() or config.prompt is not None)
    first = next(prompts, None)
    if first is None:
        raise DataError(f"no prompt: {config.file or 'standard input'} is empty", 'give one: prompt="Once upon a time"')
    return chain([first], prompts)
