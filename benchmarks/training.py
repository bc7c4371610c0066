"""Training, features and prediction against the usual PyTorch loop, in one run on one machine.

The usual loop: torchvision ImageFolder, DataLoader with two workers (with as many as cores, at most eight, beside a GPU), resize to
224x224, resnet18 in float32, or another timm backbone. Ours: the same images, architecture, batch size, epochs, optimizer and
learning rate through coverslip. Both compute on the GPU where there is one. The two take turns, so that a drift of the machine's
speed meets both.

    python benchmarks/training.py --data ../shared/data/charts --images 1200
    python benchmarks/training.py --data ../shared/data/charts --images 1200 --backbone mobilenetv2_100

Writes benchmarks/results/training-<machine>.csv (with the backbone in its name when it is another): images per second, ratio,
accuracy on the same held-out images.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from coverslip.runtime import WAITING

os.environ.update(WAITING | dict(os.environ))

import numpy as np
import pandas as pd
import timm
import torch
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from coverslip.bundle import load_bundle
from coverslip.config import RunConfig, load_config
from coverslip.data.geometry import RGB, Geometry
from coverslip.data.reading import Reading
from coverslip.data.sources import load_table
from coverslip.data.store import load_pixels
from coverslip.experiment import run
from coverslip.models.hardware import choose_device, choose_precision, wait_for
from coverslip.predict import Model
from coverslip.preparing import prepare
from coverslip.training.extractor import choose_runtime
from coverslip.training.features import FeatureStore
from machine import machine_name

BACKBONE, SIZE, BATCH, RATE = "resnet18", 224, 32, 1e-3
DEVICE = choose_device("auto")
WORKERS = 2 if DEVICE.type == "cpu" else min(8, os.cpu_count() or 2)
RESULTS = Path(__file__).parent / "results"


@dataclass
class Parts:
    """Folders of class folders: what is trained on, and what is kept apart."""

    train: Path
    test: Path


def draw_parts(data: Path, images: int, place: Path) -> Parts:
    """Copy `images` training images and a third as many test images, the same share of each class."""
    parts = Parts(place / "train", place / "test")
    generator = np.random.default_rng(0)
    classes = sorted(folder for folder in data.iterdir() if folder.is_dir())
    for folder in classes:
        files = list(generator.permutation(np.array(sorted(folder.iterdir()))))
        train = images // len(classes)
        for part, chosen in ((parts.train, files[:train]), (parts.test, files[train : train + train // 3])):
            (part / folder.name).mkdir(parents=True)
            for file in chosen:
                shutil.copy(file, part / folder.name)
    return parts


def usual_loader(folder: Path, *, shuffle: bool) -> DataLoader:
    """ImageFolder and DataLoader as tutorials have them."""
    steps = [transforms.Resize((SIZE, SIZE)), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.25] * 3)]
    return DataLoader(ImageFolder(folder, transforms.Compose(steps)), BATCH, shuffle=shuffle, num_workers=WORKERS)


def usual_training(parts: Parts, epochs: int, backbone: str) -> tuple[float, float]:
    """Images per second (first epoch's start-up of workers included, as users wait for it) and test accuracy."""
    torch.manual_seed(0)
    model = timm.create_model(backbone, num_classes=len(list(parts.train.iterdir()))).to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), RATE)
    loader = usual_loader(parts.train, shuffle=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * len(loader))
    model.train()
    began, seen = time.perf_counter(), 0
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            functional.cross_entropy(model(images.to(DEVICE)), labels.to(DEVICE)).backward()
            optimizer.step()
            schedule.step()
            seen += len(labels)
    wait_for(DEVICE)
    speed = seen / (time.perf_counter() - began)
    return speed, usual_scoring(parts.test, model)[1]


def usual_scoring(folder: Path, model: torch.nn.Module) -> tuple[float, float]:
    """Images per second of scoring a folder, and accuracy."""
    model.eval().to(DEVICE)
    right, seen, began = 0, 0, time.perf_counter()
    loader = usual_loader(folder, shuffle=False)
    with torch.inference_mode():
        for images, labels in loader:
            right += int((model(images.to(DEVICE)).argmax(1).cpu() == labels).sum())
            seen += len(labels)
    return seen / (time.perf_counter() - began), right / seen


def our_config(parts: Parts, epochs: int, backbone: str) -> RunConfig:
    """The same job for coverslip."""
    return load_config(
        {
            "data": {"path": str(parts.train)},
            "split": {"test": 0.0, "validation": 0.0},
            "pixels": {"height": SIZE, "width": SIZE, "colour": "rgb", "trim": "none"},
            "model": {"backbone": backbone, "weights": "none"},
            "training": {"regime": "scratch", "epochs": epochs, "batch_size": BATCH, "learning_rate": RATE, "schedule": "onecycle"},
        }
    )


def our_training(parts: Parts, epochs: int, backbone: str, folder: Path) -> tuple[float, float, float]:
    """Images per second of the loop, of loop and decoding together (from an empty cache), and test accuracy."""
    from coverslip.judge import evaluate_bundle

    began = time.perf_counter()
    config = our_config(parts, epochs, backbone)
    data = prepare(config)
    decoding = time.perf_counter() - began
    run(config, folder)
    fit = pd.read_csv(folder / "history.csv")
    seconds = fit["seconds"].sum()
    seen = fit["step"].max() * BATCH
    accuracy = evaluate_bundle(folder, parts.test, folder.parent / "judged").metrics["test"]["accuracy"]["value"]
    return seen / seconds, len(data.table) * epochs / (seconds + decoding), accuracy


def our_features(folder: Path, trained: Path, backbone: str) -> float:
    """Images per second from files to cached features of a network that was trained, from an empty cache."""
    config = our_config(Parts(folder, folder), 1, backbone)
    table = load_table(config.data, config.split)
    geometry = Geometry(SIZE, SIZE, "squash", RGB, 8)
    rows = np.arange(len(table))
    network = replace(load_bundle(trained).network, precision=choose_precision("auto", DEVICE))
    network.classifier.requires_grad_(False)
    began = time.perf_counter()
    pixels, _ = load_pixels(table, Reading.of(config.data), geometry, config.cache.limit)
    runtime = choose_runtime("auto", DEVICE, len(rows) * SIZE * SIZE)
    FeatureStore(network, pixels, config.augment, 0, config.cache.limit, runtime=runtime).rows(rows)
    return len(table) / (time.perf_counter() - began)


def main() -> None:
    """Run all three comparisons and write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--backbone", default=BACKBONE)
    options = parser.parse_args()
    backbone: str = options.backbone
    rows: list[tuple[str, float, float, float | None, float | None]] = []
    with tempfile.TemporaryDirectory() as holder:
        place = Path(holder)
        parts = draw_parts(options.data, options.images, place / "parts")
        os.environ["COVERSLIP_CACHE"] = str(place / "cache")
        ours, whole, our_accuracy = our_training(parts, options.epochs, backbone, place / "run")
        usual, usual_accuracy = usual_training(parts, options.epochs, backbone)
        rows.append(("training", ours, usual, our_accuracy, usual_accuracy))
        rows.append(("training, decoding included", whole, usual, our_accuracy, usual_accuracy))
        network = timm.create_model(backbone, num_classes=3)
        model = Model(place / "run")
        print("predict:", model.runtime().name)  # chosen once for a model on a machine; the cache keeps it
        scores = []
        for _ in range(3):
            for kind in ("pixels", "features"):
                shutil.rmtree(place / "cache" / kind, ignore_errors=True)
            features = our_features(parts.train, place / "run", backbone)
            usual_speed, _ = usual_scoring(parts.train, network)
            began = time.perf_counter()
            predicted = len(model.predict(parts.train)) / (time.perf_counter() - began)
            scores.append((features, predicted, usual_speed))
        features, predicted, usual_speed = np.median(np.array(scores), axis=0)
        rows.append(("probe features, from files", features, usual_speed, None, None))
        rows.append(("predict, from files", predicted, usual_speed, None, None))
    frame = pd.DataFrame(rows, columns=["what", "ours_images_per_second", "usual_images_per_second", "our_accuracy", "usual_accuracy"])
    frame.insert(3, "ratio", frame["ours_images_per_second"] / frame["usual_images_per_second"])
    RESULTS.mkdir(exist_ok=True)
    suffix = "" if backbone == BACKBONE else f"-{backbone}"
    frame.round(3).to_csv(RESULTS / f"training-{machine_name()}{suffix}.csv", index=False)
    print(frame.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
