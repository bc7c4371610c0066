"""The number that an explanation explains: the log-odds of a label."""

from __future__ import annotations

import torch
from torch import Tensor


def log_odds(logits: Tensor, *, several: bool) -> Tensor:
    """Log-odds of each label, float (n, classes): log(p / (1 - p)).

    With one label an image p is the softmax, so that it counts what speaks for a label against all others; with several it is the
    sigmoid, and the log-odds are the logits.

    >>> log_odds(torch.tensor([[2.0, 0.0]]), several=False).tolist(), log_odds(torch.tensor([[2.0, 0.0]]), several=True).tolist()
    ([[2.0, -2.0]], [[2.0, 0.0]])
    """
    if several:
        return logits
    classes = logits.shape[1]
    others = logits[:, None, :].expand(-1, classes, -1).masked_fill(torch.eye(classes, dtype=torch.bool, device=logits.device), -torch.inf)
    return logits - others.logsumexp(dim=2)
