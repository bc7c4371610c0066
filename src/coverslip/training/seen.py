"""What the steps of a fit have shown since its history was written last: their losses, and their decisions counted by class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from coverslip.evaluation.multilabel_metrics import counted_scores
from coverslip.structures import FloatArray
from coverslip.training.batches import Batch
from coverslip.training.ranks import ALONE, Ranks


@dataclass
class Seen:
    """Losses and decisions of training batches, as they were learned from: augmented, and before the weights moved.

    Attributes:
        losses: one a step.
        counts: float64 (3, classes): images that were rightly taken for a class, those of the class, those taken for it.
    """

    losses: list[float]
    counts: FloatArray

    @classmethod
    def nothing(cls, classes: int) -> Seen:
        """Before the first step."""
        return cls([], np.zeros((3, classes)))

    def add(self, loss: Tensor, logits: Tensor, batch: Batch, ranks: Ranks = ALONE) -> None:
        """Take note of a step of all processes: the mean of their losses, and float (n, classes) logits against the targets of the batch.

        A class counts as decided for where its logit is the largest, or above 0 (a probability of 0.5) with several labels an image.
        """
        targets, classes = batch.shown, logits.shape[1]
        if targets.ndim == 2:
            true, chosen = targets == 1, logits > 0
        else:
            true, chosen = (functional.one_hot(each, classes).bool() for each in (targets, logits.argmax(dim=1)))
        found = torch.stack([true & chosen, true, chosen]).sum(dim=1)
        mine = np.concatenate([[float(loss.detach()) / ranks.size], found.cpu().numpy().ravel().astype(np.float64)])
        total = ranks.summed(mine)
        self.losses.append(float(total[0]))
        self.counts = self.counts + total[1:].reshape(found.shape)

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes with images; undefined (NaN) before the first step."""
        known = self.counts[1] > 0
        return float(counted_scores(*self.counts)["f1"][known].mean()) if known.any() else float("nan")
