"""From a decoded image to the numbers that a network sees.

One resize for everything (`resize`), rounded once to the depth of the source. Training, evaluation and prediction all call
`Geometry.apply` and `Normalisation.apply`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coverslip.data.images import LUMA
from coverslip.data.resize import resize_columns, resize_rows
from coverslip.structures import GREY, RGB, Channel

PixelArray = npt.NDArray[Any]
"""uint8 or uint16."""
Fit = Literal["squash", "letterbox", "crop"]
_DTYPES = {8: torch.uint8, 16: torch.uint16}

WHOLE = (0.0, 0.0, 1.0, 1.0)
"""The box of an image that is not trimmed."""

NEAR_WHITE = 0.8
"""Mean brightness, in [0, 1], from which `invert = "auto"` takes images for dark ink on white."""


@dataclass(frozen=True)
class Geometry:
    """What is stored of an image.

    Attributes:
        height: rows, in pixels.
        width: columns, in pixels.
        fit: `squash`, `letterbox` or `crop`.
        channels: 1 (grey) or 3 (RGB).
        bits: 8 or 16, the depth that is kept.
        box: the part of the image that is looked at: top, left, bottom, right, as shares of its sides.
    """

    height: int
    width: int
    fit: Fit
    channels: int
    bits: int
    box: tuple[float, float, float, float] = WHOLE

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8 or uint16."""
        return np.dtype(np.uint8 if self.bits == 8 else np.uint16)

    @property
    def full(self) -> int:
        """The largest value of the stored depth."""
        return (1 << self.bits) - 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of a stored image."""
        return (self.height, self.width, self.channels)

    @property
    def channel_names(self) -> tuple[Channel, ...]:
        """The channels by name."""
        return GREY if self.channels == 1 else RGB

    def apply(self, image: PixelArray) -> PixelArray:
        """Resize one image.

        Args:
            image: uint8 or uint16 (h, w, c) with c = 1 or 3.

        Returns:
            uint8 or uint16 (height, width, channels).
        """
        scale = self.full / np.iinfo(image.dtype).max
        values = torch.from_numpy(np.ascontiguousarray(self._inside(image))).to(torch.float32)
        resized = self._fitted(values)
        if scale != 1:
            resized = resized * scale
        pixels: PixelArray = resized.round().clamp_(0, self.full).to(_DTYPES[self.bits]).contiguous().numpy()
        return pixels

    def _inside(self, image: PixelArray) -> PixelArray:
        if self.box == WHOLE:
            return image
        rows, columns = image.shape[:2]
        top, bottom = round(self.box[0] * rows), round(self.box[2] * rows)
        left, right = round(self.box[1] * columns), round(self.box[3] * columns)
        return image[min(top, rows - 1) : max(bottom, top + 1), min(left, columns - 1) : max(right, left + 1)]

    def _fitted(self, image: Tensor) -> Tensor:
        rows, columns = image.shape[:2]
        if self.fit == "squash":
            return self._resized(image, self.height, self.width)
        choose = min if self.fit == "letterbox" else max
        ratio = choose(self.height / rows, self.width / columns)
        inner = self._resized(image, max(1, round(rows * ratio)), max(1, round(columns * ratio)))
        if self.fit == "crop":
            top, left = (inner.shape[0] - self.height) // 2, (inner.shape[1] - self.width) // 2
            return inner[top : top + self.height, left : left + self.width]
        canvas = inner.mean(dim=(0, 1), keepdim=True).repeat(self.height, self.width, 1)
        top, left = (self.height - inner.shape[0]) // 2, (self.width - inner.shape[1]) // 2
        canvas[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
        return canvas

    def _resized(self, image: Tensor, height: int, width: int) -> Tensor:
        """Resize and change the channels between the two passes, where there are fewest pixels."""
        return resize_columns(_with_channels(resize_rows(image, height), self.channels), width)


def _with_channels(image: Tensor, channels: int) -> Tensor:
    """float32 (h, w, c): grey to RGB by copying, RGB to grey by ITU-R 601 luma."""
    if image.shape[2] == channels:
        return image
    if channels == 3:
        return image.expand(-1, -1, 3)
    return image @ image.new_tensor(LUMA)[:, None]


@dataclass(frozen=True)
class Normalisation:
    """From stored pixels to the network's input.

    Attributes:
        full: the stored value that stands for 1.
        invert: whether 1 - x takes the place of x.
        per_image: whether mean and deviation are each image's own.
        mean: per channel, on [0, 1] after inversion.
        deviation: per channel, on [0, 1].
    """

    full: int
    invert: bool
    per_image: bool
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def apply(self, pixels: Tensor) -> Tensor:
        """Normalise a batch.

        Args:
            pixels: uint8 or uint16 (n, h, w, c), on any device.

        Returns:
            float32 (n, c, h, w), channels last in memory.
        """
        values = pixels.permute(0, 3, 1, 2).to(torch.float32)
        sign = -1.0 if self.invert else 1.0
        offset = 1.0 if self.invert else 0.0
        if self.per_image:
            values = values.mul(sign / self.full).add_(offset)
            mean = values.mean(dim=(1, 2, 3), keepdim=True)
            deviation = values.std(dim=(1, 2, 3), keepdim=True, correction=0).clamp_min(1e-4)
            return (values - mean) / deviation
        deviation = values.new_tensor(self.deviation).reshape(1, -1, 1, 1)
        mean = values.new_tensor(self.mean).reshape(1, -1, 1, 1)
        return values.mul_(sign / (self.full * deviation)).add_((offset - mean) / deviation)

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(fields: dict[str, Any]) -> Normalisation:
        """The inverse of `to_json`."""
        return Normalisation(**{**fields, "mean": tuple(fields["mean"]), "deviation": tuple(fields["deviation"])})


def pixel_statistics(
    array: PixelArray, rows: npt.NDArray[np.int64], full: int, most: int = 2000
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard deviation per channel, on [0, 1], over at most `most` of the rows, evenly spaced.

    Args:
        array: (n, h, w, c) stored pixels.
        rows: int64 (m,), m >= 1: the training rows.
        full: the stored value that stands for 1.
    """
    chosen = rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(np.int64)]
    total, squares, count = np.zeros(array.shape[-1]), np.zeros(array.shape[-1]), 0
    for row in chosen:
        values = array[row].reshape(-1, array.shape[-1]).astype(np.float64) / full
        total += values.sum(axis=0)
        squares += np.square(values).sum(axis=0)
        count += len(values)
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 1e-8))
