"""May images be flipped and turned? Asked of the images themselves, before augmentation is chosen.

If nobody can tell flipped images of a class from unflipped ones, a flip makes a new image that could have been taken. A
linear classifier on frozen features (or on pixels, without weights) tries to tell them apart, class by class: where it
cannot do better than guessing, the change is allowed. Class by class, because a flip may turn one class into another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from threadpoolctl import threadpool_limits

from coverslip.structures import FloatArray, IntArray

GUESSING = 0.62
"""Mean area under the ROC curve within classes up to which a change counts as invisible."""
SEEN_IN_A_CLASS = 0.85
"""Area in one class from which the change counts as visible there, whatever the others say."""
LEAST = 16
"""Images of a class that can be asked at all."""


@dataclass(frozen=True)
class Symmetry:
    """Which changes leave images as they could have been taken.

    Attributes:
        horizontal: mirroring left and right.
        vertical: mirroring top and bottom.
        turns: quarter turns.
        sentence: what was found, with the areas under the ROC curve.
    """

    horizontal: bool = True
    vertical: bool = False
    turns: bool = False
    sentence: str = "horizontal flips only, untested"


UNTESTED = Symmetry()


def visibility(plain: FloatArray, changed: FloatArray, labels: IntArray, seed: int) -> tuple[float, float]:
    """How well changed images can be told from plain ones, within classes.

    Args:
        plain: float (n, features) of the images as they are.
        changed: float (n, features) of the same images after the change.
        labels: int64 (n,) class indices, or (n, classes) of 0 and 1: an image then counts with each class that it carries.
        seed: of which images are shown changed, and of the folds.

    Returns:
        Mean and largest area under the ROC curve over the classes with at least 16 images; (1, 1) when there is none.
    """
    random = np.random.default_rng(seed)
    areas = []
    carries = labels.T == 1 if labels.ndim == 2 else np.unique(labels)[:, None] == labels
    for member in carries:
        rows = random.permutation(np.flatnonzero(member))
        if len(rows) < LEAST:
            continue
        half = np.arange(len(rows)) % 2
        shown = np.where(half[:, None] == 1, changed[rows], plain[rows]).astype(np.float64)
        shown = (shown - shown.mean(axis=0)) / (shown.std(axis=0) + 1e-6)
        folds = StratifiedKFold(4, shuffle=True, random_state=seed % 2**32)
        with threadpool_limits(1):
            guess = cross_val_predict(LogisticRegression(C=1e-2, max_iter=200), shown, half, cv=folds, method="decision_function")
        areas.append(float(roc_auc_score(half, guess)))
    return (float(np.mean(areas)), float(np.max(areas))) if areas else (1.0, 1.0)


def invisible(area: tuple[float, float], classes: int) -> bool:
    """Whether a change counts as invisible: on average, and in each class unless there are many small ones."""
    mean, highest = area
    return mean <= GUESSING and (highest <= SEEN_IN_A_CLASS or classes > 4)
