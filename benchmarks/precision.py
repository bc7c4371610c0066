"""Training and scoring in bfloat16 against float32, by network: what `training.precision = "auto"` chooses by on a CPU.

Both take turns in one run, so that a drift of the machine's speed meets both. Weights are random, images too.

    python benchmarks/precision.py

Writes benchmarks/results/precision-<machine>.csv: images per second, and bfloat16 as a share of float32.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

from coverslip.runtime import WAITING

os.environ.update(WAITING | dict(os.environ))

import pandas as pd
import torch
from torch import Tensor

from coverslip.config import ModelConfig
from coverslip.models.classifier import Classifier, build_classifier
from coverslip.models.hardware import autocast, choose_device, keeping_memory, wait_for
from machine import machine_name

MODELS = (
    "resnet18", "resnet50", "mobilenetv2_035", "mobilenetv2_100", "efficientnet_b0", "densenet121", "convnext_tiny", "vit_tiny_patch16_224",
    "vgg16", "small_30k", "small_200k",
)  # fmt: skip
RESULTS = Path(__file__).parent / "results"


def speed(step: Callable[[], object], images: int, device: torch.device, seconds: float) -> float:
    """Images per second of a step that takes so many."""
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds or not done:
        step()
        wait_for(device)
        done += images
    return done / (time.perf_counter() - began)


def steps(classifier: Classifier, batch: Tensor, precision: str, *, training: bool) -> Callable[[], object]:
    """Forward and backward, or forward alone."""
    device = batch.device

    def learn() -> None:
        classifier.train()
        with autocast(device, precision):
            loss = classifier(batch).float().square().mean()
        loss.backward()

    def score() -> None:
        classifier.eval()
        with torch.inference_mode(), autocast(device, precision):
            classifier(batch)

    return learn if training else score


def measure(name: str, size: int, batch_size: int, seconds: float) -> dict[str, object]:
    """Four speeds of one network: the median of three turns."""
    device = choose_device("auto")
    classifier = build_classifier(ModelConfig(backbone=name, weights="none"), channels=3, classes=3, size=(size, size), seed=0).to(device)
    classifier = classifier.to(memory_format=torch.channels_last)
    batch = torch.rand(batch_size, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    turns: dict[str, list[float]] = {}
    with keeping_memory(device):
        for turn in range(4):
            for training in (True, False):
                for precision in ("32", "bf16"):
                    step = steps(classifier, batch, precision, training=training)
                    found = speed(step, batch_size, device, seconds if turn else 0.0)
                    if turn:
                        turns.setdefault(f"{'training' if training else 'scoring'}_{precision}", []).append(found)
    row: dict[str, object] = {name: sorted(values)[1] for name, values in turns.items()}
    for what in ("training", "scoring"):
        row[f"{what}_ratio"] = float(str(row[f"{what}_bf16"])) / float(str(row[f"{what}_32"]))
    return {"model": name} | row


def main() -> None:
    """Measure every network and write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    rows = []
    for name in options.models:
        rows.append(measure(name, options.size, options.batch_size, options.seconds))
        print(pd.DataFrame(rows[-1:]).round(2).to_string(index=False), flush=True)
    RESULTS.mkdir(exist_ok=True)
    pd.DataFrame(rows).round(2).to_csv(RESULTS / f"precision-{machine_name()}.csv", index=False)


if __name__ == "__main__":
    main()
