"""Does training grow? Memory of a training process, epoch by epoch, over 50 epochs of a small set, for each way to its images.

    python benchmarks/growth.py [--epochs 50]

80 simulated images of 96x96 pixels, a network of 30,000 weights: pixels in the cache (a folder), and streamed (files and shards in a
bucket, of which little fits into `cache.limit`). Memory is the resident set after each step; an epoch has the highest of its steps.
Writes benchmarks/results/growth-<machine>.csv: megabytes in some epochs, the growth from epochs 11 to 20 to the last ten (the highest of
each), and what a line through all epochs after the tenth rises by in an epoch.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from machine import machine_name

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from object_server import object_server  # type: ignore[import-not-found]

TRAINING = Path(__file__).parent.parent / "tests" / "bounded_training.py"
RESULTS = Path(__file__).parent / "results"
IMAGES, SIDE, SETTLED = 80, 96, 10
SETTINGS = (
    "model.backbone=small_30k", "model.weights=none", "training.regime=scratch", "training.batch_size=8",
    f"pixels.height={SIDE}", f"pixels.width={SIDE}", "pixels.trim=none", "intervals.resamples=100",
)  # fmt: skip
LITTLE = ("cache.limit=700000", "memory.limit=2000000")


def make(folder: Path) -> Path:
    """Two classes of noise, told apart by their brightness."""
    random = np.random.default_rng(0)
    for number in range(IMAGES):
        file = folder / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 180 + 70 * (number % 2), (SIDE, SIDE), dtype=np.uint8)).save(file)
    return folder


def memory_of(data: str, settings: tuple[str, ...], epochs: int, place: Path, environment: dict[str, str]) -> npt.NDArray[np.float64]:
    """Megabytes (epochs,) of a training in a process of its own."""
    asked = (*SETTINGS, f"training.epochs={epochs}", *settings)
    command = [sys.executable, str(TRAINING), data, str(place / "run"), *asked]
    environment = environment | {"COVERSLIP_CACHE": str(place / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    steps = np.array(json.loads(done.stdout)["steps"])
    megabytes: npt.NDArray[np.float64] = steps.reshape(epochs, -1).max(axis=1) / 1e6
    return megabytes


def main() -> None:
    """Train in each way, and write what memory did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder, object_server(Path(folder) / "store") as (address, _):
        place = Path(folder)
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "COVERSLIP_ENDPOINT": address}
        environment = {**os.environ, **keys}
        images = make(place / "store" / "bucket" / "images")
        shards = str(place / "store" / "bucket" / "shards")
        subprocess.run([sys.executable, "-m", "coverslip", "shard", images, shards, "--size", "100000"], check=True, capture_output=True)
        ways: dict[str, tuple[str, tuple[str, ...]]] = {
            "folder, cached": (str(images), ()),
            "bucket, streamed": ("s3://bucket/images", LITTLE),
            "shards in a bucket, streamed": ("s3://bucket/shards", LITTLE),
        }
        for number, (way, (data, settings)) in enumerate(ways.items()):
            memory = memory_of(data, settings, arguments.epochs, place / str(number), environment)
            settled = np.arange(SETTLED, len(memory))
            shown = {f"epoch_{epoch}": memory[epoch - 1] for epoch in (1, 2, 5, *range(10, arguments.epochs + 1, 10))}
            growth = memory[-SETTLED:].max() - memory[SETTLED : 2 * SETTLED].max()
            slope = np.polyfit(settled, memory[settled], 1)[0]
            rows.append({"way": way, "epochs": len(memory), **shown, "growth": growth, "rise_an_epoch": slope})
            print(rows[-1], flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    target = arguments.out / f"growth-{machine_name()}.csv"
    pd.DataFrame(rows).round(3).to_csv(target, index=False, lineterminator="\n")
    print(target)


if __name__ == "__main__":
    main()
