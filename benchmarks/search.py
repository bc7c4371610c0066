"""Does a search pay? `coverslip search --space small-cnn` beside the small network's defaults, trained as long, and a random search.

    python benchmarks/search.py FOLDER [--minutes 10] [--seeds 1] [--trials N]

FOLDER holds class folders, for example overlap charts. Each seed is a search of its own: another split, other draws, other initial
weights. Both models are judged on a test part that no trial has seen. Writes benchmarks/results/search-<machine>.csv, a row a
seed: numbers of both models, paired differences with their intervals, and what each search had found on the validation part.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import pandas as pd

from coverslip.config import merge_layers, parse_overrides
from coverslip.start import data_layer
from coverslip.study.engines import build_engine
from coverslip.study.search import request_search, search
from machine import machine_name

RESULTS = Path(__file__).parent / "results"
NUMBERS = ("log_loss", "macro_f1", "accuracy")


def measured(options: argparse.Namespace, seed: int, folder: Path) -> dict[str, object]:
    """Numbers of one search."""
    began = time.perf_counter()
    seeds = parse_overrides([f"split.seed={seed}", f"training.seed={seed}"])
    overrides = merge_layers(parse_overrides(options.settings), seeds)
    asked = request_search(
        data_layer(str(options.folder)), folder, space="small-cnn", overrides=overrides, trials=options.trials, minutes=options.minutes
    )
    verdict = search(asked, build_engine("local"), announce=print)
    results = pd.read_csv(folder / "results.csv").set_index("model_id")
    trials = pd.read_csv(folder / "trials.csv")
    whole = trials[trials["ended"] == "complete"].groupby("search")["value"].min()
    row: dict[str, object] = {"data": options.folder.name, "seed": seed, "minutes": round((time.perf_counter() - began) / 60, 1)}
    row |= {"trials": int((trials["search"] == "tpe").sum()), "test_images": verdict["n"], "verdict": verdict["verdict"]}
    for name in NUMBERS:
        difference = verdict["differences"][name]
        row |= {f"{name}_searched": results.loc["final", name], f"{name}_defaults": results.loc["defaults", name]}
        row |= {f"{name}_difference_{end}": difference[end] for end in ("value", "low", "high")}
    row |= {"mcnemar_p": verdict["mcnemar_p"]}
    row |= {f"validation_log_loss_{kind}": float(value) for kind, value in whole.items()}
    return row | {"best": json.dumps(verdict["best"]["values"])}


def main() -> None:
    """Search once a seed and write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("-s", "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    rows = []
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as holder:
            rows.append(measured(options, seed, Path(holder) / "search"))
        print(rows[-1], flush=True)
        pd.DataFrame(rows).round(4).to_csv(RESULTS / f"search-{machine_name()}.csv", index=False)


if __name__ == "__main__":
    main()
