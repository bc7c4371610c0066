"""Where the images of a training step come from: strategies by name, to be measured against each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from coverslip.config import RunConfig
from coverslip.data.decoding import PixelArray
from coverslip.data.geometry import Geometry
from coverslip.data.normalisation import Normalisation
from coverslip.data.reading import Reading
from coverslip.data.store import FilePixels, Pixels
from coverslip.data.streaming import Decoder, StreamedArray, decoding_slots
from coverslip.structures import File, IntArray


@dataclass(frozen=True)
class Material:
    """The images that speed is measured on, as it travels to another process.

    Attributes:
        config: every `auto` resolved.
        samples: the files of each of n images.
        targets: int64 (n,) of class indices, or (n, classes) of 0 and 1.
        classes: number of classes.
        reading: how the files of a sample become one image.
        geometry: how an image becomes stored pixels.
        normalisation: how those become a batch.
        stored: the file of their pixels in the cache.
        index: int64 (n,): where each image stands in that file.
        key: of the cache's entry.
        largest: pixels of the largest image, before it is resized.
    """

    config: RunConfig
    samples: tuple[tuple[File, ...], ...]
    targets: IntArray
    classes: int
    reading: Reading
    geometry: Geometry
    normalisation: Normalisation
    stored: Path
    index: IntArray
    key: str
    largest: int

    @property
    def image_bytes(self) -> int:
        """Bytes of one image's stored pixels."""
        return int(np.prod(self.geometry.shape)) * self.geometry.dtype.itemsize


@dataclass(frozen=True)
class Strategy:
    """A way to get the images of a step.

    Attributes:
        name: on the command line and in tables.
        words: in a sentence, after "batches of 32".
        read: gives the pixels.
        holds: where all pixels of a data set have to fit.
        frozen: whether only the head learns, on features that were computed once.
    """

    name: str
    words: str
    read: Callable[[Material], Pixels]
    holds: Literal["nowhere", "disk", "memory"]
    frozen: bool = False


def _from_disk(material: Material) -> Pixels:
    array: PixelArray = np.load(material.stored, mmap_mode="r", allow_pickle=False)
    return Pixels(array, material.index, material.key)


def _from_memory(material: Material) -> Pixels:
    return Pixels(_from_disk(material).read(np.arange(len(material.index))), np.arange(len(material.index)), material.key)


def _from_files(material: Material) -> Pixels:
    stored = _from_disk(material)
    return FilePixels(stored.array, stored.index, stored.key, material.samples, material.reading, material.geometry)


def _streamed(material: Material) -> Pixels:
    memory = material.config.memory.limit
    slots = decoding_slots(memory, material.largest, len(material.geometry.channels))
    decode = Decoder(material.reading, material.geometry, slots)
    array = StreamedArray(material.stored, 0, 0, material.samples, decode, memory)
    return Pixels(array, np.arange(len(material.index)), material.key)


STRATEGIES = {
    strategy.name: strategy
    for strategy in (
        Strategy("disk", "from the pixel cache on disk", _from_disk, "disk"),
        Strategy("memory", "from pixels in memory", _from_memory, "memory"),
        Strategy("stream", "decoded each time, ahead of the step", _streamed, "nowhere"),
        Strategy("none", "decoded from the files each time", _from_files, "nowhere"),
        Strategy("features", "of frozen features from the cache", _from_disk, "disk", frozen=True),
    )
}
"""By name; among equally fast ones the first is recommended: `coverslip train` reads the pixel cache on disk."""
