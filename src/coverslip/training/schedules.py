"""Learning-rate schedules: pure functions of the step, as a share of the largest learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

from coverslip.config import TrainingConfig

THIRDS = (1 / 3, 2 / 3)
WARM_UP = 0.05
ONE_CYCLE_RISE = 0.25
PLATEAU_FACTOR = 0.5
PLATEAU_PATIENCE = 2


def rate(schedule: str, step: int, total: int, at: Sequence[float] = THIRDS, factor: float = 0.1) -> float:
    """The share of the largest learning rate at a step.

    Args:
        schedule: `constant`, `step` (times `factor` at each of `at`), `cosine` (linear warm-up over 5 % of the steps,
            then half a cosine to zero) or `onecycle` (Smith and Topin 2017: a cosine rise over a quarter of the steps,
            then a cosine fall). `plateau` depends on the validation loss; see `Plateau`.
        step: 0 to total - 1.
        total: number of steps in all.
        at: of `step`, shares of the steps, in [0, 1].
        factor: of `step`, in (0, 1].

    Returns:
        A share in [0, 1].

    >>> [round(rate("step", step, 9), 2) for step in (0, 3, 8)]
    [1.0, 0.1, 0.01]
    >>> [round(rate("step", step, 10, [0.5], 0.3), 2) for step in (0, 4, 5, 9)]
    [1.0, 1.0, 0.3, 0.3]
    """
    if schedule == "step":
        return factor ** sum(step >= share * total for share in at)
    if schedule == "cosine":
        return _rise_and_fall(step, total, WARM_UP, start=0.0, straight=True)
    if schedule == "onecycle":
        return _rise_and_fall(step, total, ONE_CYCLE_RISE, start=0.04, straight=False)
    return 1.0


def planned_rate(training: TrainingConfig, step: int, total: int) -> float:
    """The share of the largest learning rate that a config plans for a step; 1 for `plateau`."""
    return rate(training.schedule, step, total, training.step_at, training.step_factor)


def _rise_and_fall(step: int, total: int, share: float, start: float, *, straight: bool) -> float:
    rise = max(1.0, share * total)
    if step + 1 < rise:
        progress = (step + 1) / rise
        return start + (1 - start) * (progress if straight else (1 - math.cos(math.pi * progress)) / 2)
    progress = (step + 1 - rise) / max(total - rise, 1.0)
    return (1 + math.cos(math.pi * min(progress, 1.0))) / 2


class Plateau:
    """Halves the learning rate at the third evaluation in a row whose validation loss is not below the best one."""

    def __init__(self) -> None:
        self.share = 1.0
        self.best = math.inf
        self.waited = 0

    def update(self, loss: float) -> None:
        """Take note of a validation loss."""
        if loss < self.best:
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > PLATEAU_PATIENCE:
            self.share, self.waited = self.share * PLATEAU_FACTOR, 0

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {"share": self.share, "best": self.best, "waited": self.waited}

    def restore(self, state: dict[str, float]) -> None:
        """The inverse of `state`."""
        self.share, self.best, self.waited = state["share"], state["best"], int(state["waited"])
