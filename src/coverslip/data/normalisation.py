"""From stored pixels to the numbers that a network sees, the same in training, evaluation and prediction."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coverslip.data.decoding import PixelArray

PERCENTILE_PIXELS = 16_384
"""Most pixels of a channel that the percentiles of an image rest on."""

MOST_AHEAD = 64
"""Images that statistics read ahead where they come from a store."""

NEAR_WHITE = 0.8
"""Mean brightness, in [0, 1], from which `invert = "auto"` takes images for dark ink on white."""


@dataclass(frozen=True)
class Normalisation:
    """From stored pixels to the network's input, each channel by itself: to a range, inverted, standardised.

    Attributes:
        low, high: the stored values that become 0 and 1, one a channel.
        percentiles: of each image and channel, in (0, 100), in the place of `low` and `high`; None to take those.
        clip: whether what lies outside becomes 0 or 1.
        invert: whether 1 - x takes the place of x.
        per_image: `none`, or mean and deviation are each image's own: over all channels `together`, or of `each` channel.
        mean: subtracted where `per_image` is `none`.
        deviation: divided by where `per_image` is `none`.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    percentiles: tuple[float, float] | None = None
    clip: bool = False
    invert: bool = False
    per_image: Literal["none", "together", "each"] = "none"
    mean: tuple[float, ...] = (0.0,)
    deviation: tuple[float, ...] = (1.0,)

    def apply(self, pixels: Tensor) -> Tensor:
        """Normalise a batch.

        Args:
            pixels: uint8, uint16 or float32 (n, h, w, c), on any device.

        Returns:
            float32 (n, c, h, w), channels last in memory.
        """
        values = self._ranged(pixels.permute(0, 3, 1, 2).to(torch.float32))
        if self.invert:
            values = values.neg_().add_(1.0)
        if self.per_image == "none":
            return values.sub_(_planes(values, self.mean)).div_(_planes(values, self.deviation))
        axes = (1, 2, 3) if self.per_image == "together" else (2, 3)
        deviation = values.std(dim=axes, keepdim=True, correction=0).clamp_min(1e-4)
        return values.sub_(values.mean(dim=axes, keepdim=True)).div_(deviation)

    def _ranged(self, values: Tensor) -> Tensor:
        """float32 (n, c, h, w) with `low` at 0 and `high` at 1. Never changes its argument, which may be the stored pixels."""
        if self.percentiles is not None:
            low, high = image_percentiles(values, self.percentiles)
        else:
            low, high = _planes(values, self.low), _planes(values, self.high)
        scaled = (values - low).div_(high - low)
        return scaled.clamp_(0, 1) if self.clip else scaled

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(fields: dict[str, Any]) -> Normalisation:
        """The inverse of `to_json`."""
        plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        return Normalisation(**plain)


def _planes(values: Tensor, numbers: tuple[float, ...]) -> Tensor:
    """Numbers, one a channel or one for all, to be broadcast over (n, c, h, w); one number alone is several times as fast."""
    alike = len(set(numbers)) == 1
    return values.new_tensor(numbers[0]) if alike else values.new_tensor(numbers).reshape(1, -1, 1, 1)


def image_percentiles(values: Tensor, percentiles: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Two percentiles of each image and channel, (n, c, 1, 1) each and never equal, from at most 16,384 of its pixels, evenly spaced.

    Args:
        values: float32 (n, c, h, w).
        percentiles: in [0, 100]; between two values by straight lines, as numpy does.
    """
    step = pixel_stride(values.shape[2] * values.shape[3], PERCENTILE_PIXELS)
    ordered = values[..., ::step, ::step].flatten(2).sort(dim=2).values
    found = []
    for percentile in percentiles:
        place = percentile / 100 * (ordered.shape[2] - 1)
        before = ordered[..., int(place)]
        after = ordered[..., min(int(place) + 1, ordered.shape[2] - 1)]
        found.append((before + (after - before) * (place - int(place)))[..., None, None])
    low, high = found
    return low, torch.where(high > low, high, low + 1 + low.abs())


def dataset_percentiles(array: Any, rows: npt.NDArray[np.int64], percentiles: tuple[float, float]) -> tuple[list[float], list[float]]:
    """Two percentiles of each channel over at most 500 of the rows, and 16,384 pixels of each, evenly spaced; never equal.

    Args:
        array: (n, h, w, c) stored pixels.
        rows: int64 (m,), m >= 1: the training rows.
        percentiles: in [0, 100].
    """
    chosen = _evenly(rows, 500)
    step = pixel_stride(array.shape[1] * array.shape[2], PERCENTILE_PIXELS)
    values = np.concatenate([image[::step, ::step].reshape(-1, array.shape[-1]) for image in _in_turn(array, chosen)])
    low, high = np.percentile(values, percentiles, axis=0)
    return low.tolist(), np.where(high > low, high, low + 1 + np.abs(low)).tolist()


def pixel_statistics(
    array: Any, rows: npt.NDArray[np.int64], ranged: Normalisation, most: int = 2000
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard deviation per channel over at most `most` of the rows, evenly spaced.

    Args:
        array: (n, h, w, c) stored pixels.
        rows: int64 (m,), m >= 1: the training rows.
        ranged: how they come to their range; its mean and deviation are left aside.
    """
    plain = replace(ranged, per_image="none", mean=(0.0,), deviation=(1.0,))
    total, squares, count = np.zeros(array.shape[-1]), np.zeros(array.shape[-1]), 0
    for image in _in_turn(array, _evenly(rows, most)):
        values = plain.apply(torch.from_numpy(np.array(image[None]))).double()
        total += values.sum(dim=(0, 2, 3)).numpy()
        squares += values.square().sum(dim=(0, 2, 3)).numpy()
        count += values[0, 0].numel()
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 1e-8))


def _in_turn(array: Any, rows: npt.NDArray[np.int64]) -> Iterator[PixelArray]:
    """The rows of an array one by one; one that is read from far away is told what comes next."""
    ahead = min(getattr(array, "ahead", 0), MOST_AHEAD)
    for place, row in enumerate(rows):
        if ahead:
            array.expect(rows[place : place + ahead])
        yield array[int(row)]


def pixel_stride(pixels: int, most: int) -> int:
    """Every how many rows and columns are looked at so that few enough pixels are."""
    return math.isqrt(max(pixels - 1, 0) // most) + 1


def _evenly(rows: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    """At most so many of the rows, evenly spaced."""
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(np.int64)]
