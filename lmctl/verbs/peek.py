"""`lmctl peek`: show examples as the model will see them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from lmctl.config.groups import PeekConfig
from lmctl.core.errors import together
from lmctl.core.json_lines import emit
from lmctl.verbs._texts import TextVerb

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from lmctl.core.batch import Batch, Split
    from lmctl.mix.mix import Task
    from lmctl.train.prepare import Prepared

PIECES = ("mlm", "lm")
"""Loss terms whose labels are tokens."""


class Peek(TextVerb[PeekConfig]):
    purpose = "Show examples as the model will see them: pieces, masks and targets."
    examples = (
        "lmctl peek",
        "lmctl peek mix=mlm rows=5",
        "lmctl peek data=text data.path=corpus/ split=valid",
    )
    often = (
        "data.path", "mix", "rows", "split", "tokenizer", "batch.seq_len", "seed",
    )  # fmt: skip
    schema = PeekConfig

    def run(self, config: PeekConfig) -> None:
        """Print the first rows of each task: the ones that a run with the same config trains on first. ConfigError, as
        in `train`, if the model does not support such rows."""
        model, mix = config.model, config.mix
        if (error := together([*model.check_length(config.batch.seq_len), *mix.check_model(model)])) is not None:
            raise error

        from lmctl.train.display import console

        prepared = self.prepared(config)
        out = console()
        for name, size, rows in first_rows(config, prepared):
            if config.format == "text":
                out.print(_title(config, name, size), markup=False)
            for row in rows:
                if config.format == "json":
                    place = {"task": name, "split": config.split, "epoch": config.epoch, "row": row.number, "of": size}
                    emit(place | _record(row.batch, row.original, config.mix.tasks[name], prepared))
                else:
                    _print(out, row, prepared)


class PeekRow(NamedTuple):
    """One row of a task, as a batch of size 1."""

    number: int
    batch: Batch
    original: Batch
    """Without augmentation."""


def first_rows(config: PeekConfig, prepared: Prepared) -> Iterator[tuple[str, int, Iterator[PeekRow]]]:
    """For each task its name, its number of rows, and its first rows in the shuffled order of the epoch."""
    from lmctl.mix.order import RowStream
    from lmctl.train.build_parts import examples_of

    split = cast("Split", config.split)
    mix, family, batch = config.mix, config.model.family, config.batch
    shown = examples_of(mix, family, batch, prepared, split, augmented=split == "train")
    plain = examples_of(mix, family, batch, prepared, split, augmented=False)
    for name, examples in shown.items():
        stream, size = RowStream(examples, config.seed, name, batch.rows), len(examples)

        def row(place: int, name: str = name, stream: RowStream = stream) -> PeekRow:
            rows, epochs = stream.rows(place, 1)
            both = (some[name].collate(rows, epochs, stream.draws) for some in (shown, plain))
            return PeekRow(int(rows[0]), *both)

        first = config.epoch * size
        yield name, size, map(row, range(first, first + min(config.rows, size)))


def _title(config: PeekConfig, name: str, size: int) -> str:
    block = "the first block, " if config.split == "train" and config.mix.tasks[name].data.streamed else ""
    return f"{name}, {config.split}: {size:,} rows in {block}epoch {config.epoch}"


def _print(out: Console, row: PeekRow, prepared: Prepared) -> None:
    """Print a row and, if it is augmented, the row without augmentation."""
    out.print(f"\nrow {row.number}, {row.batch.tokens} tokens{_labels(row.batch, prepared)}", markup=False)
    for line in lines(row.batch, prepared):
        out.print(line)
    if not _same(row.batch, row.original):
        out.print("without augmentation:", style="dim")
        for line in lines(row.original, prepared):
            out.print(line, style="dim")


def _record(batch: Batch, original: Batch, task: Task, prepared: Prepared) -> dict[str, Any]:
    """A row as a JSON record: inputs, targets and weights."""
    weights = {"task": task.weight, "loss": task.loss_weight}
    before = None if _same(batch, original) else _inputs(original, prepared) | {"targets": _targets(original, prepared)}
    return {
        **_inputs(batch, prepared),
        "targets": _targets(batch, prepared),
        "label": _row_label(batch, prepared),
        "weights": weights,
        "original": before,
    }


def _inputs(batch: Batch, prepared: Prepared) -> dict[str, Any]:
    """The inputs of the first row: token ids, tokens, and masks; None where the task has no such input. Of packed
    documents their numbers stand for the attention mask."""
    names = prepared.tokenizer.convert_ids_to_tokens
    inputs = {name: value[0].tolist() for name, value in batch.inputs.items()}
    packed = "documents" in inputs
    positions = inputs.get("position_ids")
    written = inputs.get("decoder_input_ids")
    return {
        "count": batch.tokens,
        "ids": inputs["input_ids"],
        "tokens": names(inputs["input_ids"]),
        "segments": inputs.get("token_type_ids"),
        "attention_mask": inputs.get("attention_mask"),
        "position_ids": positions,
        "documents": list(accumulate(int(place == 0) for place in positions)) if packed and positions else None,
        "decoder_ids": written,
        "decoder_tokens": None if written is None else names(written),
        "decoder_attention_mask": inputs.get("decoder_attention_mask"),
        "fresh": inputs.get("fresh"),
    }


def _targets(batch: Batch, prepared: Prepared) -> dict[str, Any]:
    """Positions and labels of each loss term, with tokens where labels are tokens."""
    return {
        name: {
            "positions": target.positions.tolist(),
            "labels": target.labels.tolist(),
            "tokens": prepared.tokenizer.convert_ids_to_tokens(target.labels.tolist()) if name in PIECES else None,
        }
        for name, target in batch.targets.items()
    }


def _row_label(batch: Batch, prepared: Prepared) -> Any:
    """The label of the row itself: a class, several, or a number; None if it has none."""
    target = batch.targets.get("label")
    if target is None:
        return None
    value: Any = target.labels[0].tolist()
    names = prepared.corpora[batch.task].train.label_names
    if isinstance(value, list):
        return [name for name, holds in zip(names, value, strict=True) if holds]
    return names[value] if names else value


def _same(a: Batch, b: Batch) -> bool:
    return all(value.shape == b.inputs[name].shape and bool((value == b.inputs[name]).all())
               for name, value in a.inputs.items() if name in b.inputs)  # fmt: skip


def _labels(batch: Batch, prepared: Prepared) -> str:
    """The labels of the whole row as text."""
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
    """The tokens of one row: `input→target` at predicted positions, the second segment underlined, [SEP] between packed
    documents. The encoder's row comes before the decoder's."""
    inputs = batch.inputs
    if "decoder_input_ids" in inputs:
        yield _row(inputs["input_ids"][0], inputs.get("attention_mask"), {}, None, prepared)
        yield _row(
            inputs["decoder_input_ids"][0], inputs.get("decoder_attention_mask"), _target_tokens(batch), None, prepared
        )
        return
    yield _row(
        inputs["input_ids"][0],
        inputs.get("attention_mask"),
        _target_tokens(batch),
        inputs.get("token_type_ids"),
        prepared,
    )


def _target_tokens(batch: Batch) -> dict[int, int]:
    """Target token by position."""
    return {
        place: piece
        for name in PIECES
        if (target := batch.targets.get(name)) is not None
        for place, piece in zip(target.positions.tolist(), target.labels.tolist(), strict=True)
    }


def _row(ids: Any, mask: Any, wanted: dict[int, int], segments: Any, prepared: Prepared) -> Text:
    from rich.text import Text

    tokenizer = prepared.tokenizer
    length = len(ids) if mask is None else int(mask[0].sum())
    text = Text()
    for place, piece in enumerate(tokenizer.convert_ids_to_tokens(ids[:length].tolist())):
        style = "underline" if segments is not None and int(segments[0, place]) == 1 else ""
        if place in wanted:
            text.append(f"{piece}→{tokenizer.convert_ids_to_tokens(wanted[place])}", style=f"bold magenta {style}")
        else:
            text.append(piece, style=style)
        text.append(" ")
    text.rstrip()
    return text
