"""The trials of a search: what the storage knows of them, which come next, and when there are enough."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coverslip.errors import ResourceError
from coverslip.runtime import derived_seed
from coverslip.study.budget import Budget
from coverslip.study.dimensions import Dimension
from coverslip.study.engines import Done
from coverslip.study.folder import StudyFolder
from coverslip.study.space import Space, point
from coverslip.study.trial import TrialResult, TrialTask
from coverslip.study.trial_storage import build_sampler, open_study, optuna

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

GUIDED, RANDOM = "tpe", "random"
FAILURES = 5
"""Trials that fail before any other is over end a search: something is wrong with all of them."""
ATTEMPTS = 3
"""How often a trial is begun before it is given up: one that ends its process each time would never let a search go on."""
_LOG = logging.getLogger("coverslip")


@dataclass(frozen=True)
class Best:
    """The best trial that was trained to its end: its number, its value, its values in the space, and its other numbers."""

    number: int
    value: float
    values: dict[str, Any]
    numbers: dict[str, float]


class Trials:
    """The trials of one search: those that were made, and those that are still to be made.

    Args:
        space: where to look.
        budget: how long.
        place: the study folder.
        url: of the storage.
        name: of the search in the storage.
        workers: trials at a time.
        began: `time.perf_counter()` when the search did.
    """

    def __init__(self, space: Space, budget: Budget, place: StudyFolder, url: str, name: str, workers: int, began: float) -> None:
        self.space = space
        self.budget = budget
        self.place = place
        self.url = url
        self.began = began
        self.kinds = (GUIDED, RANDOM) if space.settings.compare_random else (GUIDED,)
        self.names = {kind: f"{name}-{kind}" for kind in self.kinds}
        self.errors: list[str] = []
        self.studies = {kind: self._create(kind) for kind in self.kinds}
        self.before = sum(self._seconds(trial) for kind in self.kinds for trial in self._over(kind)) / workers

    def _create(self, kind: str) -> Study:
        """A study in the storage, unless it is there; its first trial is that of the defaults."""
        lower = self.space.settings.metric == "log_loss"
        study = open_study(self.url, self.names[kind], direction="minimize" if lower else "maximize")
        first = self.space.default_values()
        if not study.get_trials(deepcopy=False) and first is not None:
            study.enqueue_trial({one.key: one.label(first[one.key]) for one in self.space.dimensions})
        return study

    def best(self) -> Best:
        """The best trial of the guided search.

        Raises:
            ResourceError: none was trained to its end.
        """
        complete = [trial for trial in self._over(GUIDED) if trial.state == optuna().trial.TrialState.COMPLETE]
        if not complete:
            raise ResourceError(
                f"none of {self._made(GUIDED)} trials was trained to its end{f': {self.errors[0]}' if self.errors else ''}. "
                "Give more --trials or --minutes, a longer training (search.trial_share), or smaller ranges"
            )
        lower = self.space.settings.metric == "log_loss"
        found = min(complete, key=lambda trial: (trial.value if lower else -(trial.value or 0.0), trial.number))
        numbers = {name: value for name, value in found.user_attrs.items() if isinstance(value, (int, float))}
        return Best(found.number, float(found.value or 0.0), self._values(found), numbers)

    # What comes next

    def tasks(self) -> Iterator[TrialTask]:
        """Trials that were cut off, then new ones of each kind in turn, as long as the budget lasts."""
        for kind in self.kinds:
            yield from self._cut_off(kind)
        while True:
            behind = [kind for kind in self.kinds if self._made(kind) < self._made(GUIDED)]
            if not behind and not self._is_time_left():
                return
            yield self._new(behind[0] if behind else GUIDED)

    def _is_time_left(self) -> bool:
        whole = [self._seconds(trial) for kind in self.kinds for trial in self._over(kind) if trial.user_attrs.get("ended") == "complete"]
        spent = self.before + time.perf_counter() - self.began
        return self.budget.allows(self._made(GUIDED), spent, whole, self.space.settings.trial_share, kinds=len(self.kinds))

    def _cut_off(self, kind: str) -> Iterator[TrialTask]:
        """Trials that a stopped search left behind; given up after too many attempts."""
        study = self.studies[kind]
        for trial in study.get_trials(deepcopy=False, states=[optuna().trial.TrialState.RUNNING]):
            attempts = trial.user_attrs.get("attempts", 0)
            if attempts < ATTEMPTS:
                yield self._task(kind, self._fill(study, trial.number))
            else:
                self._give_up(study, trial.number, f"was begun {attempts} times, and never came to an end")

    def _new(self, kind: str) -> TrialTask:
        """Begin a trial. Its values wait in the storage, whole, before it has a number: one that is cut off here is made all the same."""
        study = self.studies[kind]
        if not study.get_trials(deepcopy=False, states=[optuna().trial.TrialState.WAITING]):
            study.enqueue_trial(self._draw(kind))
        return self._task(kind, self._fill(study, study.ask().number))

    def _draw(self, kind: str) -> dict[str, Any]:
        """Values of a trial, by the seed and the trials so far, so that a search that goes on draws the same."""
        study = self.studies[kind]
        sampler = build_sampler(kind, derived_seed("sampler", kind, self.space.defaults.training.seed, self._made(kind)))
        copy = optuna().create_study(sampler=sampler, direction=study.direction)
        copy.add_trials(study.get_trials(deepcopy=False))
        drawn: dict[str, Any] = copy.ask({dimension.key: distribution(dimension) for dimension in self.space.dimensions}).params
        return drawn

    def _fill(self, study: Study, number: int) -> FrozenTrial:
        """A trial that has begun, with all of the values that waited for it."""
        trial = optuna().trial.Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)
        for dimension in self.space.dimensions:
            suggest(trial, dimension)
        return study.get_trials(deepcopy=False)[number]

    def _task(self, kind: str, trial: FrozenTrial) -> TrialTask:
        settings, folder = self.space.settings, self.place.path.absolute() / "trials" / f"{kind}-{trial.number}"
        layers = (self.space.base, point(self._values(trial)), {"training": {**self.budget.short, "patience": None}})
        return TrialTask(self.url, self.names[kind], trial.number, layers, folder, settings.metric, settings.looks)

    # What is over

    def take(self, done: Done[TrialTask, TrialResult]) -> None:
        """Take note of a trial that is over.

        Raises:
            ResourceError: the first trials have all failed.
        """
        if done.result is not None:
            return
        task = done.task
        study = next(study for study in self.studies.values() if study.study_name == task.study)
        self.errors.append(done.error)
        self._give_up(study, task.number, done.error)
        if len(self.errors) >= FAILURES and len(self.errors) == sum(len(self._over(kind)) for kind in self.kinds):
            raise ResourceError(f"the first {FAILURES} trials have all failed: {self.errors[0]}")

    def state(self) -> tuple[str, int, int, dict[str, float]]:
        """Stage, done, in all, numbers: what a progress bar shows."""
        over = {kind: self._over(kind) for kind in self.kinds}
        complete = [trial.value for trial in over[GUIDED] if trial.state == optuna().trial.TrialState.COMPLETE and trial.value is not None]
        best = {"best": min(complete) if self.space.settings.metric == "log_loss" else max(complete)} if complete else {}
        done = sum(map(len, over.values()))
        if self.budget.trials is not None:
            return "trials", done, self.budget.trials * len(self.kinds), best
        spent, seconds = self.before + time.perf_counter() - self.began, self.budget.seconds or 0.0
        return "seconds", min(round(spent), round(seconds)), round(seconds), {"trials": done, **best}

    def _give_up(self, study: Study, number: int, error: str) -> None:
        _LOG.info("trial %d of %s failed: %s", number, study.study_name, error)
        trial = study.get_trials(deepcopy=False)[number]
        if not trial.state.is_finished():
            optuna().trial.Trial(study, trial._trial_id).set_user_attr("error", error)
            study.tell(number, state=optuna().trial.TrialState.FAIL)

    def _over(self, kind: str) -> list[FrozenTrial]:
        """Trials of a kind that are over."""
        return [trial for trial in self.studies[kind].get_trials(deepcopy=False) if trial.state.is_finished()]

    def _made(self, kind: str) -> int:
        """How many trials of a kind were begun."""
        return sum(trial.state != optuna().trial.TrialState.WAITING for trial in self.studies[kind].get_trials(deepcopy=False))

    def _values(self, trial: FrozenTrial) -> dict[str, Any]:
        return {dimension.key: dimension.value(trial.params[dimension.key]) for dimension in self.space.dimensions}

    @staticmethod
    def _seconds(trial: FrozenTrial) -> float:
        return float(trial.user_attrs.get("seconds", 0.0))


def suggest(trial: Trial, dimension: Dimension) -> None:
    """Give a trial its value of a dimension: what waited for it, else a draw."""
    asked = distribution(dimension)
    if dimension.kind == "choice":
        trial.suggest_categorical(dimension.key, asked.choices)
    elif dimension.kind == "integer":
        trial.suggest_int(dimension.key, asked.low, asked.high, step=asked.step, log=asked.log)
    else:
        trial.suggest_float(dimension.key, asked.low, asked.high, step=asked.step, log=asked.log)


def distribution(dimension: Dimension) -> Any:
    """What optuna calls a dimension."""
    kinds = optuna().distributions
    if dimension.kind == "choice":
        return kinds.CategoricalDistribution(dimension.labels)
    if dimension.kind == "integer":
        return kinds.IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log, step=int(dimension.step or 1))
    return kinds.FloatDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)
