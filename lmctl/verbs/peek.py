"""`lmctl peek`: examples as the model will see them, with what it is asked to predict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omegaconf import DictConfig

from lmctl.config.build import build, check_root, section
from lmctl.config.schema import BatchShape, PeekConfig
from lmctl.core.types import Batch, TokenizerSpec
from lmctl.mix.mix import Mix

if TYPE_CHECKING:
    from rich.text import Text
    from transformers import PreTrainedTokenizerFast


def run(cfg: DictConfig) -> None:
    """Print the first rows of each task: exactly those that a run with the same config trains on first."""
    check_root(cfg, PeekConfig)
    trusted = ("lmctl.", *(f"{package}." for package in cfg.trusted))
    mix = build(cfg.mix, Mix, trusted=trusted)
    tokenizer = build(cfg.tokenizer, TokenizerSpec, trusted=trusted)
    shape = section(cfg.batch, BatchShape)

    from rich.console import Console

    from lmctl.mix.stream import RowStream
    from lmctl.run.display import Display, quiet_libraries
    from lmctl.run.prepare import prepare

    quiet_libraries()
    sources = {name: task.data for name, task in mix.tasks.items()}
    prepared = prepare(tokenizer, sources, cfg.cache_dir, Display().say)
    console = Console(highlight=False, soft_wrap=True)
    for name, task in mix.tasks.items():
        store = getattr(prepared.corpora[name], cfg.split)
        stream = RowStream(task.objective.examples(name, store, prepared.vocabulary, shape.seq_len), cfg.seed, name)
        size = len(stream.examples)
        console.print(f"{name}, {cfg.split}: {size:,} rows in epoch {cfg.epoch}", markup=False)
        for number in range(min(cfg.rows, size)):
            rows, epochs = stream.rows(cfg.epoch * size + number, 1)
            batch = stream.examples.collate(rows, epochs, stream.draws)
            console.print(f"\nrow {int(rows[0])}, {batch.tokens} tokens{_pair(batch)}", markup=False)
            console.print(_row(batch, prepared.tokenizer))


def _pair(batch: Batch) -> str:
    labels = batch.targets.get("nsp")
    return "" if labels is None else f", B {'is another text' if int(labels.labels[0]) else 'follows A'}"


def _row(batch: Batch, tokenizer: PreTrainedTokenizerFast) -> Text:
    """One row's pieces: `seen→target` where a piece is to be predicted, the second segment underlined."""
    from rich.text import Text

    pieces = tokenizer.convert_ids_to_tokens(batch.inputs["input_ids"][0].tolist())[: batch.tokens]
    target = batch.targets["mlm"]
    wanted = tokenizer.convert_ids_to_tokens(target.labels.tolist())
    predicted = dict(zip(target.positions.tolist(), wanted, strict=True))
    segments = batch.inputs.get("token_type_ids")
    text = Text()
    for place, piece in enumerate(pieces):
        second = segments is not None and int(segments[0, place]) == 1
        style = "underline" if second else ""
        if place in predicted:
            text.append(f"{piece}→{predicted[place]}", style=f"bold magenta {style}")
        else:
            text.append(piece, style=style)
        text.append(" ")
    return text
