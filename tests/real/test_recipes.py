"""Every recipe on the real images that it was made for, shortened; the full-length figures are in benchmarks/results."""

from __future__ import annotations

import json
import os
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

SHORT = ("training.minutes=0.5", "intervals.resamples=200")
CELLS = (*SHORT, "model.backbone=mobilenetv2_100", "pixels.height=128", "pixels.width=128")
RECIPES = {
    "blood": ("blood/labels.csv", SHORT),
    "charts": ("charts", SHORT),
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
LEAST = {"blood": 0.45, "charts": 0.5, "charts-alexnet": 0.3, "gel-probe": 0.95, "nuclei-finetune": 0.3, "quick": 0.5}


def test_every_recipe_is_tested() -> None:
    assert sorted(RECIPES) == recipe_names()
    assert len(RECIPES) == 10
    assert {*LEAST, *TOO_FEW_TO_LEARN} == set(RECIPES)
    assert len(EXPORTED) == 5
    assert set(EXPORTED) < set(RECIPES)


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_recipe_runs_to_a_report(recipe: str, data_folder: Path, weights_folder: Path, tmp_path: Path) -> None:
    assert os.environ["COVERSLIP_WEIGHTS"]
    folder, settings = RECIPES[recipe]
    leak = ("data.on_leak=warn",)
    start = begin(str(data_folder / folder), recipe=recipe, settings=(*settings, *leak), out=tmp_path / "run", resume=False)
    result = run(start.config, start.folder, recipe=recipe)
    part = result.metrics.get("test") or result.metrics["folds"]
    number = part["macro_f1" if result.metrics["task"] == "multilabel" else "accuracy"]
    if recipe not in TOO_FEW_TO_LEARN:
        assert number["value"] >= LEAST[recipe]
        assert number["low"] <= number["value"] <= number["high"]
    assert write_report(result.folder).stat().st_size > 50_000
    split = pd.read_csv(result.folder / "split.csv")
    some = split["image"].iloc[:: max(1, len(split) // 5)][:5]
    root = data_folder / folder.removesuffix("labels.csv").replace("train.csv", "images")
    model = Model(result.folder)
    predicted = model.predict([root / image for image in some])
    labels = predicted["predicted"].str.split("|").explode()
    assert labels[labels != ""].isin(json.loads((result.bundle / "model.json").read_text())["classes"]).all()
    assert (predicted["error"] == "").all()
    assert predicted["uncertain"].isin(["no", "score", "unlike", "score|unlike"]).all()
    why = Explainer(model).explain(root / some.iloc[0], check="quick")
    assert np.isfinite(why.map).all()
    assert why.method == "gradcam"
    assert len(why.neighbours) == 6
    assert len(why.channels) == (4 if folder.startswith("cells") else 0)
    explained = [entry for entry in json.loads((result.folder / "pictures" / "index.json").read_text()) if "explained" in entry["kind"]]
    assert 1 <= len(explained) <= 8
    if recipe in EXPORTED:
        check_exports(result, [root / image for image in some], tmp_path)


def check_exports(result: RunResult, images: list[Path], place: Path) -> None:
    """Other engines, and a file for other programs, give what torch gives on real images."""
    exported = export_bundle(result.folder, "onnx", place / "model.onnx", check=images)
    assert exported.parity.images >= len(images) + 2
    expected = Model(result.folder, device="cpu", runtime="torch").predict(images)
    scores = [column for column in expected.columns if column.startswith("p_")]
    for runtime in ("onnx", "openvino"):
        found = Model(result.folder, device="cpu", runtime=runtime).predict(images)
        assert list(found["predicted"]) == list(expected["predicted"])
        assert np.abs(found[scores] - expected[scores]).to_numpy().max() <= 1e-3


def test_gel_in_full(data_folder: Path, weights_folder: Path, tmp_path: Path) -> None:
    start = begin(str(data_folder / "gel"), recipe="gel-probe", settings=(), out=tmp_path / "run", resume=False)
    metrics = run(start.config, start.folder, recipe="gel-probe").metrics
    assert metrics["folds"]["accuracy"]["value"] >= 0.97
    assert len(metrics["folds"]["each"]) == 25
