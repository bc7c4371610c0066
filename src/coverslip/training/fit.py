"""The three regimes: probe, finetune, scratch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coverslip.config import RunConfig
from coverslip.errors import InputError
from coverslip.models.classifier import Classifier
from coverslip.models.cutting import Cut, cut, cut_unlearned
from coverslip.models.hardware import keeping_memory, repeatable
from coverslip.network import Network, chunks
from coverslip.runtime import Progress, hash_text, no_progress
from coverslip.structures import FloatArray, IntArray
from coverslip.training import notes
from coverslip.training.checkpoint import State
from coverslip.training.extractor import Arithmetic, Features, choose_runtime
from coverslip.training.features import FeatureStore
from coverslip.training.loop import HistoryRow, Learner
from coverslip.training.maps import Maps
from coverslip.training.plan import Pace, Plan, make_plan
from coverslip.training.probe import learn_head, solve_linear_head, solve_linear_heads
from coverslip.training.ranks import current
from coverslip.training.samples import Samples
from coverslip.training.validation import Looks

MEASURED = 256
"""Images that the time of inference is measured on, at most."""
WARM_UP = 4
"""Images that go through before the clock starts."""
MAPS_SHARE = 0.4
"""Share of a budget in minutes that the maps of frozen first layers may take: beyond it, fewer augmented copies are made."""
LEAST_COPIES = 1
"""Augmented copies that are made however small the budget is."""


@dataclass
class Fitted:
    """A fitted network.

    Attributes:
        network: ready to score, in float32.
        history: rows of history.csv.
        steps: optimizer steps of the phase in which all layers learn; None for a probe.
        seconds: wall time of the fit.
        images_per_second: training images per second of that phase, 0 for a probe.
        features: cached features of a probe, from which its scores are taken; they know what they took to compute.
        features_seconds: of `seconds`, what was spent on features: on computing them, or on reading those of an earlier run.
        features_by: what computed features of the frozen backbone; empty where there were none.
        note: what a reader of the numbers has to know about the fit; empty when all went well.
    """

    network: Network
    history: list[HistoryRow]
    steps: int | None
    seconds: float
    images_per_second: float = 0.0
    features: FeatureStore | None = None
    features_seconds: float = 0.0
    features_by: frozenset[Arithmetic] = frozenset()
    note: str = ""

    def __post_init__(self) -> None:
        self.network = self.network.for_use()

    def scores(self, samples: Samples, rows: IntArray) -> FloatArray:
        """Probabilities, float64 (m, classes), of some rows, which the processes that train together share out."""
        ranks = current()
        ranks.tell("score", rows=rows)
        if self.features is None or self.network.tta != "none":
            own = rows[ranks.part(len(rows))]
            return ranks.gathered(self.network.scores(chunks(samples.pixels.array, samples.pixels.index[own])))
        return self._answer(torch.from_numpy(self.features.rows(rows)).to(self.network.device))

    def vectors(self, samples: Samples, rows: IntArray) -> Features:
        """What the heads see of some rows, float32 (m, features)."""
        if self.features is not None:
            return self.features.rows(rows)
        return self.network.scores_and_features(chunks(samples.pixels.array, samples.pixels.index[rows]), copies=False)[1]

    def scores_and_vectors(self, samples: Samples, rows: IntArray) -> tuple[FloatArray, Features]:
        """Probabilities, float64 (m, classes), and what the heads see, float32 (m, features), of some rows."""
        if self.features is not None:
            return self.scores(samples, rows), self.features.rows(rows)
        return self.network.scores_and_features(chunks(samples.pixels.array, samples.pixels.index[rows]))

    def time_scores(self, samples: Samples, rows: IntArray, known: dict[str, float]) -> tuple[int, float]:
        """How many images were scored, at most 256 of some rows, and the seconds that it took the whole network, warm.

        Args:
            samples: images.
            rows: int64, of which the first are taken.
            known: seconds that frozen backbones took before, by backbone and images: neighbouring runs of a study share theirs.
        """
        rows = rows[:MEASURED]
        places = samples.pixels.index[rows]
        if self.features is None or self.network.tta != "none":
            return len(rows), self._seconds(lambda some: self.network.scores(chunks(samples.pixels.array, places[:some])), len(rows))
        key = hash_text(self.features.fingerprint, samples.pixels.key, str(places.tolist()))
        if key not in known:
            known[key] = self._seconds(lambda some: self._look(samples, places[:some]), len(rows))
        vectors = torch.from_numpy(self.features.rows(rows)).to(self.network.device)
        return len(rows), known[key] + self._seconds(lambda some: self._answer(vectors[:some]), len(rows))

    def _look(self, samples: Samples, places: IntArray) -> None:
        """The backbone alone, at stored pixels."""
        for _ in self.network.features(map(self.network.batch, chunks(samples.pixels.array, places))):
            pass

    @torch.inference_mode()
    def _answer(self, vectors: Tensor) -> FloatArray:
        """The head alone: probabilities from what the backbone gave."""
        return self.network.probabilities(self.network.classifier.head(vectors)).cpu().numpy()

    @staticmethod
    def _seconds(work: Callable[[int], object], images: int) -> float:
        """Of so many images, after a few that count for nothing."""
        work(min(WARM_UP, images))
        began = time.perf_counter()
        work(images)
        return time.perf_counter() - began


def fit(
    network: Network,
    samples: Samples,
    rows: IntArray,
    validation: IntArray,
    config: RunConfig,
    *,
    minutes: float | None = None,
    checkpoint: Path | None = None,
    every_row: bool = False,
    keep_time: bool = False,
    on_plan: Callable[[Plan], None] = lambda plan: None,
    progress: Progress = no_progress,
    looks: Looks | None = None,
) -> Fitted:
    """Fit a network on the training rows in the regime that the config names.

    Args:
        network: an unfitted classifier with its preprocessing; changed in place.
        samples: images and targets.
        rows: int64, training rows.
        validation: int64, rows that choose what is kept; may be empty.
        config: the whole config.
        minutes: budget of this fit, when it has one and `training.steps` is not set.
        checkpoint: file for resuming.
        every_row: `probe`: compute the features of all images at once, for other fits ask for other rows.
        keep_time: keep to the budget also where `training.steps` is set, for it was found for an earlier fit.
        on_plan: told the number of steps before the first of them, and again whenever a budget makes them others.
        progress: told about each step.
        looks: how often the validation part is looked at, and who is told; once an epoch when None.
    """
    with keeping_memory(network.device), repeatable(network.device):
        began = time.perf_counter()
        weights = loss_weights(samples.targets[rows], samples.classes, config.training.class_weights)
        probing = config.training.regime == "probe"
        history: list[HistoryRow] = []
        computed_by: frozenset[Arithmetic] = frozenset()
        if probing:
            features = feature_store(network, samples, config, progress, every_row=every_row)
            network.classifier.backbone.requires_grad_(False)
            views = [features.rows(rows, view) for view in probe_views(config)]
            waited = time.perf_counter() - began
            history = _fit_head_once(network.classifier.head, views, samples, rows, weights, config, progress)
            seconds = time.perf_counter() - began
            return Fitted(network, history, None, seconds, features=features, features_seconds=waited, features_by=frozenset(features.used))
        ranks = current()
        fresh = ranks.same(lambda: checkpoint is None or not checkpoint.exists())
        budgeted = minutes is not None and config.training.steps is None
        maps = None
        halves = halved(network.classifier, config)
        if halves:
            seconds_for_maps = MAPS_SHARE * 60.0 * minutes if minutes is not None and budgeted else None
            maps = _maps(network, halves, samples, rows, config, progress, seconds_for_maps, whole=every_row)
            computed_by = frozenset(maps.used) if maps else computed_by
        if config.training.frozen_first and config.model.weights != "none" and fresh:
            if maps:
                views = maps.vectors(rows)
            else:
                features = feature_store(network, samples, config, progress, every_row=every_row)
                views, computed_by = [features.rows(rows)], frozenset(features.used)
            history = _fit_head_once(network.classifier.head, views, samples, rows, weights, config, progress)
        learner = Learner(network, samples, rows, validation, config, weights, progress, checkpoint, history, looks, maps)
        trial = learner.try_batches(timed=budgeted)
        left = 60.0 * minutes - (time.perf_counter() - began) if minutes is not None and (budgeted or keep_time) else None
        plan = ranks.same(lambda: make_plan(config, len(rows), len(validation), trial, left, looks.number if looks else None))
        plan = replace(plan, views=maps.copies) if maps else plan
        on_plan(plan)
        loop_began = time.perf_counter()
        pace = Pace(plan.steps, left) if left is not None and looks is None else None
        taken = learner.run(plan, pace, on_plan)
        seconds = time.perf_counter() - loop_began
        speed = taken * learner.stream.batch_size / max(seconds, 1e-9)
        late = notes.late(60.0 * minutes, left) if minutes is not None and left is not None and budgeted else ""
        note = "; ".join(filter(None, (late, learner.note)))
        steps, whole = learner.history[-1]["step"], time.perf_counter() - began
        return Fitted(network, learner.history, steps, whole, speed, features_by=computed_by, note=note)


def feature_store(
    network: Network, samples: Samples, config: RunConfig, progress: Progress = no_progress, *, every_row: bool = False
) -> FeatureStore:
    """Features as a fit with this config computes them.

    Args:
        network: whose backbone is frozen, at least until the features are there.
        samples: images; how many there are decides what computes.
        config: the whole config.
        progress: told about each batch.
        every_row: compute the features of all images at once.
    """
    height, width = network.geometry.size
    looks = len(samples.pixels.index) * max(1, len(probe_views(config)))
    training = config.training
    runtime = choose_runtime(training.runtime, network.device, looks * height * width)
    return FeatureStore(
        network, samples.pixels, config.augment, training.seed, config.cache.limit, progress, whole=every_row,
        runtime=runtime, strict=training.runtime == "openvino",
    )  # fmt: skip


def halved(classifier: nn.Module, config: RunConfig) -> Cut | None:
    """A classifier cut behind the layers that do not learn: those that the config keeps frozen, or first ones without weights.

    None where all learn, and in a probe, which keeps features.
    """
    if config.training.regime == "probe" or not isinstance(classifier, Classifier):
        return None
    return cut(classifier, config.training.frozen_share) if config.training.cuts else cut_unlearned(classifier)


def _maps(
    network: Network, halves: Cut, samples: Samples, rows: IntArray, config: RunConfig, progress: Progress, seconds: float | None,
    *, whole: bool,
) -> Maps | None:  # fmt: skip
    """What the frozen first layers give of the rows; of all rows when `whole`, for other fits ask for others and may share them.

    They cannot where each fit has its own normalisation. Where there is a budget of seconds, only as many copies are made as it allows.
    None where layers without weights give more than the cache may hold: then they look at each image anew.
    """
    changes, training = config.augment.model_copy(update={"mixup": 0.0}), config.training
    wanted = np.arange(len(samples.pixels.index)) if whole and not config.pixels.measured else rows
    height, width = network.geometry.size
    looks = len(wanted) * (1 + (training.views if changes.active else 0))
    maps = Maps(
        network, halves, samples.pixels, wanted, changes, training.views, training.seed, config.cache.limit, progress,
        runtime=choose_runtime(training.runtime, network.device, looks * height * width), strict=training.runtime == "openvino",
    )  # fmt: skip
    if seconds is not None and changes.active:
        affordable = current().same(lambda: int(seconds / max(maps.seconds_a_view(), 1e-9)) - 1)
        maps = replace(maps, copies=min(training.views, max(LEAST_COPIES, affordable)))
    if not training.cuts and maps.size > config.cache.limit:
        return None
    maps.compute()
    return maps


def loss_weights(targets: IntArray, classes: int, kind: str) -> FloatArray:
    """Loss weight of each class: `none`, `balanced` (inverse frequency) or `root` (its square root); mean 1 over the images.

    With several labels an image, int64 (n, classes), it is the weight of a class's positives: negatives for each positive.

    >>> loss_weights(np.array([0, 0, 0, 1]), 2, "balanced").round(2).tolist()
    [0.67, 2.0]
    >>> loss_weights(np.array([[1, 0], [1, 0], [1, 1], [0, 0]]), 2, "balanced").round(2).tolist()
    [0.33, 3.0]
    """
    if kind == "none":
        return np.ones(classes)
    power = 1.0 if kind == "balanced" else 0.5
    if targets.ndim == 2:
        positives = targets.sum(axis=0)
        return np.asarray(np.where(positives > 0, (len(targets) - positives) / np.maximum(positives, 1), 1.0) ** power)
    counts = np.bincount(targets, minlength=classes).astype(np.float64)
    weights = np.where(counts > 0, 1.0 / np.maximum(counts, 1.0), 0.0) ** power
    return np.asarray(weights * counts.sum() / (weights * counts).sum())


def one_view_an_epoch(config: RunConfig) -> bool:
    """Whether a probe has an augmented view for each epoch: each image is then seen once in each, as if it were augmented anew."""
    training = config.training
    counted = training.steps is None and training.steps_per_epoch is None and training.optimizer != "exact"
    return training.regime == "probe" and counted and config.augment.active and training.views == training.epochs


def probe_views(config: RunConfig) -> range:
    """The views of a training image that a probe learns from: 0 is the image as it is, the others are augmented copies."""
    copies = config.training.views if config.augment.active and config.training.regime == "probe" else 0
    return range(1 if one_view_an_epoch(config) else 0, 1 + copies)


def _fit_head_once(head: nn.Module, *known: Any) -> list[HistoryRow]:
    """Fit a head on features; where several processes train together the first one does it for all."""

    def fitted() -> tuple[list[HistoryRow], State]:
        return _fit_head(head, *known), {name: tensor.detach().cpu() for name, tensor in head.state_dict().items()}

    history, state = current().same(fitted)
    head.load_state_dict(state)
    return history


def _fit_head(
    head: nn.Module,
    views: list[Features],
    samples: Samples,
    rows: IntArray,
    weights: FloatArray,
    config: RunConfig,
    progress: Progress,
) -> list[HistoryRow]:
    """Fit a head on features of the rows: exactly where it is linear and the config allows it, by steps otherwise."""
    targets = samples.targets[rows]
    if not samples.several and len(np.unique(targets)) < 2:
        raise InputError("the training part holds one class only; check the split, or the labels")
    exact = config.model.head == "single" and (config.training.optimizer == "exact" or config.training.regime == "finetune")
    if not exact or not isinstance(head, nn.Linear):
        epochs = config.training.epochs if config.training.regime == "probe" else config.training.frozen_epochs
        steps = config.training.model_copy(update={"steps": None}) if config.training.regime == "finetune" else config.training
        return learn_head(head, views, targets, weights, steps, epochs, progress, in_turn=one_view_an_epoch(config))
    solve = solve_linear_heads if samples.several else solve_linear_head
    solved = solve(views, targets, samples.classes, weights, samples.ties[rows], config.training.seed)
    solved.copy_to(head)
    return []
