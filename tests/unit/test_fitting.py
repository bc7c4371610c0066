"""What a network's normalisation is measured on, and that a bundle keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coverslip.bundle import Bundle, load_bundle, save_bundle
from coverslip.config import ModelConfig, load_config
from coverslip.data.geometry import Geometry
from coverslip.data.normalisation import Normalisation
from coverslip.data.reading import Reading
from coverslip.data.store import Pixels
from coverslip.evaluation.decision import Decision
from coverslip.fitting import choose_normalisation
from coverslip.models.classifier import Classifier, build_classifier
from coverslip.network import Network
from coverslip.structures import Channel, Task

CHANNELS = ("nucleus", "protein")
GEOMETRY = Geometry(8, 8, "squash", CHANNELS, 16)
TRAIN = np.arange(0, 6)
MEAN, DEVIATION = (0.5, 0.5), (0.25, 0.25)


@pytest.fixture(scope="module")
def images() -> list[Any]:
    """Ten images; those that are not for training are far brighter."""
    random = np.random.default_rng(0)
    dark = [random.integers(100, 900, (8, 8, 2)) * np.array([1, 3]) for _ in range(6)]
    return [image.astype(np.uint16) for image in [*dark, *(image + 50_000 for image in dark[:4])]]


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return build_classifier(ModelConfig(backbone="small_30k", weights="none"), channels=2, classes=2, size=(32, 32), seed=0)


def chosen(images: list[Any], classifier: Classifier, *, depth: int = 16, **pixels: Any) -> Normalisation:
    config = load_config({"data": {"channels": list(CHANNELS)}, "pixels": {"colour": "channels", "invert": False, **pixels}})
    stored = Pixels.of(images, GEOMETRY)
    return choose_normalisation(config, GEOMETRY, depth, stored, classifier, TRAIN)


def seen(normalisation: Normalisation, images: list[Any]) -> Any:
    return normalisation.apply(torch.from_numpy(np.stack(images))).numpy()


def test_percentiles_of_the_data_set_are_those_of_the_training_part(images: list[Any], classifier: Classifier) -> None:
    found = chosen(images, classifier, range="dataset", normalise="none", percentiles=[1, 99])
    train = np.stack(images[:6]).reshape(-1, 2)
    np.testing.assert_allclose([found.low, found.high], np.percentile(train, [1, 99], axis=0))
    expected = ((np.stack(images) - np.array(found.low)) / (np.array(found.high) - np.array(found.low))).clip(0, 1)
    np.testing.assert_allclose(seen(found, images), expected.transpose(0, 3, 1, 2), atol=1e-5)


def test_mean_and_deviation_of_the_data_set_are_those_of_the_training_part(images: list[Any], classifier: Classifier) -> None:
    found = chosen(images, classifier, range="full", normalise="dataset")
    train = np.stack(images[:6]).reshape(-1, 2) / 65535
    np.testing.assert_allclose(found.mean, train.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found.deviation, train.std(axis=0), atol=1e-6)
    assert seen(found, images)[6:].mean() > 10


def test_percentiles_of_each_image_by_itself(images: list[Any], classifier: Classifier) -> None:
    found = chosen(images, classifier, range="image", normalise="none", percentiles=[0, 100])
    values = seen(found, images)
    np.testing.assert_allclose(values.min(axis=(2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(values.max(axis=(2, 3)), 1, atol=1e-6)
    np.testing.assert_allclose(values[:4], values[6:], atol=1e-3)  # brighter copies


@pytest.mark.parametrize("stated", [[0, 4095], [[0, 4095], [100, 200]]])
def test_a_fixed_range_is_in_the_units_of_the_files(images: list[Any], classifier: Classifier, stated: Any) -> None:
    found = chosen(images, classifier, range=stated, normalise="none")
    pairs = stated if isinstance(stated[0], list) else [stated] * 2
    assert [list(pair) for pair in zip(found.low, found.high, strict=True)] == pairs
    small = chosen(images, classifier, range=[0, 100], normalise="none", depth=8)
    assert small.high == (100 * 257, 100 * 257)  # 8-bit files, stored at 16 bits
    values = seen(found, images)
    assert values.min() >= 0
    assert values.max() == 1


def test_mean_and_deviation_of_the_backbone(images: list[Any], classifier: Classifier) -> None:
    found = chosen(images, classifier, range="full", normalise="backbone")
    assert (found.mean, found.deviation) == (classifier.backbone.mean, classifier.backbone.std)
    assert len(found.mean) == 2


@pytest.mark.parametrize(
    "pixels",
    [{"range": "dataset"}, {"range": "image"}, {"range": [[0, 4095], [10, 900]]}, {"normalise": "backbone"}, {"normalise": "image"}],
)
def test_the_normalisation_travels_with_the_bundle(
    images: list[Any], classifier: Classifier, tmp_path: Path, pixels: dict[str, Any]
) -> None:
    normalisation = chosen(images, classifier, **pixels)
    augment, device = load_config({}).augment, torch.device("cpu")
    network = Network(classifier, GEOMETRY, normalisation, augment, "none", device, "32", several=True)
    reading = Reading(channels=Channel.of(*CHANNELS))
    bundle = Bundle(network, Task.MULTILABEL, ("a", "b"), Decision(Task.MULTILABEL), reading, {}, ())
    save_bundle(bundle, tmp_path / "bundle", images[:2], "")
    assert load_bundle(tmp_path / "bundle").network.normalisation == normalisation
