"""One run, top to bottom: from a config to a run folder with a model, honest numbers and all that explains them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from coverslip.bundle import DIGEST, Bundle, save_bundle
from coverslip.card import model_card
from coverslip.config import RunConfig
from coverslip.deciding import (
    calibration_table,
    check_decision,
    choose_conformal,
    choose_decision,
    judged_parts,
    predict_parts,
    summarise_numbers,
    threshold_table,
)
from coverslip.evaluation.decision import Decision
from coverslip.fitting import Fits, FoldScores
from coverslip.models.classifier import FrozenBackbones
from coverslip.models.licences import weights_licence
from coverslip.neighbours import Neighbours
from coverslip.pictures import save_pictures
from coverslip.preparing import Prepared, prepare, split_facts
from coverslip.record import KeepBundle, RunFolder, Stopwatch, always
from coverslip.remembering import find_neighbours, with_pictures
from coverslip.runtime import Progress, no_progress
from coverslip.structures import PARTS, RunResult, Task, class_counts
from coverslip.training.fit import Fitted


def run(
    config: RunConfig,
    folder: str | Path,
    *,
    recipe: str = "",
    why: str = "",
    command: str = "",
    resume: bool = False,
    data: Prepared | None = None,
    frozen: FrozenBackbones | None = None,
    keep_bundle: KeepBundle = always,
    pictures: bool = True,
    time_inference: bool = False,
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
        data: data that is prepared already, by a config with the same `preparation_key`; prepared here when None.
        frozen: frozen backbones that this run shares with others of its process.
        keep_bundle: told the metrics, says whether the trained model is saved.
        pictures: whether to save the pictures of the report.
        time_inference: measure how long the network takes for the images that it is judged on, for timing.json.
        progress: told about long work.
        announce: told in a few lines, before the first step, what the audit warns of and what is about to be trained on what.

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
        config, finished = place.earlier(config, keep_bundle)
        if finished is not None:
            return finished
        watch = Stopwatch()
        with watch("data"):
            data = prepare(config, progress) if data is None else data.under(config)
        check_decision(data)
        with watch("model"):
            learner = Fits(data, place, progress, frozen)
            summary = learner.summary
        if data.audit.sentence:
            announce(f"audit:  {data.audit.sentence}; in full in the report, and by coverslip audit")
        announce(f"images: {', '.join(f'{len(data.split.rows(part)):,} {part}' for part in PARTS)}")
        announce(f"model:  {data.config.model.backbone}, {summary.sentence}")
        place.write_start(data.config, data.audit, data.table, data.split)
        with watch("train"):
            folds = learner.folds()
            fitted = learner.final()
        with watch("judge"):
            decision = choose_decision(data, fitted, folds)
            conformal, doubt = choose_conformal(data, fitted, folds, decision)
            decision, neighbours = replace(decision, conformal=conformal), find_neighbours(data, fitted)
            predictions = predict_parts(data, fitted, folds, decision, neighbours)
            metrics = summarise_numbers(data, predictions, decision) | _choices_compared(data, fitted, folds, decision)
        kept = keep_bundle(metrics)
        if kept or pictures:
            neighbours = with_pictures(neighbours, data)
        bundle = make_bundle(data, fitted, decision, learner, metrics, recipe, neighbours)
        if kept:
            with watch("bundle"):
                save_bundle(bundle, place.path / "bundle", sample_images(data), model_card(bundle, metrics))
        far = neighbours.note if neighbours is not None else ""
        notes = [note for note in (*data.notes, *learner.notes, decision.note, doubt, far) if note]
        if pictures:
            with watch("pictures"):
                save_pictures(place.path / "pictures", data, bundle, predictions)
        place.write_weights(fitted.network.classifier)
        place.write_environment(
            fitted.network, learner.config, data.pixels.key, precision=learner.learning_precision, recipe={"name": recipe, "why": why},
            command=command, notes=notes,
            split=split_facts(data.split), features_runtime=learner.features_runtime, features_precision=learner.features_precision,
        )  # fmt: skip
        times = {"training_seconds": learner.seconds, "features_seconds": learner.feature_seconds}
        if time_inference:
            times |= inference_times(data, fitted, learner.frozen)
        judged = 0 if cached_scores(data) else sum(map(len, predictions.values()))
        place.write_timing(watch, fitted.images_per_second, judged, **times)
        place.write_results(learner.history, predictions, metrics, summary)
        place.clean()
        return RunResult(place.path, metrics, watch.total, tuple(notes))


def _choices_compared(data: Prepared, fitted: Fitted, folds: FoldScores | None, decision: Decision) -> dict[str, Any]:
    """With several labels an image: what other thresholds, and scores without calibration, would have given, for metrics.json."""
    if data.table.task is not Task.MULTILABEL:
        return {}
    parts = judged_parts(data, fitted, folds)
    return {"thresholds": threshold_table(data, parts, decision), "calibration": calibration_table(data, parts, decision)}


def cached_scores(data: Prepared) -> bool:
    """Whether images were judged by cached features or out of fold, so that judging says nothing of the speed of the network."""
    return data.config.training.regime == "probe" or data.split.folds is not None


def inference_times(data: Prepared, fitted: Fitted, frozen: FrozenBackbones) -> dict[str, float]:
    """Images of the part that judges, and the seconds that the network takes for them, for timing.json."""
    judged = data.split.rows("train", "validation") if data.split.folds is not None else data.split.rows("test")
    images, seconds = fitted.time_scores(data.samples, judged if len(judged) else data.split.rows("validation"), frozen.seconds)
    return {"inference_images": images, "inference_seconds": seconds}


def sample_images(data: Prepared) -> list[Any]:
    """A few decoded images for the bundle's self-test, one of each of the first classes."""
    labels = data.table.labels
    carries = labels.T == 1 if labels.ndim == 2 else np.arange(len(data.table.classes))[:, None] == labels
    rows = list(dict.fromkeys(int(member.argmax()) for member in carries[:3]))
    return [data.reading.read(data.table.samples[row])[0] for row in rows]


def reading_keys(data: Prepared) -> dict[str, Any]:
    """Keys of `[data]` by which the model reads the tables that it is judged on."""
    stated = data.config.data
    kept = list(data.table.classes) if stated.keep is not None or stated.drop_rare else None
    keys: dict[str, Any] = {"image": stated.image, "channels": stated.channels, "projection": stated.projection}
    keys |= {"labels": stated.labels, "separator": stated.separator, "merge": stated.merge, "keep": kept}
    several = {"classes": stated.classes, "allow_empty": stated.allow_empty} if data.table.task is Task.MULTILABEL else {}
    return {key: value for key, value in (keys | several).items() if value not in (None, {})}


def class_images(data: Prepared) -> dict[str, dict[str, int]]:
    """Images of each class in each part of the split that has any."""
    parts = {part: rows for part in PARTS if len(rows := data.split.rows(part))}
    counts = {part: class_counts(data.table.labels[rows], data.table.classes) for part, rows in parts.items()}
    return {name: {part: int(counts[part][place]) for part in parts} for place, name in enumerate(data.table.classes)}


def make_bundle(
    data: Prepared, fitted: Fitted, decision: Decision, learner: Fits, metrics: dict[str, Any], recipe: str, neighbours: Neighbours | None
) -> Bundle:
    """The trained model with its decision, its provenance, and what it remembers."""
    weights = fitted.network.classifier.backbone.weights
    learned = data.split.rows("train") if data.split.folds is None else data.split.rows("train", "validation")
    provenance = {
        "recipe": recipe,
        "backbone": data.config.model.backbone,
        "weights": weights.replace(f"{Path(weights.split(' (')[0]).parent}/", ""),
        "features_runtime": learner.features_runtime,
        "data": reading_keys(data),
        "licence": weights_licence(fitted.network.classifier.backbone.spec),
        "dataset": Path(data.config.data.path or "").name,
        "images": len(data.table),
        "trained_on": len(learned),
        "class_images": class_images(data),
        "groups": None if data.table.groups is None else len(np.unique(data.table.groups)),
        "pixels_sha256": data.pixels.key,
        "split": {"method": data.split.method, "seed": data.split.seed},
        "numbers": {
            part: {"n": metrics[part].get("n")} | {name: metrics[part][name] for name in ("accuracy", "macro_f1") if name in metrics[part]}
            for part in ("test", "folds", "validation")
            if part in metrics
        },
    }
    return Bundle(
        fitted.network,
        data.table.task,
        data.table.classes,
        decision,
        data.reading,
        provenance,
        tuple(digest[:DIGEST] for digest in data.scan.facts["sha256"].to_numpy()[learned]),
        neighbours,
    )
