"""From a path to a `Table`: a folder of class folders, or a CSV or Parquet table beside its images."""

from __future__ import annotations

import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from coverslip.config import DataConfig, SplitConfig
from coverslip.data.bio import BIO_SUFFIXES
from coverslip.data.images import IMAGE_SUFFIXES
from coverslip.data.labels import LabelSet, several_labels, single_labels
from coverslip.data.patterns import Pattern, is_pattern, missing_files
from coverslip.data.reading import stated_channels
from coverslip.errors import ConfigError, InputError, MissingInputError, did_you_mean
from coverslip.structures import StrArray, Table, natural_key, natural_order

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".parquet"})
PART_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}
_CLUTTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
_SHOWN = 5


@dataclass(frozen=True)
class _Rows:
    """What a source says, before merging, order and groups: one entry a sample in each list.

    `labels` are the texts of the labels; `sets` what they hold where an image may carry several; `files` those of a sample
    where `images` does not name its only one.
    """

    root: Path
    images: list[str]
    labels: list[str]
    files: list[tuple[str, ...]] | None = None
    sets: list[LabelSet] | None = None
    preset: list[str] | None = None
    columns: Mapping[str, list[str]] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def load_table(config: DataConfig, split: SplitConfig, *, known_classes: Sequence[str] | None = None) -> Table:
    """List the samples of a data set with their labels; no image is opened.

    Args:
        config: where the data are, and what the labels mean.
        split: which column or pattern gives groups, which column gives the parts.
        known_classes: the classes of a model that is to be judged, in its order; the data may hold only some of them.

    Returns:
        n samples, classes in natural order unless `data.classes` or `data.positive` says otherwise.

    Raises:
        MissingInputError: the path, or files that the table lists, do not exist.
        InputError: the source is not what is described above; each case says what was found and what to do.
        ConfigError: `data.merge` or `split.group` contradicts itself.
    """
    path = existing_path(config.path or "")
    rows = _read_folder(path, config) if path.is_dir() else _read_table(path, config, split)
    if path.is_dir() and split.preset is not None:
        raise InputError(f"split.preset = {split.preset!r} names a column, but {path} is a folder; name folders train, validation and test")
    if rows.sets is None:
        labels = single_labels(rows.labels, config, known_classes, folder=rows.root)
    else:
        labels = several_labels(rows.sets, config, known_classes, folder=rows.root)
    groups, preset, kept = _groups(rows, split.group), rows.preset, labels.kept
    return Table(
        root=rows.root,
        images=tuple(rows.images[row] for row in kept),
        files=None if rows.files is None else tuple(rows.files[row] for row in kept),
        classes=labels.classes,
        targets=labels.targets,
        task=labels.task,
        groups=None if groups is None else groups[kept],
        preset=None if preset is None else np.array(preset, dtype=np.str_)[kept],
        ignored=rows.ignored,
        notes=(*rows.notes, *labels.notes),
    )


def existing_path(text: str | Path) -> Path:
    """A local path that exists.

    Raises:
        InputError: no path at all, or a URL.
        MissingInputError: nothing there; the near name in the same folder is offered.
    """
    if not str(text):
        raise InputError("no data given: name a folder of class folders, or a CSV or Parquet table (data.path)")
    if "://" in str(text):
        raise InputError(f"{text} is a URL; this version reads local paths only: download it first")
    path = Path(text).expanduser()
    if path.exists():
        return path
    parent = path.absolute().parent
    while not parent.is_dir():
        path, parent = parent, parent.parent
    offered = did_you_mean(path.name, [entry.name for entry in parent.iterdir()])
    raise MissingInputError(f"there is nothing at {text}.{offered} {parent} exists, {path.name} in it does not")


def file_pattern(config: DataConfig) -> Pattern | None:
    """The pattern of the files of a sample; None where a column or a folder names single files.

    Raises:
        ConfigError: the pattern cannot name files.
    """
    return Pattern(config.image, stated_channels(config)) if is_pattern(config.image) else None


def list_samples(inputs: Sequence[str | Path], config: DataConfig) -> tuple[list[tuple[Path, ...]], list[str]]:
    """Expand files, folders (with all folders inside) and CSV or Parquet tables into samples to predict.

    Args:
        inputs: paths; a file is taken as an image whatever its name, unless it is a table. Where a sample is one file a
            channel, any of its files, or its path without channel and ending, stands for it.
        config: the column that names the images, or the pattern of their files, relative to the table.

    Returns:
        The files of each sample, and a name for each: relative to the given folder or table, or as it was given. Where two
        inputs hold the same name, all names are whole paths.

    Raises:
        MissingInputError: an input does not exist.
        InputError: nothing was found, or a table has no such column.
    """
    pattern = file_pattern(config)
    found = [pair for text in inputs for pair in _expanded(text, config, pattern)]
    if not found:
        raise InputError(f"no images in {', '.join(map(str, inputs))}; expected files that end in {_suffixes()}")
    unique = {files[0].absolute(): (files, name) for files, name in reversed(found)}
    pairs = list(reversed(unique.values()))
    distinct = len({name for _, name in pairs}) == len(pairs)
    return [files for files, _ in pairs], [name if distinct else str(files[0]) for files, name in pairs]


def _expanded(text: str | Path, config: DataConfig, pattern: Pattern | None) -> list[tuple[tuple[Path, ...], str]]:
    by_channel = pattern if pattern is not None and pattern.of_channels else None
    if by_channel is not None and not Path(text).exists():
        files = by_channel.files_at(Path(text).as_posix())
        if any(Path(file).is_file() for file in files):
            return [(tuple(map(Path, files)), str(text))]
    path = existing_path(text)
    if path.is_dir():
        images = _files(path)[0]
        samples, others = by_channel.gather(images) if by_channel is not None else ([], images)
        named = [*samples, *((name, (name,)) for name in others)]
        return [(tuple(path / file for file in files), name) for name, files in named]
    if path.suffix.lower() in TABLE_SUFFIXES:
        names, own = _table_files(read_columns(path), config, path)
        return [(tuple(path.parent / file for file in files), name) for name, files in zip(names, own, strict=True) if name]
    sample = by_channel.sample_of(path.as_posix()) if by_channel is not None else None
    return [((path,), str(path)) if sample is None else (tuple(map(Path, sample[1])), str(Path(sample[0])))]


def _table_files(columns: Mapping[str, list[str]], config: DataConfig, path: Path) -> tuple[list[str], list[tuple[str, ...]]]:
    """The name and the files of each row of a table."""
    pattern = file_pattern(config)
    if pattern is not None:
        return pattern.rows(columns, path)
    names = _column(columns, config.image, path, "data.image")
    return names, [(name,) for name in names]


def _suffixes() -> str:
    return ", ".join(sorted(IMAGE_SUFFIXES | BIO_SUFFIXES))


def _files(folder: Path) -> tuple[list[str], list[str]]:
    """Images, and everything else, below a folder: relative, `/` between folders, natural order."""
    names = sorted(_walk(folder, "", frozenset()), key=lambda name: (natural_key(name), name))
    images = [name for name in names if not _is_clutter(posixpath.basename(name)) and _is_image(name)]
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
            elif not _is_clutter(entry.name):
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", above | {real})


def _is_image(name: str) -> bool:
    return posixpath.splitext(name)[1].lower() in IMAGE_SUFFIXES | BIO_SUFFIXES


def _is_clutter(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _CLUTTER


def _read_folder(root: Path, config: DataConfig) -> _Rows:
    images, ignored = _files(root)
    if not images and not any(root.iterdir()):
        raise InputError(f"{root} is empty; expected a folder of class folders")
    folders = [entry.name for entry in root.iterdir() if entry.is_dir() and not _is_clutter(entry.name)]
    parts = {name: PART_NAMES[name.casefold()] for name in folders if _is_part(root / name)}
    depth = 1 if "train" in parts.values() else 0
    if depth and len(parts) < len(folders):
        others = sorted(set(folders) - set(parts))
        raise InputError(
            f"{root} holds {', '.join(sorted(parts))}, and beside them {', '.join(others)}; expected only train, validation, test"
        )
    pieces = [name.split("/") for name in images]
    loose = {name for name, piece in zip(images, pieces, strict=True) if len(piece) < depth + 2}
    images, pieces = [name for name in images if name not in loose], [piece for piece in pieces if len(piece) >= depth + 2]
    if not images:
        found = f"{len(loose)} images that lie in no class folder" if loose else f"no file that ends in {_suffixes()}"
        raise InputError(f"{root} holds {found}; expected a folder for each class with its images inside")
    _refuse_empty_folders(root, sorted(parts) if depth else [""], {"/".join(piece[: depth + 1]) for piece in pieces})
    names, files, strangers = _gathered(root, images, config)
    pieces = [name.split("/") for name in names]
    return _Rows(
        root=root,
        images=names,
        files=files,
        labels=[piece[depth] for piece in pieces],
        preset=[parts[piece[0]] for piece in pieces] if depth else None,
        ignored=tuple(sorted([*ignored, *loose, *strangers], key=natural_key)),
        notes=(f"{len(loose)} images lie in no class folder and are not used",) if loose else (),
    )


def _gathered(root: Path, images: list[str], config: DataConfig) -> tuple[list[str], list[tuple[str, ...]] | None, list[str]]:
    """Samples of one file a channel where the config says so: their names, their files, and the images of another form.

    Raises:
        InputError: no image has that form.
        MissingInputError: a sample lacks a channel.
    """
    pattern = file_pattern(config)
    if pattern is None or not pattern.of_channels:
        return images, None, []
    samples, strangers = pattern.gather(images)
    if not samples:
        raise InputError(
            f"none of the {len(images)} images in {root}, such as {images[0]}, is of the form of data.image = {pattern.text!r}"
        )
    names, files = [name for name, _ in samples], [files for _, files in samples]
    _refuse_missing(root, names, files, config)
    return names, files, strangers


def _refuse_missing(root: Path, names: list[str], files: list[tuple[str, ...]], config: DataConfig) -> None:
    exists = {file: (root / file).is_file() for own in files for file in own}
    missing = missing_files(names, files, stated_channels(config), exists)
    if missing:
        raise MissingInputError(f"{len(missing)} of the {len(names)} images lack files: {_some(missing)}; names are relative to {root}")


def _is_part(folder: Path) -> bool:
    """Whether a folder is train, validation or test by its name and holds class folders."""
    return folder.name.casefold() in PART_NAMES and any(entry.is_dir() and not _is_clutter(entry.name) for entry in folder.iterdir())


def _refuse_empty_folders(root: Path, parents: list[str], filled: set[str]) -> None:
    entries = [entry for parent in parents for entry in (root / parent).iterdir() if entry.is_dir() and not _is_clutter(entry.name)]
    empty = [name for name in (entry.relative_to(root).as_posix() for entry in entries) if name not in filled]
    if empty:
        names = ", ".join(natural_order(empty))
        raise InputError(f"no images in the class folder {names} of {root}; expected files that end in {_suffixes()}, or remove the folder")


def read_columns(path: Path) -> dict[str, list[str]]:
    """The columns of a CSV (`,` `;` or tab between values) or Parquet table as text; what is missing is the empty string.

    Raises:
        InputError: the file is no table, or holds no rows.
    """
    try:
        frame = pd.read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as a table: {str(error).splitlines()[0]}") from error
    if frame.empty:
        raise InputError(f"the table {path} has no rows")
    return {str(name).strip(): _as_text(frame[name]) for name in frame.columns}


def _read_csv(path: Path) -> pd.DataFrame:
    data = path.read_bytes()
    try:
        data.decode("utf-8")
        encoding = "utf-8-sig"
    except UnicodeDecodeError:
        encoding = "cp1252"  # what spreadsheet programs write on Windows
    head = data.split(b"\n", 1)[0]
    separator = max((",", ";", "\t"), key=lambda mark: head.count(mark.encode()))
    return pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding=encoding, index_col=False)


def _as_text(column: pd.Series) -> list[str]:
    missing = column.isna().to_numpy()
    if pd.api.types.is_float_dtype(column) and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64")  # whole numbers that became floats because a value is missing
    return ["" if gone else str(value).strip() for gone, value in zip(missing, column, strict=True)]


def _column(columns: Mapping[str, list[str]], name: str, path: Path, key: str) -> list[str]:
    if name in columns:
        return columns[name]
    offer = f"{did_you_mean(name, columns)} Its columns: {', '.join(columns)}; say -s {key}=NAME"
    raise InputError(f"the table {path} has no column {name!r} ({key}).{offer}")


def _read_table(path: Path, config: DataConfig, split: SplitConfig) -> _Rows:
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise InputError(f"{path} is neither a folder nor a table; expected a folder of class folders, or a .csv, .tsv or .parquet file")
    columns = read_columns(path)
    images, files = _table_files(columns, config, path)
    _refuse_empty(path, "data.image", images)
    sets = _label_sets(columns, config, path)
    labels = _column(columns, config.labels, path, "data.labels") if isinstance(config.labels, str) else list(map("|".join, sets or ()))
    if sets is None:
        _refuse_empty(path, "data.labels", labels)
    _refuse_duplicates(path, images, labels)
    _refuse_missing(path.parent, images, files, config)
    preset = None if split.preset is None else _parts(_column(columns, split.preset, path, "split.preset"), path, split.preset)
    named = None if file_pattern(config) is None else files
    return _Rows(path.parent, images, labels, named, sets, preset, columns, notes=_separator_notes(labels, config))


def _refuse_empty(path: Path, key: str, values: list[str]) -> None:
    empty = [str(i + 2) for i, value in enumerate(values) if not value]
    if empty:
        raise InputError(f"{len(empty)} rows of {path} have no value in the column of {key}: lines {_some(empty)} (the head is line 1)")


def _label_sets(columns: Mapping[str, list[str]], config: DataConfig, path: Path) -> list[LabelSet] | None:
    """The labels of each row where it may carry several, else None."""
    if isinstance(config.labels, str):
        if config.separator is None:
            return None
        texts = _column(columns, config.labels, path, "data.labels")
        return [tuple(dict.fromkeys(filter(None, map(str.strip, text.split(config.separator))))) for text in texts]
    marks = {name: _column(columns, name, path, "data.labels") for name in config.labels}
    wrong = [f"{name} {value!r}" for name, values in marks.items() for value in sorted(set(values) - {"0", "1"})]
    if wrong:
        raise InputError(f"the columns of data.labels in {path} hold {_some(wrong)}; expected 0 or 1 in every row, one column a class")
    return [tuple(name for name in marks if marks[name][row] == "1") for row in range(len(next(iter(marks.values()))))]


def _separator_notes(labels: list[str], config: DataConfig) -> tuple[str, ...]:
    """A hint where one label looks like several."""
    if config.separator is not None or not isinstance(config.labels, str):
        return ()
    for mark in ("|", ";", ","):
        joined = sum(mark in label for label in labels)
        if joined > 0.1 * len(labels):
            return (
                f"{joined} labels hold {mark!r} and are taken as they stand; for several labels an image say data.separator = {mark!r}",
            )
    return ()


def _parts(values: list[str], path: Path, column: str) -> list[str]:
    unknown = sorted({value for value in values if value.casefold() not in PART_NAMES})
    if unknown:
        raise InputError(
            f"the column {column!r} of {path} holds {_some(map(repr, unknown))}; expected train, validation or test in every row"
        )
    return [PART_NAMES[value.casefold()] for value in values]


def _refuse_duplicates(path: Path, images: list[str], labels: list[str]) -> None:
    found: dict[str, set[str]] = {}
    counts = Counter(posixpath.normpath(image) for image in images)
    for image, label in zip(images, labels, strict=True):
        if counts[posixpath.normpath(image)] > 1:
            found.setdefault(posixpath.normpath(image), set()).add(label)
    torn = [f"{image} ({', '.join(natural_order(names))})" for image, names in found.items() if len(names) > 1]
    if torn:
        raise InputError(
            f"{len(torn)} images stand under two labels in {path}: {_some(torn)}; one image has one label, remove the wrong rows"
        )
    if found:
        raise InputError(f"{len(found)} images are listed more than once in {path}: {_some(found)}; remove the repeated rows")


def _some(names: Sequence[str] | Mapping[str, object] | Iterator[str]) -> str:
    listed = list(names)
    rest = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _groups(rows: _Rows, group: str | None) -> StrArray | None:
    if group is None:
        return None
    if not group.startswith("regex:"):
        if not rows.columns:
            raise InputError(
                f"split.group = {group!r} names a column, but {rows.root} is a folder; say regex:PATTERN for a part of the file name"
            )
        return np.array(_column(rows.columns, group, rows.root, "split.group"), dtype=np.str_)
    try:
        pattern = re.compile(group.removeprefix("regex:"))
    except re.error as error:
        raise ConfigError(f"split.group = {group!r} is not a regular expression: {error}") from error
    matches = [pattern.search(posixpath.basename(image)) for image in rows.images]
    found = [None if match is None else match.group(min(1, pattern.groups)) for match in matches]
    strangers = [image for image, name in zip(rows.images, found, strict=True) if name is None]
    if strangers:
        raise InputError(f"{len(strangers)} of {len(found)} file names do not match split.group = {group!r}: {_some(strangers)}")
    return np.array(found, dtype=np.str_)
