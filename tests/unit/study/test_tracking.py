"""What TensorBoard and MLflow are told, read back with their own readers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from coverslip.config import dump_toml, load_config
from coverslip.errors import InputError, MissingExtraError, ResourceError, RunFolderError, UnreachableError
from coverslip.storage import ENDPOINT
from coverslip.study.tracking import Tracking, curves, final_numbers, parameters, read_tracked
from object_server import object_server

HISTORY = """fold,group,phase,step,epoch,seconds,learning_rate,train_loss,validation_loss,kept
1.1,1,head,10,1,,0.1,0.9,,
1.1,1,all,0,0,,0.01,,0.8,
1.1,1,all,4,1,0.5,0.01,0.7,0.6,True
1.1,2,all,4,1,0.5,0.01,0.5,0.4,True
1.2,1,all,4,1,0.5,0.01,0.45,0.35,True
,1,all,4,1,0.5,0.01,0.3,,True
,2,all,4,1,0.5,0.02,0.25,,True
"""
METRICS = {
    "task": "multilabel",
    "classes": ["a/b", "(c)"],
    "test": {
        "n": 20,
        "macro_f1": {"value": 0.75, "low": 0.5, "high": 0.9, "method": "bootstrap"},
        "undefined": {"value": None, "low": None, "high": None, "method": "undefined"},
        "threshold": 0.5,
        "per_class": {"a/b": {"support": 3, "f1": {"value": 0.5, "low": 0.1, "high": 0.8, "method": "bootstrap"}}},
        "confusion": [[1, 2], [3, 4]],
    },
}


def make_folder(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(dump_toml(load_config({"data": {"path": "gel"}, **config})), encoding="utf-8")
    (folder / "history.csv").write_text(HISTORY, encoding="utf-8")
    (folder / "metrics.json").write_text(json.dumps(METRICS), encoding="utf-8")
    (folder / "timing.json").write_text('{"total_seconds": 60.0}', encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("runs") / "one", model={"backbone": "resnet18"})


def test_every_fit_and_phase_has_its_curves(folder: Path) -> None:
    found = {(curve.fit, curve.name): list(zip(curve.steps, curve.values, strict=True)) for curve in read_tracked(folder, "one").curves}
    assert found["fold-1.1/group-1", "head/train_loss"] == [(10, 0.9)]
    assert found["fold-1.1/group-1", "all/validation_loss"] == [(0, 0.8), (4, 0.6)]
    assert found["fold-1.1/group-2", "all/train_loss"] == [(4, 0.5)]
    assert found["fold-1.2/group-1", "all/train_loss"] == [(4, 0.45)]
    assert found["group-2", "all/learning_rate"] == [(4, 0.02)]
    assert ("group-2", "all/validation_loss") not in found
    assert len(found) == 2 + 3 + 3 + 3 + 2 + 2


def test_a_run_without_folds_and_groups_has_plain_curves() -> None:
    history = pd.DataFrame({"fold": [None], "phase": ["all"], "step": [3], "train_loss": [0.5]})
    (curve,) = curves(history)
    assert (curve.fit, curve.name, curve.steps, curve.values) == ("", "all/train_loss", (3,), (0.5,))


def test_numbers_come_with_their_intervals_and_without_holes() -> None:
    assert final_numbers(METRICS) == {
        "test/n": 20.0, "test/macro_f1": 0.75, "test/macro_f1_low": 0.5, "test/macro_f1_high": 0.9, "test/threshold": 0.5,
        "test/per_class/a_b/support": 3.0, "test/per_class/a_b/f1": 0.5, "test/per_class/a_b/f1_low": 0.1,
        "test/per_class/a_b/f1_high": 0.8,
    }  # fmt: skip


def test_names_that_come_to_the_same_stay_apart() -> None:
    assert final_numbers({"test": {"n": 1, "per_class": {"a+": {"f1": 1.0}, "a*": {"f1": 0.5}}}}) == {
        "test/n": 1.0, "test/per_class/a_/f1": 1.0, "test/per_class/a_/f1_": 0.5,
    }  # fmt: skip


def test_an_unfinished_run_is_not_told_of(tmp_path: Path) -> None:
    unfinished = make_folder(tmp_path / "run")
    (unfinished / "metrics.json").unlink()
    with pytest.raises(RunFolderError, match=r"metrics\.json missing"):
        Tracking("gel", tensorboard=tmp_path / "board").add(unfinished, "run")
    Tracking("gel").add(unfinished, "run")  # nothing is asked for


class TestTensorBoard:
    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("tensorboard")

    def read(self, place: Path) -> Any:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        return EventAccumulator(str(place)).Reload()

    def test_curves_numbers_and_config_arrive(self, folder: Path, tmp_path: Path) -> None:
        tracking = Tracking("gel", tensorboard=tmp_path / "board")
        tracking.check()
        tracking.add(folder, "one")
        run, place = read_tracked(folder, "one"), tmp_path / "board" / "gel" / "one"
        for curve in run.curves:
            events = self.read(place / curve.fit).Scalars(curve.name)
            assert [event.step for event in events] == list(curve.steps)
            assert [event.value for event in events] == pytest.approx(curve.values)
        kept = self.read(place)
        for name, value in run.numbers.items():
            assert kept.Scalars(name)[0].value == pytest.approx(value)
        session = kept.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        assert b"model.backbone" in session
        assert b"resnet18" in session
        assert 'backbone = "resnet18"' in kept.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()

    def test_a_run_is_told_of_once_and_replaced_when_made_anew(self, folder: Path, tmp_path: Path) -> None:
        own = Path(shutil.copytree(folder, tmp_path / "run"))
        tracking, place = Tracking("gel", tensorboard=tmp_path / "board"), tmp_path / "board" / "gel" / "one"
        tracking.add(own, "one")
        written = {file: file.stat().st_mtime_ns for file in place.rglob("*") if file.is_file()}
        tracking.add(own, "one")
        assert {file: file.stat().st_mtime_ns for file in place.rglob("*") if file.is_file()} == written
        (own / "history.csv").write_text(HISTORY.replace("0.25", "0.125"), encoding="utf-8")
        tracking.add(own, "one")
        assert [event.value for event in self.read(place / "group-2").Scalars("all/train_loss")] == [0.125]

    def test_a_bucket_gets_each_run_whole_and_once(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        (tmp_path / "bucket").mkdir()
        with object_server(tmp_path) as (address, store):
            monkeypatch.setenv(ENDPOINT, address)
            tracking = Tracking("gel", "s3://bucket/board")
            tracking.check()
            tracking.add(folder, "one")
            sent = sum(method == "PUT" for method, _ in store.requests)
            tracking.add(folder, "one")
            assert sum(method == "PUT" for method, _ in store.requests) == sent > 2
            again = make_folder(tmp_path / "again", model={"backbone": "resnet34"})
            tracking.add(again, "one")
            read = EventAccumulator(str(tmp_path / "bucket" / "board" / "gel" / "one")).Reload()
            assert "resnet34" in read.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
            with pytest.raises(InputError, match="web servers are read, not written"):
                Tracking("gel", f"{address}/board").check()

    def test_what_is_not_ours_stays(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "gel" / "one").mkdir(parents=True)
        with pytest.raises(InputError, match="in the way"):
            Tracking("gel", tensorboard=tmp_path).add(folder, "one")
        with pytest.raises(ResourceError, match="cannot write"):
            Tracking("gel", tensorboard=folder / "metrics.json" / "board").check()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("mlflow")
    place = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        yield f"sqlite:///{(place / 'deep' / 'runs.db').as_posix()}"
    assert len(list((place / "deep" / "mlartifacts" / "gel").rglob("history.csv"))) == 1, "files lie beside the database"


@pytest.mark.filterwarnings("ignore:The ``noload``")  # MLflow's tables under SQLAlchemy 2.1
class TestMlflow:
    def test_curves_numbers_and_config_arrive_once(self, folder: Path, store: str) -> None:
        from mlflow import MlflowClient

        tracking = Tracking("gel", mlflow=store)
        tracking.check()
        tracking.add(folder, "one")
        tracking.add(folder, "one")
        run, client = read_tracked(folder, "one"), MlflowClient(tracking_uri=store)
        (told,) = client.search_runs([client.get_experiment_by_name("gel").experiment_id])
        assert (told.info.run_name, told.info.status) == ("one", "FINISHED")
        assert told.info.end_time - told.info.start_time == 60_000
        for curve in run.curves:
            name = f"{curve.fit}/{curve.name}".removeprefix("/")
            points = client.get_metric_history(told.info.run_id, name)
            assert [(point.step, point.value) for point in points] == list(zip(curve.steps, curve.values, strict=True))
        assert {name: told.data.metrics[name] for name in run.numbers} == run.numbers
        assert told.data.params == {name: str(value) for name, value in run.parameters.items()}
        assert told.data.params["model.backbone"] == "resnet18"
        assert {file.path for file in client.list_artifacts(told.info.run_id)} == {"config.toml", "history.csv", "metrics.json"}

    def test_a_half_logged_run_is_replaced(self, folder: Path, store: str) -> None:
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=store)
        number = client.create_experiment("half")
        client.create_run(number, tags={"coverslip.run": read_tracked(folder, "one").fingerprint})
        Tracking("half", mlflow=store).add(folder, "one")
        (told,) = client.search_runs([number])
        assert told.info.status == "FINISHED"

    @pytest.mark.parametrize(
        ("uri", "said"),
        [
            ("http://127.0.0.1:9", r"runs at http://127.0.0.1:9: it does not answer \(.*refused\); give the address"),
            ("postgresql://127.0.0.1:9/runs", "does not answer at 127.0.0.1:9"),
            ("mlruns", "sqlite:///FILE"),
            ("ftp://server", "sqlite:///FILE"),
        ],
    )
    def test_what_does_not_answer_is_said_at_once(self, uri: str, said: str) -> None:
        pytest.importorskip("mlflow")
        with pytest.raises(UnreachableError, match=said):
            Tracking("gel", mlflow=uri).check()

    def test_a_place_that_cannot_be_written_is_said_at_once(self, folder: Path) -> None:
        pytest.importorskip("mlflow")
        with pytest.raises(ResourceError, match="cannot write"):
            Tracking("gel", mlflow=f"sqlite:///{(folder / 'metrics.json' / 'runs.db').as_posix()}").check()


@pytest.mark.parametrize("target", [{"tensorboard": Path("board")}, {"mlflow": "sqlite:///runs.db"}])
def test_a_missing_package_is_named_before_any_work(target: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for package in ("tensorboard", "mlflow"):
        monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingExtraError, match=r"coverslip\[track\]"):
        Tracking("gel", **target).check()
    assert list(tmp_path.iterdir()) == []


def test_parameters_of_every_key() -> None:
    config = load_config({"data": {"path": "gel"}})
    sections = config.model_dump(mode="json", exclude_none=True)
    found = parameters(sections)
    assert len(found) > 60
    assert found["split.folds"] == config.split.folds
