"""A hash proposes, the pixels decide, nothing is chained."""

from __future__ import annotations

import time

import numpy as np
from PIL import Image
from scipy import ndimage

from coverslip.data.duplicates import close_pairs, duplicate_groups, near_duplicates
from coverslip.data.scan import difference_hash, shrink

random = np.random.default_rng(0)


def picture(seed: int) -> np.ndarray:
    """A smooth image with fine detail, float32 (128, 128) on [0, 1]."""
    noise = np.random.default_rng(seed).normal(size=(128, 128))
    image = ndimage.gaussian_filter(noise, 12) * 12 + ndimage.gaussian_filter(noise, 2)
    return ((image - image.min()) / np.ptp(image)).astype(np.float32)


def blob(seed: int) -> np.ndarray:
    """A round, out-of-focus spot with noise: alike as a whole, different in detail."""
    rows, columns = np.mgrid[:128, :128] - 64
    noise = np.random.default_rng(seed).normal(size=(128, 128)) * 0.01
    return (np.exp(-(rows**2 + columns**2) / 1500) * 0.8 + 0.1 + noise).astype(np.float32)


def search(pictures: list[np.ndarray], sha256: list[str] | None = None, **options):
    small = [shrink(image, 32, 32) for image in pictures]
    return near_duplicates(
        np.array([difference_hash(image) for image in small], np.uint64),
        np.stack([(image * 255).round().clip(0, 255).astype(np.uint8) for image in small]),
        sha256=sha256 or [str(i) for i in range(len(pictures))],
        read=lambda row: pictures[row],
        **options,
    )


def test_copies_are_confirmed():
    image = picture(1)
    half = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BOX).resize((128, 128), Image.Resampling.BICUBIC))
    versions = [image, image * 0.8 + 0.1, half, image + random.normal(size=image.shape).astype(np.float32) * 0.005]
    found = search([*versions, picture(2), picture(3)])
    pairs = {(a, b) for a, b, _ in found.confirmed}
    assert pairs == {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}
    assert all(0.97 <= value <= 1 for _, _, value in found.confirmed)
    assert found.candidates >= 6


def test_a_shifted_copy_is_confirmed():
    wide = picture(4)
    found = search([wide, np.roll(wide, 1, axis=1)], max_distance=8)
    assert [(a, b) for a, b, _ in found.confirmed] == [(0, 1)]


def test_blobs_are_proposed_and_not_confirmed():
    found = search([blob(seed) for seed in range(12)], max_distance=15)
    assert found.candidates > 0
    assert found.confirmed == []


def test_flat_images_make_no_pairs():
    found = search([np.full((128, 128), 0.5, np.float32)] * 500)
    assert (found.exact, found.candidates, found.confirmed) == ([], 0, [])


def test_equal_files_are_pairs_with_the_first_and_unreadable_ones_are_not():
    images = [picture(1), picture(2), picture(1), picture(1), picture(3), picture(3)]
    found = search(images, sha256=["x", "y", "x", "x", "", ""])
    assert found.exact == [(0, 2), (0, 3)]
    assert found.confirmed == []


def test_no_picture_is_read_unless_its_pair_is_promising():
    read: list[int] = []
    pictures = [picture(seed) for seed in range(30)]
    small = np.stack([(shrink(image, 32, 32) * 255).round().astype(np.uint8) for image in pictures])
    hashes = random.integers(1, 2**6, 30).astype(np.uint64)
    found = near_duplicates(hashes, small, sha256=[str(i) for i in range(30)], read=lambda row: read.append(row) or pictures[row])
    assert found.candidates > 100
    assert read == []


def test_close_pairs_are_those_of_the_plain_search():
    hashes = random.integers(0, 2**63, 300).astype(np.uint64)
    for i in range(1, 300, 3):
        flips = random.choice(64, random.integers(0, 8), replace=False)
        hashes[i] = hashes[i - 1] ^ np.uint64(sum(1 << int(bit) for bit in flips))
    for distance in (0, 1, 4, 7):
        plain = [(i, j) for i in range(300) for j in range(i + 1, 300) if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= distance]
        found = [
            tuple(sorted((int(i), int(j)))) for first, second in close_pairs(hashes, distance) for i, j in zip(first, second, strict=True)
        ]
        assert len(found) == len(set(found))
        assert sorted(found) == plain
        assert plain


def test_buckets_of_every_size_are_searched():
    """Bands of 13 bits: half of the rows share their first band with few others, half with many."""
    hashes = random.integers(0, 2**63, 600).astype(np.uint64)
    few, many = random.integers(0, 60, 300), random.integers(60, 65, 300)
    hashes = (hashes & ~np.uint64((1 << 13) - 1)) | np.concatenate([few, many]).astype(np.uint64)
    hashes[1::3] = hashes[::3] ^ np.uint64(1 << 40)
    numbers = [int(one) for one in hashes]
    plain = [(i, j) for i in range(600) for j in range(i + 1, 600) if (numbers[i] ^ numbers[j]).bit_count() <= 4]
    found = [(int(i), int(j)) for first, second in close_pairs(hashes, 4) for i, j in zip(first, second, strict=True)]
    assert sorted(found) == plain
    assert len(plain) >= 200


def test_close_pairs_of_one_bucket_are_chunked():
    hashes = np.full(900, 7, np.uint64)
    chunks = [len(first) for first, _ in close_pairs(hashes, 4)]
    assert sum(chunks) == 900 * 899 // 2
    assert max(chunks) <= 16_384
    assert list(close_pairs(np.zeros(0, np.uint64), 4)) == []


def test_search_scales():
    hashes = random.integers(0, 2**63, 50_000).astype(np.uint64)
    start = time.process_time()
    pairs = sum(len(first) for first, _ in close_pairs(hashes, 4))
    assert pairs <= 2
    assert time.process_time() - start < 15


def test_groups_hold_together_what_is_confirmed_with_the_first():
    groups = duplicate_groups(9, [(0, 1), (0, 2)], [(0, 4, 0.99), (5, 6, 0.98)])
    assert groups.dtype == np.int64
    assert groups.tolist() == [0, 0, 0, -1, 0, 5, 5, -1, -1]


def test_groups_are_not_chained():
    chain = [(i, i + 1, 0.98) for i in range(5)]
    groups = duplicate_groups(6, [], chain)
    for group in set(groups[groups >= 0].tolist()):
        members = np.flatnonzero(groups == group).tolist()
        linked = [sum((min(a, b), max(a, b)) in {(x, y) for x, y, _ in chain} for b in members if b != a) for a in members]
        assert max(linked) == len(members) - 1
    assert duplicate_groups(3, [], []).tolist() == [-1, -1, -1]
