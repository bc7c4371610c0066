"""Labels that out-of-sample scores contradict: candidates for a second look, not verdicts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coverslip.errors import InputError
from coverslip.evaluation.sheet import known_targets
from coverslip.structures import Predictions, Task


@dataclass(frozen=True)
class SuspectedLabel:
    """A row whose label looks wrong.

    Attributes:
        row: its place in the predictions.
        image: its name.
        label: the class it is labelled with.
        suggestion: the class that the scores speak for.
        score: score of the suggestion minus score of the label, in [-1, 1]; higher is more suspicious.
    """

    row: int
    image: str
    label: str
    suggestion: str
    score: float


def suspected_label_errors(predictions: Predictions, limit: int = 50) -> list[SuspectedLabel]:
    """Rows whose scores contradict their label, most suspicious first (confident learning, Northcutt et al. 2021).

    A class is confident about a row when its score reaches the mean score of that class over the rows labelled with it.
    A row is suspected when the highest-scoring confident class is not its label; suspects are ranked by the margin
    between both. The scores must be out of sample (out of fold, or of parts that were not trained on), for a model that
    has learned a wrong label by heart agrees with it.

    Args:
        predictions: n scored rows with targets, binary or multiclass.
        limit: largest number of suspects.

    Raises:
        InputError: no rows, no labels, or a multilabel task.
    """
    if predictions.task is Task.MULTILABEL:
        raise InputError("label errors of multi-label predictions cannot be suspected yet; expected a binary or multiclass task")
    targets, scores = known_targets(predictions), predictions.scores
    counts = np.bincount(targets, minlength=len(predictions.classes))
    own = scores[np.arange(len(targets)), targets]
    sums = np.bincount(targets, weights=own, minlength=len(predictions.classes))
    thresholds = np.divide(sums, counts, out=np.full(len(counts), np.inf), where=counts > 0)
    confident = np.where(scores >= thresholds, scores, -np.inf)
    suggestion = confident.argmax(axis=1)
    suspected = np.flatnonzero((confident.max(axis=1) > -np.inf) & (suggestion != targets))
    margin = scores[suspected, suggestion[suspected]] - own[suspected]
    ranked = suspected[np.argsort(-margin, kind="stable")][:limit]
    names = predictions.classes
    return [
        SuspectedLabel(int(i), predictions.images[i], names[targets[i]], names[suggestion[i]], float(scores[i, suggestion[i]] - own[i]))
        for i in ranked
    ]
