"""A search made by several workers, and what a stopped one remembers."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest

from coverslip.errors import ConfigError
from coverslip.simulate import simulate
from coverslip.study.dimensions import Dimension
from coverslip.study.engines import Done, LocalEngine, thread_variables
from coverslip.study.folder import StudyFolder
from coverslip.study.process_engine import ProcessEngine
from coverslip.study.search import SearchRequest, _facts, request_search, search
from coverslip.study.trial_storage import file_storage, open_storage
from coverslip.study.trials import ATTEMPTS, Trials, suggest

OVERRIDES: dict[str, Any] = {
    "pixels": {"height": 32, "width": 32},
    "model": {"backbone": "small_30k", "arguments": {"width": {"low": 4, "high": 16}, "depth": 1}},
    "training": {"epochs": 2, "batch_size": {"low": 4, "high": 32}},
    "intervals": {"resamples": 100},
    "search": {"trial_share": 0.5, "looks": 2},
}


@pytest.fixture(scope="module")
def charts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate("charts", tmp_path_factory.mktemp("data") / "charts", images=48, seed=3)


def ask(charts: Path, folder: Path, **changes: Any) -> SearchRequest:
    words: dict[str, Any] = {"space": "small-cnn", "overrides": OVERRIDES, "trials": 3, **changes}
    return request_search({"data": {"path": str(charts)}}, folder, **words)


def test_several_workers_make_the_same_files(charts: Path, tmp_path: Path) -> None:
    with contextlib.closing(ProcessEngine([thread_variables(2)] * 2)) as engine:
        verdict = search(ask(charts, tmp_path / "study"), engine)
    trials = pd.read_csv(tmp_path / "study" / "trials.csv")
    assert trials.groupby("search")["trial"].apply(sorted).to_dict() == {"random": [0, 1, 2], "tpe": [0, 1, 2]}
    assert trials["ended"].isin(["complete", "pruned", "diverged"]).all()
    assert verdict["best"]["value"] == trials.loc[(trials["search"] == "tpe") & (trials["ended"] == "complete"), "value"].min()
    assert not (tmp_path / "study" / "trials").exists()


def test_the_values_of_a_study_hold_when_it_goes_on(charts: Path, tmp_path: Path) -> None:
    """Also the lengths, though other minutes would give others: trials of one study are as long as each other."""
    folder = tmp_path / "study"
    asked = ask(charts, folder, overrides={**OVERRIDES, "training": {"minutes": 5.0}}, trials=None, minutes=10.0)
    with StudyFolder.claim(folder, "search", resume=False) as place:
        place.write_study(_facts(asked, place))
    again = request_search({"data": {"path": str(charts)}}, folder, minutes=60.0, resume=True)
    assert again.space.to_toml() == asked.space.to_toml()
    assert again.budget == replace(asked.budget, seconds=3600.0)
    assert request_search({"data": {"path": str(charts)}}, folder, resume=True).budget == asked.budget
    with pytest.raises(ConfigError, match=r"keeps its trials in sqlite:.*trials\.db, not in sqlite:///elsewhere\.db"):
        search(request_search({"data": {"path": str(charts)}}, folder, resume=True, storage="sqlite:///elsewhere.db"), LocalEngine())
    with pytest.raises(ConfigError, match=r"differs in base\.data\.path"):
        search(request_search({"data": {"path": str(tmp_path)}}, folder, resume=True), LocalEngine())


def trials_of(charts: Path, folder: Path) -> Trials:
    asked = ask(charts, folder)
    folder.mkdir(exist_ok=True)
    url = file_storage(folder / "trials.db")
    open_storage(url)
    return Trials(asked.space, asked.budget, StudyFolder(folder, "search", resume=True), url, "mine", 1, 0.0)


def test_a_trial_that_ends_its_process_each_time_is_given_up(charts: Path, tmp_path: Path) -> None:
    trials = trials_of(charts, tmp_path / "study")
    first = next(trials.tasks())
    study = trials.studies["tpe"]
    trial = optuna.trial.Trial(study, study.trials[first.number]._trial_id)
    for attempt in range(1, ATTEMPTS):
        trial.set_user_attr("attempts", attempt)
        assert next(trials_of(charts, tmp_path / "study").tasks()) == first
    trial.set_user_attr("attempts", ATTEMPTS)
    following = next(trials_of(charts, tmp_path / "study").tasks())
    assert (following.study, following.number) == ("mine-random", 0)
    assert study.trials[0].state == optuna.trial.TrialState.FAIL
    assert study.trials[0].user_attrs["error"] == "was begun 3 times, and never came to an end"


@pytest.mark.parametrize("values", [-1, 0, 1, 2])
@pytest.mark.parametrize("first", [True, False], ids=["defaults", "drawn"])
def test_a_trial_that_was_cut_off_while_it_was_made_keeps_its_number_and_its_values(
    charts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool, values: int
) -> None:
    def until_then(trial: optuna.Trial, dimension: Dimension) -> None:
        if len(trial.params) == values:
            raise KeyboardInterrupt
        suggest(trial, dimension)

    def stop() -> None:
        raise KeyboardInterrupt

    tasks = []
    for name in ("whole", "broken"):
        trials = trials_of(charts, tmp_path / name)
        if not first:
            for kind in ("tpe", "random"):
                trials.studies[kind].tell(trials._new(kind).number, 1.0)
        if name == "whole":
            tasks.append(next(trials.tasks()))
    with monkeypatch.context() as patch:
        patch.setattr("coverslip.study.trials.suggest", until_then)
        if values < 0:
            patch.setattr(trials.studies["tpe"], "ask", stop)
        with pytest.raises(KeyboardInterrupt):
            next(trials.tasks())
    tasks.append(next(trials_of(charts, tmp_path / "broken").tasks()))
    assert tasks[0].layers == tasks[1].layers
    assert tasks[0].number == tasks[1].number == (0 if first else 1)
    assert (tasks[0].layers[1]["training"]["learning_rate"] == 0.001) == first


def test_failed_trials_count_and_keep_their_error(charts: Path, tmp_path: Path) -> None:
    trials = trials_of(charts, tmp_path / "study")
    tasks = trials.tasks()
    for number in range(3):
        for kind in ("tpe", "random"):
            task = next(tasks)
            assert (task.study, task.number) == (f"mine-{kind}", number)
            if number == 0 or kind == "random":
                trials.take(Done(task, None, "too large"))
            else:
                trials.studies[kind].tell(task.number, 1.0 / number)
    assert next(tasks, None) is None
    assert trials.best().number == 2
    assert [trial.user_attrs["error"] for trial in trials.studies["random"].trials] == ["too large"] * 3
    assert trials.state()[:3] == ("trials", 6, 6)
