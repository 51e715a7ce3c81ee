"""Selecting the layers of a teacher that a shallower student keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from lmctl.core.errors import ConfigError
from lmctl.core.suggest import did_you_mean

if TYPE_CHECKING:
    from lmctl.plan import Plan

RULES = ("uniform", "first", "last")

Keep: TypeAlias = "str | list[int]"
"""One of RULES, or a list of layer indices from 0."""


def check_keep(keep: Any) -> Keep:
    """The validated `Keep`; ConfigError for any other value."""
    if isinstance(keep, str):
        if keep not in RULES:
            raise ConfigError(
                f"student.from_teacher must be {', '.join(RULES)} or a list of layers{did_you_mean(keep, RULES)}"
            )
        return keep
    layers = list(keep) if isinstance(keep, Sequence) else []
    if not layers or not all(isinstance(layer, int) and not isinstance(layer, bool) for layer in layers):
        raise ConfigError(f"student.from_teacher must be {', '.join(RULES)} or a list of layers, got {keep}")
    if layers != sorted(set(layers)) or layers[0] < 0:
        raise ConfigError(f"student.from_teacher lists layers from 0 on, each above the one before, got {layers}")
    return layers


def check_start(plan: Plan) -> Iterator[ConfigError]:
    """Errors if the student of `plan` cannot be initialised from layers of its teacher."""
    check_keep(plan.student.from_teacher)
    if not plan.teacher:
        yield ConfigError("student.from_teacher: there is no teacher", "teacher=RUN, a model directory or a hub id")
    if plan.model.starts_from is not None:
        yield ConfigError(
            "student.from_teacher and init_from both say where the student's weights come from", "leave one out"
        )


def kept(keep: Keep, layers: int, depth: int) -> list[int]:
    """Indices, ascending, of the `layers` layers that a student keeps of a teacher with `depth`. `uniform` spaces them
    evenly from first to last: of 12, six are 0, 2, 4, 7, 9, 11, as in DistilBERT. ConfigError if it has fewer."""
    if layers > depth:
        raise ConfigError(
            f"student.from_teacher={_words(keep)}: the student has {layers} layers and the teacher only {depth}",
            f"nearest: model.layers={depth}",
        )
    if isinstance(keep, str):
        if keep == "first":
            return list(range(layers))
        if keep == "last":
            return list(range(depth - layers, depth))
        return [round(place * (depth - 1) / max(1, layers - 1)) for place in range(layers)]
    if keep[-1] >= depth:
        raise ConfigError(
            f"student.from_teacher={_words(keep)}: the teacher has no layer {keep[-1]}, its {depth} are counted from 0"
        )
    if len(keep) != layers:
        raise ConfigError(
            f"student.from_teacher={_words(keep)} names {len(keep)} layers, and the student has {layers}",
            f"nearest: model.layers={len(keep)}",
        )
    return keep


def sides(config: Any) -> tuple[str, ...]:
    """The keys for the number of layers in a transformers config: the encoder's, then the decoder's if there is one."""
    if not config.is_encoder_decoder:
        return ("num_hidden_layers",)
    t5 = hasattr(config, "num_decoder_layers")
    return ("num_layers", "num_decoder_layers") if t5 else ("encoder_layers", "decoder_layers")


def _words(keep: Keep) -> str:
    return keep if isinstance(keep, str) else str(keep).replace(" ", "")
