"""Every output as a URL, and studies in a bucket that another machine goes on with."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from coverslip.storage import ENDPOINT, URL, download, listing, mirroring, read
from coverslip.study import jobs, search
from flow.conftest import Cli, kill_at
from object_server import Store, object_server

BASE = """
[base.pixels]
height = 32
width = 32

[base.model]
backbone = "small_30k"
weights = "none"

[base.intervals]
resamples = 100
"""
GRID = f"""{BASE}
[base.split]
test = 0.3
validation = 0.0

[base.training]
regime = "probe"
epochs = 2
views = 2
batch_size = 8
optimizer = "adam"

[axes]
"model.head" = ["single", "multi"]
"""
SPACE = f"""{BASE}
[search]
trial_share = 0.5
looks = 2

[base.training]
regime = "scratch"
epochs = 2
batch_size = 16

[space]
training.learning_rate = {{ low = 1e-4, high = 0.1, log = true }}
"""


class Lost(BaseException):
    """The machine is gone in this moment."""


@pytest.fixture
def server(gels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store with the gels in its bucket."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("COVERSLIP_CACHE", str(tmp_path / "first"))
    monkeypatch.setattr(mirroring, "SHORTEST_PAUSE", 0.05)
    shutil.copytree(gels, tmp_path / "store" / "bucket" / "gels")
    with object_server(tmp_path / "store") as (address, server):
        monkeypatch.setenv(ENDPOINT, address)
        yield server


@pytest.fixture
def store(server: Store) -> Path:
    """The folder of its bucket."""
    return server.folder / "bucket"


def lose_at(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, call: int, is_sent: Callable[[], bool], asked: Callable[..., Any]
) -> list[Any]:
    """Lose the machine at a call of a function, once the store holds what was made before; gives what each call was asked for."""
    real, calls = getattr(module, name), []

    def wrapped(*arguments: Any, **options: Any) -> Any:
        calls.append(asked(*arguments))
        if len(calls) == call:
            deadline = time.monotonic() + 60
            while not is_sent():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            raise Lost
        return real(*arguments, **options)

    def gone(self: mirroring.Mirror) -> None:
        """A machine that is lost sends nothing any more."""

    monkeypatch.setattr(module, name, wrapped)
    monkeypatch.setattr(mirroring.Mirror, "give_up", gone)
    return calls


def test_a_comparison_that_is_killed_goes_on_on_another_machine(
    cli: Cli, server: Store, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store / "grid.toml").write_text(GRID)
    compare = ["compare", "s3://bucket/gels", "--grid", "s3://bucket/grid.toml", "--bundles", "all", "--out", "s3://bucket/study"]
    study = URL("s3://bucket/study")
    kill_at("runs/multi/config.toml", 1, compare, server, tmp_path / "first")
    assert {mirroring.WORKING, "study.toml", "runs/single/metrics.json"} <= set(listing(study))
    before = (store / "study" / "runs" / "single" / "metrics.json").stat().st_mtime_ns

    made, run = [], jobs.run
    monkeypatch.setattr(jobs, "run", lambda config, folder, **options: (made.append(folder.name), run(config, folder, **options))[1])
    monkeypatch.setenv("COVERSLIP_CACHE", str(tmp_path / "second"))
    told = cli(*compare)
    assert (told.status, "there is something at s3://bucket/study already" in told.err) == (1, True)
    told = cli(*compare, "--resume")
    assert told.status == 0, told.err
    assert made == ["multi"]
    assert "report: s3://bucket/study/report.html" in told.out
    assert (store / "study" / "runs" / "single" / "metrics.json").stat().st_mtime_ns == before
    table = pd.read_csv(store / "study" / "results.csv")
    assert table["status"].tolist() == ["done", "done"]
    assert {"verdict.json", "study.toml", "report.html"} <= set(listing(study))
    assert mirroring.WORKING not in listing(study)
    (store / "study" / "report.html").unlink()
    told = cli("report", "s3://bucket/study")
    assert (told.status, told.out.strip()) == (0, "s3://bucket/study/report.html"), told.err
    assert (store / "study" / "report.html").is_file()


def test_a_search_in_a_bucket_goes_on_on_another_machine(cli: Cli, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")
    (store / "space.toml").write_text(SPACE)
    find = ("search", "s3://bucket/gels", "--out", "s3://bucket/found", "--trials", 2)
    space = ("--space", "s3://bucket/space.toml")
    far_file = cli(*find, *space, "--storage", f"sqlite:///{tmp_path / 'trials.db'}")
    assert (far_file.status, "leave --storage out" in far_file.err) == (2, True)

    def is_sent() -> bool:
        if "trials.db" not in listing(URL("s3://bucket/found")):
            return False
        download(URL("s3://bucket/found/trials.db"), tmp_path / "copy.db")
        with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
            return bool(copy.execute("SELECT count(*) FROM trials WHERE state = 'COMPLETE'").fetchone()[0])

    made = lose_at(monkeypatch, search, "make_trial", 2, is_sent, lambda task: task.number)
    with pytest.raises(Lost):
        cli(*find, *space)
    monkeypatch.setenv("COVERSLIP_CACHE", str(tmp_path / "second"))
    told = cli(*find, "--resume")
    assert told.status == 0, told.err
    assert made == [0, 1, 1]
    assert "report: s3://bucket/found/report.html" in told.out
    trials = pd.read_csv(store / "found" / "trials.csv")
    assert trials["trial"].tolist() == [0, 1]
    assert b"SQLite" in read(URL("s3://bucket/found/trials.db"))[:10]
    assert {"verdict.json", "runs/final/bundle/model.json", "report.html"} <= set(listing(URL("s3://bucket/found")))


def test_what_is_written_once_goes_to_a_url_or_a_file_url(cli: Cli, store: Path, gel_run: Path, tmp_path: Path) -> None:
    shutil.copytree(gel_run, store / "run")
    image = next((store / "gels").rglob("*.png")).relative_to(store).as_posix()
    for command, made in (
        (("explain", "s3://bucket/run", f"s3://bucket/{image}", "--out", "s3://bucket/explained"), "explained/overview.html"),
        (("export", "s3://bucket/run", "--format", "onnx", "--out", "s3://bucket/exported/model.onnx"), "exported/model.onnx"),
        (("predict", "s3://bucket/run", f"s3://bucket/{image}", "--out", "s3://bucket/predicted"), "predicted/predictions.csv"),
    ):
        told = cli(*command)
        assert told.status == 0, (command, told.err)
        assert f"s3://bucket/{made}" in told.out
        assert ("sent to s3://bucket/" in told.out) == (command[0] != "export")
        assert (store / made).is_file()
    beyond = (tmp_path / "beyond").as_uri()
    assert cli("simulate", "charts", f"{beyond}/charts", "--images", 4).status == 0
    told = cli("predict", "s3://bucket/run", f"{beyond}/charts", "--out", f"{beyond}/table.csv")
    assert (told.status, "sent to" in told.out) == (0, False), told.err
    assert len((tmp_path / "beyond" / "table.csv").read_text().splitlines()) == 5
    web = cli("simulate", "charts", "https://host/charts")
    assert (web.status, "web servers are read, not written" in web.err) == (2, True)
