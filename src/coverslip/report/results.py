"""The results of the page: numbers, confusion matrix, per class, per group, folds, and more images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from coverslip.report import figures
from coverslip.report.files import RunFiles, items, within
from coverslip.report.numbers import LOWER_IS_BETTER, Shown, finite, label, shown
from coverslip.report.sections import MOST_ROWS, PART_TITLES, Drawing, Section, class_names, draw

MOST_CONFUSED = 40
"""Classes up to which the confusion matrix is drawn."""

FLAT = 0.005
"""Gain of accuracy that nobody would collect images for."""

LONG_METHOD = 50
"""Letters of "interval by" that fit into a line of the table, with room for the columns of other parts: half, a third."""


def results(run: RunFiles, part: str | None) -> Section | None:
    """Numbers, confusion matrix, per class, per group, folds."""
    numbers = within(run.metrics, part or "")
    if not numbers:
        return None
    others = [other for other in PART_TITLES if other != part and within(run.metrics, other)]
    rows = _number_rows(run, numbers, others)
    longest = max((len(row["number"].method) for row in rows), default=0)
    return {
        "crowded": len(others) > 1 or longest > LONG_METHOD / (1 + len(others)),
        "part": PART_TITLES[str(part)],
        "others": [PART_TITLES[other] for other in others],
        "rows": rows,
        "threshold": numbers.get("threshold"),
        "positive": numbers.get("positive") or run.metrics.get("positive"),
        "confusion": confusion(numbers, class_names(run)),
        "per_class": _per_class(numbers),
        "groups": _groups(numbers),
        "folds": _folds(run),
    }


def _number_rows(run: RunFiles, numbers: Mapping[str, Any], others: Sequence[str]) -> list[Section]:
    rows = []
    for name, number in numbers.items():
        value = shown(number) if isinstance(number, Mapping) and "value" in number else None
        if value is not None:
            found = [within(run.metrics, other).get(name) for other in others]
            beside = [(shown(each), over_classes(run, each)) for each in found]
            entry = {"label": label(name), "over": over_classes(run, number), "number": value, "lower": name in LOWER_IS_BETTER}
            rows.append({**entry, "others": beside})
    return rows


def over_classes(run: RunFiles, number: object) -> str:
    """`over 11 of 12 classes` for a macro number that is undefined for the others; else empty."""
    defined, known = (number.get("classes_defined") if isinstance(number, Mapping) else None), len(class_names(run))
    return f"over {defined} of {known} classes" if isinstance(defined, int) and defined < known else ""


def confusion(numbers: Mapping[str, Any], classes: Sequence[str]) -> Section | None:
    """Rows of cells (count, share of the row, colour), and the most frequent confusions."""
    matrix = numbers.get("confusion")
    if not matrix or np.shape(matrix) != (len(classes), len(classes)):
        return None
    counts = np.asarray(matrix, dtype=np.float64)
    totals = counts.sum(axis=1)
    shares = np.divide(counts, totals[:, None], out=np.zeros_like(counts), where=totals[:, None] > 0)
    cells = [[_cell(counts[i, j], shares[i, j], i == j) for j in range(len(classes))] for i in range(len(classes))]
    wrong = [(counts[i, j], shares[i, j], classes[i], classes[j]) for i, j in np.argwhere(counts) if i != j]
    worst = [(int(n), f"{100 * share:.1f} %", true, said) for n, share, true, said in sorted(wrong, reverse=True)[:12]]
    return {
        "rows": list(zip(classes, cells, [int(total) for total in totals], strict=True)) if len(classes) <= MOST_CONFUSED else [],
        "classes": classes,
        "worst": worst if len(classes) > 3 else [],
        "density": "roomy" if len(classes) <= 8 else "close" if len(classes) <= 20 else "tight",
    }


def _cell(n: float, share: float, diagonal: bool) -> Section:
    strength = 0.0 if n == 0 else 0.08 + 0.47 * share  # at most as strong as ink is read on, on light and dark pages
    return {
        "n": int(n),
        "share": f"{100 * share:.0f} %",
        "kind": "hit" if diagonal else "miss",
        "strength": round(strength, 3),
    }


def _per_class(numbers: Mapping[str, Any]) -> Section | None:
    per_class = {name: each for name, each in within(numbers, "per_class").items() if isinstance(each, Mapping)}
    if not per_class:
        return None
    columns = ("precision", "recall", "f1", "roc_auc", "average_precision")
    rows = [(name, finite(each.get("support")), [shown(each.get(column)) for column in columns]) for name, each in per_class.items()]
    worst = sorted(per_class, key=lambda name: _or_worst(shown(per_class[name].get("f1"))))[:MOST_ROWS]
    names = [name for name in per_class if name in worst]
    bars = {label(column): {name: shown(per_class[name].get(column)) for name in names} for column in columns[:3]}
    caption = "Lines: intervals." + (f" The {len(names)} classes with the lowest F1." if len(names) < len(per_class) else "")
    return {"columns": [label(column) for column in columns], "rows": rows, "drawing": draw(figures.per_class(bars), "Per class", caption)}


def _or_worst(number: Shown | None) -> float:
    return number.value if number is not None and number.value is not None else -1.0


def _groups(numbers: Mapping[str, Any]) -> Section | None:
    """Accuracy (or micro F1) a group, worst first; from a list of {group, n, accuracy} or a mapping of names."""
    stated = numbers.get("groups")
    named = [{"group": name, **each} for name, each in stated.items()] if isinstance(stated, Mapping) else items(dict(numbers), "groups")
    name = "accuracy" if any(isinstance(each, Mapping) and "accuracy" in each for each in named) else "micro_f1"
    rows = [(str(each.get("group")), finite(each.get("n")), shown(each.get(name))) for each in named if isinstance(each, Mapping)]
    rows = sorted((row for row in rows if row[2] is not None), key=lambda row: _or_worst(row[2]))
    return {"number": label(name), "rows": rows[:20], "more": max(0, len(rows) - 20)} if rows else None


def _folds(run: RunFiles) -> Drawing | None:
    numbers = within(run.metrics, "folds")
    each = [fold for fold in items(numbers, "each") if isinstance(fold, Mapping)]
    names = ("accuracy", "macro_f1", "micro_f1", "roc_auc", "macro_roc_auc")
    values = {label(name): _fold_values(each, name) for name in names}
    values = {name: pairs for name, pairs in values.items() if pairs}
    means = {label(name): shown(numbers.get(name)) for name in names}
    caption = "A dot is a fold; the line is the number over all folds."
    return draw(figures.folds(values, means), "Folds", caption) if values else None


def _fold_values(each: Iterable[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    found = [(int(fold.get("repeat") or 0), shown(fold.get(name))) for fold in each]
    return [(repeat, number.value) for repeat, number in found if number is not None and number.value is not None]


def more_images(run: RunFiles) -> Drawing | None:
    """Accuracy against the number of training images, when the run measured it."""
    table = run.learning_curve
    if table is None or not {"images", "accuracy"} <= set(table.columns):
        return None
    table = table.dropna(subset=["images", "accuracy"]).sort_values("images")
    if len(table) < 2:
        return None
    caption = f"{_more_images_answer(table)} The band is the interval of the accuracy."
    return draw(figures.learning_curve(table), "Would more images help?", caption)


def _more_images_answer(table: pd.DataFrame) -> str:
    """What the last stretch of the curve says, held against half the width of the interval of its end."""
    before, last = table.iloc[-2], table.iloc[-1]
    gain = last["accuracy"] - before["accuracy"]
    noise = (last["high"] - last["low"]) / 2 if {"low", "high"} <= set(table.columns) else FLAT
    said = (
        f"From {before['images']:,.0f} to {last['images']:,.0f} training images the accuracy went from {before['accuracy']:.3f} to "
        f"{last['accuracy']:.3f}."
    )
    if last["accuracy"] >= 1:
        return f"{said} Nothing is left to gain on these images; other images (another instrument, another season) may show more."
    if gain > noise:
        return f"{said} The curve still rises by more than chance would explain: more images are likely to help."
    if gain > FLAT:
        return f"{said} It may still rise, but by no more than chance would explain: more images may help."
    return f"{said} The curve is flat there: more images of the same kind would hardly help."
