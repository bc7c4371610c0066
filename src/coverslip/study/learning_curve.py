"""Would more images help? Accuracy on the same images against the number of images that were learned from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from coverslip.config import load_config, read_toml, with_values
from coverslip.deciding import predictions_of
from coverslip.errors import InputError
from coverslip.evaluation.decision import Decision
from coverslip.evaluation.evaluate import evaluate
from coverslip.fitting import Fits
from coverslip.preparing import prepare
from coverslip.record import RunFolder, csv_text
from coverslip.runtime import Progress, derived_seed, no_progress, write_file
from coverslip.structures import IntArray, Predictions, Task

SHARES = (0.125, 0.25, 0.5, 1.0)


def measure_learning_curve(folder: Path, *, progress: Progress = no_progress) -> pd.DataFrame:
    """Fit the run's config on growing shares of its training images, judge each share, write learning_curve.csv.

    All shares are judged on the same images: those of the test part, or without one out of fold, those of the first repeat of the
    folds. The steps of a run that had a budget in minutes shrink with the share, so that each image is seen as often.

    Args:
        folder: a finished run with a test part or with folds.
        progress: told about each fit.

    Returns:
        One row a share: share, images (learned from; the mean over the folds), accuracy, low, high, macro_f1.

    Raises:
        InputError: the run has neither a test part nor folds, or several labels an image.
    """
    config = load_config(read_toml(folder / "config.toml"))
    data = prepare(config, progress)
    if data.table.task is Task.MULTILABEL:
        raise InputError("a learning curve is drawn of accuracy, and these images carry several labels; train on shares of the table")
    if not len(data.split.rows("test")) and data.split.folds is None:
        raise InputError(
            "a learning curve is judged on the test part, or on folds, and this run has neither; set split.test or split.folds"
        )
    rows, place = [], RunFolder(folder, resume=False)
    for number, share in enumerate(SHARES):
        learner = Fits(data, place, no_progress)
        if learner.config.training.steps:
            steps = max(1, round(learner.config.training.steps * share))
            learner.config = with_values(learner.config, training={"steps": steps})
        images, predictions = judge_share(learner, share)
        numbers = evaluate(predictions, level=config.intervals.level, resamples=config.intervals.resamples)
        accuracy = {name: numbers["accuracy"][name] for name in ("value", "low", "high")}
        rows.append({"share": share, "images": images, **accuracy, "macro_f1": numbers["macro_f1"]["value"]})
        progress("curve", number + 1, len(SHARES), {})
        place.clean()
    frame = pd.DataFrame(rows).rename(columns={"value": "accuracy"})
    write_file(folder / "learning_curve.csv", csv_text(frame))
    return frame


def judge_share(learner: Fits, share: float) -> tuple[int, Predictions]:
    """How many images were learned from, and predictions of images that were not: test, or the folds of the first repeat."""
    data, training = learner.data, learner.config.training
    if len(data.split.rows("test")) or data.split.folds is None:
        fits = [(data.split.rows("train"), data.split.rows("validation"), data.split.rows("test"))]
    else:
        folds = data.split.folds[0]
        fits = [learner.fold_rows(folds, number) for number in range(int(folds.max()) + 1)]
    learned, judged, scores = [], [], []
    for number, (train, validation, outside) in enumerate(fits):
        chosen = shrink(train, data.table.labels, share, training.seed)
        fitted = learner.fit(chosen, validation, f"share-{share}-{number}")
        learned.append(len(chosen))
        judged.append(outside)
        scores.append(fitted.scores(data.samples, outside))
    decision = Decision(data.table.task, learner.config.decision.threshold)
    return round(np.mean(learned)), predictions_of(data, np.concatenate(judged), np.concatenate(scores), decision)


def shrink(rows: IntArray, labels: IntArray, share: float, seed: int) -> IntArray:
    """A share of the rows, the same share of each class (at least one image), smaller shares inside larger ones."""
    generator = np.random.default_rng(derived_seed("learning curve", seed))
    kept = []
    for code in np.unique(labels[rows]):
        members = generator.permutation(rows[labels[rows] == code])
        kept.append(members[: max(1, round(share * len(members)))])
    return np.sort(np.concatenate(kept))
