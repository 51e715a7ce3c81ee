"""Initialising a student from a subset of its teacher's layers (Sanh et al. 2019, section 3, "Student initialization").

Embeddings, norms and heads are copied unchanged, and layer i of the student from layer `keep[i]` of the teacher. The
student then computes what the teacher would compute without its other layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from lmctl.core.errors import ConfigError
from lmctl.core.vocabulary import NO_PIECE
from lmctl.model.layer_selection import Keep, kept, sides

KEY = "student.from_teacher"
FIRST_ONLY = "relative_attention_bias.weight"
"""T5 stores the relative position bias of all layers in the first one, so it is copied from there whichever layers are
kept."""

Origins: TypeAlias = "dict[str, str]"
"""Name of the student's tensor -> name of the teacher's tensor."""


class Stack(NamedTuple):
    """A stack of layers (the encoder's, the decoder's)."""

    name: str
    depth: int


def stacks_of(model: nn.Module) -> list[Stack]:
    """Every list of layers that is not inside another layer."""
    found: list[Stack] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{stack.name}.") for stack in found)
        if isinstance(module, nn.ModuleList) and len(module) and not inside:
            found.append(Stack(name, len(module)))
    return found


def origins(student: Any, teacher: Any, keep: Keep) -> Origins:
    """The teacher's tensor for each tensor of the network `student`; both may be on the meta device. ConfigError unless
    the student has the teacher's architecture and widths and no more layers."""
    ours, theirs = student.model.config, teacher.model.config
    if ours.model_type != theirs.model_type:
        raise ConfigError(
            f"{KEY}: the student is of type {ours.model_type} and the teacher of type {theirs.model_type}", _REMEDY
        )
    chosen = _kept_layers(stacks_of(student), stacks_of(teacher), keep)
    _check_kinds(ours, theirs, keep)
    values, sources = student.state_dict(), teacher.state_dict()
    result: Origins = {}
    for name, value in values.items():
        origin = _origin(name, chosen)
        if origin not in sources and name.endswith(FIRST_ONLY):
            origin = name
        if origin not in sources:
            raise _other_parts(name, "the student has", "the teacher's layer there has none")
        if not _fits(value, sources[origin], student, teacher):
            raise ConfigError(
                f"{KEY}: {name.removeprefix('model.')} is {_shape(value)} in the student and "
                f"{_shape(sources[origin])} in the teacher; only a student of its widths can begin with its layers",
                _REMEDY,
            )
        result[name] = origin
    kept_layers = tuple(f"{stack}.{layer}." for stack, layers in chosen.items() for layer in layers)
    used = set(result.values())
    for name in sources:
        if name.startswith(kept_layers) and name not in used and not name.endswith(FIRST_ONLY):
            raise _other_parts(name, "the teacher has", "the student's layer there has no place for it")
    return result


def inherit(student: Any, teacher: Any, keep: Keep, numbers: np.ndarray | None = None) -> list[str]:
    """Copy the kept layers from the network `teacher` into the network `student`; returns a description.

    Both are on one device. `numbers` int64 [V]: the teacher's id of each of the student's tokens, NO_PIECE if it has
    none (these rows keep their random initialisation); None: both have the same vocabulary.
    """
    named = origins(student, teacher, keep)
    values, sources = student.state_dict(), teacher.state_dict()
    with torch.no_grad():
        for name, origin in named.items():
            axis = _vocabulary_axis(values[name], sources[origin], student, teacher)
            if axis is None:
                values[name].copy_(sources[origin])
            else:
                _copy_pieces(values[name], sources[origin], axis, numbers)
    chosen = _kept_layers(stacks_of(student), stacks_of(teacher), keep)
    layers = [f"{name.removeprefix('model.')} {', '.join(map(str, places))}" for name, places in chosen.items()]
    return [f"layers of the teacher: {'; '.join(layers)}", f"{len(named)} tensors copied"]


def _kept_layers(students: list[Stack], teachers: list[Stack], keep: Keep) -> dict[str, list[int]]:
    """By stack, the teacher's layer for each of the student's."""
    if [stack.name for stack in students] != [stack.name for stack in teachers]:
        raise ConfigError(f"{KEY}: student and teacher are not built alike", _REMEDY)
    return {ours.name: kept(keep, ours.depth, theirs.depth) for ours, theirs in zip(students, teachers, strict=True)}


def _origin(name: str, chosen: Mapping[str, list[int]]) -> str:
    for stack, layers in chosen.items():
        if name.startswith(f"{stack}."):
            place, _, rest = name.removeprefix(f"{stack}.").partition(".")
            return f"{stack}.{layers[int(place)]}.{rest}"
    return name


def _check_kinds(ours: Any, theirs: Any, keep: Keep) -> None:
    """ConfigError unless layers of several kinds (local and global attention) are of the kind that the config requires
    at their index."""
    kinds, known = getattr(ours, "layer_types", None), getattr(theirs, "layer_types", None)
    if not kinds or not known:
        return
    wanted = [known[layer] for layer in kept(keep, len(kinds), len(known))]
    if wanted != list(kinds):
        place = next(i for i, (a, b) in enumerate(zip(wanted, kinds, strict=True)) if a != b)
        raise ConfigError(
            f"{KEY}={keep}: layer {place} of the student is made for {kinds[place]}, and the teacher's layer for that "
            f"place for {wanted[place]}",
            _REMEDY,
        )


def _other_parts(name: str, who: str, lacking: str) -> ConfigError:
    return ConfigError(
        f"{KEY}: {who} {name.removeprefix('model.')}, and {lacking}: the first layer is unlike the others here",
        f"{KEY}=uniform or first, or a list that begins with 0",
    )


def _vocabulary_axis(value: Tensor, source: Tensor, student: Any, teacher: Any) -> int | None:
    """The axis of a tensor with one entry per token; None if there is none."""
    ours, theirs = (net.model.get_input_embeddings().num_embeddings for net in (student, teacher))
    for axis, sizes in enumerate(zip(value.shape, source.shape, strict=False)):
        others = value.shape[:axis] + value.shape[axis + 1 :] == source.shape[:axis] + source.shape[axis + 1 :]
        if sizes == (ours, theirs) and value.dim() == source.dim() and others:
            return axis
    return None


def _fits(value: Tensor, source: Tensor, student: Any, teacher: Any) -> bool:
    return value.shape == source.shape or _vocabulary_axis(value, source, student, teacher) is not None


def _copy_pieces(value: Tensor, source: Tensor, axis: int, numbers: np.ndarray | None) -> None:
    size = min(value.shape[axis], source.shape[axis])
    numbers = np.arange(size) if numbers is None else numbers
    own = np.flatnonzero(numbers != NO_PIECE)
    ours, theirs = (torch.from_numpy(places).to(value.device) for places in (own, numbers[own]))
    value.index_copy_(axis, ours, source.index_select(axis, theirs).to(value.dtype))


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))


_REMEDY = f"leave model= out: {KEY}=uniform model.layers=N is the teacher with N of its layers"


def cut(config: Any, keep: Keep, layers: int | None, decoder_layers: int | None) -> None:
    """Set the number of layers in a transformers config (`decoder_layers` for the decoder; None: all, or as many as
    `keep` lists)."""
    listed = len(keep) if isinstance(keep, list) else None
    wanted: int | None = layers if layers is not None else listed
    if wanted is None:
        raise ConfigError("'model.layers' is required", "how many of the teacher's layers the student has")
    for place, name in enumerate(sides(config)):
        depth = getattr(config, name)
        number = wanted
        if place and decoder_layers is not None:
            number = decoder_layers
        chosen = kept(keep, number, depth)
        if (kinds := getattr(config, "layer_types", None)) is not None:
            config.layer_types = [kinds[layer] for layer in chosen]
        setattr(config, name, number)
