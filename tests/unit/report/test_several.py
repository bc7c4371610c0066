import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import f1_score

from coverslip.report import figures
from coverslip.report.files import read_run
from coverslip.report.methods import methods
from coverslip.report.page import environment_facts, render
from coverslip.report.pictures import Album
from coverslip.report.results import results
from coverslip.report.sections import _history, training
from coverslip.report.several import _steps, calibration, class_rows, composition, matrices, reliability, thresholds

CLASSES = ["burr", "dot", "rim"]


def number(value: float, low: float, high: float) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "method": "bootstrap"}


def strategy(macro: float, gain: tuple[float, float, float]) -> dict[str, Any]:
    part = {"macro_f1": number(macro, macro - 0.1, macro + 0.1), "micro_f1": number(macro, macro - 0.1, macro + 0.1)}
    part["macro_f1_gain"] = number(*gain)
    return {"thresholds": [0.4, 0.5, 0.6], "note": "", "estimate": macro - 0.02, "parts": {"validation": part, "test": part}}


def write(folder: Path, gain: tuple[float, float, float] = (0.05, 0.01, 0.09), used: str = "per_class") -> Any:
    random = np.random.default_rng(0)
    truth = random.random((40, 3)) < 0.4
    labels = ["|".join(name for name, carried in zip(CLASSES, row, strict=True) if carried) for row in truth]
    images = [f"{i}.png" for i in range(40)]
    part = ["train"] * 20 + ["validation"] * 10 + ["test"] * 10
    pd.DataFrame({"image": images, "label": labels, "part": part}).to_csv(folder / "split.csv", index=False)
    scores = np.clip(truth * 0.5 + random.random((40, 3)) * 0.5, 0, 1)
    table = pd.DataFrame({"image": images, "part": part, "fold": "", "predicted": labels, "label": labels})
    for column, name in enumerate(CLASSES):
        table[f"p_{name}"] = scores[:, column]
    table[20:].to_csv(folder / "predictions.csv", index=False)
    per_class = {name: {"support": 4, "threshold": 0.4, "matrix": [[5, 1], [2, 2]]} for name in CLASSES}
    metrics = {
        "task": "multilabel", "classes": CLASSES, "validation": {"n": 10, "macro_f1": number(0.8, 0.7, 0.9)},
        "test": {"n": 10, "macro_f1": number(0.8, 0.7, 0.9), "per_class": per_class},
        "thresholds": {"plain": strategy(0.7, (0.0, 0.0, 0.0)), used: strategy(0.75, gain)},
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "config.toml").write_text(f'[decision]\nthresholds = "{used}"\n')
    return read_run(folder)


def test_composition_counts_labels_and_shares(tmp_path: Path) -> None:
    titles = [drawing.title for drawing in composition(write(tmp_path))]
    assert titles == ["Labels per image", "Labels that come together"]


def test_many_classes_that_come_together_take_the_width_of_the_page(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(28)]
    rows = pd.DataFrame({"image": ["a", "b"], "label": ["class 1|class 5", "class 2"], "part": ["train", "test"]})
    rows.to_csv(tmp_path / "split.csv", index=False)
    (tmp_path / "metrics.json").write_text(json.dumps({"task": "multilabel", "classes": names}))
    page = render(read_run(tmp_path))
    drawn = re.search(r'<figure class="wide">\s*<div class="title">Labels that come together', page)
    assert drawn is not None
    assert ".panels > figure.wide { grid-column: 1 / -1; }" in page


def test_facts_of_the_data_are_text(tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text(json.dumps({"data": {"pixels_sha256": "94bd", "split_sha256": "79e7"}}))
    assert environment_facts(read_run(tmp_path)) == [("Data", "pixels sha256 94bd, split sha256 79e7")]
    (tmp_path / "environment.json").write_text(json.dumps({"data": "more-gels", "bundle": "runs/gel"}))
    assert environment_facts(read_run(tmp_path)) == [("Bundle", "runs/gel"), ("Data", "more-gels")]


@pytest.mark.parametrize(
    ("gain", "words"),
    [((0.05, 0.01, 0.09), "did better than plain 0.5: +0.050"), ((-0.05, -0.09, -0.01), "did worse than plain 0.5"),
     ((0.02, -0.03, 0.06), "cannot be told from plain 0.5")],
)  # fmt: skip
def test_the_verdict_on_searched_thresholds(tmp_path: Path, gain: tuple[float, float, float], words: str) -> None:
    found = thresholds(write(tmp_path, gain), "test")
    assert found is not None
    assert words in found["verdict"]
    assert found["parts"] == ["validation", "test"]
    assert [row["used"] for row in found["rows"]] == [False, True]
    assert found["rows"][1]["estimate"] == pytest.approx(0.73)
    assert [drawing.title for drawing in found["curves"]] == ["Threshold and F1", "Threshold and F1, class by class"]
    assert found["over"] == ""
    assert [row["values"] for row in found["rows"]] == ["", "0.400\u20130.600"]


def test_what_macro_f1_runs_over_is_said_where_it_leaves_classes_out(tmp_path: Path) -> None:
    write(tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    for part, defined in (("validation", 1), ("test", 2)):
        metrics[part]["macro_f1"]["classes_defined"] = defined
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    run = read_run(tmp_path)
    found, table = thresholds(run, "test"), results(run, "test")
    assert found is not None
    assert found["over"].startswith("Macro F1 runs over 1 of 3 classes in validation and over 2 of 3 classes in test")
    assert table is not None
    assert table["rows"][0]["over"] == "over 2 of 3 classes"
    assert table["rows"][0]["others"][0][1] == "over 1 of 3 classes"
    page = render(run)
    assert "macro F1 over 2 of 3 classes is 0.800" in page
    assert "<small>over 1 of 3 classes</small>" in page


@pytest.mark.parametrize("ties", [3, 1000])
def test_the_drawn_f1_is_that_of_every_threshold(ties: int) -> None:
    random = np.random.default_rng(ties)
    truth = random.random(60) < 0.3
    scores = np.round(np.clip(truth * 0.3 + random.random(60) * 0.7, 0, 1) * ties) / ties
    curve = _steps(scores, truth)
    assert curve is not None
    x, y = curve
    assert x[0] == 0
    assert x[-1] == 1
    for threshold in random.random(200):
        drawn = y[np.searchsorted(x, threshold)]  # a step reaches back to the point before
        assert drawn == pytest.approx(f1_score(truth, scores >= threshold, zero_division=0))
    assert _steps(scores, np.zeros(60, bool)) is None


def test_reliability_of_each_class_with_its_calibration_error(tmp_path: Path) -> None:
    write(tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    for place, name in enumerate(CLASSES):
        metrics["test"]["per_class"][name]["calibration_error"] = number(0.1 * place, 0.0, 0.5)
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    found = reliability(read_run(tmp_path), "test")
    assert found is not None
    assert found.wide
    for text in (*CLASSES, "ECE 0.000", "ECE 0.100", "ECE 0.200"):
        assert text in found.svg


def history(**columns: Any) -> pd.DataFrame:
    rows = [{"fold": "", "group": group, "phase": "all", "step": step, "epoch": step / 4} for group in (1, 2) for step in range(9)]
    return pd.DataFrame(rows).assign(train_loss=1.0, **columns)


def test_macro_f1_is_drawn_for_training_too_where_it_was_noted(tmp_path: Path) -> None:
    write(tmp_path)
    for columns, title in (({"group": ""}, "Macro F1 on the validation part"), ({"train_macro_f1": 0.5}, "Macro F1")):
        history(validation_macro_f1=0.4, **columns).to_csv(tmp_path / "history.csv", index=False)
        found = training(read_run(tmp_path))
        assert found is not None
        assert [drawing.title for drawing in found["drawings"]][1] == title
    assert "training" in found["drawings"][1].svg


def test_the_models_of_class_groups_are_drawn_over_the_same_steps(tmp_path: Path) -> None:
    write(tmp_path)
    history().to_csv(tmp_path / "history.csv", index=False)
    final, _ = _history(read_run(tmp_path))
    assert final.groupby("group")["step"].max().tolist() == [8, 8]
    assert len(figures.history(final, {"train_loss": "training"}, "loss").axes[0].lines) == 2


def test_where_the_folds_answer_together_their_curves_are_drawn(tmp_path: Path) -> None:
    write(tmp_path)
    folds = [history(fold=f"1.{number}").query("group == 1").assign(group="") for number in (1, 2, 3)]
    pd.concat(folds).to_csv(tmp_path / "history.csv", index=False)
    found = training(read_run(tmp_path))
    assert found is not None
    assert (found["drawings"][0].title, found["drawings"][0].caption) == ("Loss", "The first fold; faint lines: the others.")


def test_thresholds_that_were_chosen_out_of_fold_are_said_to_be(tmp_path: Path) -> None:
    write(tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    for row in metrics["thresholds"].values():
        row["parts"] = {"folds": row["parts"]["validation"]}
    metrics["folds"] = metrics.pop("validation") | {
        "macro_f1": number(0.8, 0.7, 0.9) | {"classes_defined": 2},
        "each": [{"fold": 1}, {"fold": 2}],
    }
    del metrics["test"]
    metrics["thresholds"]["per_class"] |= {"thresholds": [0.072, 0.5, 0.072], "note": "0.072 for most"}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "config.toml").write_text('[decision]\nthresholds = "per_class"\ncalibrate = true\nat_least_one = true\n')
    run = read_run(tmp_path)
    found = thresholds(run, "folds")
    assert found is not None
    assert found["over"] == "Macro F1 runs over 2 of 3 classes out of fold: the others have no image there."
    assert found["rows"][1]["values"] == "0.072 and 0.500"
    page = render(run)
    assert "All chosen on out-of-fold scores only. Searched thresholds can lose to a constant on new images. “Kept out”" in page
    assert "Macro F1,<br>out of fold" in page
    assert 'title="0.072 for most"' in page
    text = " ".join(methods(run, "folds")[0])
    assert "shrunk towards the common one, on out-of-fold scores." in text
    assert "the F1 of its class on out-of-fold scores, cross-fitted" in text
    assert "An image that no class reached was given the nearest one." in text
    assert "validation part" not in text


@pytest.mark.parametrize(
    ("gain", "words"),
    [((0.05, 0.01, 0.09), "calibration helped: +0.050 log loss gained (+0.010 to +0.090)"), ((-0.05, -0.09, -0.01), "calibration did harm"),
     ((0.02, -0.03, 0.06), "calibration cannot be told from none")],
)  # fmt: skip
def test_what_calibration_did_is_shown(tmp_path: Path, gain: tuple[float, float, float], words: str) -> None:
    assert calibration(write(tmp_path)) is None
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    row = {"before": number(0.4, 0.3, 0.5), "after": number(0.35, 0.3, 0.4), "gain": number(*gain)}
    metrics["calibration"] = {"validation": {"log_loss": row}, "test": {"log_loss": row}}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    found = calibration(read_run(tmp_path))
    assert found is not None
    assert words in found["verdict"]
    page = render(read_run(tmp_path))
    assert "Did calibration help?" in page
    assert words in page
    assert "fitted on the validation part, which flatters it there" in page
    assert "Gain,<br>test" in page


def test_a_fixed_threshold_has_no_verdict(tmp_path: Path) -> None:
    found = thresholds(write(tmp_path, used="fixed"), "test")
    assert found is not None
    assert found["verdict"] == ""


def test_matrices_name_their_cells(tmp_path: Path) -> None:
    rows = matrices(write(tmp_path), "test")
    assert rows[0] == {"name": "burr", "threshold": 0.4, "found": 2, "missed": 2, "alarms": 1, "left_out": 5}
    assert [row["name"] for row in rows] == CLASSES


def test_rows_of_images_with_and_without_a_class(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for row in range(3):
        Image.fromarray(np.full((20, 30), 80 * row, np.uint8)).save(pictures / f"thumbnail-{row}.jpg")
    entry = {"kind": "class", "label": "burr", "with": ["thumbnail-0.jpg", "gone.jpg"], "without": ["thumbnail-1.jpg", "thumbnail-2.jpg"]}
    (pictures / "index.json").write_text(json.dumps([entry]))
    (row,) = class_rows(write(tmp_path), Album(pictures))
    assert (row["label"], len(row["with"]), len(row["without"])) == ("burr", 1, 2)


def test_labels_of_duplicates_are_written_out(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("L", (8, 8)).save(pictures / "0.png")
    entry = {"kind": "duplicate", "similarity": 1.0, "files": ["0.png", "0.png"], "first": "a", "second": "b"}
    (pictures / "index.json").write_text(json.dumps([entry | {"first_label": "burr|rim", "second_label": ""}]))
    page = render(write(tmp_path))
    assert "<b>burr, rim</b> and <b>no class</b>" in page
    assert "burr|rim" not in page


def test_one_label_an_image_has_none_of_it(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "metrics.json").write_text(json.dumps({"task": "binary", "classes": CLASSES[:2]}))
    run = read_run(tmp_path)
    assert composition(run) == []
    assert thresholds(run, "test") is None
    assert matrices(run, "test") == []
    assert reliability(run, "test") is None
