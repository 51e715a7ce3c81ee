"""The weights that a run validates and exports: the newest ones, a running average of them, or what all workers have in
common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from lmctl.average.base import Average


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable parameters by name; a shared one has its first name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


class CurrentWeights:
    """The newest weights of a network as they are; also the base of averages."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.mean: dict[str, Tensor] = {}
        """The average, where there is one, by the names of parameters."""

    def follow(self, progress: float) -> None:
        """Take in the weights after a step that was taken, before which `progress` of the budget was spent."""

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Context in which the network has the weights that are validated."""
        yield

    def settle(self) -> None:
        """Training is over: leave these weights in the network for good."""

    def tensors(self) -> dict[str, Tensor]:
        """These weights by the names of the network's state, not copied; with everything else that the state has."""
        return self.network.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs besides `tensors`."""
        return {}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint whose `tensors` the network has already. ValueError for a state that is not of this
        network."""
        running, parameters = state.get("running", {}), dict(self.network.named_parameters())
        for name, value in running.items():
            if name not in parameters or parameters[name].shape != value.shape:
                raise ValueError(f"its average is not of this network's weights ({name})")
            parameters[name].copy_(value)


class OtherWeights(CurrentWeights):
    """Weights that are validated and exported in place of the newest ones, on their device. All workers of a run have
    the same ones: nothing is exchanged for them."""

    def __init__(self, network: nn.Module, mean: Mapping[str, Tensor]) -> None:
        """`mean`: a tensor for each trainable parameter of `network`, by its name, which somebody keeps up."""
        super().__init__(network)
        self.settled = False
        self.running = trainable(network)
        """The newest weights: the network's own parameters."""
        self.mean = {name: mean[name] for name in self.running}

    @contextmanager
    def in_use(self) -> Iterator[None]:
        if self.settled:
            yield
            return
        kept = [p.detach().clone() for p in self.running.values()]
        self._put(self.mean.values())
        try:
            yield
        finally:
            self._put(kept)

    def settle(self) -> None:
        self._put(self.mean.values())
        self.settled = True

    @torch.no_grad()
    def _put(self, values: Any) -> None:
        """Copy `values` into the network, in place: whoever keeps something made from its weights sees that they have
        changed."""
        for parameter, value in zip(self.running.values(), values, strict=True):
            parameter.copy_(value)

    def tensors(self) -> dict[str, Tensor]:
        mean = {id(p): self.mean[name] for name, p in self.running.items()}
        state = self.network.state_dict(keep_vars=True)  # tied weights have several names there
        return {name: mean.get(id(tensor), tensor.detach()) for name, tensor in state.items()}


class AveragedWeights(OtherWeights):
    """The average of the trainable weights. All workers have the same weights, and so the same average."""

    def __init__(self, network: nn.Module, rule: Average) -> None:
        super().__init__(network, {name: p.detach().clone() for name, p in trainable(network).items()})
        self.rule = rule
        self.averaged = 0
        """Number of steps in the average."""

    @torch.no_grad()
    def follow(self, progress: float) -> None:
        newest = 1.0
        if progress >= self.rule.begins:
            newest = self.rule.newest(self.averaged)
            self.averaged += 1
        torch._foreach_lerp_(list(self.mean.values()), list(self.running.values()), newest)

    def state_dict(self) -> dict[str, Any]:
        return {"averaged": self.averaged, "running": {name: p.detach() for name, p in self.running.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Without a state, of a run that had no average, one begins with the weights that are there."""
        averaged = state.get("averaged", 0)
        if type(averaged) is not int or averaged < 0:
            raise ValueError(f"its average has had {averaged!r} steps")
        self.averaged = averaged
        for name, mean in self.mean.items():
            mean.copy_(self.running[name].detach())
        super().load_state_dict(state)
