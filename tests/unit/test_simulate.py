"""The simulators: counts, determinism, refusals, where patterns lie, and that nothing trivial gives the class away."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_score

from coverslip.errors import InputError
from coverslip.simulate import CLASSES, GENOMES, NOTE, Kind, simulate
from coverslip.simulate.anatomy import ANGLES, PATTERNS, Layout, Outlines, lay_out
from coverslip.simulate.cells import CELL_CLASSES, CHANNELS, SHARES, Field, cell_fields, draw_cells, label_sets
from coverslip.structures import FloatArray


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file, by its path in the folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def charts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate("charts", tmp_path_factory.mktemp("simulated") / "charts", images=60)


@pytest.fixture(scope="module")
def gels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate("gels", tmp_path_factory.mktemp("simulated") / "gels", images=120)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate("cells", tmp_path_factory.mktemp("simulated") / "cells", images=160, side=64)


@pytest.fixture(scope="module")
def layouts() -> list[Layout]:
    return [lay_out(np.random.default_rng(seed), 128, radius=0.22, crowding=0.8) for seed in range(6)]


def field_of(*labels: str) -> Field:
    """A field with these labels and plain staining."""
    return Field("field", labels, (1.0,) * len(labels), np.full(4, 0.5), np.full(4, 0.02), 1000.0, 0.6, 0.22, 0.9)


def channels(folder: Path, identity: str) -> dict[str, FloatArray]:
    """The planes of one image of cells by their names."""
    planes = {}
    for name in CHANNELS:
        with Image.open(folder / "images" / f"{identity}_{name}.png") as picture:
            planes[name] = np.asarray(picture, np.float64)
    return planes


@pytest.mark.parametrize(("kind", "images"), [("charts", 10), ("charts", 3), ("gels", 7)])
def test_classes_get_equal_shares(tmp_path: Path, kind: Kind, images: int) -> None:
    folder = simulate(kind, tmp_path / "made", images=images)
    counts = Counter(path.parent.name for path in folder.glob("*/*"))
    assert set(counts) == set(CLASSES[kind])
    assert sum(counts.values()) == images
    assert max(counts.values()) - min(counts.values()) <= 1
    assert [path for path in tmp_path.iterdir() if path != folder] == []


@pytest.mark.parametrize("kind", ["charts", "gels"])
def test_a_seed_repeats_its_bytes_and_another_does_not(tmp_path: Path, kind: Kind) -> None:
    first, again, other = (contents(simulate(kind, tmp_path / name, images=12, seed=seed)) for name, seed in [("a", 3), ("b", 3), ("c", 4)])
    assert first == again
    assert len(set(first.values()) | set(other.values())) == 24


def test_charts_look_like_charts(charts: Path) -> None:
    genomes: Counter[str] = Counter()
    for path in charts.glob("*/*"):
        genomes[path.name.split("_")[0]] += 1
        with Image.open(path) as picture:
            assert (picture.size, picture.mode, picture.format) == ((750, 500), "RGBA", "PNG")
            pixels = np.asarray(picture)
        assert (pixels[..., 2] == 255).all()
        assert (pixels[..., 3] == 255).all()
        assert (pixels[..., 0] == pixels[..., 1]).all()
        assert 0.001 < (pixels[..., 0] < 250).mean() < 0.03
    assert sum(genomes.values()) == 60
    assert len(genomes) == GENOMES


def test_every_genome_has_every_class(charts: Path) -> None:
    pairs = {(path.parent.name, path.name.split("_")[0]) for path in charts.glob("*/*")}
    assert len(pairs) == 3 * GENOMES


def test_gel_photographs_come_in_every_form_in_both_classes(gels: Path) -> None:
    forms: dict[str, set[tuple[str | None, str]]] = {}
    for path in gels.glob("*/*"):
        with Image.open(path) as picture:
            picture.load()
            forms.setdefault(path.parent.name, set()).add((picture.format, picture.mode))
    assert forms["gel"] == forms["not_gel"] == {("PNG", "L"), ("PNG", "RGB"), ("PNG", "RGBA"), ("JPEG", "L"), ("JPEG", "RGB")}


def test_trivial_features_do_not_separate_gels(gels: Path) -> None:
    features, labels = [], []
    for path in sorted(gels.glob("*/*")):
        with Image.open(path) as picture:
            grey = np.asarray(picture.convert("L"), np.float64)
            features.append([grey.mean(), grey.std(), *picture.size, picture.mode == "L", picture.mode == "RGB", picture.format == "PNG"])
        labels.append(path.parent.name)
    assert len(labels) == 120
    forest = RandomForestClassifier(100, random_state=0)
    scores = cross_val_score(forest, np.array(features, np.float64), labels, cv=5, scoring="balanced_accuracy")
    assert scores.mean() < 0.8


def test_progress_counts_every_image(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    simulate("charts", tmp_path / "made", images=5, progress=lambda stage, done, total, numbers: steps.append((done, total)))
    assert steps == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert len(contents(simulate("charts", tmp_path / "empty", images=3))) == 3


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="not empty; name a new folder"):
        simulate("charts", tmp_path, images=3)
    assert contents(tmp_path) == {"mine.txt": b"precious"}


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate("gels", tmp_path / "made", images=4, progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "images", "seed", "message"),
    [
        ("gel", 9, 0, r"Did you mean 'gels'\? Known kinds: charts, gels, cells"),
        ("blood", 9, 0, r"'blood' cannot be simulated\..* Known kinds: charts, gels, cells"),
        ("cells", 11, 0, "cells have 12 classes"),
        ("charts", 2, 0, "charts have 3 classes"),
        ("gels", 9, -1, "seed = -1"),
    ],
)
def test_wrong_arguments(tmp_path: Path, kind: str, images: int, seed: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulate(kind, tmp_path / "made", images=images, seed=seed)  # type: ignore[arg-type]


def test_a_file_is_no_destination(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="is a file"):
        simulate("charts", tmp_path / "taken", images=3)


def test_cells_and_their_table_agree(cells: Path) -> None:
    table = pd.read_csv(cells / "train.csv", dtype=str)
    assert list(table.columns) == ["Id", "Target", "Field"]
    assert len(table) == table["Id"].nunique() == 160
    assert {path.name for path in (cells / "images").iterdir()} == {f"{name}_{channel}.png" for name in table["Id"] for channel in CHANNELS}
    assert (cells / "classes.txt").read_text().splitlines() == list(CELL_CLASSES) == list(CLASSES["cells"])
    labels = [[int(number) for number in target.split(" ")] for target in table["Target"]]
    assert {number for row in labels for number in row} == set(range(12))
    assert all(row == sorted(set(row)) and 1 <= len(row) <= 3 for row in labels)


def test_images_of_a_field_share_their_labels(cells: Path) -> None:
    table = pd.read_csv(cells / "train.csv", dtype=str)
    fields = table.groupby("Field")
    assert fields.ngroups == 40
    assert (fields["Target"].nunique() == 1).all()
    assert all(list(own["Id"]) == [f"{name}-{number}" for number in range(4)] for name, own in fields)


def test_cell_images_are_16_bit_and_use_the_range(cells: Path) -> None:
    files = sorted((cells / "images").iterdir())
    assert len(files) == 640
    brightest, saturated = [], []
    for path in files:
        with Image.open(path) as picture:
            assert (picture.format, picture.mode, picture.size) == ("PNG", "I;16", (64, 64))
            assert picture.text["Description"] == NOTE  # type: ignore[attr-defined]
            pixels = np.asarray(picture)
        assert pixels.dtype == np.uint16
        assert len(np.unique(pixels & 255)) > 200
        saturated.append((pixels == 65_535).mean())
        brightest.append(np.quantile(pixels, 0.999))
    assert np.median(brightest) > 20_000
    assert np.mean(saturated) < 0.002
    assert max(saturated) < 0.1


def test_a_seed_repeats_its_cells_and_another_does_not(tmp_path: Path) -> None:
    first, again, other = (
        contents(simulate("cells", tmp_path / name, images=12, seed=seed, side=64)) for name, seed in [("a", 3), ("b", 3), ("c", 4)]
    )
    assert len(first) == 12 * 4 + 2
    assert first == again
    assert {name for name in first if first[name] == other.get(name)} == {"classes.txt"}


def test_a_small_side_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="side = 63; below 64 pixels"):
        simulate("cells", tmp_path / "made", images=12, side=63)


@given(count=st.integers(12, 200), seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_label_sets_hold_every_class(count: int, seed: int) -> None:
    sets = label_sets(np.random.default_rng(seed), count)
    assert len(sets) == count
    assert {name for labels in sets for name in labels} == set(CELL_CLASSES)
    assert all(1 <= len(labels) == len(set(labels)) <= 3 for labels in sets)
    assert all(list(labels) == sorted(labels, key=CELL_CLASSES.index) for labels in sets)


@given(count=st.integers(300, 2000), seed=st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_classes_are_as_frequent_as_stated_and_long_tailed(count: int, seed: int) -> None:
    counts = Counter(name for labels in label_sets(np.random.default_rng(seed), count) for name in labels)
    assert all(abs(counts[name] / count - share) < 0.03 for name, share in SHARES.items())
    ordered = [counts[name] for name in SHARES]
    assert ordered == sorted(ordered, reverse=True)
    assert ordered[0] > 15 * ordered[-1]


@given(images=st.integers(12, 400), seed=st.integers(0, 2**16))
@settings(max_examples=30, deadline=None)
def test_fields_share_the_images(images: int, seed: int) -> None:
    fields = cell_fields(images, seed)
    assert len({field.name for field in fields}) == len(fields)
    assert images / 4 <= len(fields) <= max(images / 4 + 1, 12)
    assert all(len(field.labels) == len(field.strengths) for field in fields)


def test_outlines_measure_distance_as_shares() -> None:
    angles = (np.arange(ANGLES) + 0.5) * 2 * np.pi / ANGLES
    ellipse = 1 / np.hypot(np.cos(angles) / 20, np.sin(angles) / 10)
    outlines = Outlines(np.array([50.0, 30.0]), np.array([40.0, 90.0]), np.stack([np.full(ANGLES, 8.0), ellipse]))
    first, second = np.array([0]), np.array([1])
    assert outlines.relative(first, np.array([53.0]), np.array([44.0])) == pytest.approx([5 / 8])
    assert outlines.relative(second, np.array([30.0]), np.array([110.0])) == pytest.approx([1.0], rel=1e-3)
    assert outlines.relative(second, np.array([35.0]), np.array([90.0])) == pytest.approx([0.5], rel=1e-3)
    rows, columns = outlines.place(np.array([1]), np.array([np.pi / 2]), np.array([0.5]))
    assert [rows[0], columns[0]] == pytest.approx([35.0, 90.0], rel=1e-3)


def test_layouts_hold_nuclei_in_cells(layouts: list[Layout]) -> None:
    for layout in layouts:
        assert 3 <= layout.count <= 25
        assert layout.owner.shape == (128, 128)
        assert (layout.depth[layout.nuclear_depth > 0] > 0).all()
        assert 0.03 < (layout.nuclear_depth > 0).mean() < 0.3
        assert (layout.depth > 0).mean() > 2.5 * (layout.nuclear_depth > 0).mean()
        assert layout.nucleoli[layout.nuclear_depth < 0].max() == 0
        assert layout.fibres[layout.depth < -1].max() == 0


@pytest.mark.parametrize(
    ("name", "where", "low", "high"),
    [
        ("Nucleoplasm", "nucleus", 0.94, 1.0),
        ("Nucleoli", "nucleus", 0.94, 1.0),
        ("Nuclear speckles", "nucleus", 0.94, 1.0),
        ("Nuclear bodies", "nucleus", 0.94, 1.0),
        ("Nuclear membrane", "nuclear rim", 0.75, 1.0),
        ("Plasma membrane", "rim", 0.6, 1.0),
        ("Plasma membrane", "nucleus", 0.0, 0.12),
        ("Golgi apparatus", "nucleus", 0.0, 0.02),
        ("Mitochondria", "nucleus", 0.0, 0.02),
        ("Endoplasmic reticulum", "nucleus", 0.0, 0.03),
        ("Centrosome", "nucleus", 0.0, 0.02),
        ("Microtubules", "nucleus", 0.0, 0.1),
        ("Cytosol", "nucleus", 0.0, 0.15),
        ("Cytosol", "rim", 0.0, 0.25),
    ],
)
def test_a_pattern_lies_in_its_compartment(layouts: list[Layout], name: str, where: str, low: float, high: float) -> None:
    shares = []
    for number, layout in enumerate(layouts):
        inside = {
            "nucleus": layout.nuclear_depth > 0,
            "nuclear rim": np.abs(layout.nuclear_depth) < 2.5,
            "rim": np.abs(layout.depth) < 3,
        }[where]
        pattern = PATTERNS[name](np.random.default_rng(number), layout)
        assert pattern.min() >= 0
        assert 0.3 < pattern.max() < 2
        assert pattern[layout.depth < -3].sum() < 0.02 * pattern.sum()
        shares.append(float(pattern[inside].sum() / pattern.sum()))
    assert low <= min(shares)
    assert max(shares) <= high + 1e-12


def test_no_two_patterns_are_alike(layouts: list[Layout]) -> None:
    for layout in layouts:
        planes = np.stack([PATTERNS[name](np.random.default_rng(1), layout).ravel() for name in CELL_CLASSES])
        likeness = np.corrcoef(planes) - np.eye(12)
        assert likeness.max() < 0.75


def test_green_follows_red_blue_or_yellow_where_it_should() -> None:
    followed = {"Microtubules": "red", "Nucleoplasm": "blue", "Endoplasmic reticulum": "yellow"}
    for label, partner in followed.items():
        planes = dict(zip(CHANNELS, draw_cells(np.random.default_rng(2), field_of(label), 128), strict=True))
        green = planes.pop("green").ravel()
        likeness = {name: np.corrcoef(green, plane.ravel())[0, 1] for name, plane in planes.items()}
        assert max(likeness, key=lambda name: likeness[name]) == partner
        assert likeness[partner] > 0.75


def test_photographed_nuclei_and_cytoplasm_glow_by_class() -> None:
    ratios = {}
    for label in ("Nucleoplasm", "Cytosol", "Mitochondria", "Nuclear speckles"):
        _, green, blue, yellow = (plane.astype(np.float64) for plane in draw_cells(np.random.default_rng(3), field_of(label), 128))
        nucleus = blue > (blue.max() + blue.min()) / 3
        around = ~nucleus & (yellow > np.median(yellow))
        dark = np.quantile(green, 0.02)
        ratios[label] = (green[nucleus].mean() - dark) / (green[around].mean() - dark)
    assert ratios["Nucleoplasm"] > 3
    assert ratios["Nuclear speckles"] > 2
    assert ratios["Cytosol"] < 0.7
    assert ratios["Mitochondria"] < 0.7


def test_labels_do_not_move_the_cells() -> None:
    clean = {"background": np.zeros(4), "photons": 1e9}
    one, other = (draw_cells(np.random.default_rng(4), replace(field_of(label), **clean), 128) for label in ("Cytosol", "Golgi apparatus"))
    for channel in ("red", "blue"):
        index = CHANNELS.index(channel)
        assert np.corrcoef(one[index].ravel(), other[index].ravel())[0, 1] > 0.98
    assert np.corrcoef(one[1].ravel(), other[1].ravel())[0, 1] < 0.5


@pytest.mark.parametrize("photons", [200.0, 2000.0])
def test_noise_is_that_of_photons_and_camera(photons: float) -> None:
    field = replace(field_of("Cytosol"), staining=np.zeros(4), background=np.full(4, 0.3), photons=photons)
    plane = draw_cells(np.random.default_rng(5), field, 256)[0].astype(np.float64)
    measured = np.diff(plane, axis=1).var() / 2
    expected = (plane.mean() - 500) * 60_000 / photons + 100**2
    assert measured == pytest.approx(expected, rel=0.05)


def test_mean_brightness_does_not_give_the_class_away() -> None:
    fields = cell_fields(1000, 1)
    brightness = [draw_cells(np.random.default_rng(number), field, 64)[1].mean() for number, field in enumerate(fields)]
    areas = {}
    for name in CELL_CLASSES:
        present = [name in field.labels for field in fields]
        if sum(present) >= 15:
            areas[name] = roc_auc_score(present, brightness)
    assert len(fields) == 250
    assert len(areas) >= 7
    assert all(0.15 < area < 0.87 for area in areas.values()), areas


def test_images_of_a_field_look_alike(cells: Path) -> None:
    table = pd.read_csv(cells / "train.csv", dtype=str)
    table["haze"] = [np.log(np.quantile(channels(cells, identity)["blue"], 0.2)) for identity in table["Id"]]
    within = table.groupby("Field")["haze"].var().mean()
    between = table.groupby("Field")["haze"].mean().var()
    assert between > 4 * within


def test_cells_grow_with_the_side() -> None:
    small, large = (lay_out(np.random.default_rng(6), side, radius=0.22, crowding=1.0) for side in (64, 256))
    assert small.count == large.count
    assert (large.nuclear_depth > 0).mean() == pytest.approx((small.nuclear_depth > 0).mean(), rel=0.05)
    assert large.depth.max() == pytest.approx(4 * small.depth.max(), rel=0.05)


def test_progress_counts_images_of_cells(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    simulate("cells", tmp_path / "made", images=13, side=64, progress=lambda stage, done, total, numbers: steps.append((done, total)))
    assert steps == [(number, 13) for number in range(1, 14)]
