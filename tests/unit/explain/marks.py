"""Images whose truth is known: stripes somewhere on noise decide by their direction, all else says nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from coverslip.bundle import Bundle
from coverslip.config import load_config
from coverslip.data.reading import Reading
from coverslip.evaluation.decision import Decision
from coverslip.fitting import fit_arrays
from coverslip.structures import Channel, Task

SIDE = 64
MARK = 15
CLASSES = ("across", "down")
Image = np.ndarray[Any, Any]


def mark(label: int) -> Image:
    """(15, 15) of -1 and 1: stripes across (0) or down (1), within a circle; their mean brightness is the same."""
    y, x = np.mgrid[:MARK, :MARK] - MARK // 2
    stripes = np.where((y if label == 0 else x) // 2 % 2 == 0, 1.0, -1.0)
    drawn: Image = stripes * (np.hypot(y, x) <= 7.5)
    return drawn


def marked(label: int, generator: np.random.Generator, channels: int = 1, channel: int = 0) -> tuple[Image, Image]:
    """uint8 (64, 64, channels) with a mark in one channel and a blot of light in each, and bool (64, 64): where the mark is."""
    y, x = np.mgrid[:SIDE, :SIDE]
    image = generator.normal(90, 12, (SIDE, SIDE, channels))
    for plane in range(channels):
        down, across = generator.uniform(0, SIDE, 2)
        image[..., plane] += 60 * np.exp(-((y - down) ** 2 + (x - across) ** 2) / 60)
    top, left = generator.integers(2, SIDE - MARK - 2, 2)
    place = np.s_[top : top + MARK, left : left + MARK]
    image[(*place, channel)] += 55 * mark(label)
    truth = np.zeros((SIDE, SIDE), dtype=np.bool_)
    truth[place] = True
    return image.clip(0, 255).round().astype(np.uint8), truth


def make_marks(n: int, seed: int, channels: int = 1, channel: int = 0) -> tuple[list[Image], np.ndarray[Any, Any], list[Image]]:
    """n images, their labels, and where their marks are."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    pairs = [marked(int(label), generator, channels, channel) for label in labels]
    return [image for image, _ in pairs], labels, [truth for _, truth in pairs]


def marks_bundle(
    backbone: str = "small_200k", channels: tuple[str, ...] = (), channel: int = 0, epochs: int = 12, **changes: Any
) -> Bundle:
    """A bundle that tells stripes across from stripes down."""
    images, labels, _ = make_marks(160, 0, max(len(channels), 1), channel)
    config = load_config(
        {
            "data": {"channels": list(channels)} if channels else {},
            "pixels": {"height": SIDE, "width": SIDE, "colour": "channels" if channels else "grey", "invert": False},
            "model": {"backbone": backbone, "weights": "none"},
            "training": {"regime": "scratch", "epochs": epochs, "batch_size": 16, "seed": 1, "device": "cpu", "precision": "32"},
        }
    )
    network = replace(fit_arrays(config, images, labels, 2), settled=True)
    reading = Reading(channels=Channel.of(*channels))
    return Bundle(network, Task.BINARY, CLASSES, Decision(Task.BINARY), reading, {"backbone": backbone})
