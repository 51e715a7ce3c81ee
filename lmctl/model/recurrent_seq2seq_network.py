"""A recurrent encoder-decoder as a network."""

from __future__ import annotations

from torch import nn

from lmctl.core.errors import ConfigError
from lmctl.model.network import Seq2Seq
from lmctl.model.recurrent_network import no_checkpointing


class RecurrentSeq2Seq(Seq2Seq):
    """`RecurrentForConditionalGeneration`."""

    def to_be_seen(self) -> dict[str, list[nn.Module]]:
        """Its decoder goes position by position through all layers."""
        return {}

    def checkpoint_activations(self) -> None:
        raise no_checkpointing()

    def compile_body(self) -> None:
        raise ConfigError(
            "compile is of no use here: the decoder's loop would be compiled anew for every length of its rows",
            "compile=false",
        )
