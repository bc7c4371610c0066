"""One pass over the files of a table: each is read and decoded once, and all that the audit needs is kept.

What is kept of an image: the hash of its bytes, what the file says of itself, grey levels, a thumbnail, and a 64-bit
difference hash (each bit: is this cell of an 8 x 9 grid brighter than its left neighbour; Krawetz 2013, "Kind of Like That").
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from coverslip.data.decoding import ImageReadError, PixelArray
from coverslip.data.images import Fetched, has_colour, to_grey
from coverslip.data.luma import Luma, luma_of
from coverslip.data.pools import IN_FLIGHT, Crew, in_order
from coverslip.data.reading import Facts, Reading, joint_hash
from coverslip.data.shards import Shards
from coverslip.errors import BadImagesError, InputError, UnreachableError
from coverslip.runtime import Progress, cpu_count, hash_file, hash_text, no_progress, writing
from coverslip.storage import AT_ONCE, URL, stats
from coverslip.structures import File, IntArray, Table, class_counts

THUMBNAIL_SIDE = 32
FLAT = 1 / 4096
"""Range of grey levels of a thumbnail, on [0, 1], below which an image has no structure to compare."""
MARGIN = 1 / 256
"""How much brighter than its neighbour, as a share of the range, a cell must be to set its bit."""

PORTION = 16
"""Most images that a worker looks at before it hands over what it found."""
PACKAGE = 256_000
"""Bytes of fetched files that a worker is handed together, about; a large one goes alone."""


@dataclass(frozen=True)
class Scan:
    """What one pass over n files found, in table order.

    Attributes:
        facts: n rows of `image`, the fields of `Facts` (empty when unreadable), `grey` (no pixel has colour), `mean`,
            `deviation`, `low`, `high` (grey levels on [0, 1] of the dtype's full range; as they are for floating point) and
            `error` (the reason in words, empty when all is well).
        thumbnails: uint8 (n, 32, 32), antialiased and grey; those of other than 8-bit images are stretched from `low` to `high`.
        hashes: uint64 (n,), difference hashes; 0 for images without structure.
    """

    facts: pd.DataFrame
    thumbnails: npt.NDArray[np.uint8]
    hashes: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.facts)

    def take(self, rows: IntArray) -> Scan:
        """The given rows only, in the given order."""
        return Scan(self.facts.iloc[rows].reset_index(drop=True), self.thumbnails[rows], self.hashes[rows])

    def save(self, path: Path) -> None:
        """Write everything to one .npz file without pickle, whole or not at all."""
        columns = {
            f"facts.{name}": np.array(column.tolist(), dtype=np.str_) if _is_text(column) else column.to_numpy()
            for name, column in self.facts.items()
        }
        with writing(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, thumbnails=self.thumbnails, hashes=self.hashes, **columns)

    @staticmethod
    def load(path: Path) -> Scan:
        """The inverse of `save`."""
        with np.load(path, allow_pickle=False) as arrays:
            names = [name for name in arrays.files if name.startswith("facts.")]
            facts = pd.DataFrame({name.removeprefix("facts."): _column(arrays[name]) for name in names})
            return Scan(facts, arrays["thumbnails"], arrays["hashes"])


def _is_text(column: pd.Series) -> bool:
    return not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column))


def _column(array: npt.NDArray[Any]) -> Any:
    return array.tolist() if array.dtype.kind == "U" else array


def scan_images(
    table: Table,
    reading: Reading,
    *,
    on_image: Callable[[int, PixelArray, Luma | None], None] | None = None,
    progress: Progress = no_progress,
    workers: int | None = None,
    decoding: int | None = None,
) -> Scan:
    """Read and decode every file of a table once, several at a time.

    Args:
        table: n samples.
        reading: how the files of a sample become one image.
        on_image: called with the row, the decoded (h, w, c) pixels of each readable image, and their luma where they are 8-bit RGB, from
            threads, and from other processes where there are many images: what it does must be picklable, and leave its traces in
            files; an `ImageReadError` that it raises makes the image an unreadable one.
        progress: told after each file.
        workers: threads or processes; as many as there are cores when not given.
        decoding: how many images may be decoded at a time, where files are fetched from afar first; as many as cores when not given.

    Returns:
        One row of facts a sample; an unreadable file is a row with its `error`, never an exception.
    """

    rows: list[_Row] = []
    for some in _looked_at(table, _Look(reading, on_image), workers, decoding):
        for row in some:
            rows.append(row)
            progress("reading images", len(rows), len(table), {})
    facts = pd.DataFrame([vars(row.facts) for row in rows])
    facts.insert(0, "image", list(table.images))
    thumbnails = np.stack([row.thumbnail for row in rows])
    return Scan(facts, thumbnails, np.array([row.hash for row in rows], dtype=np.uint64))


def hash_files(table: Table, workers: int | None = None) -> list[str]:
    """The SHA-256 of each sample as in its `Facts`; the empty string where a file cannot be read."""

    if isinstance(table.root, Shards):
        return content_keys(table)

    def hash_or_nothing(files: tuple[File, ...]) -> str:
        try:
            return joint_hash([_digest(file) for file in files])
        except UnreachableError:
            raise
        except OSError:
            return ""

    samples, workers = table.samples, workers or workers_for(table)
    portions = _portions(len(samples), workers)
    return [key for some in in_order(lambda rows: [hash_or_nothing(samples[row]) for row in rows], portions, workers) for key in some]


def _digest(file: File) -> str:
    return hash_file(file) if isinstance(file, Path) else hashlib.sha256(file.read_bytes()).hexdigest()


def content_keys(table: Table) -> list[str]:
    """A text for each sample that changes with its content: as `hash_files`, but of objects in a store what the store says of them."""
    if isinstance(table.root, Shards):
        return [joint_hash([table.root[name].sha256 for name in files]) for files in table.names]
    urls = [file for files in table.samples for file in files if isinstance(file, URL)]
    if not urls:
        return hash_files(table)
    found = stats(urls)

    def said(file: File) -> str:
        known = found.get(file) if isinstance(file, URL) else None
        return "" if known is None else f"{file} {known.size} {known.version}"

    return [hash_text(*map(said, files)) for files in table.samples]


def workers_for(table: Table) -> int | None:
    """Threads that read a table's files: as many as there are cores, which None means, or more where they wait for a store."""
    return None if isinstance(table.root, Path) else AT_ONCE


def _portions(count: int, workers: int | None) -> list[range]:
    """Rows that a worker takes at a time: few enough for all to have some, so many that handing over costs little."""
    size = max(1, min(PORTION, count // (IN_FLIGHT * (workers or cpu_count()))))
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


@dataclass(frozen=True)
class _RowFacts(Facts):
    sha256: str = ""
    format: str = ""
    mode: str = ""
    bits: int = 0
    height: int = 0
    width: int = 0
    grey: bool = False
    mean: float = np.nan
    deviation: float = np.nan
    low: float = np.nan
    high: float = np.nan
    error: str = ""


@dataclass(frozen=True)
class _Row:
    facts: _RowFacts
    thumbnail: npt.NDArray[np.uint8]
    hash: int = 0


@dataclass(frozen=True)
class _Portion:
    """Some samples, or what is known of them already, and the table row of the first; the others are those after it."""

    first: int
    samples: Sequence[Sequence[File] | _Row]


@dataclass(frozen=True)
class _Look:
    """What is to be done with a portion, here or in another process."""

    reading: Reading
    on_image: Callable[[int, PixelArray, Luma | None], None] | None

    def __call__(self, portion: _Portion) -> list[_Row]:
        return [self._scan(row, files) for row, files in enumerate(portion.samples, portion.first)]

    def _scan(self, row: int, files: Sequence[File] | _Row) -> _Row:
        if isinstance(files, _Row):
            return files
        keep = None if self.on_image is None else partial(self.on_image, row)
        return _scan_sample(files, self.reading, keep)


def _looked_at(table: Table, look: _Look, workers: int | None, decoding: int | None) -> Iterator[list[_Row]]:
    """What is found in portions of a table, in order."""
    samples, portions = table.samples, _portions(len(table), workers)
    if isinstance(table.root, Path):
        yield from Crew(look, len(portions), workers).in_order(_Portion(some.start, [samples[row] for row in some]) for some in portions)
        return
    with Crew(look, len(table), decoding) as crew:
        yield from in_order(lambda some: _fetched(some, samples, look.reading, crew), portions, workers)


def _fetched(rows: range, samples: Sequence[Sequence[File]], reading: Reading, crew: Crew[_Portion, list[_Row]]) -> list[_Row]:
    """Fetch samples, and have them looked at: small ones together, for handing over takes its time."""
    found: list[_Row] = []
    package: list[Sequence[File] | _Row] = []
    size = 0
    for row in rows:
        try:
            fetched = [Fetched(file, reading.max_pixels) for file in samples[row]]
            package.append(fetched)
            size += sum(len(file.read_bytes()) for file in fetched)
        except ImageReadError as error:
            package.append(_Row(_RowFacts(error=str(error)), _NO_THUMBNAIL))
        if size >= PACKAGE or row == rows[-1]:
            found += crew.submit(_Portion(row + 1 - len(package), package), len(package)).result()
            package, size = [], 0
    return found


_NO_THUMBNAIL = np.zeros((THUMBNAIL_SIDE, THUMBNAIL_SIDE), dtype=np.uint8)


def _scan_sample(files: Sequence[File], reading: Reading, on_image: Callable[[PixelArray, Luma | None], None] | None) -> _Row:
    try:
        pixels, facts = reading.read(files)
        luma = luma_of(pixels)
        if on_image is not None:
            on_image(pixels, luma)
    except ImageReadError as error:
        return _Row(_RowFacts(error=str(error)), _NO_THUMBNAIL)
    shades = _shades(pixels, luma)
    stretched = (shades.small - shades.low) / max(shades.high - shades.low, 1e-9)
    return _Row(
        facts=_RowFacts(
            **vars(facts),
            grey=not has_colour(pixels),
            mean=shades.mean,
            deviation=shades.deviation,
            low=shades.low,
            high=shades.high,
        ),
        thumbnail=((shades.small if pixels.dtype == np.uint8 else stretched) * 255).round().clip(0, 255).astype(np.uint8),
        hash=difference_hash(shades.small),
    )


@dataclass(frozen=True)
class _Shades:
    """Grey levels on [0, 1]: what is kept of them, and float32 (32, 32) of their means over cells."""

    mean: float
    deviation: float
    low: float
    high: float
    small: npt.NDArray[np.float32]


def _shades(pixels: PixelArray, luma: Luma | None) -> _Shades:
    if luma is None and (pixels.dtype != np.uint8 or pixels.shape[2] != 1):
        levels = grey_levels(pixels)
        small = shrink(levels, THUMBNAIL_SIDE, THUMBNAIL_SIDE)
        return _Shades(float(levels.mean(dtype=np.float64)), float(levels.std()), float(levels.min()), float(levels.max()), small)
    picture = Image.fromarray(pixels[..., 0]).convert("F") if luma is None else luma.picture
    levels = pixels[..., 0].astype(np.float32) if luma is None else luma.values
    low, high = levels.min(), levels.max()
    mean = np.einsum("ij->i", levels).sum(dtype=np.float64) / levels.size  # a row in float32, which is fast, the rows in float64
    square = np.einsum("ij,ij->i", levels, levels).sum(dtype=np.float64) / levels.size
    deviation = np.sqrt(max(0.0, square - mean**2)) if high > low else 0.0
    mean, deviation, low, high = np.array([mean, deviation, low, high]) / 255
    return _Shades(float(mean), float(deviation), float(low), float(high), _cells(picture, THUMBNAIL_SIDE))


def small_grey(pixels: PixelArray, side: int) -> npt.NDArray[np.float32]:
    """Grey levels on [0, 1] as means over the cells of a grid, float32 (side, side), of an image (h, w, c)."""
    luma = luma_of(pixels)
    return shrink(grey_levels(pixels), side, side) if luma is None else _cells(luma.picture, side)


def _cells(picture: Image.Image, side: int) -> npt.NDArray[np.float32]:
    """Means over cells of a picture of mode `F` on [0, 255], brought to [0, 1]."""
    return np.asarray(picture.resize((side, side), Image.Resampling.BOX)) * np.float32(1 / 255)


def grey_levels(pixels: PixelArray) -> npt.NDArray[np.float32]:
    """float32 (h, w) on [0, 1] of the dtype's full range; floating point as it is."""
    full = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
    return to_grey(pixels)[..., 0].astype(np.float32) * np.float32(1 / full)


def shrink(levels: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    """Means over the cells of a grid: float32 (h, w) to (height, width)."""
    return np.asarray(Image.fromarray(levels).resize((width, height), Image.Resampling.BOX))


def difference_hash(levels: npt.NDArray[np.float32]) -> int:
    """64 bits, one for each cell of an 8 x 9 grid that is brighter than its left neighbour; 0 for a flat image.

    Of the filters and margins that were tried, a Lanczos filter with a margin of 1/256 of the range finds most JPEG copies
    of `nuclei` while it proposes fewest pairs of `charts`.

    Args:
        levels: float32 (h, w) grey levels on [0, 1].
    """
    extent = float(levels.max() - levels.min())
    if extent < FLAT:
        return 0
    height, width = levels.shape
    cells = _lanczos(height, 8) @ levels @ _lanczos(width, 9).T
    brighter = cells[:, 1:] - cells[:, :-1] > extent * MARGIN
    return int.from_bytes(np.packbits(brighter).tobytes(), "big")


@lru_cache(maxsize=16)
def _lanczos(old: int, new: int) -> npt.NDArray[np.float32]:
    """(new, old): what Pillow's filter takes of each old pixel for each new one."""
    return np.asarray(Image.fromarray(np.eye(old, dtype=np.float32)).resize((old, new), Image.Resampling.LANCZOS))


def usable_rows(table: Table, scan: Scan, on_bad_image: Literal["stop", "skip"]) -> tuple[Table, Scan, dict[str, str]]:
    """Stop at images that cannot be read, or leave them out.

    Returns:
        The table and the scan without the bad rows, and the reason for each bad image.

    Raises:
        BadImagesError: there are bad images, and `on_bad_image` is `stop`; the whole list.
        InputError: all images are bad for one reason, or without the bad ones a class of single labels has no image.
    """
    bad = {str(image): str(error) for image, error in zip(scan.facts["image"], scan.facts["error"], strict=True) if error}
    if not bad:
        return table, scan, bad
    if len(bad) == len(table) > 1 and len(set(bad.values())) == 1:
        name, reason = next(iter(bad.items()))
        raise InputError(f"not one of the {len(bad)} images can be used, all for one reason, as {name}: {reason}")
    if on_bad_image == "stop":
        raise BadImagesError(bad, 'mend or remove them, or leave them out and have them recorded: -s data.on_bad_image="skip"')
    kept = np.flatnonzero((scan.facts["error"] == "").to_numpy()).astype(np.int64)
    if not len(kept):
        raise BadImagesError(bad, "no image of the data set can be read")
    remaining = table.take(kept)
    _refuse_lost_classes(remaining, bad)
    return remaining, scan.take(kept), bad


def _refuse_lost_classes(table: Table, bad: Mapping[str, str]) -> None:
    if table.targets is None or table.targets.ndim == 2:
        return
    counts = class_counts(table.targets, table.classes)
    lost = [name for name, count in zip(table.classes, counts, strict=True) if count == 0]
    if lost:
        advice = "\n".join(f"  - {image}: {reason}" for image, reason in bad.items())
        raise InputError(f"without the {len(bad)} unreadable images no image is left of the class {', '.join(lost)}:\n{advice}")
