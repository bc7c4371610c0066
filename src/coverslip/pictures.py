"""Pictures that a run keeps for its report: what the network sees, augmentation, mistakes, duplicates, suspected labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from coverslip.bundle import Bundle
from coverslip.config import RunConfig
from coverslip.data.audit import Audit
from coverslip.data.composite import channel_colours, composite
from coverslip.data.decoding import PixelArray
from coverslip.data.reading import Reading
from coverslip.data.store import Pixels
from coverslip.data.transforms import augment
from coverslip.evaluation.frames import label_texts
from coverslip.evaluation.label_errors import suspected_label_errors
from coverslip.explain.explainer import Explainer
from coverslip.explain.overlay import overlay
from coverslip.network import Network
from coverslip.preparing import Prepared
from coverslip.record import out_of_sample
from coverslip.runtime import derived_seed, write_json, writing
from coverslip.structures import Predictions, Split, Table, Task

SIDE = 256
SAMPLES = 8
AUGMENTED = 4
COPIES = 7
MISTAKES = 12
HITS = 12
PAIRS = 8
WITH_AND_WITHOUT = 4
"""Images with a class, and as many without it, of each class that an image may carry beside others."""
THUMBNAIL = 112
MISSED = 1e-3
"""Weight of labels that were missed among wrong decisions to explain: they come after those that were said."""
EXPLAINED = 4
"""Wrong decisions, and right ones, that are explained."""


@dataclass
class Album:
    """Pictures of one run, written as small PNG files with an index."""

    folder: Path
    table: Table
    reading: Reading
    entries: list[dict[str, Any]] = field(default_factory=list)
    written: dict[int, str] = field(default_factory=dict)

    def original(self, row: int) -> str:
        """A small copy of the image of a row; gives its name."""
        if row not in self.written:
            self.written[row] = self.keep(f"original-{row}", self._picture(row))
        return self.written[row]

    def thumbnail(self, row: int) -> str:
        """A thumbnail of the image of a row, at most 112 pixels on a side, as JPEG; gives its name."""
        name = f"thumbnail-{row}.jpg"
        if not (self.folder / name).exists():
            picture = _as_pillow(self._picture(row))
            picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
            picture.save(self.folder / name, quality=85)
        return name

    def keep(self, name: str, picture: PixelArray) -> str:
        """Write a picture, uint8 (h, w, 1 or 3), at most 256 pixels on a side; gives the file's name."""
        small = _as_pillow(picture)
        small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        small.save(self.folder / f"{name}.png", optimize=False)
        return f"{name}.png"

    def photograph(self, name: str, picture: PixelArray) -> str:
        """Write a picture, uint8 (h, w, 3), as JPEG, at most 256 pixels on a side; gives the file's name."""
        small = _as_pillow(picture)
        small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        small.save(self.folder / f"{name}.jpg", quality=88)
        return f"{name}.jpg"

    def as_seen(self, batch: torch.Tensor) -> list[PixelArray]:
        """Normalised float (n, c, h, w) as pictures: each stretched from its lowest to its highest value, or each channel by itself."""
        images = [one.permute(1, 2, 0).cpu().numpy() for one in batch]
        return [self._composite(image) if self.reading.channels else _stretched(image) for image in images]

    def _picture(self, row: int) -> PixelArray:
        image, _ = self.reading.read(self.table.samples[row])
        if self.reading.channels:
            return self._composite(image)
        return image if image.dtype == np.uint8 else _stretched(image)

    def _composite(self, image: PixelArray) -> PixelArray:
        return composite(image, [channel.name for channel in self.reading.channels])


def save_pictures(folder: Path, data: Prepared, model: Bundle, predictions: dict[str, Predictions]) -> None:
    """Write the folder `pictures/` of a run, whole or not at all."""
    network = model.network
    with writing(folder) as place:
        place.mkdir()
        album = Album(place, data.table, data.reading)
        if data.reading.channels:
            album.entries.append({"kind": "channels", "colours": channel_colours(data.geometry.channels)})
        _samples(album, data.split, data.pixels, network)
        if data.table.task is Task.MULTILABEL:
            _with_and_without(album, data.split)
        if data.config.augment.active:
            _augmented(album, data.split, data.pixels, network, data.config)
        _duplicates(album, data.audit)
        if predictions:
            judged = out_of_sample(predictions)
            _mistakes(album, judged)
            _label_errors(album, judged)
            kept = predictions.get("test", predictions.get("validation"))
            _explained(album, judged if kept is None else kept, model, learned=kept is None)
        write_json(place / "index.json", album.entries)


def save_judged_pictures(folder: Path, table: Table, judged: Predictions, model: Bundle) -> None:
    """Write the folder `pictures/` of an evaluation: the most confident mistakes, suspected label errors, explained cases."""
    with writing(folder) as place:
        place.mkdir()
        album = Album(place, table, model.reading)
        _mistakes(album, judged)
        _label_errors(album, judged)
        _explained(album, judged, model)
        write_json(place / "index.json", album.entries)


def save_gallery(folder: Path, table: Table, judged: Predictions, reading: Reading) -> None:
    """Write the folder `pictures/` of a comparison: what a run got wrong, most confident first, and some of what it got right."""
    with writing(folder) as place:
        place.mkdir()
        album = Album(place, table, reading)
        _mistakes(album, judged)
        _hits(album, judged)
        write_json(place / "index.json", album.entries)


def _examples(table: Table, rows: Sequence[int], most: int) -> list[int]:
    """Rows that go through the classes in turn."""
    labels = table.labels
    carries = labels == 1 if labels.ndim == 2 else labels[:, None] == np.arange(len(table.classes))
    by_class = [[row for row in rows if carries[row, code]] for code in range(len(table.classes))]
    rounds = max((len(found) for found in by_class), default=0)
    mixed = [found[turn] for turn in range(min(rounds, most)) for found in by_class if turn < len(found)]
    return list(dict.fromkeys(mixed))[:most]


def _samples(album: Album, split: Split, pixels: Pixels, network: Network) -> None:
    rows = _examples(album.table, split.rows("train").tolist(), max(SAMPLES, min(len(album.table.classes), 16)))
    seen = album.as_seen(network.batch(pixels.read(np.array(rows))))
    for row, view in zip(rows, seen, strict=True):
        entry = {"kind": "sample", "image": album.table.images[row], "label": album.table.label_text(row)}
        album.entries.append(entry | {"original": album.original(row), "network": album.keep(f"network-{row}", view)})


def _with_and_without(album: Album, split: Split) -> None:
    """A row a class: training images that carry it, and training images that do not."""
    rows = split.rows("train")
    for column, name in enumerate(album.table.classes):
        carries = album.table.labels[rows, column] == 1
        sides = [
            rows[side][np.linspace(0, side.sum() - 1, min(WITH_AND_WITHOUT, int(side.sum()))).astype(int)] for side in (carries, ~carries)
        ]
        shown, others = ([album.thumbnail(int(row)) for row in side] for side in sides)
        album.entries.append({"kind": "class", "label": name, "with": shown, "without": others})


def _augmented(album: Album, split: Split, pixels: Pixels, network: Network, config: RunConfig) -> None:
    for row in _examples(album.table, split.rows("train").tolist(), AUGMENTED):
        generator = torch.Generator().manual_seed(derived_seed("contact sheet", config.training.seed, row))
        batch = network.batch(pixels.read(np.full(COPIES, row)))
        views = album.as_seen(torch.cat([batch[:1], augment(batch, config.augment, generator)]))
        files = [album.keep(f"augmented-{row}-{number}", view) for number, view in enumerate(views)]
        album.entries.append({"kind": "augmented", "image": album.table.images[row], "label": album.table.label_text(row), "files": files})


def _duplicates(album: Album, audit: Audit) -> None:
    pairs = [(first, second, 1.0) for first, second in audit.duplicates.exact] + list(audit.duplicates.confirmed)
    for first, second, similarity in pairs[:PAIRS]:
        entry: dict[str, Any] = {"kind": "duplicate", "similarity": similarity, "files": [album.original(first), album.original(second)]}
        for side, row in (("first", first), ("second", second)):
            entry |= {side: album.table.images[row], f"{side}_label": album.table.label_text(row)}
        album.entries.append(entry)


def _mistakes(album: Album, judged: Predictions) -> None:
    """The most confident wrong decisions; with several labels, the images with the one decision that is furthest off, and its class."""
    assert judged.targets is not None
    several = judged.task is Task.MULTILABEL
    wrong = np.flatnonzero((judged.predicted != judged.targets).reshape(len(judged), -1).any(axis=1))
    if several:
        off = (np.abs(judged.scores - judged.targets) * (judged.predicted != judged.targets))[wrong]
        column, confidence = off.argmax(axis=1), off.max(axis=1, initial=0.0)
    else:
        column = judged.predicted[wrong]
        confidence = judged.scores[wrong, column]
    true, said = label_texts(judged.targets, judged.classes), label_texts(judged.predicted, judged.classes)
    place = {image: row for row, image in enumerate(album.table.images)}
    for number in np.argsort(-confidence, kind="stable")[:MISTAKES].tolist():
        row = int(wrong[number])
        entry = {"kind": "mistake", "image": judged.images[row], "label": true[row], "predicted": said[row]}
        which = {"wrong_class": judged.classes[column[number]]} if several else {}
        score = float(judged.scores[row, column[number]])
        album.entries.append(entry | which | {"score": score, "file": album.original(place[judged.images[row]])})


def _hits(album: Album, judged: Predictions) -> None:
    """Some right decisions, the classes in turn."""
    right = (judged.predicted == judged.targets).reshape(len(judged), -1).all(axis=1)
    place = {image: row for row, image in enumerate(album.table.images)}
    member = {place[judged.images[number]]: number for number in np.flatnonzero(right).tolist()}
    for row in _examples(album.table, list(member), HITS):
        said, scores = judged.predicted[member[row]], judged.scores[member[row]]
        score = float(scores[said] if judged.task is not Task.MULTILABEL else np.maximum(scores, 1 - scores).min())
        entry = {"kind": "right", "image": album.table.images[row], "label": album.table.label_text(row), "score": score}
        album.entries.append(entry | {"predicted": entry["label"], "file": album.original(row)})


def _label_errors(album: Album, judged: Predictions) -> None:
    if judged.task is Task.MULTILABEL:
        return
    place = {image: row for row, image in enumerate(album.table.images)}
    for suspect in suspected_label_errors(judged, limit=MISTAKES):
        entry = {
            "kind": "label_error",
            "image": suspect.image,
            "label": suspect.label,
            "suggestion": suspect.suggestion,
            "score": suspect.score,
        }
        album.entries.append(entry | {"file": album.original(place[suspect.image])})


def _explained(album: Album, judged: Predictions, model: Bundle, *, learned: bool = False) -> None:
    """Why the model was sure of its most confident wrong and right decisions.

    Args:
        album: where the pictures go.
        judged: labelled predictions.
        model: what made them.
        learned: whether the model learned from these images after others had been judged on them.
    """
    explainer = Explainer(model)
    place = {image: row for row, image in enumerate(album.table.images)}
    for kind, number, column in explained_cases(judged):
        row, true = place[judged.images[number]], judged.targets
        assert true is not None
        label = model.classes[column]
        found = explainer.explain_labels(album.table.samples[row], [label], check="quick", name=judged.images[number])[0]
        small = _as_pillow(found.picture)
        small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        name = f"explained-{row}-{column}"
        near = []
        for rank, one in enumerate(found.neighbours):
            file = f"{name}-near-{rank}.jpg" if one.thumbnail else ""
            if one.thumbnail:
                (album.folder / file).write_bytes(one.thumbnail)
            near.append({"label": one.label, "image": one.image, "distance": one.distance, "thumbnail": file})
        entry = {
            **{key: getattr(found, key) for key in ("image", "label", "score", "method", "channels", "uncertain", "distance_text")},
            "kind": kind,
            "true": label_texts(true[number : number + 1], judged.classes)[0],
            "predicted": label_texts(judged.predicted[number : number + 1], judged.classes)[0],
            "hiding": None if found.hiding is None else asdict(found.hiding),
            "image_file": album.original(row),
            "overlay": album.photograph(name, overlay(np.asarray(small), found.map)),
            "neighbours": near,
        }
        album.entries.append(entry | ({"held_out_score": float(judged.scores[number, column])} if learned else {}))


def explained_cases(judged: Predictions, most: int = EXPLAINED) -> list[tuple[str, int, int]]:
    """(kind, number, column) of the most confident wrong decisions, worst first, and of the most confident right ones, classes in turn.

    With several labels an image, the label is the surest of those that are said and not so, for a label that was missed has little to
    show; of images that are all right, the surest of those that are carried.
    """
    assert judged.targets is not None
    rows = np.arange(len(judged))
    if judged.task is Task.MULTILABEL:
        said, missed = judged.predicted * (1 - judged.targets), (1 - judged.predicted) * judged.targets
        off = judged.scores * said + MISSED * (1 - judged.scores) * missed
        sure = judged.scores * judged.targets * (judged.predicted == judged.targets).all(axis=1, keepdims=True)
    else:
        right = judged.predicted == judged.targets
        off, sure = np.zeros_like(judged.scores), np.zeros_like(judged.scores)
        off[rows[~right], judged.predicted[~right]] = judged.scores[rows[~right], judged.predicted[~right]]
        sure[rows[right], judged.predicted[right]] = judged.scores[rows[right], judged.predicted[right]]
    worst = [int(row) for row in np.argsort(-off.max(axis=1), kind="stable")[:most]]
    wrong = [("explained_wrong", row, int(off[row].argmax())) for row in worst if off[row].any()]
    ranked = np.argsort(-sure, axis=0, kind="stable")
    firsts: dict[int, int] = {}
    for turn in range(min(most, len(judged))):
        for column in np.argsort(-sure.max(axis=0), kind="stable").tolist():
            row = int(ranked[turn, column])
            if sure[row, column] > 0:
                firsts.setdefault(row, column)
    return wrong + [("explained_right", row, column) for row, column in list(firsts.items())[:most]]


def _as_pillow(picture: PixelArray) -> Image.Image:
    return Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)


def _stretched(values: np.ndarray[Any, Any]) -> PixelArray:
    """Any numbers as uint8, from the lowest to the highest."""
    low, high = float(values.min()), float(values.max())
    return ((values.astype(np.float32) - low) * (255.0 / max(high - low, 1e-9))).round().astype(np.uint8)
