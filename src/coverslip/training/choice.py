"""No recipe given: choose one from what is seen, and say why in one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coverslip.structures import Task

CANDIDATES = ("mobilenetv2_100", "resnet18", "mobilenetv3_large_100", "resnet50", "mobilenetv2_035")
"""Backbones that are worth choosing, best first, on two cores in five minutes."""

OWN_BACKBONES = ("small_30k", "small_200k", "small_600k", "alexnet_grey")
"""Ours: nobody publishes weights for them."""

FEW_IMAGES = 500
"""Below this many images all layers cannot be learned well: a linear head on frozen features, judged by folds."""

DEFAULT_MINUTES = 5.0
LARGE_SIDE = 160
SMALL_SIDE = 64


@dataclass(frozen=True)
class Sight:
    """What the choice rests on.

    Attributes:
        images: number of images.
        classes: number of classes.
        task: binary or multiclass.
        height, width: median size of the images, in pixels.
        weights: candidates whose pretrained weights are on this machine, best first.
        asked_backbone, asked_regime, asked_weights: what the user set already, or None.
        minutes: the user's budget, or None.
        gpu: whether there is one.
    """

    images: int
    classes: int
    task: Task
    height: int
    width: int
    weights: tuple[str, ...]
    asked_backbone: str | None
    asked_regime: str | None
    minutes: float | None
    gpu: bool
    asked_weights: str | None = None


@dataclass(frozen=True)
class Choice:
    """A chosen recipe: its name, one line that says why, and its config layer."""

    name: str
    why: str
    layer: dict[str, Any]


def choose_recipe(sight: Sight) -> Choice:
    """Choose among a probe, fine-tuning, and a small network from scratch."""
    backbone = sight.asked_backbone or (sight.weights[0] if sight.weights else None)
    seen = f"{sight.images} images of {sight.width}x{sight.height} pixels in {sight.classes} classes"
    if backbone is None:
        return _scratch(sight, f"{seen}, no pretrained weights found on this machine")
    if sight.asked_regime == "scratch" or sight.asked_weights == "none":
        return _scratch(sight, f"{seen}, weights from scratch as asked")
    if backbone in OWN_BACKBONES and (sight.asked_regime or sight.asked_weights) is None:
        return _scratch(sight, f"{seen}, {backbone} asked for, which comes without pretrained weights")
    if sight.asked_regime == "probe" or (sight.images < FEW_IMAGES and sight.asked_regime is None):
        return _probe(sight, seen, backbone)
    return _finetune(sight, seen, backbone)


def _probe(sight: Sight, seen: str, backbone: str) -> Choice:
    reason = "a frozen backbone as asked" if sight.asked_regime else "too few to learn all layers"
    why = f"{seen}: {reason}; a linear head on frozen {backbone} features, judged by 5 folds, 3 times"
    layer = {
        "split": {"folds": 5, "repeats": 3, "validation": 0.0},
        "pixels": {"colour": "grey", "normalise": "backbone", "invert": False},
        "model": {"backbone": backbone},
        "training": {"regime": "probe", "optimizer": "exact", "views": 0},
    }
    return Choice("auto-probe", why, layer)


def _finetune(sight: Sight, seen: str, backbone: str) -> Choice:
    minutes = sight.minutes or DEFAULT_MINUTES
    height, width = working_size(sight.height, sight.width)
    found = f"pretrained {backbone} found" if backbone in sight.weights else f"{backbone} asked for"
    why = f"{seen}, {found}: all layers fine-tuned at {width}x{height} for {minutes:g} minutes, from a solved head on"
    layer = {
        "pixels": {"height": height, "width": width},
        "augment": {"horizontal_flip": True},
        "model": {"backbone": backbone},
        "training": {"regime": "finetune", "minutes": minutes, "optimizer": "adamw", "learning_rate": 1e-3, "ema": 0.99, "tta": "flips"},
    }
    return Choice("auto-finetune", why, layer)


def _scratch(sight: Sight, seen: str) -> Choice:
    minutes = sight.minutes or DEFAULT_MINUTES
    height, width = working_size(sight.height, sight.width)
    why = f"{seen}: a small network from scratch at {width}x{height} for {minutes:g} minutes"
    layer = {
        "pixels": {"height": height, "width": width},
        "augment": {"horizontal_flip": True},
        "model": {"backbone": sight.asked_backbone or "small_600k", "weights": "none"},
        "training": {"regime": "scratch", "minutes": minutes, "learning_rate": 3e-3, "ema": 0.99},
    }
    return Choice("auto-scratch", why, layer)


def working_size(height: int, width: int) -> tuple[int, int]:
    """A size for the network: the images' own shape within a budget of pixels, sides multiples of 16.

    >>> working_size(500, 750), working_size(64, 64), working_size(2000, 2000)
    ((128, 192), (128, 128), (160, 160))
    """
    ratio = min(2.0, max(0.5, width / max(height, 1)))
    side = LARGE_SIDE if max(height, width) > 2 * SMALL_SIDE else 2 * SMALL_SIDE
    rows, columns = side / ratio**0.5, side * ratio**0.5
    return max(32, 16 * round(rows / 16)), max(32, 16 * round(columns / 16))
