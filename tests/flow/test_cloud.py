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

    in_parts = ("predict", str(run / "bundle"), f"{bucket.url}/images", "--part-rows", 25, "--out", "s3://bucket/parts", *far)
    told = cli(*in_parts)
    assert told.status == 0, told.err
    parts = [f"part-00000{number}.parquet" for number in range(3)]
    assert sorted(listing(URL("s3://bucket/parts"))) == [*parts, "plan.json", "predictions.json"]
    assert json.loads(read(URL("s3://bucket/parts/predictions.json"))) == {"rows": 60, "unreadable": 0, "parts": 3}
    assert cli(*in_parts).status == 1
    told = cli(*in_parts, "--resume")
    assert (told.status, "(0 of 3 parts made now)" in told.out) == (0, True), told.err

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


LARGE = ("-s", "pixels.height=96", "-s", "pixels.width=96")
SMALL = ("-s", "cache.limit=500000", "-s", "memory.limit=2000000", "-s", "memory.window=24")
"""Of 60 images of 9,216 bytes with 1,600 for what is known of each, 16 stay."""


def test_shards_train_judge_and_predict_from_a_bucket(cli: Cli, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVERSLIP_CACHE", str(tmp_path / "cache"))
    shards, data = "s3://bucket/shards", ("-s", "data.image=images/{Id}.png", "-s", "data.labels=kind", "-s", "split.preset=part")
    told = cli("shard", f"{bucket.url}/train.csv", shards, *data, "--size", 60_000, "--no-shuffle")
    assert told.status == 0, told.err
    assert "shards were written and read back; the others were there" in told.err
    told = cli("shard", f"{bucket.url}/train.csv", shards, *data, "--size", 60_000, "--no-shuffle")
    assert told.err.startswith("0 of"), told.err

    numbers = {}
    for name, where, extra in (("local", bucket.local / "train.csv", BY_PATTERN), ("whole", shards, ()), ("streamed", shards, SMALL)):
        told = cli("train", where, "--recipe", "quick", *TINY, *LARGE, *extra, "--out", tmp_path / name)
        assert told.status == 0, told.err
        numbers[name] = json.loads((tmp_path / name / "metrics.json").read_text())["test"]
        assert ("16 of 60 images fit into cache.limit" in told.err) == (name == "streamed")
    assert numbers["whole"] == numbers["local"]
    assert numbers["streamed"]["n"] == numbers["local"]["n"]

    told = cli("evaluate", tmp_path / "whole", shards, "--out", tmp_path / "judged")
    assert told.status == 0, told.err
    assert "images are among those that the model learned from" in told.err
    for where, out in ((shards, "shards.csv"), (bucket.local / "images", "local.csv")):
        assert cli("predict", tmp_path / "whole", where, "--out", tmp_path / out).status == 0
    scores = [sorted(line.split(",", 1)[1] for line in (tmp_path / out).read_text().splitlines()) for out in ("shards.csv", "local.csv")]
    assert scores[0] == scores[1]


def test_images_streamed_from_a_bucket_give_the_numbers_of_local_ones_also_after_a_break(
    cli: Cli, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with object_server(bucket.local.parent) as (address, _):
        monkeypatch.setenv(ENDPOINT, address)
        hold_streamed_against_local(cli, bucket.local / "train.csv", f"s3://{bucket.local.name}/train.csv", tmp_path, monkeypatch)


def hold_streamed_against_local(cli: Cli, near: Path, far: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from coverslip.data.store import Pixels
    from coverslip.data.streaming import StreamedArray
    from coverslip.training import loop

    monkeypatch.setenv("COVERSLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "SHORT_EPOCH_SECONDS", 0.0)
    seen: list[list[int]] = []
    read, learn, left = Pixels.read, loop.Learner._learn, [10**9]

    def noted(self: Pixels, rows: object) -> object:
        assert isinstance(self.array, StreamedArray) == streamed
        seen.append(rows.tolist())  # type: ignore[attr-defined]
        return read(self, rows)  # type: ignore[arg-type]

    def broken(self: loop.Learner, *arguments: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        learn(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loop.Learner, "_learn", broken)
    monkeypatch.setattr(Pixels, "read", noted)
    train = ("--recipe", "quick", *TINY, *LARGE, *BY_PATTERN, "-s", "training.epochs=2")
    streamed = False
    assert cli("train", near, *train, "--out", tmp_path / "local").status == 0
    local, seen[:] = seen.copy(), []
    streamed = True
    assert cli("train", far, *train, *SMALL, "--out", tmp_path / "streamed").status == 0
    assert seen == local
    seen.clear()
    steps = 2 + 6  # the trial, and one and a half epochs
    left[0] = steps
    assert cli("train", far, *train, *SMALL, "--out", tmp_path / "broken").status == 130
    left[0], before = 10**9, len(seen)
    assert cli("train", far, *train, *SMALL, "--out", tmp_path / "broken", "--resume").status == 0
    assert seen[before + 1 :] == local[before - 1 :]  # but for the trial, what the unbroken run read from there on
    metrics = [json.loads((tmp_path / name / "metrics.json").read_text())["test"] for name in ("local", "streamed", "broken")]
    assert metrics[0] == metrics[1] == metrics[2]
