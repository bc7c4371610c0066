"""`coverslip search` on tiny simulated charts: trials, the final model, resuming, storages, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import numpy as np
import optuna
import pandas as pd
import pytest
import sqlalchemy

from coverslip.cli import main
from coverslip.config import read_toml
from coverslip.predict import Model
from flow.conftest import Cli
from servers import free_port, postgres_server, silent_server

SPACE = """
[search]
trial_share = 0.5
looks = 4
compare_random = true

[base.pixels]
height = 32
width = 32

[base.model]
backbone = "small_30k"
weights = "none"
arguments = { width = 8 }

[base.training]
regime = "scratch"
epochs = 2
batch_size = 8

[base.intervals]
resamples = 200

[space]
training.learning_rate = { low = 1e-4, high = 0.1, log = true }
model.arguments.width = { low = 4, high = 16, log = true }
"""
TIMES = ["seconds", "started", "images_per_second"]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("space") / "space.toml"
    file.write_text(SPACE)
    return file


@pytest.fixture(scope="module")
def finished(charts: Path, space: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that tests only read."""
    folder = tmp_path_factory.mktemp("studies") / "charts"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["coverslip", "search", str(charts), "--space", str(space), "--trials", "3", "--out", str(folder)])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    return folder


@pytest.fixture
def unfinished(finished: Path, tmp_path: Path) -> Path:
    """The same, before its best trial was chosen."""
    folder = Path(shutil.copytree(finished, tmp_path / "unfinished"))
    for name in ("best.json", "verdict.json"):
        (folder / name).unlink()
    return folder


def trials(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "trials.csv").drop(columns=TIMES)


def test_the_best_trial_becomes_the_final_model(finished: Path, charts: Path) -> None:
    made = trials(finished)
    assert made.groupby("search").size().to_dict() == {"random": 3, "tpe": 3}
    assert made.loc[made["trial"] == 0, "training.learning_rate"].tolist() == [0.001, 0.001]
    assert made["ended"].isin(["complete", "pruned", "diverged"]).all()
    parquet = pd.read_parquet(finished / "trials.parquet")
    assert parquet["value"].to_numpy(dtype=float) == pytest.approx(made["value"].to_numpy(dtype=float), nan_ok=True)
    best = made[(made["search"] == "tpe") & (made["ended"] == "complete")].sort_values("value").iloc[0]
    final, defaults = (read_toml(finished / "runs" / name / "config.toml") for name in ("final", "defaults"))
    assert final["training"]["learning_rate"] == pytest.approx(best["training.learning_rate"])
    assert final["model"]["arguments"]["width"] == best["model.arguments.width"]
    assert (defaults["training"]["learning_rate"], defaults["model"]["arguments"]["width"]) == (0.001, 8)
    assert final["training"]["epochs"] == defaults["training"]["epochs"] == 2
    assert (finished / "report.html").is_file()
    assert (finished / "runs" / "final" / "report.html").is_file()
    assert len(Model(finished / "runs" / "final").predict([charts])) == 60
    assert not (finished / "trials").exists()


def test_the_verdict_is_that_of_both_prediction_files(finished: Path) -> None:
    losses, rows = {}, {}
    for name in ("final", "defaults"):
        frame = pd.read_csv(finished / "runs" / name / "predictions.csv")
        rows[name] = frame[frame["part"] == "test"]
        losses[name] = np.mean([-np.log(row[f"p_{row['label']}"]) for _, row in rows[name].iterrows()])
    assert rows["final"]["image"].tolist() == rows["defaults"]["image"].tolist()
    verdict = json.loads((finished / "verdict.json").read_text())
    difference = verdict["differences"]["log_loss"]
    assert difference["value"] == pytest.approx(losses["final"] - losses["defaults"], abs=1e-6)
    outside = difference["high"] < 0 or difference["low"] > 0
    assert outside == (verdict["verdict"] != "equal")
    assert f"On {len(rows['final'])} test images that no trial has seen" in verdict["sentence"]


def test_a_search_ends_with_its_minutes(cli: Cli, charts: Path, space: Path, tmp_path: Path) -> None:
    began, folder = time.perf_counter(), tmp_path / "study"
    words = ("--metric", "macro_f1", "--no-compare-random", "-s", "training.minutes=1.0", "--minutes", 0.1, "--out", folder)
    done = cli("search", charts, "--space", space, *words)
    assert done.status == 0, done.err
    assert "a final training gets 0.015, not 1" in done.err
    assert time.perf_counter() - began < 60
    made = trials(folder)
    assert made["search"].unique().tolist() == ["tpe"]
    assert read_toml(folder / "runs" / "final" / "config.toml")["training"]["minutes"] == pytest.approx(0.015)
    verdict = json.loads((folder / "verdict.json").read_text())
    assert verdict["best"]["value"] == pytest.approx(made.set_index("trial").loc[verdict["best"]["number"], "macro_f1"])
    assert "macro F1" in done.out


def test_dry_run_makes_nothing(cli: Cli, charts: Path, tmp_path: Path) -> None:
    done = cli("search", charts, "--space", "small-cnn", "--minutes", 10, "--dry-run", "--out", tmp_path / "study")
    assert done.status == 0, done.err
    assert "varies: training.learning_rate: 1e-05 to 1, orders of magnitude" in done.out
    assert "10 minutes for everything; a trial trains for" in done.out
    assert not (tmp_path / "study").exists()


# Resuming -------------------------------------------------------------------------------------------------------------


def begin(*words: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "coverslip", "search", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def made_so_far(folder: Path) -> int:
    """Trials that are over, as the storage has them, and one more when the choice is made; -1 before there is a storage."""
    url = f"sqlite:///{folder / 'trials.db'}"
    if not (folder / "study.toml").is_file():
        return -1
    try:
        names = optuna.get_all_study_names(url)
        every = [trial for name in names for trial in optuna.load_study(study_name=name, storage=url).trials]
    except (KeyError, RuntimeError, sqlalchemy.exc.SQLAlchemyError):  # the tables are being made
        return -1
    return sum(trial.state.is_finished() for trial in every) + (folder / "best.json").is_file()


@pytest.mark.slow
def test_killed_at_any_moment_a_search_goes_on_and_ends_as_an_unbroken_one(
    cli: Cli, charts: Path, space: Path, finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    for enough in (1, 4, 7):
        more = ["--resume"] if folder.exists() else []
        process = begin(charts, "--space", space, "--trials", 3, "--out", folder, *more)
        deadline = time.monotonic() + 120
        while made_so_far(folder) < enough and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
        assert process.wait() == (-signal.SIGKILL if os.name == "posix" else 1)
    assert cli("search", charts, "--out", folder, "--resume").status == 0
    pd.testing.assert_frame_equal(trials(folder), trials(finished))
    verdicts = [json.loads((place / "verdict.json").read_text()) for place in (folder, finished)]
    for found in verdicts:
        for name in ("seconds", "images_per_second", "attempts"):
            found["best"]["numbers"].pop(name)
    assert verdicts[0] == verdicts[1]
    assert not (folder / "trials").exists()


def test_a_finished_search_is_not_made_again(cli: Cli, charts: Path, space: Path, finished: Path) -> None:
    """Its model was judged on the test part: to go on choosing would be to choose with the answer known."""
    before = (finished / "trials.csv").read_bytes()
    taken = cli("search", charts, "--space", space, "--trials", 1, "--out", finished)
    assert taken.status == 1
    assert "holds a study already" in taken.err
    again = cli("search", charts, "--trials", 9, "--out", finished, "--resume")
    assert again.status == 0, again.err
    assert "this search was finished before" in again.err
    assert "On 12 test images that no trial has seen" in again.out
    assert (finished / "trials.csv").read_bytes() == before


def test_another_space_cannot_go_on_with_a_search(cli: Cli, charts: Path, space: Path, unfinished: Path) -> None:
    other = cli("search", charts, "--space", space, "-s", "training.learning_rate=0.01", "--out", unfinished, "--resume")
    assert other.status == 2
    assert "differs in base.training.learning_rate, space.training.learning_rate" in other.err


# Storages -------------------------------------------------------------------------------------------------------------


def test_postgresql_keeps_the_trials_and_study_toml_repeats_the_search(cli: Cli, charts: Path, finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    with postgres_server() as url:
        done = cli("search", charts, "--space", finished / "study.toml", "--trials", 3, "--storage", url, "--out", folder)
        assert done.status == 0, done.err
        plain = url.replace("postgresql://", "postgresql+pg8000://")
        with opened(plain) as storage:
            names = sorted(optuna.get_all_study_names(storage))
            stored = {name: optuna.load_study(study_name=name, storage=storage).trials for name in names}
        shown = dashboard(plain)
    pd.testing.assert_frame_equal(trials(folder), trials(finished))
    assert [name.rsplit("-", 1)[1] for name in names] == ["random", "tpe"]
    rates = sorted(trial.params["training.learning_rate"] for each in stored.values() for trial in each)
    assert rates == pytest.approx(sorted(trials(folder)["training.learning_rate"]))
    assert shown == dict.fromkeys(names, 3)
    assert not (folder / "trials.db").exists()
    password = url.split(":")[2].split("@")[0].encode()
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if password in path.read_bytes()] == []
    assert "***" in (folder / "study.toml").read_text()


def test_the_dashboard_opens_the_file_of_a_study(finished: Path) -> None:
    assert list(dashboard(f"sqlite:///{finished / 'trials.db'}").values()) == [3, 3]


def dashboard(url: str) -> dict[str, int]:
    """Studies and their number of trials, as optuna-dashboard serves them."""
    module = pytest.importorskip("optuna_dashboard")
    with opened(url) as storage:
        app = module.wsgi(storage)
        studies = ask(app, "/api/studies")["study_summaries"]
        return {study["study_name"]: len(ask(app, f"/api/studies/{study['study_id']}", "after=0")["trials"]) for study in studies}


@contextmanager
def opened(url: str) -> Iterator[optuna.storages.RDBStorage]:
    """Optuna's own view of a storage, its connections closed at the end."""
    storage = optuna.storages.RDBStorage(url)
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def ask(app: Any, path: str, query: str = "") -> Any:
    """One request to a WSGI application, without a socket."""
    environment: dict[str, Any] = {"PATH_INFO": path, "QUERY_STRING": query}
    setup_testing_defaults(environment)
    status: list[str] = []
    body = b"".join(app(environment, lambda said, headers, error=None: status.append(said)))
    assert status[0].startswith("200"), (status, body)
    return json.loads(body)


# What is refused ------------------------------------------------------------------------------------------------------


def test_a_storage_that_does_not_answer_is_refused_before_any_work(cli: Cli, charts: Path, space: Path, tmp_path: Path) -> None:
    began, folder = time.perf_counter(), tmp_path / "study"
    words = ("search", charts, "--space", space, "--out", folder, "--storage")
    gone = cli(*words, f"postgresql://a:secret@127.0.0.1:{free_port()}/b")
    with silent_server() as port:
        silent = cli(*words, f"postgresql://a:secret@127.0.0.1:{port}/b")
    assert time.perf_counter() - began < 20
    for said in (gone, silent):
        assert said.status == 2
        assert "cannot be used" in said.err
        assert "secret" not in said.err
    assert not folder.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "say where to search: --space NAME or FILE. Spaces: small-cnn"),
        (["--space", "small-cn"], "Did you mean 'small-cnn'?"),
        (["--space", "small-cnn", "-s", "training.lerning_rate={low=1, high=2}"], "Did you mean 'learning_rate'?"),
        (["--space", "small-cnn", "-s", "training.learning_rate=[]"], "the list of choices is empty"),
        (["--space", "small-cnn", "-s", "training.batch_size={low=9, high=3}"], "the range is empty"),
        (["--space", "small-cnn", "-s", "model.arguments.width=1.5"], "takes a whole number from 1 to 512"),
        (["--space", "small-cnn", "-s", "split.test=0.0"], "judged on a test part that no trial has seen, and there is none"),
        (["--space", "small-cnn", "-s", "split.validation=0.0"], "chooses on the validation part, and there is none"),
        (["--space", "small-cnn", "--storage", "trials.db"], "is no URL"),
        (["--space", "small-cnn", "--storage", "redis://host"], "redis is not a kind of storage"),
        (["--space", "small-cnn", "--address", "127.0.0.1:6379"], "--engine ray"),
    ],
)
def test_wrong_input_is_refused_with_the_way_out(cli: Cli, charts: Path, tmp_path: Path, words: list[str], said: str) -> None:
    done = cli("search", charts, *words, "--out", tmp_path / "study")
    assert done.status == 2, done.err
    assert said in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "study" / "study.toml").exists()


def test_trials_that_all_fail_end_the_search_with_their_reason(cli: Cli, charts: Path, space: Path, tmp_path: Path) -> None:
    done = cli("search", charts, "--space", space, "--trials", 9, "-s", "model.class_groups=2", "--out", tmp_path / "study")
    assert done.status == 1
    assert "the first 5 trials have all failed: model.class_groups is for several labels an image" in done.err
