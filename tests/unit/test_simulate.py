"""The simulators: counts, determinism, refusals, and that nothing trivial gives the class away."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

from coverslip.errors import InputError
from coverslip.simulate import CLASSES, GENOMES, KINDS, Kind, simulate


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file, by its path in the folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def charts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate("charts", tmp_path_factory.mktemp("simulated") / "charts", images=60)


@pytest.fixture(scope="module")
def gels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate("gels", tmp_path_factory.mktemp("simulated") / "gels", images=120)


@pytest.mark.parametrize(("kind", "images"), [("charts", 10), ("charts", 3), ("gels", 7)])
def test_classes_get_equal_shares(tmp_path: Path, kind: Kind, images: int) -> None:
    folder = simulate(kind, tmp_path / "made", images=images)
    counts = Counter(path.parent.name for path in folder.glob("*/*"))
    assert set(counts) == set(CLASSES[kind])
    assert sum(counts.values()) == images
    assert max(counts.values()) - min(counts.values()) <= 1
    assert [path for path in tmp_path.iterdir() if path != folder] == []


@pytest.mark.parametrize("kind", KINDS)
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
        ("gel", 9, 0, r"Did you mean 'gels'\? Known kinds: charts, gels"),
        ("cells", 9, 0, r"'cells' cannot be simulated\..* Known kinds: charts, gels"),
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
