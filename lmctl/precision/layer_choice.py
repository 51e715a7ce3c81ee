"""Selection of layers for low precision: linear layers, except heads and tied weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from transformers.pytorch_utils import Conv1D

from lmctl.core.errors import ConfigError
from lmctl.precision.half_linear import HalfConv1D, HalfLinear

KINDS = (nn.Linear, Conv1D, HalfLinear, HalfConv1D)
HEADS = (
    "*lm_head*",  # decoders, T5, RoBERTa
    "*.cls.*",  # BERT: heads of masked language modelling and next sentence prediction
    "*.decoder",  # ModernBERT: the output layer itself, not layers inside a decoder
    "*.head.*",
    "*.head",
    "*.vocab_*",  # DistilBERT
    "*_predictions.*",  # ELECTRA: the generator's and the discriminator's
    "*.score",
    "*classifier*",
    "*.pooler.*",
    "class_heads.*",
    "*.lora_*",  # adapters
)
"""Names of output heads, of all model families, and of LoRA adapters. Heads decide the output directly with few
products, and with a small vocabulary they are small."""


@dataclass(frozen=True)
class Choice:
    """The selected layers of a network, by name."""

    chosen: dict[str, nn.Module]
    left: list[str]
    """Linear layers that are not converted."""
    weights: int
    """Number of values of all parameters of the network."""

    def say(self, what: str) -> list[str]:
        """Lines for the user: how many layers are converted by `what`, and which are not."""
        elements = sum(sum(p.numel() for p in module.parameters() if p.ndim == 2) for module in self.chosen.values())
        lines = [f"{what}: {len(self.chosen)} linear layers, {elements:,} of {self.weights:,} weights"]
        if self.left:
            lines.append(f"in float: {', '.join(self.left)}; embeddings, norms, biases")
        return lines


def choose(network: nn.Module, exclude: Sequence[str] | None, option: str, group: str = "precision") -> Choice:
    """Select the layers for `option` of `group`: every `nn.Linear` and `Conv1D` whose name matches no pattern of
    `exclude` (None: `HEADS`) and whose weight is not tied. ConfigError if there are none."""
    exclude = HEADS if exclude is None else exclude
    owners = Counter(id(p) for module in network.modules() for p in module.parameters(recurse=False))
    chosen, left = {}, []
    for name, module in linear_layers(network):
        shared = owners[id(module.weight)] > 1
        if shared or any(fnmatchcase(name, pattern) for pattern in exclude):
            left.append(name)
        else:
            chosen[name] = module
    if not chosen:
        found = f"this network has none but {', '.join(left)}, which {group}.exclude or a shared weight keeps in float"
        raise ConfigError(
            f"{group}: {option} works on linear layers, and " + (found if left else "this network has none"),
            "nearest: precision=bf16",
        )
    return Choice(chosen, left, sum(p.numel() for p in network.parameters()))


def linear_layers(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The linear layers of `network` by name, exactly these classes: subclasses (as in `nn.MultiheadAttention`) may use
    their weights outside of `forward`."""
    for name, module in network.named_modules():
        if type(module) in KINDS:
            yield name, module
