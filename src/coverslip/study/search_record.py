"""What a search writes down: its trials as tables, what mattered, the two models, the verdict."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from coverslip.evaluation.frames import read_predictions
from coverslip.record import csv_text
from coverslip.runtime import derived_seed, write_file, writing
from coverslip.structures import FloatArray, Predictions, Task
from coverslip.study.dimensions import Dimension
from coverslip.study.folder import StudyFolder
from coverslip.study.jobs import JobResult
from coverslip.study.results import TEXTS
from coverslip.study.search_verdict import COMPARED, judge_pair, sentence
from coverslip.study.space import Space
from coverslip.study.trial import NUMBERS
from coverslip.study.trial_storage import optuna
from coverslip.study.trials import Best, distribution

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

BEST, VERDICT = "best.json", "verdict.json"
FACTS = (*NUMBERS, "weights", "steps", "images_per_second", "seconds", "error")
LEAST_TRIALS = 10
"""Trials below which nothing is said about what mattered."""
MOST_TRIALS = 400
"""Trials that the analysis of what mattered looks at: its time grows faster than their number."""


def write_trials(place: StudyFolder, space: Space, studies: dict[str, Study]) -> None:
    """Write trials.csv and trials.parquet (a row a trial), looks.csv (a row a look) and importance.json."""
    trials = {kind: [trial for trial in study.get_trials(deepcopy=False) if _is_over(space, trial)] for kind, study in studies.items()}
    frame = trials_frame(space, trials)
    write_file(place.path / "trials.csv", csv_text(frame))
    with writing(place.path / "trials.parquet") as temporary:
        frame.to_parquet(temporary, index=False)
    looks = [
        {"search": kind, "trial": trial.number, "look": look, "value": value}
        for kind, each in trials.items()
        for trial in each
        for look, value in trial.intermediate_values.items()
    ]
    write_file(place.path / "looks.csv", csv_text(pd.DataFrame(looks, columns=["search", "trial", "look", "value"])))
    every = [trial for each in trials.values() for trial in each]
    place.write("importance.json", {"trials": len(every), "shares": importance(space, every)})


def trials_frame(space: Space, trials: dict[str, list[FrozenTrial]]) -> pd.DataFrame:
    """One row a trial that is over: which search, number, how it ended, its value, its place in the space, its other numbers.

    The value of a trial that was ended early is that of its last look; one whose weights or scores were no longer finite has none.
    """
    rows = [
        {"search": kind, "trial": trial.number, "ended": _ended(trial), "value": _value(trial), "looks": _looks(space, trial)}
        | {dimension.key: trial.params.get(dimension.key) for dimension in space.dimensions}
        | {name: trial.user_attrs.get(name) for name in FACTS}
        | {"started": trial.datetime_start.isoformat(timespec="seconds") if trial.datetime_start else None}
        for kind, each in trials.items()
        for trial in each
    ]
    columns = ["search", "trial", "ended", "value", "looks", *(dimension.key for dimension in space.dimensions), *FACTS, "started"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(("weights", "steps"), "Int64"))


def _is_over(space: Space, trial: FrozenTrial) -> bool:
    """Whether a trial has ended; one that was cut off before it got its values never was one."""
    return trial.state.is_finished() and len(trial.params) == len(space.dimensions)


def _ended(trial: FrozenTrial) -> str:
    return "failed" if trial.state == optuna().trial.TrialState.FAIL else str(trial.user_attrs.get("ended", ""))


def _value(trial: FrozenTrial) -> float | None:
    if _ended(trial) in ("failed", "diverged"):
        return None
    last = trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else None
    value = trial.value if trial.value is not None else last
    return value if value is not None and math.isfinite(value) else None


def _looks(space: Space, trial: FrozenTrial) -> int:
    return space.settings.looks if _ended(trial) == "complete" else max(trial.intermediate_values, default=0)


def importance(space: Space, trials: list[FrozenTrial]) -> dict[str, float]:
    """How much of the differences between trials each dimension explains: shares that add up to 1; empty for few trials.

    fANOVA (Hutter, Hoos and Leyton-Brown 2014) on the ranks of the values and on the scale on which the search draws (orders of
    magnitude where the dimension has them). Trials that were ended early count with their last value, those whose weights were no
    longer finite as the worst.
    """
    known = [trial for trial in trials if _value(trial) is not None or _ended(trial) == "diverged"]
    known = known[:: 1 + len(known) // MOST_TRIALS]
    if len(known) < LEAST_TRIALS or len(space.dimensions) < 2:
        return {}
    package = optuna()
    study = package.create_study(direction="minimize")
    scales = {dimension.key: _scale(dimension) for dimension in space.dimensions}
    logs = {dimension.key for dimension in space.dimensions if dimension.log}
    for trial, rank in zip(known, _ranks(space, known), strict=True):
        params = {key: math.log(trial.params[key]) if key in logs else trial.params[key] for key in scales}
        study.add_trial(package.trial.create_trial(params=params, distributions=scales, value=float(rank)))
    seed = derived_seed("importance", space.defaults.training.seed) % 2**32
    found = package.importance.get_param_importances(study, evaluator=package.importance.FanovaImportanceEvaluator(seed=seed))
    total = sum(found.values())
    return {key: value / total for key, value in found.items()} if total else {}


def _scale(dimension: Dimension) -> Any:
    if not dimension.log:
        return distribution(dimension)
    return optuna().distributions.FloatDistribution(math.log(dimension.low), math.log(dimension.high))


def _ranks(space: Space, trials: list[FrozenTrial]) -> FloatArray:
    """Ranks from the best value, 0; what has no value comes last."""
    sign = 1.0 if space.settings.metric == "log_loss" else -1.0
    values = np.array([math.inf if (value := _value(trial)) is None else sign * value for trial in trials])
    return np.searchsorted(np.sort(values), values).astype(np.float64)


def write_best(place: StudyFolder, best: Best) -> Best:
    """Write best.json: with it the choice is made, and no further trial can change it."""
    place.write(BEST, asdict(best))
    return best


def read_best(place: StudyFolder) -> Best | None:
    """The choice of a search whose trials are over; None before."""
    path = place.path / BEST
    return Best(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def write_outcome(place: StudyFolder, space: Space, best: Best, made: dict[str, JobResult]) -> dict[str, Any]:
    """Judge the final model beside the defaults on the test part; write results.csv, results.parquet and verdict.json."""
    intervals, metric = space.defaults.intervals, space.settings.metric
    final, defaults = (test_predictions(place.run_folder(name), made[name].metrics) for name in ("final", "defaults"))
    judged = judge_pair(final, defaults, metric, level=intervals.level, resamples=intervals.resamples)
    values = {name: made[name].metrics["test"][metric]["value"] for name in made}
    rows = []
    for name, result in made.items():
        numbers = result.metrics["test"]
        row: dict[str, Any] = {"model_id": name, "n": numbers["n"], "seconds": round(result.seconds, 1)}
        for number in (number for number in COMPARED if number in numbers):
            row |= {number: numbers[number]["value"], f"{number}_low": numbers[number]["low"], f"{number}_high": numbers[number]["high"]}
        rows.append(row)
    place.results(pd.DataFrame(rows))
    verdict = {
        "metric": metric,
        "sentence": sentence(judged, metric, values["final"], values["defaults"], intervals.level),
        "best": asdict(best) | {"defaults": space.base_values()},
        "test": values,
        "level": intervals.level,
        **judged,
    }
    place.write(VERDICT, verdict)
    return verdict


def read_outcome(place: StudyFolder) -> dict[str, Any] | None:
    """The verdict of a search that is finished; None when it is not."""
    path = place.path / VERDICT
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_predictions(folder: Path, metrics: dict[str, Any]) -> Predictions:
    """Predictions of the test part by a run, in the order of the images' names."""
    table = pd.read_csv(folder / "predictions.csv", dtype=dict.fromkeys(TEXTS, str), keep_default_na=False, na_values=[])
    chosen = table[table["part"] == "test"].sort_values("image", kind="stable")
    return read_predictions(chosen, metrics["classes"], Task(metrics["task"]))
