"""resnet18 trained from every source, as a share of the same training from pixels in memory: measured by `coverslip velocity`.

    python benchmarks/sources.py --data ../shared/data/charts [--images 256] [--rounds 3]

Sources: a folder, a folder in a bucket, shards on disk, and shards in a bucket; the store is moto's S3 server on this machine, so that its
work takes time from the training, too (its packages may lie in the folder COVERSLIP_TEST_SERVERS). Strategies: `memory`, `disk` (what
training does where pixels fit into `cache.limit`) and `stream` (what it does where they do not). The three of a source are measured one
after the other, so that their ratio is that of one moment; rounds go over all sources, and medians are written.

Writes benchmarks/results/sources-<machine>.csv: images/s, share of the time that was waiting for data, and the share of the images/s from
memory.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from coverslip.storage import URL, upload_folder
from machine import machine_name

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from servers import moto_server  # type: ignore[import-not-found]

RESULTS = Path(__file__).parent / "results"
STRATEGIES = ("memory", "disk", "stream")
SETTINGS = ("-s", "pixels.height=224", "-s", "pixels.colour=grey", "-s", "pixels.trim=none")


def coverslip(*arguments: object, environment: dict[str, str]) -> None:
    """Run a command to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "coverslip", *map(str, arguments)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"coverslip {arguments[0]} failed: {done.stderr}")


def draw(data: Path, images: int, place: Path) -> Path:
    """Copy so many images of a folder of class folders."""
    for file in random.Random(0).sample(sorted(data.rglob("*.png")), images):
        (place / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place / file.parent.name / file.name)
    return place


def measured(source: str, where: str, arguments: argparse.Namespace, out: Path, environment: dict[str, str]) -> pd.DataFrame:
    """One study of one source."""
    asked = ("--models", "resnet18", "--batch-sizes", arguments.batch_size, "--seconds", arguments.seconds)
    coverslip("velocity", where, *asked, "--strategies", ",".join(STRATEGIES), *SETTINGS, "--out", out, environment=environment)
    rows = pd.read_csv(out / "results.csv").set_index("strategy").loc[list(STRATEGIES)].reset_index()
    if not (rows["status"] == "ok").all():
        raise SystemExit(f"{source}: {rows['error'].dropna().tolist()}")
    rows.insert(0, "source", source)
    rows["share_of_memory"] = rows["images_per_second"] / rows["images_per_second"].iloc[0]
    return rows[["source", "strategy", "images_per_second", "waiting_share", "share_of_memory"]]


def main() -> None:
    """Make the sources, measure each some times, and write the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, moto_server() as address:
        place = Path(folder)
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "COVERSLIP_ENDPOINT": address}
        environment = {**os.environ, **keys, "COVERSLIP_CACHE": str(place / "cache")}
        images = draw(arguments.data, arguments.images, place / "images")
        os.environ.update(keys)
        upload_folder(images, URL("s3://bucket/images"))
        for destination in (str(place / "shards"), "s3://bucket/shards"):
            coverslip("shard", images, destination, "--size", 16_000_000, environment=environment)
        sources = {
            "folder": str(images),
            "folder in a bucket": "s3://bucket/images",
            "shards": str(place / "shards"),
            "shards in a bucket": "s3://bucket/shards",
        }
        found: list[pd.DataFrame] = []
        for number in range(arguments.rounds):
            for source, where in sources.items():
                found.append(measured(source, where, arguments, place / f"{number}-{len(found)}", environment))
                print(found[-1].to_string(index=False, header=False), flush=True)
    rows = pd.concat(found).groupby(["source", "strategy"], sort=False).median().reset_index()
    arguments.out.mkdir(parents=True, exist_ok=True)
    target = arguments.out / f"sources-{machine_name()}.csv"
    rows.round(3).to_csv(target, index=False, lineterminator="\n")
    print(target)


if __name__ == "__main__":
    main()
