"""One pass: facts, thumbnails, hashes; bad files are rows, not exceptions."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from coverslip.data import scan
from coverslip.data.decoding import ImageReadError
from coverslip.data.luma import Luma
from coverslip.data.pools import Crew, in_order
from coverslip.data.reading import Reading
from coverslip.data.scan import Scan, difference_hash, hash_files, scan_images, usable_rows
from coverslip.errors import BadImagesError, InputError
from coverslip.structures import Channel, Table, Task

random = np.random.default_rng(0)


def make_table(root: Path, **arrays: np.ndarray | bytes) -> Table:
    for name, array in arrays.items():
        if isinstance(array, bytes):
            (root / f"{name}.png").write_bytes(array)
        else:
            Image.fromarray(array).save(root / f"{name}.png")
    images = tuple(f"{name}.png" for name in arrays)
    targets = np.array([int(name.startswith("b")) for name in arrays], np.int64)
    return Table(root, images, ("a", "b"), targets, Task.BINARY)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return make_table(
        tmp_path,
        a_grey=random.integers(0, 256, (40, 60), dtype=np.uint8),
        a_colour=random.integers(0, 256, (40, 60, 3), dtype=np.uint8),
        a_text=b"not an image",
        b_deep=random.integers(100, 4096, (50, 40), dtype=np.uint16),
        b_flat=np.full((10, 10), 51, np.uint8),
    )


def test_facts(table):
    scan = scan_images(table, Reading(), workers=2)
    facts = scan.facts.set_index("image")
    assert tuple(scan.facts["image"]) == table.images
    assert facts["error"].tolist()[0] == ""
    assert "not an image" in facts.loc["a_text.png", "error"]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for (path,) in table.samples]
    assert facts["sha256"].tolist() == [
        "" if image == "a_text.png" else digest for image, digest in zip(table.images, digests, strict=True)
    ]
    assert facts.loc["b_deep.png", ["mode", "bits", "height", "width"]].tolist() == ["I;16", 16, 50, 40]
    deep = np.asarray(Image.open(table.samples[3][0])) / 65535
    expected = [deep.mean(), deep.std(), deep.min(), deep.max()]
    assert np.allclose(facts.loc["b_deep.png", ["mean", "deviation", "low", "high"]].to_numpy(float), expected, atol=1e-5)
    assert facts["grey"].tolist() == [True, False, False, True, True]
    assert facts.loc["b_flat.png", ["mean", "deviation"]].tolist() == pytest.approx([0.2, 0.0], abs=1e-6)
    assert scan.thumbnails.shape == (5, 32, 32)
    assert (scan.thumbnails[4] == 51).all()
    assert scan.thumbnails[3].max() > 100
    assert scan.hashes[4] == 0
    assert scan.hashes[0] != 0


def test_on_image_and_progress(table):
    seen: dict[int, tuple[int, ...]] = {}
    lumas: dict[int, tuple[int, ...] | None] = {}
    threads, steps = set(), []

    def on_image(row: int, pixels: np.ndarray, luma: Luma | None) -> None:
        seen[row] = pixels.shape
        lumas[row] = None if luma is None else luma.values.shape
        threads.add(threading.get_ident())

    scan_images(table, Reading(), on_image=on_image, progress=lambda *step: steps.append(step[1:3]), workers=2)
    assert seen == {0: (40, 60, 1), 1: (40, 60, 3), 3: (50, 40, 1), 4: (10, 10, 1)}
    assert lumas == {0: None, 1: (40, 60), 3: None, 4: None}
    assert threading.get_ident() not in threads
    assert steps == [(i, 5) for i in range(1, 6)]


@pytest.mark.parametrize("package", [1, 256_000])
def test_what_is_fetched_first_is_found_in_the_same_order(table, monkeypatch, package):
    table.samples[1][0].unlink()
    monkeypatch.setattr(scan, "PACKAGE", package)
    look = scan._Look(Reading(), None)
    here = look(scan._Portion(0, list(table.samples)))
    with Crew(look, len(table), 1) as crew:
        afar = scan._fetched(range(len(table)), table.samples, Reading(), crew)
    assert [row.facts.error == "" for row in afar] == [True, False, False, True, True]
    assert [(row.facts, row.hash) for row in afar[:1] + afar[3:]] == [(row.facts, row.hash) for row in here[:1] + here[3:]]
    assert [row.facts.error for row in afar] == [row.facts.error for row in here]


def test_save_and_load(table, tmp_path):
    scan = scan_images(table, Reading())
    scan.save(tmp_path / "scan.npz")
    loaded = Scan.load(tmp_path / "scan.npz")
    pd.testing.assert_frame_equal(loaded.facts, scan.facts)
    assert np.array_equal(loaded.thumbnails, scan.thumbnails)
    assert np.array_equal(loaded.hashes, scan.hashes)
    with np.load(tmp_path / "scan.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype != object for name in arrays.files)


def test_hash_files(table):
    hashes = hash_files(table)
    assert hashes == [hashlib.sha256(path.read_bytes()).hexdigest() for (path,) in table.samples]
    found = scan_images(table, Reading()).facts["sha256"].tolist()
    assert [found[row] == hashes[row] for row in range(5)] == [True, True, False, True, True]
    table.samples[1][0].unlink()
    assert hash_files(table)[1] == ""


def test_stop_and_skip(table):
    scan = scan_images(table, Reading())
    with pytest.raises(BadImagesError, match=r'a_text.png: not an image.*\n.*on_bad_image="skip"') as caught:
        usable_rows(table, scan, "stop")
    assert list(caught.value.problems) == ["a_text.png"]
    kept, kept_scan, bad = usable_rows(table, scan, "skip")
    assert list(bad) == ["a_text.png"]
    assert kept.images == tuple(kept_scan.facts["image"]) == ("a_grey.png", "a_colour.png", "b_deep.png", "b_flat.png")
    assert len(kept_scan) == len(kept_scan.hashes) == 4
    whole, _, none = usable_rows(kept, kept_scan, "stop")
    assert whole is kept
    assert none == {}


def test_lost_class_and_nothing_left(tmp_path):
    good = random.integers(0, 256, (9, 9), dtype=np.uint8)
    table = make_table(tmp_path, a=good, b=b"", b2=b"x")
    with pytest.raises(InputError, match="no image is left of the class b"):
        usable_rows(table, scan_images(table, Reading()), "skip")
    table = make_table(tmp_path, a=b"", b=b"x")
    with pytest.raises(BadImagesError, match="no image of the data set"):
        usable_rows(table, scan_images(table, Reading()), "skip")


@pytest.mark.parametrize("asked", ["stop", "skip"])
def test_one_reason_for_all_images_is_said_once(tmp_path, asked):
    table = make_table(tmp_path, a=b"x", b=b"y", c=b"z")
    with pytest.raises(InputError, match=r"not one of the 3 images can be used, all for one reason, as a\.png: not an image") as caught:
        usable_rows(table, scan_images(table, Reading()), asked)
    assert "\n" not in str(caught.value)


def test_hash_survives_copies_and_sees_differences():
    levels = np.asarray(Image.fromarray(random.random((12, 12), dtype=np.float32)).resize((90, 60), Image.Resampling.BICUBIC))
    half = np.asarray(Image.fromarray(levels).resize((45, 30), Image.Resampling.BOX))
    own = difference_hash(levels)
    assert (own ^ difference_hash(half)).bit_count() <= 4
    assert (own ^ difference_hash(levels * 0.7 + 0.1)).bit_count() <= 1
    assert (own ^ difference_hash(levels[:, ::-1])).bit_count() > 10


def test_in_order_is_bounded_and_passes_errors_on():
    started: list[int] = []

    def work(item: int) -> int:
        started.append(item)
        if item == 30:
            raise ValueError("thirty")
        return item

    results = in_order(work, range(1000), workers=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(started) <= 12
    with pytest.raises(ValueError, match="thirty"):
        list(results)
    assert len(started) < 60


# Several files, named channels, floating point ------------------------------------------------------------------------


def several(root: Path, names: str, planes: dict[str, np.ndarray]) -> Table:
    """A table of samples `a`, `b`, ... with files `a_red.tif`, `a_green.tif`, ..."""
    for name, plane in planes.items():
        tifffile.imwrite(root / f"{name}.tif", plane)
    files = tuple((f"{name}_red.tif", f"{name}_green.tif") for name in names)
    return Table(root, tuple(names), ("a", "b"), np.arange(len(names)) % 2, Task.BINARY, files=files)


def test_samples_of_several_files(tmp_path):
    red, green = (random.integers(0, 4096, (2, 40, 60), dtype=np.uint16) for _ in range(2))
    planes = {"a_red": red[0], "a_green": green[0], "b_red": red[1], "b_green": green[1][:30]}
    table = several(tmp_path, "abc", planes)
    seen: dict[int, np.ndarray] = {}
    scan = scan_images(table, Reading(channels=Channel.of("red", "green")), on_image=lambda row, pixels, _: seen.__setitem__(row, pixels))
    facts = scan.facts.set_index("image")
    assert list(facts.index) == ["a", "b", "c"]
    assert "channel 'green' has 30x60" in facts.loc["b", "error"]
    assert "channel 'red', c_red.tif" in facts.loc["c", "error"]
    assert facts.loc["a", ["mode", "bits", "height", "width", "error"]].tolist() == ["2 files of I;16", 16, 40, 60, ""]
    assert list(seen) == [0]
    assert np.array_equal(seen[0], np.dstack([red[0], green[0]]))
    grey = np.dstack([red[0], green[0]]).mean(axis=2) / 65535
    assert facts.loc["a", ["mean", "low", "high"]].to_numpy(float) == pytest.approx([grey.mean(), grey.min(), grey.max()], abs=2e-5)
    assert facts.loc["a", "grey"]
    assert facts.loc["a", "sha256"] == hash_files(table)[0]
    assert hash_files(table)[2] == ""
    assert len(set(hash_files(table))) == 3


def test_floating_point_keeps_its_values_and_has_a_thumbnail_of_its_range(tmp_path):
    image = random.normal(-5000, 10, (64, 64)).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", image)
    scan = scan_images(Table(tmp_path, ("a.tif",), ("x", "y"), None, Task.BINARY), Reading())
    fact = scan.facts.iloc[0]
    assert (fact["mode"], fact["bits"], fact["error"]) == ("F", 32, "")
    expected = [image.mean(), image.std(), image.min(), image.max()]
    assert fact[["mean", "deviation", "low", "high"]].to_numpy(float) == pytest.approx(expected, rel=1e-4)
    assert np.ptp(scan.thumbnails[0]) > 60
    scan.save(tmp_path / "scan.npz")
    pd.testing.assert_frame_equal(Scan.load(tmp_path / "scan.npz").facts, scan.facts)


def test_what_cannot_be_stored_is_an_unreadable_image(table):
    def on_image(row: int, pixels: np.ndarray, luma: Luma | None) -> None:
        if row == 3:
            raise ImageReadError("does not fit")

    facts = scan_images(table, Reading(), on_image=on_image).facts
    assert facts["error"][3] == "does not fit"
    assert facts["error"].map(bool).tolist() == [False, False, True, True, False]
