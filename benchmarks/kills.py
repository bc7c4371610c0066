"""Does a comparison survive? `coverslip compare` is killed (SIGKILL) at random moments, resumed, and held against an unbroken one.

    python benchmarks/kills.py [--kills 10] [--seed 0] [--folds 2] [--data FOLDER]

Both studies are the same command on the same images, each with a cache of its own that is empty at the start. The moments are
drawn from the seed, evenly over the time for which the unbroken study worked: its clock runs while a process works on the study,
from the first file that it writes there. Eight runs: a network from scratch and a head on frozen features, two heads, two
optimizers, two folds each. Without folds (`--folds 0`) the best head on frozen features is learned once more at the end, for its
model.

Compared are results.csv and results.parquet (but for their columns of time), verdict.json, folds.csv, the numbers, predictions,
curves and weights of every run, and the names of all files. Writes benchmarks/results/kills-<machine>.csv (with the folds in its
name when they are not two); the exit status is 1 when something differs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from coverslip.simulate import simulate
from machine import machine_name

RESULTS = Path(__file__).parent / "results"
TIMES = ("training_time_mins", "features_time_mins", "inference_time_secs", "images_per_second")
"""Columns of results.csv that hold times."""
SAME_TEXT = ("verdict.json", "folds.csv")
SAME_TEXT_OF_RUNS = ("metrics.json", "predictions.csv", "split.csv", "weights.json", "bundle/model.safetensors")
TIMES_OF_HISTORY = ["seconds", "images_per_second"]
"""Columns of history.csv that hold times."""
GRID = """
[base.split]
test = 0.25
validation = 0.0
folds = {folds}

[base.pixels]
height = 64
width = 64

[base.augment]
horizontal_flip = true
crop_scale = 0.7

[base.model]
backbone = "small_30k"
weights = "none"

[base.training]
epochs = 12
views = 12
batch_size = 8

[base.intervals]
resamples = 200

[axes]
"training.regime" = ["probe", "scratch"]
"model.head" = ["single", "multi"]
"training.optimizer" = ["adam", "sgd"]
"""


def begin(data: Path, place: Path, name: str) -> subprocess.Popen[bytes]:
    """Begin the study of a name, or go on with it."""
    grid = place / "grid.toml"
    command = [sys.executable, "-m", "coverslip", "compare", str(data), "--grid", str(grid), "--out", str(place / name), "--resume"]
    environment = {**os.environ, "COVERSLIP_CACHE": str(place / f"cache-{name}")}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for_work(process: subprocess.Popen[bytes], study: Path) -> float:
    """Wait until a process has written into the folder of its study; the time when it had."""
    log = study / "study.log"
    before = log.stat().st_size if log.exists() else 0
    while process.poll() is None and (not log.exists() or log.stat().st_size <= before):
        time.sleep(0.002)
    return time.perf_counter()


def unbroken(data: Path, place: Path) -> float:
    """Make the study in one go; for how many seconds it worked."""
    process = begin(data, place, "whole")
    began = wait_for_work(process, place / "whole")
    if process.wait() != 0:
        raise SystemExit("the unbroken study failed")
    return time.perf_counter() - began


def broken(data: Path, place: Path, moments: list[float], limit: float) -> list[Path]:
    """Kill and resume the study at each moment of its clock; where one ends before, the kills go on in another. All of them, finished.

    Args:
        data: class folders.
        place: of the studies and their caches.
        moments: seconds of work, rising.
        limit: seconds after which a study that was resumed counts as one that never ends.
    """
    studies, clock = [place / "broken-1"], 0.0
    for number, moment in enumerate(moments, start=1):
        wanted, killed = moment - clock, False
        while not killed:
            killed = killed_within(data, place, studies[-1].name, wanted, limit)
            if not killed:
                print("a study was over; the kills go on in another", flush=True)
                studies.append(place / f"broken-{len(studies) + 1}")
                wanted = min(wanted, limit / 10)
        clock = moment
        print(f"kill {number}, {wanted:.1f} s after the study went on: {finished(studies[-1])} runs had their numbers", flush=True)
    if begin(data, place, studies[-1].name).wait(limit) != 0:
        raise SystemExit("the study that was killed could not be finished")
    return studies


def killed_within(data: Path, place: Path, name: str, seconds: float, limit: float) -> bool:
    """Let a study work for so many seconds and kill it; whether it was still at work."""
    process = begin(data, place, name)
    began = wait_for_work(process, place / name)
    while process.poll() is None and time.perf_counter() - began < min(seconds, limit):
        time.sleep(0.002)
    alive = process.poll() is None
    process.kill()
    status = process.wait()
    if not alive and status != 0:
        raise SystemExit(f"the study {name} failed after it was killed")
    return alive


def finished(study: Path) -> int:
    """How many runs have their numbers."""
    return len(list(study.glob("runs/*/metrics.json")))


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two studies, times left aside: names of columns and files."""
    names = [{file.relative_to(study).as_posix() for file in study.rglob("*")} for study in (one, other)]
    found = [f"only in one: {name}" for name in sorted(names[0] ^ names[1])]
    for read, file in ((pd.read_csv, "results.csv"), (pd.read_parquet, "results.parquet")):
        first, second = (read(study / file) for study in (one, other))
        if list(first.columns) != list(second.columns) or len(first) != len(second):
            return [*found, f"{file}: other columns or rows"]
        found += [f"{file}: {name}" for name in first if name not in TIMES and not first[name].equals(second[name])]
    for run in first["model_id"]:
        curves = [pd.read_csv(study / "runs" / run / "history.csv").drop(columns=TIMES_OF_HISTORY) for study in (one, other)]
        found += [] if curves[0].equals(curves[1]) else [f"runs/{run}/history.csv"]
    texts = [*SAME_TEXT, *(f"runs/{run}/{name}" for run in first["model_id"] for name in SAME_TEXT_OF_RUNS)]
    both = [name for name in texts if (one / name).exists() and (other / name).exists()]
    return found + [name for name in both if (one / name).read_bytes() != (other / name).read_bytes()]


def main() -> int:
    """Make both studies, compare them and write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="class folders; simulated gels when not given")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--folds", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as holder:
        place = Path(holder)
        (place / "grid.toml").write_text(GRID.format(folds=options.folds), encoding="utf-8")
        data = options.data.absolute() if options.data else simulate("gels", place / "gels", images=80, seed=0)
        seconds = unbroken(data, place)
        runs = finished(place / "whole")
        print(f"unbroken: {runs} runs, {seconds:.1f} s of work", flush=True)
        moments = sorted(float(moment) for moment in np.random.default_rng(options.seed).uniform(0.0, seconds, options.kills))
        studies = broken(data, place, moments, limit=10 * seconds + 60)
        found = [f"{study.name}: {one}" for study in studies for one in differences(place / "whole", study)]
    for difference in found:
        print("differs:", difference)
    row = {"data": options.data.name if options.data else "simulated gels", "runs": runs, "unbroken_seconds": round(seconds, 1)}
    row |= {"seed": options.seed, "kills": options.kills, "broken_studies": len(studies), "differences": len(found)}
    RESULTS.mkdir(exist_ok=True)
    suffix = "" if options.folds == 2 else f"-{options.folds}-folds"
    pd.DataFrame([row]).to_csv(RESULTS / f"kills-{machine_name()}{suffix}.csv", index=False)
    print(row)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
