"""No recipe given: choose one from what is seen, and say why in one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from coverslip.structures import Task
from coverslip.training.symmetry import UNTESTED, Symmetry

Hardware = Literal["cpu", "bf16", "gpu"]

CANDIDATES = ("mobilenetv2_100", "resnet18", "mobilenetv3_large_100", "resnet50", "mobilenetv2_035")
"""Backbones that are worth choosing, best first, on two cores in five minutes."""

OWN_BACKBONES = ("small_30k", "small_200k", "small_600k", "alexnet_grey")
"""Ours: nobody publishes weights for them."""

FEW_IMAGES = 500
"""Below this many images all layers cannot be learned well: a linear head on frozen features, judged by folds."""

DEFAULT_MINUTES = 5.0
TRAIN_SHARE = 0.7
"""Share of the images that is trained on, as the default split has it."""
EPOCHS = 8
"""Passes over the training part that a budget should allow; the images are made as large as that permits."""
PIXELS_PER_SECOND = {"cpu": 0.65e6, "bf16": 1.6e6, "gpu": 5e7}
"""Pixels that a MobileNetV2 learns from in a second: two cores, two cores that multiply matrices in bfloat16, and a GPU."""
SMALLEST_AREA, LARGEST_AREA = 96 * 96, 224 * 224


@dataclass(frozen=True)
class Sight:
    """What the choice rests on.

    Attributes:
        images: number of images.
        classes: number of classes.
        task: binary or multiclass.
        height, width: median size of the images, in pixels.
        weights: candidates whose pretrained weights are on this machine or can be fetched, best first.
        asked_backbone, asked_regime, asked_weights: what the user set already, or None.
        minutes: the user's budget, or None.
        asked_length: another length that the user set, in words, or None: no budget is then added.
        hardware: `gpu`, or a CPU with units for bfloat16 matrices (`bf16`) or without (`cpu`).
        asked_size: (height, width) that the user set already, or None.
        symmetry: which flips and turns the images allow.
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
    hardware: Hardware
    asked_weights: str | None = None
    symmetry: Symmetry = UNTESTED
    asked_length: str | None = None
    asked_size: tuple[int, int] | None = None

    @property
    def budget(self) -> tuple[dict[str, float], str]:
        """The config keys of the length of a training, and the length in words."""
        if self.asked_length and not self.minutes:
            return {}, self.asked_length
        minutes = self.minutes or DEFAULT_MINUTES
        return {"minutes": minutes}, f"{minutes:g} minutes"


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
        return _scratch(sight, f"{seen}, no pretrained weights on this machine, and no hub that answers")
    if sight.asked_regime == "scratch" or sight.asked_weights == "none":
        return _scratch(sight, f"{seen}, weights from scratch as asked")
    if backbone in OWN_BACKBONES and (sight.asked_regime or sight.asked_weights) is None:
        return _scratch(sight, f"{seen}, {backbone} asked for, which comes without pretrained weights")
    if sight.asked_regime == "probe" or (sight.images < FEW_IMAGES and sight.asked_regime is None):
        return _probe(sight, seen, backbone)
    return _finetune(sight, seen, backbone)


def _probe(sight: Sight, seen: str, backbone: str) -> Choice:
    few = sight.images < FEW_IMAGES
    reason = "a frozen backbone as asked" if sight.asked_regime else "too few to learn all layers"
    judged = "judged by 5 folds, 3 times" if few else "judged on the test part"
    why = f"{seen}: {reason}; a linear head on frozen {backbone} features, {judged}"
    layer = {
        "split": {"folds": 5, "repeats": 3, "test": 0.0, "validation": 0.0} if few else {},
        "pixels": {"normalise": "backbone", "invert": False},
        "model": {"backbone": backbone},
        "training": {"regime": "probe", "optimizer": "exact", "views": 0},
    }
    return Choice("auto-probe", why, layer)


def _finetune(sight: Sight, seen: str, backbone: str) -> Choice:
    minutes = sight.minutes or DEFAULT_MINUTES
    height, width = working_size(sight, minutes)
    square = height == width
    found = f"pretrained {backbone} found" if backbone in sight.weights else f"{backbone} asked for"
    budget, length = sight.budget
    how = f"all layers fine-tuned at {width}x{height} for {length}, from a solved head on"
    why = f"{seen}, {found}: {how}; {sight.symmetry.sentence}"
    layer = {
        "pixels": {"height": height, "width": width},
        "augment": {**_flips(sight, square=square), "random_crop": 0.04},
        "model": {"backbone": backbone},
        "training": {
            "regime": "finetune", **budget, "optimizer": "adamw", "learning_rate": 2e-3, "backbone_rate": 0.5,
            "weight_decay": 0.02, "ema": 0.99, "tta": _copies(sight, square=square),
        },
    }  # fmt: skip
    return Choice("auto-finetune", why, layer)


def _scratch(sight: Sight, seen: str) -> Choice:
    minutes = sight.minutes or DEFAULT_MINUTES
    height, width = working_size(sight, minutes)
    square = height == width
    budget, length = sight.budget
    why = f"{seen}: a small network from scratch at {width}x{height} for {length}; {sight.symmetry.sentence}"
    layer = {
        "pixels": {"height": height, "width": width},
        "augment": {**_flips(sight, square=square), "random_crop": 0.04},
        "model": {"backbone": sight.asked_backbone or "small_600k", "weights": "none"},
        "training": {
            "regime": "scratch", **budget, "learning_rate": 3e-3, "ema": 0.99, "tta": _copies(sight, square=square),
        },
    }  # fmt: skip
    return Choice("auto-scratch", why, layer)


def _flips(sight: Sight, *, square: bool) -> dict[str, bool]:
    allowed = sight.symmetry
    return {"horizontal_flip": allowed.horizontal, "vertical_flip": allowed.vertical, "quarter_turns": allowed.turns and square}


def _copies(sight: Sight, *, square: bool) -> str:
    allowed = sight.symmetry
    if allowed.turns and allowed.horizontal and allowed.vertical and square:
        return "turns"
    return "flips" if allowed.horizontal or allowed.vertical else "none"


def working_size(sight: Sight, minutes: float) -> tuple[int, int]:
    """A size for the network: what was asked for, or the images' own shape, as large as the budget allows, sides multiples of 16.

    At most twice the images' own size, at least 96x96 and at most 224x224 in area.
    """
    ratio = min(2.0, max(0.5, sight.width / max(sight.height, 1)))
    if sight.asked_size:
        return sight.asked_size
    affordable = PIXELS_PER_SECOND[sight.hardware] * 60 * minutes / (EPOCHS * TRAIN_SHARE * max(sight.images, 1))
    own = 4.0 * max(sight.height, 16) * max(sight.width, 16)
    area = min(max(affordable, SMALLEST_AREA), own, LARGEST_AREA)
    rows, columns = (area / ratio) ** 0.5, (area * ratio) ** 0.5
    return max(32, 16 * round(rows / 16)), max(32, 16 * round(columns / 16))
