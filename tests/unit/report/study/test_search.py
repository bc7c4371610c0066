"""The page of a search, made of the files of its folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from coverslip.report.study import write_study_report
from coverslip.report.study.search import page
from coverslip.report.study.search_figures import Axis, history, log_ticks, slices
from unit.report.study.make_search import SPACE, make_search
from unit.report.test_page import Page as Parsed

LOSS = Axis("log loss on the validation part", lower=True)


def test_everything_is_on_the_page_and_the_page_is_well_formed(tmp_path: Path) -> None:
    make_search(tmp_path)
    text = write_study_report(tmp_path).read_text(encoding="utf-8")
    parsed = Parsed(text)
    assert not parsed.problems
    assert not parsed.open
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert {"verdict", "best-configuration", "history", "what-mattered", "key-by-key", "best-trials"} <= set(parsed.ids)
    for words in (
        "The best configuration is better",
        "random search",
        "−0.142 to −0.102",
        "p = 0.0004",
        "1\u00a0min\u00a000\u00a0s",
        "62 %",
    ):
        assert words in text, words
    assert text.count("<svg") == 4
    assert "mathdefault" not in text


def test_the_best_configuration_stands_beside_the_defaults(tmp_path: Path) -> None:
    make_search(tmp_path)
    found = page(tmp_path)
    (block,) = [block for block in found.blocks if block.title == "Best configuration"]
    assert block.table is not None
    rows = {row[0]: row for row in block.table.rows}
    assert set(rows) == set(SPACE)
    assert rows["training.learning_rate"][2] == "0.001"
    assert rows["training.optimizer"][3] == "adamw, sgd"
    assert "-s training.learning_rate=" in block.note
    assert [card.name for card in found.cards] == ["Log loss, test part", "Accuracy, test part", "F1, macro, test part", "Trials"]


def test_a_best_value_at_the_end_of_its_range_is_a_warning(tmp_path: Path) -> None:
    make_search(tmp_path)
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert not any("end of its range" in text for _, text in page(tmp_path).warnings)
    verdict["best"]["values"] |= {"training.learning_rate": 0.95, "model.arguments.width": 2}
    (tmp_path / "verdict.json").write_text(json.dumps(verdict))
    warnings = [text for _, text in page(tmp_path).warnings]
    assert warnings == [
        "The best training.learning_rate lies at the upper end of its range: what is beyond was not tried. Widen the range.",
        "The best model.arguments.width lies at the lower end of its range: what is beyond was not tried. Widen the range.",
    ]


def test_a_better_random_trial_and_failures_are_said(tmp_path: Path) -> None:
    frame = make_search(tmp_path)
    frame.loc[(frame["search"] == "random") & (frame["trial"] == 0), ["value", "ended"]] = [0.1, "complete"]
    frame.loc[(frame["search"] == "random") & (frame["trial"] == 1), ["ended", "error"]] = ["failed", "too large"]
    frame.to_csv(tmp_path / "trials.csv", index=False)
    warnings = [text for _, text in page(tmp_path).warnings]
    assert any("Random search found a trial that did better on the validation part (0.100 against" in text for text in warnings)
    assert "1 trial failed; the first error: too large" in warnings


@pytest.mark.parametrize("missing", [("verdict.json", "results.csv"), ("importance.json", "looks.csv"), ("trials.csv",)])
def test_what_was_not_written_is_left_out(tmp_path: Path, missing: tuple[str, ...]) -> None:
    make_search(tmp_path, random=False)
    for name in missing:
        (tmp_path / name).unlink()
    text = write_study_report(tmp_path).read_text(encoding="utf-8")
    assert not Parsed(text).problems
    assert ("is not finished" in text) == ("verdict.json" in missing)
    assert "orange squares" not in text


def test_the_best_so_far_never_gets_worse_and_ends_with_the_best(tmp_path: Path) -> None:
    frame = make_search(tmp_path)
    values = frame.loc[frame["search"] == "tpe", "value"]
    best = LOSS.best_so_far(values)
    assert (np.diff(best) <= 0).all()
    assert best.iloc[-1] == values.min()
    low, high = LOSS.limits(values)
    assert low < values.min() < high < values.max()
    higher = Axis("macro F1", lower=False)
    assert higher.best_so_far(pd.Series([0.2, np.nan, 0.1, 0.4])).tolist() == [0.2, 0.2, 0.2, 0.4]
    assert higher.limits(pd.Series([np.nan])) == (0.0, 1.0)


def test_no_trial_is_lost_from_the_history(tmp_path: Path) -> None:
    frame = make_search(tmp_path)
    (axes,) = history(frame, LOSS).axes
    drawn = sum(len(line.get_xdata()) for line in axes.lines if line.get_linestyle() == "None")
    finite = int(frame["value"].notna().sum())
    assert drawn >= finite
    assert drawn == len(frame)


def test_each_key_has_its_slice_on_its_own_scale(tmp_path: Path) -> None:
    frame = make_search(tmp_path)
    panels = [axes for axes in slices(frame, SPACE, LOSS, {}).axes if axes.get_visible()]
    assert [axes.get_xlabel() for axes in panels] == list(SPACE)
    assert [axes.get_xscale() for axes in panels] == ["log"] * 4 + ["linear"]
    assert [label.get_text() for label in panels[-1].get_xticklabels()] == ["adamw", "sgd"]


@pytest.mark.parametrize(("low", "high"), [(1e-5, 1.0), (1e-12, 1.0), (3, 700), (2, 64), (1, 100_000)])
def test_ticks_lie_in_the_range_and_are_few(low: float, high: float) -> None:
    ticks = log_ticks(low, high)
    assert 2 <= len(ticks) <= 8
    assert all(low * 0.999 <= tick <= high * 1.001 for tick in ticks)
    assert len(set(ticks.values())) == len(ticks)
