"""Exact and near duplicates: a perceptual hash proposes, the pixels decide.

Pairs of hashes at a small distance are found by multi-index hashing (Norouzi et al. 2012): of `d + 1` bands of bits, two
hashes at distance `d` or less share at least one whole. A proposed pair is confirmed on larger grey images by two
correlations, that of the whole image and that of its detail (a band-pass, shifted by a few pixels for the best match): charts of
thin lines agree in neither, out-of-focus nuclei agree as a whole and differ in detail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from coverslip.data.pools import in_order
from coverslip.structures import IntArray

Picture = npt.NDArray[np.float32]

COMPARED_SIDE = 128
"""Rows and columns of the grey images on which a pair is confirmed."""
WHOLE = 0.97
"""Least correlation of two images as a whole. On `charts`, different images reach 0.951; on `nuclei`, the same cell at two
times has 0.974 and more."""
DETAIL = 0.85
"""Least correlation of their detail after the best shift. On `nuclei`, different cells that pass `WHOLE` reach 0.849."""

_SCREENED = 0.9
_FAINTEST = 2
_MOST_SHIFT = 6
_CHUNK = 16_384
"""Pairs that are held at a time."""
_SMALL = 32
"""Rows up to which the buckets of a band are searched together."""
_PORTION = 32
"""Pairs that a thread confirms at a time."""


@dataclass(frozen=True)
class Duplicates:
    """Rows that show the same image.

    Attributes:
        exact: (first, other) for each file whose bytes equal those of an earlier one.
        candidates: how many pairs of different files the hash proposed.
        confirmed: (row, row, correlation) of proposed pairs that the pixels confirm; correlation in [0.97, 1].
    """

    exact: list[tuple[int, int]]
    candidates: int
    confirmed: list[tuple[int, int, float]]


def near_duplicates(
    hashes: npt.NDArray[np.uint64],
    thumbnails: npt.NDArray[np.uint8],
    *,
    sha256: Sequence[str],
    max_distance: int = 4,
    read: Callable[[int], Picture] | None = None,
) -> Duplicates:
    """Find files with equal bytes, and different files that show the same image.

    Args:
        hashes: uint64 (n,) difference hashes; images without structure (hash 0, or a flat thumbnail) are not compared.
        thumbnails: uint8 (n, side, side), grey.
        sha256: n hashes of the bytes; the empty string where a file could not be read.
        max_distance: largest number of different bits of a proposed pair.
        read: gives float32 (128, 128) grey levels of a row, called for promising pairs only, by several threads; the thumbnails when
            not given.
    """
    exact = _equal_files(sha256)
    repeated = {other for _, other in exact}
    spread = thumbnails.max(axis=(1, 2)).astype(np.int64) - thumbnails.min(axis=(1, 2))
    compared = np.array([bool(digest) and row not in repeated for row, digest in enumerate(sha256)], dtype=bool)
    rows = np.flatnonzero(compared & (hashes != 0) & (spread >= _FAINTEST)).astype(np.int64)
    detail = lru_cache(maxsize=1024)(lambda row: _prepared(thumbnails[row].astype(np.float32) if read is None else read(row)))
    candidates, promising, confirmed = 0, list[tuple[int, int]](), list[tuple[int, int, float]]()

    def confirm(pairs: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, float]]:
        portions = [pairs[start : start + _PORTION] for start in range(0, len(pairs), _PORTION)]
        found = chain.from_iterable(in_order(lambda some: [_confirmed(detail(a), detail(b)) for a, b in some], portions))
        return ((min(pair), max(pair), whole) for pair, whole in zip(pairs, found, strict=True) if whole is not None)

    for first, second in close_pairs(hashes[rows], max_distance):
        candidates += len(first)
        promising += _screened(thumbnails, rows[first], rows[second])
        if len(promising) >= _CHUNK:
            confirmed += confirm(promising)
            promising.clear()
    confirmed += confirm(promising)
    return Duplicates(exact, candidates, sorted(confirmed))


def _equal_files(sha256: Sequence[str]) -> list[tuple[int, int]]:
    first: dict[str, int] = {}
    return [(first[digest], row) for row, digest in enumerate(sha256) if digest and first.setdefault(digest, row) != row]


def close_pairs(hashes: npt.NDArray[np.uint64], max_distance: int) -> Iterator[tuple[IntArray, IntArray]]:
    """All pairs of rows whose hashes differ in at most `max_distance` bits, each once, in chunks.

    Args:
        hashes: uint64 (n,).
        max_distance: 0 to 15.
    """
    edges = np.linspace(0, 64, max_distance + 2).round().astype(int)
    masks = [np.uint64(((1 << int(stop - start)) - 1) << int(start)) for start, stop in pairwise(edges)]
    for number, mask in enumerate(masks):
        keys = hashes & mask
        order = np.argsort(keys, kind="stable").astype(np.int64)
        starts = np.flatnonzero(np.r_[True, np.diff(keys[order]) != 0, True]) if len(order) else np.zeros(1, np.int64)
        sizes = np.diff(starts)
        for start, size in zip(starts[:-1][sizes > _SMALL], sizes[sizes > _SMALL], strict=True):
            yield from _close_in_bucket(hashes, order[start : start + size], masks[:number], max_distance)
        yield from _close_in_small_buckets(hashes, order[np.repeat(sizes <= _SMALL, sizes)], masks[: number + 1], max_distance)


def _close_in_small_buckets(
    hashes: npt.NDArray[np.uint64], rows: IntArray, bands: list[np.uint64], max_distance: int
) -> Iterator[tuple[IntArray, IntArray]]:
    """Pairs of all buckets of the last band that no earlier band has already given; the rows of a bucket lie side by side.

    All rows are held against those one place further, then two, and so on: a bucket by itself is too few for numpy.
    """
    *earlier, band = bands
    for apart in range(1, _SMALL):
        differing = hashes[rows[:-apart]] ^ hashes[rows[apart:]]
        first = np.flatnonzero((differing & band) == 0)
        if not len(first):
            return
        differing = differing[first]
        close = _bit_count(differing) <= max_distance
        for mask in earlier:
            close &= (differing & mask) != 0
        first = first[close]
        for i in range(0, len(first), _CHUNK):
            yield rows[first[i : i + _CHUNK]], rows[first[i : i + _CHUNK] + apart]


def _close_in_bucket(
    hashes: npt.NDArray[np.uint64], rows: IntArray, earlier: list[np.uint64], max_distance: int
) -> Iterator[tuple[IntArray, IntArray]]:
    """Pairs of one bucket that no earlier band has already given."""
    height = max(1, _CHUNK * 16 // len(rows))
    for top in range(0, len(rows) - 1, height):
        block, rest = rows[top : top + height], rows[top:]
        differing = hashes[block][:, None] ^ hashes[rest][None, :]
        close = np.triu(_bit_count(differing) <= max_distance, k=1)
        for mask in earlier:
            close &= (differing & mask) != 0
        first, second = np.nonzero(close)
        for i in range(0, len(first), _CHUNK):
            yield block[first[i : i + _CHUNK]], rest[second[i : i + _CHUNK]]


def _bit_count(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Number of set bits of each value, by adding neighbours in parallel (numpy 1.26 has no `bitwise_count`)."""
    one, two, four = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333), np.uint64(0x0F0F0F0F0F0F0F0F)
    values = values - ((values >> np.uint64(1)) & one)
    values = (values & two) + ((values >> np.uint64(2)) & two)
    values = (values + (values >> np.uint64(4))) & four
    return (values * np.uint64(0x0101010101010101)) >> np.uint64(56)


def _screened(thumbnails: npt.NDArray[np.uint8], first: IntArray, second: IntArray) -> list[tuple[int, int]]:
    """The pairs whose thumbnails correlate; all others are dropped before any file is read again."""
    a, b = _standardised(thumbnails[first]), _standardised(thumbnails[second])
    alike = np.einsum("ij,ij->i", a, b) >= _SCREENED
    return [(int(i), int(j)) for i, j in zip(first[alike], second[alike], strict=True)]


def _standardised(pictures: npt.NDArray[np.uint8]) -> Picture:
    flat = pictures.reshape(len(pictures), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    unit: Picture = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return unit


def _prepared(picture: Picture) -> tuple[Picture, Picture]:
    """A picture without its mean, and its detail: what is left between two Gaussian filters."""
    detail = ndimage.gaussian_filter(picture, 1) - ndimage.gaussian_filter(picture, 4)
    return picture - picture.mean(), detail - detail.mean()


def _confirmed(a: tuple[Picture, Picture], b: tuple[Picture, Picture]) -> float | None:
    """The correlation of two images when they are the same, None otherwise."""
    whole = _correlation(a[0], b[0])
    return whole if whole >= WHOLE and _shifted_correlation(a[1], b[1]) >= DETAIL else None


def _correlation(a: Picture, b: Picture) -> float:
    scale = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return min(1.0, float((a * b).sum()) / scale) if scale > 0 else 0.0


def _shifted_correlation(a: Picture, b: Picture) -> float:
    """Correlation of the overlap of (h, w) and (h, w) at the shift, by up to six pixels either way, at which they agree best."""
    height, width = a.shape
    size = (height + 2 * _MOST_SHIFT, width + 2 * _MOST_SHIFT)
    products = fft.irfft2(fft.rfft2(a, size) * np.conj(fft.rfft2(b, size)), size)
    span = np.arange(-_MOST_SHIFT, _MOST_SHIFT + 1)
    best = int(products[np.ix_(span, span)].argmax())
    down, right = int(span[best // len(span)]), int(span[best % len(span)])
    overlap = a[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
    other = b[max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)]
    return _correlation(overlap, other)


def duplicate_groups(n: int, exact: Sequence[tuple[int, int]], confirmed: Sequence[tuple[int, int, float]]) -> IntArray:
    """Groups of rows that must move together.

    Equal files are one group. Of the confirmed pairs, the row with most partners takes its partners into its group, and so on
    with the rows that remain: every file is confirmed with the first of its group, and nothing is chained through a third.

    Returns:
        int64 (n,) group ids; -1 for a row without duplicates.
    """
    groups = np.full(n, -1, dtype=np.int64)
    copies: dict[int, list[int]] = {}
    for first, other in exact:
        copies.setdefault(first, []).append(other)
    partners: dict[int, set[int]] = {first: set() for first in copies}
    for a, b, _ in confirmed:
        partners.setdefault(a, set()).add(b)
        partners.setdefault(b, set()).add(a)
    taken: set[int] = set()
    for first in sorted(partners, key=lambda row: (-len(partners[row]), row)):
        members = ({first} | partners[first]) - taken
        rows = [row for member in members for row in (member, *copies.get(member, []))]
        if first not in taken and len(rows) > 1:
            groups[rows] = min(rows)
            taken |= members
    return groups
