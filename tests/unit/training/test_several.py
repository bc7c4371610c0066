"""Several labels an image: sampling, mixing, heads, and fits with every loss and sampler."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional

from coverslip.data.store import Pixels
from coverslip.data.transforms import Mixing
from coverslip.runtime import no_progress
from coverslip.training.batches import Batch
from coverslip.training.fit import loss_weights
from coverslip.training.loop import Learner
from coverslip.training.plan import Plan
from coverslip.training.probe import learn_head, solve_linear_heads
from coverslip.training.samples import Samples
from coverslip.training.sampling import SampleStream, draw_shares

CLASSES = 3
TRAIN, VALIDATION = np.arange(48), np.arange(48, 72)


def bars(n: int = 72, seed: int = 0) -> Samples:
    """Noise, and a bright bar at a place of its own for each class that an image carries; the last class is rare."""
    generator = np.random.default_rng(seed)
    targets = (generator.random((n, CLASSES)) < (0.5, 0.4, 0.15)).astype(np.int64)
    images = generator.normal(80, 20, (n, 32, 32, 1))
    for image, labels in zip(images, targets, strict=True):
        for place in np.flatnonzero(labels):
            image[10 * place + 2 : 10 * place + 7] += 110
    pixels = Pixels(images.clip(0, 255).astype(np.uint8), np.arange(n), f"several bars {n} {seed}")
    return Samples(pixels, targets, CLASSES, np.arange(n))


@pytest.fixture
def learner(make_config: Any, make_network: Any) -> Any:
    def make(sections: dict[str, Any]) -> Learner:
        config, samples = make_config(**sections), bars()
        network = make_network(config, classes=CLASSES)
        network.several = True
        weights = loss_weights(samples.targets[TRAIN], CLASSES, config.training.class_weights)
        return Learner(network, samples, TRAIN, VALIDATION, config, weights, no_progress)

    return make


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"training": {"loss": "focal", "sampler": "balanced"}},
        {"training": {"loss": "asymmetric", "schedule": "step", "step_at": [0.5, 0.8], "step_factor": 0.3}},
        {"training": {"class_weights": "root", "schedule": "plateau", "tta": "flips"}},
        {"training": {"ema": 0.9, "label_smoothing": 0.05}, "augment": {"mixup": 0.2, "horizontal_flip": True}},
    ],
    ids=["entropy", "focal, balanced", "asymmetric, steps", "weights, plateau, tta", "average, mixup"],
)
def test_bars_are_learned_by_every_loss_and_sampler(learner: Any, sections: dict[str, Any]) -> None:
    found = learner(sections)
    found.run(Plan(90, 6))
    scores, truth = found.network.scores([found.samples.pixels.read(VALIDATION)]), found.samples.targets[VALIDATION]
    assert min(roc_auc_score(truth[:, column], scores[:, column]) for column in range(CLASSES)) > 0.85
    assert found.history[-1]["validation_macro_f1"] >= 0
    assert "validation_accuracy" not in found.history[-1]


def test_mixing_two_sets_of_labels_is_cross_entropy_of_the_mixed_labels(learner: Any) -> None:
    found = learner({"augment": {"mixup": 0.4}})
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(6, CLASSES, generator=generator), torch.randint(0, 2, (6, CLASSES), generator=generator)
    share, partner = torch.rand(6, generator=generator), torch.randperm(6, generator=generator)
    mixed = share[:, None] * targets + (1 - share[:, None]) * targets[partner]
    expected = functional.binary_cross_entropy_with_logits(logits, mixed)
    torch.testing.assert_close(Batch(torch.empty(0), targets, Mixing(share, partner)).loss(found.loss, logits), expected)


def test_scores_of_several_labels_are_means_of_each_copys_own(learner: Any) -> None:
    network = learner({"training": {"tta": "turns"}}).network
    pixels = bars().pixels.read(np.arange(4))
    batch = network.batch(pixels)
    with torch.no_grad():
        copies = [torch.rot90(view, turn, (2, 3)) for view in (batch, batch.flip(-1)) for turn in range(4)]
        expected = torch.stack([network.classifier.eval()(copy).double().sigmoid() for copy in copies]).mean(dim=0)
    np.testing.assert_allclose(network.scores([pixels]), expected.numpy(), atol=1e-6)


def test_rows_are_drawn_by_their_rarest_class() -> None:
    targets = np.array([[1, 0], [1, 0], [1, 1], [0, 0]])
    shares = draw_shares("balanced", targets)
    assert shares is not None
    np.testing.assert_allclose(shares, np.array([1 / 3, 1 / 3, 1, 1]) / (8 / 3))
    assert draw_shares("uniform", targets) is None
    stream = SampleStream(np.arange(4), 4, 0, shares)
    drawn = np.bincount(np.concatenate([stream.batch(step) for step in range(2000)]), minlength=4) / 8000
    np.testing.assert_allclose(drawn, shares, atol=0.02)


def test_a_rare_class_is_seen_about_as_often_as_others() -> None:
    targets = np.zeros((1000, 2), np.int64)
    targets[:990, 0], targets[990:, 1] = 1, 1
    shares = draw_shares("balanced", targets)
    assert shares is not None
    np.testing.assert_allclose(shares @ targets, [0.5, 0.5])


def features(n: int = 160, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Features of different scale, and four classes: two that lines tell apart, one that none and one that all carry."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, 6)) * np.array([1, 10, 0.1, 1, 5, 2]) + 3
    odds = np.stack([x[:, 0] - 3, (x[:, 1] - 3) / 10 - x[:, 3] + 3 - 1], axis=1) * 3
    y = (generator.random((n, 2)) < 1 / (1 + np.exp(-odds))).astype(np.int64)
    return x.astype(np.float32), np.column_stack([y, np.zeros(n, np.int64), np.ones(n, np.int64)])


def solved(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], weights: np.ndarray[Any, Any]) -> Any:
    return solve_linear_heads([x], y, 4, weights, np.arange(len(x)), 0)


def test_each_class_has_the_logistic_regression_of_its_own() -> None:
    x, y = features()
    weights = np.array([1.0, 4.0, 1.0, 1.0])
    head = solved(x, y, weights)
    scores = 1 / (1 + np.exp(-(x.astype(np.float64) @ head.weight.T + head.bias)))
    for column in (0, 1):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=head.strength, max_iter=5000, tol=1e-8))
        importance = np.where(y[:, column] == 1, weights[column], 1.0)
        model.fit(x.astype(np.float64), y[:, column], logisticregression__sample_weight=importance)
        np.testing.assert_allclose(scores[:, column], model.predict_proba(x.astype(np.float64))[:, 1], atol=5e-3)
    np.testing.assert_allclose(scores[:, 2], 1 / 162)
    np.testing.assert_allclose(scores[:, 3], 161 / 162)


def test_positive_weights_are_negatives_for_each_positive() -> None:
    _, y = features()
    positives = y.sum(axis=0)
    np.testing.assert_allclose(loss_weights(y, 4, "balanced"), [*(160 - positives[:2]) / positives[:2], 1, 0])
    np.testing.assert_allclose(loss_weights(y, 4, "root")[:2] ** 2, loss_weights(y, 4, "balanced")[:2])


def test_a_head_of_several_labels_learns_by_steps_too(make_config: Any) -> None:
    x, y = features()
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    head = torch.nn.Linear(6, 4)
    training = make_config(training={"learning_rate": 0.05, "batch_size": 32}).training
    history = learn_head(head, [x], y, np.ones(4), training, 20, no_progress)
    scores = head(torch.from_numpy(x)).sigmoid().detach().numpy()
    assert all(roc_auc_score(y[:, column], scores[:, column]) > 0.8 for column in (0, 1))
    assert history[-1]["train_loss"] < history[0]["train_loss"]
