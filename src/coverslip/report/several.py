"""The parts of the page that exist only where an image may carry several labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coverslip.evaluation.decisions import reliability_curve
from coverslip.evaluation.thresholds import macro_f1_curve, threshold_curve
from coverslip.report import several_figures
from coverslip.report.curves import thinned, thinned_to_peak
from coverslip.report.figures import Curve
from coverslip.report.files import RunFiles, items, within
from coverslip.report.numbers import Shown, finite, label, listed, shown
from coverslip.report.pictures import Album, Picture
from coverslip.report.results import over_classes
from coverslip.report.scores import Scored, scored
from coverslip.report.sections import Drawing, Section, class_names, draw
from coverslip.structures import BoolArray, FloatArray

MOST_CLASSES = 40
"""Classes up to which co-occurrence is drawn."""

PART_WORDS = {"validation": "in validation", "folds": "out of fold", "test": "in test"}
"""Where thresholds are judged, in words."""

STRATEGIES = {
    "plain": "0.5 for all",
    "fixed": "stated, one for all",
    "global": "best one for all",
    "per_class": "one a class",
    "ratio": "shares as in training",
}


def composition(run: RunFiles) -> list[Drawing]:
    """Which labels come together, and how many an image carries."""
    if run.metrics.get("task") != "multilabel" or run.split is None or "label" not in run.split:
        return []
    names = class_names(run)
    carried = _carried(run.split["label"].fillna("").astype(str).tolist(), names)
    drawings = [draw(several_figures.labels_per_image(np.bincount(carried.sum(axis=1))), "Labels per image")]
    if 2 <= len(names) <= MOST_CLASSES:
        caption = "Of the images with the class of the row, the share that also carries the class of the column."
        drawings.append(draw(several_figures.cooccurrence(_shares_together(carried), names), "Labels that come together", caption))
    return drawings


def _carried(texts: list[str], names: list[str]) -> BoolArray:
    sets = [set(text.split("|")) for text in texts]
    return np.array([[name in labels for name in names] for labels in sets], dtype=np.bool_).reshape(len(sets), len(names))


def _shares_together(carried: BoolArray) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    counts = carried.astype(np.float64)
    together = counts.T @ counts
    return together / np.maximum(np.diag(together)[:, None], 1)


def class_rows(run: RunFiles, album: Album) -> list[Section]:
    """(class, pictures with it, pictures without it)."""
    entries = [(entry, [_pictures(album, entry.get(side)) for side in ("with", "without")]) for entry in run.pictures_of("class")]
    return [{"label": entry.get("label", ""), "with": shown, "without": others} for entry, (shown, others) in entries if shown or others]


def _pictures(album: Album, names: object) -> list[Picture]:
    return [picture for name in names if (picture := album.picture(name))] if isinstance(names, list) else []


def thresholds(run: RunFiles, part: str | None) -> Section | None:
    """Every way to choose thresholds beside plain 0.5, on the part that chose and on the test part."""
    table = within(run.metrics, "thresholds")
    stated = {name: row for name, row in table.items() if isinstance(row, Mapping)}
    if not stated:
        return None
    parts = [name for name in ("validation", "folds", "test") if any(name in within(dict(row), "parts") for row in stated.values())]
    used = str(within(run.config, "decision").get("thresholds") or "fixed")
    numbers = ("macro_f1", "micro_f1", "macro_f1_gain")
    rows = [
        {
            "name": STRATEGIES.get(name, name),
            "values": _range_of(items(dict(row), "thresholds")) if name != "plain" else "",
            "note": str(row.get("note") or ""),
            "used": name == used or (name == "plain" and used == "fixed" and within(run.config, "decision").get("threshold", 0.5) == 0.5),
            "estimate": finite(row.get("estimate")),
            "cells": [{key: shown(within(dict(row), "parts", each).get(key)) for key in numbers} for each in parts],
        }
        for name, row in stated.items()
    ]
    curves = [drawing for drawing in (_curve(run, part), _class_curves(run, part)) if drawing is not None]
    columns = [PART_WORDS[name].removeprefix("in ") for name in parts]
    return {
        "parts": parts,
        "columns": columns,
        "over": _over(run, parts),
        "rows": rows,
        "verdict": _verdict(stated, used),
        "curves": curves,
    }


def _range_of(thresholds: Sequence[Any]) -> str:
    """The lowest and the highest threshold, or the one or two that there are: `0.122–0.166`, `0.072 and 0.500`; empty for none."""
    known = list(dict.fromkeys(f"{value:.3f}" for value in sorted(each for each in map(finite, thresholds) if each is not None)))
    return listed(known) if len(known) <= 2 else f"{known[0]}–{known[-1]}"


def _over(run: RunFiles, parts: Sequence[str]) -> str:
    """A sentence on the classes that macro F1 runs over, where it leaves some out."""
    found = [(name, over_classes(run, within(run.metrics, name).get("macro_f1"))) for name in parts]
    said = [f"{over} {PART_WORDS[name]}" for name, over in found if over]
    return f"Macro F1 runs {' and '.join(said)}: the others have no image there." if said else ""


def _verdict(stated: Mapping[str, Mapping[str, Any]], used: str) -> str:
    """Whether the thresholds that were used did better than plain 0.5 on the test part, in a sentence."""
    gain = shown(within(dict(stated.get(used) or {}), "parts", "test").get("macro_f1_gain"))
    if used == "fixed" or gain is None or gain.value is None or not gain.bounded:
        return ""
    ends = f"{gain.value:+.3f} macro F1 ({gain.low:+.3f} to {gain.high:+.3f})"
    name = STRATEGIES.get(used, used)
    if gain.low is not None and gain.low > 0:
        return f"On the test part the thresholds that were chosen ({name}) did better than plain 0.5: {ends}."
    if gain.high is not None and gain.high < 0:
        return f"On the test part the thresholds that were chosen ({name}) did worse than plain 0.5: {ends}. Prefer the constant."
    return f"On the test part the thresholds that were chosen ({name}) cannot be told from plain 0.5: {ends}."


def _curve(run: RunFiles, part: str | None) -> Drawing | None:
    """Macro F1 against one threshold for all classes, on each part with predictions."""
    found = {name: macro_f1_curve(rows.scores, rows.truth.astype(np.int64)) for name, rows in _judged(run, part).items()}
    curves = {name: thinned_to_peak(*curve) for name, curve in found.items() if len(curve[0])}
    caption = "Macro F1 when all classes share one threshold, over every threshold that changes a decision. Dashed: 0.5."
    return draw(several_figures.threshold_curves(curves), "Threshold and F1", caption) if curves else None


def _judged(run: RunFiles, part: str | None) -> dict[str, Scored]:
    """The labelled predictions of each part that has numbers."""
    names = ("validation", "test") if part != "folds" else ("folds",)
    found = {name: scored(run, name) for name in names if name in run.metrics}
    return {name: rows for name, rows in found.items() if rows is not None}


def _class_curves(run: RunFiles, part: str | None) -> Drawing | None:
    """F1 of each class against its own threshold, exact: every score at which a decision changes."""
    judged, names = _judged(run, part), class_names(run)
    if not judged or len(names) > MOST_CLASSES:
        return None
    panels = {}
    for column, name in enumerate(names):
        curves = {
            each: curve for each, rows in judged.items() if (curve := _steps(rows.scores[:, column], rows.truth[:, column])) is not None
        }
        panels[name] = several_figures.ClassCurves(curves, finite(within(run.metrics, part or "", "per_class", name).get("threshold")))
    caption = "F1 of a class against its threshold. Dotted: the threshold in use."
    return draw(several_figures.class_thresholds(panels), "Threshold and F1, class by class", caption)


def _steps(scores: FloatArray, truth: BoolArray) -> Curve | None:
    """Thresholds from 0 to 1, and the F1 that each has together with all below it down to the one before; None without positives."""
    if not truth.any():
        return None
    f1 = threshold_curve(scores, truth.astype(np.int64)).f1[::-1]
    levels = np.unique(scores)
    beyond = 0.0 if levels[-1] < 1 else f1[-1]
    return thinned(np.concatenate([[0.0], levels, [max(1.0, levels[-1])]]), np.concatenate([f1[:1], f1, [beyond]]))


def reliability(run: RunFiles, part: str | None) -> Drawing | None:
    """Reliability of each class, with its expected calibration error."""
    rows = scored(run, part)
    if run.metrics.get("task") != "multilabel" or rows is None or not 2 <= len(rows.classes) <= MOST_CLASSES:
        return None
    panels = {}
    for column, name in enumerate(rows.classes):
        error = shown(within(run.metrics, part or "", "per_class", name).get("calibration_error"))
        bins = reliability_curve(rows.scores[:, column], rows.truth[:, column].astype(np.int64))
        panels[name] = (bins, f"ECE {error.text}" if error is not None else "")
    caption = "Share of the images that carry the label against its score. ECE: expected calibration error. Lines: intervals."
    return draw(several_figures.class_reliability(panels), "Reliability, class by class", caption)


def calibration(run: RunFiles) -> Section | None:
    """Log loss, Brier score and calibration error before and after calibration, on the part that it was fitted on and on the test part."""
    table = within(run.metrics, "calibration")
    parts = [name for name in PART_WORDS if within(table, name)]
    if not parts:
        return None
    names = [name for name in within(table, parts[0]) if shown(within(table, parts[0], name).get("gain")) is not None]
    kinds = ("before", "after", "gain")
    rows = [
        {"name": label(name), "cells": [{kind: shown(within(table, part, name).get(kind)) for kind in kinds} for part in parts]}
        for name in names
    ]
    columns = [PART_WORDS[name].removeprefix("in ") for name in parts]
    return {"columns": columns, "rows": rows, "verdict": _calibration_verdict(shown(within(table, "test", "log_loss").get("gain")))}


def _calibration_verdict(gain: Shown | None) -> str:
    """Whether calibration lowered the log loss of the test part, in a sentence; empty where that is not known."""
    if gain is None or gain.value is None or gain.low is None or gain.high is None:
        return ""
    ends = f"{gain.value:+.3f} log loss gained ({gain.low:+.3f} to {gain.high:+.3f})"
    if gain.low > 0:
        return f"On the test part calibration helped: {ends}."
    if gain.high < 0:
        return f"On the test part calibration did harm: {ends}. Prefer decision.calibrate = false."
    return f"On the test part calibration cannot be told from none: {ends}."


def matrices(run: RunFiles, part: str | None) -> list[Section]:
    """Threshold and 2x2 matrix of each class."""
    rows = []
    for name, each in within(run.metrics, part or "", "per_class").items():
        matrix = np.array(items(dict(each), "matrix")) if isinstance(each, Mapping) else np.zeros(0)
        if matrix.shape == (2, 2):
            clear, alarms, missed, found = (int(n) for n in matrix.ravel())
            cells = {"found": found, "missed": missed, "alarms": alarms, "left_out": clear}
            rows.append({"name": name, "threshold": finite(each.get("threshold")), **cells})
    return rows
