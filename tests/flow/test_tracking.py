"""`--tensorboard` and `--mlflow`: a run arrives in both, and once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import TINY, Cli


@pytest.mark.filterwarnings("ignore:The ``noload``")  # MLflow's tables under SQLAlchemy 2.1
def test_a_run_arrives_in_tensorboard_and_mlflow_once(cli: Cli, gels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    mlflow = pytest.importorskip("mlflow")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    train = ("train", gels, "--recipe", "quick", *TINY, "-s", "split.folds=2", "--out", "run", "--tensorboard", "board", "--mlflow")
    refused = cli(*train, "http://127.0.0.1:9")
    assert refused.status == 2
    assert "MLflow cannot be told of runs at http://127.0.0.1:9" in refused.err
    assert not (tmp_path / "run").exists()
    for resume in ((), ("--resume",)):
        assert cli(*train, "sqlite:///runs.db", *resume).status == 0
    accuracy = json.loads((tmp_path / "run" / "metrics.json").read_text())["folds"]["accuracy"]
    board = tmp_path / "board" / gels.name / "run"
    assert len(EventAccumulator(str(board / "fold-1.2")).Reload().Scalars("all/train_loss")) >= 2
    assert len(list(board.glob("events*"))) == 1
    client = mlflow.MlflowClient(tracking_uri="sqlite:///runs.db")
    (told,) = client.search_runs([client.get_experiment_by_name(gels.name).experiment_id])
    assert told.data.metrics["folds/accuracy"] == accuracy["value"]
    assert told.data.metrics["folds/accuracy_low"] == accuracy["low"]
    assert len(client.get_metric_history(told.info.run_id, "fold-1.2/all/train_loss")) >= 2
    assert "report.html" in {file.path for file in client.list_artifacts(told.info.run_id)}
