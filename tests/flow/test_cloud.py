"""Training, judging and predicting with everything in an object store: a real S3 server, and one that misbehaves."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from coverslip.storage import ENDPOINT, PATIENCE, TIMEOUT, URL, listing, read, upload_folder
from flow.conftest import TINY, Cli
from object_server import object_server
from servers import moto_server


@dataclass(frozen=True)
class Bucket:
    """Charts as a table beside its images, in a folder and under a URL, and the store's address."""

    local: Path
    url: str
    endpoint: str


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


def write_chart_table(charts: Path, folder: Path) -> Path:
    """The charts as `images/<number>.png` and a table `train.csv` with the columns Id, kind and part."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for number, file in enumerate(sorted(charts.rglob("*.png"))):
        shutil.copy(file, folder / "images" / f"{number}.png")
        rows.append((number, file.parent.name, ("train", "train", "train", "validation", "test")[number % 5]))
    with (folder / "train.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("Id", "kind", "part"), *rows])
    return folder


@pytest.fixture(scope="module")
def bucket(charts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    local = write_chart_table(charts, tmp_path_factory.mktemp("charts") / "table")
    with moto_server() as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv(ENDPOINT, endpoint)
        upload_folder(local, URL("s3://bucket/charts"))
        yield Bucket(local, "s3://bucket/charts", endpoint)


BY_PATTERN = ("-s", "data.image=images/{Id}.png", "-s", "data.labels=kind", "-s", "split.preset=part")


def test_train_judge_and_predict_in_a_bucket_give_the_numbers_of_a_folder(
    cli: Cli, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENDPOINT)
    told = cli("train", bucket.local / "train.csv", "--recipe", "quick", *TINY, *BY_PATTERN, "--out", tmp_path / "local")
    assert told.status == 0, told.err
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:1")  # which the option replaces
    far = ("--endpoint", bucket.endpoint)
    told = cli("train", f"{bucket.url}/train.csv", "--recipe", "quick", *TINY, *BY_PATTERN, "--out", "s3://bucket/runs/one", *far)
    assert told.status == 0, told.err
    assert "sent to s3://bucket/runs/one" in told.out
    run = URL("s3://bucket/runs/one")
    assert {"metrics.json", "report.html", "bundle/model.json", "config.toml"} <= set(listing(run))
    local, far_away = json.loads((tmp_path / "local" / "metrics.json").read_text()), json.loads(read(run / "metrics.json"))
    assert far_away["test"] == local["test"]
    assert 'path = "s3://bucket/charts/train.csv"' in read(run / "config.toml").decode()

    told = cli("evaluate", str(run), f"{bucket.url}/train.csv", "--out", "s3://bucket/judged", *far)
    assert told.status == 0, told.err
    assert "metrics.json" in listing(URL("s3://bucket/judged"))

    table = "s3://bucket/predictions/table.csv"
    for _ in range(2):  # a table may be replaced
        told = cli("predict", str(run / "bundle"), f"{bucket.url}/images", "--out", table, *far)
        assert told.status == 0, told.err
    assert len(read(URL(table)).decode().splitlines()) == 1 + len(list((bucket.local / "images").iterdir()))

    told = cli("train", f"{bucket.url}/train.csv", "--out", "s3://bucket/runs/one", *far)
    assert (told.status, "there is something at s3://bucket/runs/one already" in told.err) == (1, True)
    told = cli("train", f"{bucket.url}/train.csv", "--out", "s3://bucket/runs/one", "--resume", *far)
    assert told.status == 0, told.err


def test_a_folder_of_class_folders_and_a_web_server(cli: Cli, charts: Path, gel_run: Path, gels: Path, tmp_path: Path) -> None:
    with object_server(tmp_path) as (address, _):
        shutil.copytree(charts, tmp_path / "bucket" / "charts")
        shutil.copytree(gel_run / "bundle", tmp_path / "web" / "bundle")
        image = next(gels.rglob("*.png"))
        shutil.copy(image, tmp_path / "web" / "one.png")
        told = cli("audit", "s3://bucket/charts", "--json", "--endpoint", address)
        assert json.loads(told.out)["counts"] == json.loads(cli("audit", charts, "--json").out)["counts"], told.err
        told = cli("predict", f"{address}/web/bundle", f"{address}/web/one.png", "--out", tmp_path / "web.csv")
        assert told.status == 0, told.err
        assert (tmp_path / "web.csv").read_text().splitlines()[1].startswith(f"{address}/web/one.png")
        told = cli("train", f"{address}/web/nothing")
        assert (told.status, f"there is nothing at {address}/web/nothing" in told.err) == (2, True)


def test_a_store_that_fails_in_the_middle_is_an_error_that_names_the_object(
    cli: Cli, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TIMEOUT, "0.5")
    monkeypatch.setenv(PATIENCE, "1")
    shutil.copytree(bucket.local, tmp_path / "bucket")
    with object_server(tmp_path, lambda method, path, before: "503" if path.endswith("/17.png") else "") as (address, _):
        told = cli(
            "train", "s3://bucket/train.csv", "--recipe", "quick", *TINY, *BY_PATTERN, "-s", "data.on_bad_image=skip",
            "--endpoint", address, "--out", tmp_path / "run",
        )  # fmt: skip
    assert told.status == 2
    assert "s3://bucket/images/17.png cannot be read" in told.err
    assert "503" in told.err
