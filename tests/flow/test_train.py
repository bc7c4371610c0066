from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from coverslip.record import RunFolder

from .conftest import TINY, Cli

RUN_FILES = {
    "audit.json", "bundle", "config.toml", "environment.json", "history.csv", "label_errors.csv", "metrics.json", "pictures",
    "predictions.csv", "report.html", "run.log", "split.csv", "summary.json", "timing.json", "weights.json",
}  # fmt: skip


def test_a_run_leaves_the_whole_folder(cli: Cli, gels: Path, tmp_path: Path) -> None:
    done = cli("train", gels, "--recipe", "quick", *TINY, "--out", tmp_path / "run")
    assert done.status == 0, done.err
    assert {path.name for path in (tmp_path / "run").iterdir()} == RUN_FILES
    assert "accuracy" in done.out
    assert str(tmp_path / "run" / "report.html") in done.out


def test_numbers_agree_with_the_predictions(gel_run: Path) -> None:
    metrics = json.loads((gel_run / "metrics.json").read_text())
    predictions = pd.read_csv(gel_run / "predictions.csv")
    checked = 0
    for part in ("test", "validation"):
        rows = predictions[predictions["part"] == part]
        assert len(rows) == metrics[part]["n"] > 0
        assert metrics[part]["accuracy"]["value"] == pytest.approx((rows["predicted"] == rows["label"]).mean())
        assert metrics[part]["accuracy"]["low"] <= metrics[part]["accuracy"]["value"] <= metrics[part]["accuracy"]["high"]
        checked += 1
    assert checked == 2
    scores = predictions[[name for name in predictions if name.startswith("p_")]].to_numpy()
    assert np.allclose(scores.sum(axis=1), 1, atol=1e-5)


def test_split_has_every_image_once(gel_run: Path, gels: Path) -> None:
    split = pd.read_csv(gel_run / "split.csv")
    files = {path.relative_to(gels).as_posix() for path in gels.rglob("*") if path.is_file()}
    assert set(split["image"]) == files
    assert len(split) == len(files) == 40
    assert set(split["part"]) == {"train", "validation", "test"}


def test_the_same_config_gives_the_same_numbers(cli: Cli, gel_run: Path, tmp_path: Path) -> None:
    config = gel_run / "config.toml"
    data = tomllib.loads(config.read_text())["data"]["path"]
    done = cli("train", data, "--recipe", config, "--out", tmp_path / "again")
    assert done.status == 0, done.err
    assert (tmp_path / "again" / "metrics.json").read_bytes() == (gel_run / "metrics.json").read_bytes()
    assert (tmp_path / "again" / "predictions.csv").read_bytes() == (gel_run / "predictions.csv").read_bytes()
    first, second = (json.loads((folder / "environment.json").read_text())["data"] for folder in (gel_run, tmp_path / "again"))
    assert first == second
    assert first["split_sha256"] == hashlib.sha256((gel_run / "split.csv").read_bytes()).hexdigest()
    assert len(first["pixels_sha256"]) == 64


def test_folds_score_every_image(cli: Cli, gels: Path, tmp_path: Path) -> None:
    settings = (
        "-s",
        "split.folds=3",
        "-s",
        "split.repeats=2",
        "-s",
        "split.test=0.0",
        "-s",
        "split.validation=0.0",
        "-s",
        "training.epochs=1",
    )
    done = cli("train", gels, "--recipe", "quick", *TINY, *settings, "--out", tmp_path / "run")
    assert done.status == 0, done.err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert len(metrics["folds"]["each"]) == 6
    assert "test" not in metrics
    predictions = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert predictions.groupby("repeat")["image"].nunique().tolist() == [40, 40]
    assert (predictions["part"] == "fold").all()


def test_groups_are_kept_together_and_reported(cli: Cli, charts: Path, tmp_path: Path) -> None:
    done = cli(
        "train",
        charts,
        "--recipe",
        "quick",
        *TINY,
        "-s",
        "split.group=regex:^([^_]+)_",
        "-s",
        "augment.vertical_flip=false",
        "--out",
        tmp_path / "run",
    )
    assert done.status == 0, done.err
    split = pd.read_csv(tmp_path / "run" / "split.csv")
    assert split.groupby("group")["part"].nunique().max() == 1
    assert split["group"].nunique() >= 3
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]["groups"]


def test_classes_are_merged_on_the_way_in(cli: Cli, charts: Path, tmp_path: Path) -> None:
    merge = 'data.merge.non_chimeric=["regular","repeat"]'
    done = cli("train", charts, "--recipe", "quick", *TINY, "-s", merge, "-s", "data.positive=chimeric", "--out", tmp_path / "run")
    assert done.status == 0, done.err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["classes"] == ["non_chimeric", "chimeric"]
    assert metrics["positive"] == "chimeric"
    again = cli("evaluate", tmp_path / "run", charts, "--out", tmp_path / "judged")
    assert again.status == 0, again.err
    assert json.loads((tmp_path / "judged" / "metrics.json").read_text())["test"]["n"] == 60


def test_a_table_split_at_random(cli: Cli, charts: Path, tmp_path: Path) -> None:
    files = sorted(charts.rglob("*.png"))
    rows = [{"picture": str(file.relative_to(charts)), "kind": file.parent.name, "plate": number % 7} for number, file in enumerate(files)]
    pd.DataFrame(rows).sample(frac=1, random_state=0).to_csv(charts / "table.csv", index=False)
    columns = ("-s", "data.image=picture", "-s", "data.labels=kind", "-s", "split.method=random", "-s", "split.seed=random")
    done = cli("train", charts / "table.csv", "--recipe", "quick", *TINY, *columns, "--out", tmp_path / "run")
    (charts / "table.csv").unlink()
    assert done.status == 0, done.err
    split = pd.read_csv(tmp_path / "run" / "split.csv")
    assert sorted(split["image"]) == sorted(row["picture"] for row in rows)
    assert (split["part"] == "test").sum() == 12
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert config["split"]["method"] == "random"
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert isinstance(environment["split"]["seed"], int)


def test_dry_run_trains_nothing(cli: Cli, gels: Path, tmp_path: Path) -> None:
    done = cli("train", gels, "--recipe", "quick", *TINY, "--dry-run", "--out", tmp_path / "run")
    assert done.status == 0, done.err
    assert not (tmp_path / "run").exists()
    assert "multiply-adds" in done.out
    assert "backbone" in done.out


def test_without_a_recipe_one_is_chosen_and_said(cli: Cli, gels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVERSLIP_WEIGHTS", str(tmp_path / "nowhere"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = cli("train", gels, "-s", "training.minutes=0.05", "-s", "pixels.height=32", "-s", "pixels.width=32", "--out", tmp_path / "run")
    assert done.status == 0, done.err
    assert "auto-scratch: 40 images" in done.err.replace("\n", " ")
    assert "images: 28 train, 4 validation, 8 test" in done.err
    assert "multiply-adds an image" in done.err
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert config["training"]["steps"] >= 1


def test_learning_curve_on_request(cli: Cli, gels: Path, tmp_path: Path) -> None:
    done = cli("train", gels, "--recipe", "quick", *TINY, "--learning-curve", "--out", tmp_path / "run")
    assert done.status == 0, done.err
    curve = pd.read_csv(tmp_path / "run" / "learning_curve.csv")
    assert curve["images"].is_monotonic_increasing
    assert len(curve) == 4
    assert curve["images"].iloc[-1] == 28
    assert list(curve.columns) == ["share", "images", "accuracy", "low", "high", "macro_f1"]
    assert "more images" in (tmp_path / "run" / "report.html").read_text()


def test_learning_curve_on_folds_where_there_is_no_test_part(cli: Cli, gels: Path, tmp_path: Path) -> None:
    folds = ("-s", "split.folds=2", "-s", "split.test=0.0", "-s", "split.validation=0.0", "-s", "training.epochs=1")
    done = cli("train", gels, "--recipe", "quick", *TINY, *folds, "--learning-curve", "--out", tmp_path / "run")
    assert done.status == 0, done.err
    curve = pd.read_csv(tmp_path / "run" / "learning_curve.csv")
    assert curve["images"].tolist() == [2, 4, 10, 20]  # of 10 gels and 10 others in the training half
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert curve["accuracy"].iloc[-1] == metrics["folds"]["accuracy"]["value"]


def test_a_run_that_cannot_have_a_learning_curve_keeps_its_report(cli: Cli, gels: Path, tmp_path: Path) -> None:
    nothing_kept = ("-s", "split.test=0.0", "-s", "training.epochs=1")
    done = cli("train", gels, "--recipe", "quick", *TINY, *nothing_kept, "--learning-curve", "--out", tmp_path / "run")
    assert done.status == 2
    assert "set split.test or split.folds" in done.err
    assert (tmp_path / "run" / "report.html").exists()


def test_resume_ends_with_the_numbers_of_an_unbroken_run(cli: Cli, gel_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from coverslip.training import loop

    config = gel_run / "config.toml"
    data = tomllib.loads(config.read_text())["data"]["path"]
    monkeypatch.setattr(loop, "SHORT_EPOCH_SECONDS", 0.0)
    saved = loop.save_checkpoint

    def save_and_stop(*arguments: object) -> None:
        saved(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(loop, "save_checkpoint", save_and_stop)
        stopped = cli("train", data, "--recipe", config, "--out", tmp_path / "run")
    assert stopped.status == 130
    assert "interrupted; what is a run, a comparison or a search goes on with --resume" in stopped.err
    assert (tmp_path / "run" / "checkpoints").is_dir()
    assert not (tmp_path / "run" / "metrics.json").exists()
    taken = cli("train", data, "--recipe", config, "--out", tmp_path / "run")
    assert taken.status == 1
    assert "--resume" in taken.err
    other = cli("train", tmp_path, "--out", tmp_path / "run", "--resume")
    assert other.status == 1
    assert f"holds a run on {data}" in other.err
    done = cli("train", data, "--out", tmp_path / "run", "--resume")
    assert done.status == 0, done.err
    assert "the config that it was started with" in done.err
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["recipe"]["name"] == "config.toml"
    assert (tmp_path / "run" / "metrics.json").read_bytes() == (gel_run / "metrics.json").read_bytes()
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_run_that_was_stopped_between_its_folds_keeps_all_of_its_history(
    cli: Cli, gels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train", gels, "--recipe", "quick", *TINY, "-s", "split.folds=2")
    assert cli(*words, "--out", tmp_path / "whole").status == 0
    kept = RunFolder.keep_fold

    def keep_and_stop(*arguments: Any) -> None:
        kept(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(RunFolder, "keep_fold", keep_and_stop)
        assert cli(*words, "--out", tmp_path / "broken").status == 130
    assert cli("train", gels, "--out", tmp_path / "broken", "--resume").status == 0
    whole, broken = (pd.read_csv(tmp_path / name / "history.csv") for name in ("whole", "broken"))
    assert whole["fold"].dropna().unique().tolist() == [1.1, 1.2]
    pd.testing.assert_frame_equal(*(table.drop(columns=["seconds", "images_per_second"]) for table in (whole, broken)))
    assert (tmp_path / "whole" / "metrics.json").read_bytes() == (tmp_path / "broken" / "metrics.json").read_bytes()


def test_resume_without_a_run_says_that_a_new_one_begins(cli: Cli, gels: Path, tmp_path: Path) -> None:
    done = cli("train", gels, "--recipe", "quick", *TINY, "-s", "training.epochs=1", "--out", tmp_path / "run", "--resume")
    assert done.status == 0, done.err
    assert f"no run to go on with in {tmp_path / 'run'}: a new one begins" in done.err


def test_given_parts_are_respected_and_leaks_stop(cli: Cli, gels: Path, tmp_path: Path) -> None:
    files = sorted(path for path in gels.rglob("*") if path.is_file())
    for number, file in enumerate(files):
        part = ("train", "train", "validation", "test")[number % 4]
        place = tmp_path / "parts" / part / file.parent.name / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.read_bytes())
    done = cli("train", tmp_path / "parts", "--recipe", "quick", *TINY, "--out", tmp_path / "run")
    assert done.status == 0, done.err
    split = pd.read_csv(tmp_path / "run" / "split.csv")
    assert (split["image"].str.split("/").str[0] == split["part"]).all()
    first = next((tmp_path / "parts" / "train" / "gel").iterdir())
    (tmp_path / "parts" / "test" / "gel" / f"copy{first.suffix}").write_bytes(first.read_bytes())
    stopped = cli("train", tmp_path / "parts", "--recipe", "quick", *TINY, "--out", tmp_path / "leak")
    assert stopped.status == 2
    assert "leak" in stopped.err
    assert first.name in stopped.err
    warned = cli("train", tmp_path / "parts", "--recipe", "quick", *TINY, "-s", "data.on_leak=warn", "--out", tmp_path / "warned")
    assert warned.status == 0, warned.err
