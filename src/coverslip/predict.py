"""Use a bundle: score files, folders, tables and arrays, and judge it on a labelled set.

Files are read and resized while the network works on the batch before; memory holds a few batches, however many files there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from coverslip.bundle import Bundle, find_bundle, load_bundle, self_test
from coverslip.config import DataConfig, load_config
from coverslip.data.decoding import PixelArray
from coverslip.data.inputs import list_samples
from coverslip.data.pools import Crew, in_order
from coverslip.data.sources import load_table
from coverslip.data.streaming import Decoder, PixelsOrReason, Sample, SampleReader, pixels_or_reason
from coverslip.errors import BadImagesError, InputError
from coverslip.evaluation.frames import predictions_frame
from coverslip.inference import Runtime, RuntimeName, Runtimes
from coverslip.models.hardware import keeping_memory
from coverslip.network import SCORE_BATCH
from coverslip.runtime import Progress, cpu_count, no_progress, writing
from coverslip.storage import AT_ONCE
from coverslip.structures import File, FloatArray, Predictions, Table, Task

ImageInput = str | Path | npt.NDArray[Any]
AHEAD = 3 * SCORE_BATCH
"""Images that are read ahead of the network, at most."""


@dataclass
class Scored:
    """Scores of the images that could be read, and the reasons of those that could not.

    Attributes:
        scores: float64 (n, classes); rows of images that could not be read hold NaN.
        problems: row → reason.
        distances: float64 (n,) from the training images, NaN likewise; None where the bundle keeps none.
        digests: SHA-256 of the files of each image, as `Facts.sha256`; empty for arrays, and where they could not be read.
    """

    scores: FloatArray
    problems: dict[int, str]
    distances: FloatArray | None = None
    digests: tuple[str, ...] = ()


class Judged(NamedTuple):
    """A labelled set, scored.

    Attributes:
        predictions: with targets in the bundle's class order.
        table: their table.
        problems: image → reason of those left out.
        digests: SHA-256 of the files of each row, as `Facts.sha256`.
    """

    predictions: Predictions
    table: Table
    problems: dict[str, str]
    digests: tuple[str, ...]


class Model:
    """A bundle that is ready to predict.

    Args:
        path: a bundle, or a run folder with one; also its URL, or `hf://owner/name` of the Hugging Face hub.
        device: `auto`, `cpu` or `gpu`.
        runtime: `torch`, `onnx`, `openvino`, or `auto` for the fastest on this machine (see `inference.choice`).
        check: score the stored sample first, and refuse a bundle that does not reproduce itself.

    Raises:
        MissingInputError: no bundle there.
        BundleError: the bundle is damaged, or fails its self-test.
        ConfigError: a device that is not there, or that the runtime cannot use.
    """

    def __init__(self, path: str | Path, *, device: str = "auto", runtime: RuntimeName = "auto", check: bool = True) -> None:
        self.folder = find_bundle(path)
        self.bundle: Bundle = load_bundle(self.folder, device=device, precision="32")
        if check:
            self_test(self.bundle, self.folder)
        self._runtimes = Runtimes(self.bundle, self.folder, runtime)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the scores."""
        return self.bundle.classes

    def runtime(self, images: int | None = None) -> Runtime:
        """The engine for so many images, or for any number of them when None: then `auto` may take some seconds to choose.

        Raises:
            MissingExtraError: the engine that was asked for is not installed.
            ExportError: the model cannot run on it, or gives other scores there.
        """
        return self._runtimes.runtime(images)

    def read(self, item: Sample) -> PixelArray:
        """Stored pixels, (height, width, channels) of the bundle, of the files of a sample or of an array: what a `Runtime` scores.

        Raises:
            ImageReadError: it cannot be used.
        """
        if isinstance(item, np.ndarray):
            return self.bundle.network.geometry.apply(self.bundle.reading.of_array(item))
        return self.bundle.read(item)

    def predict(self, inputs: ImageInput | Sequence[ImageInput], progress: Progress = no_progress) -> pd.DataFrame:
        """Predict images.

        Args:
            inputs: paths of files, folders and tables, or arrays uint8 / uint16 (h, w), (h, w, 3) or (h, w, 4).
            progress: told about each batch.

        Returns:
            One row an image in the order of the input: `image`, `p_<class>`..., `predicted`, `uncertain`, `error`. An
            image that cannot be read has empty scores, and its reason in `error`.

        Raises:
            MissingInputError: a path does not exist.
        """
        paths, names = self._expand(inputs)
        return self._frame(names, self.score(paths, progress))

    def list_samples(self, inputs: Sequence[str | Path]) -> tuple[list[tuple[File, ...]], list[str]]:
        """The files of each sample behind files, folders and tables, in order, and their names.

        Raises:
            MissingInputError: a path does not exist.
        """
        return list_samples(inputs, self.data_config())

    def predict_samples(self, samples: Sequence[Sample], names: Sequence[str], progress: Progress = no_progress) -> pd.DataFrame:
        """Predict samples that were listed before; as `predict`."""
        return self._frame(names, self.score(samples, progress))

    def predict_proba(self, inputs: Sequence[ImageInput], progress: Progress = no_progress) -> FloatArray:
        """Probabilities, float64 (n, classes).

        Raises:
            BadImagesError: an image cannot be read.
        """
        paths, names = self._expand(inputs)
        scored = self.score(paths, progress)
        if scored.problems:
            raise BadImagesError({names[row]: reason for row, reason in scored.problems.items()})
        return scored.scores

    def score(self, inputs: Sequence[Sample], progress: Progress = no_progress) -> Scored:
        """Probabilities of files or arrays, in order, in bounded memory."""
        scores = np.full((len(inputs), len(self.classes)), np.nan)
        runtime = self.runtime(len(inputs))
        distances = np.full(len(inputs), np.nan)
        problems: dict[int, str] = {}
        digests = [""] * len(inputs)
        rows: list[int] = []
        batch: list[PixelArray] = []

        def flush() -> None:
            if batch:
                scores[rows], features = runtime.scores_and_features(np.stack(batch))
                if features is not None and self.bundle.neighbours is not None:
                    distances[rows] = self.bundle.neighbours.distances(features)
                batch.clear()
                rows.clear()

        with keeping_memory(self.bundle.network.device):
            for row, result in enumerate(self._pixels(inputs)):
                if isinstance(result, str):
                    problems[row] = result
                else:
                    rows.append(row)
                    batch.append(result[0])
                    digests[row] = result[1]
                if len(batch) == SCORE_BATCH:
                    flush()
                    progress("predicting", row + 1, len(inputs), {})
            flush()
        progress("predicting", len(inputs), len(inputs), {})
        return Scored(scores, problems, None if self.bundle.neighbours is None else distances, tuple(digests))

    def _pixels(self, inputs: Sequence[Sample]) -> Iterator[PixelsOrReason]:
        """Stored pixels and SHA-256 of each input in order, or the reason why there are none; at most a few batches ahead."""
        first, reader = inputs[0] if len(inputs) else (), SampleReader(self.bundle.reading, self.bundle.network.geometry)
        if isinstance(first, np.ndarray) or all(isinstance(file, Path) for file in first):
            return Crew(partial(pixels_or_reason, reader, reader), len(inputs)).in_order(inputs, AHEAD)
        decode = Decoder(reader.reading, reader.geometry, cpu_count())
        return in_order(partial(pixels_or_reason, reader, decode.read_with_facts), inputs, AT_ONCE, AHEAD)

    def _frame(self, names: Sequence[str], scored: Scored) -> pd.DataFrame:
        readable = np.nan_to_num(scored.scores, nan=0.0)
        decided = self.bundle.decide(readable)
        doubt = self.bundle.uncertain(readable, decided, scored.distances)
        predictions = Predictions(tuple(names), readable, decided, self.classes, self.bundle.task, uncertain=doubt)
        frame = predictions_frame(predictions)
        frame["error"] = [scored.problems.get(row, "") for row in range(len(names))]
        bad = list(scored.problems)
        frame.loc[bad, [f"p_{name}" for name in self.classes]] = np.nan
        frame.loc[bad, ["predicted", "uncertain"]] = ""
        return frame

    def judge(self, data: str | Path, progress: Progress = no_progress, settings: Mapping[str, Any] | None = None) -> Judged:
        """Score a labelled set that the model has not seen.

        Args:
            data: folder of class folders, or a table with an image and a label column.
            progress: told about each batch.
            settings: keys of the sections `data` and `split`, e.g. `{"split": {"group": "patient"}}`.

        Raises:
            InputError: a class that the bundle does not know.
            ConfigError: an unknown key or a wrong value.
        """
        config = load_config(self._own_keys(), settings or {}, {"data": {"path": str(data)}})
        table = load_table(config.data, config.split, known_classes=self.classes)
        scored = self.score(table.samples, progress)
        problems = {table.images[row]: reason for row, reason in scored.problems.items()}
        kept = np.array([row not in scored.problems for row in range(len(table))])
        if not kept.any():
            raise BadImagesError(problems, "Not one image could be read.")
        table, scores = table.take(kept), scored.scores[kept]
        decided = self.bundle.decide(scores)
        doubt = self.bundle.uncertain(scores, decided, None if scored.distances is None else scored.distances[kept])
        predictions = Predictions(
            table.images, scores, decided, self.classes, self.bundle.task, table.targets, table.groups, uncertain=doubt
        )
        return Judged(predictions, table, problems, tuple(np.array(scored.digests)[kept].tolist()))

    def _own_keys(self) -> dict[str, Any]:
        """The keys of `[data]` by which the bundle reads tables, as a layer of a config."""
        return {"data": self.bundle.provenance.get("data", {})}

    def data_config(self) -> DataConfig:
        """How the bundle reads tables and names the files of a sample."""
        return load_config(self._own_keys()).data

    def _expand(self, inputs: ImageInput | Sequence[ImageInput]) -> tuple[list[Sample], list[str]]:
        """Files behind paths, in order, with their names; arrays stand for themselves."""
        items: Iterable[ImageInput] = [inputs] if isinstance(inputs, (str, Path, np.ndarray)) else inputs
        found: list[Sample] = []
        names: list[str] = []
        for number, item in enumerate(items):
            if isinstance(item, np.ndarray):
                found.append(item)
                names.append(str(number))
                continue
            files, labels = list_samples([item], self.data_config())
            found += files
            names += labels
        if not found:
            raise InputError("there is nothing to predict: no image was given")
        return found, names

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.bundle.network.geometry.shape[:2]))
        return f"Model({self.bundle.provenance.get('backbone', '')} at {shape}: {', '.join(self.classes)})"


def submission(frame: pd.DataFrame, model: Model) -> pd.DataFrame:
    """Predictions as competitions want them: `Id`, and in `Predicted` class numbers with spaces between.

    Numbers count from 0 into the class list that the model was trained with (`data.classes`), also where it looks at some of them
    only; into the model's own classes where no list was stated.

    Args:
        frame: what `Model.predict` gave.
        model: the model that gave it.

    Raises:
        InputError: a class of the model, such as a merged one, has no number in the list.
    """
    stated = model.bundle.provenance.get("data", {}).get("classes") or list(model.classes)
    number = {name: str(place) for place, name in enumerate(stated)}
    without = [name for name in model.classes if name not in number]
    if without:
        raise InputError(f"{', '.join(without)}: no such class among the {len(stated)} of data.classes, so it has no number to submit")
    several = model.bundle.task is Task.MULTILABEL
    said = [filter(None, text.split("|")) if several else filter(None, [text]) for text in frame["predicted"]]
    return pd.DataFrame({"Id": frame["image"], "Predicted": [" ".join(number[name] for name in names) for names in said]})


def write_table(frame: pd.DataFrame, out: Path) -> Path:
    """Write predictions as CSV or Parquet by the suffix, or as predictions.csv into a folder; whole or not at all.

    Raises:
        InputError: another suffix.
        ResourceError: the place cannot be written.
    """
    if not out.suffix:
        out = out / "predictions.csv"
    if out.suffix.lower() not in (".csv", ".parquet"):
        raise InputError(f"--out {out}: expected a name that ends in .csv or .parquet, or a folder")
    with writing(out) as temporary:
        if out.suffix.lower() == ".csv":
            frame.to_csv(temporary, index=False, lineterminator="\n")
        else:
            frame.to_parquet(temporary, index=False)
    return out


def load(path: str | Path, *, device: str = "auto", runtime: RuntimeName = "auto") -> Model:
    """Open a bundle or a run folder for prediction."""
    return Model(path, device=device, runtime=runtime)
