"""The model card, README.md of a bundle: what the model is, what it learned from, what it was judged on, where it ends.

Its head is that of a card on the Hugging Face hub, https://huggingface.co/docs/hub/model-cards.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from coverslip.bundle import Bundle
from coverslip.evaluation.uncertainty import BY_DISTANCE, BY_SCORE
from coverslip.models.licences import SPDX
from coverslip.structures import Task, number_text

NUMBERS = (
    "accuracy", "balanced_accuracy", "macro_f1", "micro_f1", "sensitivity", "specificity", "roc_auc", "macro_roc_auc",
    "macro_average_precision", "exact_match", "calibration_error",
)  # fmt: skip
"""Numbers of a card, as far as the task has them."""
PARTS = {
    "test": "on images that the model has not seen",
    "folds": "in cross-validation",
    "validation": "on the validation part, which chose the model",
}
MARKS = {"uncertain": "marked", "wrong_unmarked": "wrong and not marked", "right_unmarked": "right, of those not marked,"}
"""Shares of a card that say what the marks `uncertain` are worth."""
TITLED, SOME = 6, 3
"""Most classes that a title names all, and how many it names of more."""
FEW = 20
"""Training images of a class below which the card warns."""


def model_card(bundle: Bundle, metrics: dict[str, Any]) -> str:
    """README.md of a bundle.

    Args:
        bundle: with the provenance that a run writes.
        metrics: the content of metrics.json.
    """
    parts = (
        _head(bundle), _what(bundle), _data(bundle), _numbers(metrics), _decision(bundle), _doubt(bundle, metrics),
        _limits(bundle, metrics), _licence(bundle),
    )  # fmt: skip
    return "\n".join([line for part in parts for line in part] + [*USE, ""])


def _head(bundle: Bundle) -> Iterator[str]:
    licence = bundle.provenance.get("licence") or ""
    yield "---"
    yield "library_name: coverslip"
    yield "pipeline_tag: image-classification"
    if licence.casefold() in SPDX:
        yield f"license: {licence.casefold()}"
    yield f"tags: {json.dumps(['coverslip', 'image-classification', str(bundle.task)])}"
    yield "---"
    yield ""


def _what(bundle: Bundle) -> Iterator[str]:
    provenance, geometry = bundle.provenance, bundle.network.geometry
    named = bundle.classes if len(bundle.classes) <= TITLED else bundle.classes[:SOME]
    more = f" and {len(bundle.classes) - SOME} more" if len(bundle.classes) > TITLED else ""
    yield f"# {', '.join(named)}{more}"
    yield ""
    yield f"A {bundle.task} image classifier, {provenance['backbone']}, made with coverslip."
    yield ""
    yield f"- Classes: {', '.join(bundle.classes)}"
    yield f"- Input: {geometry.height}x{geometry.width} pixels ({geometry.fit}), channels: {', '.join(geometry.channels)}"
    yield f"- Depth of the pixels: {geometry.bits} bits"
    yield f"- Backbone weights: {provenance['weights']}"
    yield ""


def _data(bundle: Bundle) -> Iterator[str]:
    provenance = bundle.provenance
    split = provenance["split"]
    yield "## Data"
    yield ""
    named = f"`{provenance['dataset']}`: " if provenance.get("dataset") else ""
    yield f"{named}{provenance['images']} images, of which the model learned from {provenance['trained_on']}."
    yield f"Split: {split['method']}, seed {split['seed']}."
    if provenance.get("groups"):
        yield f"The images come in {provenance['groups']} groups, none of which stands in two parts of the split."
    yield ""
    counts: dict[str, dict[str, int]] = provenance.get("class_images", {})
    if counts:
        parts = list(next(iter(counts.values())))
        yield from _table(["class", *parts], [[name, *(str(found[part]) for part in parts)] for name, found in counts.items()])


def _numbers(metrics: dict[str, Any]) -> Iterator[str]:
    yield "## Validation"  # the section that bioimage.io looks for
    yield ""
    judged = [part for part in PARTS if part in metrics]
    if not judged:
        yield "Nothing was kept apart, so there is no honest number."
        yield ""
    for part in judged:
        words, found = PARTS[part], metrics[part]
        yield f"{words[0].upper()}{words[1:]} ({found['n']} images), with {metrics.get('level', 0.95):.0%} intervals:"
        yield ""
        for name in NUMBERS:
            if name in found:
                yield f"- {name.replace('_', ' ')}: {number_text(found[name])}"
        yield ""
        yield from _by_class(found.get("per_class", {}))


def _by_class(per_class: dict[str, Any]) -> Iterator[str]:
    names = [name for name in ("precision", "recall", "f1") if per_class and all(name in found for found in per_class.values())]
    if names:
        rows = [[label, str(found.get("support", "")), *(number_text(found[name]) for name in names)] for label, found in per_class.items()]
        yield from _table(["class", "images", *names], rows)


def _decision(bundle: Bundle) -> Iterator[str]:
    decision = bundle.decision
    yield "## Decisions"
    yield ""
    if bundle.task is Task.MULTICLASS:
        yield "The class with the highest score."
    elif bundle.task is Task.BINARY:
        yield f"`{bundle.classes[1]}` where its score is at least {decision.threshold:.4g}."
    elif decision.thresholds:
        pairs = zip(bundle.classes, decision.thresholds, strict=True)
        yield f"A label where its score is at least its threshold: {', '.join(f'{name} {threshold:.3g}' for name, threshold in pairs)}."
    else:
        yield f"A label where its score is at least {decision.threshold:.4g}."
    if decision.at_least_one:
        yield "An image without any label gets the nearest one."
    if decision.lines:
        yield "Scores are calibrated: a line on the log-odds of each class."
    elif decision.temperature != 1:
        yield f"Scores are calibrated: log-scores are divided by {decision.temperature:.3g}."
    else:
        yield "Scores are not calibrated."
    yield ""


def _doubt(bundle: Bundle, metrics: dict[str, Any]) -> Iterator[str]:
    """What `uncertain` in a table of predictions says, and what it is worth."""
    conformal, neighbours = bundle.decision.conformal, bundle.neighbours
    far = neighbours is not None and neighbours.bound is not None
    yield "## Doubt"
    yield ""
    if conformal is None and not far:
        yield "No decision is marked as uncertain: too few images were kept apart to calibrate that."
        yield ""
        return
    yield "Predictions are marked in `uncertain` where they are to be looked at:"
    yield ""
    if conformal is None:
        yield "- by their scores none: too few images were kept apart to calibrate that"
    else:
        yield f"- `{BY_SCORE}`: another class cannot be ruled out, or none is likely enough; {_plain(conformal.note)}"
    if not far or neighbours is None:
        yield "- by their distance from the training images none: the bundle knows too few of them, or nothing"
    else:
        yield f"- `{BY_DISTANCE}`: {_plain(neighbours.note)}"
    yield ""
    for part, words in PARTS.items():
        worth = metrics.get("uncertainty", {}).get(part)
        if worth:
            told = ", ".join(f"{words} {number_text(worth[name])}" for name, words in MARKS.items() if name in worth)
            yield f"{words[0].upper()}{words[1:]}, as shares of images: {told}."
            yield ""


def _plain(note: str) -> str:
    return note.removeprefix("uncertain: ")


def _limits(bundle: Bundle, metrics: dict[str, Any]) -> Iterator[str]:
    yield "## Limits"
    yield ""
    yield "The numbers hold for images made like those that it was trained on. Another instrument, stain or laboratory needs a new"
    yield "judgement: `coverslip evaluate BUNDLE DATA`. An image of something else gets one of the classes, too."
    few = [name for name, parts in bundle.provenance.get("class_images", {}).items() if parts.get("train", 0) < FEW]
    if few:
        yield f"Fewer than {FEW} training images: {', '.join(few)}."
    if "test" not in metrics and "folds" not in metrics:
        yield "It was not judged on images that had no part in making it."
    yield ""


def _licence(bundle: Bundle) -> Iterator[str]:
    licence = bundle.provenance.get("licence", "")
    yield "## Licence of the weights"
    yield ""
    if licence is None:
        yield "The model was trained from random weights, so that no licence of others comes with it."
    elif licence:
        yield f"The backbone started from weights under {licence}, which holds for what was made of them."
    else:
        yield "The file of weights that the backbone started from states no licence; ask where it comes from before you pass the model on."
    yield "Under which licence the model itself may be used is for those to say who made it and own the images."
    yield ""


USE = (
    "## Use",
    "",
    "    coverslip predict BUNDLE IMAGES --out predictions.csv",
    "    coverslip export BUNDLE --format onnx --out model.onnx",
)


def _table(heads: list[str], rows: list[list[str]]) -> Iterator[str]:
    """A table in Markdown, and an empty line."""
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for row in rows:
        yield f"| {' | '.join(text.replace('|', chr(92) + '|') for text in row)} |"
    yield ""
