"""`coverslip serve`, asked as clients ask it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import coverslip
from servers import Server

from .conftest import Cli, images_of


def test_the_server_says_what_predict_says(server: Server, gel_run: Path, gels: Path) -> None:
    files = images_of(gels)
    answer = server.send("/predict?model=gel", files)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    table = coverslip.load(gel_run).predict(files)
    assert len(body["predictions"]) == len(files) == 40
    for found, (_, row) in zip(body["predictions"], table.iterrows(), strict=True):
        assert found["decision"] == [row["predicted"]]
        assert found["probabilities"] == {name: pytest.approx(row[f"p_{name}"], abs=1e-3) for name in ("gel", "not_gel")}
        assert found["error"] is None
        assert found["uncertain"] == row["uncertain"]
    assert [one["image"] for one in body["predictions"]] == [file.name for file in files]
    assert body["model"] == "gel"
    assert 0 < body["timing"]["work"] < 60


def test_a_sample_is_one_part_a_channel_in_any_order(server: Server, cell_run: Path, cells: Path, tmp_path: Path) -> None:
    names = sorted({path.name.rpartition("_")[0] for path in images_of(cells)})[:3]
    table = coverslip.load(cell_run).predict([cells / "images" / f"{name}_red.png" for name in names])
    parts = [cells / "images" / f"{name}_{colour}.png" for colour in ("yellow", "red", "blue", "green") for name in names]
    answer = server.send("/predict?model=cells&thumbnails=true", parts).json()
    assert [one["image"] for one in answer["predictions"]] == names
    for found, (_, row) in zip(answer["predictions"], table.iterrows(), strict=True):
        assert "|".join(found["decision"]) == row["predicted"]
        assert len(found["probabilities"]) == 12
        for label, value in found["probabilities"].items():
            assert value == pytest.approx(row[f"p_{label}"], abs=1e-3)
        assert found["thumbnail"].startswith("data:image/jpeg;base64,")
    planes = [np.asarray(Image.open(cells / "images" / f"{names[0]}_{colour}.png")) for colour in ("red", "green", "blue", "yellow")]
    tifffile.imwrite(tmp_path / "one.tif", np.stack(planes), photometric="minisblack", metadata={"axes": "CYX"})
    whole = server.send("/predict?model=cells", [tmp_path / "one.tif"]).json()["predictions"][0]
    assert whole["probabilities"] == pytest.approx(answer["predictions"][0]["probabilities"], abs=1e-6)  # in another batch


def test_a_channel_that_is_missing_is_named(server: Server, cells: Path) -> None:
    first = next(path for path in images_of(cells) if path.name.endswith("_red.png"))
    answer = server.send("/predict?model=cells", [first])
    assert answer.status_code == 422
    assert "no file for the channels green, blue, yellow" in answer.json()["detail"]


def test_an_image_that_cannot_be_read_stops_no_other(server: Server, gels: Path) -> None:
    good, *_ = images_of(gels)
    answer = server.send("/predict?model=gel", [("letter.png", b"Dear reader"), good, ("cut.png", good.read_bytes()[:300])])
    assert answer.status_code == 200
    errors = [one["error"] for one in answer.json()["predictions"]]
    assert errors[0].startswith("not an image")
    assert errors[1] is None
    assert "truncated" in errors[2]
    alone = server.send("/predict?model=gel", [("letter.png", b"Dear reader")])
    assert alone.status_code == 422
    assert alone.json()["problems"] == [{"image": "letter.png", "reason": errors[0]}]


def test_the_facts_of_the_models(server: Server, gel_run: Path) -> None:
    assert server.get("/models").json() == {"models": ["gel", "cells"]}
    gel, cell = server.get("/model?model=gel").json(), server.get("/model?model=cells").json()
    assert gel["thresholds"] == {"rule": "second_class", "values": {"not_gel": 0.5}, "at_least_one": False}
    assert gel["card"] == (gel_run / "bundle" / "README.md").read_text()
    assert cell["files"] == ["red", "green", "blue", "yellow"]
    assert set(cell["thresholds"]["values"]) == set(cell["classes"])
    assert str(gel_run.parent) not in json.dumps([gel, cell])


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/predict", 422, "several models are served; say which: ?model= gel or cells"),
        ("/predict?model=gels", 404, "Did you mean 'gel'?"),
        ("/predict?model=gel&thumbnails=perhaps", 422, "thumbnails: Input should be a valid boolean"),
        ("/explain?model=gel&label=gle", 422, "no class 'gle'; the model knows: gel, not_gel"),
        ("/nowhere", 404, "Not Found"),
    ],
)
def test_wrong_requests_are_told_what_is_wrong(server: Server, gels: Path, path: str, status: int, said: str) -> None:
    answer = server.send(path, images_of(gels)[:1])
    assert answer.status_code == status
    assert said in answer.json()["detail"]


def test_what_is_counted(server: Server, gels: Path) -> None:
    def count(line: str) -> float:
        lines = server.get("/metrics").text.splitlines()
        return next((float(found.split()[-1]) for found in lines if found.startswith(line)), 0.0)

    images, requests_ = 'coverslip_images_total{model="gel",outcome="scored"}', 'coverslip_requests_total{path="/predict",status="200"}'
    before = count(images), count(requests_), count("coverslip_batch_images_sum")
    assert server.send("/predict?model=gel", images_of(gels)[:7]).status_code == 200
    after = count(images), count(requests_), count("coverslip_batch_images_sum")
    assert tuple(now - then for now, then in zip(after, before, strict=True)) == (7, 1, 7)
    assert count("coverslip_ready") == 1
    assert count("coverslip_queue_images") == count("coverslip_upload_bytes") == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--host", "0.0.0.0"), "lets others reach the server: give a token"),
        (("--token", "short"), "at least 8"),
        (("--images", "9", "--queue", "8"), "the queue holds 8 images, but one request may bring 9"),
        (("--seconds", "0"), "expected more than 0"),
        (("--host", "no.such.host.invalid", "--token", "long-enough"), "cannot listen at no.such.host.invalid:8000"),
    ],
)
def test_a_server_that_cannot_be_does_not_start(cli: Cli, gel_run: Path, arguments: tuple[str, ...], said: str) -> None:
    done = cli("serve", gel_run, *arguments)
    assert done.status == 2
    assert said in done.err


def test_bundles_are_named_apart(cli: Cli, gel_run: Path, tmp_path: Path) -> None:
    twice = cli("serve", gel_run, gel_run / "bundle")
    assert twice.status == 2
    assert "two models are called 'gels'" in twice.err
    assert "neither a bundle" in cli("serve", tmp_path).err
    assert "expected NAME=BUNDLE" in cli("serve", f"={gel_run}").err
