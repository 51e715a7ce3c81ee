"""`lmctl peek`: examples as the model will see them, with what it is asked to predict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from lmctl.config.build import build, check_root, section
from lmctl.config.schema import BatchShape, PeekConfig
from lmctl.core.batch import Batch
from lmctl.core.sources import TokenizerSpec, streamed
from lmctl.core.tasks import ModelSpec
from lmctl.mix.mix import Mix
from lmctl.run.unfinished import with_models

if TYPE_CHECKING:
    from rich.text import Text

    from lmctl.run.prepare import Prepared


def run(cfg: DictConfig) -> None:
    """Print the first rows of each task: exactly those that a run with the same config trains on first."""
    check_root(cfg, PeekConfig)
    cfg = with_models(cfg)
    trusted = ("lmctl.", *(f"{package}." for package in cfg.trusted))
    mix = build(cfg.mix, Mix, trusted=trusted)
    tokenizer = build(cfg.tokenizer, TokenizerSpec, trusted=trusted)
    family = build(cfg.model, ModelSpec, trusted=trusted).family
    shape = section(cfg.batch, BatchShape)

    from rich.console import Console

    from lmctl.mix.order import RowStream
    from lmctl.run.assemble import examples_of
    from lmctl.run.display import Display, quiet_libraries
    from lmctl.run.prepare import prepare

    quiet_libraries()
    prepared = prepare(tokenizer, mix, cfg.cache_dir, Display().say)
    console = Console(highlight=False, soft_wrap=True)
    shown = examples_of(mix, family, shape, prepared, cfg.split, augmented=cfg.split == "train")
    plain = examples_of(mix, family, shape, prepared, cfg.split, augmented=False)
    for name, examples in shown.items():
        stream = RowStream(examples, cfg.seed, name, shape.rows)
        size = len(examples)
        block = "the first block, " if cfg.split == "train" and streamed(mix.tasks[name].data) else ""
        console.print(f"{name}, {cfg.split}: {size:,} rows in {block}epoch {cfg.epoch}", markup=False)
        for number in range(min(cfg.rows, size)):
            rows, epochs = stream.rows(cfg.epoch * size + number, 1)
            batch = examples.collate(rows, epochs, stream.draws)
            console.print(f"\nrow {int(rows[0])}, {batch.tokens} tokens{_labels(batch, prepared)}", markup=False)
            for line in lines(batch, prepared):
                console.print(line)
            original = plain[name].collate(rows, epochs, stream.draws)
            if not _same(batch, original):
                console.print("without augmentation:", style="dim")
                for line in lines(original, prepared):
                    console.print(line, style="dim")


def _same(a: Batch, b: Batch) -> bool:
    return all(value.shape == b.inputs[name].shape and bool((value == b.inputs[name]).all())
               for name, value in a.inputs.items() if name in b.inputs)  # fmt: skip


def _labels(batch: Batch, prepared: Prepared) -> str:
    """What is asked about the row as a whole, in words."""
    words = []
    for name, target in batch.targets.items():
        value = target.labels[0].tolist() if len(target.labels) else None
        if name == "nsp":
            words.append("B is another text" if value else "B follows A")
        elif name == "sop":
            words.append("A and B have changed places" if value else "B follows A")
        elif name == "label":
            names = prepared.corpora[batch.task].train.label_names
            words.append(f"label: {_label(value, names)}")
    return "".join(f", {word}" for word in words)


def _label(value: Any, names: tuple[str, ...]) -> str:
    if isinstance(value, list):
        return ", ".join(name for name, holds in zip(names, value, strict=True) if holds) or "none"
    return names[value] if names else f"{value:g}"


def lines(batch: Batch, prepared: Prepared) -> Iterator[Text]:
    """One row's pieces: `seen→target` where a piece is to be predicted, the second segment underlined, [SEP] between
    documents that do not see each other. An encoder's side comes before the decoder's."""
    inputs = batch.inputs
    if "decoder_input_ids" in inputs:
        yield _row(inputs["input_ids"][0], inputs.get("attention_mask"), {}, None, prepared)
        yield _row(inputs["decoder_input_ids"][0], inputs.get("decoder_attention_mask"), _wanted(batch), None, prepared)
        return
    yield _row(
        inputs["input_ids"][0], inputs.get("attention_mask"), _wanted(batch), inputs.get("token_type_ids"), prepared
    )


def _wanted(batch: Batch) -> dict[int, int]:
    """Piece to predict by position."""
    return {
        place: piece
        for name in ("mlm", "lm")
        if (target := batch.targets.get(name)) is not None
        for place, piece in zip(target.positions.tolist(), target.labels.tolist(), strict=True)
    }


def _row(ids: Any, mask: Any, wanted: dict[int, int], segments: Any, prepared: Prepared) -> Text:
    from rich.text import Text

    tokenizer = prepared.tokenizer
    length = len(ids) if mask is None or mask.dim() == 3 else int(mask[0].sum())
    text = Text()
    for place, piece in enumerate(tokenizer.convert_ids_to_tokens(ids[:length].tolist())):
        style = "underline" if segments is not None and int(segments[0, place]) == 1 else ""
        if place in wanted:
            text.append(f"{piece}→{tokenizer.convert_ids_to_tokens(wanted[place])}", style=f"bold magenta {style}")
        else:
            text.append(piece, style=style)
        text.append(" ")
    return text
