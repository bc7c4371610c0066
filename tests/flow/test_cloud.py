"""Training, judging and predicting with everything in an object store: a real S3 server, and one that misbehaves."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from coverslip.experiment import run
from coverslip.runtime import to_json
from coverslip.serve.models import name_bundles
from coverslip.start import begin
from coverslip.storage import ENDPOINT, PATIENCE, TIMEOUT, URL, listing, read, upload_folder
from flow.conftest import TINY, Cli, kill_at
from object_server import object_server
from servers import moto_server

BY_PATTERN = ("-s", "data.image=images/{Id}.png", "-s", "data.labels=kind", "-s", "split.preset=part")
LARGE = ("-s", "pixels.height=96", "-s", "pixels.width=96")
SMALL = ("-s", "cache.limit=500000", "-s", "memory.limit=2000000", "-s", "memory.window=24")
"""Of 60 images of 9,216 bytes with 1,600 for what is known of each, 16 stay."""


@dataclass(frozen=True)
class Bucket:
    """Charts as a table beside its images, in a folder and under a URL, the store's address, and the numbers of a local run."""

    local: Path
    url: str
    endpoint: str
    numbers: dict[str, Any]


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv(ENDPOINT, os.environ.get(ENDPOINT, ""))  # what --endpoint changes is as before after each test


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
    place = tmp_path_factory.mktemp("charts")
    local = write_chart_table(charts, place / "table")
    settings = [text for text in (*TINY, *LARGE, *BY_PATTERN) if text != "-s"]
    start = begin(str(local / "train.csv"), recipe="quick", settings=settings, out=place / "run", resume=False)
    numbers = run(start.config, start.folder, recipe="quick", pictures=False).metrics["test"]
    with moto_server() as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv(ENDPOINT, endpoint)
        upload_folder(local, URL("s3://bucket/charts"))
        yield Bucket(local, "s3://bucket/charts", endpoint, json.loads(json.dumps(to_json(numbers))))


def test_train_judge_and_predict_in_a_bucket_give_the_numbers_of_a_folder(
    cli: Cli, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:1")  # which the option replaces
    far = ("--endpoint", bucket.endpoint)
    told = cli("train", f"{bucket.url}/train.csv", "--recipe", "quick", *TINY, *LARGE, *BY_PATTERN, "--out", "s3://bucket/runs/one", *far)
    assert told.status == 0, told.err
    assert "sent to s3://bucket/runs/one" in told.out
    monkeypatch.setenv(ENDPOINT, bucket.endpoint)
    there = URL("s3://bucket/runs/one")
    assert {"metrics.json", "report.html", "bundle/model.json", "config.toml"} <= set(listing(there))
    assert json.loads(read(there / "metrics.json"))["test"] == bucket.numbers
    assert 'path = "s3://bucket/charts/train.csv"' in read(there / "config.toml").decode()

    told = cli("evaluate", str(there), f"{bucket.url}/train.csv", "--out", "s3://bucket/judged", *far)
    assert told.status == 0, told.err
    assert "metrics.json" in listing(URL("s3://bucket/judged"))

    table = "s3://bucket/predictions/table.csv"
    for _ in range(2):  # a table may be replaced
        told = cli("predict", str(there / "bundle"), f"{bucket.url}/images", "--out", table, *far)
        assert told.status == 0, told.err
    assert len(read(URL(table)).decode().splitlines()) == 1 + len(list((bucket.local / "images").iterdir()))

    in_parts = ("predict", str(there / "bundle"), f"{bucket.url}/images", "--part-rows", 25, "--out", "s3://bucket/parts", *far)
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
        assert cli("predict", gel_run, image, "--out", tmp_path / "here.csv").status == 0
        here, there = (pd.read_csv(tmp_path / name, keep_default_na=False).drop(columns="image") for name in ("here.csv", "web.csv"))
        pd.testing.assert_frame_equal(here, there)  # doubt of what is unlike the training images included
        assert there["uncertain"].notna().all()
        assert list(name_bundles([f"{address}/web/bundle", f"other={gel_run}"])) == ["web", "other"]
        told = cli("train", f"{address}/web/nothing")
        assert (told.status, f"there is nothing at {address}/web/nothing" in told.err) == (2, True)


def test_evaluate_reads_each_image_once(cli: Cli, gel_run: Path, gels: Path, tmp_path: Path) -> None:
    with object_server(tmp_path) as (address, store):
        shutil.copytree(gels, tmp_path / "bucket" / "gels")
        told = cli("evaluate", gel_run, "s3://bucket/gels", "--out", tmp_path / "judged", "--endpoint", address)
        assert told.status == 0, told.err
        shown = {entry["image"] for entry in json.loads((tmp_path / "judged" / "pictures" / "index.json").read_text())}
        read_once = [path.removeprefix("bucket/gels/") for (method, path), count in store.counts.items() if method == "GET" and count == 1]
    images = {path.relative_to(gels).as_posix() for path in gels.rglob("*.png")}
    assert len(images - shown) >= 10
    assert images - shown <= set(read_once)
    assert "WARNING: 28 of 40 images" in told.err  # known by what was read then


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


def test_shards_train_judge_and_predict_from_a_bucket(cli: Cli, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVERSLIP_CACHE", str(tmp_path / "cache"))
    shards, data = "s3://bucket/shards", ("-s", "data.image=images/{Id}.png", "-s", "data.labels=kind", "-s", "split.preset=part")
    told = cli("shard", f"{bucket.url}/train.csv", shards, *data, "--size", 60_000, "--no-shuffle")
    assert told.status == 0, told.err
    assert "shards were written and read back; the others were there" in told.err
    told = cli("shard", f"{bucket.url}/train.csv", shards, *data, "--size", 60_000, "--no-shuffle")
    assert told.err.startswith("0 of"), told.err

    numbers = {}
    for name, where, extra in (("whole", shards, ()), ("streamed", shards, SMALL)):
        told = cli("train", where, "--recipe", "quick", *TINY, *LARGE, *extra, "--out", tmp_path / name)
        assert told.status == 0, told.err
        numbers[name] = json.loads((tmp_path / name / "metrics.json").read_text())["test"]
        assert ("16 of 60 images fit into cache.limit" in told.err) == (name == "streamed")
    assert numbers["whole"] == bucket.numbers
    assert numbers["streamed"]["n"] == bucket.numbers["n"]

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
        hold_broken_against_unbroken(cli, f"s3://{bucket.local.name}/train.csv", bucket.numbers, tmp_path, monkeypatch)


def hold_broken_against_unbroken(cli: Cli, far: str, numbers: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from coverslip.data.store import Pixels
    from coverslip.data.streaming import StreamedArray
    from coverslip.training import loop

    monkeypatch.setenv("COVERSLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "SHORT_EPOCH_SECONDS", 0.0)
    seen: list[list[int]] = []
    read, learn, left = Pixels.read, loop.Learner._learn, [10**9]

    def noted(self: Pixels, rows: object) -> object:
        assert isinstance(self.array, StreamedArray)
        seen.append(rows.tolist())  # type: ignore[attr-defined]
        return read(self, rows)  # type: ignore[arg-type]

    def broken(self: loop.Learner, *arguments: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        learn(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loop.Learner, "_learn", broken)
    monkeypatch.setattr(Pixels, "read", noted)
    train = ("--recipe", "quick", *TINY, *LARGE, *BY_PATTERN)
    assert cli("train", far, *train, *SMALL, "--out", tmp_path / "streamed").status == 0
    unbroken, seen[:] = seen.copy(), []
    steps = 2 + 6  # the trial, and one and a half epochs
    left[0] = steps
    assert cli("train", far, *train, *SMALL, "--out", tmp_path / "broken").status == 130
    left[0], before = 10**9, len(seen)
    assert cli("train", far, *train, *SMALL, "--out", tmp_path / "broken", "--resume").status == 0
    assert seen[before + 1 :] == unbroken[before - 1 :]  # but for the trial, what the unbroken run read from there on
    metrics = [json.loads((tmp_path / name / "metrics.json").read_text())["test"] for name in ("streamed", "broken")]
    assert metrics[0] == metrics[1] == numbers


def train_apart(place: Path, data: str, address: str, settings: list[str]) -> dict[str, Any]:
    """Train in a process of its own; what it took."""
    environment = {**os.environ, ENDPOINT: address, "COVERSLIP_CACHE": str(place / "cache")}
    command = [sys.executable, str(Path(__file__).parents[1] / "bounded_training.py"), data, str(place / "run"), *settings]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    told: dict[str, Any] = json.loads(ended.stdout)
    return told


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak of memory from a moment on")
def test_disk_and_memory_stay_within_their_limits_on_ten_times_as_much_data(tmp_path: Path) -> None:
    images, memory = 1250, 125_000_000
    cache = images * 128 * 128 // 10
    (tmp_path / "store" / "bucket").mkdir(parents=True)
    random = np.random.default_rng(0)
    rows = ["image,label,part"]
    for number in range(images):
        brightness = 180 + 70 * (number % 2)
        cells = random.integers(0, brightness, (100, 100), dtype=np.uint8).repeat(10, axis=0).repeat(10, axis=1)
        Image.fromarray(cells).save(tmp_path / "store" / "bucket" / f"{number}.png", compress_level=1)
        part = {3: "validation", 8: "test", 14: "test", 19: "validation"}.get(number % 20, "train")
        rows.append(f"{number}.png,{'ab'[number % 2]},{part}")
    assert images * cells.size >= 10 * memory
    (tmp_path / "store" / "bucket" / "table.csv").write_text("\n".join(rows) + "\n")
    settings = [
        *(text for text in TINY if text != "-s"), "pixels.height=128", "pixels.width=128", "pixels.trim=none", "split.preset=part",
        "training.steps=25", f"cache.limit={cache}", f"memory.limit={memory}",
    ]  # fmt: skip
    with object_server(tmp_path / "store") as (address, server):
        told = train_apart(tmp_path, "s3://bucket/table.csv", address, settings)
        streamed = sum(path.endswith(".png") for _, path in server.requests)
    assert told["accuracy"] > 0.9
    assert streamed > images + 25 * 8  # the first pass, and every step again
    assert any("images fit into cache.limit" in note for note in told["notes"])
    assert 0 < told["disk"] <= cache
    assert 0 < told["peak"] - told["after_model"] <= memory, told


def test_fifty_epochs_take_no_more_memory_than_ten(tmp_path: Path) -> None:
    (tmp_path / "store" / "bucket").mkdir(parents=True)
    random = np.random.default_rng(0)
    rows = ["image,label"]
    for number in range(80):
        pixels = random.integers(0, 180 + 70 * (number % 2), (96, 96), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "store" / "bucket" / f"{number}.png")
        rows.append(f"{number}.png,{'ab'[number % 2]}")
    (tmp_path / "store" / "bucket" / "table.csv").write_text("\n".join(rows) + "\n")
    settings = [*(text for text in TINY if text != "-s"), "pixels.height=96", "pixels.width=96", "pixels.trim=none", "training.epochs=50"]
    with object_server(tmp_path / "store") as (address, _):
        told = train_apart(tmp_path, "s3://bucket/table.csv", address, [*settings, "cache.limit=700000", "memory.limit=2000000"])
    assert any("images fit into cache.limit" in note for note in told["notes"])
    memory = np.array(told["steps"]).reshape(50, -1).max(axis=1)
    assert memory[40:].max() - memory[10:20].max() < 4_000_000, memory.tolist()


KILLED = ("s3://bucket/train.csv", "-s", "data.image=images/{Id}.png", "-s", "data.labels=kind", "-s", "split.preset=part")


def test_what_is_killed_goes_on_and_nothing_is_lost_or_doubled(
    cli: Cli, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(bucket.local, tmp_path / "store" / "bucket")
    cache = tmp_path / "cache"
    monkeypatch.setenv("COVERSLIP_CACHE", str(cache))
    with object_server(tmp_path / "store") as (address, store):
        monkeypatch.setenv(ENDPOINT, address)
        shard = ["shard", *KILLED, "--size", "60000", "--workers", "1"]
        assert cli(*shard[:2], tmp_path / "whole", *shard[2:]).status == 0
        kill_at("shard-00002.tar", 1, [*shard[:2], "s3://bucket/shards", *shard[2:]], store, cache)
        assert not (tmp_path / "store" / "bucket" / "shards" / "index.json").exists()
        assert cli(*shard[:2], "s3://bucket/shards", *shard[2:]).status == 0
        names = sorted(path.name for path in (tmp_path / "whole").iterdir())
        assert sorted(path.name for path in (tmp_path / "store" / "bucket" / "shards").iterdir()) == names
        for name in names:
            assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "store" / "bucket" / "shards" / name).read_bytes()

        train = ["train", *KILLED, "--recipe", "quick", *TINY, *SMALL, *LARGE]
        kill_at("images/59.png", 2, [*train, "--out", str(tmp_path / "run")], store, cache)  # after the glance, while the cache is written
        assert list((cache / "pixels").glob(".building-*"))
        assert cli(*train, "--out", tmp_path / "run", "--resume").status == 0
        assert not list((cache / "pixels").glob(".building-*"))
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test"] == bucket.numbers
