"""What a fit makes small, one value an image: cross-entropy for one label, and three losses for several.

Focal loss: Lin et al. 2017, "Focal Loss for Dense Object Detection". Asymmetric loss: Ridnik et al. 2021, "Asymmetric Loss
For Multi-Label Classification".
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from coverslip.config import TrainingConfig
from coverslip.structures import FloatArray


class Loss(Protocol):
    """The loss of each image."""

    def __call__(self, logits: Tensor, targets: Tensor, whole: Tensor | None = None) -> Tensor:
        """Logits (n, classes) and targets to losses, float32 (n,).

        With class weights an image counts as much as it outweighs the mean image of the step: `whole` holds the targets of all of its
        images where these n are only some of them.
        """
        ...


FOCUS = 2.0
"""How much less a decision counts that is right already: the gamma of focal loss, and of the negatives in asymmetric loss doubled."""
MARGIN = 0.05
"""Asymmetric loss: negatives with a probability below this do not count at all."""


def build_loss(config: TrainingConfig, weights: FloatArray, device: torch.device, *, several: bool) -> Loss:
    """The loss that the config names.

    Args:
        config: kind of loss, label smoothing.
        weights: float64 (classes,): of each class, or with several labels of the positives of each class.
        device: where logits and targets are.
        several: whether an image may carry several labels: targets are then (n, classes) of 0 and 1, else (n,) of indices.
    """
    importance = torch.tensor(weights, dtype=torch.float32, device=device)
    if not several:

        def weighted(logits: Tensor, targets: Tensor, whole: Tensor | None = None) -> Tensor:
            smoothing = config.label_smoothing
            losses = functional.cross_entropy(logits.float(), targets, weight=importance, label_smoothing=smoothing, reduction="none")
            return losses / importance[targets if whole is None else whole].mean()

        return weighted
    spread = config.label_smoothing / 2
    kind = {"entropy": _entropy, "focal": _focal, "asymmetric": _asymmetric}[config.loss]

    def loss(logits: Tensor, targets: Tensor, whole: Tensor | None = None) -> Tensor:
        wanted = targets.float() * (1 - 2 * spread) + spread
        share = targets.float() * (importance - 1) + 1
        return (share * kind(logits.float(), wanted)).mean(dim=1)

    return loss


def _entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def _focal(logits: Tensor, targets: Tensor) -> Tensor:
    surprise = (targets - logits.sigmoid()).abs()
    return surprise**FOCUS * _entropy(logits, targets)


def _asymmetric(logits: Tensor, targets: Tensor) -> Tensor:
    score = logits.sigmoid()
    shifted = (score - MARGIN).clamp_min(0)
    positive = -targets * functional.logsigmoid(logits)
    negative = -(1 - targets) * (1 - shifted).clamp_min(1e-8).log() * shifted ** (2 * FOCUS)
    return positive + negative
