"""Can the labels be guessed without looking at the picture?

A small decision tree sees one trivial property of the files at a time (format, mode, depth, size, brightness) and is
cross-validated. Where it comes far above chance, a network can learn that property in place of the subject (Geirhos et al. 2020,
"Shortcut learning in deep neural networks").
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binom
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from coverslip.structures import IntArray, StrArray

PROPERTIES: dict[str, tuple[str, ...]] = {
    "file format": ("format",),
    "mode": ("mode",),
    "bits": ("bits",),
    "size": ("height", "width"),
    "brightness": ("mean", "deviation"),
}
FAR = 0.5
"""Share of the way from chance to perfect from which a property is worth a warning."""
LUCK = 0.01
"""Probability of guessing as well from which a property is put down to luck."""

_MOST_FOLDS = 5
_MOST_ROWS = 20_000
_DEPTH = 3
_FEW_VALUES = 12


@dataclass(frozen=True)
class Shortcut:
    """How well one trivial property tells the classes apart.

    Attributes:
        name: `file format`, `mode`, `bits`, `size` or `brightness`.
        balanced_accuracy: cross-validated, in [0, 1].
        chance: balanced accuracy of guessing, 1 / classes.
        luck: probability that guessing does as well on as many images (binomial), in [0, 1].
        values: what each class holds, in words; empty for properties with many values.
    """

    name: str
    balanced_accuracy: float
    chance: float
    luck: float
    values: str

    @property
    def alarming(self) -> bool:
        """Whether the property goes far beyond chance, and beyond what few images give by luck."""
        return self.balanced_accuracy - self.chance >= FAR * (1 - self.chance) and self.luck < LUCK


def find_shortcuts(facts: pd.DataFrame, targets: IntArray, classes: tuple[str, ...], groups: StrArray | None = None) -> list[Shortcut]:
    """Cross-validate a small decision tree on each trivial property alone.

    Args:
        facts: n rows with the columns that `PROPERTIES` names.
        targets: int64 (n,) class indices.
        classes: class names.
        groups: str (n,), kept on one side of each fold; None without groups.

    Returns:
        One entry a property that differs between files at all. Classes of one image (or one group) are left out; empty
        when fewer than two classes remain.
    """
    rows = _usable(targets, groups)
    labels = targets[rows]
    if len(np.unique(labels)) < 2:
        return []
    kept_groups = None if groups is None else groups[rows]
    found = []
    for name, columns in PROPERTIES.items():
        part = facts.iloc[rows][list(columns)]
        if len(part.drop_duplicates()) > 1:
            found.append(_measure(name, part, labels, classes, kept_groups))
    return found


def _usable(targets: IntArray, groups: StrArray | None) -> IntArray:
    """At most 20,000 rows, of classes that can stand on both sides of a fold."""
    rows = np.arange(len(targets), dtype=np.int64)
    if len(rows) > _MOST_ROWS:
        rows = np.sort(np.random.default_rng(0).choice(rows, _MOST_ROWS, replace=False))
    units = pd.DataFrame({"label": targets[rows], "unit": rows if groups is None else groups[rows]}).drop_duplicates()
    counts = units["label"].value_counts()
    return rows[np.isin(targets[rows], counts.index[counts >= 2])]


def _measure(name: str, part: pd.DataFrame, labels: IntArray, classes: tuple[str, ...], groups: StrArray | None) -> Shortcut:
    textual = name in ("file format", "mode")
    features = pd.get_dummies(part) if textual else part
    counts = np.unique(labels, return_counts=True)[1]
    folds = min(_MOST_FOLDS, int(counts.min()) if groups is None else len(np.unique(groups)))
    splitter: Any = StratifiedKFold if groups is None else StratifiedGroupKFold
    tree = DecisionTreeClassifier(max_depth=_DEPTH, class_weight="balanced", random_state=0)
    predicted = cross_val_predict(
        tree,
        features.to_numpy(dtype=np.float64),
        labels,
        groups=groups,
        cv=splitter(min(folds, int(counts.min())), shuffle=True, random_state=0),
    )
    accuracy, chance = float(balanced_accuracy_score(labels, predicted)), 1 / len(counts)
    luck = float(binom.sf(round(accuracy * len(labels)) - 1, len(labels), chance))
    return Shortcut(name, accuracy, chance, luck, _values_in_words(part, labels, classes))


def _values_in_words(part: pd.DataFrame, labels: IntArray, classes: tuple[str, ...]) -> str:
    """`gel: RGB 25, RGBA 21; not_gel: L 46`, or nothing when there are too many values to name."""
    if len(part.drop_duplicates()) > _FEW_VALUES or len(classes) > _FEW_VALUES:
        return ""
    values: npt.NDArray[np.str_] = part.astype(str).agg("x".join, axis=1).to_numpy(dtype=np.str_)
    counts = [(classes[index], Counter(values[labels == index].tolist())) for index in np.unique(labels)]
    return "; ".join(f"{name}: " + ", ".join(f"{value} {n}" for value, n in count.most_common()) for name, count in counts)
