"""Would more images help? Accuracy on the same test part against the size of the training part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from coverslip.config import load_config, read_toml
from coverslip.deciding import predictions_of
from coverslip.errors import InputError
from coverslip.evaluation.decision import Decision
from coverslip.evaluation.evaluate import evaluate
from coverslip.fitting import Fits
from coverslip.preparing import prepare
from coverslip.record import RunFolder, csv_text
from coverslip.runtime import Progress, derived_seed, no_progress, write_file
from coverslip.structures import IntArray, Task

SHARES = (0.125, 0.25, 0.5, 1.0)


def measure_learning_curve(folder: Path, *, progress: Progress = no_progress) -> pd.DataFrame:
    """Fit the run's config on growing shares of its training part, judge each on its test part, write learning_curve.csv.

    The steps of a run that had a budget in minutes shrink with the share, so that each image is seen as often.

    Args:
        folder: a finished run with a test part.
        progress: told about each fit.

    Returns:
        One row a share: share, images, accuracy, low, high, macro_f1.

    Raises:
        InputError: the run has no test part, or several labels an image.
    """
    config = load_config(read_toml(folder / "config.toml"))
    data = prepare(config, progress)
    if data.table.task is Task.MULTILABEL:
        raise InputError("a learning curve is drawn of accuracy, and these images carry several labels; train on shares of the table")
    test, train = data.split.rows("test"), data.split.rows("train")
    if not len(test):
        raise InputError("a learning curve is judged on the test part, and this run has none; set split.test")
    rows = []
    for number, share in enumerate(SHARES):
        learner = Fits(data, RunFolder(folder, resume=False), progress)
        if learner.config.training.steps:
            learner.config = load_config(
                learner.config.model_dump(), {"training": {"steps": max(1, round(learner.config.training.steps * share))}}
            )
        chosen = shrink(train, data.table.labels, share, config.training.seed)
        fitted = learner.fit(chosen, data.split.rows("validation"), f"share-{number}")
        predictions = predictions_of(data, test, fitted.scores(data.samples, test), Decision(data.table.task, config.decision.threshold))
        numbers = evaluate(predictions, level=config.intervals.level, resamples=config.intervals.resamples)
        accuracy = numbers["accuracy"]
        rows.append(
            {"share": share, "images": len(chosen), "accuracy": accuracy["value"], "low": accuracy["low"], "high": accuracy["high"]}
            | {"macro_f1": numbers["macro_f1"]["value"]}
        )  # fmt: skip
        progress("curve", number + 1, len(SHARES), {})
        learner.place.clean()
    frame = pd.DataFrame(rows)
    write_file(folder / "learning_curve.csv", csv_text(frame))
    return frame


def shrink(rows: IntArray, labels: IntArray, share: float, seed: int) -> IntArray:
    """A share of the rows, the same share of each class (at least one image), smaller shares inside larger ones."""
    generator = np.random.default_rng(derived_seed("learning curve", seed))
    kept = []
    for code in np.unique(labels[rows]):
        members = generator.permutation(rows[labels[rows] == code])
        kept.append(members[: max(1, round(share * len(members)))])
    return np.sort(np.concatenate(kept))
