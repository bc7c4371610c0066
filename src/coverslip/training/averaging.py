"""Running average of the weights (EMA): often better than the last step's weights, at no cost in steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from coverslip.training.checkpoint import State


class RunningAverage:
    """Exponential moving average of all floating-point weights and buffers of a module.

    The decay is warmed up, min(decay, (1 + t) / (10 + t)), so that the first steps do not linger (as in TensorFlow's
    ExponentialMovingAverage).
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.values: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the module's weights of this step."""
        current = _floating(module)
        if not self.values:
            self.values = {name: tensor.detach().clone() for name, tensor in current.items()}
        self.values = {name: tensor.to(current[name].device) for name, tensor in self.values.items()}
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        names = list(self.values)
        torch._foreach_lerp_([self.values[name] for name in names], [current[name] for name in names], 1 - decay)

    @torch.no_grad()
    def swapped(self, module: nn.Module) -> dict[str, Tensor]:
        """Put the average into the module; give what stood there, for `swapped_back`."""
        before = {name: tensor.detach().clone() for name, tensor in _floating(module).items()}
        self.swapped_back(module, self.values or before)
        return before

    @torch.no_grad()
    def swapped_back(self, module: nn.Module, values: dict[str, Tensor]) -> None:
        """Put values into the module."""
        for name, tensor in _floating(module).items():
            tensor.copy_(values[name])

    def state(self) -> State:
        """What a checkpoint keeps."""
        return {"updates": self.updates, "values": self.values}

    def restore(self, state: State) -> None:
        """The inverse of `state`."""
        self.updates, self.values = int(state["updates"]), state["values"]


def _floating(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in module.state_dict().items() if tensor.is_floating_point()}
