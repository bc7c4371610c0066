"""The models of a server: named on the command line, opened in the background, described for clients."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coverslip.bundle import find_bundle
from coverslip.config import load_config
from coverslip.data.patterns import Pattern
from coverslip.data.reading import FileContent
from coverslip.data.sources import file_pattern
from coverslip.errors import InputError, did_you_mean
from coverslip.explain import Explainer
from coverslip.inference import RuntimeName
from coverslip.predict import Model
from coverslip.repositories import is_address, parse_address
from coverslip.serve import explaining
from coverslip.serve.answers import LimitsBody, ModelBody, Prediction, Thresholds
from coverslip.serve.engine import BundleEngine, Engine
from coverslip.serve.limits import Limits
from coverslip.serve.refusals import Refusal
from coverslip.serve.samples import Named, gather_samples
from coverslip.serve.worker import Outcome
from coverslip.storage import URL, is_url, place
from coverslip.structures import FloatArray, IntArray, Task


def name_bundles(texts: Sequence[str]) -> dict[str, Path]:
    """Name → folder from `NAME=BUNDLE` or `BUNDLE`, which is called as its folder, or as the run folder that it lies in.

    Raises:
        MissingInputError: no bundle there.
        InputError: a name is empty, or stands for two bundles.

    >>> name_bundles([])
    Traceback (most recent call last):
    coverslip.errors.InputError: there is nothing to serve: name a bundle or a run folder
    """
    if not texts:
        raise InputError("there is nothing to serve: name a bundle or a run folder")
    named: dict[str, Path] = {}
    for text in texts:
        name, path = _split(text)
        folder = find_bundle(path)
        name = name or _name_of(path, folder)
        if name in named:
            raise InputError(f"two models are called {name!r} ({named[name]} and {folder}); say NAME=BUNDLE")
        named[name] = folder
    return named


def _split(text: str) -> tuple[str, str]:
    """Name, empty where none is given, and path."""
    name, mark, path = text.partition("=")
    if not mark or is_url(name) or Path(text).exists():
        return "", text
    if not name.strip():
        raise InputError(f"{text}: expected NAME=BUNDLE")
    return name.strip(), path


def _name_of(text: str, folder: Path) -> str:
    """The name of a bundle's folder or of its run; of one that was fetched, as its address has it."""
    if is_address(text):
        return parse_address(text).name.rpartition("/")[2]
    given = place(text)
    whole = given if isinstance(given, URL) else folder.absolute()
    return whole.parent.name if whole.name == "bundle" and whole.parent.name else whole.name


@dataclass(frozen=True)
class Served:
    """A model that is ready.

    Attributes:
        name: under which it is asked for.
        model: the bundle.
        engine: what scores for it.
        body: its description for clients.
        pattern: by which its samples of several files are named.
        explainer: what shows where it saw a class.
    """

    name: str
    model: Model
    engine: Engine
    body: ModelBody
    pattern: Pattern | None
    explainer: Explainer

    def samples(self, parts: Sequence[FileContent]) -> list[Named]:
        """The samples of a request."""
        return gather_samples(parts, self.model.bundle.reading.channels, self.pattern)

    def predictions(self, samples: Sequence[Named], outcomes: Sequence[Outcome]) -> list[Prediction]:
        """Probabilities and decisions as they are answered, in order."""
        scored = [
            (sample, outcome.scores, outcome) for sample, outcome in zip(samples, outcomes, strict=True) if outcome.scores is not None
        ]
        found: dict[int, Prediction] = {}
        if scored:
            scores = np.stack([row for _, row, _ in scored])
            decided = self.model.bundle.decide(scores)
            doubts = uncertainties(self.model, scores, decided, [outcome.distance for _, _, outcome in scored])
            for place, (sample, row, outcome) in enumerate(scored):
                found[id(outcome)] = Prediction(
                    image=sample.name,
                    probabilities={name: float(f"{value:.7g}") for name, value in zip(self.model.classes, row.tolist(), strict=True)},
                    decision=self._labels(decided[place]),
                    uncertain=doubts[place],
                    thumbnail=outcome.look,
                )
        return [
            found.get(id(outcome)) or Prediction(image=sample.name, error=outcome.problem)
            for sample, outcome in zip(samples, outcomes, strict=True)
        ]

    def _labels(self, decided: IntArray) -> list[str]:
        """The names of a class index, or of a row of 0 and 1."""
        codes = np.flatnonzero(decided) if self.model.bundle.task is Task.MULTILABEL else np.atleast_1d(decided)
        return [self.model.classes[code] for code in codes.tolist()]


def uncertainties(model: Model, scores: FloatArray, decided: IntArray, distances: Sequence[float | None]) -> list[str | None]:
    """What is in doubt about each prediction, as `predict` has it in `uncertain`; None where the bundle holds nothing that could tell.

    Args:
        model: what scored.
        scores: float64 (n, classes), calibrated.
        decided: what the model decides on them.
        distances: of each image from the training images, where they are known.
    """
    known = [distance for distance in distances if distance is not None]
    found = model.bundle.uncertain(scores, decided, np.array(known) if len(known) == len(scores) else None)
    return [None] * len(scores) if found is None else [str(text) for text in found]


def open_model(name: str, folder: Path, device: str, runtime: RuntimeName, limits: Limits) -> Served:
    """Open a bundle and check that it reproduces itself.

    Raises:
        MissingInputError, BundleError: see `Model`.
    """
    model = Model(folder, device=device, runtime=runtime)
    bundle = model.bundle
    pattern = file_pattern(load_config({"data": bundle.provenance.get("data", {})}).data)
    explainer = explaining.build_explainer(bundle, limits.pixels)
    by_channel = len(bundle.reading.channels) > 1
    body = ModelBody(
        name=name,
        task=bundle.task.value,
        classes=list(model.classes),
        thresholds=_thresholds(model),
        channels=list(bundle.network.geometry.channels),
        files=[channel.source for channel in bundle.reading.channels] if by_channel else [],
        size=bundle.network.geometry.size,
        backbone=str(bundle.provenance.get("backbone", "")),
        card=_card(folder),
        weights_sha256=json.loads((folder / "model.json").read_text(encoding="utf-8"))["weights_sha256"],
        limits=LimitsBody(body_bytes=limits.body_bytes, images=limits.images, pixels=limits.pixels, seconds=limits.seconds),
    )
    return Served(name, model, BundleEngine(model, limits.pixels), body, pattern, explainer)


def _card(folder: Path) -> str:
    card = folder / "README.md"
    return card.read_text(encoding="utf-8") if card.is_file() else ""


def _thresholds(model: Model) -> Thresholds:
    decision, classes = model.bundle.decision, model.classes
    if model.bundle.task is Task.MULTICLASS:
        return Thresholds(rule="highest")
    if model.bundle.task is Task.BINARY:
        return Thresholds(rule="second_class", values={classes[1]: decision.threshold})
    values = decision.thresholds or (decision.threshold,) * len(classes)
    return Thresholds(rule="each_class", values=dict(zip(classes, values, strict=True)), at_least_one=decision.at_least_one)


class Models:
    """The models by name; empty until they are open."""

    def __init__(self) -> None:
        self._served: dict[str, Served] = {}

    def add(self, served: Served) -> None:
        """Make a model known."""
        self._served[served.name] = served

    @property
    def names(self) -> list[str]:
        """In the order of the command line."""
        return list(self._served)

    def find(self, name: str | None) -> Served:
        """The model of a name, or the only one.

        Raises:
            Refusal: 404 no such model; 422 none was named where there are several.
        """
        if name is None:
            if len(self._served) != 1:
                raise Refusal(422, f"several models are served; say which: ?model= {' or '.join(self._served)}")
            return next(iter(self._served.values()))
        if name not in self._served:
            raise Refusal(404, f"no model {name[:100]!r}.{did_you_mean(name[:100], self._served)} Served are: {', '.join(self._served)}")
        return self._served[name]
