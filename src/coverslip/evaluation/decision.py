"""A decision as a value: how a model's scores become calibrated scores and decisions. What a bundle keeps of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from coverslip.evaluation.calibration import apply_platt
from coverslip.evaluation.decisions import apply_temperature, decide
from coverslip.evaluation.uncertainty import Conformal
from coverslip.structures import BoolArray, FloatArray, IntArray, Task


@dataclass(frozen=True)
class Decision:
    """From scores to decisions: chosen on scores of images that were not trained on, never on the test part.

    Attributes:
        task: binary, multiclass or multilabel.
        threshold: binary: the positive class from this score on; multilabel: of all classes where `thresholds` is empty.
        temperature: of one label an image; 1 changes nothing.
        thresholds: multilabel: one a class, or empty.
        lines: multilabel: slope and offset on the log-odds of each class, or empty for scores as they are.
        at_least_one: multilabel: whether an image without any label gets the nearest.
        note: how all this was chosen, in words.
        conformal: which decisions are doubtful by their scores; None where that is not calibrated.
    """

    task: Task
    threshold: float = 0.5
    temperature: float = 1.0
    thresholds: tuple[float, ...] = ()
    lines: tuple[tuple[float, float], ...] = ()
    at_least_one: bool = False
    note: str = ""
    conformal: Conformal | None = None

    @property
    def reported(self) -> float | FloatArray:
        """The threshold, or float64 (classes,) of them where each class has its own."""
        return np.array(self.thresholds) if self.thresholds else self.threshold

    def calibrated(self, scores: FloatArray) -> FloatArray:
        """Scores (n, classes) after temperature or lines."""
        if self.lines:
            slopes, offsets = np.array(self.lines).T
            return apply_platt(scores, slopes, offsets)
        return scores if self.temperature == 1 else apply_temperature(scores, self.temperature)

    def decide(self, calibrated: FloatArray) -> IntArray:
        """Class indices, int64 (n,), or with several labels int64 (n, classes) of 0 and 1."""
        return decide(calibrated, self.task, self.reported, at_least_one=self.at_least_one)

    def doubtful(self, calibrated: FloatArray, predicted: IntArray) -> BoolArray | None:
        """Whether decisions on calibrated scores are in doubt, bool (n,); None where that is not calibrated."""
        return None if self.conformal is None else self.conformal.doubtful(calibrated, predicted, self.reported, self.task)

    def __call__(self, scores: FloatArray) -> tuple[FloatArray, IntArray]:
        """Calibrated scores and decisions."""
        calibrated = self.calibrated(scores)
        return calibrated, self.decide(calibrated)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        doubt = {} if self.conformal is None else {"conformal": self.conformal.to_json()}
        if self.task is not Task.MULTILABEL:
            return {"threshold": self.threshold, "temperature": self.temperature, **doubt}
        return doubt | {
            "threshold": self.threshold, "thresholds": list(self.thresholds), "lines": [list(line) for line in self.lines],
            "at_least_one": self.at_least_one,
        }  # fmt: skip

    @staticmethod
    def from_json(task: Task, value: Mapping[str, Any]) -> Decision:
        """The inverse of `to_json`.

        Raises:
            KeyError, ValueError: not what `to_json` wrote.
        """
        conformal = Conformal.from_json(value["conformal"]) if value.get("conformal") else None
        if task is not Task.MULTILABEL:
            return Decision(task, float(value["threshold"]), float(value["temperature"]), conformal=conformal)
        return Decision(
            task,
            float(value["threshold"]),
            thresholds=tuple(float(threshold) for threshold in value["thresholds"]),
            lines=tuple((float(slope), float(offset)) for slope, offset in value["lines"]),
            at_least_one=bool(value["at_least_one"]),
            conformal=conformal,
        )
