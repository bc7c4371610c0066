"""Several labels an image, through the real command line."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from .conftest import TINY, Cli, nothing_left

SEVERAL = ("-s", "data.labels=shapes", "-s", 'data.separator="|"', "-s", "augment.vertical_flip=false")
SHAPES = ("bar", "dot", "rim")


def draw(labels: list[str], random: np.random.Generator) -> Image.Image:
    """Grey noise with a bright bar, a bright dot, a bright rim, or several of them."""
    pixels = random.integers(0, 60, (32, 32)).astype(np.uint8)
    if "bar" in labels:
        pixels[14:18, 4:28] += 120
    if "dot" in labels:
        row, column = random.integers(3, 24, 2)
        pixels[row : row + 5, column : column + 5] = 250
    if "rim" in labels:
        pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:] = 200, 200, 200, 200
    return Image.fromarray(pixels)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 images with one to three labels, ten plates of six images; the table."""
    folder, random = tmp_path_factory.mktemp("data") / "shapes", np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(60):
        labels = [name for name in SHAPES if random.random() < 0.5] or [SHAPES[number % 3]]
        draw(labels, random).save(folder / "images" / f"{number}.png")
        rows.append({"image": f"images/{number}.png", "shapes": "|".join(labels), "plate": f"p{number % 10}"})
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


@pytest.fixture(scope="session")
def run_folder(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that tests only read."""
    from coverslip.experiment import run
    from coverslip.report import write_report
    from coverslip.start import begin

    folder = tmp_path_factory.mktemp("runs") / "shapes"
    asked = [text for text in (*TINY, *SEVERAL) if text != "-s"]
    more = ["split.group=plate", "decision.thresholds=per_class", "decision.calibrate=true", "training.epochs=6"]
    start = begin(str(shapes), recipe="quick", settings=[*asked, *more], out=folder, resume=False)
    run(start.config, start.folder, recipe="quick")
    write_report(folder)
    return folder


def test_a_run_has_numbers_predictions_and_a_page(run_folder: Path, shapes: Path) -> None:
    metrics = json.loads((run_folder / "metrics.json").read_text())
    assert metrics["task"] == "multilabel"
    assert metrics["classes"] == list(SHAPES)
    assert {"macro_f1", "micro_f1", "exact_match", "hamming_loss", "macro_roc_auc", "macro_average_precision"} <= metrics["test"].keys()
    assert np.array(metrics["test"]["per_class"]["dot"]["matrix"]).sum() == metrics["test"]["n"]
    assert set(metrics["thresholds"]) == {"plain", "fixed", "global", "per_class", "ratio"}
    assert set(metrics["thresholds"]["plain"]["parts"]) == {"validation", "test"}
    predictions = pd.read_csv(run_folder / "predictions.csv").fillna({"predicted": "", "label": ""})
    table = pd.read_csv(shapes).set_index("image")["shapes"]
    for row in predictions.itertuples():
        assert set(str(row.label).split("|")) == set(table[row.image].split("|"))
    thresholds = json.loads((run_folder / "bundle" / "model.json").read_text())["decision"]["thresholds"]
    said = predictions["predicted"].map(lambda text: set(text.split("|")) - {""})
    for name, threshold in zip(SHAPES, thresholds, strict=True):
        assert [name in labels for labels in said] == (predictions[f"p_{name}"] >= threshold - 1e-6).tolist()
    page = (run_folder / "report.html").read_text()
    for title in ("Thresholds side by side", "Decisions, class by class", "Labels that come together", "Labels per image"):
        assert title in page


def test_groups_stay_together_and_every_row_is_used_once(run_folder: Path) -> None:
    split = pd.read_csv(run_folder / "split.csv")
    assert len(split) == 60
    assert split.groupby("group")["part"].nunique().max() == 1


def test_training_from_scratch_learns_the_shapes(cli: Cli, shapes: Path, tmp_path: Path) -> None:
    more = ("-s", "training.epochs=60", "-s", "training.learning_rate=0.01", "-s", "model.backbone=small_200k")
    done = cli("train", shapes, "--recipe", "quick", *TINY, *SEVERAL, *more, "--out", tmp_path / "run")
    assert done.status == 0, done.err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["test"]["macro_roc_auc"]["value"] > 0.9
    assert "macro f1" in done.out
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert history["validation_macro_f1"].notna().any()


def test_predict_gives_what_the_run_wrote(cli: Cli, run_folder: Path, shapes: Path, tmp_path: Path) -> None:
    done = cli("predict", run_folder, shapes, "--out", tmp_path / "p.csv")
    assert done.status == 0, done.err
    found = pd.read_csv(tmp_path / "p.csv").set_index("image")
    written = pd.read_csv(run_folder / "predictions.csv").set_index("image")
    columns = [f"p_{name}" for name in SHAPES]
    np.testing.assert_allclose(found.loc[written.index, columns], written[columns], atol=2e-3)


def test_a_new_table_names_its_images_in_the_same_column(cli: Cli, shapes: Path, tmp_path: Path) -> None:
    table = shapes.with_name("files.csv")
    pd.read_csv(shapes).rename(columns={"image": "file"}).to_csv(table, index=False)
    keys = (*TINY, *SEVERAL, "-s", "data.image=file")
    assert cli("train", table, "--recipe", "quick", *keys, "--out", tmp_path / "run").status == 0
    done = cli("predict", tmp_path / "run", table, "--out", tmp_path / "p.csv")
    assert done.status == 0, done.err
    assert len(pd.read_csv(tmp_path / "p.csv")) == 60


def test_a_submission_holds_class_numbers(cli: Cli, run_folder: Path, shapes: Path, tmp_path: Path) -> None:
    for form in ("table", "submission"):
        done = cli("predict", run_folder, shapes, "--format", form, "--out", tmp_path / f"{form}.csv")
        assert done.status == 0, done.err
    table = pd.read_csv(tmp_path / "table.csv").fillna({"predicted": ""})
    found = pd.read_csv(tmp_path / "submission.csv", dtype=str).fillna("")
    assert list(found.columns) == ["Id", "Predicted"]
    assert found["Id"].tolist() == table["image"].tolist()
    for numbers, names in zip(found["Predicted"], table["predicted"], strict=True):
        assert [SHAPES[int(number)] for number in numbers.split()] == [name for name in names.split("|") if name]


def test_a_merged_class_has_no_number_to_submit(cli: Cli, shapes: Path, tmp_path: Path) -> None:
    merged = ("-s", 'data.classes=["bar","dot","rim"]', "-s", 'data.merge.inside=["bar","dot"]', "-s", "training.epochs=1")
    assert cli("train", shapes, "--recipe", "quick", *TINY, *SEVERAL, *merged, "--out", tmp_path / "run").status == 0
    done = cli("predict", tmp_path / "run", shapes, "--format", "submission", "--out", tmp_path / "submission.csv")
    assert done.status == 2
    assert "inside: no such class among the 3 of data.classes" in done.err
    assert not (tmp_path / "submission.csv").exists()
    assert cli("predict", tmp_path / "run", shapes, "--out", tmp_path / "table.csv").status == 0
    assert "p_inside" in pd.read_csv(tmp_path / "table.csv")


def test_evaluate_reads_the_table_as_training_did(cli: Cli, run_folder: Path, shapes: Path, tmp_path: Path) -> None:
    done = cli("evaluate", run_folder, shapes, "--out", tmp_path / "judged")
    assert done.status == 0, done.err
    numbers = json.loads((tmp_path / "judged" / "metrics.json").read_text())
    assert numbers["task"] == "multilabel"
    assert numbers["test"]["n"] == 60
    assert (tmp_path / "judged" / "report.html").exists()


def test_rows_that_are_left_without_a_label_are_told_in_training_and_in_evaluation(cli: Cli, shapes: Path, tmp_path: Path) -> None:
    table = pd.read_csv(shapes)
    dropped = int((table["shapes"] == "dot").sum())
    assert dropped > 3
    kept = ("-s", 'data.keep=["bar","rim"]', "-s", "training.epochs=1")
    done = cli("train", shapes, "--recipe", "quick", *TINY, *SEVERAL, *kept, "--out", tmp_path / "run")
    assert done.status == 0, done.err
    told = f"{dropped} of 60 rows are left without a label by the classes that were dropped, and are not used"
    assert told in done.err
    assert told in json.loads((tmp_path / "run" / "audit.json").read_text())["notes"]
    assert len(pd.read_csv(tmp_path / "run" / "split.csv")) == 60 - dropped
    done = cli("evaluate", tmp_path / "run", shapes, "--out", tmp_path / "judged")
    assert done.status == 0, done.err
    assert told in done.err
    assert told in (tmp_path / "judged" / "report.html").read_text()
    assert json.loads((tmp_path / "judged" / "metrics.json").read_text())["test"]["n"] == 60 - dropped


def test_folds(cli: Cli, shapes: Path, tmp_path: Path) -> None:
    folds = ("-s", "split.folds=3", "-s", "split.test=0.0", "-s", "split.validation=0.0", "-s", "training.epochs=1")
    done = cli("train", shapes, "--recipe", "quick", *TINY, *SEVERAL, *folds, "-s", "decision.thresholds=global", "--out", tmp_path / "run")
    assert done.status == 0, done.err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["folds"]["macro_f1"]["value"] is not None
    assert len(metrics["folds"]["each"]) == 3
    assert set(metrics["thresholds"]["global"]["parts"]) == {"folds"}


def test_columns_of_zeros_and_ones(cli: Cli, shapes: Path, tmp_path: Path) -> None:
    table = pd.read_csv(shapes)
    marks = table["shapes"].str.get_dummies("|").assign(image=table["image"])
    marks.to_csv(shapes.parent / "marks.csv", index=False)
    columns = ("-s", 'data.labels=["rim","bar","dot"]', "-s", "augment.vertical_flip=false")
    done = cli(
        "train", shapes.parent / "marks.csv", "--recipe", "quick", *TINY, *columns, "-s", "training.epochs=1", "--out", tmp_path / "run"
    )
    (shapes.parent / "marks.csv").unlink()
    assert done.status == 0, done.err
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["classes"] == list(SHAPES)


def test_losses_samplers_and_a_head_by_steps(cli: Cli, shapes: Path, tmp_path: Path) -> None:
    more = (
        "-s",
        "training.loss=asymmetric",
        "-s",
        "training.sampler=balanced",
        "-s",
        "training.class_weights=root",
        "-s",
        "augment.mixup=0.2",
    )
    done = cli("train", shapes, "--recipe", "quick", *TINY, *SEVERAL, *more, "-s", "model.head=multi", "--out", tmp_path / "run")
    assert done.status == 0, done.err
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert config["training"]["loss"] == "asymmetric"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda table: table.assign(shapes=table["shapes"].where(table.index != 3, "")),
            ["1 row has no label", "line 5"],
        ),
        (lambda table: pd.concat([table, table.head(1).assign(shapes="dot|rim|bar|dot2")]), ["images/0.png", "two labels"]),
        (lambda table: table.assign(shapes=table["shapes"].where(table.index != 3, "dott")), ["dott", "data.classes", "dot"]),
    ],
)
def test_tables_that_contradict_themselves(cli: Cli, shapes: Path, tmp_path: Path, change: object, words: list[str]) -> None:
    place = shapes.parent / "broken.csv"
    change(pd.read_csv(shapes)).to_csv(place, index=False)  # type: ignore[operator]
    stated = ("-s", 'data.classes=["bar","dot","rim"]')
    done = cli("train", place, "--recipe", "quick", *TINY, *SEVERAL, *stated, "--out", tmp_path / "run")
    place.unlink()
    assert done.status == 2
    assert all(word in done.err for word in words), done.err
    assert nothing_left(tmp_path / "run")


def test_a_temperature_a_class(cli: Cli, shapes: Path, tmp_path: Path) -> None:
    asked = ("-s", "decision.calibrate=temperature", "-s", "training.epochs=1")
    done = cli("train", shapes, "--recipe", "quick", *TINY, *SEVERAL, *asked, "--out", tmp_path / "run")
    assert done.status == 0, done.err
    assert "calibration: temperature a class" in done.err
    lines = json.loads((tmp_path / "run" / "bundle" / "model.json").read_text())["decision"]["lines"]
    assert len(lines) == 3
    assert all(offset == 0 and slope > 0 for slope, offset in lines)


def test_an_image_without_a_label_where_it_is_allowed(cli: Cli, shapes: Path, tmp_path: Path) -> None:
    place = shapes.parent / "empty.csv"
    table = pd.read_csv(shapes)
    table.assign(shapes=table["shapes"].where(table.index % 20 != 3, "")).to_csv(place, index=False)
    allowed = ("-s", "data.allow_empty=true", "-s", "training.epochs=1")
    done = cli("train", place, "--recipe", "quick", *TINY, *SEVERAL, *allowed, "--out", tmp_path / "run")
    assert done.status == 0, done.err
    assert pd.read_csv(tmp_path / "run" / "split.csv")["label"].isna().sum() == 3
    done = cli("evaluate", tmp_path / "run", place, "--out", tmp_path / "judged")
    place.unlink()
    assert done.status == 0, done.err
    assert json.loads((tmp_path / "judged" / "metrics.json").read_text())["test"]["n"] == 60


def test_a_threshold_that_needs_a_validation_part(cli: Cli, shapes: Path, tmp_path: Path) -> None:
    done = cli(
        "train", shapes, "--recipe", "quick", *TINY, *SEVERAL, "-s", "decision.thresholds=global", "-s", "split.validation=0.0",
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.status == 2
    assert "decision.thresholds" in done.err
