"""What a model remembers of its training images: its neighbours, and which images are unlike all of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from coverslip.data.geometry import WHOLE
from coverslip.explain.overlay import picture_of
from coverslip.neighbours import FEWEST, Neighbours, thumbnail
from coverslip.preparing import Prepared
from coverslip.structures import IntArray
from coverslip.training.fit import Fitted

MOST = 1000
"""Training images that a bundle keeps at most."""
REFERENCE = 400
"""Validation images whose distances say what is far, at most."""


def find_neighbours(data: Prepared, fitted: Fitted) -> Neighbours | None:
    """The training images as the model sees them, with distances that say what is far; None where the config leaves them out.

    What is far is measured on the validation part. Where that is too small or was trained on, as after folds, it is measured on the
    training images themselves, each without those that are tied to it.
    """
    if data.config.bundle.neighbours == "none":
        return None
    rows = remembered(data)
    found = Neighbours.of(fitted.vectors(data.samples, rows), [data.table.label_text(row) for row in rows])
    validation = evenly(data.split.rows("validation"), REFERENCE)
    if data.split.folds is None and len(validation) >= FEWEST:
        far, source = found.distances(fitted.vectors(data.samples, validation)), "validation images"
    else:
        far, source = found.own_distances(data.samples.ties[rows]), "training images among themselves"
    return replace(found, reference=np.sort(far), source=source)


def with_pictures(neighbours: Neighbours | None, data: Prepared) -> Neighbours | None:
    """The same with names and small pictures of the images, where the config allows it; for a bundle that is kept."""
    if neighbours is None or data.config.bundle.neighbours != "thumbnails":
        return neighbours
    rows = remembered(data).tolist()
    names, pictures = (data.table.images[row] for row in rows), (_thumbnail(data, row) for row in rows)
    return replace(neighbours, images=tuple(names), thumbnails=tuple(pictures))


def remembered(data: Prepared) -> IntArray:
    """The rows of the training images that are kept."""
    return evenly(data.split.rows("train") if data.split.folds is None else data.split.rows("train", "validation"), MOST)


def evenly(rows: IntArray, most: int) -> IntArray:
    """At most so many of the rows, evenly spaced, so that sorted classes keep their shares."""
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)] if len(rows) > most else rows


def _thumbnail(data: Prepared, row: int) -> bytes:
    """From the stored pixels; what was squashed gets its shape back."""
    names = [channel.name for channel in data.reading.channels]
    picture = picture_of(data.pixels.read(np.array([row]))[0], names)
    facts = data.scan.facts
    squashed = data.geometry.fit == "squash" and data.geometry.box == WHOLE
    return thumbnail(picture, float(facts["width"].iloc[row]) / float(facts["height"].iloc[row]) if squashed else None)
