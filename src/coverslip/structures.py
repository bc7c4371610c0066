"""Frozen values that cross floors. No torch, no reading or writing of files."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
StrArray = npt.NDArray[np.str_]

PARTS = ("train", "validation", "test")


class Task(StrEnum):
    """What is asked of an image: one of two classes, one of many, or any number of classes."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    MULTILABEL = "multilabel"


@dataclass(frozen=True)
class Channel:
    """A named plane of an image.

    Attributes:
        name: what it is called here, e.g. `grey`, `red`, `nucleus`.
        source: what it is called in the files or in their names.
    """

    name: str
    source: str

    @staticmethod
    def of(*names: str) -> tuple[Channel, ...]:
        """Channels that keep the names of their source."""
        return tuple(Channel(name, name) for name in names)


GREY = Channel.of("grey")
RGB = Channel.of("red", "green", "blue")


class File(Protocol):
    """A file, wherever it lies: a path, a URL, a piece of a shard."""

    @property
    def name(self) -> str:
        """The last piece of its path."""

    @property
    def suffix(self) -> str:
        """The ending of its name, with the dot."""

    def read_bytes(self) -> bytes:
        """All of it."""


class Root(Protocol):
    """Where the files of a table lie: a folder, a URL, shards."""

    def __truediv__(self, name: str, /) -> File:
        """The file of that name."""


@dataclass(frozen=True)
class Table:
    """The samples of a data set, in the order of their source.

    Attributes:
        root: the folder, URL or shards that `images` are relative to.
        images: the name of each sample as its source writes it, `/` between folders; n of them, all different.
        classes: class names in natural order (`c2` before `c10`), or in the order that the config states.
        targets: int64 (n,) of class indices, or int64 (n, classes) of 0 and 1 when the task is multilabel;
            None when the samples carry no labels.
        task: binary, multiclass or multilabel.
        channels: the planes of a sample, in order.
        files: the files of each sample, relative to `root`, one a channel in the order of `channels`; None where a sample is one
            file, named by `images`.
        groups: str (n,), what must not straddle a split; None without groups.
        preset: str (n,) of `train`, `validation`, `test` where the source gives the split; None otherwise.
        ignored: files that are no images by their name, listed and not read.
        notes: sentences on what was merged, dropped or chosen on the way in.
    """

    root: Root
    images: tuple[str, ...]
    classes: tuple[str, ...]
    targets: IntArray | None
    task: Task
    channels: tuple[Channel, ...] = RGB
    files: tuple[tuple[str, ...], ...] | None = None
    groups: StrArray | None = None
    preset: StrArray | None = None
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def samples(self) -> list[tuple[File, ...]]:
        """The files of each sample: one, or one a channel."""
        return [tuple(self.root / name for name in names) for names in self.names]

    @property
    def names(self) -> Sequence[tuple[str, ...]]:
        """The names of the files of each sample, relative to `root`."""
        return [(image,) for image in self.images] if self.files is None else self.files

    @property
    def labels(self) -> IntArray:
        """The targets of a table that is known to have them.

        Raises:
            ValueError: the table carries no labels.
        """
        if self.targets is None:
            raise ValueError("this table carries no labels")
        return self.targets

    def take(self, rows: IntArray | BoolArray) -> Table:
        """The same table with the given rows only, in the given order."""
        index = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        return replace(
            self,
            images=tuple(self.images[i] for i in index),
            files=None if self.files is None else tuple(self.files[i] for i in index),
            targets=None if self.targets is None else self.targets[index],
            groups=None if self.groups is None else self.groups[index],
            preset=None if self.preset is None else self.preset[index],
        )

    def label_text(self, row: int) -> str:
        """The label of one row as text; several joined with `|`."""
        target = self.labels[row]
        return "|".join(self.classes[i] for i in np.flatnonzero(target)) if target.ndim else self.classes[int(target)]


@dataclass(frozen=True)
class Split:
    """Which part, and which fold, each row belongs to.

    Attributes:
        part: str (n,) of `train`, `validation`, `test`; every row exactly once.
        folds: int64 (repeats, n), the fold in which a row is scored, -1 for test rows; None without folds.
        seed: the seed that was used, drawn or given.
        method: how the split was made, in words.
        notes: messages for the user, e.g. on classes too small for every part.
    """

    part: StrArray
    seed: int
    method: str
    folds: IntArray | None = None
    notes: tuple[str, ...] = ()

    def rows(self, *parts: str) -> IntArray:
        """The rows of the named parts, in table order."""
        return np.flatnonzero(np.isin(self.part, parts)).astype(np.int64)


@dataclass(frozen=True)
class Predictions:
    """Scores of a model on some samples.

    Attributes:
        images: the name of each sample, n of them.
        scores: float64 (n, classes), probabilities in [0, 1]; rows sum to 1 unless the task is multilabel.
        predicted: int64 (n,) class indices, or (n, classes) of 0 and 1 when multilabel: the decisions.
        classes: class names in the order of the columns.
        task: binary, multiclass or multilabel.
        targets: as in `Table`, or None where labels are not known.
        groups: as in `Table`.
        uncertain: str (n,), `no` or what is in doubt (`score`, `unlike`, both with `|` between); None where that is not calibrated.
    """

    images: tuple[str, ...]
    scores: FloatArray
    predicted: IntArray
    classes: tuple[str, ...]
    task: Task
    targets: IntArray | None = None
    groups: StrArray | None = None
    uncertain: StrArray | None = None

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, repr=False)
class RunResult:
    """What a finished run left behind. Jupyter shows it as a table of its main numbers; `print` as a few lines.

    Attributes:
        folder: the run folder.
        metrics: the content of `metrics.json`.
        seconds: wall time of the whole run.
        notes: sentences on what was merged, chosen or left out on the way.
    """

    folder: Path
    metrics: dict[str, Any]
    seconds: float
    notes: tuple[str, ...] = field(default=())

    @property
    def bundle(self) -> Path:
        """The folder of the trained model."""
        return self.folder / "bundle"

    @property
    def report(self) -> Path:
        """The page of the run; there once `coverslip.report` has written it."""
        return self.folder / "report.html"

    def __repr__(self) -> str:
        return f"RunResult({str(self.folder)!r}: {headline(self.metrics).splitlines()[0]})"

    def __str__(self) -> str:
        return f"{headline(self.metrics)}\n{self._places()}"

    def _places(self) -> str:
        named = {"report": self.report, "model": self.bundle}
        return "\n".join(f"{name}: {place}" for name, place in named.items() if place.exists()) or f"folder: {self.folder}"

    def _repr_html_(self) -> str:
        """The main numbers of each part as an HTML table, and where report and model lie."""
        parts = [part for part in HEADLINE_PARTS if part in self.metrics]
        names = [name for name in TABLE_NUMBERS if any(name in self.metrics[part] for part in parts)]
        heads = [f"{HEADLINE_PARTS[part]}, {self.metrics[part]['n']} images" for part in parts]
        cells = [[number_text(self.metrics[part].get(name, {}), missing="") for part in parts] for name in names]
        head = "".join(f"<th>{html.escape(text)}</th>" for text in ("", *heads))
        rows = [
            f"<tr><th>{html.escape(name.replace('_', ' '))}</th>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for name, row in zip(names, cells, strict=True)
        ]
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        places = [_place_html("report", self.report), _place_html("model", self.bundle)]
        notes = f"<ul>{''.join(f'<li>{html.escape(note)}</li>' for note in self.notes)}</ul>" if self.notes else ""
        return f"{table if parts else f'<p>{html.escape(headline(self.metrics))}</p>'}<p>{'<br>'.join(filter(None, places))}</p>{notes}"


HEADLINE_PARTS = {"test": "test part", "folds": "cross-validation", "validation": "validation part"}
HEADLINES = ("accuracy", "macro_f1", "roc_auc")
HEADLINES_OF_SEVERAL = ("macro_f1", "micro_f1", "macro_roc_auc")
TABLE_NUMBERS = (
    "accuracy", "balanced_accuracy", "macro_f1", "micro_f1", "roc_auc", "macro_roc_auc", "macro_average_precision", "sensitivity",
    "specificity", "exact_match", "hamming_loss", "log_loss", "calibration_error",
)  # fmt: skip


def headline(metrics: dict[str, Any]) -> str:
    """The main numbers of `metrics.json` in a few lines, one a part."""
    lines = []
    names = HEADLINES_OF_SEVERAL if metrics.get("task") == Task.MULTILABEL else HEADLINES
    for part, words in HEADLINE_PARTS.items():
        if part in metrics:
            found = {name: metrics[part].get(name, {}) for name in names}
            shown = [f"{name.replace('_', ' ')} {number_text(each)}{_over(each, metrics)}" for name, each in found.items()]
            lines.append(f"{words}, {metrics[part]['n']} images: {', '.join(shown)}")
    return "\n".join(lines) or "nothing was kept apart, so there is no honest number"


def _over(number: dict[str, Any], metrics: dict[str, Any]) -> str:
    """` over 11 of 12 classes` behind a macro number that is undefined for the others."""
    classes = len(metrics.get("classes", ()))
    defined = number.get("classes_defined", classes)
    return f" over {defined} of {classes} classes" if 0 < defined < classes else ""


def number_text(number: dict[str, Any], missing: str = "undefined") -> str:
    """A number of `metrics.json` with its interval.

    >>> number_text({"value": 0.9545, "low": 0.7716, "high": 0.9988})
    '0.955 (0.772 to 0.999)'
    """
    if number.get("value") is None:
        return missing
    low, high = number.get("low"), number.get("high")
    return f"{number['value']:.3f}" + (f" ({low:.3f} to {high:.3f})" if low is not None and high is not None else "")


def _place_html(name: str, place: Path) -> str:
    """A link for a path relative to the notebook, text for any other; empty where there is nothing."""
    if not place.exists():
        return ""
    text = html.escape(place.as_posix())
    if place.is_absolute():
        return f"{name}: <code>{text}</code>"
    return f'{name}: <a href="{html.escape(quote(place.as_posix()))}">{text}</a>'


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Sort key of natural order: digits as numbers, letters without case.

    >>> sorted(["c10", "c2", "C1"], key=natural_key)
    ['C1', 'c2', 'c10']
    """
    pieces = re.split(r"(\d+)", name)
    return [(0, int(piece)) if piece.isdecimal() else (1, piece.casefold()) for piece in pieces if piece]


def natural_order(names: Iterable[str]) -> tuple[str, ...]:
    """The different names in natural order."""
    return tuple(sorted(set(names), key=lambda name: (natural_key(name), name)))


def class_counts(targets: IntArray, classes: Sequence[str]) -> IntArray:
    """int64 (classes,): how many samples carry each class."""
    if targets.ndim == 2:
        return np.asarray(targets.sum(axis=0), dtype=np.int64)
    return np.bincount(targets, minlength=len(classes)).astype(np.int64)
