from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from coverslip.config import TrainingConfig
from coverslip.training.probe import STRENGTHS, LinearHead, learn_head, solve_linear_head

Array = np.ndarray[Any, Any]


def blobs(n: int, width: int, classes: int, *, spread: float = 1.0, seed: int = 0) -> tuple[Array, Array]:
    """Features of very different scale and offset; class centres `spread` deviations apart."""
    generator = np.random.default_rng(seed)
    targets = np.arange(n) % classes
    centres = generator.normal(size=(classes, width)) * spread
    scale, offset = 10.0 ** generator.uniform(-2, 2, width), generator.normal(size=width) * 5
    return (((centres[targets] + generator.normal(size=(n, width))) + offset) * scale).astype(np.float32), targets.astype(np.int64)


def solve(features: Array, targets: Array, classes: int, **changes: Any) -> LinearHead:
    settings: dict[str, Any] = {"weights": np.ones(classes), "ties": np.arange(len(targets)), "seed": 0}
    views = changes.pop("views", [features])
    return solve_linear_head(views, targets, classes, **{**settings, **changes})


def scores(head: LinearHead, features: Array) -> Array:
    logits = features.astype(np.float64) @ head.weight.T + head.bias
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def reference(features: Array, targets: Array, strength: float, weight: Array | None = None) -> Any:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000, tol=1e-8))
    return model.fit(features.astype(np.float64), targets, logisticregression__sample_weight=weight)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize(("n", "width"), [(120, 10), (40, 200), (60, 60)])
def test_the_exact_head_is_that_of_scikit_learn_on_standardised_features(n: int, width: int, classes: int) -> None:
    features, targets = blobs(n, width, classes, spread=0.5)
    fresh, _ = blobs(50, width, classes, spread=0.5, seed=0)
    head = solve(features, targets, classes)
    assert head.strength in STRENGTHS
    model = reference(features, targets, head.strength)
    np.testing.assert_allclose(scores(head, features), model.predict_proba(features), atol=5e-3)
    np.testing.assert_allclose(scores(head, fresh), model.predict_proba(fresh), atol=5e-3)


def test_class_weights_count_as_sample_weights() -> None:
    features, targets = blobs(90, 6, 3, spread=0.3)
    weights = np.array([5.0, 1.0, 0.2])
    head = solve(features, targets, 3, weights=weights)
    model = reference(features, targets, head.strength, weights[targets])
    np.testing.assert_allclose(scores(head, features), model.predict_proba(features), atol=5e-3)
    assert scores(head, features)[:, 0].mean() > scores(solve(features, targets, 3), features)[:, 0].mean() + 0.1


def test_views_count_as_further_images() -> None:
    features, targets = blobs(60, 5, 2, spread=0.3)
    other = features + np.float32(0.1) * features.std(axis=0)
    head = solve(features, targets, 2, views=[features, other])
    model = reference(np.concatenate([features, other]), np.tile(targets, 2), head.strength)
    np.testing.assert_allclose(scores(head, features), model.predict_proba(features), atol=5e-3)


def test_the_strength_is_the_one_that_does_best_on_folds_of_its_own() -> None:
    """Pure noise wants the strongest penalty, a clean signal in many images a weak one."""
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(80, 40)).astype(np.float32)
    clean, targets = blobs(300, 5, 2, spread=1.5)
    assert solve(noise, np.arange(80) % 2, 2).strength == min(STRENGTHS)
    assert solve(clean, targets, 2).strength >= 0.1


def test_copies_of_one_image_are_kept_in_one_fold() -> None:
    """Each image twice: only folds that know the copies see that nothing can be learned."""
    generator = np.random.default_rng(1)
    features = np.repeat(generator.normal(size=(60, 80)), 2, axis=0).astype(np.float32)
    targets = np.repeat(np.arange(60) % 2, 2)
    assert solve(features, targets, 2, ties=np.arange(120) // 2).strength == min(STRENGTHS)
    assert solve(features, targets, 2, ties=np.arange(120)).strength > 0.001


@pytest.mark.parametrize("missing", [0, 1, 3])
@pytest.mark.parametrize("others", [2, 3])
def test_a_class_without_a_training_image_is_never_predicted(missing: int, others: int) -> None:
    classes = others + 1
    missing = min(missing, others)
    features, inner = blobs(60, 8, others, spread=2.0)
    targets = np.array([label for label in range(classes) if label != missing])[inner]
    found = scores(solve(features, targets, classes), features)
    assert found[:, missing].max() < 1e-6
    assert (found.argmax(axis=1) == targets).mean() > 0.95


def test_separable_data_gives_finite_weights_and_no_mistake() -> None:
    features, targets = blobs(60, 100, 3, spread=20.0)
    head = solve(features, targets, 3)
    assert np.isfinite(head.weight).all()
    assert np.isfinite(head.bias).all()
    assert (scores(head, features).argmax(axis=1) == targets).all()


def test_a_feature_that_never_changes_counts_for_nothing() -> None:
    _, targets = blobs(60, 8, 2, spread=1.0)
    for others in (8, 200):
        wide = np.concatenate([blobs(60, others, 2)[0], np.full((60, 1), 3.7, dtype=np.float32)], axis=1)
        head = solve(wide, targets, 2)
        moved = wide.copy()
        moved[:, -1] += 1
        np.testing.assert_allclose(scores(head, moved), scores(head, wide), atol=1e-2)


@pytest.mark.parametrize("counts", [(1, 1), (1, 5), (2, 2), (3, 3), (2, 9), (4, 4, 1), (3, 3, 3)])
def test_a_handful_of_images_is_enough(counts: tuple[int, ...]) -> None:
    targets = np.repeat(np.arange(len(counts)), counts)
    features = np.random.default_rng(0).normal(size=(len(targets), 20)).astype(np.float32)
    features[:, 0] += 30 * targets
    head = solve(features, targets, len(counts))
    assert np.isfinite(scores(head, features)).all()


def test_all_images_of_one_group_is_enough() -> None:
    features, targets = blobs(30, 5, 2)
    assert solve(features, targets, 2, ties=np.zeros(30, dtype=np.int64)).strength in STRENGTHS
    assert solve(features, targets, 2, ties=targets).strength in STRENGTHS


@pytest.mark.parametrize("seed", [0, 2**40 + 3])
def test_the_seed_repeats_the_head(seed: int) -> None:
    features, targets = blobs(60, 90, 3)
    first, second = (solve(features, targets, 3, seed=seed) for _ in range(2))
    assert np.array_equal(first.weight, second.weight)


def test_many_rows_choose_by_one_fold() -> None:
    features, targets = blobs(1200, 4, 3, spread=0.7)
    head = solve(features, targets, 3)
    model = reference(features, targets, head.strength)
    np.testing.assert_allclose(scores(head, features), model.predict_proba(features), atol=5e-3)


def test_a_layer_takes_the_head_over() -> None:
    features, targets = blobs(60, 8, 3)
    head, layer = solve(features, targets, 3), nn.Linear(8, 3)
    head.copy_to(layer)
    with torch.no_grad():
        found = layer(torch.from_numpy(features)).softmax(dim=1).numpy()
    np.testing.assert_allclose(found, scores(head, features), atol=1e-3)


# A head by steps ------------------------------------------------------------------------------------------------------


def clean(n: int = 120, width: int = 12, classes: int = 3) -> tuple[Array, Array]:
    features, targets = blobs(n, width, classes, spread=2.0)
    return ((features - features.mean(axis=0)) / features.std(axis=0)).astype(np.float32), targets


def learned(
    head: nn.Module, features: Array, targets: Array, *, views: list[Array] | None = None, epochs: int = 12, **changes: Any
) -> list[dict[str, Any]]:
    config = TrainingConfig.model_validate({"batch_size": 16, "learning_rate": 0.02, **changes})
    return learn_head(head, views or [features], targets, np.ones(int(targets.max()) + 1), config, epochs)


def build(width: int = 12, classes: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(width, 16), nn.ReLU(), nn.Dropout(0.25), nn.Linear(16, classes))


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "rmsprop"])
def test_a_head_learns_by_steps(optimizer: str) -> None:
    features, targets = clean()
    head = build()
    history = learned(head, features, targets, optimizer=optimizer)
    assert not head.training
    with torch.no_grad():
        assert (head(torch.from_numpy(features)).argmax(dim=1).numpy() == targets).mean() > 0.95
    assert history[-1]["train_loss"] < 0.5 * history[0]["train_loss"]


def test_the_history_counts_steps_and_epochs() -> None:
    features, targets = clean(n=100)
    history = learned(build(), features, targets, epochs=5)
    assert [row["step"] for row in history] == list(range(1, 31))  # 100 images in sixes of 16: 6 steps a pass
    assert history[-1]["epoch"] == 5
    assert {row["phase"] for row in history} == {"head"}
    long = learned(build(), features, targets, epochs=5, steps=250)
    assert long[-1]["step"] == 250
    assert len(long) == 125


def test_the_same_seed_gives_the_same_head_and_leaves_the_global_generator_alone() -> None:
    features, targets = clean()
    torch.manual_seed(11)
    state = torch.get_rng_state()
    heads = []
    for seed in (1, 1, 2):
        head = build()
        torch.set_rng_state(state)
        learned(head, features, targets, epochs=2, seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
        heads.append(head[0].weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_every_view_is_looked_at() -> None:
    """The first view carries nothing; the second one all."""
    features, targets = clean()
    head = build()
    learned(head, features, targets, views=[np.zeros_like(features), features], epochs=20)
    with torch.no_grad():
        assert (head(torch.from_numpy(features)).argmax(dim=1).numpy() == targets).mean() > 0.9


def test_views_in_turn_are_seen_once_each() -> None:
    """A head that notes what it is shown: image i of view v holds the number 100 v + i."""

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 2)
            self.seen: list[int] = []

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            self.seen += features[:, 0].int().tolist()
            return self.layer(features)

    views = [(100 * view + np.arange(12, dtype=np.float32))[:, None] for view in range(5)]
    config = TrainingConfig(batch_size=4, learning_rate=1e-6)
    head = Watching()
    learn_head(head, views, np.arange(12) % 2, np.ones(2), config, 5, in_turn=True)
    assert sorted(head.seen) == sorted(100 * view + row for view in range(5) for row in range(12))
    assert [number // 100 for number in head.seen] == np.repeat(range(5), 12).tolist()
