"""How long a fit is: epochs, steps, or a budget of minutes that a few steps were timed for."""

from __future__ import annotations

import math
from dataclasses import dataclass

from coverslip.config import RunConfig

SAFETY = 0.96
"""Share of a budget in minutes that is planned for; the rest absorbs a slower step."""


@dataclass(frozen=True)
class Plan:
    """How long a fit is.

    Attributes:
        steps: optimizer steps in all.
        steps_per_epoch: steps between two looks at the validation part.
        views: augmented copies whose maps a budget allows, where first layers are frozen.
    """

    steps: int
    steps_per_epoch: int
    views: int | None = None


@dataclass(frozen=True)
class Trial:
    """What one step and one scored image cost, in seconds."""

    step_seconds: float
    score_seconds: float


def make_plan(config: RunConfig, rows: int, validation: int, trial: Trial, seconds_left: float | None, looks: int | None = None) -> Plan:
    """Turn epochs, steps or a budget of seconds into a number of steps.

    Args:
        config: epochs, steps, steps per epoch, batch size.
        rows: training images.
        validation: images that are scored at each look.
        trial: measured costs, used only with a budget.
        seconds_left: the budget.
        looks: how often they are scored; once an epoch when None.
    """
    training = config.training
    batch = min(training.batch_size, rows)
    per_epoch = training.steps_per_epoch or max(1, round(rows / batch))
    scoring = trial.score_seconds * validation
    if training.steps is not None:
        steps = training.steps
    elif seconds_left is None:
        steps = training.epochs * per_epoch
    elif looks is None:
        steps = max(1, int(SAFETY * seconds_left / max(trial.step_seconds + scoring / per_epoch, 1e-9)))
    else:
        steps = max(1, int((SAFETY * seconds_left - looks * scoring) / max(trial.step_seconds, 1e-9)))
    return Plan(steps, per_epoch if looks is None else math.ceil(steps / looks))
