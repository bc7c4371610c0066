from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

import coverslip.data.scan
from coverslip.config import DataConfig
from coverslip.data.pixels import WHOLE, Geometry
from coverslip.data.store import PEEK, Pixels, glance, load_pixels
from coverslip.structures import Table, Task

LIMIT = 10**9
GEOMETRY = Geometry(16, 16, "squash", 1, 8)
CONFIG = DataConfig()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVERSLIP_CACHE", str(tmp_path / "cache"))


def table_of(root: Path, images: dict[str, npt.NDArray[np.generic] | bytes]) -> Table:
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


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("decode_image", "read_bytes"):
        monkeypatch.setattr(coverslip.data.scan, name, lambda *_, **__: pytest.fail("an image was decoded again"))


def test_pixels_stand_in_table_order(tmp_path: Path) -> None:
    images = {f"{number}.png": grey(number) for number in range(7)}
    pixels, scan = load_pixels(table_of(tmp_path / "d", images), CONFIG, GEOMETRY, LIMIT)
    assert np.array_equal(pixels.array[..., 0], np.stack(list(images.values())))
    assert pixels.array.dtype == np.uint8
    assert scan.facts["image"].tolist() == list(images)
    assert scan.facts["error"].tolist() == [""] * 7


def test_images_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(tmp_path / "d", {f"{number}.png": grey(number) for number in range(5)})
    first, first_scan = load_pixels(table, CONFIG, GEOMETRY, LIMIT)
    forbid_reading(monkeypatch)
    second, second_scan = load_pixels(table, CONFIG, GEOMETRY, LIMIT)
    assert first.key == second.key
    assert np.array_equal(first.array, second.array)
    assert first_scan.facts.equals(second_scan.facts)
    assert isinstance(second.array, np.memmap)


def test_renamed_files_are_not_decoded_again_and_carry_their_new_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_pixels(table_of(tmp_path / "d", {"a.png": grey(1), "b.png": grey(2)}), CONFIG, GEOMETRY, LIMIT)
    other = table_of(tmp_path / "e", {"c.png": grey(1), "d.png": grey(2)})
    forbid_reading(monkeypatch)
    _, scan = load_pixels(other, CONFIG, GEOMETRY, LIMIT)
    assert scan.facts["image"].tolist() == ["c.png", "d.png"]


def test_other_content_order_geometry_or_background_is_another_entry(tmp_path: Path) -> None:
    images = {"a.png": grey(1), "b.png": grey(2)}
    table = table_of(tmp_path / "d", images)
    found = [
        load_pixels(table, CONFIG, GEOMETRY, LIMIT)[0],
        load_pixels(table, CONFIG, Geometry(16, 16, "squash", 1, 8, box=(0.0, 0.0, 0.5, 1.0)), LIMIT)[0],
        load_pixels(table, CONFIG, Geometry(16, 16, "crop", 1, 8), LIMIT)[0],
        load_pixels(table, DataConfig(background="#000000"), GEOMETRY, LIMIT)[0],
        load_pixels(table.take(np.array([1, 0])), CONFIG, GEOMETRY, LIMIT)[0],
    ]
    table_of(tmp_path / "d", {"a.png": grey(3)})
    changed = load_pixels(table, CONFIG, GEOMETRY, LIMIT)[0]
    assert len({pixels.key for pixels in (*found, changed)}) == 6
    assert np.array_equal(changed.array[0, ..., 0], grey(3))
    assert np.array_equal(found[4].array[0, ..., 0], grey(2))


def test_rows_that_cannot_be_read_hold_zeros_and_the_scan_says_why(tmp_path: Path) -> None:
    table = table_of(tmp_path / "d", {"a.png": grey(1), "b.png": b"no image at all", "c.png": grey(3)})
    (tmp_path / "d" / "c.png").write_bytes((tmp_path / "d" / "c.png").read_bytes()[:100])
    pixels, scan = load_pixels(table, CONFIG, GEOMETRY, LIMIT)
    assert [bool(error) for error in scan.facts["error"]] == [False, True, True]
    assert not pixels.array[1:].any()
    assert pixels.array[0].any()


def test_a_missing_file_is_a_row_with_an_error(tmp_path: Path) -> None:
    table = table_of(tmp_path / "d", {"a.png": grey(1), "b.png": grey(2)})
    (tmp_path / "d" / "b.png").unlink()
    _, scan = load_pixels(table, CONFIG, GEOMETRY, LIMIT)
    assert [bool(error) for error in scan.facts["error"]] == [False, True]


def test_rows_are_addressed_by_the_table_also_after_some_were_dropped(tmp_path: Path) -> None:
    images = {f"{number}.png": grey(number) for number in range(6)}
    pixels, _ = load_pixels(table_of(tmp_path / "d", images), CONFIG, GEOMETRY, LIMIT)
    kept = pixels.take(np.array([1, 2, 5]))
    assert np.array_equal(kept.read(np.array([2, 0]))[..., 0], np.stack([grey(5), grey(1)]))
    assert np.array_equal(kept.take(np.array([1])).read(np.array([0]))[0, ..., 0], grey(2))


def test_pixels_of_images_in_memory() -> None:
    images = [grey(1)[..., None], grey(2, 30, 20)[..., None]]
    pixels = Pixels.of(images, GEOMETRY)
    assert pixels.array.shape == (2, 16, 16, 1)
    assert np.array_equal(pixels.read(np.array([0]))[0], images[0])
    assert pixels.key != Pixels.of(images[::-1], GEOMETRY).key


# A glance -------------------------------------------------------------------------------------------------------------


def framed(seed: int, *, height: int = 100, width: int = 200) -> npt.NDArray[np.uint8]:
    """Noise inside rows 20 to 79 and columns 30 to 179, the same everywhere else."""
    image = np.full((height, width), 240, dtype=np.uint8)
    image[::7] = 3
    image[20:80, 30:180] = grey(seed, 60, 150)
    return image


def test_the_border_that_is_the_same_everywhere_is_found_with_a_little_around_it(tmp_path: Path) -> None:
    seen = glance(table_of(tmp_path / "d", {f"{number}.png": framed(number) for number in range(5)}), CONFIG)
    assert seen.box == pytest.approx((0.19, 0.14, 0.81, 0.91), abs=1e-3)
    assert (seen.height, seen.width) == (100, 200)


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
    assert glance(table_of(tmp_path / "d", dict(images)), CONFIG).box == WHOLE


def test_a_border_of_under_a_twentieth_of_the_area_is_left(tmp_path: Path) -> None:
    def image(seed: int) -> npt.NDArray[np.uint8]:
        frame = np.zeros((100, 100), dtype=np.uint8)
        frame[2:98] = grey(seed, 96, 100)
        return frame

    assert glance(table_of(tmp_path / "d", {f"{number}.png": image(number) for number in range(3)}), CONFIG).box == WHOLE


def test_colour_and_depth(tmp_path: Path) -> None:
    copied = np.repeat(grey(1)[..., None], 3, axis=2)
    coloured = copied.copy()
    coloured[4, 4] = (200, 0, 0)
    deep = grey(2).astype(np.uint16) * 257
    for name, images, colour, bits in [
        ("one", {"a.png": grey(1), "b.png": copied}, "none", 8),
        ("two", {"a.png": grey(1), "b.png": coloured}, "some", 8),
        ("three", {"a.png": grey(1), "b.tif": deep}, "none", 16),
        ("four", {"a.png": coloured, "b.png": coloured[::-1].copy()}, "all", 8),
    ]:
        seen = glance(table_of(tmp_path / name, dict(images)), CONFIG)
        assert (seen.colour, seen.bits) == (colour, bits), name


def test_images_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    seen = glance(table_of(tmp_path / "d", {"a.png": b"", "b.png": grey(1, 40, 60), "c.png": b"junk"}), CONFIG)
    assert (seen.height, seen.width) == (40, 60)


def test_a_glance_at_nothing_readable_is_still_an_answer(tmp_path: Path) -> None:
    seen = glance(table_of(tmp_path / "d", {"a.png": b""}), CONFIG)
    assert (seen.colour, seen.bits, seen.height, seen.box) == ("none", 8, 0, WHOLE)


def test_a_large_table_is_sampled_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(tmp_path / "d", {"a.png": grey(1)})
    many = Table(table.root, tuple(f"{number}.png" for number in range(1000)), ("x", "y"), None, Task.BINARY)
    asked: list[int] = []
    monkeypatch.setattr("coverslip.data.store.read_image", lambda path, **_: _note(asked, path))
    glance(many, CONFIG)
    assert len(asked) == PEEK
    assert (asked[0], asked[-1]) == (0, 999)
    assert max(np.diff(asked)) <= 1000 / PEEK + 2


def _note(asked: list[int], path: Path) -> None:
    from coverslip.data.decoding import ImageReadError

    asked.append(int(path.stem))
    raise ImageReadError("not there")
