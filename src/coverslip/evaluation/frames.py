"""Predictions as the tables that people open: `predictions.csv`, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from coverslip.structures import IntArray, Predictions


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
    frame["uncertain"] = ""
    if predictions.targets is not None:
        frame["label"] = label_texts(predictions.targets, predictions.classes)
    if predictions.groups is not None:
        frame["group"] = list(predictions.groups)
    return frame
