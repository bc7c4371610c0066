"""Images of a store that do not fit into the cache: what is kept, what is read again, and in which order."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coverslip.config import MemoryConfig
from coverslip.data.cache import cache_entries
from coverslip.data.geometry import GREY, Geometry
from coverslip.data.normalisation import Normalisation, dataset_percentiles, pixel_statistics
from coverslip.data.reading import Reading
from coverslip.data.store import SCAN_BYTES, Pixels, load_pixels
from coverslip.data.streaming import StreamedArray, windowed
from coverslip.errors import BadImagesError, ResourceError, UnreachableError
from coverslip.network import chunks
from coverslip.storage import ENDPOINT, PATIENCE, TIMEOUT, URL
from coverslip.structures import Table, Task
from object_server import Store, object_server

IMAGES, SIDE = 40, 128
GEOMETRY = Geometry(SIDE, SIDE, "squash", GREY, 8)
MEMORY = MemoryConfig(limit=1_000_000)
LIMIT = 2 * (IMAGES * SCAN_BYTES + 10 * SIDE * SIDE)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Table, Table, Store]]:
    """The same images as a local table and as one in a store, and the store."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("COVERSLIP_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "store" / "bucket"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(IMAGES):
        Image.fromarray(random.integers(0, 255, (24, 20), dtype=np.uint8)).save(folder / f"{number}.png")
    names = tuple(f"{number}.png" for number in range(IMAGES))
    local = Table(folder, names, ("a", "b"), np.arange(IMAGES) % 2, Task.BINARY)
    with object_server(tmp_path / "store") as (address, store):
        monkeypatch.setenv(ENDPOINT, address)
        yield local, replace(local, root=URL("s3://bucket")), store


def asked(store: Store) -> list[str]:
    """The images that were asked for since the last time."""
    names = [path.split("/")[-1] for method, path in store.requests if method == "GET" and path.endswith(".png")]
    store.requests.clear()
    return names


def test_a_limit_below_what_is_known_of_the_images_is_an_error_before_any_is_read(served: tuple[Table, Table, Store]) -> None:
    _, far, store = served
    with pytest.raises(ResourceError, match=rf"of the {IMAGES} images, a thumbnail and facts, needs 0\.\d MB .*-s cache\.limit=\d+\)$"):
        load_pixels(far, Reading(), GEOMETRY, 1600 * IMAGES - 1)
    assert asked(store) == []


def test_what_fits_is_kept_and_the_rest_is_read_again(served: tuple[Table, Table, Store]) -> None:
    local, far, store = served
    expected, _ = load_pixels(local, Reading(), GEOMETRY, 10**9)
    pixels, scan = load_pixels(far, Reading(), GEOMETRY, LIMIT, memory=MEMORY)
    array = pixels.array
    assert isinstance(array, StreamedArray)
    assert (array.shape, array.count, len(scan)) == ((IMAGES, SIDE, SIDE, 1), 10, IMAGES)
    assert sorted(asked(store)) == sorted(far.images)
    rows = np.array([3, 30, 9, 10, 30, 39])
    np.testing.assert_array_equal(pixels.read(rows), expected.read(rows))
    assert sorted(asked(store)) == ["10.png", "30.png", "39.png"]
    np.testing.assert_array_equal(array[2:5], expected.array[2:5])
    np.testing.assert_array_equal(array[35, ::2, 1:], expected.array[35, ::2, 1:])
    assert min(entry.size for entry in cache_entries() if entry.kind == "pixels") <= LIMIT < IMAGES * SIDE * SIDE
    again, _ = load_pixels(far, Reading(), GEOMETRY, LIMIT, memory=MEMORY)
    assert asked(store) == ["35.png"]
    assert again.key == pixels.key


def test_what_fits_whole_is_never_read_again(served: tuple[Table, Table, Store]) -> None:
    local, far, store = served
    pixels, _ = load_pixels(far, Reading(), GEOMETRY, 10**9, memory=MEMORY)
    asked(store)
    expected, _ = load_pixels(local, Reading(), GEOMETRY, 10**9)
    np.testing.assert_array_equal(pixels.array, expected.array)
    assert asked(store) == []


def test_statistics_and_scoring_are_those_of_local_pixels(served: tuple[Table, Table, Store]) -> None:
    local, far, store = served
    expected, _ = load_pixels(local, Reading(), GEOMETRY, 10**9)
    pixels, _ = load_pixels(far, Reading(), GEOMETRY, LIMIT, memory=MEMORY)
    rows, ranged = np.arange(IMAGES), Normalisation((0.0,), (255.0,))
    for one, other in zip(pixel_statistics(pixels.array, rows, ranged), pixel_statistics(expected.array, rows, ranged), strict=True):
        np.testing.assert_array_equal(one, other)
    assert dataset_percentiles(pixels.array, rows, (1, 99)) == dataset_percentiles(expected.array, rows, (1, 99))
    asked(store)
    np.testing.assert_array_equal(np.concatenate(list(chunks(pixels.array, rows, 7))), expected.array)
    assert sorted(asked(store)) == sorted(f"{number}.png" for number in range(10, IMAGES))  # each once, though read ahead


def test_rows_that_are_expected_are_read_before_they_are_asked_for(served: tuple[Table, Table, Store]) -> None:
    _, far, store = served
    pixels, _ = load_pixels(far, Reading(), GEOMETRY, LIMIT, memory=MEMORY)
    assert isinstance(pixels.array, StreamedArray)
    asked(store)
    pixels.expect(np.array([20, 21, 5]))
    for future in pixels.array._waiting.values():
        future.result()
    assert sorted(asked(store)) == ["20.png", "21.png"]
    pixels.read(np.array([21, 20]))
    assert asked(store) == []
    pixels.array.ahead = 3
    pixels.expect(np.arange(IMAGES))
    assert list(pixels.array._waiting) == [10, 11, 12]


def test_an_image_that_changed_and_a_store_that_is_gone_are_errors(
    served: tuple[Table, Table, Store], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, far, store = served
    pixels, _ = load_pixels(far, Reading(), GEOMETRY, LIMIT, memory=MEMORY)
    (store.folder / "bucket" / "30.png").write_bytes(b"no image")
    with pytest.raises(BadImagesError, match=r"s3://bucket/30\.png.*the file has changed"):
        pixels.read(np.array([30]))
    monkeypatch.setenv(TIMEOUT, "0.3")
    monkeypatch.setenv(PATIENCE, "0.5")
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match=r"s3://bucket/31\.png"):
        pixels.read(np.array([31]))
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(UnreachableError):
        load_pixels(far, Reading(), GEOMETRY, LIMIT, memory=MEMORY)


def test_local_pixels_need_no_word_of_what_comes() -> None:
    pixels = Pixels(np.zeros((3, 2, 2, 1), dtype=np.uint8), np.arange(3), "key")
    pixels.expect(np.arange(3))
    assert (pixels.ahead, pixels.notes) == (0, [])
    rows = np.array([2, 0, 1])
    assert pixels.arranged(np.random.default_rng(0), rows) is rows


@pytest.mark.parametrize("window", [1, 7, 50, 1000])
def test_windows_hold_every_row_and_few_shards(window: int) -> None:
    rows = np.random.default_rng(1).permutation(300)
    order = windowed(np.random.default_rng(0), rows, rows // 25, window)
    assert sorted(order.tolist()) == list(range(300))
    assert order.tolist() == windowed(np.random.default_rng(0), rows, rows // 25, window).tolist()
    for start in range(0, 300, window):
        shards = set((order[start : start + window] // 25).tolist())
        assert len(shards) <= window // 25 + 2
    if window >= 50:
        assert order.tolist() != sorted(order.tolist())
