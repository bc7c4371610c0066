"""What a fit works on: pixels with their targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from coverslip.data.store import Pixels
from coverslip.structures import IntArray


@dataclass(frozen=True)
class Samples:
    """What a fit works on: pixels with their targets.

    Attributes:
        pixels: n stored images.
        targets: int64 (n,) of class indices, or (n, classes) of 0 and 1 with several labels an image.
        classes: number of classes.
        ties: int64 (n,): rows with one number (group, duplicates) belong together.
    """

    pixels: Pixels
    targets: IntArray
    classes: int
    ties: IntArray

    @property
    def several(self) -> bool:
        """Whether an image may carry several labels."""
        return self.targets.ndim == 2

    def of_classes(self, columns: Sequence[int]) -> Samples:
        """The same images with some of the classes only, where an image may carry several."""
        return replace(self, targets=self.targets[:, list(columns)], classes=len(columns))
