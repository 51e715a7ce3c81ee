"""transformers' models as networks: a trunk that gives hidden states, and heads that are computed where they are read.

The vocabulary projection of a small language model costs more than all its layers, so it is applied to the positions
with a target only. Heads that the transformers class of the model has no place for (a classifier beside a language
model, say) live in `class_heads`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from lmctl.core.errors import ConfigError
from lmctl.model.attention_function import choose, document_inputs
from lmctl.model.fused_gelu import fuse_gelus
from lmctl.model.fused_rotary import fuse_rotary
from lmctl.model.recompute import recompute_layers

LANGUAGE = ("mlm", "lm", "pair", "generator", "rtd")
"""Heads that are not named after a task."""
OVER_WORDS = ("mlm", "lm", "generator")
"""Those whose logits are over the vocabulary."""


def class_heads_of(heads: Mapping[str, int]) -> dict[str, int]:
    """The heads that are named after tasks, with their numbers of outputs."""
    return {name: outputs for name, outputs in heads.items() if name not in LANGUAGE}


class TransformerNetwork(nn.Module):
    """What the networks over a transformers model have in common."""

    has_pair_head: ClassVar[bool] = False
    """Whether transformers' model for pre-training has a head for pairs of segments; others get one of ours."""

    def __init__(self, model: Any, heads: Mapping[str, int]) -> None:
        """`heads` without any of LANGUAGE: `model` is a `...ForSequenceClassification`, whose own classifier serves
        the first of them."""
        super().__init__()
        fuse_gelus(model)
        fuse_rotary(model)
        self.model = model
        self.outputs = dict(heads)
        self.report: list[str] = []
        """What was loaded and what is new, for a model that was trained before."""
        self.untrained: list[str] = []
        """Tensors that are new although the model was trained before, by their names."""
        wanted = class_heads_of(heads)
        if "pair" in heads and not self.has_pair_head:
            wanted["pair"] = heads["pair"]
        self.own_head = next(iter(wanted)) if wanted and len(wanted) == len(heads) else None
        """The task whose classifier is the model's own."""
        width = int(model.config.hidden_size)
        rest = {name: outputs for name, outputs in wanted.items() if name != self.own_head}
        linears = {name: nn.Linear(width, outputs) for name, outputs in rest.items()}
        self.class_heads = nn.ModuleDict(linears)
        self.head_dropout = nn.Dropout(_head_dropout(model.config))
        for head in linears.values():
            nn.init.normal_(head.weight, std=getattr(model.config, "initializer_range", 0.02) or 0.02)
            nn.init.zeros_(head.bias)

    def hidden(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Last hidden states [R, L, H]."""
        return self.model.base_model(
            input_ids=inputs["input_ids"],
            **self._who_sees_whom(inputs),
            **{name: inputs[name] for name in ("token_type_ids", "position_ids") if name in inputs},
        ).last_hidden_state

    def _who_sees_whom(self, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        documents = inputs.get("documents")
        if documents is None:
            return {"attention_mask": inputs.get("attention_mask")}
        return document_inputs(documents, self.model)

    def attending(self, choice: str) -> Self:
        """Let a value of `model.attention` say which function computes attention."""
        choose(self.model, choice)
        return self

    def summary(self, hidden: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """One vector per row [R, H]: here the last real position."""
        mask = inputs.get("attention_mask")
        rows = torch.arange(len(hidden), device=hidden.device)
        last = hidden.shape[1] - 1 if mask is None else mask.sum(dim=1) - 1
        return hidden[rows, last]

    def encode(self, inputs: Mapping[str, Tensor], read: Tensor | None) -> Tensor:
        hidden = self.hidden(inputs)
        if read is None:
            return self.summary(hidden, inputs)
        return hidden.reshape(-1, hidden.shape[-1]).index_select(0, read)

    def head(self, name: str, hidden: Tensor) -> Tensor:
        if name in self.class_heads:
            return self.class_heads[name](self.head_dropout(hidden))
        return self.classify(hidden) if name == self.own_head else self.language(name, hidden)

    def language(self, name: str, hidden: Tensor) -> Tensor:
        """Logits [N, V] over the vocabulary."""
        return self.model.get_output_embeddings()(hidden)

    def classify(self, hidden: Tensor) -> Tensor:
        """Logits of the model's own classifier."""
        return self.model.score(hidden)

    def head_width(self, name: str) -> int:
        """Outputs of the named head."""
        return self.outputs[name]

    def head_parameters(self, name: str) -> list[nn.Parameter]:
        """The parameters that `head` computes with."""
        return [parameter for module in self.head_modules(name) for parameter in module.parameters()]

    def head_modules(self, name: str) -> list[nn.Module]:
        """The modules that `head` passes through."""
        if name in self.class_heads:
            return [self.class_heads[name]]
        return self.classifier_modules() if name == self.own_head else self.language_modules(name)

    def language_modules(self, name: str) -> list[nn.Module]:
        return [self.model.get_output_embeddings()]

    def classifier_modules(self) -> list[nn.Module]:
        return [self.model.score]

    def word_embeddings(self) -> nn.Embedding:
        """What makes vectors of the pieces that are read."""
        return self.model.get_input_embeddings()

    def memory(self) -> Any:
        """Nothing is carried from batch to batch."""

    def recall(self, memory: Any) -> None:
        """There is nothing to go on from."""

    def carried(self) -> dict[str, Tensor]:
        """What is carried from batch to batch, for a checkpoint: nothing."""
        return {}

    def layers(self) -> list[list[nn.Parameter]]:
        """Parameters from the embeddings up to the heads."""
        seen: set[int] = set()
        groups = []
        for modules in (*self._depths(), [self]):
            found = {id(p): p for module in modules for p in module.parameters() if id(p) not in seen}
            seen |= found.keys()
            groups.append(list(found.values()))
        return [group for group in groups if group]

    def stacks(self) -> dict[str, list[nn.Module]]:
        """Its layers from the lowest to the highest: "layers"; of an encoder with a decoder "encoder" and "decoder"."""
        stacks = [list(m) for m in self.model.modules() if isinstance(m, nn.ModuleList) and len(m) > 0]
        return {"layers": max(stacks, key=len)}

    def units(self) -> list[nn.Module]:
        """The layers that every pass calls as modules, each at once: those whose weights FSDP gathers by themselves.
        What is outside of them is gathered from the beginning of a pass to its end."""
        return [layer for stack in self.stacks().values() for layer in stack]

    def recordable_stacks(self) -> dict[str, list[nn.Module]]:
        """Those of its `stacks` whose layers give hidden states [R, L, H] by themselves."""
        return self.stacks()

    def compute_every_position(self) -> None:
        """Have every layer compute all positions from now on, read or not, because hooks record them."""

    def _depths(self) -> Sequence[Sequence[nn.Module]]:
        stacks = self.stacks().values()
        layers = [[s[place] for s in stacks if place < len(s)] for place in range(max(map(len, stacks)))]
        return [self._embeddings(), *layers]

    def _embeddings(self) -> list[nn.Module]:
        """Of pieces and positions, with the norm that belongs to them."""
        return [
            module
            for name, module in self.model.named_modules()
            if name.endswith("embeddings") or (isinstance(module, nn.Embedding) and "layer" not in name)
        ]

    def freeze(self, layers: int) -> None:
        """Leave the embeddings and the lowest `layers` layers as they are; -1: everything but the heads."""
        lowest = (p for group in self.layers()[: layers + 1] for p in group)
        for parameter in self.model.base_model.parameters() if layers < 0 else lowest:
            parameter.requires_grad_(False)

    def checkpoint_activations(self) -> None:
        """Recompute each layer in the backward pass instead of keeping its activations."""
        recompute_layers(self.model)

    def compile_body(self) -> None:
        if self.model.is_gradient_checkpointing:
            recompute_layers(self.model, compiled=True)
        self.hidden = torch.compile(self.hidden)  # type: ignore[method-assign]

    def extra_heads(self) -> dict[str, Tensor]:
        """Weights of the heads that `pretrained()` has no place for."""
        return dict(self.class_heads.state_dict())

    def load_extra_heads(self, weights: dict[str, Tensor]) -> list[str]:
        """Take over the heads that there are; says which."""
        fitting = {
            name: value
            for name, value in weights.items()
            if name in (own := self.class_heads.state_dict()) and own[name].shape == value.shape
        }
        self.class_heads.load_state_dict(fitting, strict=False)
        return sorted({name.rsplit(".", 1)[0] for name in fitting})

    def pretrained(self) -> Any:
        return self.model

    def beside(self) -> dict[str, Any]:
        """Further transformers models of an export, by the directory inside the model's own that each is written to."""
        return {}


class Decoder(TransformerNetwork):
    """GPT-2, Llama and their kin: `...ForCausalLM`, or `...ForSequenceClassification` over the last position."""


class Seq2Seq(TransformerNetwork):
    """An encoder with a decoder; hidden states are the decoder's."""

    def __init__(self, model: Any, heads: Mapping[str, int]) -> None:
        if class_heads_of(heads):
            raise ConfigError(
                "classifiers need an encoder or a decoder, and this model is both (seq2seq)", "nearest: model=bert_tiny"
            )
        super().__init__(model, heads)

    def hidden(self, inputs: Mapping[str, Tensor]) -> Tensor:
        mask = inputs.get("attention_mask")
        encoded = self.model.get_encoder()(input_ids=inputs["input_ids"], attention_mask=mask).last_hidden_state
        return self.model.get_decoder()(
            input_ids=inputs["decoder_input_ids"],
            attention_mask=inputs.get("decoder_attention_mask"),
            encoder_hidden_states=encoded,
            encoder_attention_mask=mask,
            use_cache=False,
        ).last_hidden_state

    def word_embeddings(self) -> nn.Embedding:
        return self.model.get_encoder().get_input_embeddings()  # T5's own are tied to these and never called

    def language(self, name: str, hidden: Tensor) -> Tensor:
        if getattr(self.model.config, "scale_decoder_outputs", False):  # T5 with tied embeddings
            hidden = hidden * self.model.model_dim**-0.5
        logits = self.model.get_output_embeddings()(hidden)
        bias = getattr(self.model, "final_logits_bias", None)
        return logits if bias is None else logits + bias.squeeze(0)

    def stacks(self) -> dict[str, list[nn.Module]]:
        sides = {"encoder": self.model.get_encoder(), "decoder": self.model.get_decoder()}
        return {
            name: list(next(m for m in side.modules() if isinstance(m, nn.ModuleList))) for name, side in sides.items()
        }


def _head_dropout(config: Any) -> float:
    names = ("classifier_dropout", "summary_first_dropout", "hidden_dropout_prob", "attention_dropout")
    return next((float(v) for name in names if isinstance(v := getattr(config, name, None), (int, float))), 0.0)
