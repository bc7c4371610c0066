"""Whether a graph gives torch's scores: real images, from their files, by the graph and by the bundle's own way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from coverslip.bundle import Bundle
from coverslip.data.decoding import ImageReadError, PixelArray
from coverslip.errors import ExportError
from coverslip.graphs.assembly import DTYPES
from coverslip.runtime import Progress, no_progress
from coverslip.structures import File, FloatArray

TOLERANCE = 1e-4
"""Largest difference of a score between a graph and torch in float32."""
MOST_TOGETHER = 8
"""Images of one size that a graph is given at once."""

Score = Callable[[npt.NDArray[Any]], FloatArray]
"""Scores (n, classes) of decoded images (n, h, w, c)."""


@dataclass(frozen=True)
class Parity:
    """A comparison with torch.

    Attributes:
        images: how many were compared.
        largest_difference: of a score, in [0, 1].
        mean_difference: of all scores.
        decisions_differ: images that are decided otherwise.
        tolerance: what was allowed.
        left_out: images that could not be read, or are deeper than the graph takes.
    """

    images: int
    largest_difference: float
    mean_difference: float
    decisions_differ: int
    tolerance: float
    left_out: int

    @property
    def holds(self) -> bool:
        """Whether the graph gives torch's scores."""
        return self.images > 0 and self.largest_difference <= self.tolerance

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def demand(self, what: str) -> Parity:
        """Itself, where it holds.

        Raises:
            ExportError: it does not.
        """
        if self.holds:
            return self
        if not self.images:
            raise ExportError(f"{what} could not be compared with torch: none of {self.left_out} images could be used")
        raise ExportError(
            f"{what} differs from torch: by up to {self.largest_difference:.2g} on {self.images} images, where {self.tolerance} is allowed;"
            " nothing was written. Predict with coverslip in place of the export, and please report the architecture"
        )


def as_graph_takes(image: PixelArray, depth: int) -> PixelArray | None:
    """A decoded image at the depth of a graph; None where it is deeper, or one of them is floating point."""
    found = image.dtype.itemsize * 8
    if found == depth:
        return image
    return image.astype(np.uint16) * np.uint16(257) if (found, depth) == (8, 16) else None


def scored(score: Score, images: Sequence[PixelArray]) -> FloatArray:
    """Scores, float64 (n, classes), of decoded images, neighbours of one size together."""
    found = []
    for _, group in groupby(images, key=lambda image: image.shape):
        alike = list(group)
        found += [score(np.stack(alike[start : start + MOST_TOGETHER])) for start in range(0, len(alike), MOST_TOGETHER)]
    return np.concatenate(found)


def decoded(bundle: Bundle, samples: Sequence[tuple[File, ...]], depth: int, size: int = 16) -> Iterator[list[PixelArray | None]]:
    """The images of samples as a graph of that depth takes them, some at a time; None of one that it cannot take."""
    for start in range(0, len(samples), size):
        yield [_decoded(bundle, files, depth) for files in samples[start : start + size]]


def _decoded(bundle: Bundle, files: tuple[File, ...], depth: int) -> PixelArray | None:
    try:
        image = bundle.reading.read(files)[0]
        bundle.network.geometry.apply(image)
    except ImageReadError:
        return None
    return as_graph_takes(image, depth)


def compare_with_torch(
    score: Score, bundle: Bundle, samples: Sequence[tuple[File, ...]], depth: int, progress: Progress = no_progress
) -> Parity:
    """Hold a graph against the bundle.

    Args:
        score: the graph.
        bundle: the model, in float32.
        samples: the files of real images.
        depth: bits of the pixels that the graph takes.
        progress: told about each batch.
    """
    differences, others, left_out = [np.zeros((0, len(bundle.classes)))], 0, 0
    for part in decoded(bundle, samples, depth):
        images = [image for image in part if image is not None]
        left_out += len(part) - len(images)
        if images:
            found = scored(score, images)
            expected = bundle.scores([np.stack([bundle.network.geometry.apply(image) for image in images])])
            differences.append(np.abs(found - expected))
            others += int((_rows(bundle.decide(found)) != _rows(bundle.decide(expected))).any(axis=1).sum())
        progress("comparing", sum(map(len, differences)) + left_out, len(samples), {})
    every = np.concatenate(differences)
    most, mean = (float(every.max()), float(every.mean())) if len(every) else (0.0, 0.0)
    return Parity(len(every), most if np.isfinite(every).all() else float("inf"), mean, others, TOLERANCE, left_out)


def _rows(decisions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return decisions.reshape(len(decisions), -1)


def depth_of(bundle: Bundle, wanted: int | None) -> int:
    """Bits of the pixels that a graph takes: as stated, or those that the model keeps.

    Raises:
        ExportError: floating point where integers are kept, or the other way round.
    """
    kept = bundle.network.geometry.bits
    depth = kept if wanted is None else wanted
    if depth not in DTYPES or (depth == 32) != (kept == 32):
        raise ExportError(f"--depth {depth}: this model was trained on {kept}-bit pixels; say {'32' if kept == 32 else '8 or 16'}")
    return depth
