"""One run, top to bottom: from a config to a run folder with a model, honest numbers and all that explains them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from coverslip.bundle import DIGEST, Bundle, save_bundle
from coverslip.config import RunConfig, with_values
from coverslip.data.audit import Audit, audit, leaks
from coverslip.data.duplicates import duplicate_groups
from coverslip.data.pixels import NEAR_WHITE, WHOLE, Geometry, Normalisation, PixelArray, pixel_statistics
from coverslip.data.scan import Scan, usable_rows
from coverslip.data.sources import load_table
from coverslip.data.split import join_units, split_table
from coverslip.data.store import Pixels, glance, load_pixels
from coverslip.errors import ConfigError, LeakError
from coverslip.evaluation.decisions import apply_temperature, decide, temperature, threshold_for_sensitivity
from coverslip.evaluation.evaluate import evaluate, folds_summary
from coverslip.models.backbones import native_size
from coverslip.models.classifier import Classifier, build_classifier
from coverslip.models.hardware import choose_device, choose_precision
from coverslip.models.summary import Summary, summarise
from coverslip.network import Network
from coverslip.pictures import save_pictures
from coverslip.record import RunFolder, Stopwatch, model_card
from coverslip.runtime import Progress, derived_seed, no_progress
from coverslip.structures import PARTS, FloatArray, IntArray, Predictions, RunResult, Split, Table, Task
from coverslip.training.fit import Fitted, fit
from coverslip.training.loop import Plan, Samples

COLOUR_REASONS = {
    "all": "the images have colour",
    "none": "no image has colour",
    "some": "some images have colour and some have none, a difference that a model must not learn from; say rgb to keep it",
}


@dataclass(frozen=True)
class Decision:
    """From scores to decisions: chosen on scores of images that were not trained on, never on the test part."""

    task: Task
    threshold: float = 0.5
    temperature: float = 1.0
    note: str = ""

    def __call__(self, scores: FloatArray) -> tuple[FloatArray, IntArray]:
        """Calibrated scores and predicted class indices."""
        calibrated = scores if self.temperature == 1 else apply_temperature(scores, self.temperature)
        return calibrated, decide(calibrated, self.task, self.threshold)


@dataclass
class Prepared:
    """The data of a run, ready to be learned from."""

    config: RunConfig
    table: Table
    scan: Scan
    pixels: Pixels
    geometry: Geometry
    audit: Audit
    split: Split
    samples: Samples
    bad: dict[str, str]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class FoldScores:
    """Out-of-fold scores: float64 (repeats, n, classes), NaN in test rows, and the history of each fold."""

    scores: FloatArray
    history: list[dict[str, Any]]


def run(
    config: RunConfig,
    folder: str | Path,
    *,
    recipe: str = "",
    why: str = "",
    command: str = "",
    resume: bool = False,
    progress: Progress = no_progress,
    announce: Callable[[str], None] = lambda line: None,
) -> RunResult:
    """Train, judge and save: the whole way from a config to a run folder.

    Args:
        config: the whole config; `data.path` must be set.
        folder: the run folder; must not hold another run.
        recipe: the name of the recipe that the config started from, for the record.
        why: why it was chosen.
        command: the command line, for the record.
        resume: go on with a run that was stopped in this folder, with the config that it was started with.
        progress: told about long work.
        announce: told in two lines, before the first step, what is about to be trained on what.

    Raises:
        ConfigError: contradictions in the config.
        InputError: the data is not what was asked for.
        BadImagesError: images that cannot be read, unless `data.on_bad_image = "skip"`.
        LeakError: a given split leaks, unless `data.on_leak = "warn"`.
        RunFolderError: the folder is taken.
        ResourceError: memory or disk ran out.
    """
    config.check()
    with RunFolder.claim(Path(folder), resume=resume) as place:
        config, finished = place.earlier(config)
        if finished is not None:
            return finished
        watch = Stopwatch()
        with watch("data"):
            data = prepare(config, progress)
        with watch("model"):
            learner = Fits(data, place, progress)
            summary = learner.summary
        announce(f"images: {', '.join(f'{len(data.split.rows(part)):,} {part}' for part in PARTS)}")
        announce(f"model:  {data.config.model.backbone}, {summary.sentence}")
        place.write_start(data.config, data.audit, data.table, data.split)
        with watch("train"):
            folds = learner.folds()
            fitted = learner.final()
        with watch("judge"):
            decision = choose_decision(data, fitted, folds)
            predictions = predict_parts(data, fitted, folds, decision)
            metrics = summarise_numbers(data, predictions, decision)
        with watch("bundle"):
            bundle = make_bundle(data, fitted, decision, learner, metrics, recipe)
            save_bundle(bundle, place.path / "bundle", sample_images(data), model_card(bundle, metrics))
        notes = [note for note in (*data.notes, *learner.notes, decision.note) if note]
        with watch("pictures"):
            save_pictures(
                place.path / "pictures", data.table, data.split, data.pixels, data.audit, fitted.network, predictions, data.config
            )
        place.write_results(learner.history, predictions, metrics, summary)
        place.write_environment(
            fitted.network, learner.config, recipe={"name": recipe, "why": why}, command=command, notes=notes, split=split_facts(data.split)
        )
        place.write_timing(watch, fitted.images_per_second, sum(map(len, predictions.values())))
        place.clean()
        return RunResult(place.path, metrics, watch.total, tuple(notes))


# Data ---------------------------------------------------------------------------------------------------------------


def prepare(config: RunConfig, progress: Progress = no_progress) -> Prepared:
    """Files → table → pixels and scan → audit → split, with every `auto` of the config resolved on the way."""
    table = load_table(config.data, config.split)
    geometry, config, notes = choose_geometry(config, table)
    pixels, scan = load_pixels(table, config.data, geometry, config.cache.limit, progress)
    readable = np.flatnonzero((scan.facts["error"] == "").to_numpy())
    table, scan, bad = usable_rows(table, scan, config.data.on_bad_image)
    table = replace(table, channels=geometry.channel_names)
    pixels = pixels.take(readable)
    findings = audit(
        table, scan, fit=geometry.fit, height=geometry.height, width=geometry.width, bad=bad, background=config.data.background
    )
    ties = duplicate_groups(len(table), findings.duplicates.exact, findings.duplicates.confirmed)
    split = split_table(table, config.split, ties=ties)
    findings = _meet_leaks(config, table, split, findings)
    config = with_values(config, split={"seed": split.seed}, pixels={"invert": _inverts(config, pixels, split.rows("train"), geometry)})
    return Prepared(
        config, table, scan, pixels, geometry, findings, split, _samples(table, pixels, ties), bad, [*notes, *table.notes, *split.notes]
    )


def choose_geometry(config: RunConfig, table: Table) -> tuple[Geometry, RunConfig, list[str]]:
    """Resolve size and colour from the config, the backbone and a glance at the images."""
    notes: list[str] = []
    seen = glance(table, config.data)
    height, width = config.pixels.height, config.pixels.width
    if height is None:
        height, width = native_size(config.model)
    colour = config.pixels.colour
    if colour == "auto":
        colour = "rgb" if seen.colour == "all" else "grey"
        notes.append(f"pixels.colour = {colour!r}: {COLOUR_REASONS[seen.colour]}")
    box, sentence = choose_box(config.pixels.trim, seen.box)
    geometry = Geometry(height, width or height, config.pixels.fit, 1 if colour == "grey" else 3, seen.bits, box)
    resolved = {"height": geometry.height, "width": geometry.width, "colour": colour, "trim": "none" if box == WHOLE else list(box)}
    return geometry, with_values(config, pixels=resolved, data={"path": str(Path(config.data.path or ".").absolute())}), [*notes, *sentence]


def choose_box(trim: list[float] | str, seen: tuple[float, float, float, float]) -> tuple[tuple[float, float, float, float], list[str]]:
    """The box that is looked at, and a sentence when something is cut off on its own account."""
    if isinstance(trim, list):
        top, left, bottom, right = trim
        return (top, left, bottom, right), []
    if trim == "none" or seen == WHOLE:
        return WHOLE, []
    lost = 1 - (seen[2] - seen[0]) * (seen[3] - seen[1])
    return seen, [f"pixels.trim: a border of {lost:.0%} of the area is the same in all images that were looked at, and is cut off"]


def _inverts(config: RunConfig, pixels: Pixels, rows: IntArray, geometry: Geometry) -> bool:
    if config.pixels.invert != "auto":
        return config.pixels.invert
    mean, _ = pixel_statistics(pixels.array, pixels.index[rows], geometry.full, most=200)
    return bool(mean.mean() > NEAR_WHITE)


def _meet_leaks(config: RunConfig, table: Table, split: Split, findings: Audit) -> Audit:
    """The audit with the leaks of a given split among its findings.

    Raises:
        LeakError: there are some, unless the config says to go on.
    """
    if table.preset is None:
        return findings
    found = leaks(table, split.part, findings.duplicates)
    if found and config.data.on_leak == "stop":
        listed = "\n".join(f"  - {finding.message}" for finding in found)
        raise LeakError(f"the split that was given leaks:\n{listed}\nMend the split, or go on with -s data.on_leak=warn")
    return replace(findings, findings=(*found, *findings.findings))


def _samples(table: Table, pixels: Pixels, ties: IntArray) -> Samples:
    return Samples(pixels, table.labels, len(table.classes), join_units(len(table), table.groups, ties))


def split_facts(split: Split) -> dict[str, Any]:
    """How the split was made, for the record."""
    return {"method": split.method, "seed": split.seed, "notes": list(split.notes)}


def sample_images(data: Prepared) -> list[Any]:
    """A few decoded images for the bundle's self-test, one of each of the first classes."""
    from coverslip.data.images import read_image

    rows = [int(np.flatnonzero(data.table.labels == code)[0]) for code in range(min(3, len(data.table.classes)))]
    settings = data.config.data
    return [read_image(data.table.paths[row], background=settings.background, max_pixels=settings.max_pixels)[0] for row in rows]


# Learning -----------------------------------------------------------------------------------------------------------


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
            classifier, self.data.geometry, normalisation, self.config.augment, self.config.training.tta, self.device, self.precision
        )

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
    invert = _inverts(config, pixels, rows, geometry)
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


# Judging ------------------------------------------------------------------------------------------------------------


def choose_decision(data: Prepared, fitted: Fitted, folds: FoldScores | None) -> Decision:
    """Temperature and threshold from the validation part, or from out-of-fold scores; never from the test part."""
    wanted, task = data.config.decision, data.table.task
    if not wanted.calibrate and wanted.sensitivity is None:
        return Decision(task, wanted.threshold)
    rows = data.split.rows("validation") if folds is None else data.split.rows("train", "validation")
    if not len(rows):
        raise ConfigError(
            "decision.calibrate and decision.sensitivity choose on the validation part, but it is empty; "
            "set split.validation or split.folds"
        )
    scores = fitted.scores(data.samples, rows) if folds is None else np.nanmean(folds.scores[:, rows], axis=0)
    targets = data.table.labels[rows]
    found = temperature(scores, targets) if wanted.calibrate else 1.0
    scores = apply_temperature(scores, found)
    if wanted.sensitivity is None:
        return Decision(task, wanted.threshold, found, f"temperature {found:.3f}, fitted on {len(rows)} images that were not trained on")
    if task != Task.BINARY:
        raise ConfigError(f"decision.sensitivity is for binary tasks; this one is {task} with {len(data.table.classes)} classes")
    chosen = threshold_for_sensitivity(scores, targets, wanted.sensitivity)
    return Decision(
        task,
        chosen.threshold,
        found,
        f"threshold {chosen.threshold:.4f} for a sensitivity of {wanted.sensitivity}, chosen on {len(rows)} images"
        + ("; the numbers of the folds at this threshold come from the same images and flatter it a little" if folds else ""),
    )


def predict_parts(data: Prepared, fitted: Fitted, folds: FoldScores | None, decision: Decision) -> dict[str, Predictions]:
    """Predictions of each part that the kept model did not learn from, and of each fold as `fold-<repeat>-<number>`."""
    found: dict[str, Predictions] = {}
    for part in ("test",) if folds is not None else ("test", "validation"):
        rows = data.split.rows(part)
        if len(rows):
            found[part] = predictions_of(data, rows, fitted.scores(data.samples, rows), decision)
    if folds is not None and data.split.folds is not None:
        for repeat, numbers in enumerate(data.split.folds):
            for number in range(int(numbers.max()) + 1):
                rows = np.flatnonzero(numbers == number)
                found[f"fold-{repeat + 1}-{number + 1}"] = predictions_of(data, rows, folds.scores[repeat, rows], decision)
    return found


def predictions_of(data: Prepared, rows: IntArray, scores: FloatArray, decision: Decision) -> Predictions:
    """Decide on scores and put names, labels and groups beside them."""
    table = data.table.take(rows)
    calibrated, predicted = decision(scores)
    return Predictions(table.images, calibrated, predicted, table.classes, table.task, table.targets, table.groups)


def summarise_numbers(data: Prepared, predictions: dict[str, Predictions], decision: Decision) -> dict[str, Any]:
    """The content of metrics.json."""
    intervals, table = data.config.intervals, data.table
    settings: dict[str, Any] = {"level": intervals.level, "resamples": intervals.resamples, "seed": data.split.seed}
    numbers: dict[str, Any] = {"task": str(table.task), "classes": list(table.classes), "level": intervals.level}
    if table.task == Task.BINARY:
        numbers |= {"positive": table.classes[1], "threshold": decision.threshold}
    for part in ("test", "validation"):
        if part in predictions:
            numbers[part] = evaluate(predictions[part], threshold=decision.threshold, **settings)
    folds = {name: found for name, found in predictions.items() if name.startswith("fold")}
    if folds:
        repeats = max(int(name.split("-")[1]) for name in folds)
        grouped = [[found for name, found in folds.items() if int(name.split("-")[1]) == repeat + 1] for repeat in range(repeats)]
        numbers["folds"] = folds_summary(grouped, **settings, threshold=decision.threshold)
    return numbers


def make_bundle(data: Prepared, fitted: Fitted, decision: Decision, learner: Fits, metrics: dict[str, Any], recipe: str) -> Bundle:
    """The trained model with its decision and its provenance."""
    weights = fitted.network.classifier.backbone.weights
    learned = data.split.rows("train") if data.split.folds is None else data.split.rows("train", "validation")
    provenance = {
        "recipe": recipe,
        "backbone": data.config.model.backbone,
        "weights": weights.replace(f"{Path(weights.split(' (')[0]).parent}/", ""),
        "merge": data.config.data.merge,
        "images": len(data.table),
        "trained_on": len(learned),
        "pixels_sha256": data.pixels.key,
        "split": {"method": data.split.method, "seed": data.split.seed},
        "numbers": {
            part: {"n": metrics[part].get("n"), "accuracy": metrics[part]["accuracy"]}
            for part in ("test", "folds", "validation")
            if part in metrics
        },
    }
    settings = data.config.data
    return Bundle(
        fitted.network,
        data.table.task,
        data.table.classes,
        decision.threshold,
        decision.temperature,
        settings.background,
        settings.max_pixels,
        provenance,
        tuple(digest[:DIGEST] for digest in data.scan.facts["sha256"].to_numpy()[learned]),
    )
