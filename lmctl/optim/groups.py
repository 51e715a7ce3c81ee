"""Parameter groups of an optimiser: weight decay, and layer-wise learning rate decay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def parameter_groups(module: nn.Module, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Parameter groups: weight decay for matrices; none for biases, norms and other vectors.

    With `layer_decay` below 1 the learning rate falls by that factor per layer, from the heads down to the embeddings
    (Howard and Ruder 2018, section 3.2, "discriminative fine-tuning"; Clark et al. 2020, ELECTRA, appendix B). Each
    group carries the factor as `lr_factor`.
    """
    depth = _depths(module) if layer_decay != 1.0 else {}
    top = max(depth.values(), default=0)
    groups: dict[tuple[bool, float], list[Any]] = {}
    for parameter in module.parameters():
        if parameter.requires_grad:
            factor = layer_decay ** (top - depth.get(id(parameter), top))
            groups.setdefault((parameter.ndim >= 2, factor), []).append(parameter)
    decays = {True: weight_decay, False: 0.0}
    if layer_decay == 1.0:  # always two groups, even if one is empty: the same state layout for every network
        return [{"params": groups.get((matrix, 1.0), []), "weight_decay": decays[matrix]} for matrix in (True, False)]
    return [
        {"params": parameters, "weight_decay": decays[matrix], "lr_factor": factor}
        for (matrix, factor), parameters in groups.items()
    ]


def hidden_matrices(module: nn.Module) -> set[int]:
    """`id()` of the weight matrices inside the layers: without embeddings, heads, and embedding tables in a layer
    (relative positions)."""
    from torch import nn

    stacks: dict[str, list[nn.Module]] = module.stacks()  # type: ignore[operator]
    inside = [one for layers in stacks.values() for layer in layers for one in layer.modules()]
    tables = {id(p) for one in inside if isinstance(one, nn.Embedding) for p in one.parameters()}
    return {id(p) for one in inside for p in one.parameters(recurse=False) if p.ndim == 2} - tables


def _depths(module: nn.Module) -> dict[int, int]:
    """Layer number of each parameter, by `id()`, from the embeddings up; tied weights count for the lowest."""
    depths: dict[int, int] = {}
    layers: list[list[nn.Parameter]] = module.layers()  # type: ignore[operator]
    for place, parameters in enumerate(layers):
        for parameter in parameters:
            depths.setdefault(id(parameter), place)
    return depths
