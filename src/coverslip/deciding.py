"""From scores to decisions, predictions and numbers: what is chosen on images that were not trained on, and what is judged."""

from __future__ import annotations

from typing import Any

import numpy as np

from coverslip.errors import ConfigError
from coverslip.evaluation.calibration import calibrate_classes
from coverslip.evaluation.calibration_gain import compare_calibration
from coverslip.evaluation.decision import Decision
from coverslip.evaluation.decisions import apply_temperature, temperature, threshold_for_sensitivity
from coverslip.evaluation.evaluate import evaluate, folds_summary
from coverslip.evaluation.thresholds import choose_thresholds, compare_thresholds
from coverslip.evaluation.uncertainty import Conformal, calibrate_conformal, too_few, uncertain_texts, uncertainty_numbers
from coverslip.fitting import FoldScores
from coverslip.neighbours import Neighbours
from coverslip.preparing import Prepared
from coverslip.structures import BoolArray, FloatArray, IntArray, Predictions, Task
from coverslip.training.fit import Fitted


def check_decision(data: Prepared) -> None:
    """Refuse, before anything is trained, what could only fail after it.

    Raises:
        ConfigError: neither folds nor a validation part to choose on, or a choice that is for another task.
    """
    wanted, task = data.config.decision, data.table.task
    if wanted.sensitivity is not None and task is Task.MULTILABEL:
        raise ConfigError("decision.sensitivity is for binary tasks; with several labels an image say decision.thresholds")
    if wanted.sensitivity is not None and task is not Task.BINARY:
        raise ConfigError(
            f"decision.sensitivity is for binary tasks; this one is {task} with {len(data.table.classes)} classes; "
            "join classes with data.merge"
        )
    if wanted.calibrate == "platt" and task is not Task.MULTILABEL:
        raise ConfigError('decision.calibrate = "platt" is for several labels an image; with one label say true, or "temperature"')
    if _is_chosen(data) and data.split.folds is None and not len(data.split.rows("validation")):
        raise ConfigError(
            "decision.calibrate, decision.sensitivity and decision.thresholds choose on the validation part, but it is empty; "
            "set split.validation or split.folds"
        )


def _is_chosen(data: Prepared) -> bool:
    wanted = data.config.decision
    searched = data.table.task is Task.MULTILABEL and wanted.thresholds != "fixed"
    return bool(wanted.calibrate) or wanted.sensitivity is not None or searched


def choose_decision(data: Prepared, fitted: Fitted, folds: FoldScores | None) -> Decision:
    """Calibration and thresholds from the validation part, or from out-of-fold scores; never from the test part."""
    wanted, task = data.config.decision, data.table.task
    if not _is_chosen(data):
        return Decision(task, wanted.threshold, at_least_one=wanted.at_least_one)
    check_decision(data)
    rows, scores = scores_to_decide_on(data, fitted, folds)
    return (_decide_on_several if task is Task.MULTILABEL else _decide_on_one)(data, rows, scores, folds is not None)


def choose_conformal(data: Prepared, fitted: Fitted, folds: FoldScores | None, decision: Decision) -> tuple[Conformal | None, str]:
    """Which decisions to doubt by their scores, and a sentence on it; from the validation part or out of fold, never the test part."""
    rows, scores = scores_to_decide_on(data, fitted, folds)
    coverage, task = data.config.decision.coverage, data.table.task
    source = "images scored out of fold" if folds is not None else "validation images"
    calibrated = decision.calibrated(scores)
    found = calibrate_conformal(calibrated, data.table.labels[rows], decision.reported, task, coverage, source)
    return found, too_few(len(rows), coverage, source) if found is None else found.note


def scores_to_decide_on(data: Prepared, fitted: Fitted, folds: FoldScores | None) -> tuple[IntArray, FloatArray]:
    """Rows that were not trained on and are not test, and their raw scores (m, classes)."""
    if folds is not None:
        rows = data.split.rows("train", "validation")
        return rows, np.nanmean(folds.scores[:, rows], axis=0)
    rows = data.split.rows("validation")
    return rows, fitted.scores(data.samples, rows) if len(rows) else np.zeros((0, len(data.table.classes)))


def _decide_on_one(data: Prepared, rows: IntArray, scores: FloatArray, folds: bool) -> Decision:
    wanted, task, targets = data.config.decision, data.table.task, data.table.labels[rows]
    found = temperature(scores, targets) if wanted.calibrate else 1.0
    scores = apply_temperature(scores, found)
    if wanted.sensitivity is None:
        note = f"temperature {found:.3f}, fitted on {len(rows)} images that were not trained on"
        return Decision(task, wanted.threshold, found, note=note)
    chosen = threshold_for_sensitivity(scores, targets, wanted.sensitivity)
    note = f"threshold {chosen.threshold:.4f} for a sensitivity of {wanted.sensitivity}, chosen on {len(rows)} images"
    flattered = "; the numbers of the folds at this threshold come from the same images and flatter it a little" if folds else ""
    return Decision(task, chosen.threshold, found, note=note + flattered)


def _decide_on_several(data: Prepared, rows: IntArray, scores: FloatArray, folds: bool) -> Decision:
    wanted, targets = data.config.decision, data.table.labels[rows]
    lines: tuple[tuple[float, float], ...] = ()
    notes = []
    if wanted.calibrate:
        calibration = calibrate_classes(scores, targets, "temperature" if wanted.calibrate == "temperature" else "platt")
        lines = tuple(zip(calibration.slopes.tolist(), calibration.offsets.tolist(), strict=True))
        scores = calibration.apply(scores)
        notes.append(f"calibration: {calibration.note}")
    chosen = choose_thresholds(
        scores, targets, wanted.thresholds, fixed=wanted.threshold, ratio=training_shares(data), at_least_one=wanted.at_least_one,
        seed=data.config.training.seed,
    )  # fmt: skip
    notes.append(f"thresholds: {chosen.note}{', on out-of-fold scores: the numbers of the folds flatter them a little' if folds else ''}")
    values = () if wanted.thresholds == "fixed" else tuple(chosen.values.tolist())
    return Decision(
        Task.MULTILABEL, wanted.threshold, thresholds=values, lines=lines, at_least_one=wanted.at_least_one, note="; ".join(notes)
    )


def training_shares(data: Prepared) -> FloatArray:
    """Share of the images that the kept model learned from that carries each class, float64 (classes,)."""
    parts = ("train",) if data.split.folds is None else ("train", "validation")
    return np.asarray(data.table.labels[data.split.rows(*parts)].mean(axis=0))


JudgedParts = dict[str, tuple[IntArray, FloatArray]]
"""Rows and raw scores (m, classes) of the part that decisions are chosen on, first, and of the test part where there is one."""


def judged_parts(data: Prepared, fitted: Fitted, folds: FoldScores | None) -> JudgedParts:
    """What decisions are compared on: `validation` (or `folds`) and `test`; empty where nothing is left to choose on."""
    rows, scores = scores_to_decide_on(data, fitted, folds)
    if not len(rows):
        return {}
    parts = {"folds" if folds is not None else "validation": (rows, scores)}
    test = data.split.rows("test")
    return parts | ({"test": (test, fitted.scores(data.samples, test))} if len(test) else {})


def threshold_table(data: Prepared, parts: JudgedParts, decision: Decision) -> dict[str, Any]:
    """Every way to choose thresholds beside plain 0.5, on validation (or out-of-fold) and test scores; see `compare_thresholds`."""
    if not parts:
        return {}
    wanted, intervals, groups = data.config.decision, data.config.intervals, data.table.groups
    known = {name: (decision.calibrated(scores), data.table.labels[rows]) for name, (rows, scores) in parts.items()}
    by_group = None if groups is None else {name: groups[rows] for name, (rows, _) in parts.items()}
    return compare_thresholds(
        *known[next(iter(known))], known, groups=by_group, fixed=wanted.threshold, ratio=training_shares(data),
        at_least_one=wanted.at_least_one, level=intervals.level, resamples=intervals.resamples, seed=data.config.training.seed,
    )  # fmt: skip


def calibration_table(data: Prepared, parts: JudgedParts, decision: Decision) -> dict[str, Any]:
    """What calibration did for the scores of each part; see `compare_calibration`. Empty where nothing was calibrated."""
    if not decision.lines:
        return {}
    intervals, groups = data.config.intervals, data.table.groups
    return {
        name: compare_calibration(
            scores, decision.calibrated(scores), data.table.labels[rows], groups=None if groups is None else groups[rows],
            level=intervals.level, resamples=intervals.resamples, seed=data.config.training.seed,
        )
        for name, (rows, scores) in parts.items()
    }  # fmt: skip


def predict_parts(
    data: Prepared, fitted: Fitted, folds: FoldScores | None, decision: Decision, neighbours: Neighbours | None = None
) -> dict[str, Predictions]:
    """Predictions of each part that the kept model did not learn from, and of each fold as `fold-<repeat>-<number>`.

    Folds have no distances: the kept model learned from their images.
    """
    found: dict[str, Predictions] = {}
    for part in ("test",) if folds is not None else ("test", "validation"):
        rows = data.split.rows(part)
        if len(rows):
            if neighbours is None:
                found[part] = predictions_of(data, rows, fitted.scores(data.samples, rows), decision)
            else:
                scores, vectors = fitted.scores_and_vectors(data.samples, rows)
                found[part] = predictions_of(data, rows, scores, decision, neighbours.unlike(neighbours.distances(vectors)))
    if folds is not None and data.split.folds is not None:
        for repeat, numbers in enumerate(data.split.folds):
            for number in range(int(numbers.max()) + 1):
                rows = np.flatnonzero(numbers == number)
                found[f"fold-{repeat + 1}-{number + 1}"] = predictions_of(data, rows, folds.scores[repeat, rows], decision)
    return found


def predictions_of(data: Prepared, rows: IntArray, scores: FloatArray, decision: Decision, unlike: BoolArray | None = None) -> Predictions:
    """Decide on scores and put names, labels, groups and doubts beside them."""
    table = data.table.take(rows)
    calibrated, predicted = decision(scores)
    doubt = uncertain_texts(decision.doubtful(calibrated, predicted), unlike)
    return Predictions(table.images, calibrated, predicted, table.classes, table.task, table.targets, table.groups, uncertain=doubt)


def summarise_numbers(data: Prepared, predictions: dict[str, Predictions], decision: Decision) -> dict[str, Any]:
    """The content of metrics.json."""
    intervals, table = data.config.intervals, data.table
    settings: dict[str, Any] = {"level": intervals.level, "resamples": intervals.resamples, "seed": data.split.seed}
    numbers: dict[str, Any] = {"task": str(table.task), "classes": list(table.classes), "level": intervals.level}
    if table.task == Task.BINARY:
        numbers |= {"positive": table.classes[1], "threshold": decision.threshold}
    for part in ("test", "validation"):
        if part in predictions:
            numbers[part] = evaluate(predictions[part], threshold=decision.reported, **settings)
    folds = {name: found for name, found in predictions.items() if name.startswith("fold")}
    if folds:
        repeats = max(int(name.split("-")[1]) for name in folds)
        grouped = [[found for name, found in folds.items() if int(name.split("-")[1]) == repeat + 1] for repeat in range(repeats)]
        numbers["folds"] = folds_summary(grouped, **settings, threshold=decision.reported)
    for part in ("test", "validation"):
        if part in predictions and (
            worth := uncertainty_numbers(predictions[part], decision.conformal, decision.reported, intervals.level)
        ):
            numbers.setdefault("uncertainty", {})[part] = worth
    return numbers
