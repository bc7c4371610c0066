"""One trial of a search: a short training, looked at on the validation part, ended early where it falls behind.

The test part is taken out of the data before a trial sees it: no trial can score it, whatever it does.
"""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coverslip.config import RunConfig, load_config, read_toml
from coverslip.errors import DivergedError
from coverslip.fitting import Fits
from coverslip.models.networks import count_weights
from coverslip.preparing import Prepared, preparation_key
from coverslip.record import RunFolder
from coverslip.runtime import no_progress
from coverslip.structures import FloatArray, IntArray
from coverslip.study.jobs import shared_backbones, shared_data
from coverslip.study.space import Metric
from coverslip.study.trial_storage import open_study, optuna
from coverslip.training.validation import Looks, validation_numbers

if TYPE_CHECKING:
    from optuna import Trial

NUMBERS = {"log_loss": "validation_loss", "macro_f1": "validation_macro_f1", "accuracy": "validation_accuracy"}
"""Numbers of a trial, and what a look calls them."""
_withheld: dict[str, Prepared] = {}


@dataclass(frozen=True)
class TrialTask:
    """A trial that is to be made.

    Attributes:
        storage: URL of the storage.
        study: its name there.
        number: of the trial there; its values are chosen already.
        layers: of the config that they make.
        folder: for the state of a training that is cut off; removed when the trial is over.
        metric: what it is judged by.
        looks: how often.
    """

    storage: str
    study: str
    number: int
    layers: tuple[Mapping[str, Any], ...]
    folder: Path
    metric: Metric
    looks: int


@dataclass(frozen=True)
class TrialResult:
    """A trial that is over: in which study, its number, how it ended (`complete`, `pruned`, `diverged`), its value, its seconds."""

    study: str
    number: int
    state: str
    value: float | None
    seconds: float


def make_trial(task: TrialTask) -> TrialResult:
    """Train, look, and tell the storage; a trial that is over is read, one that was cut off goes on."""
    package, study = optuna(), open_study(task.storage, task.study)
    stored = study.get_trials(deepcopy=False)[task.number]
    if stored.state.is_finished():
        return TrialResult(task.study, task.number, str(stored.user_attrs.get("ended", "complete")), stored.value, 0.0)
    began, trial = time.perf_counter(), package.trial.Trial(study, stored._trial_id)
    trial.set_user_attr("attempts", stored.user_attrs.get("attempts", 0) + 1)
    ended, value = "complete", None
    try:
        found = _judge(task, trial)
        value = found[task.metric]
        for name, number in found.items():
            trial.set_user_attr(name, number)
    except package.TrialPruned:
        ended = "pruned"
    except DivergedError:
        ended = "diverged"
    seconds = time.perf_counter() - began
    trial.set_user_attr("ended", ended)
    trial.set_user_attr("seconds", round(seconds, 3))
    study.tell(trial, value, state=None if ended == "complete" else package.trial.TrialState.PRUNED)
    shutil.rmtree(task.folder, ignore_errors=True)
    return TrialResult(task.study, task.number, ended, value, seconds)


def data_without_test(config: RunConfig) -> Prepared:
    """The prepared data of a config without its test part; made once in this process for all configs that agree on it."""
    key, whole = preparation_key(config), shared_data(config)
    if key not in _withheld:
        _withheld.clear()
        _withheld[key] = without_test(whole)
    return _withheld[key].under(config)


def without_test(data: Prepared) -> Prepared:
    """The same data with the rows of its test part left out of everything."""
    rows = data.split.rows("train", "validation")
    samples = replace(data.samples, pixels=data.pixels.take(rows), targets=data.samples.targets[rows], ties=data.samples.ties[rows])
    folds = None if data.split.folds is None else data.split.folds[:, rows]
    return replace(
        data,
        table=data.table.take(rows),
        scan=data.scan.take(rows),
        pixels=samples.pixels,
        split=replace(data.split, part=data.split.part[rows], folds=folds),
        samples=samples,
    )


def _judge(task: TrialTask, trial: Trial) -> dict[str, float]:
    """Fit, and score what was not learned from: the validation part, or each fold in turn.

    Raises:
        TrialPruned: it has fallen behind.
        DivergedError: its weights or scores are no longer finite numbers.
    """
    kept = task.folder / "config.toml"
    steps = read_toml(kept)["training"].get("steps") if kept.is_file() else None
    config = load_config(*task.layers, {} if steps is None else {"training": {"steps": steps}})
    config.check()
    data = data_without_test(config)
    place, folds = RunFolder(task.folder, resume=True), data.split.folds
    reporter = _Reporter(trial, task.metric, task.looks if folds is None else folds.shape[0] * (int(folds.max()) + 1))
    looks = Looks(task.looks, reporter.look) if folds is None else None
    learner = Fits(data, place, no_progress, shared_backbones(), looks=looks)
    if folds is not None:
        return _judge_folds(task, data, folds, learner, reporter)
    rows = data.split.rows("validation")
    fitted = learner.fit(data.split.rows("train"), rows, "trial")
    facts = {"weights": _weights(learner), "steps": fitted.steps or 0, "images_per_second": round(fitted.images_per_second, 1)}
    return _numbers(data, fitted.scores(data.samples, rows), rows) | facts


def _judge_folds(task: TrialTask, data: Prepared, folds: IntArray, learner: Fits, reporter: _Reporter) -> dict[str, float]:
    """Out-of-fold numbers; after each fold the mean so far is told, and may end the trial."""
    each: list[dict[str, float]] = []
    for repeat, numbers in enumerate(folds):
        for number in range(int(numbers.max()) + 1):
            each.append(_numbers(data, learner.fold(numbers, repeat, number), np.flatnonzero(numbers == number)))
            reporter.report(len(each), float(np.mean([one[task.metric] for one in each])))
    return {name: float(np.mean([one[name] for one in each])) for name in each[0]} | {"weights": _weights(learner)}


def _weights(learner: Fits) -> int:
    return sum(map(count_weights, learner.templates))


def _numbers(data: Prepared, scores: FloatArray, rows: IntArray) -> dict[str, float]:
    if not np.isfinite(scores).all():
        raise DivergedError("the scores of the validation part are no finite numbers; make training.learning_rate smaller")
    found = validation_numbers(scores, data.samples.targets[rows], data.samples.classes)
    return {name: found[key] for name, key in NUMBERS.items() if key in found}


class _Reporter:
    """Tells the storage how a trial stands, and ends it where the pruner says so."""

    def __init__(self, trial: Trial, metric: Metric, looks: int) -> None:
        self.trial = trial
        self.metric = metric
        self.looks = looks
        self.told = set(trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values)

    def look(self, step: int, steps: int, row: dict[str, Any]) -> None:
        """A look of the loop; that at the start says nothing yet."""
        number = round(self.looks * step / steps)
        if number:
            self.report(number, float(row[NUMBERS[self.metric]]))

    def report(self, number: int, value: float) -> None:
        """Tell the value of a look, from 1; the last one is the trial's own, and ends nothing.

        Raises:
            TrialPruned: the trial has fallen behind the median of the others.
        """
        if number >= self.looks:
            return
        if number not in self.told:
            self.trial.report(value, number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of values that are no numbers
            behind = self.trial.should_prune()
        if behind:
            raise optuna().TrialPruned
