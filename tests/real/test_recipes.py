"""Every recipe on the real images that it was made for, shortened; the full-length figures are in benchmarks/results."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from coverslip.experiment import run
from coverslip.explain import Explainer
from coverslip.export import export_bundle
from coverslip.predict import Model
from coverslip.report import write_report
from coverslip.start import begin
from coverslip.structures import RunResult
from coverslip.training.recipes import recipe_names
from servers import coverslip_server

SHORT = ("training.minutes=0.5", "intervals.resamples=200")
CELLS = (*SHORT, "model.backbone=mobilenetv2_100", "pixels.height=128", "pixels.width=128")
RECIPES = {
    "blood": ("blood/labels.csv", (*SHORT, "training.minutes=1", "split.folds=2", "pixels.height=192", "pixels.width=256")),
    "charts": ("charts", (*SHORT, "split.folds=2", "pixels.height=250", "pixels.width=375")),
    "charts-alexnet": ("charts", (*SHORT, "training.steps=2")),
    "gel-probe": ("gel", SHORT),
    "hpa-10-transfer": ("cells/train.csv", CELLS),
    "hpa-28": ("cells/train.csv", (*CELLS, "split.group=Field")),
    "hpa-large": ("cells/train.csv", (*CELLS, "split.group=Field")),
    "hpa-small": ("cells/train.csv", (*SHORT, "split.group=Field")),
    "nuclei-finetune": ("nuclei", SHORT),
    "quick": ("gel", (*SHORT, "pixels.colour=grey")),
}
TOO_FEW_TO_LEARN = ("hpa-10-transfer", "hpa-28", "hpa-large", "hpa-small")
EXPORTED = ("blood", "charts", "gel-probe", "hpa-28", "nuclei-finetune")
LEAST = {"blood": 0.6, "charts": 0.5, "charts-alexnet": 0.3, "gel-probe": 0.95, "nuclei-finetune": 0.3, "quick": 0.5}


def test_every_recipe_is_tested() -> None:
    assert sorted(RECIPES) == recipe_names()
    assert len(RECIPES) == 10
    assert {*LEAST, *TOO_FEW_TO_LEARN} == set(RECIPES)
    assert len(EXPORTED) == 5
    assert set(EXPORTED) < set(RECIPES)


Trained = Callable[[str], RunResult]


@pytest.fixture(scope="module")
def trained(data_folder: Path, weights_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The run of a recipe, made once."""
    assert os.environ["COVERSLIP_WEIGHTS"]

    @cache
    def make(recipe: str) -> RunResult:
        folder, settings = RECIPES[recipe]
        out = tmp_path_factory.mktemp("runs") / recipe
        start = begin(str(data_folder / folder), recipe=recipe, settings=(*settings, "data.on_leak=warn"), out=out, resume=False)
        return run(start.config, start.folder, recipe=recipe)

    return make


def some_samples(result: RunResult, root: Path) -> list[Path]:
    """Five images of a run, named as `predict` takes them."""
    names = pd.read_csv(result.folder / "split.csv")["image"]
    return [root / image for image in names.iloc[:: max(1, len(names) // 5)][:5]]


def images_of(folder: str, data_folder: Path) -> Path:
    """Where the images of a data set lie."""
    return data_folder / folder.removesuffix("labels.csv").replace("train.csv", "images")


ONE_WORKER = pytest.mark.xdist_group("exported")
"""Tests that share runs: in parallel, one worker takes them all, and trains each recipe once."""


@pytest.mark.parametrize("recipe", [pytest.param(name, marks=[ONE_WORKER] if name in EXPORTED else []) for name in sorted(RECIPES)])
def test_recipe_runs_to_a_report(recipe: str, trained: Trained, data_folder: Path, tmp_path: Path) -> None:
    result, folder = trained(recipe), RECIPES[recipe][0]
    part = result.metrics.get("test") or result.metrics["folds"]
    number = part["macro_roc_auc" if result.metrics["task"] == "multilabel" else "accuracy"]
    if recipe not in TOO_FEW_TO_LEARN:
        assert number["value"] >= LEAST[recipe]
        assert number["low"] <= number["value"] <= number["high"]
    assert write_report(result.folder).stat().st_size > 50_000
    model, some = Model(result.folder), some_samples(result, images_of(folder, data_folder))
    predicted = model.predict(some)
    labels = predicted["predicted"].str.split("|").explode()
    assert labels[labels != ""].isin(json.loads((result.bundle / "model.json").read_text())["classes"]).all()
    assert (predicted["error"] == "").all()
    assert predicted["uncertain"].isin(["no", "score", "unlike", "score|unlike"]).all()
    why = Explainer(model).explain(some[0], check="quick")
    assert np.isfinite(why.map).all()
    assert why.method == "gradcam" or recipe in TOO_FEW_TO_LEARN  # a label that was never seen has an answer that no map reaches
    assert len(why.neighbours) == 6
    assert set(why.channels) == {channel.name for channel in model.bundle.reading.channels}
    explained = [entry for entry in json.loads((result.folder / "pictures" / "index.json").read_text()) if "explained" in entry["kind"]]
    assert 1 <= len(explained) <= 8
    if recipe in EXPORTED:
        check_exports(result, some, tmp_path)


def check_exports(result: RunResult, images: list[Path], place: Path) -> None:
    """Other engines, and a file for other programs, give what torch gives on real images."""
    exported = export_bundle(result.folder, "onnx", place / "model.onnx", check=images)
    assert exported.parity.images > len(images)  # those of the bundle, too
    expected = Model(result.folder, device="cpu", runtime="torch").predict(images)
    scores = [column for column in expected.columns if column.startswith("p_")]
    for runtime in ("onnx", "openvino"):
        found = Model(result.folder, device="cpu", runtime=runtime).predict(images)
        assert list(found["predicted"]) == list(expected["predicted"])
        assert np.abs(found[scores] - expected[scores]).to_numpy().max() <= 1e-3


@ONE_WORKER
def test_the_bundles_are_served_together(trained: Trained, data_folder: Path) -> None:
    """What `predict` says, over HTTP, on real images; and where the model looked."""
    results = {recipe: trained(recipe) for recipe in EXPORTED}
    served = 0
    with coverslip_server(*(f"{recipe}={result.folder}" for recipe, result in results.items())) as server:
        for recipe, result in results.items():
            model, some = (
                Model(result.folder, device="cpu", runtime="torch"),
                some_samples(result, images_of(RECIPES[recipe][0], data_folder)),
            )
            files = [file for image in some for file in model.list_samples([image])[0][0]]
            answer = server.send(f"/predict?model={recipe}", [(file.name, file.read_bytes()) for file in files])
            assert answer.status_code == 200, answer.text
            expected, found = model.predict(some), answer.json()["predictions"]
            assert len(found) == len(expected) == 5
            for one, (_, row) in zip(found, expected.iterrows(), strict=True):
                assert "|".join(one["decision"]) == row["predicted"]
                assert one["uncertain"] == row["uncertain"]
                assert all(abs(value - row[f"p_{name}"]) <= 1e-3 for name, value in one["probabilities"].items())
            sample = model.list_samples([some[0]])[0][0]
            shown = server.send(f"/explain?model={recipe}", [(file.name, file.read_bytes()) for file in sample])
            assert shown.json()["overlay"].startswith("data:image/png;base64,")
            served += 1
    assert served == 5


def test_gel_in_full(data_folder: Path, weights_folder: Path, tmp_path: Path) -> None:
    start = begin(str(data_folder / "gel"), recipe="gel-probe", settings=(), out=tmp_path / "run", resume=False)
    metrics = run(start.config, start.folder, recipe="gel-probe").metrics
    assert metrics["folds"]["accuracy"]["value"] >= 0.97
    assert len(metrics["folds"]["each"]) == 25
