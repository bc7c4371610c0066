"""Heads: from a backbone's vector to one score a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

MULTI = ((512, 0.25), (256, 0.5))
"""Hidden units and the dropout behind them, of the `multi` head."""
DROPOUT = 0.25
"""Dropout behind each hidden layer of given size."""


def build_head(head: Literal["single", "multi"] | Sequence[int], features: int, classes: int) -> nn.Module:
    """A head with random weights, from torch's current generator.

    Args:
        head: `single`, one linear layer; `multi`, 512 ReLU dropout 0.25, 256 ReLU dropout 0.5, linear; or the sizes of
            hidden layers, each with ReLU and dropout 0.25.
        features: length of the vector that comes in.
        classes: number of scores that go out.

    >>> build_head([64], features=512, classes=3)
    Sequential(
      (0): Linear(in_features=512, out_features=64, bias=True)
      (1): ReLU()
      (2): Dropout(p=0.25, inplace=False)
      (3): Linear(in_features=64, out_features=3, bias=True)
    )
    """
    if head == "single":
        return nn.Linear(features, classes)
    hidden = MULTI if head == "multi" else [(int(units), DROPOUT) for units in head]
    layers: list[nn.Module] = []
    for units, dropout in hidden:
        layers += [nn.Linear(features, units), nn.ReLU(), nn.Dropout(dropout)]
        features = units
    return nn.Sequential(*layers, nn.Linear(features, classes))
