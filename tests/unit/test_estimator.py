from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score

from coverslip import ImageClassifier
from coverslip.errors import BadImagesError, InputError

SMALL = {"backbone": "small_30k", "weights": "none", "regime": "scratch", "height": 32, "epochs": 12}


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    """Bright discs and bright stripes on noise, 40 of each."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:32, :32]
    pictures, labels = [], []
    for number in range(80):
        y, x = generator.uniform(10, 22, 2)
        disc = ((rows - y) ** 2 + (columns - x) ** 2 < 49) * 120.0
        stripes = ((rows + int(y)) % 8 < 3) * 120.0
        pictures.append(np.clip((disc if number % 2 else stripes) + generator.uniform(0, 80, (32, 32)), 0, 255).astype(np.uint8))
        labels.append("disc" if number % 2 else "stripes")
    return np.stack(pictures), np.array(labels)


def test_learns_from_arrays_and_predicts_labels(images: tuple[np.ndarray, np.ndarray]) -> None:
    pictures, labels = images
    model = ImageClassifier(**SMALL).fit(pictures[:60], labels[:60])
    scores = model.predict_proba(pictures[60:])
    assert scores.shape == (20, 2)
    assert np.allclose(scores.sum(axis=1), 1)
    assert list(model.classes_) == ["disc", "stripes"]
    assert (model.predict(pictures[60:]) == labels[60:]).mean() > 0.8


def test_paths_give_what_their_arrays_give(images: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    pictures, labels = images
    paths = []
    for number, picture in enumerate(pictures[:24]):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(picture).save(paths[-1])
    from_paths = ImageClassifier(**{**SMALL, "epochs": 2}).fit(paths, labels[:24]).predict_proba(paths)
    from_arrays = ImageClassifier(**{**SMALL, "epochs": 2}).fit(pictures[:24], labels[:24]).predict_proba(pictures[:24])
    assert np.array_equal(from_paths, from_arrays)


def test_read_only_arrays_a_grid_and_a_fitted_copy(images: tuple[np.ndarray, np.ndarray]) -> None:
    pictures, labels = images
    frozen = [np.frombuffer(picture.tobytes(), dtype=np.uint8).reshape(picture.shape) for picture in pictures[:70]]
    grid = GridSearchCV(ImageClassifier(**SMALL), {"epochs": [1, 2]}, cv=2).fit(frozen, labels[:70])
    assert grid.best_params_["epochs"] in (1, 2)
    scores = grid.best_estimator_.predict_proba(frozen)
    assert scores.shape == (70, 2)
    copied = pickle.loads(pickle.dumps(grid.best_estimator_))
    assert np.array_equal(copied.predict_proba(frozen), scores)
    assert len(copied.predict([])) == 0


def test_arrays_of_named_channels_are_learned_from(images: tuple[np.ndarray, np.ndarray]) -> None:
    """The fourth channel alone tells the classes apart."""
    pictures, labels = images
    four = np.zeros((80, 32, 32, 4), dtype=np.uint8)
    four[..., 3] = pictures
    model = ImageClassifier(**SMALL, sections={"data": {"channels": ["a", "b", "c", "d"]}}).fit(four[:60], labels[:60])
    assert model.network_.geometry.channels == ("a", "b", "c", "d")
    assert (model.predict(four[60:]) == labels[60:]).mean() > 0.8
    with pytest.raises(InputError, match=r"expected \(height, width, 4\): a, b, c, d"):
        model.predict_proba(four[..., :3])


def test_scikit_learn_conventions(images: tuple[np.ndarray, np.ndarray]) -> None:
    pictures, labels = images
    model = ImageClassifier(**{**SMALL, "epochs": 6})
    assert clone(model).get_params() == model.get_params()
    assert model.set_params(epochs=5).epochs == 5
    scores = cross_val_score(model, list(pictures), labels, cv=2)
    assert len(scores) == 2
    assert all(0 <= score <= 1 for score in scores)
    with pytest.raises(NotFittedError):
        clone(model).predict(pictures)


def test_bad_input_is_said(images: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    pictures, labels = images
    with pytest.raises(InputError, match="80 images and y 79 labels"):
        ImageClassifier(**SMALL).fit(pictures, labels[1:])
    with pytest.raises(InputError, match=r"X is one path, 'a\.png'; expected a list"):
        ImageClassifier(**SMALL).fit("a.png", ["disc"])
    with pytest.raises(InputError, match="X holds no images"):
        ImageClassifier(**SMALL).fit([], [])
    with pytest.raises(InputError, match=r"one class only \(disc\)"):
        ImageClassifier(**SMALL).fit(pictures[:4], ["disc"] * 4)
    (tmp_path / "letter.png").write_text("no image")
    with pytest.raises(BadImagesError, match=r"letter\.png"):
        ImageClassifier(**SMALL).fit([tmp_path / "letter.png", tmp_path / "letter.png"], ["a", "b"])


def test_what_notebooks_hand_over_is_taken_or_said_in_one_sentence(images: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    pictures, labels = images
    files = [tmp_path / f"{number}.png" for number in range(16)]
    for file, picture in zip(files, pictures, strict=False):
        Image.fromarray(picture).save(file)
    model = ImageClassifier(**{**SMALL, "epochs": 1})
    table = pd.DataFrame({"file": map(str, files), "label": labels[:16]}, index=range(100, 116))
    expected = model.fit(files, labels[:16]).predict_proba(files)
    for column in (table["file"], table[["file"]], np.array(table["file"])):
        assert np.array_equal(model.fit(column, table["label"]).predict_proba(column), expected)
    assert len(model.predict(iter(files))) == 16
    for wrong, message in (
        ("a.png", r"X is one path, 'a\.png'; expected a list"),
        (pictures[0], r"X is one array of shape \(32, 32\); expected several images"),
        (pictures / 255, r"X\[0\] of X with the shape \(80, 32, 32\) .*float64.*\(255 \* image\)\.round"),
        (np.moveaxis(np.stack([pictures] * 3), 0, 1), r"shape \(3, 32, 32\); expected \(height, width\)"),
    ):
        with pytest.raises(InputError, match=message):
            model.predict(wrong)
    with pytest.raises(BadImagesError, match=r"0: a Image; expected a path, or an array \(.*numpy\.asarray"):
        model.predict([Image.fromarray(pictures[0])])
    for nothing in (None, float("nan")):
        with pytest.raises(InputError, match="y has no label at 1;"):
            model.fit(pictures[:3], np.array(["disc", nothing, "stripes"], dtype=object))


def test_columns_of_zeros_and_ones_are_labels_that_come_together(images: tuple[np.ndarray, np.ndarray]) -> None:
    pictures, labels = images
    targets = np.stack([labels == "disc", labels == "stripes", pictures.mean(axis=(1, 2)) > 0], axis=1).astype(int)
    model = ImageClassifier(**SMALL).fit(pictures[:60], targets[:60])
    scores = model.predict_proba(pictures[60:])
    assert scores.shape == (20, 3)
    assert (scores[:, 2] > 0.5).all()
    predicted = model.predict(pictures[60:])
    assert (predicted[:, :2] == targets[60:, :2]).mean() > 0.8
    assert list(model.classes_) == [0, 1, 2]
    with pytest.raises(InputError, match="other values than 0 and 1"):
        ImageClassifier(**SMALL).fit(pictures[:4], targets[:4] * 2)
