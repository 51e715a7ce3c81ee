"""Recurrent models as networks; that of a language model carries a state from batch to batch.

There, rows that continue a track (`inputs["track"]`) start from where the track's last row ended; no gradient goes back
there (truncated back-propagation through time, Mikolov et al. 2010). Training and validation have tracks of their own.
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
    """`RecurrentLMForCausalLM` with heads "lm" and those of tasks, over the last position."""

    def __init__(self, model: nn.Module, heads: Mapping[str, int]) -> None:
        super().__init__(model, heads)
        self._tracks: dict[bool, dict[int, State]] = {True: {}, False: {}}
        """Per track its last state, rows of one [1, 1, H]; for training and for everything else. A track that none is
        known of begins blank, as a fresh one does."""

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
        """Let every track go on from where it was when `memory` was taken."""
        self._tracks = {training: dict(tracks) for training, tracks in memory.items()}

    def carried(self) -> dict[str, Tensor]:
        """The training states of the tracks that this process has seen."""
        return {
            f"{track}/{layer}/{part}": value.clone()
            for track, state in self._tracks[True].items()
            for layer, parts in enumerate(state)
            for part, value in enumerate(parts)
        }

    def carry(self, saved: Mapping[str, Tensor]) -> None:
        """Go on from the states that `carried` gave."""
        device = next(self.parameters()).device
        states: dict[int, dict[int, dict[int, Tensor]]] = {}
        for name, value in saved.items():
            track, layer, part = map(int, name.split("/"))
            states.setdefault(track, {}).setdefault(layer, {})[part] = value.to(device)
        self._tracks[True] = {
            track: [tuple(parts[part] for part in sorted(parts)) for _, parts in sorted(layers.items())]
            for track, layers in states.items()
        }

    def checkpoint_activations(self) -> None:
        raise no_checkpointing()

    def _depths(self) -> Sequence[Sequence[nn.Module]]:
        return [[self.model.model.embeddings], *([layer] for layer in self.model.model.layers)]


class RecurrentClassifierNetwork(TransformerNetwork):
    """`RecurrentForSequenceClassification`, whose classifier serves the first task; the others have extra heads."""

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
        """Packed rows go through the layers, so that only the whole of them can be watched, as one."""
        return {"layers": [self.model.model.layers]}

    def checkpoint_activations(self) -> None:
        raise no_checkpointing()


class RecurrentSeq2Seq(Seq2Seq):
    """`RecurrentForConditionalGeneration`."""

    def recordable_stacks(self) -> dict[str, list[nn.Module]]:
        """Its decoder goes position by position through all layers."""
        return {}

    def checkpoint_activations(self) -> None:
        raise no_checkpointing()

    def compile_body(self) -> None:
        raise ConfigError(
            "compile is of no use here: the decoder's loop would be compiled anew for every length of its rows",
            "compile=false",
        )


def refuse_language(heads: Mapping[str, int]) -> None:
    """ConfigError if one of `heads` is for predicting text: both directions of a BiLSTM would see the answer."""
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
