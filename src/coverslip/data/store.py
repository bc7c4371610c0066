"""The decoded pixels of a table: one memory-mapped array on disk, built in one pass over the files.

The same pass measures the files (`Scan`), so that an image is decoded once for audit, training and scoring together.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from coverslip.config import MemoryConfig
from coverslip.data.cache import Hold, cached
from coverslip.data.decoding import ImageReadError, PixelArray
from coverslip.data.geometry import WHOLE, Geometry
from coverslip.data.images import Fetched
from coverslip.data.luma import Luma, whole_of
from coverslip.data.pools import in_order
from coverslip.data.reading import Reading
from coverslip.data.scan import Scan, content_keys, scan_images, workers_for
from coverslip.data.shards import Shards
from coverslip.data.streaming import Arrange, Decoder, StreamedArray, decoding_slots, expect, windowed
from coverslip.errors import ResourceError
from coverslip.runtime import Progress, cpu_count, hash_text, no_progress, readable
from coverslip.structures import Channel, File, IntArray, Table

FORMAT = "6"
PEEK = 96
FETCHED_AHEAD = 4
KEPT_SHARE = 0.5
"""Share of the cache's limit that the pixels of images which do not all fit may take; shards and features take the rest."""
SCAN_BYTES = 1600
"""What the scan of an image takes on disk, about: a thumbnail, and what its file says of itself."""
LEAST_TRIM = 0.05
"""Share of the area that a border must take up to be cut off."""


@dataclass(frozen=True)
class Pixels:
    """Stored pixels, addressed by table row.

    Attributes:
        array: uint8, uint16 or float32 (stored n, h, w, c): memory-mapped, or streamed where they do not fit into the cache.
        index: int64 (rows,): where each table row stands in `array`.
        key: hash of the content and of the settings.
    """

    array: PixelArray | StreamedArray
    index: IntArray
    key: str

    def read(self, rows: IntArray) -> PixelArray:
        """The pixels of some table rows, (m, h, w, c)."""
        chosen: PixelArray = self.array[self.index[rows]]
        return chosen

    def arranged(self, generator: np.random.Generator, rows: IntArray) -> IntArray:
        """Table rows in random order, brought into one that their source can be read in; as they are where any will do."""
        if isinstance(self.array, StreamedArray) and self.array.arrange is not None:
            return self.array.arrange(generator, rows, self.index[rows])
        return rows

    def expect(self, rows: IntArray) -> None:
        """Announce table rows that will be read next, where that makes a difference."""
        expect(self.array, self.index[rows])

    @property
    def ahead(self) -> int:
        """How many rows may be announced; 0 where it makes no difference."""
        return self.array.ahead if isinstance(self.array, StreamedArray) else 0

    @property
    def notes(self) -> list[str]:
        """What a user should know of how the pixels are read."""
        if not isinstance(self.array, StreamedArray):
            return []
        kept, rows = self.array.count, len(self.array)
        return [f"{kept} of {rows} images fit into cache.limit at the size that is looked at; the others are read again each time"]

    def take(self, rows: IntArray) -> Pixels:
        """The same pixels for a table that kept only these rows."""
        return replace(self, index=self.index[rows])

    @staticmethod
    def of(images: list[PixelArray], geometry: Geometry) -> Pixels:
        """Pixels of images in memory."""
        array = np.stack([geometry.apply(image) for image in images])
        return Pixels(array, np.arange(len(array)), hash_text("memory", str(geometry), array.tobytes().hex()))


@dataclass(frozen=True)
class FilePixels(Pixels):
    """Pixels that are decoded from the files again each time that they are read, several files at a time.

    Attributes:
        samples: the files of each table row.
        reading: how they become one image.
        geometry: how an image becomes stored pixels.
    """

    samples: Sequence[tuple[File, ...]]
    reading: Reading
    geometry: Geometry

    def read(self, rows: IntArray) -> PixelArray:
        """The pixels of some table rows, (m, h, w, c).

        Raises:
            ImageReadError: a file cannot be read any more.
        """

        def decode(row: int) -> PixelArray:
            return self.geometry.apply(self.reading.read(self.samples[row])[0])

        return np.stack(list(in_order(decode, rows.tolist())))


def load_pixels(
    table: Table,
    reading: Reading,
    geometry: Geometry,
    limit: int,
    progress: Progress = no_progress,
    memory: MemoryConfig | None = None,
    largest: int = 4_000_000,
) -> tuple[Pixels, Scan]:
    """Decode every image of a table once, or find that it was done before.

    Rows that cannot be read hold zeros; the scan says why. Of images in a store, only as many are kept as fit.

    Args:
        table: n samples.
        reading: how the files of a sample become one image.
        geometry: what is stored of an image.
        limit: largest size of the cache, in bytes.
        progress: told about each image.
        memory: limit for images on their way from a store.
        largest: pixels that an image has, about, before it is resized.

    Raises:
        ResourceError: the pixels of local files do not fit into the limit, or what is known of files in a store does not.
        UnreachableError: a store does not answer.
    """
    far, memory = not isinstance(table.root, Path), memory or MemoryConfig()
    if isinstance(table.root, Shards):
        table.root.shelf.limit = limit
    hashes = content_keys(table)
    row_bytes = int(np.prod(geometry.shape)) * geometry.dtype.itemsize
    streams = far and len(table) * row_bytes > limit
    facts = len(table) * SCAN_BYTES
    if streams and facts > limit:
        raise ResourceError(
            f"what is known of each of the {len(table):,} images, a thumbnail and facts, needs {readable(facts)} on disk in all, "
            f"but cache.limit is {readable(limit)}; raise it (-s cache.limit={2 * facts})"
        )
    kept = max(0, int(KEPT_SHARE * limit) - facts) // row_bytes
    count = min(len(table), kept) if streams else len(table)
    key = hash_text(FORMAT, str(geometry), str(reading), *hashes, *([str(count)] if streams else []))
    shape = (count, *geometry.shape)

    def build(folder: Path) -> None:
        keep = _Keep(empty_rows(folder / "pixels.npy", geometry.dtype, shape), geometry, count)
        slots = decoding_slots(memory.limit, largest, len(geometry.channels)) if far else None
        scan = scan_images(table, reading, on_image=keep, progress=progress, workers=workers_for(table), decoding=slots)
        scan.save(folder / "scan.npz")

    size = count * row_bytes + (facts if streams else 0)
    folder = cached("pixels", key, build, size=size, limit=limit)
    scan = Scan.load(folder / "scan.npz")
    scan = replace(scan, facts=scan.facts.assign(image=list(table.images)))
    if streams:
        return Pixels(_streamed(table, reading, geometry, folder / "pixels.npy", count, scan, memory), np.arange(len(table)), key), scan
    array = np.load(folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
    return Pixels(array, np.arange(len(table)), key), scan


def _streamed(
    table: Table, reading: Reading, geometry: Geometry, kept: Path, count: int, scan: Scan, memory: MemoryConfig
) -> StreamedArray:
    """The first rows from a file, the others from where they are, those of shards in an order in which shards come one by one."""
    sizes = (scan.facts["height"] * scan.facts["width"]).to_numpy()
    decode = Decoder(reading, geometry, decoding_slots(memory.limit, int(sizes.max(initial=1)), len(geometry.channels)))
    with kept.open("rb") as stream:
        np.lib.format.read_magic(stream)
        np.lib.format.read_array_header_1_0(stream)
        start = stream.tell()
    arrange: Arrange | None = None
    if isinstance(table.root, Shards):
        shards = table.root.shards_of(table)

        def arrange(generator: np.random.Generator, rows: IntArray, places: IntArray) -> IntArray:
            return windowed(generator, rows, shards[places], memory.window)

    return StreamedArray(kept, start, count, table.samples, decode, memory.limit, arrange, Hold(kept.parent))


@dataclass(frozen=True)
class RowWriter:
    """Rows of a .npy file, written in any order by several threads and processes; see `empty_rows`.

    Not a memory map: on a full disk a write is an error, but a map ends the process without a word.
    """

    path: Path
    start: int

    def write(self, row: int, pixels: PixelArray) -> None:
        """Put the pixels of one row into their place.

        Raises:
            OSError: the disk is full, or cannot be written.
        """
        with self.path.open("r+b") as stream:
            stream.seek(self.start + row * pixels.nbytes)
            stream.write(np.ascontiguousarray(pixels).data)


def empty_rows(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> RowWriter:
    """A .npy file of zeros whose rows are filled in one by one."""
    with path.open("wb") as stream:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        start = stream.tell()
        stream.truncate(start + int(np.prod(shape)) * dtype.itemsize)
    return RowWriter(path, start)


@dataclass(frozen=True)
class _Keep:
    """Resizes an image, and keeps it when it is one of the first `count`."""

    rows: RowWriter
    geometry: Geometry
    count: int

    def __call__(self, row: int, image: PixelArray, luma: Luma | None) -> None:
        pixels = self.geometry.apply(image, luma)
        if row < self.count:
            self.rows.write(row, pixels)


@dataclass(frozen=True)
class Glance:
    """What a few images of a table look like: enough to choose a geometry.

    Attributes:
        colour: `none`, `all`, or `some` of them have colour.
        names: of the channels where the first image has other than grey or RGB ones and none were chosen; empty otherwise.
        depth: bits of the deepest: 8, 16, or 32 for floating point.
        one_size: whether all have the same height and width.
        height: median rows, in pixels.
        width: median columns, in pixels.
        box: what remains without the border that is the same in all of them, as in `Geometry`.
    """

    colour: Literal["none", "some", "all"]
    names: tuple[str, ...]
    depth: int
    one_size: bool
    height: int
    width: int
    box: tuple[float, float, float, float]


def glance(table: Table, reading: Reading) -> Glance:
    """Decode up to 96 images, evenly spaced over the table.

    Images that cannot be read are passed over; the scan reports them.
    """
    rows = np.unique(np.linspace(0, len(table) - 1, min(PEEK, len(table))).round().astype(np.int64))
    samples = table.samples
    names = reading.names_of(samples[row] for row in rows)
    reading = reading if not names else replace(reading, channels=Channel.of(*names))
    border, one_by_one = _Border(), threading.Lock()
    far = workers_for(table) is not None

    def look(files: tuple[File, ...]) -> tuple[bool, int, tuple[int, int]] | None:
        try:
            if far:
                files = tuple(Fetched(file, reading.max_pixels) for file in files)
            with one_by_one if far else nullcontext():
                image, facts = reading.read(files)
        except ImageReadError:
            return None
        with one_by_one:
            border.add(image)
        return not reading.channels and _is_colourful(image), image.dtype.itemsize * 8, (facts.height, facts.width)

    found = [seen for seen in in_order(look, [samples[row] for row in rows], FETCHED_AHEAD if far else None) if seen is not None]
    colours, depths, sizes = zip(*found, strict=True) if found else ((), (8,), ())
    height, width = np.median(np.array(sizes or [(0, 0)]), axis=0)
    colour: Literal["none", "some", "all"] = "none" if not any(colours) else "all" if all(colours) else "some"
    return Glance(colour, names, max(depths), len(set(sizes)) == 1, int(height), int(width), border.box())


def _is_colourful(image: PixelArray) -> bool:
    """Whether some pixel of an RGB image, of about 64 x 64 that are looked at, has clear colour."""
    if image.shape[2] != 3 or image.dtype.kind == "f":
        return False
    small = image[:: max(1, image.shape[0] // 64), :: max(1, image.shape[1] // 64)].astype(np.int32)
    return bool(np.ptp(small, axis=2).max() > 0.05 * np.iinfo(image.dtype).max)


def some_images(table: Table, reading: Reading, geometry: Geometry, most: int) -> tuple[IntArray, PixelArray]:
    """Rows and stored pixels (m, h, w, c) of at most `most` labelled images, the classes in equal numbers where they can be.

    Images that cannot be read are passed over.
    """
    random = np.random.default_rng(0)
    samples, order = table.samples, random.permutation(len(table))
    rank = np.zeros(len(table), dtype=np.int64)
    kinds = np.unique(table.labels, axis=0, return_inverse=True)[1].reshape(-1)
    for code in np.unique(kinds):
        members = order[kinds[order] == code]
        rank[members] = np.arange(len(members))
    rows = order[np.argsort(rank[order], kind="stable")][:most]

    decode = Decoder(reading, geometry, cpu_count()) if workers_for(table) else None

    def read(row: int) -> PixelArray | None:
        try:
            return geometry.apply(reading.read(samples[row])[0]) if decode is None else decode(samples[row])
        except ImageReadError:
            return None

    found = [
        (row, image)
        for row, image in zip(rows.tolist(), in_order(read, rows.tolist(), workers_for(table)), strict=True)
        if image is not None
    ]
    images = np.stack([image for _, image in found]) if found else np.zeros((0, *geometry.shape), dtype=geometry.dtype)
    return np.array([row for row, _ in found], dtype=np.int64), images


class _Border:
    """The border that is the same in every image, as long as all have one size."""

    def __init__(self) -> None:
        self.lowest: PixelArray | None = None
        self.highest: PixelArray | None = None
        self.planes = 0
        self.alike = True

    def add(self, image: PixelArray) -> None:
        """Take in one image (h, w, c)."""
        whole = whole_of(image)
        if self.lowest is None or self.highest is None:
            self.lowest, self.highest, self.planes = whole.copy(), whole.copy(), image.shape[2]
        elif image.shape[:2] != self.lowest.shape[:2] or image.shape[2] != self.planes or image.dtype != self.lowest.dtype:
            self.alike = False
        else:
            taken = whole if whole.shape == self.lowest.shape else image
            lowest, highest = self.lowest[..., : taken.shape[2]], self.highest[..., : taken.shape[2]]
            np.minimum(lowest, taken, out=lowest)
            np.maximum(highest, taken, out=highest)

    def box(self) -> tuple[float, float, float, float]:
        """What remains inside, with one percent around it; the whole image when little would be cut."""
        if not self.alike or self.lowest is None or self.highest is None:
            return WHOLE
        varies = (self.lowest != self.highest).any(axis=2)
        rows, columns = np.flatnonzero(varies.any(axis=1)), np.flatnonzero(varies.any(axis=0))
        if not len(rows):
            return WHOLE
        height, width = varies.shape
        top, bottom = max(0.0, rows[0] / height - 0.01), min(1.0, (rows[-1] + 1) / height + 0.01)
        left, right = max(0.0, columns[0] / width - 0.01), min(1.0, (columns[-1] + 1) / width + 0.01)
        kept = (bottom - top) * (right - left)
        first, second, third, fourth = (round(float(edge), 4) for edge in (top, left, bottom, right))
        return WHOLE if kept > 1 - LEAST_TRIM else (first, second, third, fourth)
