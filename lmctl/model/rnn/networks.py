"""Recurrent models as trainable networks; that of a language model carries its state from batch to batch.

Rows that continue a track (`inputs["track"]`) start from the final state of the track's last row, detached (truncated
back-propagation through time, Mikolov et al. 2010). Training and validation have separate tracks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lmctl.core.errors import ConfigError
from lmctl.model.network import LANGUAGE, Seq2Seq, TransformerNetwork
from lmctl.model.rnn.language_model import State


class RecurrentNetwork(TransformerNetwork):
    """`RecurrentLMForCausalLM` with the head "lm" and classifier heads of tasks, on the last position."""

    def __init__(self, model: nn.Module, heads: Mapping[str, int]) -> None:
        super().__init__(model, heads)
        self._tracks: dict[bool, dict[int, State]] = {True: {}, False: {}}
        """Last state of each track, [1, 1, H] per layer; separately for training and evaluation. A track without one
        starts from zeros, as a fresh row does."""

    def hidden(self, inputs: Mapping[str, Tensor]) -> Tensor:
        if "track" not in inputs:
            return self.model.model(inputs["input_ids"])[0]
        tracks, fresh = inputs["track"].tolist(), inputs["fresh"].tolist()
        known = self._tracks[self.training]
        before: State | None = None
        found = {track: known[track] for track, new in zip(tracks, fresh, strict=True) if not new and track in known}
        if found:
            blank = [tuple(torch.zeros_like(part) for part in layer) for layer in next(iter(found.values()))]
            rows = [found.get(track, blank) for track in tracks]
            before = [
                tuple(torch.cat(parts, dim=1) for parts in zip(*(row[layer] for row in rows), strict=True))
                for layer in range(len(blank))
            ]
        hidden, after = self.model.model(inputs["input_ids"], before)
        for place, track in enumerate(tracks):
            known[track] = [tuple(part[:, place : place + 1].detach() for part in layer) for layer in after]
        return hidden

    def memory(self) -> Any:
        """The states of all tracks; they are never changed in place."""
        return {training: dict(tracks) for training, tracks in self._tracks.items()}

    def recall(self, memory: Any) -> None:
        """Restore the states of all tracks from `memory`."""
        self._tracks = {training: dict(tracks) for training, tracks in memory.items()}

    def carried(self) -> dict[str, Tensor]:
        """The training states of the tracks in this process."""
        return {
            f"{track}/{layer}/{part}": value.clone()
            for track, state in self._tracks[True].items()
            for layer, parts in enumerate(state)
            for part, value in enumerate(parts)
        }

    def carry(self, saved: Mapping[str, Tensor]) -> None:
        """Restore the states from `carried`."""
        device = next(self.parameters()).device
        states: dict[int, dict[int, dict[int, Tensor]]] = {}
        for name, value in saved.items():
            track, layer, part = map(int, name.split("/"))
            states.setdefault(track, {}).setdefault(layer, {})[part] = value.to(device)
        self._tracks[True] = {
            track: [tuple(parts[part] for part in sorted(parts)) for _, parts in sorted(layers.items())]
            for track, layers in states.items()
        }

    def units(self) -> list[nn.Module]:
        """None with weight dropout, which takes weights out of their layer before it is called."""
        return [] if self.model.config.weight_drop else super().units()

    def checkpoint_activations(self) -> None:
        raise no_checkpointing()

    def _depths(self) -> Sequence[Sequence[nn.Module]]:
        return [[self.model.model.embeddings], *([layer] for layer in self.model.model.layers)]


class RecurrentClassifierNetwork(TransformerNetwork):
    """`RecurrentForSequenceClassification`, whose own classifier is the first task's; other tasks have extra heads."""

    def __init__(self, model: nn.Module, heads: Mapping[str, int]) -> None:
        refuse_language(heads)
        super().__init__(model, heads)

    def summary(self, hidden: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.model.model.pooled(hidden, inputs.get("attention_mask"))

    def classify(self, hidden: Tensor) -> Tensor:
        return self.model.classifier(self.model.dropout(hidden))

    def classifier_modules(self) -> list[nn.Module]:
        return [self.model.classifier]

    def recordable_stacks(self) -> dict[str, list[nn.Module]]:
        """The layers as one unit: packed sequences pass through them, so single layers cannot be recorded."""
        return {"layers": [self.model.model.layers]}

    def checkpoint_activations(self) -> None:
        raise no_checkpointing()


class RecurrentSeq2Seq(Seq2Seq):
    """`RecurrentForConditionalGeneration`."""

    def recordable_stacks(self) -> dict[str, list[nn.Module]]:
        """No layers: the decoder runs position by position through all of them, so none can be recorded."""
        return {}

    def units(self) -> list[nn.Module]:
        """The encoder's: the decoder computes with its cells' weights, and never calls a cell."""
        return self.stacks()["encoder"]

    def checkpoint_activations(self) -> None:
        raise no_checkpointing()

    def compile_body(self) -> None:
        raise ConfigError(
            "compile is of no use here: the decoder's loop would be compiled anew for every length of its rows",
            "compile=false",
        )


def refuse_language(heads: Mapping[str, int]) -> None:
    """ConfigError for a language model head: the backward direction of a BiLSTM would see the target."""
    names = {"mlm": "masked language model head", "lm": "language model head", "pair": "head for pairs of segments"}
    for name in LANGUAGE:
        if name in heads:
            raise ConfigError(
                f"a BiLSTM has no {names[name]}", "nearest: model=bert_tiny, or for this model mix=classify"
            )


def no_checkpointing() -> ConfigError:
    """The error for gradient checkpointing of a recurrent network."""
    return ConfigError(
        "gradient_checkpointing is for Transformers: a recurrent network is walked through position by position",
        "less memory: a smaller batch.seq_len or batch.micro",
    )
