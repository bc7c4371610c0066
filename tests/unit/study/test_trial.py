"""One trial: short, looked at, ended early, and blind for the test part."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from PIL import Image

from coverslip.config import load_config
from coverslip.evaluation.metrics import confusion_matrix, f1, log_loss, macro
from coverslip.fitting import Fits
from coverslip.record import RunFolder
from coverslip.runtime import no_progress
from coverslip.simulate import simulate
from coverslip.study import jobs, trial
from coverslip.study.jobs import shared_data
from coverslip.study.trial import TrialTask, data_without_test, make_trial, without_test
from coverslip.study.trial_storage import STARTUP_TRIALS, file_storage, open_study

BASE: dict[str, Any] = {
    "pixels": {"height": 32, "width": 32, "trim": "none", "colour": "grey"},
    "model": {"backbone": "small_30k", "weights": "none"},
    "training": {"regime": "scratch", "epochs": 2, "batch_size": 8, "learning_rate": 0.003},
}
RATES = {"training.learning_rate": optuna.distributions.FloatDistribution(1e-6, 1e6, log=True)}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated charts as a table with a split of its own."""
    folder = simulate("charts", tmp_path_factory.mktemp("data") / "charts", images=48, seed=2)
    images = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    parts = ["train", "train", "validation", "test"]
    rows = [{"image": image, "label": image.split("/")[0], "part": parts[place % 4]} for place, image in enumerate(images)]
    pd.DataFrame(rows).to_csv(folder / "charts.csv", index=False)
    return folder / "charts.csv"


@pytest.fixture(autouse=True)
def nothing_is_kept() -> None:
    jobs._prepared.clear()
    trial._withheld.clear()


def task_of(table: Path, place: Path, *, metric: Any = "log_loss", rate: float | None = None, **sections: Any) -> TrialTask:
    """A trial that was asked for, in a storage at `place`."""
    place.mkdir(exist_ok=True)
    url = file_storage(place / "trials.db")
    study = open_study(url, "mine", direction="minimize")
    rate = rate or 0.003
    study.enqueue_trial({"training.learning_rate": rate})
    asked = study.ask(RATES)
    data = {"data": {"path": str(table)}, "split": {"preset": "part"}}
    layers = (BASE, data, {"training": {"learning_rate": rate}}, sections)
    return TrialTask(url, "mine", asked.number, layers, place / "trials" / str(asked.number), metric, 4)


def stored(task: TrialTask) -> optuna.trial.FrozenTrial:
    return optuna.load_study(study_name=task.study, storage=task.storage).trials[task.number]


def test_the_value_is_that_of_the_validation_part(table: Path, tmp_path: Path) -> None:
    task = task_of(table, tmp_path)
    result = make_trial(task)
    data = data_without_test(load_config(*task.layers))
    rows = data.split.rows("validation")
    fitted = Fits(data, RunFolder(tmp_path / "alone", resume=False), no_progress).fit(data.split.rows("train"), rows, "alone")
    scores, targets = fitted.scores(data.samples, rows), data.samples.targets[rows]
    confusion = confusion_matrix(targets, scores.argmax(axis=1), 3)
    kept = stored(task)
    assert result.state == "complete"
    assert result.value == kept.value == pytest.approx(float(log_loss(targets, scores)))
    assert kept.user_attrs["macro_f1"] == pytest.approx(float(macro(f1(confusion), confusion)))
    assert kept.user_attrs["steps"] == 6
    assert set(kept.intermediate_values) == {1, 3}  # six steps: after two, four and six of them, the last being the value itself
    assert not task.folder.exists()


def test_the_test_part_is_in_nothing_that_a_trial_is_given(table: Path, tmp_path: Path) -> None:
    whole = shared_data(load_config(*task_of(table, tmp_path).layers))
    kept = without_test(whole)
    test = {whole.table.images[row] for row in whole.split.rows("test")}
    assert len(test) == 12
    assert len(kept.table) == len(kept.split.part) == len(kept.samples.targets) == len(kept.pixels.index) == len(kept.scan) == 36
    assert not test & set(kept.table.images)
    assert not len(kept.split.rows("test"))
    assert not set(whole.pixels.index[whole.split.rows("test")]) & set(kept.pixels.index)
    assert kept.samples.pixels is kept.pixels


@pytest.mark.parametrize("regime", [{}, {"split": {"folds": 2}}], ids=["validation", "folds"])
def test_other_images_and_labels_in_the_test_part_change_no_trial(table: Path, tmp_path: Path, regime: dict[str, Any]) -> None:
    """Every test image becomes noise with another label: a trial that looks at it, in any way, ends with another value."""
    copy = tmp_path / "copy"
    shutil.copytree(table.parent, copy)
    frame = pd.read_csv(copy / "charts.csv")
    generator = np.random.default_rng(0)
    for row in frame.index[frame["part"] == "test"]:
        Image.fromarray(generator.integers(0, 256, (90, 120), dtype=np.uint8)).save(copy / str(frame.loc[row, "image"]))
    frame.loc[frame["part"] == "test", "label"] = "repeat"
    frame.to_csv(copy / "charts.csv", index=False)
    values = []
    for number, source in enumerate((table, copy / "charts.csv")):
        nothing = {"data": {"on_leak": "warn"}, **regime}
        values.append(make_trial(task_of(source, tmp_path / f"{number}", **nothing)).value)
    assert values[0] is not None
    assert values[0] == values[1]


def test_a_trial_that_falls_behind_is_ended_early(table: Path, tmp_path: Path) -> None:
    task = task_of(table, tmp_path)
    study = open_study(task.storage, "mine")
    for value in np.linspace(0.01, 0.02, STARTUP_TRIALS):
        study.add_trial(
            optuna.trial.create_trial(
                params={"training.learning_rate": 0.1}, distributions=RATES, value=value, intermediate_values={1: value, 2: value, 3: value}
            )
        )
    result = make_trial(task)
    kept = stored(task)
    assert result.state == "pruned"
    assert kept.state == optuna.trial.TrialState.PRUNED
    assert set(kept.intermediate_values) == {1, 3}
    assert "log_loss" not in kept.user_attrs


def test_weights_that_are_no_numbers_end_a_trial_and_not_the_search(table: Path, tmp_path: Path) -> None:
    task = task_of(table, tmp_path, rate=1e6, training={"optimizer": "sgd", "gradient_clip": 0.0})
    result = make_trial(task)
    assert result.state == "diverged"
    assert result.value is None
    assert stored(task).state == optuna.trial.TrialState.PRUNED


def test_a_trial_that_was_cut_off_goes_on_and_one_that_is_over_is_read(table: Path, tmp_path: Path) -> None:
    whole = make_trial(task_of(table, tmp_path / "whole"))
    task = task_of(table, tmp_path / "cut")
    place = tmp_path / "cut" / "trials" / "0"

    class CutOff(BaseException):
        pass

    def cut(self: Any, number: int, value: float) -> None:
        if number == 3:
            raise CutOff
        self.trial.report(value, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial._Reporter, "report", cut)
        with pytest.raises(CutOff):
            make_trial(task)
    assert stored(task).state == optuna.trial.TrialState.RUNNING
    assert set(stored(task).intermediate_values) == {1}
    again = make_trial(task)
    assert again.value == whole.value
    assert stored(task).user_attrs["attempts"] == 2
    assert not place.exists()
    assert make_trial(task) == replace(again, seconds=0.0)
    assert stored(task).user_attrs["attempts"] == 2


def test_macro_f1_out_of_fold(table: Path, tmp_path: Path) -> None:
    task = task_of(table, tmp_path, metric="macro_f1", split={"folds": 3})
    result = make_trial(task)
    kept = stored(task)
    assert result.value == kept.user_attrs["macro_f1"]
    assert 0 < kept.user_attrs["macro_f1"] <= 1
    assert set(kept.intermediate_values) == {1, 2}
