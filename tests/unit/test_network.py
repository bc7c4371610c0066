from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from coverslip.config import AugmentConfig, ModelConfig
from coverslip.data.geometry import GREY, RGB, Geometry
from coverslip.data.normalisation import Normalisation
from coverslip.models.classifier import build_classifier
from coverslip.models.groups import GroupedClassifier
from coverslip.network import Network, chunks

CPU = torch.device("cpu")


def network(channels: int = 1, classes: int = 3, **changes: Any) -> Network:
    classifier = build_classifier(
        ModelConfig(backbone="small_30k", weights="none"), channels=channels, classes=classes, size=(32, 32), seed=0
    )
    settings = {
        "geometry": Geometry(32, 32, "squash", RGB if channels == 3 else GREY, 8),
        "normalisation": Normalisation((0.0,), (255.0,), mean=(0.5,), deviation=(0.25,)),
        "augment": AugmentConfig(horizontal_flip=True),
        "tta": "none",
        "device": CPU,
        "precision": "32",
    }
    made = Network(classifier=classifier, **{**settings, **changes})
    spread_scores(made, stored(16, channels, seed=9))
    return made


@torch.no_grad()
def spread_scores(made: Network, pixels: np.ndarray[Any, Any]) -> None:
    """Scale the random head so that its logits have mean 0 and deviation 1: scores that differ visibly."""
    logits = made.classifier.eval()(made.batch(pixels))
    made.classifier.head.bias.sub_(logits.mean(dim=0)).div_(logits.std(dim=0))  # type: ignore[operator]
    made.classifier.head.weight.div_(logits.std(dim=0)[:, None])  # type: ignore[operator]


def stored(n: int, channels: int = 1, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (n, 32, 32, channels), dtype=np.uint8)


def by_hand(net: Network, pixels: np.ndarray[Any, Any]) -> Tensor:
    """Normalise, classify, softmax: written out."""
    net.classifier.eval()
    batch = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
    with torch.no_grad():
        logits: Tensor = net.classifier(batch)
    return logits.double().softmax(dim=1)


def test_scores_are_probabilities_whatever_the_batches() -> None:
    net, pixels = network(channels=3), stored(10, 3)
    scores = net.scores([pixels])
    assert scores.dtype == np.float64
    assert scores.shape == (10, 3)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(scores, by_hand(net, pixels), atol=1e-5)
    np.testing.assert_allclose(net.scores([pixels[:3], pixels[3:4], pixels[4:]]), scores, atol=1e-5)
    assert np.ptp(scores, axis=0).max() > 0.05


def test_no_images_give_no_scores() -> None:
    assert network(classes=4).scores([]).shape == (0, 4)


def test_scoring_leaves_no_trace_in_the_network() -> None:
    net = network()
    net.classifier.train()
    before = {name: tensor.clone() for name, tensor in net.classifier.state_dict().items()}
    net.scores([stored(8)])
    list(net.features([net.batch(stored(8))]))
    assert len(before) > 10
    assert all(torch.equal(tensor, net.classifier.state_dict()[name]) for name, tensor in before.items())


def test_mirrored_copies_are_averaged() -> None:
    pixels = stored(4)
    mean = (by_hand(network(), pixels) + by_hand(network(), pixels[:, :, ::-1].copy())) / 2
    np.testing.assert_allclose(network(tta="flips").scores([pixels]), mean, atol=1e-5)


@pytest.mark.parametrize(("views", "change"), [("flips", lambda x: x[:, :, ::-1]), ("turns", lambda x: np.rot90(x, 1, (1, 2)))])
def test_what_is_averaged_over_changes_no_score(views: str, change: Any) -> None:
    pixels = stored(4)
    net = network(tta=views)
    np.testing.assert_allclose(net.scores([np.ascontiguousarray(change(pixels))]), net.scores([pixels]), atol=1e-5)
    assert np.abs(network().scores([np.ascontiguousarray(change(pixels))]) - network().scores([pixels])).max() > 0.01


def test_head_on_features_gives_the_scores() -> None:
    net, pixels = network(), stored(7)
    features = np.concatenate(list(net.features([net.batch(pixels[:4]), net.batch(pixels[4:])])))
    assert features.dtype == np.float32
    assert features.shape == (7, net.classifier.backbone.features)
    with torch.no_grad():
        scores = net.classifier.head(torch.from_numpy(features)).double().softmax(dim=1)
    np.testing.assert_allclose(net.scores([pixels]), scores, atol=1e-6)


def test_bfloat16_is_near_and_is_given_as_float32_features() -> None:
    rough, exact, pixels = network(precision="bf16"), network(), stored(6)
    (features,) = rough.features([rough.batch(pixels)])
    (true,) = exact.features([exact.batch(pixels)])
    assert features.dtype == np.float32
    assert not np.array_equal(features, true)
    np.testing.assert_allclose(features, true, atol=0.05 * np.abs(true).max())


@pytest.mark.parametrize(("n", "size", "lengths"), [(10, 4, [4, 4, 2]), (8, 4, [4, 4]), (3, 64, [3]), (0, 4, [])])
def test_chunks_cover_the_rows_in_order(n: int, size: int, lengths: list[int]) -> None:
    array = np.arange(100).reshape(100, 1, 1, 1)
    rows = np.random.default_rng(0).permutation(100)[:n]
    parts = list(chunks(array, rows, size))
    assert [len(part) for part in parts] == lengths
    assert [int(value) for part in parts for value in part.ravel()] == rows.tolist()


@pytest.mark.parametrize("tta", ["none", "flips"])
@pytest.mark.parametrize("settled", [False, True])
def test_one_pass_gives_the_same_scores_and_what_the_head_sees(tta: str, settled: bool) -> None:
    net, pixels = network(tta=tta, settled=settled), stored(7)
    scores, features = net.scores_and_features(chunks(pixels, np.arange(7), size=3))
    np.testing.assert_allclose(scores, net.scores([pixels]), atol=1e-6)
    with torch.no_grad():
        expected = net.classifier.backbone(net.batch(pixels))  # of the image as it is, whatever the copies
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected.numpy(), atol=1e-4)


def test_class_groups_put_what_their_heads_see_side_by_side() -> None:
    first, second, pixels = network(classes=2), network(classes=1), stored(5)
    with torch.no_grad():
        for parameter in second.classifier.backbone.parameters():
            parameter.mul_(1.1)
    grouped = GroupedClassifier([first.classifier, second.classifier], [(0, 2), (1,)])  # type: ignore[list-item]
    net = replace(first, classifier=grouped, several=True, _folded=None)
    scores, features = net.scores_and_features([pixels])
    np.testing.assert_allclose(scores, net.scores([pixels]), atol=1e-6)
    size = first.classifier.backbone.features
    assert features.shape == (5, 2 * size)
    np.testing.assert_allclose(features[:, :size], first.scores_and_features([pixels])[1], atol=1e-5)
    assert np.abs(features[:, size:] - features[:, :size]).max() > 1e-3


def test_logits_are_those_of_one_look() -> None:
    net, pixels = network(tta="flips", settled=True), stored(40)
    logits = net.logits(net.batch(pixels))
    np.testing.assert_allclose(net.probabilities(logits).numpy(), by_hand(net, pixels).numpy(), atol=1e-5)
