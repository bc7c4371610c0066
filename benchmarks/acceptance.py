"""Full-length checks on images kept apart: each recipe, the automatic choice, and a linear probe beside them.

    python benchmarks/acceptance.py [--data ../shared/data] [--weights ../shared/weights] [--only charts:recipe ...]

A part of each data set is kept apart before anything else (charts: three whole genomes and as many images of the others;
the rest: a fifth of each class, at least 11). What remains is trained on in a fresh process through the command line, and
judged on the part kept apart. Each row is added to benchmarks/results/acceptance-<machine>.csv.
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

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from machine import machine_name

RESULTS = Path(__file__).parent / "results"
BESIDE = Path(__file__).resolve().parents[2] / "shared"
UNSEEN_GENOMES = ("ec_", "lf_", "se_")
RECIPES = {"gel": "gel-probe", "charts": "charts", "nuclei": "nuclei-finetune"}
PROBE = ("-s", "training.regime=probe", "-s", "model.backbone=mobilenetv2_100")


def keep_apart(data: Path, place: Path) -> None:
    """Copy a data set into train/ and kept/."""
    generator = np.random.default_rng(0)
    for folder in sorted(path for path in data.iterdir() if path.is_dir()):
        files = [Path(name) for name in generator.permutation([str(file) for file in sorted(folder.iterdir())])]
        unseen = [file for file in files if data.name == "charts" and file.name.startswith(UNSEEN_GENOMES)]
        rest = [file for file in files if file not in unseen]
        share = len(unseen) or max(11, round(0.2 * len(files)))
        for part, chosen in (("kept", unseen + rest[:share]), ("train", rest[share:])):
            (place / part / folder.name).mkdir(parents=True)
            for file in chosen:
                shutil.copy(file, place / part / folder.name)


def measure(name: str, what: str, place: Path, weights: Path) -> dict[str, object]:
    """Train and judge one of `recipe`, `auto`, `probe` in fresh processes."""
    environment = {**os.environ, "COVERSLIP_WEIGHTS": str(weights.resolve()), "COVERSLIP_CACHE": str(place / f"cache-{what}")}
    options = {"recipe": ("--recipe", RECIPES[name]), "auto": ("-s", "training.minutes=5"), "probe": PROBE}[what]
    program, run, judged = [sys.executable, "-m", "coverslip"], place / what, place / f"{what}-judged"
    began = time.perf_counter()
    said = subprocess.run(
        [*program, "train", str(place / "train"), *options, "--out", str(run)], env=environment, check=True, capture_output=True
    )
    seconds = time.perf_counter() - began
    subprocess.run(
        [*program, "evaluate", str(run), str(place / "kept"), "--out", str(judged)], env=environment, check=True, capture_output=True
    )
    numbers = json.loads((judged / "metrics.json").read_text())["test"]
    predictions = pd.read_csv(judged / "predictions.csv")
    right = predictions["predicted"] == predictions["label"]
    unseen = predictions["image"].map(lambda image: Path(image).name.startswith(UNSEEN_GENOMES))
    print(said.stderr.decode().splitlines()[0], flush=True)
    return {
        "data": name,
        "what": RECIPES[name] if what == "recipe" else what,
        "seconds": seconds,
        "kept_apart": numbers["n"],
        "right": int(right.sum()),
        "accuracy": numbers["accuracy"]["value"],
        "accuracy_low": numbers["accuracy"]["low"],
        "accuracy_high": numbers["accuracy"]["high"],
        "macro_f1": numbers["macro_f1"]["value"],
        "chimeric_auc": roc_auc_score(predictions["label"] == "chimeric", predictions["p_chimeric"]) if name == "charts" else None,
        "accuracy_of_unseen_genomes": right[unseen].mean() if name == "charts" else None,
        "folds_accuracy": json.loads((run / "metrics.json").read_text()).get("folds", {}).get("accuracy", {}).get("value"),
    }


def main() -> None:
    """Measure what was asked for and add to the CSV."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=BESIDE / "data")
    parser.add_argument("--weights", type=Path, default=BESIDE / "weights")
    everything = [f"{name}:{what}" for name in RECIPES for what in ("recipe", "auto", "probe")]
    parser.add_argument("--only", nargs="*", default=everything, choices=everything)
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"acceptance-{machine_name()}.csv"
    for name in RECIPES:
        with tempfile.TemporaryDirectory() as holder:
            wanted = [what for what in ("recipe", "auto", "probe") if f"{name}:{what}" in options.only]
            if wanted:
                keep_apart(options.data / name, Path(holder))
            for what in wanted:
                row = measure(name, what, Path(holder), options.weights)
                print(row, flush=True)
                earlier = [pd.read_csv(file)] if file.exists() else []
                pd.concat([*earlier, pd.DataFrame([row]).round(4)]).to_csv(file, index=False)


if __name__ == "__main__":
    main()
