"""Tiny pictures that a tiny network learns in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coverslip.config import RunConfig, load_config
from coverslip.data.geometry import GREY, Geometry
from coverslip.data.normalisation import Normalisation
from coverslip.data.store import Pixels
from coverslip.models.classifier import build_classifier
from coverslip.network import Network
from coverslip.training.samples import Samples

TINY: dict[str, dict[str, Any]] = {
    "model": {"backbone": "small_30k", "weights": "none"},
    "training": {"regime": "scratch", "batch_size": 8, "epochs": 3, "learning_rate": 3e-3, "precision": "32"},
}
MakeConfig = Callable[..., RunConfig]
MakeNetwork = Callable[..., Network]
MakeSamples = Callable[..., Samples]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVERSLIP_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def make_config() -> MakeConfig:
    """The tiny config, with some keys replaced: `make_config(training={"epochs": 2})`."""
    return lambda **sections: load_config(TINY, sections)


@pytest.fixture(scope="session")
def make_network() -> MakeNetwork:
    """An unfitted network for grey 32x32 images, the same at each call."""

    def make(config: RunConfig, *, classes: int = 2) -> Network:
        classifier = build_classifier(config.model, channels=1, classes=classes, size=(32, 32), seed=0)
        normalisation = Normalisation((0.0,), (255.0,), mean=(0.4,), deviation=(0.25,))
        geometry = Geometry(32, 32, "squash", GREY, 8)
        return Network(classifier, geometry, normalisation, config.augment, config.training.tta, torch.device("cpu"), "32")

    return make


@pytest.fixture(scope="session")
def make_samples() -> MakeSamples:
    """n noisy images; class c has a bright bar at a place of its own, and is `level` times c brighter."""

    def make(n: int = 48, *, classes: int = 2, noise: float = 25.0, level: float = 0.0, seed: int = 0) -> Samples:
        generator = np.random.default_rng(seed)
        targets = np.arange(n) % classes
        images = generator.normal(80, noise, (n, 32, 32, 1))
        height = 32 // classes
        images += level * targets.reshape(-1, 1, 1, 1)
        for image, target in zip(images, targets, strict=True):
            image[target * height : target * height + 4] += 120
        pixels = Pixels(images.clip(0, 255).astype(np.uint8), np.arange(n), f"bars {n} {classes} {noise} {level} {seed}")
        return Samples(pixels, targets.astype(np.int64), classes, np.arange(n))

    return make
