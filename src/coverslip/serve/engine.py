"""What scores images for the server: an interface of two steps, so that any runtime can stand behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from coverslip.data.decoding import PixelArray
from coverslip.data.reading import FileContent
from coverslip.predict import Model
from coverslip.structures import FloatArray


@dataclass(frozen=True)
class Scores:
    """What a model says of n images.

    Attributes:
        probabilities: calibrated, float64 (n, classes).
        distances: float64 (n,) from the training images; None where the model does not know them.
    """

    probabilities: FloatArray
    distances: FloatArray | None = None


class Engine(Protocol):
    """A model that is ready. `read` is called by several threads at once, `scores` by one at a time."""

    def read(self, files: Sequence[FileContent]) -> PixelArray:
        """Decode and resize one sample, one file or one a channel, to stored pixels (height, width, channels).

        Raises:
            ImageReadError: a file cannot be used.
        """
        ...

    def scores(self, pixels: PixelArray) -> Scores:
        """What the model says of stored pixels (n, height, width, channels)."""
        ...


class BundleEngine:
    """A bundle, computed by the engine that was asked for, or by the fastest on this machine.

    Args:
        model: what scores.
        max_pixels: largest image that is decoded; the bundle's own bound holds too.
    """

    def __init__(self, model: Model, max_pixels: int) -> None:
        self._bundle = model.bundle
        self._runtime = model.runtime()
        self._reading = replace(model.bundle.reading, max_pixels=min(max_pixels, model.bundle.reading.max_pixels))

    def read(self, files: Sequence[FileContent]) -> PixelArray:
        """See `Engine.read`."""
        return self._bundle.network.geometry.apply(self._reading.read(files)[0])

    def scores(self, pixels: PixelArray) -> Scores:
        """See `Engine.scores`."""
        probabilities, features = self._runtime.scores_and_features(pixels)
        known = self._bundle.neighbours
        return Scores(probabilities, None if known is None or features is None else known.distances(features))
