"""What one image costs, for docs/scale.md: seconds and bytes a row of each stage that grows with the data.

    python benchmarks/scale.py

Everything is simulated: gel photographs for what reads files, random hashes and thumbnails for what looks at tables only. Seconds of
the first pass are the whole machine's, from an empty cache; those of tables and audit are of one core. Writes
benchmarks/results/scale-<machine>.csv. Training, scoring and splitting a million rows are measured by training.py and splits.py.
"""

from __future__ import annotations

import csv
import gc
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from coverslip.config import load_config
from coverslip.data.duplicates import near_duplicates
from coverslip.data.geometry import RGB, Geometry
from coverslip.data.reading import Reading
from coverslip.data.scan import Scan
from coverslip.data.sources import load_table
from coverslip.data.store import load_pixels
from coverslip.runtime import used_memory
from coverslip.simulate import simulate
from coverslip.structures import Table, Task
from machine import machine_name

RESULTS = Path(__file__).parent / "results"
IMAGES = 400
ROWS = 200_000
COMPARED = (50_000, 200_000, 1_000_000)
CLASSES = 10


def first_pass(place: Path) -> list[tuple[str, float, str]]:
    """Reading files for the first time: decoding, facts for the audit, resizing, writing to the cache."""
    folder = simulate("gels", place / "gels", images=IMAGES, seed=5)
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    config = load_config({"data": {"path": str(folder)}})
    table, geometry = load_table(config.data, config.split), Geometry(224, 224, "squash", RGB, 8)
    began = time.perf_counter()
    pixels, _ = load_pixels(table, Reading.of(config.data), geometry, config.cache.limit)
    seconds = (time.perf_counter() - began) / len(table)
    began = time.perf_counter()
    load_pixels(table, Reading.of(config.data), geometry, config.cache.limit)
    again = (time.perf_counter() - began) / len(table)
    return [
        ("file of an image", float(np.mean(sizes)), "bytes"),
        ("first pass over files", seconds, "seconds"),
        ("later passes: hashing the files", again, "seconds"),
        ("stored pixels, 224x224 RGB at 8 bits", pixels.array[0].nbytes, "bytes"),
    ]


def list_memory() -> list[tuple[str, float, str]]:
    """What a row of a list of files holds in memory, which is all that predicting in parts needs."""
    gc.collect()
    before = used_memory()
    names = [f"plate-{row // 1000:06}/well-{row % 1000:03}/image-{row:09}.tif" for row in range(ROWS)]
    samples = [(Path("/data") / name,) for name in names]
    held = (used_memory() - before) / len(samples)
    return [("name and file of an image in a list, in memory", held, "bytes")]


def table_memory() -> list[tuple[str, float, str]]:
    """What a row holds in memory: names, labels, facts of the scan, thumbnail."""
    random = np.random.default_rng(0)
    gc.collect()
    before, began = used_memory(), time.perf_counter()
    names = tuple(f"plate-{row // 1000:06}/well-{row % 1000:03}/image-{row:09}.tif" for row in range(ROWS))
    table = Table(Path("/data"), names, tuple(map(str, range(CLASSES))), random.integers(0, CLASSES, ROWS), Task.MULTICLASS)
    facts = pd.DataFrame(
        {
            "image": list(names), "sha256": [f"{number:064x}" for number in range(ROWS)], "format": "TIFF", "mode": "L", "bits": 8,
            "height": 512, "width": 512, "grey": True, "mean": 0.5, "deviation": 0.1, "low": 0.0, "high": 1.0, "error": "",
        }
    )  # fmt: skip
    scan = Scan(facts, random.integers(0, 256, (ROWS, 32, 32), dtype=np.uint8), random.integers(1, 2**63, ROWS).astype(np.uint64))
    samples = table.samples
    held = (used_memory() - before) / ROWS
    rows = [("table and scan in memory", held, "bytes"), ("listing the files of a table", (time.perf_counter() - began) / ROWS, "seconds")]
    assert len(scan) == len(samples) == ROWS
    return rows


def duplicate_search() -> list[tuple[str, float, str]]:
    """The search for near duplicates among images that have none: random hashes at the default distance."""
    random = np.random.default_rng(1)
    found = []
    for n in COMPARED:
        hashes, thumbnails = random.integers(1, 2**63, n).astype(np.uint64), random.integers(0, 256, (n, 32, 32), dtype=np.uint8)
        digests = [str(number) for number in range(n)]
        began = time.perf_counter()
        near_duplicates(hashes, thumbnails, sha256=digests)
        found.append((f"near duplicates of {n:,} images, all of them", time.perf_counter() - began, "seconds"))
    return found


def predictions(place: Path) -> list[tuple[str, float, str]]:
    """A row of predictions as Parquet."""
    random = np.random.default_rng(2)
    n = 8192
    frame = pd.DataFrame({"row": range(n), "image": [f"plate-{row // 1000:06}/image-{row:09}.tif" for row in range(n)]})
    scores = random.dirichlet(np.ones(CLASSES), n)
    for number in range(CLASSES):
        frame[f"p_{number}"] = [float(f"{score:.7g}") for score in scores[:, number]]
    frame["predicted"], frame["uncertain"], frame["error"] = scores.argmax(axis=1).astype(str), "", ""
    frame.to_parquet(place / "part.parquet", index=False)
    return [(f"a row of predictions of {CLASSES} classes, Parquet", (place / "part.parquet").stat().st_size / n, "bytes")]


def main() -> None:
    """Measure everything and write the CSV."""
    with tempfile.TemporaryDirectory() as holder:
        os.environ["COVERSLIP_CACHE"] = str(Path(holder) / "cache")
        rows = [*first_pass(Path(holder)), *list_memory(), *table_memory(), *duplicate_search(), *predictions(Path(holder))]
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"scale-{machine_name()}.csv"
    with target.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["what", "value", "unit"])
        writer.writerows((what, f"{value:.6g}", unit) for what, value, unit in rows)
    print(target.read_text(), end="")


if __name__ == "__main__":
    main()
