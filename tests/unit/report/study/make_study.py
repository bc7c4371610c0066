"""A comparison's folder in the true format, without a run: `make_study(folder)`, or `python make_study.py FOLDER [RUNS]`."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coverslip.evaluation.intervals import exact_interval
from coverslip.structures import Predictions, Task
from coverslip.study.folder import StudyFolder
from coverslip.study.results import results_frame
from coverslip.study.verdict import Contender, judge
from unit.report.make_run import make_run

AXES: dict[str, list[Any]] = {
    "training.device": ["cpu", "gpu"],
    "model.backbone": ["resnet18", "vgg16", "mobilenetv3_large_100"],
    "model.head": ["single", "multi"],
    "training.optimizer": ["adam", "sgd"],
}
IMAGES = 60


def make_rows(*, absent: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """24 runs; those on absent hardware are not run."""
    random = np.random.default_rng(3)
    rows = []
    for device, backbone, head, optimizer in itertools.product(*AXES.values()):
        row = {
            "model_id": f"{device}-{backbone}-{head}-{optimizer}", "hardware_type": device, "pretrained_model": backbone,
            "classifier_head": head, "opt_alg": optimizer, "status": "done", "error": "", "seed": 0,
        }  # fmt: skip
        if device in absent:
            rows.append(row | {"status": "not run", "error": f'training.device = "{device}", but torch sees no such thing here'})
            continue
        right = int(IMAGES * random.uniform(0.6, 0.99))
        low, high = (float(end) for end in exact_interval(right, IMAGES))
        share = right / IMAGES
        row |= {"accuracy": share, "accuracy_low": low, "accuracy_high": high, "precision": share, "recall": share, "macro_f1": share}
        row |= {"roc_auc": min(1.0, share + 0.05), "log_loss": 1 - share, "judged_on": "test", "images": IMAGES}
        size = {"resnet18": 1.0, "vgg16": 8.0, "mobilenetv3_large_100": 0.6}[backbone] / (1 if device == "cpu" else 20)
        row |= {"training_time_mins": random.uniform(0.01, 0.1), "features_time_mins": size, "inference_time_secs": size / 3}
        rows.append(row)
    return rows


def make_study(folder: Path, *, absent: tuple[str, ...] = ()) -> Path:
    """A finished comparison whose best run has a run folder."""
    rows = make_rows(absent=absent)
    targets = np.arange(IMAGES) % 2
    contenders = []
    for row in rows:
        if row["status"] == "done":
            right = np.arange(IMAGES) < row["accuracy"] * IMAGES - 0.5
            predicted = np.where(right, targets, 1 - targets)
            scores = np.where(predicted[:, None] == np.arange(2), 0.8, 0.2)
            found = Predictions(tuple(map(str, range(IMAGES))), scores, predicted, ("gel", "other"), Task.BINARY, targets)
            number = {"value": row["accuracy"], "low": row["accuracy_low"], "high": row["accuracy_high"]}
            contenders.append(Contender(row["model_id"], found, (row["accuracy"],), number))
    verdict = judge(contenders)
    for row in rows:
        row["verdict"] = "best" if row["model_id"] == verdict.best else "worse" if row["model_id"] in verdict.worse else ""
    with StudyFolder.claim(folder, "compare", resume=False) as place:
        place.write_study(
            {"command": "coverslip compare gel --grid gel-24", "grid": "gel-24", "base": {"data": {"path": "gel"}}, "axes": AXES}
        )
        place.results(results_frame(rows))
        place.write("verdict.json", verdict.to_json())
        make_run(place.run_folder(verdict.best))
        for name in ("cpu-vgg16-single-adam", "cpu-vgg16-multi-sgd"):
            place.run_folder(name).mkdir(parents=True, exist_ok=True)
            steps = np.arange(1, 61)
            history = pd.DataFrame({"fold": "", "phase": "head", "step": steps, "epoch": steps / 3, "train_loss": 1 / np.sqrt(steps)})
            history.to_csv(place.run_folder(name) / "history.csv", index=False)
    return folder


if __name__ == "__main__":
    make_study(Path(sys.argv[1]), absent=tuple(sys.argv[2:]))
