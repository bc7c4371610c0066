"""A grid of frozen backbones, heads and optimizers: `coverslip compare` against the usual script, run by run, on one machine.

The usual script is a process a run: torchvision ImageFolder, DataLoader with two workers, grey images with random resized crop,
flip and rotation, float32, every epoch through the whole frozen network, the test part scored once at the end. Ours is one
command for all runs, with its reports, its cache empty at the start. Both train on the same images and are judged on the same
others; networks, heads, optimizers, rates, batch size and epochs are those of the grid `gel-24`.

    python benchmarks/grid.py --data ../shared/data/gel                      # the grid's own twelve runs on the CPU
    python benchmarks/grid.py --data ../shared/data/gel --timed-epochs 2     # the usual script's time from two epochs of each run
    python benchmarks/grid.py --data ../shared/data/gel --models mobilenetv2_035 mobilenetv2_100
    python benchmarks/grid.py --data ../shared/data/gel --timed-epochs 2 --cores 0,1 2,3 4,5

Pretrained weights are used where they are on this machine, random ones on both sides where they are not. With `--timed-epochs`
the usual script's accuracy is left out, for it has not finished. With `--cores` every process has one of these sets of cores to
itself: ours the first, runs of the usual script, several at a time, one each. Writes benchmarks/results/grid-<machine>.csv (with the
models' names in it when they are not the grid's own).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

import pandas as pd
import timm
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from machine import machine_name

RESULTS = Path(__file__).parent / "results"
OWN = ("resnet18", "vgg16", "mobilenetv3_large_100")
HEADS, OPTIMIZERS = ("single", "multi"), ("adam", "sgd")
SIZE, BATCH, RATE, EPOCHS = 224, 23, 1e-3, 20
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def weights_of(backbone: str) -> str:
    """The file of pretrained weights on this machine; empty when there is none."""
    folders = [Path(folder) for folder in os.environ.get("COVERSLIP_WEIGHTS", "").split(os.pathsep) if folder]
    return next((str(file) for folder in folders if (file := folder / f"{backbone}.safetensors").is_file()), "")


# The usual script -----------------------------------------------------------------------------------------------------


def plain_network(backbone: str, head: str, classes: int) -> tuple[nn.Module, nn.Module]:
    """A frozen network with a new head, and the head."""
    network = timm.create_model(backbone, pretrained=False, num_classes=0)
    if weights_of(backbone):
        network.load_state_dict(load_file(weights_of(backbone)), strict=False)
    network.requires_grad_(False)
    with torch.no_grad():
        width = network.eval()(torch.zeros(1, 3, SIZE, SIZE)).shape[1]
    single = nn.Linear(width, classes)
    several = nn.Sequential(
        nn.Linear(width, 512), nn.ReLU(), nn.Dropout(0.25), nn.Linear(512, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, classes)
    )
    chosen = single if head == "single" else several
    return nn.Sequential(network, chosen), chosen


def plain_loaders(data: Path, split: Path) -> tuple[DataLoader[Any], DataLoader[Any], int]:
    """Training and test images of the split that coverslip drew, and the number of classes."""
    grey, tail = transforms.Grayscale(3), [transforms.ToTensor(), transforms.Normalize(MEAN, DEVIATION)]
    crop = transforms.RandomResizedCrop(SIZE, scale=(0.5, 1.0))
    train = ImageFolder(data, transforms.Compose([grey, crop, transforms.RandomHorizontalFlip(), transforms.RandomRotation(10), *tail]))
    test = ImageFolder(data, transforms.Compose([grey, transforms.Resize((SIZE, SIZE)), *tail]))
    parts = pd.read_csv(split).set_index("image")["part"]
    part_of = [parts.get(Path(file).relative_to(data).as_posix()) for file, _ in train.samples]
    rows = {part: [row for row, found in enumerate(part_of) if found == part] for part in ("train", "test")}
    settings: dict[str, Any] = {"batch_size": BATCH, "num_workers": 2}
    return (
        DataLoader(Subset(train, rows["train"]), shuffle=True, **settings),
        DataLoader(Subset(test, rows["test"]), **settings),
        len(train.classes),
    )


def plain_run(data: Path, split: Path, backbone: str, head: str, optimizer: str, epochs: int) -> dict[str, Any]:
    """One run of the usual script: seconds before the first epoch, of each epoch, of scoring, and the accuracy."""
    began = time.perf_counter()
    torch.manual_seed(0)
    training, test, classes = plain_loaders(data, split)
    network, learned = plain_network(backbone, head, classes)
    weights = learned.parameters()
    rule = torch.optim.Adam(weights, lr=RATE) if optimizer == "adam" else torch.optim.SGD(weights, lr=RATE, momentum=0.9)
    measure, ready = nn.CrossEntropyLoss(), time.perf_counter() - began
    seconds = []
    for _ in range(epochs):
        began = time.perf_counter()
        network.train()
        for images, labels in training:
            rule.zero_grad()
            measure(network(images), labels).backward()
            rule.step()
        seconds.append(time.perf_counter() - began)
    began = time.perf_counter()
    network.eval()
    with torch.no_grad():
        right = sum(int((network(images).argmax(dim=1) == labels).sum()) for images, labels in test)
    accuracy = right / len(test.dataset)  # type: ignore[arg-type]
    return {"ready": ready, "epochs": seconds, "scoring": time.perf_counter() - began, "accuracy": accuracy}


def time_plain(
    data: Path, split: Path, backbone: str, head: str, optimizer: str, epochs: int, free: Queue[set[int]]
) -> tuple[float, float | None]:
    """Seconds of a run in a process of its own, on free cores, extrapolated where not all epochs are run, and its accuracy."""
    cores = free.get()
    keep_to(cores)
    began = time.perf_counter()
    asked = [str(data), str(split), backbone, head, optimizer, str(epochs)]
    done = subprocess.run([sys.executable, __file__, "--plain", *asked], check=True, capture_output=True, text=True)
    whole = time.perf_counter() - began
    free.put(cores)
    told = json.loads(done.stdout.splitlines()[-1])
    left = (EPOCHS - epochs) * sum(told["epochs"]) / len(told["epochs"])
    return whole + left, told["accuracy"] if epochs == EPOCHS else None


def keep_to(cores: set[int]) -> None:
    """Let this thread, and the processes that it starts, compute on some cores only; on all where none are named."""
    if cores:
        os.sched_setaffinity(0, cores)


# Ours -----------------------------------------------------------------------------------------------------------------


def time_ours(data: Path, models: list[str], place: Path) -> tuple[float, pd.DataFrame]:
    """Seconds of the whole command with an empty cache, and its table of results."""
    tables = ",".join(f'{{backbone="{name}",weights="{"pretrained" if weights_of(name) else "none"}"}}' for name in models)
    command = [sys.executable, "-m", "coverslip", "compare", str(data), "--grid", "gel-24", "--out", str(place / "study")]
    began = time.perf_counter()
    subprocess.run(
        [*command, "-s", "training.device=cpu", "-s", f"model=[{tables}]"],
        check=True, env={**os.environ, "COVERSLIP_CACHE": str(place / "cache")},
    )  # fmt: skip
    return time.perf_counter() - began, pd.read_csv(place / "study" / "results.csv")


def main() -> None:
    """Measure both and write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--models", nargs="+", default=list(OWN))
    parser.add_argument("--heads", nargs="+", default=list(HEADS), choices=HEADS, help="of the usual script")
    parser.add_argument("--optimizers", nargs="+", default=list(OPTIMIZERS), choices=OPTIMIZERS, help="of the usual script")
    parser.add_argument("--timed-epochs", type=int, default=EPOCHS)
    parser.add_argument("--cores", nargs="+", default=[""], help="sets of cores, for example 0,1 2,3 (Linux)")
    parser.add_argument("--plain", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plain:
        data, split, backbone, head, optimizer, epochs = options.plain
        print(json.dumps(plain_run(Path(data), Path(split), backbone, head, optimizer, int(epochs))))
        return
    data = options.data.absolute()
    free: Queue[set[int]] = Queue()
    for cores in options.cores:
        free.put({int(core) for core in cores.split(",") if core})
    keep_to(free.queue[0])
    suffix = "" if options.models == list(OWN) else "-" + "-".join(options.models)
    target = RESULTS / f"grid-{machine_name()}{suffix}.csv"
    with tempfile.TemporaryDirectory() as holder, ThreadPoolExecutor(len(options.cores)) as pool:
        ours, table = time_ours(data, options.models, Path(holder))
        print(f"ours: {ours:.1f} s", flush=True)
        split = Path(holder) / "study" / "runs" / table["model_id"].iloc[0] / "split.csv"
        runs, rows = [], []
        for row in table.to_dict("records"):
            backbone, head, optimizer = (row[name] for name in ("pretrained_model", "classifier_head", "opt_alg"))
            if head in options.heads and optimizer in options.optimizers:
                timed = pool.submit(time_plain, data, split, backbone, head, optimizer, options.timed_epochs, free)
                runs.append((row, backbone, timed))
        for row, backbone, timed in runs:
            usual, accuracy = timed.result()
            alone = 60 * (row["training_time_mins"] + row["features_time_mins"])
            weights = "pretrained" if weights_of(backbone) else "none"
            rows.append({"run": row["model_id"], "weights": weights, "usual_seconds": usual, "our_seconds_alone": alone})
            rows[-1] |= {"usual_accuracy": accuracy, "our_accuracy": row["accuracy"]}
            print(rows[-1], flush=True)
            whole = {"run": "all", "usual_seconds": sum(one["usual_seconds"] for one in rows), "our_seconds": ours}
            frame = pd.DataFrame([*rows, whole | {"ratio": whole["usual_seconds"] / ours, "usual_epochs_timed": options.timed_epochs}])
            RESULTS.mkdir(exist_ok=True)
            frame.round(3).to_csv(target, index=False)
    print(frame.tail(1).to_string(index=False))


if __name__ == "__main__":
    main()
