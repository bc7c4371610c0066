"""Which decisions to believe: split conformal prediction (Papadopoulos et al. 2002; Vovk et al. 2005) on images that were not trained on.

An image's true classes are among those that its scores do not rule out, with at least the stated coverage, on average over images that
come from where the calibration images came from. Where anything but the decision is left, or nothing, the decision is uncertain; so that at
most 1 - coverage of all images are wrong without being marked. The promise is for all images together, not for each class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import beta

from coverslip.evaluation.intervals import exact
from coverslip.structures import BoolArray, FloatArray, IntArray, Predictions, StrArray, Task

SURE, BY_SCORE, BY_DISTANCE = "no", "score", "unlike"
"""What `uncertain` says: a decision to believe, one with a rival (or no candidate), an image unlike the training images."""


@dataclass(frozen=True)
class Conformal:
    """A calibration of doubt.

    Attributes:
        coverage: the stated share of images whose true classes are among those that are left, in (0, 1).
        images: how many it was calibrated on.
        limit: how far a score may be from certainty, in [0, 1]: with one label an image, classes from a score of 1 - limit on are left.
        source: which images those were, in words.
    """

    coverage: float
    images: int
    limit: float
    source: str = "validation images"

    @property
    def bound(self) -> float:
        """The limit that is used. A score of at least the coverage is certain enough in any case: more is left, never less."""
        return max(self.limit, 1 - self.coverage)

    def left(self, scores: FloatArray, thresholds: float | FloatArray, task: Task) -> tuple[BoolArray, BoolArray]:
        """Which classes may be absent, and which present: two of bool (n, classes).

        Args:
            scores: float64 (n, classes), calibrated probabilities.
            thresholds: several labels an image: from which scores they are predicted; not used with one.
            task: with one label an image, a class may be present, or is ruled out and absent.
        """
        if task is Task.MULTILABEL:
            centred = centre(scores, thresholds)
            return centred <= self.bound, 1 - centred <= self.bound
        present = 1 - scores <= self.bound
        return ~present, present

    def doubtful(self, scores: FloatArray, predicted: IntArray, thresholds: float | FloatArray, task: Task) -> BoolArray:
        """Whether anything but the decision is left, or not even that: bool (n,)."""
        absent, present = self.left(scores, thresholds, task)
        said = predicted == 1 if task is Task.MULTILABEL else predicted[:, None] == np.arange(scores.shape[1])
        return np.asarray(((present != said) | (absent == said)).any(axis=1))

    def covered(self, scores: FloatArray, targets: IntArray, thresholds: float | FloatArray, task: Task) -> BoolArray:
        """Whether the true classes are among those that are left: bool (n,)."""
        absent, present = self.left(scores, thresholds, task)
        if task is Task.MULTILABEL:
            return np.asarray(np.where(targets == 1, present, absent).all(axis=1))
        return np.asarray(present[np.arange(len(targets)), targets])

    @property
    def note(self) -> str:
        """What it promises, and how far that can be trusted, in words."""
        rank = conformal_rank(self.images, self.coverage) or self.images
        low, high = (float(beta.ppf(tail, rank, self.images + 1 - rank)) for tail in (0.025, 0.975))
        return (
            f"uncertain: at most {1 - self.coverage:.0%} of the images are wrong without being marked (split conformal on {self.images} "
            f"{self.source}; with so many, the share that is covered comes out between {low:.1%} and {high:.1%}, 19 times in 20)"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Conformal:
        """The inverse of `to_json`.

        Raises:
            KeyError, ValueError: not what `to_json` wrote.
        """
        return Conformal(float(value["coverage"]), int(value["images"]), float(value["limit"]), str(value["source"]))


def conformal_rank(images: int, coverage: float) -> int | None:
    """Which of the calibration images, from the least doubtful, sets the limit; None where they are too few for this coverage.

    >>> conformal_rank(19, 0.95), conformal_rank(18, 0.95), conformal_rank(100, 0.9)
    (19, None, 91)
    """
    rank = math.ceil(round((images + 1) * coverage, 9))
    return rank if 1 <= rank <= images else None


def fewest_images(coverage: float) -> int:
    """How many calibration images a coverage needs.

    >>> fewest_images(0.95), fewest_images(0.9), fewest_images(0.99)
    (19, 9, 99)
    """
    return math.ceil(round(coverage / (1 - coverage), 9))


def centre(scores: FloatArray, thresholds: float | FloatArray) -> FloatArray:
    """Scores on a scale on which every threshold lies at 0.5: straight from 0 to the threshold, and from there to 1.

    >>> centre(np.array([[0.1, 0.6]]), np.array([0.2, 0.2])).round(6).tolist()
    [[0.25, 0.75]]
    """
    line = np.clip(thresholds, 1e-9, 1 - 1e-9)
    return np.asarray(np.where(scores < line, 0.5 * scores / line, 1 - 0.5 * (1 - scores) / (1 - line)))


def calibrate_conformal(
    scores: FloatArray, targets: IntArray, thresholds: float | FloatArray, task: Task, coverage: float, source: str = "validation images"
) -> Conformal | None:
    """Calibrate on images that were not trained on; None where they are too few for the coverage (see `fewest_images`).

    With one label an image, doubt is 1 less the score of the true class; with several, the distance of the worst label from what is
    true, on a scale on which the thresholds lie at 0.5.

    Args:
        scores: float64 (n, classes), calibrated probabilities.
        targets: int64 (n,), or (n, classes) of 0 and 1.
        thresholds: of several labels an image.
        task: what is asked of an image.
        coverage: in (0, 1).
        source: which images these are, in words.
    """
    rank = conformal_rank(len(scores), coverage)
    if rank is None:
        return None
    if task is Task.MULTILABEL:
        doubt = np.abs(centre(scores, thresholds) - targets).max(axis=1)
    else:
        doubt = 1 - scores[np.arange(len(targets)), targets]
    return Conformal(coverage, len(scores), float(np.sort(doubt)[rank - 1]), source)


def too_few(images: int, coverage: float, source: str = "validation images") -> str:
    """Why decisions are not marked by their scores, and what to do, in words."""
    possible = max(math.floor(100 * images / (images + 1)) / 100, 0.0)
    less = f", or say decision.coverage = {possible:g}" if possible > 0.5 else ""
    return (
        f"uncertain: decisions are not marked by their scores. A coverage of {coverage:.0%} needs at least {fewest_images(coverage)} "
        f"{source}, and there are {images}; set split.folds, enlarge split.validation{less}"
    )


def uncertain_texts(doubtful: BoolArray | None, unlike: BoolArray | None) -> StrArray | None:
    """`no`, or what is in doubt: `score`, `unlike`, or both with `|` between; None where nothing is calibrated.

    Args:
        doubtful: bool (n,), by score; None where scores are not calibrated for it.
        unlike: bool (n,), by distance; None where distances are not known.
    """
    if doubtful is None and unlike is None:
        return None
    known = [(flags, word) for flags, word in ((doubtful, BY_SCORE), (unlike, BY_DISTANCE)) if flags is not None]
    rows = zip(*(flags.tolist() for flags, _ in known), strict=True)
    said = ["|".join(word for flag, (_, word) in zip(row, known, strict=True) if flag) or SURE for row in rows]
    return np.array(said, dtype=np.str_)


def uncertainty_numbers(
    predictions: Predictions, conformal: Conformal | None, thresholds: float | FloatArray, level: float = 0.95
) -> dict[str, Any]:
    """What the marks are worth on labelled images, each a share with its exact interval.

    Returns:
        `uncertain`: images that are marked; `wrong_unmarked`: images that are wrong and not marked; `right_unmarked`: of those not
        marked, the ones that are right; `covered`: images whose true classes were left, where scores are calibrated for it.
        Empty without marks or labels.
    """
    if predictions.uncertain is None or predictions.targets is None or not len(predictions):
        return {}
    marked = predictions.uncertain != SURE
    right = (predictions.predicted == predictions.targets).reshape(len(predictions), -1).all(axis=1)
    n = len(predictions)
    numbers = {
        "uncertain": exact(int(marked.sum()), n, level),
        "wrong_unmarked": exact(int((~right & ~marked).sum()), n, level),
        "right_unmarked": exact(int((right & ~marked).sum()), int((~marked).sum()), level),
    }
    if conformal is not None:
        covered = conformal.covered(predictions.scores, predictions.targets, thresholds, predictions.task)
        numbers["covered"] = exact(int(covered.sum()), n, level)
    return {name: number.to_json() for name, number in numbers.items()}
