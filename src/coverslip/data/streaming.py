"""Stored pixels of which some lie on disk, and the others are read from where they are each time, ahead of their use."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coverslip.data.cache import Hold
from coverslip.data.decoding import ImageReadError, PixelArray
from coverslip.data.geometry import Geometry
from coverslip.data.images import Fetched
from coverslip.data.pools import image_threads
from coverslip.data.reading import Facts, Reading
from coverslip.errors import BadImagesError, UnreachableError
from coverslip.runtime import cpu_count
from coverslip.storage import AT_ONCE
from coverslip.structures import File, IntArray

AHEAD_SHARE = 0.5
"""Share of the memory limit that images read ahead may take; the others on their way, as files and decoded, take the rest."""
DECODING_SHARE = 0.25
COPIES = 6
"""Bytes that a value of an image takes, at most, while it is decoded and resized: as it is read, and as floating point."""

Sample = tuple[File, ...] | npt.NDArray[Any]
"""The files of a sample, or its pixels."""
PixelsOrReason = tuple[PixelArray, str] | str
"""Stored pixels and the SHA-256 of the files, or why there are none."""
Arrange = Callable[[np.random.Generator, IntArray, IntArray], IntArray]
"""Table rows in random order, and their places in the array → the same rows in an order that the source can be read in."""


@dataclass(frozen=True)
class SampleReader:
    """From the files of a sample to its stored pixels, in any thread or process.

    Attributes:
        reading: how the files become one image.
        geometry: what is stored of it.
    """

    reading: Reading
    geometry: Geometry

    def __call__(self, files: Sequence[File]) -> tuple[PixelArray, Facts]:
        """The stored pixels (h, w, c), and what the files say of themselves.

        Raises:
            ImageReadError: a file cannot be used.
        """
        image, facts = self.reading.read(files)
        return self.geometry.apply(image), facts


def pixels_or_reason(reader: SampleReader, read: Callable[[tuple[File, ...]], tuple[PixelArray, Facts]], sample: Sample) -> PixelsOrReason:
    """Stored pixels and SHA-256 of a sample, or the reason why there are none; an array has no hash.

    Args:
        reader: what does it with arrays.
        read: what does it with files: the reader, or a `Decoder`.
        sample: its files, or its pixels.

    Raises:
        UnreachableError: a store does not answer.
    """
    try:
        if isinstance(sample, np.ndarray):
            return reader.geometry.apply(reader.reading.of_array(sample)), ""
        pixels, facts = read(sample)
        return pixels, facts.sha256
    except ImageReadError as error:
        return str(error)
    except UnreachableError:
        raise
    except OSError as error:
        return error.strerror or type(error).__name__


class Decoder:
    """From the files of a sample to its stored pixels, for many threads: all may fetch; decoding is left to few, whose memory is bounded.

    Args:
        reading: how the files become one image.
        geometry: what is stored of it.
        slots: images that are decoded at the same time.
    """

    def __init__(self, reading: Reading, geometry: Geometry, slots: int) -> None:
        self.reading, self.geometry, self._read = reading, geometry, SampleReader(reading, geometry)
        self._pool = image_threads(slots)
        weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)

    def __call__(self, files: Sequence[File]) -> PixelArray:
        """The stored pixels (h, w, c) of one sample.

        Raises:
            ImageReadError: a file cannot be used.
            UnreachableError: a store does not answer.
        """
        return self.read_with_facts(files)[0]

    def read_with_facts(self, files: Sequence[File]) -> tuple[PixelArray, Facts]:
        """The stored pixels of one sample, with what its files say of themselves."""
        fetched = [Fetched(file, self.reading.max_pixels) for file in files]
        return self._pool.submit(self._read, fetched).result()


def decoding_slots(memory: int, largest: int, channels: int) -> int:
    """How many images may be decoded at the same time.

    Args:
        memory: limit, in bytes.
        largest: pixels of the largest image.
        channels: of an image.
    """
    one = max(1, largest * max(3, channels) * COPIES)
    return max(1, min(cpu_count(), int(DECODING_SHARE * memory) // one))


class StreamedArray:
    """Pixels (n, h, w, c) as an array of numpy, as far as training and scoring use one.

    The first rows lie in a file on disk, which is read, not mapped, so that it takes no memory of the process; the others are fetched
    and decoded each time, several at once. What `expect` announces is read ahead, within the memory limit.

    Args:
        kept: .npy file of the rows that lie on disk.
        start: where their values begin in it, in bytes.
        count: how many rows those are: 0 to count - 1.
        samples: the files of each of n samples.
        decode: from files to stored pixels.
        memory: limit in bytes.
        arrange: brings a random order of rows into one that the source can be read in; None where any will do.
        hold: keeps the file in the cache for as long as this array lives.
    """

    def __init__(
        self, kept: Path, start: int, count: int, samples: Sequence[tuple[File, ...]], decode: Decoder, memory: int,
        arrange: Arrange | None = None, hold: Hold | None = None,
    ) -> None:  # fmt: skip
        geometry = decode.geometry
        self.shape = (len(samples), *geometry.shape)
        self.dtype, self.ndim = geometry.dtype, 4
        self.samples, self.decode, self.count, self.arrange, self.hold = samples, decode, count, arrange, hold
        self._stream, self._start, self._lock = kept.open("rb"), start, threading.Lock()
        self._row_bytes = int(np.prod(geometry.shape)) * geometry.dtype.itemsize
        self.ahead = max(1, int(AHEAD_SHARE * memory) // self._row_bytes)
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="coverslip-stream")
        self._waiting: dict[int, Future[PixelArray]] = {}
        weakref.finalize(self, self._stream.close)
        weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> PixelArray:
        """Rows by number, slice or int array; further indices are applied to what was read.

        Raises:
            BadImagesError: an image can no longer be read.
            UnreachableError: a store does not answer.
        """
        rows, *rest = key if isinstance(key, tuple) else (key,)
        numbers = np.arange(len(self))[rows]
        array = self._read(np.atleast_1d(numbers).tolist())
        chosen = array[0] if np.ndim(numbers) == 0 else array
        return chosen[(slice(None),) * (np.ndim(numbers) > 0) + tuple(rest)] if rest else chosen

    def expect(self, rows: IntArray) -> None:
        """Read the rows that will be asked for next, as many as may be held; what was expected before and is not any more is dropped."""
        wanted = list(dict.fromkeys(row for row in rows.tolist() if row >= self.count))[: self.ahead]
        for row in set(self._waiting) - set(wanted):
            self._waiting.pop(row).cancel()
        for row in wanted:
            if row not in self._waiting:
                self._waiting[row] = self._begin(row)

    def _read(self, rows: list[int]) -> PixelArray:
        out = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        coming: dict[int, Future[PixelArray]] = {}
        for row in rows:
            if row >= self.count and row not in coming:
                ready = self._waiting.pop(row) if row in self._waiting else None
                coming[row] = ready or self._begin(row)
        for place, row in enumerate(rows):
            out[place] = coming[row].result() if row >= self.count else self._stored(row)
        return out

    def _stored(self, row: int) -> npt.NDArray[Any]:
        with self._lock:
            self._stream.seek(self._start + row * self._row_bytes)
            data = self._stream.read(self._row_bytes)
        return np.frombuffer(data, dtype=self.dtype).reshape(self.shape[1:])

    def _begin(self, row: int) -> Future[PixelArray]:
        """Read a row into memory of this thread: among the decoders' large blocks it would keep those from being used again."""
        return self._pool.submit(self._decoded, row, np.empty(self.shape[1:], dtype=self.dtype))

    def _decoded(self, row: int, place: PixelArray) -> PixelArray:
        try:
            place[...] = self.decode(self.samples[row])
            return place
        except ImageReadError as error:
            reason = f"{error}; it was read before: the file has changed"
            raise BadImagesError({str(self.samples[row][0]): reason}) from error


def expect(array: PixelArray | StreamedArray, rows: IntArray) -> None:
    """Announce rows that will be read next, where that makes a difference."""
    if isinstance(array, StreamedArray):
        array.expect(rows)


def windowed(generator: np.random.Generator, rows: IntArray, shards: IntArray, window: int) -> IntArray:
    """A random order in which shards come one after the other, and rows are mixed within windows of so many samples.

    Args:
        generator: of all randomness.
        rows: int64 (n,), drawn in any order.
        shards: int64 (n,): the shard that each lies in.
        window: samples that are mixed with each other.

    >>> rows = np.arange(8)
    >>> windowed(np.random.default_rng(0), rows, rows // 2, window=4).tolist()
    [5, 4, 3, 2, 1, 7, 0, 6]
    """
    names, place = np.unique(shards, return_inverse=True)
    ordered = rows[np.argsort(generator.permutation(len(names))[place], kind="stable")]
    return np.concatenate([generator.permutation(ordered[start : start + window]) for start in range(0, len(ordered), window)])
