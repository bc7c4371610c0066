"""The run folders of a comparison, read back: a row of the table of results, and predictions to be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coverslip.evaluation.frames import read_predictions
from coverslip.structures import Predictions, Task
from coverslip.study.grid import PlannedRun
from coverslip.study.verdict import Contender, judged_part, main_number, rank

ASKED = (
    "model_id", "hardware_type", "pretrained_model", "classifier_head", "opt_alg", "training_time_mins", "inference_time_secs",
    "accuracy", "precision", "recall", "conf_mat", "roc_auc",
)  # fmt: skip
"""The first columns of results.csv."""
NUMBERS = {
    "accuracy": "accuracy", "precision": "weighted_precision", "recall": "weighted_recall", "roc_auc": "roc_auc",
    "macro_f1": "macro_f1", "balanced_accuracy": "balanced_accuracy", "log_loss": "log_loss", "calibration_error": "calibration_error",
}  # fmt: skip
"""Columns of results.csv by the numbers of metrics.json that they hold."""
NUMBERS_OF_SEVERAL = NUMBERS | {"accuracy": "exact_match", "roc_auc": "macro_roc_auc", "balanced_accuracy": "micro_f1"}
BOUNDED = ("accuracy", "roc_auc", "macro_f1")
"""Columns whose interval is given too, as `_low` and `_high`."""
COVERED = {"training.device", "model.backbone", "model.head", "training.optimizer", "training.seed", "split.seed", "split.folds"}
"""Keys that have a column of their own; other axes get one by their name."""
TEXTS = ("image", "predicted", "label", "group", "part", "repeat", "fold")


def planned_row(run: PlannedRun, status: str, error: str = "") -> dict[str, Any]:
    """A row of a run that has no numbers: what it is, and why."""
    config = run.config
    row: dict[str, Any] = {
        "model_id": run.model_id, "hardware_type": config.training.device, "pretrained_model": config.model.backbone,
        "classifier_head": str(config.model.head), "opt_alg": config.training.optimizer,
    }  # fmt: skip
    row |= {"weights_from": config.model.weights, "seed": config.training.seed, "split_seed": config.split.seed}
    row |= {"folds": config.split.folds, "epochs": config.training.epochs, "batch_size": config.training.batch_size}
    row |= {"learning_rate": config.training.learning_rate, "regime": config.training.regime}
    row |= {key: value for key, value in axis_values(run).items() if key not in COVERED}
    return row | {"status": status, "error": error}


def axis_values(run: PlannedRun) -> dict[str, Any]:
    """The value of each key that the axes set, as text where it is a list."""
    flat: dict[str, Any] = {}
    for key, value in run.values.items():
        named = {f"{key}.{name}": one for name, one in value.items()} if isinstance(value, Mapping) else {key: value}
        flat |= {name: one if isinstance(one, (str, int, float, bool)) else json.dumps(one) for name, one in named.items()}
    return flat


def finished_row(run: PlannedRun, folder: Path) -> dict[str, Any]:
    """The row of a finished run, from the files of its folder.

    `training_time_mins` is the run's own fitting; `features_time_mins` is what the features of its frozen backbone took, whoever
    computed them: the run alone would have needed both. `inference_time_secs` is what the network takes for `inference_images`
    images of those that judge it, from stored pixels to scores.
    """
    metrics, timing = read_json(folder / "metrics.json"), read_json(folder / "timing.json")
    environment, summary = read_json(folder / "environment.json"), read_json(folder / "summary.json")
    part = judged_part(metrics)
    numbers = metrics.get(part or "", {})
    row = planned_row(run, "done")
    row |= {"hardware_type": "cpu" if environment.get("device", "cpu") == "cpu" else "gpu", "device": environment.get("device")}
    row |= {"split_seed": environment.get("seeds", {}).get("split"), "judged_on": part, "images": numbers.get("n")}
    for column, name in (NUMBERS_OF_SEVERAL if metrics.get("task") == Task.MULTILABEL else NUMBERS).items():
        number = numbers.get(name, {})
        row[column] = number.get("value")
        if column in BOUNDED:
            row |= {f"{column}_low": number.get("low"), f"{column}_high": number.get("high")}
    row["conf_mat"] = json.dumps(numbers["confusion"]) if "confusion" in numbers else ""
    images, seconds = timing.get("inference_images"), timing.get("inference_seconds")
    row |= {
        "inference_time_secs": seconds,
        "inference_images": images,
        "images_per_second": images / seconds if images and seconds else None,
    }
    row |= {f"{name}_time_mins": _minutes(timing.get(f"{name}_seconds")) for name in ("training", "features")}
    return row | {"weights": summary.get("weights"), "trainable_weights": summary.get("trainable_weights")}


def _minutes(seconds: float | None) -> float | None:
    return None if seconds is None else seconds / 60


ORDER = (
    *ASKED, "accuracy_low", "accuracy_high", "roc_auc_low", "roc_auc_high", "macro_f1", "macro_f1_low", "macro_f1_high",
    "balanced_accuracy", "log_loss", "calibration_error", "weights", "trainable_weights", "images_per_second", "inference_images",
    "features_time_mins", "judged_on", "images", "seed", "split_seed", "folds", "regime", "epochs", "batch_size", "learning_rate",
    "weights_from", "device", "verdict", "status", "error",
)  # fmt: skip
"""The columns of results.csv; the other axes follow."""


def results_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as the table of results, its columns in their order, texts empty where there are none."""
    frame = pd.DataFrame(rows)
    frame = frame.reindex(columns=[*ORDER, *(name for name in frame if name not in ORDER)])
    for name in ("conf_mat", "judged_on", "device", "verdict", "error"):
        frame[name] = ["" if _missing(value) else str(value) for value in frame[name]]
    for name in ("weights", "trainable_weights", "images", "inference_images"):
        frame[name] = pd.array([None if _missing(value) else int(value) for value in frame[name]], dtype="Int64")
    for name in frame.columns:
        if frame[name].map(type).nunique() > 1 and frame[name].dtype == object:  # Parquet wants one type a column
            frame[name] = frame[name].map(lambda value: None if _missing(value) else str(value))
    return frame


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and bool(np.isnan(value)))


def folds_frame(folders: Mapping[str, Path]) -> pd.DataFrame:
    """Every fold of every run that has some, a row each: model_id, repeat, fold, n, and the numbers."""
    rows = []
    for name, folder in folders.items():
        each = read_json(folder / "metrics.json").get("folds", {}).get("each", [])
        rows += [{"model_id": name, **fold, "repeat": fold["repeat"] + 1, "fold": fold["fold"] + 1} for fold in each]
    return pd.DataFrame(rows)


def contender(run: PlannedRun, folder: Path) -> Contender | None:
    """A finished run as the verdict looks at it; None when no images judged it."""
    metrics = read_json(folder / "metrics.json")
    part = judged_part(metrics)
    judged = judged_predictions(folder, metrics)
    if part is None or judged is None:
        return None
    split = run.config.split.model_dump_json()
    return Contender(run.model_id, judged, rank(metrics), metrics[part][main_number(metrics)], split)


def judged_predictions(folder: Path, metrics: Mapping[str, Any]) -> Predictions | None:
    """The predictions of the part that judges, in the order of the images' names; of repeated folds the first."""
    part, task = judged_part(metrics), Task(metrics["task"])
    table = pd.read_csv(folder / "predictions.csv", dtype=dict.fromkeys(TEXTS, str), keep_default_na=False, na_values=[])
    if part is None:
        return None
    chosen = table[(table["part"] == "fold") & (table["repeat"] == "1")] if part == "folds" else table[table["part"] == part]
    return read_predictions(chosen.sort_values("image", kind="stable"), metrics["classes"], task)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a run folder; empty when the run did not write it."""
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
