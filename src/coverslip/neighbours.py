"""What the training images look like to a model: the nearest ones to a new image, and whether it is unlike all of them.

Distances are Euclidean between feature vectors brought to length 1, to which the logarithm of their length is added as one more number: a
picture without content gives short vectors whose direction may be that of any other. The distance of an image is the mean over its five
nearest training images (after Sun et al. 2022, "Out-of-distribution detection with deep nearest neighbors").
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from coverslip.errors import BundleError
from coverslip.runtime import one_blas_thread, write_file, write_json
from coverslip.structures import BoolArray, FloatArray, IntArray

NEAREST = 5
"""Training images whose mean distance is the distance of an image."""
FALSE_ALARMS = 0.01
"""Share of images like the training images that may be called unlike them, where the reference is large enough to tell."""
FEWEST = 9
"""Images that a reference needs."""
SIDE = 96
"""Longest side of a thumbnail, in pixels."""
STORED = np.float16
"""How vectors are written, and rounded before they are used, so that a run and its bundle agree."""
LONGEST = 5.0
"""Largest logarithm of a length, up or down."""
FEATURES, FACTS, THUMBNAILS = FILES = ("features.safetensors", "neighbours.json", "thumbnails.zip")
"""What is written of them."""
LARGEST = 1 << 20
"""Bytes of a thumbnail that is read back, at most."""
FEW = 256
"""Images whose distances one thread works out, at most."""

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Near:
    """A training image near an image.

    Attributes:
        label: its label; several joined with `|`.
        distance: 0 and above.
        image: its name; empty where the bundle keeps none.
        thumbnail: a small JPEG file; empty where the bundle keeps none.
    """

    label: str
    distance: float
    image: str = ""
    thumbnail: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class Neighbours:
    """Training images as a model sees them.

    Attributes:
        vectors: float32 (n, features + 1): feature vectors brought to length 1, and the logarithm of their length, in units of `length`.
        length: the median length of the feature vectors.
        labels: of each training image; several joined with `|`.
        reference: float64 (m,), ascending: distances of images that stand for new ones.
        source: which images those are, in words.
        images: the name of each training image, or nothing.
        thumbnails: a small JPEG file of each, or nothing.
    """

    vectors: Vectors
    length: float
    labels: tuple[str, ...]
    reference: FloatArray
    source: str
    images: tuple[str, ...] = ()
    thumbnails: tuple[bytes, ...] = field(default=(), repr=False)

    @staticmethod
    def of(features: Vectors, labels: Sequence[str], images: Sequence[str] = (), thumbnails: Sequence[bytes] = ()) -> Neighbours:
        """Of the features of training images, float32 (n, features), n >= 1; without a reference yet."""
        length = max(float(np.median(np.linalg.norm(features, axis=1))), 1e-12)
        vectors = place(features, length).astype(STORED).astype(np.float32)
        return Neighbours(vectors, length, tuple(labels), np.zeros(0), "", tuple(images), tuple(thumbnails))

    def nearest(self, features: Vectors, count: int = NEAREST) -> tuple[FloatArray, IntArray]:
        """Distances and places of the nearest training images, float64 and int64 (m, count), nearest first; fewer where there are fewer.

        Args:
            features: float32 (m, features).
            count: how many of each.
        """
        count = min(count, len(self.vectors))
        squares = self._squares(place(features, self.length))
        some = np.argpartition(squares, count - 1, axis=1)[:, :count]
        order = np.take_along_axis(some, np.argsort(np.take_along_axis(squares, some, axis=1), axis=1, kind="stable"), axis=1)
        return np.sqrt(np.take_along_axis(squares, order, axis=1)), order.astype(np.int64)

    def distances(self, features: Vectors) -> FloatArray:
        """How far each image is from the training images, float64 (m,)."""
        return np.asarray(self.nearest(features)[0].mean(axis=1))

    def own_distances(self, ties: IntArray) -> FloatArray:
        """How far each training image is from the others, without those that it is tied to; float64, those that have others.

        Args:
            ties: int64 (n,), images of one number are duplicates or of one group.
        """
        squares = self._squares(self.vectors)
        squares[ties[:, None] == ties[None, :]] = np.inf
        close = np.sqrt(np.sort(squares, axis=1)[:, :NEAREST])
        known = np.isfinite(close)
        return np.asarray(np.where(known, close, 0).sum(axis=1) / known.sum(axis=1))[known.any(axis=1)]

    def _squares(self, places: Vectors) -> FloatArray:
        """Squared distances, float64 (m, n), of float32 (m, features + 1) from the training images."""
        with one_blas_thread() if len(places) <= FEW else nullcontext():
            products = (places @ self.vectors.T).astype(np.float64)
        found: FloatArray = np.maximum(_square_lengths(places)[:, None] + self._square_lengths[None] - 2 * products, 0)
        return found

    @cached_property
    def _square_lengths(self) -> Vectors:
        return _square_lengths(self.vectors)

    @property
    def alarms(self) -> int:
        """How many images of the reference lie beyond the bound."""
        return max(0, int(FALSE_ALARMS * (len(self.reference) + 1) + 1e-9) - 1)

    @property
    def bound(self) -> float | None:
        """The distance beyond which an image is unlike the training images; None where the reference is too small to tell."""
        return float(self.reference[-1 - self.alarms]) if len(self.reference) >= FEWEST else None

    def unlike(self, distances: FloatArray) -> BoolArray | None:
        """Whether images are unlike all training images, bool (m,); None where that cannot be told."""
        return None if self.bound is None else np.asarray(distances > self.bound)

    @property
    def note(self) -> str:
        """What `unlike` promises, in words."""
        if self.bound is None:
            return (
                f"uncertain: images are not held against the training images: that needs {FEWEST} {self.source}, and there are "
                f"{len(self.reference)}"
            )
        rate = (self.alarms + 1) / (len(self.reference) + 1)
        honest = "" if self.source.startswith("validation") else "; the model knows these, so that more will be"
        return (
            f"uncertain: an image is unlike the training images when it is farther from them than {self._all} of {len(self.reference)} "
            f"{self.source}; of images like these {rate:.1%} are called so by chance{honest}"
        )

    @property
    def _all(self) -> str:
        return f"all but {self.alarms}" if self.alarms else "all"

    def text(self, distance: float) -> str:
        """What a distance says, in words."""
        if self.bound is None:
            return f"Distance from the training images: {distance:.2f}; too few {self.source} to say whether that is far."
        farther = int((self.reference >= distance).sum())
        verdict = "Unlike all training images. " if distance > self.bound else ""
        reference = f"{farther} of {len(self.reference)} {self.source} are as far or farther"
        return f"{verdict}Distance from the training images: {distance:.2f}; {reference}."

    def about(self, features: Vectors, count: int) -> list[Near]:
        """The nearest training images of one image, float32 (features,)."""
        distances, places = self.nearest(features[None], count)
        return [
            Near(
                self.labels[row],
                float(distance),
                self.images[row] if self.images else "",
                self.thumbnails[row] if self.thumbnails else b"",
            )
            for distance, row in zip(distances[0], places[0].tolist(), strict=True)
        ]

    def save(self, folder: Path) -> None:
        """Write `features.safetensors`, `neighbours.json`, and `thumbnails.zip` where there are some."""
        folder.mkdir()
        tensors = {"vectors": self.vectors.astype(STORED), "length": np.array([self.length]), "reference": self.reference}
        write_file(folder / FEATURES, save(tensors))
        facts = {"labels": list(self.labels), "images": list(self.images), "source": self.source, "nearest": NEAREST, "bound": self.bound}
        write_json(folder / FACTS, facts)
        if self.thumbnails:
            stream = io.BytesIO()
            with zipfile.ZipFile(stream, "w") as archive:
                for place, data in enumerate(self.thumbnails):
                    archive.writestr(zipfile.ZipInfo(f"{place}.jpg"), data)
            write_file(folder / THUMBNAILS, stream.getvalue())

    @staticmethod
    def load(folder: Path) -> Neighbours:
        """Read what `save` wrote.

        Raises:
            BundleError: a file is missing or damaged.
        """
        try:
            tensors = load_file(folder / FEATURES)
            facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            labels, images = tuple(map(str, facts["labels"])), tuple(map(str, facts["images"]))
            thumbnails = _read_thumbnails(folder / THUMBNAILS, len(labels))
            vectors, length = tensors["vectors"].astype(np.float32), float(tensors["length"][0])
            found = Neighbours(vectors, length, labels, tensors["reference"], str(facts["source"]), images, thumbnails)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError, zipfile.BadZipFile) as error:
            raise BundleError(f"{folder} cannot be read: {error}; copy the bundle anew, or remove this folder to do without") from error
        if vectors.ndim != 2 or len(vectors) != len(labels) or len(images) not in (0, len(labels)):
            raise BundleError(f"{folder} is damaged: {vectors.shape} features of {len(labels)} images; copy the bundle anew")
        return found


def _read_thumbnails(path: Path, count: int) -> tuple[bytes, ...]:
    if not path.is_file():
        return ()
    with zipfile.ZipFile(path) as archive:
        found = []
        for place in range(count):
            entry = archive.getinfo(f"{place}.jpg")
            if entry.file_size > LARGEST:
                raise ValueError(f"{path.name} holds a thumbnail of {entry.file_size} bytes")
            found.append(archive.read(entry))
    return tuple(found)


def thumbnail(picture: npt.NDArray[np.uint8], aspect: float | None = None) -> bytes:
    """A small JPEG file of uint8 (h, w, 3), at most 96 pixels a side.

    Args:
        picture: what is shown.
        aspect: width by height, where it is another one than the picture has.
    """
    ratio = aspect or picture.shape[1] / picture.shape[0]
    size = (SIDE, max(1, round(SIDE / ratio))) if ratio >= 1 else (max(1, round(SIDE * ratio)), SIDE)
    stream = io.BytesIO()
    Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS).save(stream, format="JPEG", quality=85)
    return stream.getvalue()


def place(features: Vectors, length: float) -> Vectors:
    """Where images lie: float32 (n, features + 1), of feature vectors (n, features) and the length that counts as 1."""
    norms = np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    logs = np.log(norms / length).clip(-LONGEST, LONGEST)
    return np.concatenate([features / norms, logs], axis=1).astype(np.float32)


def _square_lengths(places: Vectors) -> Vectors:
    lengths: Vectors = np.square(places).sum(axis=1)
    return lengths
