"""No recipe given: choose one from what is seen, and say why in one line."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from coverslip.structures import Task
from coverslip.training.symmetry import UNTESTED, Symmetry

Hardware = Literal["cpu", "bf16", "gpu"]

CANDIDATES = ("mobilenetv2_100", "resnet18", "mobilenetv3_large_100", "resnet50", "mobilenetv2_035")
"""Backbones that are worth choosing, best first, on two cores in five minutes."""

OWN_BACKBONES = ("small_30k", "small_200k", "small_600k", "curve_160k", "curve_630k", "alexnet_grey")
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
UPPER_SHARE = 0.5
"""Where the lower half stays as it is: the layers up to this share of the multiply-adds. What is above learns in a seventh of the time."""
VIEWS, FEWEST_VIEWS = 5, 1
"""Augmented copies of each image that the frozen layers look at, and the fewest that are worth it."""
FROZEN_TIME = 0.4
"""Share of the budget that this may take."""
FROZEN_BYTES = 0.5
"""Share of `cache.limit` that what they give may take."""
SMALLEST_AREA, LARGEST_AREA = 96 * 96, 224 * 224


@dataclass(frozen=True)
class LowerHalf:
    """What it costs to compute and keep what the lower half of a backbone gives.

    Attributes:
        pixels_per_second: what is planned with: a fifth to half of what torch computes on two cores without AMX (6.5, 25, 9.6 and 7.4
            million, as they stand below), for copies are augmented and written, too.
        bytes_per_pixel: of the image, in half precision.
    """

    pixels_per_second: float
    bytes_per_pixel: float


LOWER_HALVES = {
    "mobilenetv2_100": LowerHalf(3e6, 0.5),
    "mobilenetv2_035": LowerHalf(6e6, 0.5),
    "mobilenetv3_large_100": LowerHalf(3e6, 0.63),
    "resnet18": LowerHalf(1.5e6, 4.0),
}
"""Backbones whose lower half is cheap enough; of others all layers learn."""


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
        cache_limit: `cache.limit`, in bytes.
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
    cache_limit: int = 20_000_000_000

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
    lower = LOWER_HALVES.get(backbone) if keeps_lower_half(sight, backbone, minutes) else None
    height, width = working_size(sight, minutes, lower=lower)
    square = height == width
    found = f"pretrained {backbone} found" if backbone in sight.weights else f"{backbone} asked for"
    budget, length = sight.budget
    layers = "the upper half of its layers" if lower else "all layers"
    how = f"{layers} fine-tuned at {width}x{height} for {length}, from a solved head on"
    why = f"{seen}, {found}: {how}; {sight.symmetry.sentence}"
    layer = {
        "pixels": {"height": height, "width": width},
        "augment": {**_flips(sight, square=square), "random_crop": 0.04},
        "model": {"backbone": backbone},
        "training": {
            "regime": "finetune", **budget, "optimizer": "adamw", "learning_rate": 2e-3, "backbone_rate": 0.5,
            "weight_decay": 0.02, "ema": 0.99, "tta": _copies(sight, square=square),
            **({"frozen_share": UPPER_SHARE, "views": _kept_views(sight, lower, height * width)} if lower else {}),
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


def keeps_lower_half(sight: Sight, backbone: str, minutes: float) -> bool:
    """Whether a fine-tuning leaves the lower half of the layers as they are: where a CPU has no time for enough passes of all layers.

    Many passes of the upper half are then worth more than few of all, if there is time to compute what the lower half gives.
    """
    lower = LOWER_HALVES.get(backbone)
    if sight.hardware == "gpu" or lower is None:
        return False
    least = prod(sight.asked_size) if sight.asked_size else SMALLEST_AREA
    return _area_for_all(sight, minutes) < _wanted_area(sight) and _area_for_upper(sight, minutes, lower, FEWEST_VIEWS) >= least


def _wanted_area(sight: Sight) -> float:
    """Pixels that an image has at best: those asked for, or twice its own in each direction, up to 224x224."""
    if sight.asked_size:
        return float(prod(sight.asked_size))
    return min(4.0 * max(sight.height, 16) * max(sight.width, 16), LARGEST_AREA)


def _area_for_all(sight: Sight, minutes: float) -> float:
    """Pixels that an image may have for all layers to learn from it often enough."""
    return PIXELS_PER_SECOND[sight.hardware] * 60 * minutes / (EPOCHS * TRAIN_SHARE * max(sight.images, 1))


def _area_for_upper(sight: Sight, minutes: float, lower: LowerHalf, views: int) -> float:
    """Pixels that an image may have for the lower half to look at it and so many copies in its share of the time and of the cache."""
    looks = (1 + views) * TRAIN_SHARE * max(sight.images, 1)
    in_time = lower.pixels_per_second * FROZEN_TIME * 60 * minutes / looks
    return min(in_time, FROZEN_BYTES * sight.cache_limit / (lower.bytes_per_pixel * looks))


def _kept_views(sight: Sight, lower: LowerHalf, area: int) -> int:
    """Augmented copies for which there is room in the cache; fitting makes fewer where they would take too long."""
    room = FROZEN_BYTES * sight.cache_limit / (lower.bytes_per_pixel * area * TRAIN_SHARE * max(sight.images, 1))
    return min(VIEWS, max(FEWEST_VIEWS, int(room) - 1))


def working_size(sight: Sight, minutes: float, *, lower: LowerHalf | None = None) -> tuple[int, int]:
    """A size for the network: what was asked for, or the images' own shape, as large as the budget allows, sides multiples of 16.

    At most twice the images' own size, at least 96x96 and at most 224x224 in area.
    """
    if sight.asked_size:
        return sight.asked_size
    ratio = min(2.0, max(0.5, sight.width / max(sight.height, 1)))
    affordable = _area_for_upper(sight, minutes, lower, VIEWS) if lower else _area_for_all(sight, minutes)
    area = min(max(affordable, SMALLEST_AREA), _wanted_area(sight))
    rows, columns = (area / ratio) ** 0.5, (area * ratio) ** 0.5
    return max(32, 16 * round(rows / 16)), max(32, 16 * round(columns / 16))
