"""LoRA (Hu et al. 2022) through peft: frozen weights, and a trainable low-rank pair of matrices at each projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lmctl.core.errors import ConfigError
from lmctl.core.model_copies import restored_copy
from lmctl.core.shards import is_sharded, whole
from lmctl.model.network import TransformerNetwork


def add_lora(network: TransformerNetwork, rank: int, alpha: float, dropout: float, targets: list[str] | None) -> None:
    """Add adapters of `rank` to the modules named by `targets` (None: peft's default for the architecture) and freeze
    the rest except new heads; `network.pretrained()` then returns the model with the adapters merged, or, where weights
    are sharded, still beside them (see `merged_tensors`)."""
    from peft import LoraConfig, get_peft_model

    own = ["classifier", "score"] if network.own_head is not None else None
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets, modules_to_save=own, bias="none"
    )
    try:
        wrapper: Any = get_peft_model(network.model, config)
    except ValueError as error:
        names = sorted({name.rsplit(".", 1)[-1] for name, m in network.model.named_modules() if hasattr(m, "weight")})
        raise ConfigError(
            f"model.lora_targets: {str(error).strip().splitlines()[0]}", f"modules: {', '.join(names)}"
        ) from error
    # peft wraps the model in place; a list, so that its parameters are not registered a second time.
    held = [wrapper]

    def merged() -> Any:
        if any(map(is_sharded, network.parameters())):
            return network.model
        return restored_copy(held[0]).float().merge_and_unload()  # type: ignore[operator]

    network.pretrained = merged  # type: ignore[method-assign]
    trained, total = wrapper.get_nb_trainable_parameters()
    network.report.append(f"LoRA of rank {rank}: {trained:,} of {total:,} weights learn")


@dataclass(frozen=True)
class AdaptedWeight:
    """A sharded weight with its adapter, to be merged when it is written."""

    base: Tensor
    down: Tensor
    up: Tensor
    scale: float
    transposed: bool
    """Whether the base has its inputs first (GPT-2)."""

    @property
    def shape(self) -> torch.Size:
        return self.base.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.base.dtype

    def element_size(self) -> int:
        return self.base.element_size()

    def whole(self) -> Tensor:
        """W + s B A, as peft computes it. A collective operation."""
        product = whole(self.up) @ whole(self.down)
        return whole(self.base) + (product.T if self.transposed else product) * self.scale


def merged_tensors(model: Any) -> dict[str, Tensor | AdaptedWeight]:
    """The tensors of a sharded transformers model by name, as it is without adapters; a tied one under its first name.
    Without adapters, all of its tensors."""
    state = model.state_dict(keep_vars=True)
    found: dict[int, tuple[str, Tensor | AdaptedWeight]] = {}
    for name, tensor in state.items():
        if ".lora_" in name or ".original_module." in name:
            continue
        value = tensor
        if name.endswith(".base_layer.weight"):
            value = _adapted(tensor, model.get_submodule(name.removesuffix(".base_layer.weight")))
        plain = name.replace(".base_layer.", ".").replace(".modules_to_save.default.", ".")
        found.setdefault(id(tensor), (plain, value))
    return dict(found.values())


def _adapted(base: Tensor, layer: Any) -> AdaptedWeight:
    """The weight of peft's `layer`, a linear one or a table of embeddings."""
    ((which, scale),) = layer.scaling.items()
    if layer.lora_A:
        return AdaptedWeight(base, layer.lora_A[which].weight, layer.lora_B[which].weight, scale, layer.fan_in_fan_out)
    return AdaptedWeight(base, layer.lora_embedding_A[which], layer.lora_embedding_B[which], scale, transposed=True)
