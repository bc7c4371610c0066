"""Predictions as the tables that people open: `predictions.csv`, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from coverslip.structures import IntArray, Predictions, Task


def label_texts(codes: IntArray, classes: Sequence[str]) -> list[str]:
    """Class names of int64 (n,) indices, or of int64 (n, classes) 0/1 rows joined with `|`."""
    if codes.ndim == 1:
        return [classes[code] for code in codes.tolist()]
    return ["|".join(classes[column] for column in np.flatnonzero(row).tolist()) for row in codes]


def predictions_frame(predictions: Predictions, **columns: str | int) -> pd.DataFrame:
    """One row a sample: `image`, the given columns, `p_<class>`..., `predicted`, `uncertain`, and `label` where known.

    Scores are written with 7 significant digits.
    """
    frame = pd.DataFrame({"image": list(predictions.images)})
    for name, value in columns.items():
        frame[name] = value
    for column, name in enumerate(predictions.classes):
        frame[f"p_{name}"] = [float(f"{score:.7g}") for score in predictions.scores[:, column]]
    frame["predicted"] = label_texts(predictions.predicted, predictions.classes)
    frame["uncertain"] = "" if predictions.uncertain is None else list(predictions.uncertain)
    if predictions.targets is not None:
        frame["label"] = label_texts(predictions.targets, predictions.classes)
    if predictions.groups is not None:
        frame["group"] = list(predictions.groups)
    return frame


def label_codes(texts: Sequence[str], classes: Sequence[str], task: Task) -> IntArray:
    """The inverse of `label_texts`: int64 (n,) of class indices, or (n, classes) of 0 and 1 with several labels an image.

    >>> label_codes(["a|c", ""], ["a", "b", "c"], Task.MULTILABEL).tolist()
    [[1, 0, 1], [0, 0, 0]]
    """
    if task is not Task.MULTILABEL:
        place = {name: code for code, name in enumerate(classes)}
        return np.array([place[text] for text in texts], dtype=np.int64)
    carried = [set(text.split("|")) for text in texts]
    return np.array([[name in row for name in classes] for row in carried], dtype=np.int64).reshape(len(texts), len(classes))


def read_predictions(frame: pd.DataFrame, classes: Sequence[str], task: Task) -> Predictions:
    """Labelled predictions of a table that `predictions_frame` made, its text columns read as text."""
    return Predictions(
        images=tuple(frame["image"]),
        scores=frame[[f"p_{name}" for name in classes]].to_numpy(dtype=np.float64),
        predicted=label_codes(frame["predicted"].tolist(), classes, task),
        classes=tuple(classes),
        task=task,
        targets=label_codes(frame["label"].tolist(), classes, task),
        groups=frame["group"].to_numpy(dtype=np.str_) if "group" in frame else None,
    )
