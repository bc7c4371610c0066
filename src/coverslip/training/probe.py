"""Heads on frozen features: a linear one solved exactly, or any head by steps of an optimizer."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from threadpoolctl import threadpool_limits
from torch import nn

from coverslip.config import TrainingConfig
from coverslip.runtime import Progress, derived_seed, no_progress
from coverslip.structures import FloatArray, IntArray
from coverslip.training.extractor import Features
from coverslip.training.losses import build_loss
from coverslip.training.optimizers import build_optimizer, set_rate
from coverslip.training.sampling import SampleStream
from coverslip.training.schedules import planned_rate

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths of the L2 penalty that are tried: the C of scikit-learn."""
SMALL = 2_000_000
"""Numbers in a feature matrix below which more threads cost more than they give."""
FEW = 1000
"""Rows up to which five folds choose the strength; one fold beyond."""


@dataclass(frozen=True)
class LinearHead:
    """A linear head on raw features: logits = features @ weight.T + bias.

    Attributes:
        weight: float64 (classes, features).
        bias: float64 (classes,).
        strength: the inverse regularisation that was chosen.
    """

    weight: FloatArray
    bias: FloatArray
    strength: float

    def copy_to(self, layer: nn.Linear) -> None:
        """Put the weights into a linear layer."""
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(self.weight))
            layer.bias.copy_(torch.from_numpy(self.bias))


def solve_linear_head(views: list[Features], targets: IntArray, classes: int, weights: FloatArray, ties: IntArray, seed: int) -> LinearHead:
    """Multinomial logistic regression with an L2 penalty, its strength chosen by cross-validated log loss.

    Features are standardised, then turned onto their principal axes: the same solution, far fewer numbers when there are
    fewer images than features.

    Args:
        views: float32 (n, features) each; the first is the images as they are.
        targets: int64 (n,).
        classes: number of classes; those without a row get a score of zero.
        weights: float64 (classes,) of loss weights.
        ties: int64 (n,): rows with one number stay in one fold.
        seed: of the folds.
    """
    with threadpool_limits(1 if sum(map(np.size, views)) < SMALL else None):
        return _solve(np.concatenate(views).astype(np.float64), len(views), targets, classes, weights, ties, seed)


def _solve(
    features: FloatArray, copies: int, targets: IntArray, classes: int, weights: FloatArray, ties: IntArray, seed: int
) -> LinearHead:
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
    rotated, axes = _principal((features - mean) / deviation)
    y, rows = np.tile(targets, copies), np.tile(np.arange(len(targets)), copies)
    importance = weights[y]
    strength = _choose_strength(rotated, y, rows, importance, ties, seed)
    model = _logistic(rotated, y, importance, strength)
    weight, bias = np.zeros((classes, features.shape[1])), np.full(classes, -30.0)
    coefficients, intercepts = _all_rows(model)
    weight[model.classes_] = (coefficients @ axes) / deviation
    bias[model.classes_] = intercepts - weight[model.classes_] @ mean
    return LinearHead(weight, bias, strength)


def solve_linear_heads(
    views: list[Features], targets: IntArray, classes: int, weights: FloatArray, ties: IntArray, seed: int
) -> LinearHead:
    """One logistic regression a class, for several labels an image; one strength for all, chosen by cross-validated log loss.

    Args:
        views: as for `solve_linear_head`.
        targets: int64 (n, classes) of 0 and 1.
        classes: number of classes; one that all or no rows carry gets its share (of n + 2 rows, one with and one without) as score.
        weights: float64 (classes,), of the positives.
        ties: int64 (n,): rows with one number stay in one fold.
        seed: of the folds.
    """
    with threadpool_limits(1 if sum(map(np.size, views)) < SMALL else None):
        features = np.concatenate(views).astype(np.float64)
        mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
        rotated, axes = _principal((features - mean) / deviation)
        y, rows = np.tile(targets, (len(views), 1)), np.tile(np.arange(len(targets)), len(views))
        strength = _choose_common_strength(rotated, y, weights, ties[rows], seed)
        columns = [_one_class(rotated, y[:, column], weights[column], strength) for column in range(classes)]
        weight = np.stack([(coefficients @ axes) / deviation for coefficients, _ in columns])
        bias = np.array([intercept for _, intercept in columns]) - weight @ mean
        return LinearHead(weight, bias, strength)


def _one_class(x: FloatArray, y: IntArray, weight: float, strength: float) -> tuple[FloatArray, float]:
    """Coefficients and intercept for the log odds of one class."""
    if y.min() == y.max():
        return np.zeros(x.shape[1]), float(np.log((y.sum() + 1) / (len(y) - y.sum() + 1)))
    model = _logistic(x, y, np.where(y == 1, weight, 1.0), strength)
    return model.coef_[0], float(model.intercept_[0])


def _choose_common_strength(x: FloatArray, y: IntArray, weights: FloatArray, groups: IntArray, seed: int) -> float:
    folds = min(4, len(np.unique(groups)))
    if folds < 2:
        return 1e-2
    pairs = list(GroupKFold(folds, shuffle=True, random_state=seed % 2**32).split(x, groups=groups))[: folds if len(x) <= FEW else 1]
    losses = [np.mean([_common_loss(x, y, weights, strength, *pair) for pair in pairs]) for strength in STRENGTHS]
    return STRENGTHS[int(np.argmin(losses))]


def _common_loss(x: FloatArray, y: IntArray, weights: FloatArray, strength: float, inside: IntArray, outside: IntArray) -> float:
    """Mean binary cross-entropy of all classes on held-out rows."""
    heads = [_one_class(x[inside], y[inside, column], weights[column], strength) for column in range(y.shape[1])]
    logits = np.stack([x[outside] @ coefficients + intercept for coefficients, intercept in heads], axis=1)
    return float(np.mean(np.logaddexp(0, logits) - y[outside] * logits))


def _principal(features: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Coordinates on orthonormal axes that span all rows, and the axes: features = coordinates @ axes, up to rounding.

    The axes come from the matrix of inner products, which is small where there are few rows.
    """
    n, width = features.shape
    if n >= width:
        return features, np.eye(width)
    values, vectors = np.linalg.eigh(features @ features.T)
    kept = values > values.max() * 1e-10
    axes = (vectors[:, kept] / np.sqrt(values[kept])).T @ features
    return features @ axes.T, axes


def _all_rows(model: LogisticRegression) -> tuple[FloatArray, FloatArray]:
    """One row of coefficients per class, also where scikit-learn keeps a single one for two classes."""
    if len(model.coef_) == len(model.classes_):
        return model.coef_, model.intercept_
    return np.concatenate([-model.coef_, model.coef_]) / 2, np.concatenate([-model.intercept_, model.intercept_]) / 2


def _logistic(x: FloatArray, y: IntArray, importance: FloatArray, strength: float) -> LogisticRegression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=300, tol=1e-4).fit(x, y, sample_weight=importance)


def _choose_strength(x: FloatArray, y: IntArray, rows: IntArray, importance: FloatArray, ties: IntArray, seed: int) -> float:
    groups, counts = ties[rows], np.bincount(y)
    folds = min(5 if len(x) <= FEW else 4, int(counts.max()))
    if len(np.unique(groups)) < folds or counts[counts > 0].min() < 2:
        return 1e-2
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        pairs = list(splitter.split(x, y, groups))[: folds if len(x) <= FEW else 1]
    losses = [np.mean([_held_out_loss(x, y, importance, strength, *pair) for pair in pairs]) for strength in STRENGTHS]
    return STRENGTHS[int(np.argmin(losses))]


def _held_out_loss(x: FloatArray, y: IntArray, importance: FloatArray, strength: float, inside: IntArray, outside: IntArray) -> float:
    if len(np.unique(y[inside])) < 2 or not len(outside):
        return float(np.log(2))
    model = _logistic(x[inside], y[inside], importance[inside], strength)
    place = {int(label): column for column, label in enumerate(model.classes_)}
    scores = model.predict_proba(x[outside])
    likelihood = [scores[i, place[label]] if label in place else 1e-6 for i, label in enumerate(y[outside].tolist())]
    return float(-np.mean(np.log(np.maximum(likelihood, 1e-12))))


def learn_head(
    head: nn.Module,
    views: list[Features],
    targets: IntArray,
    weights: FloatArray,
    config: TrainingConfig,
    epochs: int,
    progress: Progress = no_progress,
    *,
    in_turn: bool = False,
) -> list[dict[str, float | int | str]]:
    """Train a head on cached features; each step draws one of the views for each image.

    Args:
        head: any module from (n, features) to (n, classes); changed in place.
        views: float32 (n, features) each.
        targets: int64 (n,) of class indices, or (n, classes) of 0 and 1.
        weights: float64 (classes,) of loss weights.
        config: loss, optimizer, rates, schedule, batch size, seed.
        epochs: passes over the images.
        progress: told about the loss.
        in_turn: each pass through the images takes the next view, so that as many views as passes are seen once each.

    Returns:
        History rows: phase, step, epoch, learning_rate, train_loss.
    """
    device = next(head.parameters()).device
    stacked = torch.from_numpy(np.stack(views)).to(device)
    labels, measure = torch.from_numpy(targets).to(device), build_loss(config, weights, device, several=targets.ndim == 2)
    stream = SampleStream(np.arange(len(targets)), config.batch_size, config.seed)
    per_epoch = config.steps_per_epoch or max(1, round(len(targets) / stream.batch_size))
    total = config.steps or epochs * per_epoch
    optimizer = build_optimizer([(head, 1.0)], config)
    history: list[dict[str, float | int | str]] = []
    losses: list[float] = []
    head.train()
    with torch.random.fork_rng(devices=[]):
        for step in range(total):
            share = planned_rate(config, step, total)
            set_rate(optimizer, config.learning_rate * share)
            torch.manual_seed(derived_seed("head", config.seed, step))
            rows = torch.from_numpy(stream.batch(step)).to(device)
            drawn = torch.from_numpy(stream.passes(step) % len(views)) if in_turn else torch.randint(len(views), (len(rows),))
            batch = stacked[drawn.to(device), rows]
            loss = measure(head(batch), labels[rows]).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if config.gradient_clip:
                nn.utils.clip_grad_norm_(head.parameters(), config.gradient_clip)
            optimizer.step()
            losses.append(loss.item())
            if (step + 1) % max(1, total // 100) == 0 or step + 1 == total:
                epoch = (step + 1) / per_epoch
                history.append(
                    {
                        "phase": "head",
                        "step": step + 1,
                        "epoch": epoch,
                        "learning_rate": config.learning_rate * share,
                        "train_loss": float(np.mean(losses)),
                    }
                )
                losses.clear()
                progress("head", step + 1, total, {"loss": float(history[-1]["train_loss"])})
    head.eval()
    return history
