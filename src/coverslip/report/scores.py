"""Figures from `predictions.csv`: ROC, precision and recall, reliability; and counts of right and wrong."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from coverslip.evaluation.decisions import reliability_curve
from coverslip.evaluation.metrics import confusion_matrix
from coverslip.report import figures
from coverslip.report.curves import precision_recall_points, roc_points
from coverslip.report.files import RunFiles, within
from coverslip.report.numbers import Shown, shown
from coverslip.report.sections import Drawing, class_names, draw
from coverslip.structures import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class Scored:
    """Rows of predictions with known labels.

    Attributes:
        classes: class names, K of them.
        scores: float64 (n, K).
        truth: bool (n, K), whether a row carries a class.
        predicted: int64 (n,), the decision; -1 where it is not one class.
        multilabel: whether a row may carry several classes.
    """

    classes: tuple[str, ...]
    scores: FloatArray
    truth: BoolArray
    predicted: IntArray
    multilabel: bool


def scored(run: RunFiles, part: str | None) -> Scored | None:
    """The labelled predictions of the headline's part; of several repeats of the folds, the first."""
    table, classes = run.predictions, class_names(run)
    columns = [f"p_{name}" for name in classes]
    if table is None or not classes or not {"label", *columns} <= set(table.columns):
        return None
    multilabel = run.metrics.get("task") == "multilabel"
    table = _rows(table.fillna({"label": ""}) if multilabel else table, part).dropna(subset=["label", *columns])
    if not len(table):
        return None
    carried = table["label"].str.split("|") if multilabel else table["label"].map(lambda name: [name])
    truth = np.array([[name in row for name in classes] for row in carried], dtype=np.bool_)
    place = {name: i for i, name in enumerate(classes)}
    said = table["predicted"] if "predicted" in table else pd.Series("", index=table.index)
    predicted = said.map(lambda name: place.get(name, -1)).to_numpy(dtype=np.int64)
    return Scored(tuple(classes), table[columns].to_numpy(dtype=np.float64), truth, predicted, multilabel)


def _rows(table: pd.DataFrame, part: str | None) -> pd.DataFrame:
    in_fold = table["fold"].notna() if "fold" in table else pd.Series(data=False, index=table.index)
    if part == "folds":
        repeat = pd.to_numeric(table["repeat"], errors="coerce") if "repeat" in table else pd.Series(0, index=table.index)
        return table[in_fold & (repeat.fillna(0) == repeat[in_fold].min())] if in_fold.any() else table
    return table[(table["part"] == part) & ~in_fold] if "part" in table and table["part"].notna().any() else table


def curves(run: RunFiles, part: str | None) -> list[Drawing]:
    """ROC, precision and recall, reliability."""
    rows = scored(run, part)
    if rows is None:
        return []
    shown_classes = _shown_classes(run, part, rows)
    columns = [rows.classes.index(name) for name in shown_classes]
    drawings = []
    roc = {rows.classes[k]: points for k in columns if (points := roc_points(rows.truth[:, k], rows.scores[:, k]))}
    if roc:
        drawings.append(draw(figures.roc(roc, _areas(run, part, "roc_auc", roc)), "ROC curve", "Dashed: guessing."))
    recall = {rows.classes[k]: points for k in columns if (points := precision_recall_points(rows.truth[:, k], rows.scores[:, k]))}
    if recall:
        drawing = figures.precision_recall(recall, _areas(run, part, "average_precision", recall))
        drawings.append(draw(drawing, "Precision and recall", "AP: average precision."))
    return [*drawings, _reliability(run, part, rows)]


def _shown_classes(run: RunFiles, part: str | None, rows: Scored) -> Sequence[str]:
    """Binary tasks: the positive class only; otherwise all."""
    positive = within(run.metrics, part or "").get("positive") or run.metrics.get("positive")
    if run.metrics.get("task") == "binary" or (len(rows.classes) == 2 and not rows.multilabel):
        return [str(positive)] if positive in rows.classes else rows.classes[1:2]
    return rows.classes


def _areas(run: RunFiles, part: str | None, name: str, classes: Collection[str]) -> dict[str, Shown | None]:
    numbers = within(run.metrics, part or "")
    per_class = {each: shown(within(numbers, "per_class", each).get(name)) for each in classes}
    whole = shown(numbers.get(name))
    return {each: found or (whole if len(classes) == 1 else None) for each, found in per_class.items()}


def _reliability(run: RunFiles, part: str | None, rows: Scored) -> Drawing:
    targets = rows.truth if rows.multilabel else rows.truth.argmax(axis=1)
    bins = reliability_curve(rows.scores, targets.astype(np.int64))
    error = shown(within(run.metrics, part or "").get("calibration_error"))
    text = f"Expected calibration error {error.text}" if error is not None else ""
    ends = f" ({error.interval})" if error is not None and error.bounded else ""
    caption = f"{text}{ends}. Dashed: scores that can be taken at their word." if text else ""
    return draw(figures.reliability(bins, several=rows.multilabel), "Reliability", caption)


def counted_confusion(rows: Scored | None) -> list[list[int]] | None:
    """The confusion matrix of single-class predictions, for parts whose numbers do not hold one."""
    if rows is None or rows.multilabel or (rows.predicted < 0).any() or (rows.truth.sum(axis=1) != 1).any():
        return None
    matrix = confusion_matrix(rows.truth.argmax(axis=1).astype(np.int64), rows.predicted, len(rows.classes))
    return [[int(n) for n in row] for row in matrix]
