"""LoRA (Hu et al. 2022) through peft: frozen weights, and a trainable low-rank pair of matrices at each projection."""

from __future__ import annotations

from typing import Any

from lmctl.core.errors import ConfigError
from lmctl.core.model_copies import restored_copy
from lmctl.model.network import TransformerNetwork


def add_lora(network: TransformerNetwork, rank: int, alpha: float, dropout: float, targets: list[str] | None) -> None:
    """Add adapters of `rank` to the modules named by `targets` (None: peft's default for the architecture) and freeze
    the rest except new heads; `network.pretrained()` then returns the model with the adapters merged."""
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
        return restored_copy(held[0]).float().merge_and_unload()  # type: ignore[operator]

    network.pretrained = merged  # type: ignore[method-assign]
    trained, total = wrapper.get_nb_trainable_parameters()
    network.report.append(f"LoRA of rank {rank}: {trained:,} of {total:,} weights learn")
