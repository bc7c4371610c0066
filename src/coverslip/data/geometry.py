"""What is stored of an image: one resize for everything, rounded once to the depth of the source.

Training, evaluation and prediction all call `Geometry.apply`. Without torch, which takes longer to load than many images to read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from coverslip.data.decoding import ImageReadError, PixelArray
from coverslip.data.images import LUMA
from coverslip.data.luma import Luma, luma_of, whole_of
from coverslip.data.resize import HALF, Floats, resize_columns, resize_rows

Fit = Literal["squash", "letterbox", "crop"]
GREY = ("grey",)
RGB = ("red", "green", "blue")

WHOLE = (0.0, 0.0, 1.0, 1.0)
"""The box of an image that is not trimmed."""


@dataclass(frozen=True)
class Geometry:
    """What is stored of an image.

    Attributes:
        height: rows, in pixels.
        width: columns, in pixels.
        fit: `squash`, `letterbox` or `crop`.
        channels: the names of the planes: `("grey",)`, `("red", "green", "blue")`, or those that the config chooses.
        bits: the depth that is kept: 8, 16, or 32 for floating point, whose values are kept as they are.
        box: the part of the image that is looked at: top, left, bottom, right, as shares of its sides.
    """

    height: int
    width: int
    fit: Fit
    channels: tuple[str, ...]
    bits: int
    box: tuple[float, float, float, float] = WHOLE

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8, uint16 or float32."""
        return np.dtype({8: np.uint8, 16: np.uint16, 32: np.float32}[self.bits])

    @property
    def full(self) -> int:
        """The stored value that stands for the largest one of the files; 1 for floating point, which has none."""
        return 1 if self.bits == 32 else (1 << self.bits) - 1

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of a stored image."""
        return (self.height, self.width)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of a stored image."""
        return (self.height, self.width, len(self.channels))

    def apply(self, image: PixelArray, luma: Luma | None = None) -> PixelArray:
        """Resize one image.

        Integers are brought to the stored depth first, so that an 8-bit file and its copy at 16 bits give the same pixels.

        Args:
            image: uint8, uint16 or float32 (h, w, c); c = 1, 3, or as many as there are channels.
            luma: of the image, where it was computed already.

        Returns:
            uint8, uint16 or float32 (height, width, channels).

        Raises:
            ImageReadError: floating point where integers are kept or the other way round, or another number of channels.
        """
        if (image.dtype.kind == "f") != (self.bits == 32):
            raise ImageReadError(f"{image.dtype} pixels, where most images have {self.dtype} pixels; save all images alike")
        grey = (luma or luma_of(image)) if self.channels == GREY else None
        planes = image.shape[2] if grey is None else 1
        whole = whole_of(image) if grey is None else grey.values[..., None]
        values = np.ascontiguousarray(self._inside(whole), dtype=np.float32)
        scale = 1 if self.bits == 32 else self.full / np.iinfo(image.dtype).max
        if scale != 1:
            values = values * np.float32(scale)
        resized = self._fitted(values, planes)
        if self.bits < 32:
            resized = np.clip(resized + np.float32(HALF), 0, self.full)  # what follows rounds down
        pixels: PixelArray = np.array(resized, dtype=self.dtype, order="C")
        return pixels

    def _inside(self, image: PixelArray) -> PixelArray:
        if self.box == WHOLE:
            return image
        rows, columns = image.shape[:2]
        top, bottom = round(self.box[0] * rows), round(self.box[2] * rows)
        left, right = round(self.box[1] * columns), round(self.box[3] * columns)
        return image[min(top, rows - 1) : max(bottom, top + 1), min(left, columns - 1) : max(right, left + 1)]

    def _fitted(self, image: Floats, planes: int) -> Floats:
        rows, columns = image.shape[:2]
        if self.fit == "squash":
            return self._resized(image, planes, self.height, self.width)
        choose = min if self.fit == "letterbox" else max
        ratio = choose(self.height / rows, self.width / columns)
        inner = self._resized(image, planes, max(1, round(rows * ratio)), max(1, round(columns * ratio)))
        if self.fit == "crop":
            top, left = (inner.shape[0] - self.height) // 2, (inner.shape[1] - self.width) // 2
            return inner[top : top + self.height, left : left + self.width]
        canvas = np.tile(inner.mean(axis=(0, 1), dtype=np.float64, keepdims=True).astype(np.float32), (self.height, self.width, 1))
        top, left = (self.height - inner.shape[0]) // 2, (self.width - inner.shape[1]) // 2
        canvas[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
        return canvas

    def _resized(self, image: Floats, planes: int, height: int, width: int) -> Floats:
        """Resize the first planes, and change the channels between the two passes, where there are fewest pixels."""
        return resize_columns(_with_channels(resize_rows(image, height)[..., :planes], self.channels), width)


def _with_channels(image: Floats, channels: tuple[str, ...]) -> Floats:
    """float32 (h, w, c): grey to RGB by copying, RGB to grey by ITU-R 601 luma.

    Raises:
        ImageReadError: any other change of the number of channels.
    """
    if image.shape[2] == len(channels):
        return image
    if image.shape[2] == 1 and channels == RGB:
        return np.repeat(image, 3, axis=2)
    if image.shape[2] == 3 and channels == GREY:
        return image @ np.array(LUMA, dtype=np.float32)[:, None]
    raise ImageReadError(f"{image.shape[2]} channels, where {len(channels)} are expected ({', '.join(channels)})")
