"""Bundles of every kind that can be exported, untrained, with scores that differ visibly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from coverslip.bundle import Bundle, save_bundle
from coverslip.config import ModelConfig
from coverslip.data.reading import Reading
from coverslip.evaluation.decision import Decision
from coverslip.models.classifier import build_classifier
from coverslip.models.groups import GroupedClassifier
from coverslip.network import Network
from coverslip.structures import Channel, Task
from unit.test_bundle import bundle_of, images

FOUR = Reading(channels=Channel.of("dna", "tubulin", "er", "protein"))
LINES = ((0.5, 1.0), (2.0, -0.3), (1.3, 0.0))


def several(channels: int = 1, bits: int = 8, reading: Reading | None = None) -> Bundle:
    """Several labels an image."""
    decision = Decision(Task.MULTILABEL, thresholds=(0.3, 0.5, 0.6), lines=LINES, at_least_one=True)
    extra = {} if reading is None else {"reading": reading}
    made = bundle_of(channels, bits, ("a", "b", "c"), decision=decision, **extra)
    made.task = Task.MULTILABEL
    made.network.several = True
    return made


def grouped() -> Bundle:
    """A model for each of two groups of classes."""
    made = several()
    config = ModelConfig(backbone="small_30k", weights="none")
    members = [build_classifier(config, channels=1, classes=count, size=(32, 32), seed=count) for count in (1, 2)]
    shown = np.stack([made.network.geometry.apply(image) for image in images()])
    for member in members:
        member.eval()
        logits = member(made.network.batch(shown)).detach()
        member.head.weight.data.div_(logits.std(dim=0)[:, None])  # type: ignore[union-attr, operator]
        member.head.bias.data.sub_(logits.mean(dim=0)).div_(logits.std(dim=0))  # type: ignore[union-attr, operator]
    fields = ("geometry", "normalisation", "augment", "tta", "device", "precision", "several", "settled")
    made.network = Network(GroupedClassifier(members, [(1,), (0, 2)]), **{name: getattr(made.network, name) for name in fields})
    return made


KINDS: dict[str, Callable[[], Bundle]] = {
    "grey": bundle_of,
    "colour": lambda: bundle_of(3, 8, ("a", "b", "c")),
    "16 bit": lambda: bundle_of(1, 16),
    "channels": lambda: bundle_of(4, 16, reading=FOUR),
    "floating point": lambda: bundle_of(4, 32, reading=FOUR),
    "several labels": several,
    "several labels, channels": lambda: several(4, 8, FOUR),
    "groups of classes": grouped,
}


def saved(kind: str, place: Path) -> Path:
    """The folder of a bundle of that kind."""
    made = KINDS[kind]()
    geometry = made.network.geometry
    save_bundle(made, place, images(len(geometry.channels), geometry.bits), "# card\n")
    return place
