"""The sentences of the methods paragraph about the images: how they were read, brought to the network, and augmented."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coverslip.report.citations import Citations
from coverslip.report.files import RunFiles, items, within
from coverslip.report.numbers import listed, share


def channel_names(run: RunFiles) -> list[str]:
    """The channels that were chosen, by their own names; none for grey and RGB images."""
    stated = within(run.config, "data").get("channels")
    return [str(name) for name in stated] if isinstance(stated, (list, Mapping)) else []


def pixels(run: RunFiles) -> list[str]:
    """What was done to every image."""
    asked = within(run.config, "pixels")
    if not asked:
        return []
    height, width = asked.get("height"), asked.get("width") or asked.get("height")
    fits = {
        "squash": "by antialiased interpolation without keeping the aspect ratio",
        "letterbox": "by antialiased interpolation with the aspect ratio kept, and padded",
        "crop": "by antialiased interpolation with the aspect ratio kept, and cropped to the centre",
    }
    to = f" to {height} × {width} pixels (height × width)" if height else ""
    colour = {
        "grey": "converted to grey values",
        "rgb": "read as RGB",
        "channels": f"read as the channels {listed(channel_names(run))}",
    }.get(str(asked.get("colour")))
    steps = [*_trimmed(asked.get("trim")), *([colour] if colour else []), f"resized{to} {fits.get(str(asked.get('fit')), '')}".rstrip()]
    steps += _ranged(asked.get("range"), items(asked, "percentiles"))
    if asked.get("invert") is True:
        steps.append("inverted")
    steps += {
        "backbone": ["normalised by the mean and standard deviation of the network’s pretraining"],
        "dataset": ["normalised by the mean and standard deviation of the training part"],
        "image": ["normalised by their own mean and standard deviation"],
        "none": ["scaled to [0, 1]"],
    }.get(str(asked.get("normalise")), [])
    return [f"Images were {listed(steps)}."]


def _trimmed(trim: object) -> list[str]:
    """What was cut off first; `trim` holds the top, left, bottom and right edge of what is kept, as shares of the image."""
    if not isinstance(trim, list) or len(trim) != 4 or trim == [0, 0, 1, 1]:
        return []
    top, left, bottom, right = (f"{100 * edge:.3g}" for edge in trim)
    return [f"cut to {top}–{bottom} % of their height and {left}–{right} % of their width"]


def _ranged(stated: object, percentiles: Sequence[Any]) -> list[str]:
    """To which range the values were brought; nothing for the full range of integers."""
    if isinstance(stated, list) and stated:
        pairs = stated if isinstance(stated[0], list) else [stated]
        return [f"clipped to {listed([f'{pair[0]:g}–{pair[1]:g}' for pair in pairs])}{' channel by channel' if len(pairs) > 1 else ''}"]
    ends = "–".join(f"{value:g}" for value in percentiles)
    return {
        "dataset": [f"clipped to percentiles {ends} of each channel over the training part"],
        "image": [f"clipped to percentiles {ends} of each channel of the image"],
    }.get(str(stated), [])


def augmentation(run: RunFiles, marks: Citations) -> list[str]:
    """What was done to training images only."""
    augment = within(run.config, "augment")
    if not augment:
        return []
    phrases = [
        (augment.get("horizontal_flip"), "horizontal mirroring"),
        (augment.get("vertical_flip"), "vertical mirroring"),
        (augment.get("quarter_turns"), "turns by multiples of 90°"),
        (augment.get("rotation_degrees"), f"rotation by up to ±{augment.get('rotation_degrees')}°"),
        (augment.get("random_crop"), f"shifts by up to {share(augment.get('random_crop'))} of the side"),
        (augment.get("crop_scale", 1.0) != 1.0, f"resized crops of {share(augment.get('crop_scale'))} to 100 % of the area"),
        (
            augment.get("brightness"),
            f"changes of brightness and contrast by up to {share(augment.get('brightness'))} of the image’s standard deviation",
        ),
        (augment.get("noise"), f"Gaussian noise of up to {share(augment.get('noise'))} of the image’s standard deviation"),
    ]
    changes = [phrase for active, phrase in phrases if active]
    mixup = f"Pairs of training images were mixed (mixup{marks.cite('mixup')}, α = {augment.get('mixup')})." if augment.get("mixup") else ""
    frozen = within(run.config, "training")
    if frozen.get("regime") == "probe" and frozen.get("views") == 0:
        return []
    return [*([f"Training images were augmented at random by {listed(changes)}."] if changes else []), *([mixup] if mixup else [])]
