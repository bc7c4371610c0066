"""Prediction against a plain torch loop, in one run on one machine: mobilenetv2_100 at 224x224, files on disk in, scores out.

The plain loop: Pillow, torchvision's resize, batches of 32, the network in float32 in evaluation mode under `torch.inference_mode`. Ours:
`coverslip predict --runtime auto` on the same files and weights. They take turns, so that a drift of the machine's speed meets both.
Beside them stand the plain network on images that lie in memory already, and each runtime on its own.

    COVERSLIP_WEIGHTS=../shared/weights python benchmarks/serving.py --data ../shared/data/charts --images 400

Writes benchmarks/results/serving-<machine>.csv: images per second, the ratio to the plain loop, the largest difference of a probability
from torch in float32, and how many images are decided otherwise.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from coverslip.runtime import WAITING

os.environ.update(WAITING | dict(os.environ))

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torchvision.transforms import v2

from coverslip.bundle import Bundle, save_bundle
from coverslip.config import AugmentConfig, ModelConfig
from coverslip.data.files import files_below
from coverslip.data.geometry import RGB, Geometry
from coverslip.data.normalisation import Normalisation
from coverslip.data.reading import Reading
from coverslip.evaluation.decision import Decision
from coverslip.models.classifier import build_classifier
from coverslip.network import Network
from coverslip.predict import Model
from coverslip.structures import Task
from machine import machine_name

BACKBONE, SIZE, BATCH, CLASSES = "mobilenetv2_100", 224, 32, ("a", "b", "c")
RESULTS = Path(__file__).parent / "results"


def make_bundle(place: Path, files: list[Path]) -> Path:
    """A bundle with learned backbone weights, and a head whose scores of these images differ."""
    classifier = build_classifier(ModelConfig(backbone=BACKBONE), channels=3, classes=len(CLASSES), size=(SIZE, SIZE), seed=0)
    network = Network(
        classifier=classifier, geometry=Geometry(SIZE, SIZE, "squash", RGB, 8), augment=AugmentConfig(), tta="none", settled=False,
        normalisation=Normalisation((0.0,), (255.0,), mean=classifier.backbone.mean, deviation=classifier.backbone.std),
        device=torch.device("cpu"), precision="32",
    )  # fmt: skip
    reading = Reading()
    images = [reading.read([file])[0] for file in files[:: max(1, len(files) // 16)]]
    with torch.inference_mode():
        logits = classifier.eval()(network.batch(np.stack([network.geometry.apply(image) for image in images])))
    with torch.no_grad():
        head = classifier.head
        assert isinstance(head, torch.nn.Linear)
        spread = 4 * logits.std(dim=0)
        head.bias.sub_(logits.mean(dim=0)).div_(spread)
        head.weight.div_(spread[:, None])
    bundle = Bundle(replace(network, settled=True), Task.MULTICLASS, CLASSES, Decision(Task.MULTICLASS), reading, {})
    save_bundle(bundle, place, images[:3], "# benchmark\n")
    return place


def plain_loop(model: Model, files: list[Path]) -> np.ndarray:
    """What a tutorial writes."""
    backbone = model.bundle.network.classifier.backbone
    prepare = v2.Compose(
        [
            v2.PILToTensor(), v2.Resize((SIZE, SIZE), antialias=True), v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(list(backbone.mean), list(backbone.std)),
        ]
    )  # fmt: skip
    network = model.bundle.network.classifier.to(memory_format=torch.contiguous_format).eval()
    found = []
    with torch.inference_mode():
        for start in range(0, len(files), BATCH):
            batch = torch.stack([prepare(Image.open(file).convert("RGB")) for file in files[start : start + BATCH]])
            found.append(network(batch).softmax(dim=1).numpy())
    return np.concatenate(found)


def plain_network(model: Model, images: int) -> None:
    """The network alone, on images in memory."""
    network = model.bundle.network.classifier.to(memory_format=torch.contiguous_format).eval()
    batch = torch.rand(BATCH, 3, SIZE, SIZE)
    with torch.inference_mode():
        for _ in range(-(-images // BATCH)):
            network(batch)


def measure(rows: dict[str, Callable[[], object]], images: int, turns: int) -> dict[str, float]:
    """Images per second of each, the median of some turns in which each goes once."""
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(turns):
        for name, work in rows.items():
            began = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - began)
    return {name: images / float(np.median(times)) for name, times in seconds.items()}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder of images")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    every = [options.data / name for name in files_below(options.data)[0]]
    files = [every[place] for place in np.linspace(0, len(every) - 1, options.images).round().astype(int)]
    with tempfile.TemporaryDirectory() as folder:
        bundle = make_bundle(Path(folder) / "bundle", files)
        models = {name: Model(bundle, device="cpu", runtime=name) for name in ("torch", "onnx", "openvino", "auto")}
        began = time.perf_counter()
        chosen = models["auto"].runtime()
        prepared = time.perf_counter() - began
        reference = models["torch"].predict_proba(files)
        work: dict[str, Callable[[], object]] = {
            "plain torch loop": lambda: plain_loop(models["torch"], files),
            "plain torch network alone": lambda: plain_network(models["torch"], options.images),
        }
        work |= {f"predict --runtime {name}": partial(model.predict, files) for name, model in models.items()}
        for name in work:
            print("warming up:", name)
            work[name]()
        speeds = measure(work, options.images, options.turns)
        rows = []
        for name, speed in speeds.items():
            runtime = name.rpartition(" ")[2]
            found = models[runtime].predict_proba(files) if runtime in models else None
            rows.append(
                {
                    "what": name,
                    "engine": models[runtime].runtime().name if runtime in models else "torch",
                    "images": options.images,
                    "images_per_second": round(speed, 1),
                    "ratio_to_plain_loop": round(speed / speeds["plain torch loop"], 2),
                    "largest_difference": None if found is None else float(f"{np.abs(found - reference).max():.2g}"),
                    "decided_otherwise": None if found is None else int((found.argmax(axis=1) != reference.argmax(axis=1)).sum()),
                }
            )
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    print(f"auto chose {chosen.name} in precision {chosen.precision}, after {prepared:.1f} s of preparing and measuring, once a model")
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(RESULTS / f"serving-{machine_name()}.csv", index=False)


if __name__ == "__main__":
    main()
