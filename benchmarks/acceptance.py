"""Full-length checks on images kept apart: each recipe, the automatic choice, and a linear probe beside them.

    python benchmarks/acceptance.py [--data ../shared/data] [--weights ../shared/weights] [--only charts:recipe ...] [--seed 0]

A part of each data set is kept apart before anything else (charts: three whole genomes and as many images of the others; tables with
several labels: a fifth, by iterative stratification, fields whole; the rest: a fifth of each class, at least 11). What remains is trained
on in a fresh process through the command line, and judged on the part kept apart. `cells` are 2,000 simulated images, drawn here.
Another --seed keeps another part apart. Each row is added to benchmarks/results/acceptance-<machine>.csv.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score, roc_auc_score

from coverslip.simulate import simulate
from machine import machine_name

RESULTS = Path(__file__).parent / "results"
BESIDE = Path(__file__).resolve().parents[2] / "shared"
UNSEEN_GENOMES = ("ec_", "lf_", "se_")
PROBE = ("-s", "training.regime=probe", "-s", "model.backbone=mobilenetv2_100")
AUTO = ("-s", "training.minutes=5")
BLOOD = ("-s", "data.labels=labels", "-s", 'data.separator="|"')
GENOME = ("-s", "split.group=regex:^([^_]+)_")
CELLS = (
    "--recipe", "hpa-28", "-s", "data.classes=classes.txt", "-s", "split.group=Field", "-s", "model.weights=none",
    "-s", "model.backbone=small_200k",
    "-s", "pixels.height=128", "-s", "pixels.width=128", "-s", "training.regime=scratch", "-s", "training.schedule=onecycle",
    "-s", "training.minutes=4", "-s", "training.learning_rate=0.004", "-s", "training.ema=0.99", "-s", "decision.thresholds=global",
)  # fmt: skip
"""The stated command on simulated cells: the recipe's data, split, turns and thresholds, with a small network from random weights."""
SIMULATED = ("-s", "data.classes=classes.txt", "-s", "split.group=Field")
STAND_IN = (*SIMULATED, "-s", "model.backbone=mobilenetv2_100", "-s", "pixels.height=128", "-s", "pixels.width=128")
"""The recipes for proteins on simulated cells, with a backbone whose weights are at hand in the place of their own."""
NINE = (
    'data.keep=["Mitochondria", "Nuclear bodies", "Nucleoli", "Golgi apparatus", "Nucleoplasm", "Cytosol", "Plasma membrane", '
    '"Centrosome", "Nuclear speckles"]'
)
"""Of the ten places of `hpa-10-transfer` those that are simulated."""
COMMANDS: dict[str, dict[str, tuple[str, ...]]] = {
    "gel": {"gel-probe": ("--recipe", "gel-probe"), "auto": AUTO, "probe": PROBE},
    "charts": {
        "charts": ("--recipe", "charts"),
        "charts, genomes kept together": ("--recipe", "charts", *GENOME),
        "charts-alexnet": ("--recipe", "charts-alexnet", "-s", "split.seed=0"),
        "auto": AUTO,
        "probe": PROBE,
    },
    "nuclei": {"nuclei-finetune": ("--recipe", "nuclei-finetune"), "auto": AUTO, "probe": PROBE},
    "blood": {"blood": ("--recipe", "blood"), "auto": (*BLOOD, *AUTO), "probe": (*BLOOD, *PROBE)},
    "cells": {
        "hpa-28, small": CELLS,
        "hpa-small": ("--recipe", "hpa-small", *SIMULATED),
        "hpa-10-transfer, mobilenetv2_100": ("--recipe", "hpa-10-transfer", *STAND_IN, "-s", NINE),
        "hpa-large, mobilenetv2_100": ("--recipe", "hpa-large", *STAND_IN, "-s", "training.epochs=3"),
    },
}


def keep_apart(data: Path, place: Path, seed: int) -> None:
    """Copy a data set into train/ and kept/."""
    generator = np.random.default_rng(seed)
    for folder in sorted(path for path in data.iterdir() if path.is_dir()):
        files = [Path(name) for name in generator.permutation([str(file) for file in sorted(folder.iterdir())])]
        unseen = [file for file in files if data.name == "charts" and file.name.startswith(UNSEEN_GENOMES)]
        rest = [file for file in files if file not in unseen]
        share = len(unseen) or max(11, round(0.2 * len(files)))
        for part, chosen in (("kept", unseen + rest[:share]), ("train", rest[share:])):
            (place / part / folder.name).mkdir(parents=True)
            for file in chosen:
                shutil.copy(file, place / part / folder.name)


def keep_rows_apart(table: Path, marks: str, separator: str, group: str | None, place: Path, seed: int) -> None:
    """Copy the files beside a table of several labels, and write two tables of its rows, into train/ and kept/."""
    from coverslip.data.stratify import stratify

    frame = pd.read_csv(table)
    targets = frame[marks].str.get_dummies(separator).to_numpy(dtype=np.int64)
    units = np.arange(len(frame)) if group is None else pd.factorize(frame[group])[0]
    part = stratify(targets, np.array([0.8, 0.2]), np.random.default_rng(seed), units)
    for number, name in enumerate(("train", "kept")):
        shutil.copytree(table.parent, place / name)
        frame[part == number].to_csv(place / name / table.name, index=False)


def lay_out(name: str, data: Path, place: Path, seed: int) -> tuple[Path, Path]:
    """Put a data set into place: what is trained on, and what is kept apart."""
    if name == "blood":
        keep_rows_apart(data / "blood" / "labels.csv", "labels", "|", None, place, seed)
        return place / "train" / "labels.csv", place / "kept" / "labels.csv"
    if name == "cells":
        simulate("cells", place / "cells", images=2000, seed=0)
        keep_rows_apart(place / "cells" / "train.csv", "Target", " ", "Field", place, seed)
        return place / "train" / "train.csv", place / "kept" / "train.csv"
    keep_apart(data / name, place, seed)
    return place / "train", place / "kept"


def measure(name: str, what: str, sets: tuple[Path, Path], place: Path, weights: Path) -> dict[str, object]:
    """Train and judge with one of the commands, in fresh processes."""
    folder = "".join(letter if letter.isalnum() else "-" for letter in what)
    environment = {**os.environ, "COVERSLIP_WEIGHTS": str(weights.resolve()), "COVERSLIP_CACHE": str(place / f"cache-{folder}")}
    program, run, judged = [sys.executable, "-m", "coverslip"], place / folder, place / f"{folder}-judged"
    began = time.perf_counter()
    said = subprocess.run(
        [*program, "train", str(sets[0]), *COMMANDS[name][what], "--out", str(run)], env=environment, check=True, capture_output=True
    )
    seconds = time.perf_counter() - began
    subprocess.run([*program, "evaluate", str(run), str(sets[1]), "--out", str(judged)], env=environment, check=True, capture_output=True)
    numbers = json.loads((judged / "metrics.json").read_text())
    print(said.stderr.decode().splitlines()[0], flush=True)
    facts = {"data": name, "what": what, "seconds": seconds, "kept_apart": numbers["test"]["n"], **ends(numbers["test"], "macro_f1")}
    predictions = pd.read_csv(judged / "predictions.csv", keep_default_na=False)
    if numbers["task"] == "multilabel":
        return facts | {"macro_auc": numbers["test"]["macro_roc_auc"]["value"], **at_thresholds(run, predictions, numbers["classes"])}
    right = predictions["predicted"] == predictions["label"]
    unseen = predictions["image"].map(lambda image: Path(image).name.startswith(UNSEEN_GENOMES))
    charts = {
        "chimeric_auc": roc_auc_score(predictions["label"] == "chimeric", predictions["p_chimeric"]),
        "accuracy_of_unseen_genomes": right[unseen].mean(),
    } if name == "charts" else {}  # fmt: skip
    folds = json.loads((run / "metrics.json").read_text()).get("folds", {})
    shares = {**ends(numbers["test"], "accuracy"), **ends(numbers["test"], "balanced_accuracy")}
    return facts | {"right": int(right.sum()), **shares, **charts, **ends(folds, "accuracy", "folds_")}


def ends(numbers: dict[str, Any], name: str, prefix: str = "") -> dict[str, float]:
    """A number and the ends of its interval, as columns."""
    found = numbers.get(name, {})
    return {f"{prefix}{name}{tail}": found[key] for key, tail in (("value", ""), ("low", "_low"), ("high", "_high")) if key in found}


def at_thresholds(run: Path, predictions: pd.DataFrame, classes: list[str]) -> dict[str, object]:
    """Macro F1 at 0.5 on the part kept apart, and under each way to choose thresholds on the run's own test part."""
    labels = predictions["label"].map(lambda text: str(text).split("|"))
    targets = np.array([[name in carried for name in classes] for carried in labels])
    scores = predictions[[f"p_{name}" for name in classes]].to_numpy()
    plain = f1_score(targets, scores >= 0.5, average="macro", zero_division=np.nan)
    ways = json.loads((run / "metrics.json").read_text())["thresholds"]
    own = {way: round(found["parts"].get("test", found["parts"].get("folds"))["macro_f1"]["value"], 4) for way, found in ways.items()}
    return {"macro_f1_at_half": plain, "own_test_by_thresholds": ", ".join(f"{way} {value}" for way, value in own.items())}


def main() -> None:
    """Measure what was asked for and add to the CSV."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=BESIDE / "data")
    parser.add_argument("--weights", type=Path, default=BESIDE / "weights")
    everything = [f"{name}:{what}" for name, commands in COMMANDS.items() for what in commands]
    parser.add_argument("--only", nargs="*", default=everything, choices=everything)
    parser.add_argument("--seed", type=int, default=0, help="of what is kept apart")
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"acceptance-{machine_name()}.csv"
    for name, commands in COMMANDS.items():
        wanted = [what for what in commands if f"{name}:{what}" in options.only]
        if not wanted:
            continue
        with tempfile.TemporaryDirectory() as holder:
            sets = lay_out(name, options.data, Path(holder), options.seed)
            for what in wanted:
                row = measure(name, what, sets, Path(holder), options.weights) | {"seed": options.seed}
                print(row, flush=True)
                earlier = [pd.read_csv(file)] if file.exists() else []
                pd.concat([*earlier, pd.DataFrame([row]).round(4)]).to_csv(file, index=False)


if __name__ == "__main__":
    main()
