"""`coverslip compare` on tiny simulated gels."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from coverslip import experiment
from coverslip.data.cache import clear_cache
from coverslip.errors import ResourceError
from flow.conftest import Cli

FIRST = [
    "model_id", "hardware_type", "pretrained_model", "classifier_head", "opt_alg", "training_time_mins", "inference_time_secs",
    "accuracy", "precision", "recall", "conf_mat", "roc_auc",
]  # fmt: skip
GRID = """
[base.split]
test = 0.4
validation = 0.0

[base.pixels]
height = 32
width = 32

[base.augment]
horizontal_flip = true

[base.model]
backbone = "small_30k"
weights = "none"

[base.training]
regime = "probe"
epochs = 3
views = 3
batch_size = 8
optimizer = "adam"

[base.intervals]
resamples = 100

[axes]
"training.device" = ["cpu", "gpu"]
"model.head" = ["single", "multi"]
"""


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("grids") / "tiny.toml"
    file.write_text(GRID)
    return file


def table_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "results.csv").set_index("model_id")


def without_times(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=["training_time_mins", "inference_time_secs", "features_time_mins", "images_per_second"])


without_gpu = pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="this machine has a GPU")


@without_gpu
def test_a_comparison_from_end_to_end(cli: Cli, gels: Path, grid: Path, tmp_path: Path) -> None:
    done = cli("compare", gels, "--grid", grid, "--out", tmp_path / "study")
    assert done.status == 0, done.err
    table = pd.read_csv(tmp_path / "study" / "results.csv")
    assert list(table.columns[: len(FIRST)]) == FIRST
    assert table["model_id"].tolist() == ["cpu-single", "cpu-multi", "gpu-single", "gpu-multi"]
    assert table["status"].tolist() == ["done", "done", "not run", "not run"]
    assert table["error"][2:].str.contains("sees no GPU").all()
    assert table["hardware_type"].tolist() == ["cpu", "cpu", "gpu", "gpu"]
    parquet = pd.read_parquet(tmp_path / "study" / "results.parquet")
    assert list(parquet.columns) == list(table.columns)
    np.testing.assert_allclose(parquet["accuracy"][:2].astype(float), table["accuracy"][:2])
    row = table.iloc[0]
    assert row["images"] == 16
    assert np.trace(np.array(json.loads(row["conf_mat"]))) / 16 == row["accuracy"]
    assert row["accuracy_low"] < row["accuracy"] < row["accuracy_high"]
    assert row[["training_time_mins", "features_time_mins", "inference_time_secs", "images_per_second"]].min() > 0
    metrics = json.loads((tmp_path / "study" / "runs" / "cpu-single" / "metrics.json").read_text())["test"]
    assert row["precision"] == metrics["weighted_precision"]["value"]
    assert row["roc_auc"] == metrics["roc_auc"]["value"]
    assert row["weights"] > row["trainable_weights"] > 0
    verdict = json.loads((tmp_path / "study" / "verdict.json").read_text())
    assert verdict["sentence"] in done.out
    assert [(tmp_path / "study" / "runs" / name / "bundle").is_dir() for name in ("cpu-single", "cpu-multi")].count(True) == 1
    assert (tmp_path / "study" / "runs" / verdict["best"] / "bundle").is_dir()
    assert f"{verdict['best']}: leads, its trained model is kept" in done.err
    logs = [file.read_text(encoding="utf-8") for file in (tmp_path / "study" / "runs").glob("*/run.log")]
    assert "".join(logs).count("bundle: begins") == 1  # heads on cached features: only the model that is kept was ever written
    page = (tmp_path / "study" / "report.html").read_text(encoding="utf-8")
    for words in ("All runs", "Accuracy with intervals", "Time and accuracy", "The best run", "Learning curves", "Runs without numbers"):
        assert f">{words}<" in page, words
    assert "on unseen images" in page
    assert cli("report", tmp_path / "study").status == 0


def test_a_model_that_cannot_be_kept_costs_no_numbers(
    cli: Cli, gels: Path, grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*known: object) -> None:
        raise ResourceError("the disk is full: 3 MB are free")

    asked = ("compare", gels, "--grid", grid, "-s", "training.device=cpu", "--out", tmp_path / "study")
    with monkeypatch.context() as patched:
        patched.setattr(experiment, "save_bundle", full)
        done = cli(*asked)
    assert done.status == 0
    table = table_of(tmp_path / "study")
    assert table["status"].tolist() == ["done", "done"]
    best = table.index[table["verdict"] == "best"].item()
    assert f"{best}: its numbers are kept, its trained model is not: the disk is full: 3 MB are free" in done.err
    assert not list((tmp_path / "study" / "runs").glob("*/bundle"))
    again = cli(*asked, "--resume")
    assert f"{best}: leads, its trained model is kept" in again.err
    assert [folder.parent.name for folder in (tmp_path / "study" / "runs").glob("*/bundle")] == [best]
    pd.testing.assert_frame_equal(without_times(table_of(tmp_path / "study")), without_times(table))


def test_a_run_of_a_study_is_the_run_alone(cli: Cli, gels: Path, grid: Path, tmp_path: Path) -> None:
    asked = ("-s", "training.device=cpu", "-s", "training.runtime=openvino")
    assert cli("compare", gels, "--grid", grid, *asked, "--out", tmp_path / "study", "--bundles", "all").status == 0
    run = tmp_path / "study" / "runs" / "multi"
    told = json.loads((run / "environment.json").read_text())["features_runtime"]
    assert told == f"openvino {version('openvino')}"
    assert json.loads((run / "bundle" / "model.json").read_text())["provenance"]["features_runtime"] == told
    recipe = run / "config.toml"
    assert clear_cache() > 0
    assert cli("train", gels, "--recipe", recipe, "--out", tmp_path / "alone").status == 0
    for name in ("metrics.json", "history.csv", "predictions.csv"):
        assert (tmp_path / "alone" / name).read_text() == (run / name).read_text(), name
    assert cli("predict", run, gels, "--out", tmp_path / "p.csv").status == 0


def test_every_run_arrives_in_tensorboard_and_a_finished_study_makes_nothing_again(
    cli: Cli, gels: Path, grid: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = tmp_path / "board"
    asked = ("compare", gels, "--grid", grid, "-s", "training.device=cpu", "--out", tmp_path / "study", "--tensorboard", board)
    assert cli(*asked).status == 0
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "study" / "runs").rglob("metrics.json")}
    assert len(before) == 2
    again = cli(*asked)
    assert again.status == 1
    assert "holds a study already" in again.err
    told = {name: EventAccumulator(str(board / "study" / name)).Reload() for name in table_of(tmp_path / "study").index}
    assert sorted(told) == sorted(folder.name for folder in (board / "study").iterdir()) == ["multi", "single"]
    for name, accuracy in table_of(tmp_path / "study")["accuracy"].items():
        assert len(told[str(name)].Scalars("head/train_loss")) == 9
        assert told[str(name)].Scalars("test/accuracy")[0].value == pytest.approx(accuracy)
    begun = tmp_path / "study" / "runs" / "multi" / ".bundle-a1b2c3d4" / "bundle"  # of a process that was killed
    begun.mkdir(parents=True)
    assert cli(*asked, "--resume").status == 0
    assert not begun.parent.exists()
    assert before == {file: file.stat().st_mtime_ns for file in before}
    other = cli(*asked, "--resume", "-s", "training.epochs=2")
    assert other.status == 1
    assert "holds another comparison: 2 of its runs differ" in other.err


def test_the_file_of_a_study_repeats_it(cli: Cli, gels: Path, grid: Path, tmp_path: Path) -> None:
    seed = ("-s", "split.seed=random", "-s", "training.device=cpu")
    assert cli("compare", gels, "--grid", grid, *seed, "--out", tmp_path / "a").status == 0
    assert cli("compare", gels, "--grid", tmp_path / "a" / "study.toml", "--out", tmp_path / "b").status == 0
    first, second = (without_times(table_of(tmp_path / name)) for name in "ab")
    pd.testing.assert_frame_equal(first, second)
    assert first["split_seed"].nunique() == 1


def test_a_run_that_fails_is_a_row_with_its_error(cli: Cli, gels: Path, grid: Path, tmp_path: Path) -> None:
    models = 'model=[{backbone="small_30k"},{backbone="small_30k",weights="nowhere.safetensors"}]'
    done = cli(
        "compare", gels, "--grid", grid, "-s", models, "-s", "training.device=cpu", "-s", "model.head=single", "--out", tmp_path / "s"
    )
    assert done.status == 0, done.err
    table = table_of(tmp_path / "s")
    assert table["status"].tolist() == ["done", "failed"]
    assert "no such file" in table["error"].iloc[1]
    assert "failed: 1 of 2 runs" in done.err
    broken = cli(
        "compare", gels, "--grid", grid, "-s", "model.weights=nowhere.safetensors", "-s", "training.device=cpu", "--out", tmp_path / "t"
    )
    assert broken.status == 1
    assert (table_of(tmp_path / "t")["status"] == "failed").all()
    assert "nothing to compare" in (tmp_path / "t" / "report.html").read_text()


def test_seeds_and_folds_are_axes_and_other_splits_are_not_paired(cli: Cli, gels: Path, grid: Path, tmp_path: Path) -> None:
    axes = ("-s", "split.seed=[0,1]", "-s", "training.seed=[0,1]", "-s", "model.head=single", "-s", "training.device=cpu")
    done = cli("compare", gels, "--grid", grid, *axes, "--out", tmp_path / "seeds")
    assert done.status == 0, done.err
    table = table_of(tmp_path / "seeds")
    assert table.index.tolist() == ["seed-0-seed-0", "seed-0-seed-1", "seed-1-seed-0", "seed-1-seed-1"]
    assert table[["split_seed", "seed"]].to_numpy().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    verdict = json.loads((tmp_path / "seeds" / "verdict.json").read_text())
    assert not verdict["paired"]
    assert {one["test"] for one in verdict["compared"]} == {"exact Fisher", "exact McNemar"}
    assert "unpaired" in done.err
    folds = ("-s", "split.folds=3", "-s", "split.repeats=2", "-s", "training.device=cpu")
    assert cli("compare", gels, "--grid", grid, *folds, "--out", tmp_path / "folds").status == 0
    table = table_of(tmp_path / "folds")
    assert table["judged_on"].tolist() == ["folds", "folds"]
    assert table["images"].tolist() == [24, 24]
    each = pd.read_csv(tmp_path / "folds" / "folds.csv")
    assert each.groupby("model_id").size().tolist() == [6, 6]


def test_several_labels_are_compared_by_macro_f1(cli: Cli, gels: Path, tmp_path: Path, grid: Path) -> None:
    images = sorted(file for file in gels.rglob("*") if file.suffix in (".png", ".jpg", ".tif"))
    labels = [f"{file.parent.name}|odd" if number % 2 else file.parent.name for number, file in enumerate(images)]
    pd.DataFrame({"image": map(str, images), "label": labels}).to_csv(tmp_path / "labels.csv", index=False)
    asked = ("-s", "training.device=cpu", "-s", "data.separator=|")
    done = cli("compare", tmp_path / "labels.csv", "--grid", grid, *asked, "--out", tmp_path / "study")
    assert done.status == 0, done.err
    verdict = json.loads((tmp_path / "study" / "verdict.json").read_text())
    assert verdict["number"] == "macro_f1"
    assert "macro F1 of" in done.out
    assert table_of(tmp_path / "study")["accuracy"].notna().all()


def test_data_that_is_not_what_was_asked_for_is_no_failed_run(cli: Cli, gels: Path, tmp_path: Path, grid: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,label\na.png,a\n")
    for data, words in ((tmp_path / "nowhere", "nowhere"), (tmp_path / "labels.csv", "no column 'image'")):
        done = cli("compare", data, "--grid", grid, "--out", tmp_path / "study")
        assert done.status == 2
        assert words in done.err
        assert not (tmp_path / "study").exists()


@without_gpu
def test_a_dry_run_lists_the_runs_and_writes_nothing(cli: Cli, gels: Path, grid: Path, tmp_path: Path) -> None:
    done = cli("compare", gels, "--grid", grid, "--out", tmp_path / "study", "--dry-run")
    assert done.status == 0, done.err
    for name in ("cpu-single", "cpu-multi", "gpu-single", "gpu-multi"):
        assert name in done.out
    assert "2 of 4 runs can be made here, in about" in done.out
    assert "GB" in done.out
    assert "cannot be made here: 2 of 4 runs" in done.err
    assert not (tmp_path / "study").exists()


BAD: list[tuple[list[str], list[str]]] = [
    (["-s", 'training.optimzer=["adam","sgd"]'], ["training.optimzer", "Did you mean 'optimizer'?"]),
    (["-s", "training.optimizer=[]"], ["training.optimizer is empty"]),
    (["-s", 'model=[{head="single"}]', "-s", 'model.head=["multi"]'], ["contradict each other: both set model.head"]),
    (["-s", 'training.optimizer=["exact","adam"]'], ["needs model.head", "in 2 of 8 combinations", "exact"]),
    (["-s", 'model.backbone=["small_30k","small_31k"]'], ["small_31k", "Did you mean"]),
]


@pytest.mark.parametrize(("settings", "words"), BAD)
def test_a_bad_grid_is_refused_before_any_work(
    cli: Cli, gels: Path, grid: Path, tmp_path: Path, settings: list[str], words: list[str]
) -> None:
    done = cli("compare", gels, "--grid", grid, *settings, "--out", tmp_path / "study")
    assert done.status == 2
    assert all(word in done.err for word in words), done.err
    assert not (tmp_path / "study").exists()


def test_grids_by_name(cli: Cli, gels: Path, tmp_path: Path) -> None:
    done: Any = cli("compare", gels, "--grid", "gel-42", "--out", tmp_path / "study")
    assert done.status == 2
    assert "Did you mean 'gel-24'" in done.err


def begin(*arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "coverslip", "compare", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_study_that_was_killed_at_random_moments_ends_as_an_unbroken_one(gels: Path, grid: Path, tmp_path: Path) -> None:
    """Frozen runs on shared features, and runs from scratch with folds; each process is killed somewhere in its work."""
    axes = ("-s", 'training.regime=["probe","scratch"]', "-s", "split.folds=2", "-s", "training.device=cpu")
    asked = (gels, "--grid", grid, *axes)
    assert begin(*asked, "--out", tmp_path / "whole").wait(900) == 0
    study, log, random = tmp_path / "broken", tmp_path / "broken" / "study.log", np.random.default_rng()
    for _ in range(4):
        written = log.stat().st_size if log.exists() else 0
        process = begin(*asked, "--out", study, "--resume")
        while process.poll() is None and (not log.exists() or log.stat().st_size <= written):
            time.sleep(0.01)
        time.sleep(random.uniform(0.0, 1.5))
        process.kill()
        process.wait()
    assert begin(*asked, "--out", study, "--resume").wait(900) == 0
    pd.testing.assert_frame_equal(without_times(table_of(study)), without_times(table_of(tmp_path / "whole")))
    for name in ("verdict.json", "folds.csv"):
        assert (study / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert sorted(file.name for file in study.iterdir()) == sorted(file.name for file in (tmp_path / "whole").iterdir())
