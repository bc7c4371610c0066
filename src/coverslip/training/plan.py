"""How long a fit is: epochs, steps, or a budget of minutes that a few steps were timed for, and that is kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from coverslip.config import RunConfig

SAFETY = 0.96
"""Share of a budget in minutes that is planned for; the rest absorbs a slower step."""
CHECKS = 100
"""How often in a fit it is asked whether the time will do."""
EARLY = 0.1
"""Share of the steps, or of their time, from which nothing is concluded yet."""
MANY_MORE = 1.1
"""Times as many steps as are planned, beyond which a budget that holds them gets them: a plan that stands can be repeated."""


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


class Pace:
    """Keeps a fit to its budget where the machine becomes slower, or much faster, than it was when its steps were timed.

    Attributes:
        steps: from the first one on, as they are planned by now.

    Args:
        planned: steps at the beginning.
        seconds: the budget, from now on.
        clock: tells the time, in seconds.
    """

    def __init__(self, planned: int, seconds: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self.planned, self.steps, self.seconds, self.clock = planned, planned, seconds, clock
        self.began = self.first_step = clock()

    def start(self) -> None:
        """The first step begins: what came before it says nothing of the steps."""
        self.first_step = self.clock()

    def ask(self, taken: int) -> int:
        """How many steps there will be: fewer where the budget holds fewer at the pace of those taken, more where it holds many more.

        Nothing is concluded from the first of them, up to a tenth of the steps or of the budget.

        Args:
            taken: since `start`, at least 1.
        """
        now = self.clock()
        spent = now - self.first_step
        if spent > 0 and (taken >= EARLY * self.planned or spent >= EARLY * self.seconds):
            most, safe = (taken + max(1, int((share * self.seconds + self.began - now) * taken / spent)) for share in (1.0, SAFETY))
            self.steps = most if most < self.steps else safe if safe > MANY_MORE * self.steps else self.steps
        return self.steps
