"""All fits of a run: the folds, and the model that is kept."""

from __future__ import annotations

import copy
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from coverslip.config import RunConfig, with_values
from coverslip.data.decoding import PixelArray
from coverslip.data.geometry import GREY, RGB, Geometry
from coverslip.data.normalisation import Normalisation, dataset_percentiles, pixel_statistics
from coverslip.data.reading import Reading
from coverslip.data.store import Pixels
from coverslip.errors import ConfigError, InputError, RunFolderError
from coverslip.models.backbones import native_size
from coverslip.models.classifier import Classifier, FrozenBackbones, build_classifier
from coverslip.models.groups import Columns, GroupedClassifier, group_columns, members_of
from coverslip.models.hardware import choose_device, choose_precision
from coverslip.models.summary import Summary, summarise
from coverslip.network import Network
from coverslip.preparing import Prepared, choose_range, inverts
from coverslip.record import RunFolder
from coverslip.runtime import Progress, derived_seed, package_versions
from coverslip.structures import FloatArray, IntArray
from coverslip.training.checkpoint import load_checkpoint, save_checkpoint
from coverslip.training.extractor import Arithmetic
from coverslip.training.features import FeatureStore, module_hash
from coverslip.training.fit import Fitted, fit, halved
from coverslip.training.plan import Plan
from coverslip.training.ranks import current
from coverslip.training.samples import Samples
from coverslip.training.validation import Looks

RANDOM_PROBE = "a frozen backbone of random weights: a baseline, no model to use"


@dataclass(frozen=True)
class FoldScores:
    """Out-of-fold scores: float64 (repeats, n, classes), NaN in test rows, and the history of each fold."""

    scores: FloatArray
    history: list[dict[str, Any]]


class Fits:
    """All fits of one run: the folds, then the model that is kept. Steps found for a budget hold for all of them.

    `seconds` is what they took, without the time that went into features. `looks` are those of every fit; fits of class groups,
    which are parts of a model, have none. Where several processes train together those of the first tell the others what to do;
    theirs have no `place` to write to.
    """

    def __init__(
        self,
        data: Prepared,
        place: RunFolder | None,
        progress: Progress,
        frozen: FrozenBackbones | None = None,
        *,
        looks: Looks | None = None,
    ) -> None:
        self.data = data
        self.frozen = frozen or FrozenBackbones()
        self.place = place
        self.progress = progress
        self.looks = looks
        self.config = data.config
        self.history: list[dict[str, Any]] = []
        self.seconds = 0.0
        self._planned = False
        self._features_by: set[Arithmetic] = set()
        self._stores: list[FeatureStore] = []
        self.device = choose_device(self.config.training.device)
        self.columns = group_columns(self.config.model.class_groups, data.table.classes)
        if len(self.columns) > 1 and not data.samples.several:
            raise ConfigError("model.class_groups is for several labels an image; here every image has one label")
        self.templates = [self._template(number) for number in range(len(self.columns))]
        self.precision = choose_precision(self.config.training.precision, self.device)
        self.notes = list(self.templates[0].notes)
        if len(self.columns) > 1:
            sizes = ", ".join(str(len(columns)) for columns in self.columns)
            self.notes.append(f"{len(self.columns)} models, of {sizes} classes, answer as one")
        if self.config.training.frozen_first and self.config.model.weights == "none":
            self.notes.append("random weights are not worth keeping frozen: all layers learn from the start")
        if self.config.training.regime == "probe" and self.config.model.weights == "none":
            self.notes.append(RANDOM_PROBE)
        split = self.config.split
        self.fits = split.folds * split.repeats + (0 if self.config.training.together else 1)
        self._members: list[Classifier | GroupedClassifier] = []
        if self.config.training.together and current().size > 1:
            raise ConfigError('training.final = "folds" is for one process; say "model" where several train together')

    def _template(self, group: int) -> Classifier:
        """The classifier of a class group before it learns."""
        probing = self.config.training.regime == "probe"
        classifier = (self.frozen.classifier if probing else build_classifier)(
            self.config.model,
            channels=len(self.data.geometry.channels),
            classes=len(self.columns[group]),
            names=[self.data.table.classes[column] for column in self.columns[group]],
            size=self.data.geometry.size,
            seed=derived_seed("weights", self.config.training.seed, *([group] if group else [])),
        )
        if probing:
            classifier.backbone.requires_grad_(False)
        halves = halved(classifier, self.config)
        classifier.notes = (*classifier.notes, *([halves.sentence] if halves else []))
        return classifier

    @property
    def summary(self) -> Summary:
        """What the model is made of and what it costs."""
        geometry, batch_size = self.data.geometry, self.config.training.batch_size
        whole = self.templates[0] if len(self.templates) == 1 else GroupedClassifier(self.templates, self.columns)
        return summarise(whole, geometry.size, len(geometry.channels), batch_size=batch_size)

    def network(self, rows: IntArray, group: int = 0) -> Network:
        """A fresh network of a class group whose normalisation comes from the given training rows."""
        template = self.templates[group]
        shared = {id(template.backbone): template.backbone} if self.config.training.regime == "probe" else {}
        classifier = copy.deepcopy(template, shared)  # a frozen backbone is one for all fits
        normalisation = choose_normalisation(self.config, self.data.geometry, self.data.depth, self.data.pixels, classifier, rows)
        return Network(
            classifier, self.data.geometry, normalisation, self.config.augment, self.config.training.tta, self.device, self.precision,
            several=self.data.samples.several,
        )  # fmt: skip

    def fit(self, rows: IntArray, validation: IntArray, name: str) -> Fitted:
        """One fit, of all class groups one after the other, resumed from its checkpoints when there are some."""
        ranks = current()
        ranks.tell("fit", config=self.config, rows=rows, validation=validation, name=name)
        ranks.agree("images", lambda: self.data.pixels.key)
        ranks.agree("weights", lambda: module_hash(self.templates[0]))
        if self.data.samples.several and len(np.unique(self.data.samples.targets[rows], axis=0)) < 2:
            raise InputError("all images of the training part carry the same labels; check the split, or the labels")
        if len(self.columns) == 1:
            return self._fit_group(rows, validation, name, 0)
        fitted = [self._fit_group(rows, validation, f"{name}-group-{group + 1}", group) for group in range(len(self.columns))]
        return join_groups(fitted, self.columns)

    def _fit_group(self, rows: IntArray, validation: IntArray, name: str, group: int) -> Fitted:
        minutes = self.config.training.minutes / (self.fits * len(self.columns)) if self.config.training.minutes else None
        samples = self.data.samples if len(self.columns) == 1 else self.data.samples.of_classes(self.columns[group])
        split = self.config.split
        fitted = fit(
            self.network(rows, group), samples, rows, validation, self.config,
            minutes=minutes, checkpoint=self.place.checkpoint(name) if self.place else None,
            every_row=self.frozen.every_row or split.folds > 0,
            keep_time=self._planned, on_plan=self._note_plan, progress=self.progress,
            looks=self.looks if len(self.columns) == 1 else None,
        )  # fmt: skip
        self.notes += [f"{name}: {fitted.note}"] if fitted.note else []
        self.seconds += fitted.seconds - fitted.features_seconds
        self._stores += [fitted.features] if fitted.features is not None else []
        self._features_by |= fitted.features_by
        return fitted

    @property
    def features_runtime(self) -> str:
        """What computed features of the frozen backbone, `torch` or `openvino` with its version; empty where there were none."""
        versions = package_versions("torch", "openvino")
        return " and ".join(f"{name} {versions.get(name, '')}".strip() for name in sorted({one.runtime for one in self._features_by}))

    @property
    def learning_precision(self) -> str:
        """In which precision layers learned: heads on cached features do so in float32."""
        return "32" if self.config.training.regime == "probe" else self.precision

    @property
    def features_precision(self) -> str:
        """In which precision: `32`, `bf16` or both; empty where there were no features."""
        return " and ".join(sorted({one.precision for one in self._features_by}))

    @property
    def feature_seconds(self) -> float:
        """What the features of all fits took to compute, each counted once, in this run or in an earlier one that left them."""
        spent: dict[str, float] = {}
        for store in self._stores:
            spent |= store.seconds
        return sum(spent.values())

    def _note_plan(self, plan: Plan) -> None:
        if self.config.training.minutes and (self.config.training.steps is None or self._planned):
            self._planned = True
            copies = {} if plan.views is None else {"views": plan.views}
            self.config = with_values(self.config, training={"steps": plan.steps, **copies})
            if self.place:
                self.place.write_config(self.config)

    def folds(self) -> FoldScores | None:
        """Train and score every fold; None without folds."""
        split = self.data.split
        if split.folds is None:
            return None
        scores = np.full((len(split.folds), len(self.data.table), len(self.data.table.classes)), np.nan)
        for repeat, folds in enumerate(split.folds):
            for number in range(int(folds.max()) + 1):
                scores[repeat, folds == number] = self.fold(folds, repeat, number)
                done = repeat * self.config.split.folds + number + 1
                self.progress("folds", done, len(split.folds) * self.config.split.folds, {})
        self.notes = joined_notes(self.notes)
        return FoldScores(scores, self.history)

    def fold(self, folds: IntArray, repeat: int, number: int) -> FloatArray:
        """Scores of the rows of one fold by a model that learned from the others; kept, so that a resumed run has them."""
        name = f"fold-{repeat}-{number}"
        kept = self.place.load_fold(name) if self.place else None
        if kept is None:
            train, validation, outside = self.fold_rows(folds, number)
            fitted = self.fit(train, validation, name)
            kept = fitted.scores(self.data.samples, outside), fitted.history
            if self.config.training.together:
                self._members.append(fitted.network.classifier)
            if self.place:
                if self.config.training.together:
                    save_checkpoint(self.place.checkpoint(f"{name}-model"), fitted.network.classifier.state_dict())
                self.place.keep_fold(name, *kept)
        elif self.place and self.config.training.together:
            self._members.append(self._restored(self.place.checkpoint(f"{name}-model")))
        scores, history = kept
        self.history += [{"fold": f"{repeat + 1}.{number + 1}", **row} for row in history]
        return scores

    def _restored(self, file: Path) -> Classifier | GroupedClassifier:
        """The model of a fold that was finished before."""
        parts = [copy.deepcopy(template) for template in self.templates]
        model = parts[0] if len(parts) == 1 else GroupedClassifier(parts, self.columns)
        state = load_checkpoint(file)
        if state is None:
            raise RunFolderError(f"{file} is missing, the model of a fold that was finished; start anew without --resume")
        model.load_state_dict(state)
        return model

    def fold_rows(self, folds: IntArray, number: int) -> tuple[IntArray, IntArray, IntArray]:
        """The rows that the fit of a fold learns from, those that it chooses by (none for a probe), and those that it is judged on.

        Args:
            folds: int64 (n,), one repeat of `Split.folds`.
            number: of the fold.
        """
        inside = np.flatnonzero((folds >= 0) & (folds != number))
        held = (self.data.split.part[inside] == "validation") & (self.config.training.regime != "probe")
        return inside[~held], inside[held], np.flatnonzero(folds == number)

    def final(self) -> Fitted:
        """The model that is kept: trained on the training part; after folds on all that are not test, or the folds' models together."""
        split = self.data.split
        if self.config.training.together:
            return self._together()
        if split.folds is None:
            fitted = self.fit(split.rows("train"), split.rows("validation"), "final")
        else:
            fitted = self.fit(split.rows("train", "validation"), np.zeros(0, dtype=np.int64), "final")
        self.history += [{"fold": "", **row} for row in fitted.history]
        return fitted

    def _together(self) -> Fitted:
        """The models of all folds as one, which answers with the mean of their logits; it normalises by all rows that are not test."""
        members = [member for model in self._members for member in members_of(model)]
        self.notes.append(f"the models of {len(self._members)} folds answer together, with the mean of their logits")
        network = self.network(self.data.split.rows("train", "validation"))
        return Fitted(replace(network, classifier=GroupedClassifier(members, self.columns * len(self._members))), [], None, 0.0)


def joined_notes(notes: list[str]) -> list[str]:
    """The same notes, those of several folds that differ by numbers only as one.

    >>> joined_notes(["weights: none", "fold-0-1: stopped after 3 steps", "fold-0-4: stopped after 9 steps"])
    ['weights: none', 'fold-0-1 and 1 more: stopped after 3 steps']
    """
    alike = Counter(re.sub(r"[0-9]+", "0", note) for note in notes if note.startswith("fold-"))
    joined: dict[str, str] = {}
    for note in notes:
        kind = re.sub(r"[0-9]+", "0", note) if note.startswith("fold-") else note
        name, _, said = note.partition(": ")
        joined.setdefault(kind, note if alike[kind] < 2 else f"{name} and {alike[kind] - 1} more: {said}")
    return list(joined.values())


def join_groups(fitted: list[Fitted], columns: list[Columns]) -> Fitted:
    """The fits of class groups as one; the rows of their histories name the group."""
    members = [one.network.classifier for one in fitted]
    network = replace(fitted[0].network, classifier=GroupedClassifier([m for m in members if isinstance(m, Classifier)], columns))
    history = [{"group": number, **row} for number, one in enumerate(fitted, start=1) for row in one.history]
    seconds = sum(one.seconds for one in fitted)
    speed = (
        len(fitted) / sum(1 / max(one.images_per_second, 1e-9) for one in fitted) if all(one.images_per_second for one in fitted) else 0.0
    )
    steps = [one.steps for one in fitted if one.steps is not None]
    waited = sum(one.features_seconds for one in fitted)
    return Fitted(network, history, sum(steps) if steps else None, seconds, speed, features_seconds=waited)


def choose_normalisation(
    config: RunConfig, geometry: Geometry, depth: int, pixels: Pixels, classifier: Classifier, rows: IntArray
) -> Normalisation:
    """The normalisation that the config names; what it needs of the data is measured on the given training rows only.

    Args:
        config: the whole config, every `auto` resolved.
        geometry: what is stored.
        depth: bits of the files' pixels, in whose units a stated range is given.
        pixels: stored pixels.
        classifier: its backbone knows its own mean and deviation.
        rows: the training rows.
    """
    asked, percentiles = config.pixels, (config.pixels.percentiles[0], config.pixels.percentiles[1])
    planes, unit = len(geometry.channels), geometry.full / (1 if depth == 32 else (1 << depth) - 1)
    low, high = [0.0] * planes, [float(geometry.full)] * planes
    if asked.range == "dataset":
        low, high = dataset_percentiles(pixels.array, pixels.index[rows], percentiles)
    elif not isinstance(asked.range, str):
        low, high = ([bound * unit for bound in bounds] for bounds in zip(*asked.ranges(planes), strict=True))
    together: Literal["together", "each"] = "each" if asked.colour == "channels" else "together"
    ranged = Normalisation(
        low=tuple(low),
        high=tuple(high),
        percentiles=percentiles if asked.range == "image" else None,
        clip=asked.range not in ("full", "auto"),
        invert=bool(asked.invert),
        per_image=together if asked.normalise == "image" else "none",
    )
    if asked.normalise == "backbone":
        return replace(ranged, mean=classifier.backbone.mean, deviation=classifier.backbone.std)
    if asked.normalise == "dataset":
        mean, deviation = pixel_statistics(pixels.array, pixels.index[rows], ranged)
        return replace(ranged, mean=tuple(mean.round(6).tolist()), deviation=tuple(deviation.round(6).tolist()))
    return ranged


def fit_arrays(config: RunConfig, images: list[PixelArray], targets: IntArray, classes: int) -> Network:
    """Fit on decoded images in memory, all of them training images: what the scikit-learn face does.

    Args:
        config: the whole config.
        images: n decoded images, uint8, uint16 or float32 (h, w, c).
        targets: int64 (n,) of class indices, or (n, classes) of 0 and 1.
        classes: number of classes.
    """
    height, width = (config.pixels.height, config.pixels.width) if config.pixels.height else native_size(config.model)
    stated = tuple(channel.name for channel in Reading.of(config.data).channels)
    grey = config.pixels.colour == "grey" or (config.pixels.colour == "auto" and any(image.shape[2] == 1 for image in images))
    depth = max(image.dtype.itemsize * 8 for image in images)
    geometry = Geometry(height, width or height, config.pixels.fit, stated or (GREY if grey else RGB), depth)
    pixels, rows = Pixels.of(images, geometry), np.arange(len(images))
    colour = {"colour": "channels"} if stated else {}
    config = with_values(config, pixels={"range": choose_range(config, depth), **colour})
    config = with_values(config, pixels={"invert": inverts(config, pixels, rows, geometry)})
    seed = derived_seed("weights", config.training.seed)
    classifier = build_classifier(config.model, channels=len(geometry.channels), classes=classes, size=geometry.size, seed=seed)
    device = choose_device(config.training.device)
    normalisation = choose_normalisation(config, geometry, depth, pixels, classifier, rows)
    precision = choose_precision(config.training.precision, device)
    network = Network(
        classifier, geometry, normalisation, config.augment, config.training.tta, device, precision, several=targets.ndim == 2
    )
    samples = Samples(pixels, targets, classes, rows)
    return fit(network, samples, rows, np.zeros(0, dtype=np.int64), config, minutes=config.training.minutes).network
