"""`uncertain`: what runs, bundles and evaluations say of decisions that are not to be believed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from coverslip.bundle import load_bundle
from coverslip.experiment import run
from coverslip.judge import evaluate_bundle
from coverslip.start import begin

from .conftest import TINY, Cli

WORDS = {"no", "score", "unlike", "score|unlike"}


def quiet_run(data: Path, folder: Path, *more: str) -> Path:
    """A run without its page, which takes longer than the run."""
    start = begin(str(data), recipe="quick", settings=[*(text for text in TINY if text != "-s"), *more], out=folder, resume=False)
    run(start.config, start.folder, recipe="quick")
    return folder


@pytest.fixture(scope="module")
def marked_run(charts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on 60 charts, of which 20 are the validation part; its features are private."""
    more = ("split.validation=0.4", "split.test=0.2", "decision.coverage=0.9", "bundle.neighbours=features")
    return quiet_run(charts, tmp_path_factory.mktemp("runs") / "charts", *more)


def notes_of(run: Path) -> list[str]:
    notes: list[str] = json.loads((run / "environment.json").read_text(encoding="utf-8"))["notes"]
    return [note for note in notes if note.startswith("uncertain: ")]


def test_a_run_marks_its_predictions_and_says_what_the_marks_are_worth(marked_run: Path) -> None:
    table = pd.read_csv(marked_run / "predictions.csv")
    assert set(table["part"]) == {"test", "validation"}
    assert set(table["uncertain"]) <= WORDS
    numbers = json.loads((marked_run / "metrics.json").read_text())["uncertainty"]
    assert set(numbers) == {"test", "validation"}
    for part, found in numbers.items():
        rows = table[table["part"] == part]
        marked = rows["uncertain"] != "no"
        assert found["uncertain"]["value"] == pytest.approx(marked.mean())
        assert found["wrong_unmarked"]["value"] == pytest.approx((~marked & (rows["predicted"] != rows["label"])).mean())
    assert numbers["validation"]["covered"]["value"] >= 0.9, "the images that it was calibrated on"
    score, distance = notes_of(marked_run)
    count = (table["part"] == "validation").sum()
    assert f"at most 10% of the images are wrong without being marked (split conformal on {count} validation images" in score
    assert f"farther from them than all of {count} validation images" in distance


def test_predict_and_evaluate_say_what_the_run_said(cli: Cli, charts: Path, marked_run: Path, tmp_path: Path) -> None:
    said = pd.read_csv(marked_run / "predictions.csv").set_index("image")
    outcome = cli("predict", marked_run, charts, "--out", tmp_path / "p.csv")
    assert outcome.status == 0, outcome.err
    predicted = pd.read_csv(tmp_path / "p.csv").set_index("image")
    assert len(predicted) == 60
    assert predicted.loc[said.index, "uncertain"].tolist() == said["uncertain"].tolist()
    outcome = cli("evaluate", marked_run, charts, "--out", tmp_path / "judged")
    assert outcome.status == 0, outcome.err
    judged = pd.read_csv(tmp_path / "judged" / "predictions.csv").set_index("image")
    assert judged["uncertain"].tolist() == predicted.loc[judged.index, "uncertain"].tolist()
    assert set(json.loads((tmp_path / "judged" / "metrics.json").read_text())["uncertainty"]["test"]) == {
        "uncertain", "wrong_unmarked", "right_unmarked", "covered",
    }  # fmt: skip


def test_a_picture_of_something_else_is_unlike_all_training_images(cli: Cli, marked_run: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (500, 750, 3)).astype(np.uint8)
    for name, pixels in (("noise", noise), ("dark", noise // 16), ("white", np.full_like(noise, 255))):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes(b"nothing")
    outcome = cli("predict", marked_run, tmp_path, "--out", tmp_path / "p.csv")
    assert (outcome.status, "3 images predicted, 3 of them marked as uncertain" in outcome.out) == (0, True)
    said = pd.read_csv(tmp_path / "p.csv", keep_default_na=False).set_index("image")["uncertain"]
    assert said["broken.png"] == ""
    assert [name for name in ("noise", "dark", "white") if "unlike" in said[f"{name}.png"]] == ["noise", "dark", "white"]


def test_private_data_leaves_vectors_and_labels_only(cli: Cli, charts: Path, marked_run: Path, gel_run: Path, tmp_path: Path) -> None:
    assert {path.name for path in (marked_run / "bundle" / "neighbours").iterdir()} == {"features.safetensors", "neighbours.json"}
    assert {path.name for path in (gel_run / "bundle" / "neighbours").iterdir()} == {
        "features.safetensors", "neighbours.json", "thumbnails.zip",
    }  # fmt: skip
    image = sorted((charts / "regular").iterdir())[0]
    assert cli("explain", marked_run, image, "--out", tmp_path / "why", "--windows", 2).status == 0
    (entry,) = json.loads((tmp_path / "why" / "manifest.json").read_text())["explanations"]
    assert [(near["image"], near["thumbnail"]) for near in entry["neighbours"]] == [("", "")] * 6
    assert {near["label"] for near in entry["neighbours"]} <= {"regular", "repeat", "chimeric"}
    assert entry["uncertain"] in WORDS


def test_too_few_validation_images_and_no_neighbours_leave_the_column_empty(gels: Path, tmp_path: Path) -> None:
    quiet_run(gels, tmp_path / "run", "bundle.neighbours=none")
    table = pd.read_csv(tmp_path / "run" / "predictions.csv", keep_default_na=False)
    assert set(table["uncertain"]) == {""}
    count = (table["part"] == "validation").sum()
    assert count < 19
    (note,) = notes_of(tmp_path / "run")
    assert f"needs at least 19 validation images, and there are {count}" in note
    assert "uncertainty" not in json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert not (tmp_path / "run" / "bundle" / "neighbours").exists()


def test_folds_calibrate_on_scores_out_of_fold(gels: Path, tmp_path: Path) -> None:
    quiet_run(gels, tmp_path / "run", "split.folds=2", "training.epochs=1")
    score, distance = notes_of(tmp_path / "run")
    table = pd.read_csv(tmp_path / "run" / "predictions.csv")
    count = (table["part"] == "fold").sum()
    assert f"split conformal on {count} images scored out of fold" in score
    assert "the model knows these" in distance
    bundle = load_bundle(tmp_path / "run")
    assert bundle.decision.conformal is not None
    assert bundle.decision.conformal.images == count
    assert bundle.neighbours is not None
    assert len(bundle.neighbours.labels) == count


def faint(folder: Path, n: int, seed: int) -> Path:
    """A folder of n noisy images whose classes differ by their brightness, so little that one in six cannot be told."""
    generator = np.random.default_rng(seed)
    for number in range(n):
        place = folder / ("bright" if number % 2 else "dim")
        place.mkdir(parents=True, exist_ok=True)
        level = generator.normal(110 + 20 * (number % 2), 10)
        Image.fromarray(generator.normal(level, 20, (32, 32)).clip(0, 255).astype(np.uint8)).save(place / f"{number}.png")
    return folder


def test_the_stated_coverage_holds_on_held_out_images(tmp_path: Path) -> None:
    """A real model that is often wrong, calibrated on its validation part and judged on 300 images that nothing has seen."""
    data, unseen = faint(tmp_path / "data", 160, 1), faint(tmp_path / "unseen", 300, 2)
    more = ["split.validation=0.5", "split.test=0.01", "decision.coverage=0.9", "training.epochs=4"]
    quiet_run(data, tmp_path / "run", *more)
    metrics = evaluate_bundle(tmp_path / "run", unseen, tmp_path / "judged").metrics
    found, accuracy = metrics["uncertainty"]["test"], metrics["test"]["accuracy"]["value"]
    assert accuracy < 0.9, "a model that needs the marks"
    assert found["covered"]["high"] >= 0.9
    assert found["wrong_unmarked"]["low"] <= 0.1 < 1 - accuracy
    assert found["right_unmarked"]["value"] > accuracy
    assert 0 < found["uncertain"]["value"] < 1
