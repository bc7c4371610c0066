"""What to do with pretrained RGB filters when images have four channels: `model.first_layer` compared, from one start.

    COVERSLIP_WEIGHTS=FOLDER python benchmarks/first_layer.py [--images 1000] [--steps 240] [--seeds 3]

Simulated cells (four 16-bit channels, twelve classes, several an image) with mobilenetv2_100 from ImageNet, fine-tuned for a
fixed number of steps on the same images in the same order, once for each policy and seed, and from random weights beside it.
The early number (after an eighth of the steps) shows what the filters are worth before they have been learned anew. Judged on
cells of another simulation. Writes benchmarks/results/first-layer-<machine>.csv.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import pandas as pd

from coverslip.evaluation.evaluate import evaluate
from coverslip.experiment import run
from coverslip.predict import Model
from coverslip.simulate import simulate
from coverslip.start import begin
from machine import machine_name

RESULTS = Path(__file__).parent / "results"
POLICIES = ("repeat", "mean", "zero", "none")
SETTINGS = (
    "data.classes=classes.txt", "split.group=Field", "split.test=0.0", "model.backbone=mobilenetv2_100", "pixels.height=96",
    "pixels.width=96",
    "pixels.normalise=backbone", "pixels.range=dataset", "training.frozen_epochs=0", "training.batch_size=16", "training.schedule=onecycle",
    "training.tta=none", "decision.thresholds=global", "intervals.resamples=100",
)  # fmt: skip


def judged(policy: str, seed: int, steps: int, place: Path) -> dict[str, object]:
    """Numbers of one fit on cells that it has not seen."""
    weights = ["model.weights=none"] if policy == "none" else [f"model.first_layer={policy}"]
    own = [*SETTINGS, *weights, f"training.steps={steps}", f"training.seed={seed}"]
    start = begin(str(place / "train" / "train.csv"), recipe="hpa-28", settings=own, out=place / f"{policy}-{seed}-{steps}", resume=False)
    result = run(start.config, start.folder, recipe="hpa-28")
    predictions = Model(result.bundle).judge(place / "kept" / "train.csv").predictions
    numbers = evaluate(predictions, level=0.95, resamples=200, seed=0)
    named = {name: numbers[name]["value"] for name in ("macro_f1", "macro_roc_auc", "macro_average_precision")}
    return {
        "first_layer": policy if policy != "none" else "random weights",
        "seed": seed,
        "images": len(pd.read_csv(place / "train" / "train.csv")),
        "steps": steps,
        "kept_apart": numbers["n"],
        **named,
    }


def main() -> None:
    """Measure every policy and write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    rows = []
    with tempfile.TemporaryDirectory() as holder:
        place = Path(holder)
        simulate("cells", place / "train", images=options.images, seed=0)
        simulate("cells", place / "kept", images=400, seed=1)
        for seed in range(options.seeds):
            for policy in POLICIES:
                for steps in (options.steps // 8, options.steps):
                    rows.append(judged(policy, seed, steps, place))
                    print(rows[-1], flush=True)
                    pd.DataFrame(rows).round(4).to_csv(RESULTS / f"first-layer-{machine_name()}.csv", index=False)


if __name__ == "__main__":
    main()
