"""How long a search, its trials and its final trainings may take. Pure arithmetic."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coverslip.config import TrainingConfig

TRIALS = 30
"""Trials where neither their number nor a time is given."""
FINAL_SHARE = 0.15
"""Largest share of the minutes of a whole search that each of its two final trainings may have."""
FINALS = 2
"""Trainings in full at the end: the best configuration, and the defaults beside it."""
AROUND = 10.0
"""Seconds for what lies around a final training: scoring, intervals, bundle."""


@dataclass(frozen=True)
class Budget:
    """What a search may use.

    Attributes:
        trials: how many are made, of each kind; None where only time ends the search.
        seconds: for everything from the first look at the data to the verdict; None where only the number of trials counts.
        full: layer of `training` that gives the final trainings their length.
        short: layer of `training` that gives a trial its length.
        note: a sentence when the final trainings are shorter than was stated; empty otherwise.
    """

    trials: int | None
    seconds: float | None
    full: dict[str, Any]
    short: dict[str, Any]
    note: str = ""

    @property
    def sentence(self) -> str:
        """How long, in words."""
        limits = [] if self.trials is None else [f"{self.trials} trials"]
        limits += [] if self.seconds is None else [f"{self.seconds / 60:g} minutes for everything"]
        return f"{', at most '.join(limits)}; a trial trains for {_length(self.short)}, the final model for {_length(self.full)}"

    def reserve(self, trial_seconds: Sequence[float], share: float) -> float:
        """Seconds that the final trainings will take.

        Args:
            trial_seconds: of trials that trained to their end.
            share: length of a trial as a share of a final training.
        """
        minutes = self.full.get("minutes")
        each = 60 * minutes if minutes else max(trial_seconds, default=0.0) / share
        return FINALS * (each + AROUND)

    def allows(self, made: int, spent: float, trial_seconds: Sequence[float], share: float, *, kinds: int = 1) -> bool:
        """Whether one more trial of each kind may begin.

        Args:
            made: trials of each kind so far.
            spent: seconds since the search began.
            trial_seconds: of trials that trained to their end.
            share: length of a trial as a share of a final training.
            kinds: how many trials are made in turn.
        """
        if self.trials is not None and made >= self.trials:
            return False
        if self.seconds is None or made == 0:
            return True
        expected = kinds * statistics.median(trial_seconds) if trial_seconds else 0.0
        return spent + expected + self.reserve(trial_seconds, share) <= self.seconds


def plan_budget(training: TrainingConfig, share: float, trials: int | None, minutes: float | None) -> Budget:
    """From what was asked to lengths.

    The length of a full training is the base's own: steps, minutes or epochs. Of stated minutes a final training takes at most
    `FINAL_SHARE` of the whole search, so that there is time left to search.

    Args:
        training: of the base.
        share: length of a trial as a share of a full training.
        trials: as asked.
        minutes: as asked.

    >>> plan_budget(TrainingConfig(epochs=20), 0.1, None, None)
    Budget(trials=30, seconds=None, full={'epochs': 20}, short={'epochs': 2}, note='')
    """
    trials = TRIALS if trials is None and minutes is None else trials
    seconds = None if minutes is None else 60.0 * minutes
    if training.steps is not None:
        return Budget(trials, seconds, {"steps": training.steps}, {"steps": _part(training.steps, share)})
    if training.minutes is None:
        return Budget(trials, seconds, {"epochs": training.epochs}, {"epochs": _part(training.epochs, share)})
    most = math.inf if minutes is None else FINAL_SHARE * minutes
    full = min(training.minutes, most)
    cut = f"of {minutes:g} minutes in all a final training gets {full:g}, not {training.minutes:g}" if full < training.minutes else ""
    return Budget(trials, seconds, {"minutes": full}, {"minutes": share * full}, cut)


def _length(layer: dict[str, Any]) -> str:
    """A length in words: its own unit, and seconds below a minute.

    >>> _length({"minutes": 0.1}), _length({"epochs": 1})
    ('6 seconds', '1 epoch')
    """
    ((unit, number),) = layer.items()
    if unit == "minutes" and number < 1:
        unit, number = "seconds", 60 * number
    return f"{number:.3g} {unit if number != 1 else unit[:-1]}"


def _part(length: int, share: float) -> int:
    return max(1, round(share * length))
