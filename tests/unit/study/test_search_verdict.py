"""Better, worse, or not to be told apart: the interval of the number that the search went by decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from coverslip.structures import Predictions, Task
from coverslip.study.search_verdict import judge_pair, sentence


def predictions(sure: float, *, n: int = 300, noise: float = 0.0, seed: int = 0) -> Predictions:
    """Three classes; the true one gets the score `sure` on average."""
    generator = np.random.default_rng(seed)
    targets = np.arange(n) % 3
    share = np.clip(sure + noise * generator.normal(size=n), 0.02, 0.98)
    scores = np.repeat((1 - share)[:, None] / 2, 3, axis=1)
    scores[np.arange(n), targets] = share
    return Predictions(tuple(f"{i}.png" for i in range(n)), scores, scores.argmax(axis=1), ("a", "b", "c"), Task.MULTICLASS, targets)


@pytest.mark.parametrize(
    ("final", "defaults", "verdict"),
    [((0.8, 0.1, 1), (0.6, 0.1, 2), "better"), ((0.6, 0.1, 1), (0.8, 0.1, 2), "worse"), ((0.7, 0.2, 1), (0.7, 0.2, 2), "equal")],
)
def test_log_loss_is_better_when_it_is_lower(final: Any, defaults: Any, verdict: str) -> None:
    (a, noise, seed), (b, other_noise, other_seed) = final, defaults
    judged = judge_pair(predictions(a, noise=noise, seed=seed), predictions(b, noise=other_noise, seed=other_seed), "log_loss")
    assert judged["verdict"] == verdict
    assert judged["n"] == 300


def test_the_difference_is_that_of_the_numbers() -> None:
    judged = judge_pair(predictions(0.8), predictions(0.6), "log_loss", resamples=200)
    assert judged["differences"]["log_loss"]["value"] == pytest.approx(np.log(0.6) - np.log(0.8))
    same = judged["differences"]["accuracy"]
    assert (same["value"], same["low"]) == (0.0, -same["high"])
    assert same["high"] == pytest.approx(1 - 0.025 ** (1 / 300))  # the exact bound of 0 of 300 (Clopper and Pearson 1934)
    assert judged["mcnemar_p"] == 1.0


def test_macro_f1_is_better_when_it_is_higher() -> None:
    good, bad = predictions(0.55, noise=0.05), predictions(0.4, noise=0.2)
    assert judge_pair(good, bad, "macro_f1")["verdict"] == "better"
    assert judge_pair(bad, good, "macro_f1")["verdict"] == "worse"


def test_the_sentence_says_all_that_the_verdict_rests_on() -> None:
    judged = judge_pair(predictions(0.8, noise=0.1, seed=1), predictions(0.6, noise=0.1, seed=2), "log_loss")
    said = sentence(judged, "log_loss", 0.25, 0.55, 0.95)
    assert said.startswith("On 300 test images that no trial has seen, the best configuration is better than the defaults trained as long:")
    assert "log loss 0.250 against 0.550 (difference -0." in said
    assert "95% interval -0." in said
    equal = judge_pair(predictions(0.7, noise=0.2, seed=1), predictions(0.7, noise=0.2, seed=2), "macro_f1")
    assert "the best configuration cannot be told from the defaults" in sentence(equal, "macro_f1", 0.7, 0.7, 0.95)
