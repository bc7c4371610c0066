"""The page of a study: what each kind of study says about itself is put into one frame."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coverslip.errors import RunFolderError
from coverslip.report.numbers import Shown
from coverslip.report.pictures import Picture
from coverslip.report.sections import Drawing
from coverslip.report.study.files import STUDY, read_study
from coverslip.report.templates import template
from coverslip.runtime import write_file

KINDS = ("compare", "search", "velocity")
"""Kinds of studies; each has a module here, whose function `page(folder)` reads the files (`read_study`) and gives a `Page`."""


@dataclass(frozen=True)
class Card:
    """A number that opens the page: its name, its value as text, a line under it, and the number when it can be drawn in [0, 1]."""

    name: str
    value: str
    note: str = ""
    number: Shown | None = None


@dataclass(frozen=True)
class Listing:
    """A table.

    Attributes:
        head: titles of the columns.
        rows: a text a column.
        right: numbers of the columns that are aligned to the right, from 0.
        strong: numbers of the rows that stand out, from 0.
        wide: whether it takes the whole width.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[int] = ()
    strong: Sequence[int] = ()
    wide: bool = True


@dataclass(frozen=True)
class Shot:
    """A picture of a gallery: `lines` of (text, whether it is bold) under it, then the name of its file."""

    picture: Picture
    lines: Sequence[tuple[str, bool]]
    file: str = ""


@dataclass(frozen=True)
class Block:
    """A section of the page; what is empty is left out.

    Attributes:
        title: of the section, and its entry in the contents.
        note: what a reader has to know to read it.
        figures: side by side, as far as they fit.
        table: under the figures.
        gallery: under the table.
        matrix: a confusion matrix, as `report.results.results` gives it under `confusion`, beside the figures.
    """

    title: str
    note: str = ""
    figures: Sequence[Drawing] = ()
    table: Listing | None = None
    gallery: Sequence[Shot] | None = None
    matrix: dict[str, Any] | None = None

    @property
    def anchor(self) -> str:
        """The id of the section."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower())


@dataclass(frozen=True)
class Page:
    """All that a study says.

    Attributes:
        name: of the study.
        kind: one of `KINDS`.
        headline: the result in plain sentences.
        cards: numbers that open the page.
        warnings: (`warning` or `problem`, sentence) of what a reader must know before believing the numbers.
        blocks: the sections.
        facts: (title, text) of the machine, the data, the versions.
        command: the command that made the study.
        config: what study.toml says, to be unfolded.
    """

    name: str
    kind: str
    headline: str
    cards: Sequence[Card]
    warnings: Sequence[tuple[str, str]]
    blocks: Sequence[Block]
    facts: Sequence[tuple[str, str]]
    command: str
    config: str = ""


def render(page: Page) -> str:
    """The page as HTML: one file, figures and pictures inside, no script, no outside address."""
    return template("study.html").render({name: getattr(page, name) for name in Page.__dataclass_fields__})


def is_study(folder: Path) -> bool:
    """Whether a folder is that of a study."""
    return (folder / STUDY).is_file()


def write_study_report(folder: Path) -> Path:
    """Write `report.html` into a study folder from the files that the study left there.

    Raises:
        RunFolderError: the folder is not a study, or one of its files is damaged.
        ResourceError: the disk is full or the folder cannot be written; nothing half-written stays behind.
    """
    path = folder / "report.html"
    write_file(path, render(_page_of(folder)(folder)))
    return path


def _page_of(folder: Path) -> Callable[[Path], Page]:
    kind = read_study(folder).study.get("kind")
    if kind not in KINDS:
        raise RunFolderError(f"{folder / STUDY} says kind = {kind!r}; expected one of {', '.join(KINDS)}")
    found: Callable[[Path], Page] = importlib.import_module(f"coverslip.report.study.{kind}").page
    return found
