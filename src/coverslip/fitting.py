"""All fits of a run: the folds, and the model that is kept."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from coverslip.config import RunConfig, with_values
from coverslip.data.pixels import Geometry, Normalisation, PixelArray, pixel_statistics
from coverslip.data.store import Pixels
from coverslip.models.backbones import native_size
from coverslip.models.classifier import Classifier, build_classifier
from coverslip.models.hardware import choose_device, choose_precision
from coverslip.models.summary import Summary, summarise
from coverslip.network import Network
from coverslip.preparing import Prepared, inverts
from coverslip.record import RunFolder
from coverslip.runtime import Progress, derived_seed
from coverslip.structures import FloatArray, IntArray
from coverslip.training.fit import Fitted, fit
from coverslip.training.loop import Plan, Samples


@dataclass(frozen=True)
class FoldScores:
    """Out-of-fold scores: float64 (repeats, n, classes), NaN in test rows, and the history of each fold."""

    scores: FloatArray
    history: list[dict[str, Any]]


class Fits:
    """All fits of one run: the folds, then the model that is kept. Steps found for a budget hold for all of them."""

    def __init__(self, data: Prepared, place: RunFolder, progress: Progress) -> None:
        self.data = data
        self.place = place
        self.progress = progress
        self.config = data.config
        self.history: list[dict[str, Any]] = []
        self.device = choose_device(self.config.training.device)
        self.template: Classifier = build_classifier(
            self.config.model,
            channels=data.geometry.channels,
            classes=len(data.table.classes),
            size=(data.geometry.height, data.geometry.width),
            seed=derived_seed("weights", self.config.training.seed),
        )
        if self.config.training.regime == "probe":
            self.template.backbone.requires_grad_(False)
        self.precision = choose_precision(self.config.training.precision, self.device)
        self.notes = list(self.template.notes)
        split = self.config.split
        self.fits = 1 + split.folds * split.repeats

    @property
    def summary(self) -> Summary:
        """What the model is made of and what it costs."""
        height, width, channels = self.data.geometry.shape
        return summarise(self.template, (height, width), channels, batch_size=self.config.training.batch_size)

    def network(self, rows: IntArray) -> Network:
        """A fresh network whose normalisation comes from the given training rows."""
        classifier = copy.deepcopy(self.template)
        normalisation = choose_normalisation(self.config, self.data.geometry, self.data.pixels, classifier, rows)
        return Network(
            classifier, self.data.geometry, normalisation, self.config.augment, self.config.training.tta, self.device, self.precision,
            several=self.data.samples.several,
        )  # fmt: skip

    def fit(self, rows: IntArray, validation: IntArray, name: str) -> Fitted:
        """One fit, resumed from its checkpoint when there is one."""
        minutes = self.config.training.minutes / self.fits if self.config.training.minutes else None
        checkpoint = self.place.checkpoint(name)
        fitted = fit(
            self.network(rows), self.data.samples, rows, validation, self.config,
            minutes=minutes, checkpoint=checkpoint, on_plan=self._note_plan, progress=self.progress,
        )  # fmt: skip
        self.notes += [f"{name}: {fitted.note}"] if fitted.note else []
        return fitted

    def _note_plan(self, plan: Plan) -> None:
        if self.config.training.minutes and self.config.training.steps is None:
            self.config = with_values(self.config, training={"steps": plan.steps})
            self.place.write_config(self.config)

    def folds(self) -> FoldScores | None:
        """Train and score every fold; None without folds."""
        split = self.data.split
        if split.folds is None:
            return None
        scores = np.full((len(split.folds), len(self.data.table), len(self.data.table.classes)), np.nan)
        for repeat, folds in enumerate(split.folds):
            for number in range(int(folds.max()) + 1):
                inside, outside = np.flatnonzero((folds >= 0) & (folds != number)), np.flatnonzero(folds == number)
                scores[repeat, outside] = self._fold(inside, outside, repeat, number)
                done = repeat * self.config.split.folds + number + 1
                self.progress("folds", done, self.fits - 1, {})
        return FoldScores(scores, self.history)

    def _fold(self, inside: IntArray, outside: IntArray, repeat: int, number: int) -> FloatArray:
        name = f"fold-{repeat}-{number}"
        kept = self.place.load_scores(name)
        if kept is not None:
            return kept
        held = np.isin(self.data.split.part[inside], ["validation"]) if self._chooses() else np.zeros(len(inside), dtype=bool)
        fitted = self.fit(inside[~held], inside[held], name)
        self.history += [{"fold": f"{repeat + 1}.{number + 1}", **row} for row in fitted.history]
        scores = fitted.scores(self.data.samples, outside)
        self.place.keep_scores(name, scores)
        return scores

    def _chooses(self) -> bool:
        """Whether a fit needs rows to choose by: a probe does not."""
        return self.config.training.regime != "probe"

    def final(self) -> Fitted:
        """The model that is kept: trained on the training part, or after folds on all rows that are not test."""
        split = self.data.split
        if split.folds is None:
            fitted = self.fit(split.rows("train"), split.rows("validation"), "final")
        else:
            fitted = self.fit(split.rows("train", "validation"), np.zeros(0, dtype=np.int64), "final")
        self.history += [{"fold": "", **row} for row in fitted.history]
        return fitted


def choose_normalisation(config: RunConfig, geometry: Geometry, pixels: Pixels, classifier: Classifier, rows: IntArray) -> Normalisation:
    """The normalisation that the config names; `dataset` is measured on the given training rows only."""
    kind, invert = config.pixels.normalise, bool(config.pixels.invert)
    channels = geometry.channels
    if kind == "backbone":
        return Normalisation(geometry.full, invert, False, classifier.backbone.mean, classifier.backbone.std)
    if kind == "dataset":
        mean, deviation = pixel_statistics(pixels.array, pixels.index[rows], geometry.full)
        mean = 1 - mean if invert else mean
        return Normalisation(geometry.full, invert, False, tuple(mean.round(6).tolist()), tuple(deviation.round(6).tolist()))
    return Normalisation(geometry.full, invert, kind == "image", (0.0,) * channels, (1.0,) * channels)


def fit_arrays(config: RunConfig, images: list[PixelArray], targets: IntArray, classes: int) -> Network:
    """Fit on decoded images in memory, all of them training images: what the scikit-learn face does.

    Args:
        config: the whole config.
        images: n decoded images, uint8 or uint16 (h, w, c).
        targets: int64 (n,).
        classes: number of classes.
    """
    height, width = (config.pixels.height, config.pixels.width) if config.pixels.height else native_size(config.model)
    grey = config.pixels.colour == "grey" or (config.pixels.colour == "auto" and any(image.shape[2] == 1 for image in images))
    bits = max(image.dtype.itemsize * 8 for image in images)
    geometry = Geometry(height, width or height, config.pixels.fit, 1 if grey else 3, bits)
    pixels, rows = Pixels.of(images, geometry), np.arange(len(images))
    invert = inverts(config, pixels, rows, geometry)
    config = with_values(config, pixels={"invert": invert})
    seed = derived_seed("weights", config.training.seed)
    classifier = build_classifier(
        config.model, channels=geometry.channels, classes=classes, size=(geometry.height, geometry.width), seed=seed
    )
    device = choose_device(config.training.device)
    normalisation = choose_normalisation(config, geometry, pixels, classifier, rows)
    precision = choose_precision(config.training.precision, device)
    network = Network(classifier, geometry, normalisation, config.augment, config.training.tta, device, precision)
    samples = Samples(pixels, targets, classes, rows)
    return fit(network, samples, rows, np.zeros(0, dtype=np.int64), config, minutes=config.training.minutes).network
