"""The best run and those that cannot be told from it: against independent libraries, closed forms and simulation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from coverslip.structures import Predictions, Task
from coverslip.study.verdict import Contender, _bootstrap_p, holm, judge, judged_part, rank

Array = np.ndarray[Any, Any]


def rated(right: Array, **changes: Any) -> Predictions:
    right = np.asarray(right, dtype=bool)
    targets = np.arange(len(right)) % 2
    predicted = np.where(right, targets, 1 - targets)
    scores = np.where(predicted[:, None] == np.arange(2), 0.9, 0.1)
    found = Predictions(tuple(map(str, range(len(right)))), scores, predicted, ("no", "yes"), Task.BINARY, targets)
    return replace(found, **changes)


def contender(name: str, predictions: Predictions) -> Contender:
    share = float((predictions.predicted == predictions.targets).mean())
    return Contender(name, predictions, (share,), {"value": share, "low": share - 0.1, "high": 1.0})


def hits(n: int, wrong: range) -> Array:
    right = np.ones(n, dtype=bool)
    right[list(wrong)] = False
    return right


def test_the_best_is_held_against_each_other_with_the_exact_test() -> None:
    runs = {"a": hits(60, range(2)), "b": hits(60, range(1, 4)), "c": hits(60, range(20)), "d": hits(60, range(2))}
    verdict = judge([contender(name, rated(right)) for name, right in runs.items()])
    assert verdict.best == "a"
    assert [each.name for each in verdict.compared] == ["d", "b", "c"]
    raw = {each.name: each.p for each in verdict.compared}
    assert raw["d"] == 1.0
    assert raw["b"] == pytest.approx(stats.binomtest(1, 3).pvalue)
    assert raw["c"] == pytest.approx(stats.binomtest(0, 18).pvalue)
    assert verdict.equals == ["d", "b"]
    assert verdict.worse == ["c"]
    assert {each.test for each in verdict.compared} == {"exact McNemar"}
    assert verdict.paired
    told = "Told apart by McNemar's exact test at the level of 5 %"
    assert verdict.method == f"{told}, p-values corrected for 3 comparisons (Holm); the intervals are not."
    assert "a is the best of 4 runs, with 96.7 % of 60 images right" in verdict.sentence
    assert "cannot be told from d and b, and is better than c." in verdict.sentence


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_the_step_down_procedure(seed: int) -> None:
    """The largest level at which the step-down procedure keeps a hypothesis, searched for instead of computed."""
    p = np.random.default_rng(seed).uniform(0, 0.2, 6)
    corrected = holm(p)
    for level in np.linspace(0.001, 0.999, 400):
        rejected = np.zeros(len(p), dtype=bool)
        for step, place in enumerate(np.argsort(p)):
            if p[place] > level / (len(p) - step):
                break
            rejected[place] = True
        clear = np.abs(corrected - level) > 1e-9
        assert np.array_equal((corrected <= level)[clear], rejected[clear])


def test_intervals_of_the_difference_hold_zero_as_often_as_they_should() -> None:
    """Two equally good runs: about one in twenty intervals misses zero."""
    random = np.random.default_rng(0)
    held = []
    for _ in range(150):
        a, b = random.random(120) < 0.8, random.random(120) < 0.8
        verdict = judge([contender("a", rated(a)), contender("b", rated(b))], resamples=400)
        difference = verdict.compared[0].difference
        held.append(difference.low <= 0 <= difference.high)
    assert 0.88 <= np.mean(held) <= 1.0


def test_other_images_are_compared_unpaired_and_it_is_said() -> None:
    good, bad = rated(hits(40, range(1))), rated(hits(50, range(20)), images=tuple(f"other-{i}" for i in range(50)))
    verdict = judge([contender("good", good), contender("bad", bad)])
    one = verdict.compared[0]
    assert one.test == "exact Fisher"
    assert one.p == pytest.approx(stats.fisher_exact([[39, 30], [1, 20]]).pvalue)
    assert not verdict.paired
    assert any("unpaired" in note for note in verdict.notes)
    # Newcombe (1998), table II, row a: 56/70 against 48/80 gives 0.0524 to 0.3339 by method 10
    other = rated(hits(80, range(32)), images=tuple("y" * i for i in range(80)))
    known = judge([contender("x", rated(hits(70, range(14)))), contender("y", other)])
    assert (known.compared[0].difference.low, known.compared[0].difference.high) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_groups_and_several_labels_take_the_bootstrap() -> None:
    groups = np.array([f"g{i // 10}" for i in range(100)])
    a, b = rated(hits(100, range(0, 100, 25)), groups=groups), rated(hits(100, range(0, 100, 2)), groups=groups)
    verdict = judge([contender("a", a), contender("b", b)])
    assert verdict.compared[0].test == "paired bootstrap over groups"
    assert verdict.worse == ["b"]
    random = np.random.default_rng(1)
    targets = (random.random((80, 3)) < 0.4).astype(np.int64)
    noisy = np.where(random.random((80, 3)) < 0.3, 1 - targets, targets)
    names = tuple(map(str, range(80)))
    found = [
        Contender(name, Predictions(names, said.astype(float), said, ("x", "y", "z"), Task.MULTILABEL, targets), (value,), {"value": value})
        for name, said, value in (("exact", targets, 1.0), ("noisy", noisy, 0.7))
    ]
    several = judge(found)
    assert several.number == "macro_f1"
    assert several.compared[0].test == "paired bootstrap"
    assert several.worse == ["noisy"]
    from sklearn.metrics import f1_score

    assert several.compared[0].difference.value == pytest.approx(1 - f1_score(targets, noisy, average="macro"))


def test_the_bootstrap_is_fine_enough_for_its_correction() -> None:
    """Twenty runs that are clearly worse: the correction does not swallow it for want of resamples."""
    groups = np.array([f"g{i // 2}" for i in range(200)])
    runs = [contender("good", rated(hits(200, range(4)), groups=groups))]
    runs += [contender(f"bad-{i}", rated(hits(200, range(i, 120)), groups=groups)) for i in range(20)]
    verdict = judge(runs, resamples=100)
    assert len(verdict.worse) == 20
    assert "better than every other" in verdict.sentence


def test_a_p_of_the_bootstrap_is_two_sided_and_never_zero() -> None:
    draws = np.concatenate([np.full(30, -1.0), np.full(969, 1.0)])
    assert _bootstrap_p(draws) == pytest.approx(2 * 31 / 1000)
    assert _bootstrap_p(-draws) == pytest.approx(2 * 31 / 1000)
    assert _bootstrap_p(np.ones(999)) == pytest.approx(2 / 1000)
    assert _bootstrap_p(np.zeros(999)) == 1.0


def test_the_same_decisions_have_no_certain_difference() -> None:
    verdict = judge([contender("a", rated(hits(20, range(1)))), contender("b", rated(hits(20, range(1))))])
    one = verdict.compared[0]
    assert one.p == 1.0
    assert one.difference.value == 0
    assert one.difference.high == pytest.approx(1 - 0.025 ** (1 / 20))


def test_none_and_one() -> None:
    assert judge([]).best == ""
    only = judge([contender("a", rated(hits(20, range(1))))])
    assert "only run" in only.sentence
    assert not only.notes
    assert not only.method


def test_a_best_run_that_may_only_guess_is_said_to() -> None:
    targets = np.array([1] * 12 + [0] * 8)
    right = rated(np.ones(20, dtype=bool), targets=targets, predicted=np.array([1] * 13 + [0] * 7))
    for low, said in ((0.59, True), (0.61, False)):
        verdict = judge([Contender("a", right, (0.95,), {"value": 0.95, "low": low, "high": 1.0})])
        assert (
            any("cannot be told from always answering 'yes', which is right on 60.0 % of the images" in note for note in verdict.notes)
            == said
        )


def test_runs_are_ranked_by_their_main_number_and_ties_are_broken() -> None:
    def metrics(accuracy: float | None, log_loss: float, **parts: Any) -> dict[str, Any]:
        numbers = {"accuracy": {"value": accuracy}, "macro_f1": {"value": 0.5}, "roc_auc": {"value": None}, "log_loss": {"value": log_loss}}
        return {"task": "binary", "test": numbers, **parts}

    assert rank(metrics(0.9, 1.0)) > rank(metrics(0.8, 0.1))
    assert rank(metrics(0.9, 0.2)) > rank(metrics(0.9, 0.3))
    assert rank(metrics(0.1, 9.0)) > rank(metrics(None, 0.1))
    assert judged_part(metrics(0.9, 0.1)) == "test"
    assert judged_part(metrics(0.9, 0.1, folds={})) == "folds"
    assert judged_part({"task": "binary"}) is None
