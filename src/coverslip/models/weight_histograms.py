"""Histograms of the weights that a network learned, by group of layers: what regularisation does to them can be seen."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from coverslip.models.summary import weight_groups

BINS = 60
GROUPS = 12
"""Most groups of layers."""
REACH = 4.0
"""Deviations on either side of zero that a histogram covers, rounded up; what lies beyond is counted in its outermost bins."""
NEAR_ZERO = 1e-3
"""Weights smaller than this, without their sign, hardly change what a layer says."""


@dataclass(frozen=True)
class WeightHistogram:
    """The weights of a group of layers that learned: filters and matrices, without biases and norms, which do not decay.

    Attributes:
        name: of the group, or `all`.
        weights: how many there are.
        mean: of them.
        deviation: of them, standard.
        near_zero: share of them that is smaller than `NEAR_ZERO` without its sign, in [0, 1].
        edges: `BINS` + 1 rising edges, evenly spaced and symmetric around zero.
        counts: weights in each bin; they add up to `weights`.
    """

    name: str
    weights: int
    mean: float
    deviation: float
    near_zero: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]


def weight_histograms(model: nn.Module) -> list[WeightHistogram]:
    """A histogram of all weights that learned, then one of each group of layers, from the input on; none where all are frozen."""
    groups = [(name, [one for one in tensors if one.requires_grad and one.ndim > 1]) for name, tensors in weight_groups(model, GROUPS)]
    groups = [(name, tensors) for name, tensors in groups if tensors]
    every = [tensor for _, tensors in groups for tensor in tensors]
    return [_histogram(name, tensors) for name, tensors in ([("all", every), *groups] if every else [])]


def weights_json(model: nn.Module) -> dict[str, Any]:
    """The content of weights.json: what `near_zero` means, how many weights are frozen and not counted, and the histograms."""
    frozen = sum(tensor.numel() for tensor in model.parameters() if not tensor.requires_grad)
    return {"near_zero_below": NEAR_ZERO, "frozen": frozen, "groups": [asdict(one) for one in weight_histograms(model)]}


def _histogram(name: str, tensors: Iterable[Tensor]) -> WeightHistogram:
    parts = [tensor.detach().cpu().float().numpy().ravel() for tensor in tensors]
    number = sum(len(part) for part in parts)
    mean = sum(float(part.sum(dtype=np.float64)) for part in parts) / number
    squares = sum(float(np.square(part, dtype=np.float64).sum()) for part in parts) / number
    limit = nice(REACH * math.sqrt(squares))
    edges = np.linspace(-limit, limit, BINS + 1)
    counts = sum((_counted(part, edges) for part in parts), np.zeros(BINS, dtype=np.int64))
    small = sum(int((np.abs(part) < NEAR_ZERO).sum()) for part in parts)
    deviation = math.sqrt(max(squares - mean**2, 0.0))
    return WeightHistogram(name, number, mean, deviation, small / number, tuple(edges.tolist()), tuple(counts.tolist()))


def _counted(values: npt.NDArray[np.float32], edges: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), bins=len(edges) - 1, range=(edges[0], edges[-1]))
    return counts.astype(np.int64)


def nice(value: float) -> float:
    """The next of 1, 2 and 5 times a power of ten that is not below a value, so that networks alike have the same edges; 1 for 0.

    >>> nice(0.13), nice(0.2), nice(3.0), nice(0.0)
    (0.2, 0.2, 5.0, 1.0)
    """
    if not value > 0 or not math.isfinite(value):
        return 1.0
    power = math.floor(math.log10(value))
    return next(round(step * 10.0**power, 12 - power) for step in (1, 2, 5, 10) if step * 10.0**power >= value * (1 - 1e-9))
