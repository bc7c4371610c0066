"""Finished runs told to TensorBoard and MLflow: curves, final numbers with their intervals, the config. Reads run folders only."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from coverslip.config import read_toml
from coverslip.errors import RunFolderError
from coverslip.runtime import hash_text
from coverslip.storage import Place, place

NO_CURVES = ("fold", "group", "phase", "step", "epoch", "seconds", "kept")
"""Columns of history.csv that say where a row belongs; the others are curves."""
NEEDED = ("config.toml", "history.csv", "metrics.json")
ARTIFACTS = ("config.toml", "metrics.json", "history.csv", "report.html")
"""Files that are kept beside the numbers, as far as a run has them."""

Parameter = str | int | float | bool


@dataclass(frozen=True)
class Curve:
    """Values by step.

    Attributes:
        fit: whose curve it is: empty for the model that is kept, otherwise `fold-1.2`, `group-1`, or both with a slash between.
        name: phase and column of history.csv, `all/train_loss`.
        steps: optimizer steps of that phase, from 0.
        values: one a step.
    """

    fit: str
    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class TrackedRun:
    """What is told about a run.

    Attributes:
        name: its name among the runs of its study.
        fingerprint: hash of the name and of all that is told; the same run is told once.
        curves: of each fit and phase.
        numbers: final numbers, `test/accuracy`, with `test/accuracy_low` and `test/accuracy_high`.
        parameters: every key of the config, `model.backbone`.
        config: config.toml as it stands.
        files: what is kept beside the numbers.
        ended: when it was finished, in seconds since 1970.
        seconds: how long it took; 0 when it does not say.
    """

    name: str
    fingerprint: str
    curves: tuple[Curve, ...]
    numbers: dict[str, float]
    parameters: dict[str, Parameter]
    config: str
    files: tuple[Path, ...]
    ended: float
    seconds: float


@dataclass(frozen=True)
class Tracking:
    """Where finished runs are told of.

    Attributes:
        study: what the runs belong to: a folder of `tensorboard`, an experiment of MLflow.
        tensorboard: a folder for TensorBoard, or its URL; None for no TensorBoard.
        mlflow: URI of an MLflow server or database; None for no MLflow.
    """

    study: str
    tensorboard: str | Place | None = None
    mlflow: str | None = None

    def check(self) -> None:
        """Ask, before hours of work, whether runs can be told of at all.

        Raises:
            MissingExtraError: TensorBoard or MLflow is not installed.
            UnreachableError: MLflow does not answer.
            ResourceError: the folder of TensorBoard cannot be written.
        """
        if self.tensorboard is not None:
            from coverslip.study import tracking_tensorboard

            tracking_tensorboard.check(place(self.tensorboard))
        if self.mlflow is not None:
            from coverslip.study import tracking_mlflow

            tracking_mlflow.check(self.mlflow)

    def add(self, folder: Path, name: str) -> None:
        """Tell of a finished run; one that was told of before is not told of again.

        Args:
            folder: its run folder.
            name: its name among the runs of the study.

        Raises:
            RunFolderError: the folder holds no finished run.
            InputError: something else stands where TensorBoard's files would go.
            UnreachableError: MLflow does not answer, or refuses.
        """
        if self.tensorboard is None and self.mlflow is None:
            return
        run = read_tracked(folder, name)
        if self.tensorboard is not None:
            from coverslip.study import tracking_tensorboard

            tracking_tensorboard.add(run, place(self.tensorboard) / self.study / name)
        if self.mlflow is not None:
            from coverslip.study import tracking_mlflow

            tracking_mlflow.add(run, self.mlflow, self.study)


def read_tracked(folder: Path, name: str) -> TrackedRun:
    """What is told about the run in a folder.

    Raises:
        RunFolderError: the folder holds no finished run.
    """
    missing = [file for file in NEEDED if not (folder / file).is_file()]
    if missing:
        raise RunFolderError(f"{folder} holds no finished run: {', '.join(missing)} missing; go on with it (--resume) first")
    config, history, metrics = ((folder / file).read_text(encoding="utf-8") for file in NEEDED)
    timing = folder / "timing.json"
    table = pd.read_csv(folder / "history.csv", dtype={"fold": str, "group": str, "phase": str})
    return TrackedRun(
        name=name,
        fingerprint=hash_text(name, config, history, metrics),
        curves=tuple(curves(table)),
        numbers=final_numbers(json.loads(metrics)),
        parameters=parameters(read_toml(folder / "config.toml")),
        config=config,
        files=tuple(folder / file for file in ARTIFACTS if (folder / file).is_file()),
        ended=(folder / "metrics.json").stat().st_mtime,
        seconds=float(json.loads(timing.read_text(encoding="utf-8")).get("total_seconds") or 0.0) if timing.is_file() else 0.0,
    )


def curves(history: pd.DataFrame) -> Iterator[Curve]:
    """The curves of a history: one for each fold, class group, phase and column that has values.

    Args:
        history: rows of history.csv; `fold` and `group` are text, missing for the model that is kept and for one without groups.
    """
    table = history.copy()
    for column in ("fold", "group"):
        named = table[column].astype("string") if column in table else pd.Series(pd.NA, index=table.index, dtype="string")
        table[column] = (f"{column}-" + named.str.removesuffix(".0")).fillna("")
    for (fold, group, phase), rows in table.groupby(["fold", "group", "phase"], sort=False):
        fit = "/".join(part for part in (str(fold), str(group)) if part)
        for column in (name for name in rows.columns if name not in NO_CURVES):
            known = rows[rows[column].notna()]
            if len(known):
                steps, values = tuple(map(int, known["step"])), tuple(map(float, known[column]))
                yield Curve(fit, f"{phase}/{column}", steps, values)


def final_numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of metrics.json by part, low and high ends of intervals under names of their own.

    >>> final_numbers({"classes": ["a"], "test": {"n": 2, "accuracy": {"value": 0.5, "low": 0.1, "high": 0.9, "method": "exact"}}})
    {'test/n': 2.0, 'test/accuracy': 0.5, 'test/accuracy_low': 0.1, 'test/accuracy_high': 0.9}
    """
    found: dict[str, float] = {}
    for part, numbers in metrics.items():
        if isinstance(numbers, Mapping) and "n" in numbers:
            for name, value in _numbers(numbers, plain_name(part)):
                alike = sum(other.rstrip("_") == name.rstrip("_") for other in found)  # classes that differ in such marks only
                found[name + alike * "_"] = value
    return found


def _numbers(values: Mapping[str, Any], above: str) -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        name = f"{above}/{plain_name(key)}"
        if isinstance(value, Mapping) and "value" in value:
            ends = ((name, "value"), (f"{name}_low", "low"), (f"{name}_high", "high"))
            yield from ((end, float(value[which])) for end, which in ends if value.get(which) is not None)
        elif isinstance(value, Mapping):
            yield from _numbers(value, name)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield name, float(value)


def parameters(config: Mapping[str, Any], above: str = "") -> dict[str, Parameter]:
    """The keys of a nested config with dots between; lists become text.

    >>> parameters({"split": {"folds": 5}, "data": {"merge": {"a+b": ["a", "b"]}}})
    {'split.folds': 5, 'data.merge.a_b': "['a', 'b']"}
    """
    found: dict[str, Parameter] = {}
    for key, value in config.items():
        name = f"{above}{plain_name(key)}"
        if isinstance(value, Mapping):
            found |= parameters(value, f"{name}.")
        else:
            found[name] = value if isinstance(value, (bool, int, float, str)) else str(value)
    return found


def plain_name(text: str) -> str:
    """A name without the marks that MLflow or TensorBoard refuse.

    >>> plain_name("CD4+/CD8 (late)")
    'CD4__CD8 _late_'
    """
    return re.sub(r"[^\w\-. ]", "_", text).strip(".") or "_"
