"""Splits of tables with several labels: ours beside the `iterative-stratification` package, in one run on one machine.

    python benchmarks/splits.py --table ../shared/data/tables/hpa_2018_labels.csv --python VENV/bin/python

On the label table: 0.8 / 0.2 and five folds by both, each in a process of its own, one after the other. Then, ours only, a
million rows drawn from the table's sets of labels, in 20,000 groups of uneven size that are not torn: once with labels
independent of the group, once with three sets of labels a group. A deviation is |rows of a class in a part / rows of the
class - share asked for|, over all classes and parts; the mean of the seeds' means and the largest of all. Seconds are the
median of the seeds. `forced_deviation` is what one unit alone forces on the largest, by holding more of a class than any
part should; `rows_off` is the largest miss of a part's size.

The package (BSD 3-clause) is no dependency of coverslip: `pip install iterative-stratification` here, or `--python` of an
environment that has it. Without it its columns stay empty. Writes benchmarks/results/splits-<machine>.csv.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results"
TABLE = Path(__file__).resolve().parents[2] / "shared" / "data" / "tables" / "hpa_2018_labels.csv"
SHARES = {"0.8/0.2": [0.8, 0.2], "5 folds": [0.2] * 5}
ROWS, GROUPS = 1_000_000, 20_000


def read_targets(table: Path) -> np.ndarray:
    """int64 (n, classes) of 0 and 1, from the column Target: class numbers with spaces between them."""
    with table.open(newline="") as file:
        labels = [[int(number) for number in row["Target"].split()] for row in csv.DictReader(file)]
    targets = np.zeros((len(labels), 1 + max(map(max, labels))), np.int64)
    for row, numbers in enumerate(labels):
        targets[row, numbers] = 1
    return targets


def by_us(targets: np.ndarray, units: np.ndarray, shares: list[float], seed: int) -> np.ndarray:
    """Our part of each row, int64 (n,)."""
    from coverslip.data.stratify import stratify

    return stratify(targets, np.array(shares), np.random.default_rng(seed), units)


def by_peer(targets: np.ndarray, units: np.ndarray, shares: list[float], seed: int) -> np.ndarray:
    """The package's part of each row, int64 (n,); it knows no units."""
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold, MultilabelStratifiedShuffleSplit

    part = np.zeros(len(targets), np.int64)
    if len(shares) == 2:
        splitter = MultilabelStratifiedShuffleSplit(n_splits=1, test_size=shares[1], random_state=seed)
        part[next(splitter.split(targets, targets))[1]] = 1
        return part
    for number, (_, rows) in enumerate(MultilabelStratifiedKFold(len(shares), shuffle=True, random_state=seed).split(targets, targets)):
        part[rows] = number
    return part


def measure(who: str, data: Path, seeds: int) -> dict[str, dict[str, float]]:
    """Split the stored table in this process: seconds and deviations for each of SHARES."""
    split = {"ours": by_us, "peer": by_peer}[who]
    with np.load(data) as stored:
        targets, units = stored["targets"], stored["units"]
    split(targets[:200], units[:200], [0.8, 0.2], 0)
    numbers = {}
    for what, shares in SHARES.items():
        seconds, means, largest, sizes = [], [], [], []
        for seed in range(seeds):
            start = time.perf_counter()
            part = split(targets, units, shares, seed)
            seconds.append(time.perf_counter() - start)
            reached = np.stack([targets[part == j].sum(axis=0) for j in range(len(shares))]) / targets.sum(axis=0)
            deviation = np.abs(reached - np.array(shares)[:, None])
            means.append(deviation.mean())
            largest.append(deviation.max())
            sizes.append(np.abs(np.bincount(part, minlength=len(shares)) - np.array(shares) * len(part)).max())
            if np.unique(units * len(shares) + part).size > np.unique(units).size:
                raise SystemExit(f"{who} tore a unit in {what}")
        largest_units = [np.bincount(units, weights=column).max() / column.sum() for column in targets.T]
        numbers[what] = {
            "seconds": float(np.median(seconds)),
            "mean_deviation": float(np.mean(means)),
            "max_deviation": float(np.max(largest)),
            "rows_off": float(np.max(sizes)),
            "forced_deviation": max(0.0, float(np.max(largest_units)) - max(shares)),
        }
    return numbers


def measure_apart(who: str, python: str, data: Path, seeds: int) -> dict[str, dict[str, float]]:
    """`measure` in a process of its own; nothing, with a sentence, where the interpreter lacks the package."""
    if who == "peer" and subprocess.run([python, "-c", "import iterstrat"], capture_output=True, check=False).returncode:
        print(f"{python} has no iterative-stratification: its columns stay empty (pip install iterative-stratification, or --python)")
        return {}
    command = [python, __file__, "--inside", who, "--data", str(data), "--seeds", str(seeds)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def simulate(targets: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Targets and groups of a million rows, by name: imbalance like the table's, sizes of groups from a Dirichlet distribution."""
    random = np.random.default_rng(0)
    more = random.choice(GROUPS, ROWS - GROUPS, p=random.dirichlet(np.full(GROUPS, 0.7)))
    groups = np.concatenate([np.arange(GROUPS), more])
    sets = random.integers(len(targets), size=(GROUPS, 3))
    return {
        "labels independent of the group": (targets[random.integers(len(targets), size=ROWS)], groups),
        "three sets of labels a group": (targets[sets[groups, random.integers(3, size=ROWS)]], groups),
    }


def main() -> None:
    """Measure the table by both, then the simulated rows by ours, and write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--python", default=sys.executable, help="interpreter of an environment that has iterative-stratification")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--inside", choices=("ours", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(measure(options.inside, options.data, options.seeds)))
        return
    import pandas as pd

    from machine import machine_name

    targets = read_targets(options.table)
    rows = []
    with tempfile.TemporaryDirectory() as holder:
        data = Path(holder) / "rows.npz"
        np.savez(data, targets=targets, units=np.arange(len(targets)))
        measured = {"ours": measure_apart("ours", sys.executable, data, options.seeds)}
        measured["peer"] = measure_apart("peer", options.python, data, options.seeds)
        for what in SHARES:
            found = {f"{who}_{key}": value for who, numbers in measured.items() for key, value in numbers.get(what, {}).items()}
            rows.append({"what": f"{options.table.name}, {len(targets)} rows, {what}", **found})
        for name, (drawn, groups) in simulate(targets).items():
            np.savez(data, targets=drawn, units=groups)
            for what, numbers in measure_apart("ours", sys.executable, data, 1).items():
                found = {f"ours_{key}": value for key, value in numbers.items()}
                rows.append({"what": f"{ROWS} simulated rows in {GROUPS} groups, {name}, {what}", **found})
    columns = ["seconds", "mean_deviation", "max_deviation", "rows_off"]
    frame = pd.DataFrame(rows, columns=["what", *[f"{who}_{column}" for column in columns for who in ("ours", "peer")], "forced_deviation"])
    frame["forced_deviation"] = pd.Series([row["ours_forced_deviation"] for row in rows], dtype=float)
    RESULTS.mkdir(exist_ok=True)
    frame.round(6).to_csv(RESULTS / f"splits-{machine_name()}.csv", index=False)
    print(frame.round(6).to_string(index=False))


if __name__ == "__main__":
    main()
