"""Paths, folders and tables as they lie on disk: what exists, which files are images, the columns of a table as text."""

from __future__ import annotations

import codecs
import os
import posixpath
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from coverslip.data.bio import BIO_SUFFIXES
from coverslip.data.braces import has_braces
from coverslip.data.images import IMAGE_SUFFIXES
from coverslip.errors import CoverslipError, InputError, MissingInputError, did_you_mean
from coverslip.storage import URL, Place, exists, listing, local_copy, place
from coverslip.structures import natural_key

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".parquet"})
_CLUTTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
_SHOWN = 5


def existing_path(text: str | Path) -> Place:
    """A path or URL at which there is something; names of tar files in braces are taken as they are.

    Raises:
        InputError: no path at all, or a URL of a kind that is not read.
        MissingInputError: nothing there; the near name in the same folder is offered.
        UnreachableError: a store does not answer.
    """
    if not str(text):
        raise InputError("no data given: name a folder of class folders, or a CSV or Parquet table (data.path)")
    path = place(text)
    if path.suffix == ".tar" and has_braces(str(path)):
        return path
    if isinstance(path, URL):
        if not exists(path):
            raise MissingInputError(f"there is nothing at {text}; check bucket and name, and the endpoint of the store (--endpoint)")
        return path
    if path.exists():
        return path
    parent = path.absolute().parent
    while not parent.is_dir():
        path, parent = parent, parent.parent
    offered = did_you_mean(path.name, [entry.name for entry in parent.iterdir()])
    raise MissingInputError(f"there is nothing at {text}.{offered} {parent} exists, {path.name} in it does not")


def suffixes() -> str:
    """The endings of image files, in words."""
    return ", ".join(sorted(IMAGE_SUFFIXES | BIO_SUFFIXES))


def files_below(folder: Place) -> tuple[list[str], list[str]]:
    """Images, and everything else, below a folder: relative, `/` between folders, natural order."""
    found = _walk(folder, "", frozenset()) if isinstance(folder, Path) else filter(None, listing(folder))
    names = sorted(found, key=lambda name: (natural_key(name), name))
    images = [name for name in names if not is_clutter(posixpath.basename(name)) and _is_image(name)]
    taken = set(images)
    return images, [name for name in names if name not in taken]


def _walk(folder: Path, prefix: str, above: frozenset[str]) -> Iterator[str]:
    """All files below a folder. Links are followed, but never back into a folder that one is in."""
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir():
                yield prefix + entry.name
            elif not is_clutter(entry.name):
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", above | {real})


def is_folder(where: Place) -> bool:
    """Whether it is a folder; a URL is one unless it ends as a table or an image does."""
    return where.is_dir() if isinstance(where, Path) else not (where.suffix.lower() in TABLE_SUFFIXES | {".tar"} or _is_image(where.name))


def folders_in(root: Place, inside: str, names: Sequence[str]) -> list[str]:
    """The folders in a folder below `root`, without clutter; a store has those only that hold one of its `names`."""
    if isinstance(root, Path):
        found = [entry.name for entry in (root / inside).iterdir() if entry.is_dir()]
    else:
        start = f"{inside}/" if inside else ""
        found = list(
            dict.fromkeys(name[len(start) :].split("/")[0] for name in names if name.startswith(start) and "/" in name[len(start) :])
        )
    return [name for name in found if not is_clutter(name)]


def _is_image(name: str) -> bool:
    return posixpath.splitext(name)[1].lower() in IMAGE_SUFFIXES | BIO_SUFFIXES


def is_clutter(name: str) -> bool:
    """Whether a name is hidden, or what an operating system leaves in folders."""
    return name.startswith(".") or name.casefold() in _CLUTTER


def read_columns(path: Place) -> dict[str, list[str]]:
    """The columns of a CSV (`,` `;` or tab between values) or Parquet table as text; what is missing is the empty string.

    Raises:
        InputError: the file is no table, holds no rows, or rows with more values than the head names.
    """
    try:
        with local_copy(path) as file:
            frame = pd.read_parquet(file) if path.suffix.lower() == ".parquet" else _read_csv(file)
    except CoverslipError:
        raise
    except (ValueError, OSError, pd.errors.ParserWarning) as error:
        raise InputError(f"{path} cannot be read as a table: {_reason(error)}") from error
    if frame.empty:
        raise InputError(f"the table {path} has no rows")
    return {str(name).strip(): _as_text(frame[name]) for name in frame.columns}


def _read_csv(path: Path) -> pd.DataFrame:
    encoding = _encoding(data := path.read_bytes())
    head = re.split(r"[\r\n]", data.decode(encoding), maxsplit=1)[0]
    separator = max((",", ";", "\t"), key=head.count)
    read: Callable[..., pd.DataFrame]
    read = partial(pd.read_csv, path, sep=separator, dtype=str, keep_default_na=False, encoding=encoding)  # type: ignore[assignment]
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # pandas would drop what is beyond the head, with no more than a warning
        try:
            return read(index_col=False)
        except pd.errors.ParserWarning:
            names = read(index_col=False, nrows=0).columns
            wide = read().reset_index()  # which takes the first columns for an index where rows are longer than the head
            if (wide.iloc[:, len(names) :] != "").any(axis=None):
                raise
            return wide.iloc[:, : len(names)].set_axis(names, axis=1)


def _encoding(data: bytes) -> str:
    """UTF-8 or UTF-16 where the text says so, else what spreadsheet programs write on Windows."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8-sig"


def _reason(error: Exception) -> str:
    """The first line of an error of pandas; rows with more values than the head has names in words of our own."""
    said = str(error).splitlines()[0].removeprefix("Error tokenizing data. C error: ")
    if isinstance(error, pd.errors.ParserWarning) or re.match(r"Expected \d+ fields", said):
        place = re.search(r"line \d+", said)
        return (
            f"{place[0] if place else 'a line'} holds more values than there are columns in the head; put quotes around text that "
            'holds the mark between columns, such as "one,two"'
        )
    return said


def _as_text(column: pd.Series) -> list[str]:
    missing = column.isna().to_numpy()
    if pd.api.types.is_float_dtype(column) and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64")  # whole numbers that became floats because a value is missing
    return ["" if gone else str(value).strip() for gone, value in zip(missing, column, strict=True)]


def column_of(columns: Mapping[str, list[str]], name: str, path: Place, key: str) -> list[str]:
    """A column by name.

    Raises:
        InputError: there is none; the near name and all names are offered.
    """
    if name in columns:
        return columns[name]
    form = ", or a pattern of file names such as 'images/{Id}.png'" if key == "data.image" else ""
    offer = f"{did_you_mean(name, columns)} Its columns: {', '.join(columns)}; say -s {key}=NAME{form}"
    raise InputError(f"the table {path} has no column {name!r} ({key}).{offer}")


def some(names: Sequence[str] | Mapping[str, object] | Iterator[str]) -> str:
    """The first few names, and how many more there are."""
    listed = list(names)
    rest = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
