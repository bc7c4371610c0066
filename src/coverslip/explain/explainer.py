"""One image and a model in, the explanation of a label out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr
from torch import Tensor

from coverslip.bundle import Bundle
from coverslip.config import DataConfig, load_config
from coverslip.data.decoding import ImageReadError, PixelArray
from coverslip.data.inputs import list_samples
from coverslip.errors import BadImagesError, InputError, did_you_mean
from coverslip.explain.gradcam import MapForm, NoMapError, grad_cam, map_form
from coverslip.explain.hiding import WINDOWS, Hiding, channel_parts, hide_region, highlighted, occlusion
from coverslip.explain.log_odds import log_odds
from coverslip.explain.overlay import Picture, overlay, picture_of, png
from coverslip.explain.placing import Map, to_image, to_size
from coverslip.models.classifier import Classifier
from coverslip.models.groups import GroupedClassifier, members_of
from coverslip.neighbours import Near
from coverslip.structures import File, FloatArray, Task

Check = Literal["none", "quick", "full"]
SHOWN = 6
"""Neighbours of an image that are named."""

Source = str | Path | tuple[File, ...] | npt.NDArray[Any]
"""A path, the files of a sample (one a channel), or pixels."""


class HasBundle(Protocol):
    """What holds a bundle, such as `predict.Model`."""

    bundle: Bundle


@dataclass(frozen=True)
class Explanation:
    """Why a model gives an image the score of a label.

    Maps are float32 (h, w) at the size of the image that was given, in log-odds of the label.

    Attributes:
        image: the name of the image.
        label: what is explained.
        score: its calibrated probability, in [0, 1], as `predict` gives it.
        predicted: the classes that are predicted: one, or any number where an image may carry several.
        map: where the image speaks for the label, 0 and above, by `method`.
        method: `gradcam`; `occlusion` for a network that has no feature map, or whose answer does not depend on it.
        check: what hiding each place takes from the label, below 0 where it speaks against it; None where it was not asked for.
        agreement: rank correlation (Spearman) of `map` with `check`, in [-1, 1]; None without a check, or where one of them is flat.
        hiding: what hiding the highest tenth of `map` does to the score, against hiding as much elsewhere; None where it was not asked
            for, or where nothing speaks for the label.
        channels: what each channel adds to the log-odds of the label (Shapley values); empty for grey and RGB images.
        channel_maps: what hiding each place in one channel takes from the label, by channel; empty like `channels`, and without a
            full check.
        channel_pictures: each channel for people, as `picture`; empty for grey and RGB images.
        picture: uint8 (h, w, 3), the image for people, at most 1,024 pixels a side.
        neighbours: the training images that look most like it to the model, nearest first; empty where the bundle keeps none.
        distance: of the image from the training images, 0 and above; None where the bundle keeps none.
        distance_text: what that distance says, in words.
        uncertain: `no`, or what is in doubt: `score`, `unlike`, or both with `|` between; empty where nothing is calibrated.
    """

    image: str
    label: str
    score: float
    predicted: tuple[str, ...]
    map: Map
    method: str
    picture: Picture = field(repr=False)
    check: Map | None = None
    agreement: float | None = None
    hiding: Hiding | None = None
    channels: dict[str, float] = field(default_factory=dict)
    channel_maps: dict[str, Map] = field(default_factory=dict, repr=False)
    channel_pictures: dict[str, Picture] = field(default_factory=dict, repr=False)
    neighbours: tuple[Near, ...] = ()
    distance: float | None = None
    distance_text: str = ""
    uncertain: str = ""

    @property
    def overlay(self) -> bytes:
        """The image with `map` over it, as a PNG file; a line goes around the highest tenth."""
        return png(overlay(self.picture, self.map))

    @property
    def check_overlay(self) -> bytes | None:
        """The image with `check` over it, as a PNG file."""
        return None if self.check is None else png(overlay(self.picture, self.check))

    @property
    def plain(self) -> bytes:
        """The image itself, as a PNG file."""
        return png(self.picture)


@dataclass(frozen=True)
class _Look:
    """An image on its way through the model."""

    name: str
    pixels: PixelArray
    batch: Tensor
    picture: Picture
    size: tuple[int, int]
    channel_pictures: dict[str, Picture]


class Explainer:
    """Explains what a model says of single images. May be used by several threads; they take turns.

    Args:
        model: a bundle, or what holds one (`coverslip.load(...)`).
        windows: that are hidden along each side of an image, for the check; 2 or more.

    Raises:
        ValueError: fewer windows.
    """

    def __init__(self, model: Bundle | HasBundle, *, windows: int = WINDOWS) -> None:
        if windows < 2:
            raise ValueError(f"windows = {windows}; expected 2 or more along each side")
        self.bundle: Bundle = model if isinstance(model, Bundle) else model.bundle
        self.windows = windows
        self._lock = threading.Lock()
        network = self.bundle.network
        network.classifier.eval()
        self._members = members_of(network.classifier)
        empty = torch.zeros(1, *(network.geometry.shape[place] for place in (2, 0, 1)), device=network.device)
        self._forms = [_form(member, empty) for member in self._members]

    def explain(self, image: Source, label: str | None = None, *, check: Check = "full") -> Explanation:
        """Explain one label of one image.

        Args:
            image: a path; the files of a sample; or pixels as `Model.predict` takes them.
            label: a class; when None the predicted one, of several the one with the highest score.
            check: `quick` also hides the highlighted region and single channels (some 20 forward passes); `full`, every window too (at
                least windows² passes, and as many again for each channel of several); `none`, neither.

        Raises:
            MissingInputError: the path does not exist.
            InputError: no such class, or the path holds several images.
            BadImagesError: the image cannot be read.
        """
        return self.explain_labels(image, None if label is None else [label], check=check)[0]

    def explain_labels(
        self, image: Source, labels: Sequence[str] | None = None, *, check: Check = "full", name: str = ""
    ) -> list[Explanation]:
        """Explain some labels of one image; what hides the image is done once for all of them.

        Args:
            image: as in `explain`.
            labels: classes; when None those that are predicted, the highest score first, or the nearest where there are none.
            check: as in `explain`.
            name: what the image is called; taken from the path when empty.
        """
        asked = None if labels is None else [self._column(label) for label in labels]
        look = self._look(image, name)
        with self._lock:
            return self._explained(look, asked, check)

    def _explained(self, look: _Look, asked: list[int] | None, check: Check) -> list[Explanation]:
        bundle, several = self.bundle, self.bundle.task is Task.MULTILABEL
        scores, likeness = self._scored(look)
        said = bundle.decide(scores)[0]
        predicted = np.flatnonzero(said) if several else np.atleast_1d(said)
        order = np.argsort(-scores[0], kind="stable")
        columns = asked if asked is not None else [int(c) for c in order if c in predicted] or [int(order[0])]
        seen = self._maps(look.batch, columns)
        full = check == "full"
        hidden = occlusion(self._odds, look.batch, self.windows)[columns] if full or any(one is None for one in seen) else None
        maps = [one if one is not None else np.maximum(self._needed(hidden)[number], 0) for number, one in enumerate(seen)]
        channels = tuple(look.channel_pictures) if check != "none" else ()
        parts = channel_parts(self._odds, look.batch)[columns] if channels else None
        by_channel = {
            name: occlusion(self._odds, look.batch, self.windows, place)[columns] for place, name in enumerate(channels if full else ())
        }
        found = []
        for number, column in enumerate(columns):
            checked = hidden[number] if full and hidden is not None else None
            found.append(
                Explanation(
                    image=look.name,
                    label=bundle.classes[column],
                    score=float(scores[0, column]),
                    predicted=tuple(bundle.classes[c] for c in order if c in predicted),
                    map=self._placed(maps[number], look),
                    method="occlusion" if seen[number] is None else "gradcam",
                    picture=look.picture,
                    check=None if checked is None else self._placed(checked, look),
                    agreement=None if checked is None or seen[number] is None else agreement(maps[number], checked, self.windows),
                    hiding=self._hiding(look, maps[number], column) if check != "none" else None,
                    channels={} if parts is None else dict(zip(channels, parts[number].tolist(), strict=True)),
                    channel_maps={channel: self._placed(each[number], look) for channel, each in by_channel.items()},
                    channel_pictures=look.channel_pictures,
                    **likeness,
                )
            )
        return found

    def _scored(self, look: _Look) -> tuple[FloatArray, dict[str, Any]]:
        """Calibrated scores (1, classes), and what the training images say of the image: fields of an explanation."""
        bundle, near = self.bundle, self.bundle.neighbours
        if near is None:
            scores = bundle.scores([look.pixels[None]])
            distances, likeness = None, {}
        else:
            raw, features = bundle.network.scores_and_features([look.pixels[None]])
            scores, distances = bundle.calibrated(raw), near.distances(features)
            far = float(distances[0])
            likeness = {"neighbours": tuple(near.about(features[0], SHOWN)), "distance": far, "distance_text": near.text(far)}
        doubt = bundle.uncertain(scores, bundle.decide(scores), distances)
        return scores, likeness | {"uncertain": "" if doubt is None else str(doubt[0])}

    def hiding(self, image: Source, values: Map, label: str) -> Hiding | None:
        """What hiding the highest tenth of any map does to the score of a label; None where no value is above 0.

        Args:
            image: as in `explain`.
            values: float32 (h, w) that covers what the network looks at, at any size.
            label: a class.
        """
        look, column = self._look(image, ""), self._column(label)
        with self._lock:
            return self._hiding(look, values, column)

    def _maps(self, batch: Tensor, columns: Sequence[int]) -> list[Map | None]:
        """Grad-CAM of each label; None where the network has no feature map, or where none reaches its answer on the label."""
        return [self._map(batch, column) for column in columns]

    def _map(self, batch: Tensor, column: int) -> Map | None:
        """That of the member that scores the label; the mean of them where there are several."""
        found: list[Map] = []
        for member, place in self._homes(column):
            form = self._forms[member]
            if form is not None:
                with suppress(NoMapError):
                    found.append(grad_cam(self._members[member], form, batch, [place], several=self.bundle.task is Task.MULTILABEL)[0])
        return None if not found else found[0] if len(found) == 1 else np.mean(found, axis=0)

    def _homes(self, column: int) -> list[tuple[int, int]]:
        """The members that score a label, and the label's place in each."""
        classifier = self.bundle.network.classifier
        if not isinstance(classifier, GroupedClassifier):
            return [(0, column)]
        return [(number, group.index(column)) for number, group in enumerate(classifier.columns) if column in group]

    def _odds(self, batch: Tensor) -> FloatArray:
        logits = self.bundle.network.logits(batch)
        return log_odds(logits, several=self.bundle.task is Task.MULTILABEL).double().cpu().numpy()

    def _probability(self, batch: Tensor) -> FloatArray:
        network = self.bundle.network
        return self.bundle.calibrated(network.probabilities(network.logits(batch)).cpu().numpy())

    def _hiding(self, look: _Look, values: Map, column: int) -> Hiding | None:
        region = highlighted(to_size(values, *look.batch.shape[2:]))
        if not region.any():
            return None
        return hide_region(lambda batch: self._probability(batch)[:, column], look.batch, region, seed=0)

    def _placed(self, values: Map, look: _Look) -> Map:
        return to_image(values, self.bundle.network.geometry, *look.size)

    @staticmethod
    def _needed(hidden: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32]:
        assert hidden is not None
        return hidden

    def _column(self, label: str) -> int:
        classes = self.bundle.classes
        if label not in classes:
            raise InputError(f"the model knows no class {label!r}.{did_you_mean(label, classes)} Classes: {', '.join(classes)}")
        return classes.index(label)

    def _look(self, source: Source, name: str) -> _Look:
        bundle = self.bundle
        files: tuple[File, ...] = ()
        if isinstance(source, (str, Path)):
            samples, names = list_samples([source], data_config(bundle))
            if len(samples) != 1:
                raise InputError(f"{source} holds {len(samples)} images; give one, or use `coverslip explain`")
            files, name = samples[0], name or names[0]
        elif isinstance(source, tuple):
            files, name = source, name or str(source[0])
        try:
            decoded = bundle.reading.of_array(source) if isinstance(source, np.ndarray) else bundle.reading.read(files)[0]
            pixels = bundle.network.geometry.apply(decoded)
        except ImageReadError as error:
            raise BadImagesError({name or "the array": str(error)}) from error
        except OSError as error:
            raise BadImagesError({name: error.strerror or type(error).__name__}) from error
        names = [channel.name for channel in bundle.reading.channels]
        alone = {one: picture_of(decoded[..., [place]], [one]) for place, one in enumerate(names) if len(names) > 1}
        size = (decoded.shape[0], decoded.shape[1])
        return _Look(name, pixels, bundle.network.batch(pixels[None]), picture_of(decoded, names), size, alone)


def _form(member: Classifier, image: Tensor) -> MapForm | None:
    try:
        return map_form(member.backbone.network, image)
    except NoMapError:
        return None


def agreement(first: Map, second: Map, windows: int) -> float | None:
    """Rank correlation of two maps, each brought to windows x windows places first; None where one of them is flat."""
    one, other = (to_size(values, windows, windows).ravel() for values in (first, second))
    if np.ptp(one) <= 1e-12 or np.ptp(other) <= 1e-12:
        return None
    return float(spearmanr(one, other).statistic)


def data_config(bundle: Bundle) -> DataConfig:
    """How the bundle finds the files of a sample."""
    return load_config({"data": bundle.provenance.get("data", {})}).data
