"""What the runs of a comparison will take, before any of them: time from a short trial of each backbone, memory from its layers.

The trial lets a few images through the backbone and takes a few steps with the head. Frozen features cost one pass for each
image and view, once for all runs that share them; where all layers learn, a step costs three passes (forward, and twice as much
backward). What stands on disk from earlier runs is not looked for. These are estimates: half or twice as much is no surprise.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch
from torch import nn

from coverslip.config import AugmentConfig, RunConfig
from coverslip.data.decoding import PixelArray
from coverslip.data.geometry import Geometry
from coverslip.data.normalisation import Normalisation, dataset_percentiles
from coverslip.data.reading import Reading
from coverslip.data.sources import load_table
from coverslip.data.store import glance, some_images
from coverslip.errors import CoverslipError
from coverslip.models.classifier import Classifier, FrozenBackbones
from coverslip.models.cutting import cut_unlearned
from coverslip.models.hardware import autocast, choose_device, choose_memory_format, choose_precision
from coverslip.models.summary import Summary, summarise
from coverslip.network import SCORE_BATCH, Network
from coverslip.preparing import choose_geometry, preparation_key
from coverslip.runtime import Progress, no_progress
from coverslip.structures import Channel, Table
from coverslip.study.grid import PlannedRun
from coverslip.study.sharing import features_key, in_sharing_order
from coverslip.training.extractor import Extractor, choose_runtime
from coverslip.training.fit import probe_views
from coverslip.training.probe import learn_head

TRIAL_IMAGES = 8
HEAD_STEPS = 4
BACKWARD = 3
"""Passes that a training step costs."""
OVERHEAD_SECONDS = 1.0
"""Of each run beside fitting: numbers with their intervals, files."""
PROCESS_BYTES = 600_000_000
"""Of Python with its libraries."""


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        name: of the run.
        seconds: of its own; None when it cannot be made.
        features_seconds: of features that it computes for itself and for later runs; 0 where an earlier one has.
        memory: in bytes, of the whole process.
        note: why it cannot be made; empty when it can.
    """

    name: str
    seconds: float | None
    features_seconds: float = 0.0
    memory: int = 0
    note: str = ""


@dataclass(frozen=True)
class _Images:
    """How many images there are, what the network gets of each, and some of them as stored pixels (m, h, w, c)."""

    table: Table
    geometry: Geometry
    some: PixelArray


@dataclass(frozen=True)
class _Trial:
    """What a model costs.

    Attributes:
        forward: seconds an image, as it scores.
        feature: the same as it gives features.
        unlearned: the same of first layers without weights, whose maps are kept.
        head_step: seconds a step of the head.
        summary: its layers.
    """

    forward: float
    feature: float
    unlearned: float
    head_step: float
    summary: Summary


def estimate_runs(runs: Sequence[PlannedRun], progress: Progress = no_progress) -> list[Estimate]:
    """An estimate for each run, in the order in which they will be made.

    Raises:
        InputError: the data is not what was asked for.
    """
    estimator = _Estimator()
    found = []
    for number, run in enumerate(in_sharing_order(runs), start=1):
        found.append(estimator(run))
        progress("trial", number, len(runs), {})
    return found


class _Estimator:
    def __init__(self) -> None:
        self.images: dict[str, _Images] = {}
        self.trials: dict[str, _Trial] = {}
        self.shared: set[str] = set()
        self.frozen = FrozenBackbones()

    def __call__(self, run: PlannedRun) -> Estimate:
        config = run.config
        try:
            device = choose_device(config.training.device)
            images = self._look(config)
            trial = self._try(config, images, device)
        except CoverslipError as error:
            return Estimate(run.model_id, None, note=str(error))
        own, features = run_seconds(config, images.table, trial)
        key = f"{preparation_key(config)} {features_key(config)}"
        once = 0.0 if key in self.shared else features
        self.shared.add(key)
        return Estimate(run.model_id, own + OVERHEAD_SECONDS, once, run_memory(config, images, trial))

    def _look(self, config: RunConfig) -> _Images:
        key = preparation_key(config)
        if key not in self.images:
            table, reading = load_table(config.data, config.split), Reading.of(config.data)
            seen = glance(table, reading)
            geometry = choose_geometry(config, table, seen)[0]
            reading = replace(reading, channels=reading.channels or Channel.of(*seen.names))
            self.images[key] = _Images(table, geometry, some_images(table, reading, geometry, TRIAL_IMAGES)[1])
        return self.images[key]

    def _try(self, config: RunConfig, images: _Images, device: torch.device) -> _Trial:
        geometry, probing = images.geometry, config.training.regime == "probe"
        looks = len(images.table) * len(probe_views(config)) if probing else 0
        runtime = choose_runtime(config.training.runtime, device, looks * prod(geometry.size)) if probing else "torch"
        key = f"{config.model.model_dump_json()} {device} {config.training.regime} {config.training.precision} {geometry.size} {runtime}"
        if key not in self.trials:
            classifier = self.frozen.classifier(
                config.model, channels=len(geometry.channels), classes=len(images.table.classes), size=geometry.size, seed=0
            )
            classifier.backbone.requires_grad_(not probing)
            summary = summarise(classifier, geometry.size, len(geometry.channels), batch_size=config.training.batch_size)
            precision = choose_precision(config.training.precision, device)
            forward = _forward_seconds(classifier.backbone, geometry, device, "32" if probing else precision)
            halves = None if probing else cut_unlearned(classifier)
            unlearned = _forward_seconds(halves.lower, geometry, device, precision) if halves else 0.0
            feature = _feature_seconds(classifier, images, device, precision, runtime) if probing else forward
            head = _head_seconds(classifier, config, images.table) if probing else 0.0
            self.trials[key] = _Trial(forward, feature, unlearned, head, summary)
        return self.trials[key]


def run_seconds(config: RunConfig, table: Table, trial: _Trial) -> tuple[float, float]:
    """Seconds of a run's own fitting, and of the features that it may share."""
    training, folds = config.training, config.split.folds
    learned, judged = _counts(config, table)
    fits = folds * config.split.repeats + (0 if training.together else 1)
    batch = min(training.batch_size, learned)
    steps = training.steps or training.epochs * (training.steps_per_epoch or max(1, round(learned / batch)))
    if training.regime == "probe":
        looked_at = len(table) if folds else learned
        return fits * steps * trial.head_step + judged * trial.forward, (looked_at * len(probe_views(config)) + judged) * trial.feature
    if training.minutes is not None:
        return 60 * training.minutes, 0.0
    below = training.frozen_share * trial.feature if training.cuts else trial.unlearned
    above = (1 - training.frozen_share) * trial.forward if training.cuts else max(0.0, trial.forward - trial.unlearned)
    copies = training.views if config.augment.active else 0
    looks = (1 + copies) * learned * (fits if config.pixels.measured else 1)
    return fits * steps * batch * BACKWARD * above + judged * trial.forward + looks * below, 0.0


def run_memory(config: RunConfig, images: _Images, trial: _Trial) -> int:
    """Bytes of the process: libraries, pixels, weights, and what a batch needs."""
    summary, geometry = trial.summary, images.geometry
    pixels = len(images.table) * prod(geometry.shape) * np.dtype(geometry.dtype).itemsize
    largest = max((prod(layer.output) for layer in summary.layers if layer.output), default=0)
    scoring = 2 * summary.weight_bytes + 3 * 4 * SCORE_BATCH * largest
    needed = scoring if config.training.regime == "probe" else max(scoring, summary.training_bytes)
    return PROCESS_BYTES + pixels + needed


def _counts(config: RunConfig, table: Table) -> tuple[int, int]:
    """Images that a fit learns from, and images that are scored."""
    split, n = config.split, len(table)
    if table.preset is not None:
        given = int((table.preset == "train").sum())
        return max(1, given), n - given
    rest = n * (1 - split.test - (0 if split.folds else split.validation))
    learned = rest * (split.folds - 1) / split.folds if split.folds else rest
    return max(1, round(learned)), round(n - (0 if split.folds else rest))


@torch.inference_mode()
def _forward_seconds(layers: nn.Module, geometry: Geometry, device: torch.device, precision: str) -> float:
    height, width, channels = geometry.shape
    layout = choose_memory_format(layers, device)
    backbone = layers.eval().to(device).to(memory_format=layout)
    images = torch.zeros(TRIAL_IMAGES, channels, height, width, device=device).to(memory_format=layout)
    with autocast(device, precision):
        backbone(images[:1])
        began = time.perf_counter()
        backbone(images).float().cpu()
        return (time.perf_counter() - began) / TRIAL_IMAGES


def _feature_seconds(classifier: Classifier, images: _Images, device: torch.device, precision: str, runtime: str) -> float:
    """Seconds of an image for its features, by what computes them in a run: some of the images choose the arithmetic there, too."""
    geometry, backbone = images.geometry, classifier.backbone
    some = images.some if len(images.some) else np.zeros((TRIAL_IMAGES, *geometry.shape), dtype=geometry.dtype)
    low, high = dataset_percentiles(some, np.arange(len(some)), (0.0, 100.0))
    normalisation = Normalisation(tuple(low), tuple(high), mean=backbone.mean, deviation=backbone.std)
    network = Network(classifier, geometry, normalisation, AugmentConfig(), "none", device, precision)
    batch = network.batch(some)
    extractor = Extractor(network, batch, runtime)
    next(extractor([batch]))
    began = time.perf_counter()
    next(extractor([batch]))
    return (time.perf_counter() - began) / len(batch)


def _head_seconds(classifier: Classifier, config: RunConfig, table: Table) -> float:
    """Seconds of a step of the head on random features; an exact solution counts as one step of all."""
    n, classes = max(config.training.batch_size, 8), len(table.classes)
    features = np.random.default_rng(0).normal(size=(n, classifier.backbone.features)).astype(np.float32)
    targets = np.arange(n, dtype=np.int64) % classes
    if table.labels.ndim == 2:
        targets = (targets[:, None] == np.arange(classes)).astype(np.int64)
    first_order = "adam" if config.training.optimizer == "exact" else config.training.optimizer
    training = config.training.model_copy(update={"steps": HEAD_STEPS, "optimizer": first_order})
    began = time.perf_counter()
    learn_head(classifier.head.cpu(), [features], targets, np.ones(classes), training, 1)
    return (time.perf_counter() - began) / HEAD_STEPS
