"""Loading images for training: ours from a folder, from shards on disk and from shards in an S3 store, against the usual loaders.

Everything gives the same: batches of 32 as uint8 (32, side, side, 1), every image once an epoch, in random order. The usual ones are
torchvision's ImageFolder, WebDataset (on the tar files that we write) and litdata (the files' bytes as they are), each in a
DataLoader with two workers; they decode with Pillow and resize with torchvision, antialiased.

The clock starts with the process, before anything is imported, and the first epoch ends with its last batch, so that whatever a
loader does before the first batch counts. Ours does there what `coverslip train` does with the images: a glance at some of them, then
each is hashed, decoded, measured for the audit and kept; the audit with its search for near duplicates; the split. The peers do
none of that. Each measurement is a process of its own with an empty cache; files were read just before by what made the copies.
Several rounds take the loaders in turn, every second one backwards, so that a machine that gets slower meets all of them; the median is
written; nothing else should run meanwhile.

    python benchmarks/loading.py --data ../shared/data/charts --images 3600
    python benchmarks/loading.py --simulate 20000
    python benchmarks/loading.py --small 20000

The simulated images are those of `coverslip simulate charts`, 750x500 as the real ones; the small ones are 256x256 RGBA charts of random
walks, given back at 128x128, to see what is done for each image however small it is. Packages of peers that cannot be installed beside
the others may lie in the folder COVERSLIP_BENCH_PEERS. Writes benchmarks/results/loading-<machine>.csv, leaving the rows of other sets
of images as they are: images/s in the first epoch and after it, seconds to the first batch, seconds that all processes computed until
the end of the first epoch, peak memory (MB, what processes share counted once).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from coverslip.runtime import WAITING

os.environ.update(WAITING | dict(os.environ))

BATCH, WORKERS = 32, 2
SIZE = int(os.environ.get("COVERSLIP_BENCH_SIZE", "224"))
"""Height and width of what every loader gives; the processes that measure are told by the environment."""
DRAWN, KEPT = 256, 128
"""Sides of the small images: of the files, and of what is given back."""
WATCHED_EVERY = 2.0
"""Seconds between looks at the memory. Counting shared pages takes the kernel tens of milliseconds where a process maps gigabytes."""
RESULTS = Path(__file__).parent / "results"
SERVER = Path(__file__).parent.parent / "tests" / "object_server.py"
Epochs = Iterator[Iterator[Any]]
"""Epochs of batches, uint8 (n, 224, 224, 1)."""


# Ours -----------------------------------------------------------------------------------------------------------------


def ours(data: str, epochs: int) -> Epochs:
    """What `coverslip train` does with the images, and the batches that it trains on."""
    import numpy as np
    import torch  # noqa: F401  # reading needs none, but what trains on the batches does

    from coverslip.config import DataConfig, SplitConfig
    from coverslip.data.audit import audit
    from coverslip.data.duplicates import duplicate_groups
    from coverslip.data.geometry import GREY, Geometry
    from coverslip.data.reading import Reading
    from coverslip.data.sources import load_table
    from coverslip.data.split import split_table
    from coverslip.data.store import glance, load_pixels
    from coverslip.training.sampling import SampleStream

    table, reading = load_table(DataConfig(path=data), SplitConfig()), Reading()
    glance(table, reading)
    pixels, scan = load_pixels(table, reading, Geometry(SIZE, SIZE, "squash", GREY, 8), limit=20_000_000_000)
    found = audit(table, scan, fit="squash", height=SIZE, width=SIZE, bad={}, reading=reading)
    split_table(table, SplitConfig(), ties=duplicate_groups(len(table), found.duplicates.exact, found.duplicates.confirmed))
    stream = SampleStream(np.arange(len(table)), BATCH, 0)
    ends = [-(-epoch * len(table) // BATCH) for epoch in range(epochs + 1)]
    for first, end in pairwise(ends):
        yield (pixels.read(stream.batch(step)) for step in range(first, end))


# Peers ----------------------------------------------------------------------------------------------------------------


def to_pixels(image: Any) -> Any:
    """A PIL image as uint8 (224, 224, 1), as transforms of torchvision make it."""
    from torchvision.transforms.v2.functional import pil_to_tensor, resize

    return resize(pil_to_tensor(image.convert("L")), [SIZE, SIZE], antialias=True).permute(1, 2, 0)


def image_folder(data: str, epochs: int) -> Epochs:
    """torchvision's ImageFolder and PyTorch's DataLoader."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    loader = DataLoader(
        ImageFolder(data, transform=to_pixels), batch_size=BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True
    )
    for _ in range(epochs):
        yield (images for images, _ in loader)


def web_dataset(data: str, epochs: int) -> Epochs:
    """WebDataset on our tar files, split over the workers, mixed in a buffer of 1,000 samples."""
    import webdataset
    from torch.utils.data import DataLoader

    tars = sorted(map(str, Path(data).glob("*.tar")))
    dataset = webdataset.WebDataset(tars, shardshuffle=len(tars), seed=0).shuffle(1000).decode("pil").to_tuple("png", "cls")
    dataset = dataset.map_tuple(to_pixels, lambda label: label)
    loader = DataLoader(dataset.batched(BATCH), batch_size=None, num_workers=min(WORKERS, len(tars)), persistent_workers=True)
    for _ in range(epochs):
        yield (images for images, _ in loader)


def decode_bytes(sample: dict[str, Any]) -> Any:
    """What litdata gives back, as pixels."""
    import io

    from PIL import Image

    return to_pixels(Image.open(io.BytesIO(sample["image"])))


def lit_data(data: str, epochs: int) -> Epochs:
    """litdata's StreamingDataset on the files' bytes, and its StreamingDataLoader."""
    import litdata

    class Decoded(litdata.StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, index: Any) -> Any:
            return decode_bytes(super().__getitem__(index))

    loader = litdata.StreamingDataLoader(
        Decoded(data, shuffle=True, drop_last=False), batch_size=BATCH, num_workers=WORKERS, persistent_workers=True
    )
    for _ in range(epochs):
        yield iter(loader)


def write_litdata(folder: Path, destination: Path) -> None:
    """The files of a folder as litdata's chunks."""
    import litdata

    files = sorted(map(str, folder.rglob("*.png")))
    litdata.optimize(fn=read_sample, inputs=files, output_dir=str(destination), chunk_bytes="64MB", num_workers=1)


def read_sample(file: str) -> dict[str, Any]:
    """One sample of litdata."""
    return {"image": Path(file).read_bytes(), "label": Path(file).parent.name}


LOADERS: dict[str, tuple[Callable[[str, int], Epochs], str]] = {
    "ours, local folder": (ours, "folder"),
    "ours, local shards": (ours, "shards"),
    "ours, shards through S3": (ours, "s3"),
    "torchvision ImageFolder": (image_folder, "folder"),
    "WebDataset": (web_dataset, "shards"),
    "litdata": (lit_data, "litdata"),
}


# Measuring ------------------------------------------------------------------------------------------------------------


def process_start() -> float:
    """When this process began, in seconds since 1970."""
    import psutil

    return psutil.Process().create_time()


def cpu_seconds() -> float:
    """What this process and its workers have computed so far."""
    import psutil

    process = psutil.Process()
    return sum(times.user + times.system for one in [process, *process.children(recursive=True)] for times in [one.cpu_times()])


def measure(name: str, data: str, epochs: int) -> None:
    """In a process of its own: run some epochs and print what they took."""
    load, _ = LOADERS[name]
    mark = began = process_start()
    first, rates, computed = None, [], []
    for batches in load(data, epochs):
        images = 0
        for batch in batches:
            assert tuple(batch.shape[1:]) == (SIZE, SIZE, 1), batch.shape
            assert str(batch.dtype).endswith("uint8"), batch.dtype
            int(batch.sum())  # every pixel is touched, as by a network
            first = first or time.time() - began
            images += len(batch)
        now = time.time()
        rates.append(images / (now - mark))
        computed.append(cpu_seconds())
        mark = now
    later = len(rates[1:]) / sum(1 / rate for rate in rates[1:])
    print(
        json.dumps(
            {
                "first_epoch_images_per_second": rates[0],
                "later_images_per_second": later,
                "first_batch_seconds": first,
                "first_epoch_cpu_seconds": computed[0],
            }
        )
    )


def measured(name: str, data: str, epochs: int, environment: dict[str, str]) -> dict[str, Any]:
    """Start such a process and watch its memory, and that of its workers."""
    import psutil

    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, __file__, "--work", name, data, "--epochs", str(epochs)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**environment, "COVERSLIP_CACHE": cache}
        )
        peak = 0

        def watch() -> None:
            nonlocal peak
            while process.poll() is None:
                total = 0
                try:
                    for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
                        facts = one.memory_full_info()
                        total += getattr(facts, "pss", facts.rss)
                except psutil.Error:
                    continue
                peak = max(peak, total)
                time.sleep(WATCHED_EVERY)

        watcher = threading.Thread(target=watch)
        watcher.start()
        said, complained = process.communicate()
        watcher.join()
    if process.returncode:
        return {"error": complained.strip().splitlines()[-1] if complained.strip() else f"status {process.returncode}"}
    numbers: dict[str, Any] = json.loads(said.splitlines()[-1])
    return numbers | {"peak_memory_megabytes": peak / 1e6}


def draw(data: Path, images: int, place: Path) -> Path:
    """Copy so many images of a folder of class folders."""
    files = sorted(data.rglob("*.png"))
    for file in random.Random(0).sample(files, min(images, len(files))):
        (place / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place / file.parent.name / file.name)
    return place


def simulate_charts(place: Path, images: int) -> Path:
    """So many charts of our simulator."""
    from coverslip.simulate import simulate

    return simulate("charts", place, images=images)


def draw_charts(place: Path, images: int) -> Path:
    """So many RGBA charts of random walks, a thin blue line on white, in three class folders."""
    import numpy as np
    from PIL import Image

    rows = np.arange(DRAWN, dtype=np.float32)[:, None]
    for number in range(images):
        height = np.random.default_rng([0, number]).normal(size=DRAWN + 1).cumsum().astype(np.float32)
        height = (0.9 - 0.8 * (height - height.min()) / np.ptp(height)) * DRAWN
        low, high = np.minimum(height[1:], height[:-1]), np.maximum(height[1:], height[:-1])
        ink = np.clip(2 - np.maximum(low - rows, rows - high), 0, 1)
        pixels = np.full((DRAWN, DRAWN, 4), 255, np.uint8)
        pixels[..., 0] = pixels[..., 1] = 255 * (1 - ink)
        file = place / "abc"[number % 3] / f"{number:06d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file, compress_level=2)
    return place


def free_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def measure_all(what: str, images: Path, place: Path, epochs: int, rounds: int, environment: dict[str, str]) -> list[dict[str, Any]]:
    """Copy the images as shards, into a store and as litdata's chunks, and measure each loader."""
    from coverslip.start import shard_data

    shard_data(str(images), str(place / "store" / "bucket" / "shards"), size=16_000_000)
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from pathlib import Path; import loading; "
    code += f"loading.write_litdata(Path({str(images)!r}), Path({str(place / 'litdata')!r}))"
    made = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    port, number = free_port(), len(list(images.rglob("*.png")))
    server = subprocess.Popen([sys.executable, str(SERVER), str(place / "store"), str(port)])
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "COVERSLIP_ENDPOINT": f"http://127.0.0.1:{port}"}
    where = {
        "folder": str(images),
        "shards": str(place / "store" / "bucket" / "shards"),
        "s3": "s3://bucket/shards",
        "litdata": str(place / "litdata"),
    }
    rows = []
    try:
        for turn in range(rounds):
            for name, (_, source) in list(LOADERS.items())[:: -1 if turn % 2 else 1]:
                failed = source == "litdata" and made.returncode
                error = {"error": made.stderr.strip().splitlines()[-1]} if failed else None
                found = error or measured(name, where[source], epochs, environment | keys)
                rows.append({"images": what, "number": number, "loader": name, **found})
                print(json.dumps(rows[-1]), flush=True)
    finally:
        server.terminate()
        server.wait()
    return rows


def main() -> None:
    """Make the images, measure each loader, and write the medians of the rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--simulate", type=int, default=0, help="simulated charts, so many")
    parser.add_argument("--small", type=int, default=0, help="small simulated images, so many")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        name, data = arguments.work
        measure(name, data, arguments.epochs)
        return

    import pandas as pd

    from machine import machine_name

    peers = os.environ.get("COVERSLIP_BENCH_PEERS", "")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [peers, os.environ.get("PYTHONPATH", "")]))}
    sets: dict[str, tuple[Callable[[Path], Path], int]] = {}
    if arguments.data:
        sets["charts"] = (lambda place: draw(arguments.data, arguments.images, place), SIZE)
    if arguments.simulate:
        sets["simulated"] = (lambda place: simulate_charts(place, arguments.simulate), SIZE)
    if arguments.small:
        sets["small"] = (lambda place: draw_charts(place, arguments.small), KEPT)
    target = arguments.out / f"loading-{machine_name()}.csv"
    rows = []
    for what, (make, side) in sets.items():
        with tempfile.TemporaryDirectory() as folder:
            images = make(Path(folder) / "images")
            told = environment | {"COVERSLIP_BENCH_SIZE": str(side)}
            rows += measure_all(what, images, Path(folder), arguments.epochs, arguments.rounds, told)
    keys = ["images", "number", "loader"]
    found = pd.DataFrame(rows).groupby(keys, sort=False).median(numeric_only=True).reset_index()
    if target.is_file():
        before = pd.read_csv(target)
        found = pd.concat([before[~before["images"].isin(found["images"])], found], ignore_index=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    found.round(3).to_csv(target, index=False, lineterminator="\n")
    print(target)


if __name__ == "__main__":
    main()
