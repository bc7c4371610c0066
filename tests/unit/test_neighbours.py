import io
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from coverslip.errors import BundleError
from coverslip.neighbours import FEW, Neighbours, thumbnail


def features(n: int, seed: int, size: int = 12) -> np.ndarray:  # type: ignore[type-arg]
    """Two clouds that do not lie around zero."""
    generator = np.random.default_rng(seed)
    return (generator.normal(size=(n, size)) + 4 * (np.arange(n) % 2)[:, None] * np.eye(size)[0] + 3).astype(np.float32)


@pytest.fixture
def some() -> Neighbours:
    pictures = [thumbnail(np.full((20, 40, 3), 6 * k, np.uint8)) for k in range(40)]
    found = Neighbours.of(features(40, 0), ["ab"[k % 2] for k in range(40)], [f"{k}.png" for k in range(40)], pictures)
    return replace(found, reference=np.sort(found.distances(features(99, 1))), source="validation images")


def test_nearest_are_those_of_an_independent_search(some: Neighbours) -> None:
    new = features(25, 2)
    lengths = [np.linalg.norm(one, axis=1, keepdims=True) for one in (features(40, 0), new)]
    logs = [np.log(length / np.median(lengths[0])) for length in lengths]
    unit = [np.hstack([one / length, log]) for one, length, log in zip((features(40, 0), new), lengths, logs, strict=True)]
    expected, places = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(unit[0]).kneighbors(unit[1])
    distances, found = some.nearest(new)
    np.testing.assert_allclose(distances, expected, atol=1e-3)
    np.testing.assert_array_equal(found, places)
    np.testing.assert_allclose(some.distances(new), expected.mean(axis=1), atol=1e-3)
    assert [near.label for near in some.about(new[0], 3)] == [some.labels[place] for place in places[0, :3]]


def test_few_and_many_images_have_the_same_distances(some: Neighbours) -> None:
    new = features(FEW + 1, 5)
    one_by_one = np.concatenate([some.distances(new[row : row + 1]) for row in range(len(new))])
    np.testing.assert_allclose(some.distances(new), one_by_one, rtol=1e-4)


def test_as_many_are_called_unlike_by_chance_as_stated_and_strange_ones_are() -> None:
    rates = []
    for seed in range(200):
        training = Neighbours.of(features(60, 3 * seed), ["a"] * 60)
        ready = replace(training, reference=np.sort(training.distances(features(49, 3 * seed + 1))), source="validation images")
        flags = ready.unlike(training.distances(features(200, 3 * seed + 2)))
        assert flags is not None
        rates.append(flags.mean())
    assert np.mean(rates) == pytest.approx(1 / 50, abs=0.006)
    assert "2.0% are called so by chance" in ready.note
    strange = np.stack([np.zeros(12), -features(1, 0)[0], 30 * features(1, 0)[0], 9 * np.eye(12)[5]]).astype(np.float32)
    flags = ready.unlike(ready.distances(strange))
    assert flags is not None
    assert flags.all(), "no content, the other way round, far too much, and a direction of its own"


def test_with_a_large_reference_one_in_a_hundred_is_called_so(some: Neighbours) -> None:
    assert len(some.reference) == 99
    assert (some.alarms, some.bound) == (0, some.reference[-1])
    larger = replace(some, reference=np.linspace(0, 1, 999))
    assert (larger.alarms, larger.bound) == (9, larger.reference[-10])
    assert "all but 9 of 999" in larger.note


def test_a_small_reference_says_nothing(some: Neighbours) -> None:
    small = replace(some, reference=some.reference[:8])
    assert small.bound is None
    assert small.unlike(np.array([2.0])) is None
    assert "needs 9 validation images, and there are 8" in small.note
    assert "too few" in small.text(0.3)


def test_own_distances_leave_out_what_is_tied() -> None:
    base = features(30, 5)
    found = Neighbours.of(np.concatenate([base, base]), ["a"] * 60)
    alone, tied = found.own_distances(np.arange(60)), found.own_distances(np.arange(60) % 30)
    assert (tied > alone).all()
    others = NearestNeighbors(n_neighbors=6, algorithm="brute").fit(found.vectors)
    expected = others.kneighbors(found.vectors)[0][:, 1:].mean(axis=1)
    np.testing.assert_allclose(alone, expected, atol=2e-3)


def test_a_folder_gives_back_what_was_saved(some: Neighbours, tmp_path: Path) -> None:
    some.save(tmp_path / "neighbours")
    back = Neighbours.load(tmp_path / "neighbours")
    assert (back.labels, back.images, back.thumbnails, back.source) == (some.labels, some.images, some.thumbnails, some.source)
    np.testing.assert_allclose(back.vectors, some.vectors, atol=1e-3)
    np.testing.assert_array_equal(back.reference, some.reference)
    with Image.open(io.BytesIO(back.about(features(1, 9)[0], 1)[0].thumbnail)) as picture:
        assert (picture.format, picture.size) == ("JPEG", (96, 48))


def test_private_features_name_no_image(some: Neighbours, tmp_path: Path) -> None:
    replace(some, images=(), thumbnails=()).save(tmp_path / "neighbours")
    assert {path.name for path in (tmp_path / "neighbours").iterdir()} == {"features.safetensors", "neighbours.json"}
    assert ".png" not in (tmp_path / "neighbours" / "neighbours.json").read_text()
    (near,) = Neighbours.load(tmp_path / "neighbours").about(features(1, 9)[0], 1)
    assert (near.image, near.thumbnail) == ("", b"")
    assert near.label in "ab"


@pytest.mark.parametrize("damage", ["cut", "gone", "fewer labels", "no archive", "huge thumbnail"])
def test_a_damaged_folder_is_refused(some: Neighbours, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "neighbours"
    some.save(folder)
    if damage == "cut":
        (folder / "features.safetensors").write_bytes((folder / "features.safetensors").read_bytes()[:100])
    elif damage == "gone":
        (folder / "neighbours.json").unlink()
    elif damage == "fewer labels":
        text = (folder / "neighbours.json").read_text()
        (folder / "neighbours.json").write_text(text.replace('"labels": [\n    "a",', '"labels": ['))
    elif damage == "no archive":
        (folder / "thumbnails.zip").write_bytes(b"PK nothing")
    else:
        shutil.copy(folder / "thumbnails.zip", folder / "old.zip")
        with zipfile.ZipFile(folder / "old.zip") as old, zipfile.ZipFile(folder / "thumbnails.zip", "w", zipfile.ZIP_DEFLATED) as new:
            for entry in old.namelist():
                new.writestr(entry, old.read(entry) if entry != "3.jpg" else bytes(1 << 24))
    with pytest.raises(BundleError, match="copy the bundle anew"):
        Neighbours.load(folder)


def test_a_thumbnail_takes_the_shape_that_it_is_told() -> None:
    for aspect, size in ((None, (48, 96)), (2.0, (96, 48)), (0.25, (24, 96))):
        with Image.open(io.BytesIO(thumbnail(np.zeros((200, 100, 3), np.uint8), aspect))) as picture:
            assert picture.size == size
