"""Layer mapping: which teacher layer each student layer is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmctl.core.errors import ConfigError
from lmctl.distill.base import ModelShape

MAPS = ("uniform", "skip", "last")


def check_map(layer_map: Any) -> None:
    """ValueError unless it is the name of a mapping or a list of layer pairs."""
    named = isinstance(layer_map, str)
    pairs = list(layer_map) if isinstance(layer_map, Sequence) and not named else []
    if layer_map in MAPS if named else pairs and all(map(_is_pair, pairs)):
        return
    raise ValueError(
        f"layer_map must be one of {', '.join(MAPS)}, or pairs [[teacher's, student's], ...] of layers, got {layer_map}"
    )


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, Sequence) and len(pair) == 2 and all(type(layer) is int for layer in pair)


def matched(layer_map: Any, teacher: ModelShape, student: ModelShape, lowest: int) -> dict[str, list[tuple[int, int]]]:
    """Layer pairs (teacher, student) by stack, counted from 1; 0 is the embeddings, -1 the last layer. `lowest`: 0 if
    embeddings count, else 1. ConfigError if there is no such layer.

    `uniform`: layer i of S is compared with layer i T / S of T (Jiao et al. 2020, TinyBERT, section 4.1), the last with
    the last. `skip` and `last`: all student layers but the last, whose output the heads use, with every (T / S)-th
    layer or with the last ones below the top (Sun et al. 2019, PKD, section 3.2); a single layer with the top.
    """
    return {
        stack: _pairs(layer_map, theirs, student.layers[stack], lowest, stack, teacher, student)
        for stack, theirs in teacher.layers.items()
    }


def _pairs(
    layer_map: Any, theirs: int, ours: int, lowest: int, stack: str, teacher: ModelShape, student: ModelShape
) -> list[tuple[int, int]]:
    if layer_map == "uniform" or (isinstance(layer_map, str) and ours == 1):
        return [(max(1, round(layer * theirs / ours)), layer) for layer in range(1, ours + 1)]
    if layer_map == "skip":
        return [(max(1, layer * (theirs // ours)), layer) for layer in range(1, ours)]
    if layer_map == "last":
        return [(max(1, theirs - ours + layer), layer) for layer in range(1, ours)]
    pairs = []
    for pair in layer_map:
        places = []
        for layer, count, who in zip(pair, (theirs, ours), (teacher, student), strict=True):
            place = layer + count + 1 if layer < 0 else layer
            if not lowest <= place <= count:
                raise ConfigError(
                    f"distill: layer_map names layer {layer}, and the {stack} of {who.what} "
                    f"{'go' if stack == 'layers' else 'goes'} from {lowest} to {count}",
                    "layer_map=uniform, or pairs [[teacher, student], ...] within; -1 is the last layer",
                )
            places.append(place)
        pairs.append((places[0], places[1]))
    return pairs


def check_seen(what: str, teacher: ModelShape, student: ModelShape, attends: bool) -> None:
    """ConfigError unless both networks have the states to compare."""
    for who in (student, teacher):
        if not who.layers:
            raise ConfigError(
                f"distill: {what} compares layers, and those of {who.what} cannot be looked into",
                "nearest: distill=logits",
            )
        if attends and not who.heads:
            raise ConfigError(
                f"distill: {what} compares attention, and {who.what} has no attention maps",
                "nearest: distill=hidden or distill=logits",
            )
    if teacher.layers.keys() != student.layers.keys():
        raise ConfigError(
            f"distill: {what} compares layers, and {teacher.what} has {' and '.join(teacher.layers)}, {student.what} "
            f"{' and '.join(student.layers)}",
            "nearest: distill=logits",
        )
