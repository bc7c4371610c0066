import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from coverslip.report.files import read_run
from coverslip.report.pictures import Album
from coverslip.report.several import class_rows, composition, matrices, thresholds

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
    assert found["curve"] is not None


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


def test_one_label_an_image_has_none_of_it(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "metrics.json").write_text(json.dumps({"task": "binary", "classes": CLASSES[:2]}))
    run = read_run(tmp_path)
    assert composition(run) == []
    assert thresholds(run, "test") is None
    assert matrices(run, "test") == []
