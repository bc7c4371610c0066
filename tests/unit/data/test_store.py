import errno
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from coverslip.data.decoding import ImageReadError, PixelArray
from coverslip.data.geometry import GREY, WHOLE, Geometry
from coverslip.data.reading import Facts, Reading
from coverslip.data.store import PEEK, FilePixels, Pixels, RowWriter, empty_rows, glance, load_pixels, some_images
from coverslip.errors import ResourceError
from coverslip.structures import Channel, Table, Task

LIMIT = 10**9
GEOMETRY = Geometry(16, 16, "squash", GREY, 8)
READING = Reading()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVERSLIP_CACHE", str(tmp_path / "cache"))


def table_of(root: Path, images: Mapping[str, npt.NDArray[Any] | bytes]) -> Table:
    root.mkdir(exist_ok=True)
    for name, image in images.items():
        if isinstance(image, bytes):
            (root / name).write_bytes(image)
        elif name.endswith(".tif"):
            tifffile.imwrite(root / name, image)
        else:
            Image.fromarray(image).save(root / name)
    return Table(root, tuple(images), ("x", "y"), np.arange(len(images)) % 2, Task.BINARY)


def grey(seed: int, height: int = 16, width: int = 16) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def watch_reading(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, ...]]:
    """The files of each sample that is read from now on."""
    read, seen = Reading.read, list[tuple[Path, ...]]()

    def noted(self: Reading, files: Sequence[Path]) -> tuple[PixelArray, Facts]:
        seen.append(tuple(files))
        return read(self, files)

    monkeypatch.setattr(Reading, "read", noted)
    return seen


def test_pixels_stand_in_table_order(tmp_path: Path) -> None:
    images = {f"{number}.png": grey(number) for number in range(7)}
    pixels, scan = load_pixels(table_of(tmp_path / "d", images), READING, GEOMETRY, LIMIT)
    assert np.array_equal(pixels.array[..., 0], np.stack(list(images.values())))
    assert pixels.array.dtype == np.uint8
    assert scan.facts["image"].tolist() == list(images)
    assert scan.facts["error"].tolist() == [""] * 7


def test_images_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(tmp_path / "d", {f"{number}.png": grey(number) for number in range(5)})
    seen = watch_reading(monkeypatch)
    first, first_scan = load_pixels(table, READING, GEOMETRY, LIMIT)
    assert sorted(seen) == sorted(table.samples)
    second, second_scan = load_pixels(table, READING, GEOMETRY, LIMIT)
    assert len(seen) == 5
    assert first.key == second.key
    assert np.array_equal(first.array, second.array)
    assert first_scan.facts.equals(second_scan.facts)
    assert isinstance(second.array, np.memmap)


def test_a_disk_that_fills_up_is_said_and_leaves_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(tmp_path / "d", {f"{number}.png": grey(number) for number in range(5)})
    written: list[int] = []
    write = RowWriter.write

    def full_after_two(self: RowWriter, row: int, pixels: PixelArray) -> None:
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(row)
        write(self, row, pixels)

    with monkeypatch.context() as patch:
        patch.setattr(RowWriter, "write", full_after_two)
        with pytest.raises(ResourceError, match=r"disk is full.*COVERSLIP_CACHE"):
            load_pixels(table, READING, GEOMETRY, LIMIT)
    assert len(written) == 2
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert load_pixels(table, READING, GEOMETRY, LIMIT)[0].array.shape == (5, 16, 16, 1)


@pytest.mark.parametrize("suffix", ["bmp", "webp", "png", "jpg", "tif"])
def test_every_format_is_stored_without_a_warning(tmp_path: Path, suffix: str) -> None:
    pixels, scan = load_pixels(table_of(tmp_path / "d", {f"a.{suffix}": grey(1), f"b.{suffix}": grey(2)}), READING, GEOMETRY, LIMIT)
    assert scan.facts["error"].tolist() == ["", ""]
    assert len(pixels.array) == 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_rows_are_written_in_any_order_and_the_others_are_zero(tmp_path: Path, dtype: type) -> None:
    rows = np.random.default_rng(0).integers(0, 200, (4, 3, 5, 2)).astype(dtype)
    writer = empty_rows(tmp_path / "a.npy", np.dtype(dtype), (5, 3, 5, 2))
    for row in (3, 0, 2):
        writer.write(row, rows[row].transpose(1, 0, 2).copy().transpose(1, 0, 2))
    found = np.load(tmp_path / "a.npy", mmap_mode="r", allow_pickle=False)
    assert found.dtype == dtype
    assert np.array_equal(found[[0, 2, 3]], rows[[0, 2, 3]])
    assert not found[[1, 4]].any()


def test_renamed_files_are_not_decoded_again_and_carry_their_new_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_pixels(table_of(tmp_path / "d", {"a.png": grey(1), "b.png": grey(2)}), READING, GEOMETRY, LIMIT)
    other = table_of(tmp_path / "e", {"c.png": grey(1), "d.png": grey(2)})
    seen = watch_reading(monkeypatch)
    _, scan = load_pixels(other, READING, GEOMETRY, LIMIT)
    assert seen == []
    assert scan.facts["image"].tolist() == ["c.png", "d.png"]


def test_other_content_order_geometry_or_background_is_another_entry(tmp_path: Path) -> None:
    images = {"a.png": grey(1), "b.png": grey(2)}
    table = table_of(tmp_path / "d", images)
    found = [
        load_pixels(table, READING, GEOMETRY, LIMIT)[0],
        load_pixels(table, READING, Geometry(16, 16, "squash", GREY, 8, box=(0.0, 0.0, 0.5, 1.0)), LIMIT)[0],
        load_pixels(table, READING, Geometry(16, 16, "crop", GREY, 8), LIMIT)[0],
        load_pixels(table, Reading(background="#000000"), GEOMETRY, LIMIT)[0],
        load_pixels(table.take(np.array([1, 0])), READING, GEOMETRY, LIMIT)[0],
    ]
    table_of(tmp_path / "d", {"a.png": grey(3)})
    changed = load_pixels(table, READING, GEOMETRY, LIMIT)[0]
    assert len({pixels.key for pixels in (*found, changed)}) == 6
    assert np.array_equal(changed.array[0, ..., 0], grey(3))
    assert np.array_equal(found[4].array[0, ..., 0], grey(2))


def test_rows_that_cannot_be_read_hold_zeros_and_the_scan_says_why(tmp_path: Path) -> None:
    table = table_of(tmp_path / "d", {"a.png": grey(1), "b.png": b"no image at all", "c.png": grey(3)})
    (tmp_path / "d" / "c.png").write_bytes((tmp_path / "d" / "c.png").read_bytes()[:100])
    pixels, scan = load_pixels(table, READING, GEOMETRY, LIMIT)
    assert [bool(error) for error in scan.facts["error"]] == [False, True, True]
    assert not pixels.array[1:].any()
    assert pixels.array[0].any()


def test_a_missing_file_is_a_row_with_an_error(tmp_path: Path) -> None:
    table = table_of(tmp_path / "d", {"a.png": grey(1), "b.png": grey(2)})
    (tmp_path / "d" / "b.png").unlink()
    _, scan = load_pixels(table, READING, GEOMETRY, LIMIT)
    assert [bool(error) for error in scan.facts["error"]] == [False, True]


def test_rows_are_addressed_by_the_table_also_after_some_were_dropped(tmp_path: Path) -> None:
    images = {f"{number}.png": grey(number) for number in range(6)}
    pixels, _ = load_pixels(table_of(tmp_path / "d", images), READING, GEOMETRY, LIMIT)
    kept = pixels.take(np.array([1, 2, 5]))
    assert np.array_equal(kept.read(np.array([2, 0]))[..., 0], np.stack([grey(5), grey(1)]))
    assert np.array_equal(kept.take(np.array([1])).read(np.array([0]))[0, ..., 0], grey(2))


def test_pixels_of_images_in_memory() -> None:
    images = [grey(1)[..., None], grey(2, 30, 20)[..., None]]
    pixels = Pixels.of(images, GEOMETRY)
    assert pixels.array.shape == (2, 16, 16, 1)
    assert np.array_equal(pixels.read(np.array([0]))[0], images[0])
    assert pixels.key != Pixels.of(images[::-1], GEOMETRY).key


STAINS = ("dna", "er", "protein")


def stacks(root: Path, planes: dict[str, npt.NDArray[np.generic]], names: Sequence[str] = STAINS) -> Table:
    """OME-TIFFs (c, h, w) of named channels."""
    root.mkdir(exist_ok=True)
    for name, image in planes.items():
        tifffile.imwrite(root / name, image, ome=True, photometric="minisblack", metadata={"axes": "CYX", "Channel": {"Name": list(names)}})
    return Table(root, tuple(planes), ("x", "y"), np.arange(len(planes)) % 2, Task.BINARY)


def planes(seed: int, dtype: type = np.uint16, count: int = 3) -> npt.NDArray[Any]:
    return np.random.default_rng(seed).integers(0, 250, (count, 16, 16)).astype(dtype)


@pytest.mark.parametrize(("dtype", "bits"), [(np.uint8, 8), (np.uint16, 16), (np.float32, 32)])
def test_named_channels_are_stored_in_their_order_and_depth(tmp_path: Path, dtype: type, bits: int) -> None:
    table = stacks(tmp_path / "d", {"a.tif": planes(1, dtype), "b.tif": planes(2, dtype)})
    reading, geometry = Reading(channels=Channel.of("protein", "dna")), Geometry(16, 16, "squash", ("protein", "dna"), bits)
    pixels, scan = load_pixels(table, reading, geometry, LIMIT)
    assert pixels.array.dtype == dtype
    assert np.array_equal(pixels.array, np.stack([planes(seed, dtype)[[2, 0]].transpose(1, 2, 0) for seed in (1, 2)]))
    assert scan.facts["error"].tolist() == ["", ""]


def test_other_channels_or_another_projection_are_another_entry(tmp_path: Path) -> None:
    table = stacks(tmp_path / "d", {"a.tif": planes(1), "b.tif": planes(2)})
    geometry = Geometry(16, 16, "squash", ("x", "y"), 16)
    chosen = [Channel.of("dna", "er"), Channel.of("er", "dna"), (Channel("x", "dna"), Channel("y", "protein"))]
    found = [load_pixels(table, Reading(channels=channels), geometry, LIMIT)[0] for channels in chosen]
    found.append(load_pixels(table, Reading(channels=chosen[0], projection="max"), geometry, LIMIT)[0])
    assert len({pixels.key for pixels in found}) == 4
    assert np.array_equal(found[0].array[..., ::-1], found[1].array)
    assert np.array_equal(found[2].array[0, ..., 1], planes(1)[2])


def test_a_sample_of_several_files_is_met_again_and_a_change_of_one_file_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table_of(tmp_path / "d", {f"{name}_{number}.png": grey(number) for number, name in enumerate("aabb")})
    table = Table(
        tmp_path / "d", ("a", "b"), ("x", "y"), np.array([0, 1]), Task.BINARY, files=(("a_0.png", "a_1.png"), ("b_2.png", "b_3.png"))
    )
    reading, geometry = Reading(channels=Channel.of("dna", "er")), Geometry(16, 16, "squash", ("dna", "er"), 8)
    seen = watch_reading(monkeypatch)
    first, scan = load_pixels(table, reading, geometry, LIMIT)
    assert scan.facts["image"].tolist() == ["a", "b"]
    assert np.array_equal(first.array[1], np.dstack([grey(2), grey(3)]))
    assert load_pixels(table, reading, geometry, LIMIT)[0].key == first.key
    assert len(seen) == 2
    Image.fromarray(grey(9)).save(tmp_path / "d" / "b_3.png")
    changed, _ = load_pixels(table, reading, geometry, LIMIT)
    assert np.array_equal(changed.array[1], np.dstack([grey(2), grey(9)]))


def test_images_of_another_kind_than_the_geometry_hold_zeros_and_the_scan_says_why(tmp_path: Path) -> None:
    odd = {"a.tif": planes(1), "b.tif": planes(2, np.float32), "c.tif": planes(3)}
    geometry = Geometry(16, 16, "squash", STAINS, 16)
    pixels, scan = load_pixels(stacks(tmp_path / "d", odd), Reading(channels=Channel.of(*STAINS)), geometry, LIMIT)
    assert "float32 pixels, where most images have uint16" in scan.facts["error"][1]
    assert [bool(error) for error in scan.facts["error"]] == [False, True, False]
    assert [bool(row.any()) for row in pixels.array] == [True, False, True]


# Some images ----------------------------------------------------------------------------------------------------------


def test_some_images_are_of_all_classes_in_equal_numbers(tmp_path: Path) -> None:
    table = table_of(tmp_path / "d", {**{f"{number}.png": grey(number) for number in range(20)}, "bad.png": b"no image"})
    table = replace(table, targets=np.array([0] * 16 + [1] * 5))
    rows, images = some_images(table, READING, GEOMETRY, 8)
    assert len(rows) == len(set(rows.tolist())) >= 7
    assert 20 not in rows
    assert abs(int((table.labels[rows] == 0).sum()) - int((table.labels[rows] == 1).sum())) <= 1
    assert all(np.array_equal(image[..., 0], grey(row)) for row, image in zip(rows.tolist(), images, strict=True))
    everything, _ = some_images(table, READING, GEOMETRY, 100)
    assert sorted(everything.tolist()) == list(range(20))
    none, nothing = some_images(table.take(np.array([20])), READING, GEOMETRY, 3)
    assert (none.shape, nothing.shape) == ((0,), (0, 16, 16, 1))


# A glance -------------------------------------------------------------------------------------------------------------


def framed(seed: int, *, height: int = 100, width: int = 200) -> npt.NDArray[np.uint8]:
    """Noise inside rows 20 to 79 and columns 30 to 179, the same everywhere else."""
    image = np.full((height, width), 240, dtype=np.uint8)
    image[::7] = 3
    image[20:80, 30:180] = grey(seed, 60, 150)
    return image


def test_the_border_that_is_the_same_everywhere_is_found_with_a_little_around_it(tmp_path: Path) -> None:
    seen = glance(table_of(tmp_path / "d", {f"{number}.png": framed(number) for number in range(5)}), READING)
    assert seen.box == pytest.approx((0.19, 0.14, 0.81, 0.91), abs=1e-3)
    assert (seen.height, seen.width) == (100, 200)


@pytest.mark.parametrize("first", [0, 1])
def test_the_border_of_colour_images_with_and_without_a_fourth_plane(tmp_path: Path, first: int) -> None:
    images = {}
    for number in range(4):
        colour = np.repeat(framed(number)[..., None], 3, axis=2)
        opaque = np.dstack([colour, np.full(colour.shape[:2], 255, np.uint8)])
        images[f"{number}.png"] = colour if number % 2 == first else opaque
    assert glance(table_of(tmp_path / "d", images), READING).box == pytest.approx((0.19, 0.14, 0.81, 0.91), abs=1e-3)


@pytest.mark.parametrize(
    "images",
    [
        {"a.png": framed(1)},
        {"a.png": framed(1), "b.png": framed(1)},
        {"a.png": framed(1), "b.png": framed(2), "c.png": framed(3, height=101)},
        {"a.png": grey(1, 50, 50), "b.png": grey(2, 50, 50)},
    ],
    ids=["one image", "one image twice", "two sizes", "no border"],
)
def test_the_whole_image_is_looked_at_when_there_is_no_common_border(tmp_path: Path, images: dict[str, npt.NDArray[np.uint8]]) -> None:
    assert glance(table_of(tmp_path / "d", dict(images)), READING).box == WHOLE


def test_a_border_of_under_a_twentieth_of_the_area_is_left(tmp_path: Path) -> None:
    def image(seed: int) -> npt.NDArray[np.uint8]:
        frame = np.zeros((100, 100), dtype=np.uint8)
        frame[2:98] = grey(seed, 96, 100)
        return frame

    assert glance(table_of(tmp_path / "d", {f"{number}.png": image(number) for number in range(3)}), READING).box == WHOLE


def test_colour_and_depth(tmp_path: Path) -> None:
    copied = np.repeat(grey(1)[..., None], 3, axis=2)
    coloured = copied.copy()
    coloured[4, 4] = (200, 0, 0)
    deep = grey(2).astype(np.uint16) * 257
    cases: list[tuple[str, dict[str, npt.NDArray[Any]], str, int]] = [
        ("one", {"a.png": grey(1), "b.png": copied}, "none", 8),
        ("two", {"a.png": grey(1), "b.png": coloured}, "some", 8),
        ("three", {"a.png": grey(1), "b.tif": deep}, "none", 16),
        ("four", {"a.png": coloured, "b.png": coloured[::-1].copy()}, "all", 8),
        ("five", {"a.png": grey(1), "b.tif": grey(2).astype(np.float32)}, "none", 32),
    ]
    for name, images, colour, bits in cases:
        seen = glance(table_of(tmp_path / name, images), READING)
        assert (seen.colour, seen.depth) == (colour, bits), name


def test_images_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    seen = glance(table_of(tmp_path / "d", {"a.png": b"", "b.png": grey(1, 40, 60), "c.png": b"junk"}), READING)
    assert (seen.height, seen.width, seen.one_size) == (40, 60, True)


def test_pixels_from_files_are_those_of_the_store_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(tmp_path / "d", {f"{number}.png": grey(number, 40, 30) for number in range(7)})
    stored, _ = load_pixels(table, READING, GEOMETRY, LIMIT)
    direct = FilePixels(stored.array, stored.index, stored.key, table.samples, READING, GEOMETRY)
    seen = watch_reading(monkeypatch)
    rows = np.array([5, 0, 5, 3])
    assert np.array_equal(direct.read(rows), stored.read(rows))
    assert len(seen) == 4
    direct.read(rows)
    assert len(seen) == 8
    (table.root / "3.png").write_bytes(b"")
    with pytest.raises(ImageReadError, match=r"empty|truncated|decoded"):
        direct.read(rows)


@pytest.mark.parametrize(("height", "width", "one"), [(40, 60, True), (40, 61, False), (60, 40, False)])
def test_whether_all_images_have_one_size(tmp_path: Path, height: int, width: int, one: bool) -> None:
    assert glance(table_of(tmp_path / "d", {"a.png": grey(1, 40, 60), "b.png": grey(2, height, width)}), READING).one_size is one


def test_named_channels_are_found_when_none_were_chosen(tmp_path: Path) -> None:
    table = stacks(tmp_path / "d", {"a.tif": planes(1), "b.tif": planes(2)})
    seen = glance(table, READING)
    assert (seen.names, seen.colour, seen.depth, seen.height, seen.one_size) == (STAINS, "none", 16, 16, True)
    chosen = glance(table, Reading(channels=Channel.of("er")))
    assert (chosen.names, chosen.colour, chosen.height) == ((), "none", 16)
    assert glance(table_of(tmp_path / "e", {"a.png": grey(1)}), READING).names == ()


def test_a_glance_at_nothing_readable_is_still_an_answer(tmp_path: Path) -> None:
    seen = glance(table_of(tmp_path / "d", {"a.png": b""}), READING)
    assert (seen.colour, seen.depth, seen.height, seen.box) == ("none", 8, 0, WHOLE)


def test_a_large_table_is_sampled_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(tmp_path / "d", {"a.png": grey(1)})
    many = Table(table.root, tuple(f"{number}.png" for number in range(1000)), ("x", "y"), None, Task.BINARY)
    seen = watch_reading(monkeypatch)
    glance(many, READING)
    asked = sorted(int(file.stem) for (file,) in seen)
    assert len(asked) == PEEK
    assert (asked[0], asked[-1]) == (0, 999)
    assert max(np.diff(asked)) <= 1000 / PEEK + 2
