"""From a path to a `Table`: a folder of class folders, or a CSV or Parquet table beside its images."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from coverslip.config import DataConfig, SplitConfig
from coverslip.data.files import TABLE_SUFFIXES, column_of, existing_path, files_below, folders_in, is_folder, read_columns, some, suffixes
from coverslip.data.labels import LabelSet, separator_note, several_labels, single_labels
from coverslip.data.patterns import Pattern, is_pattern, missing_files
from coverslip.data.reading import stated_channels
from coverslip.data.shards import TAR, Shards
from coverslip.data.webdataset import find_shards
from coverslip.errors import ConfigError, InputError, MissingInputError, counted, did_you_mean
from coverslip.storage import Place, stats
from coverslip.structures import StrArray, Table, Task, natural_key, natural_order

PART_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}


YES, NO = frozenset({"1", "1.0", "true"}), frozenset({"0", "0.0", "false"})
"""What a column of 0 and 1 may hold, in lower case."""


@dataclass(frozen=True)
class _Rows:
    """What a source says, before merging, order and groups: one entry a sample in each list.

    `labels` are the texts of the labels; `sets` what they hold where an image may carry several; `files` those of a sample
    where `images` does not name its only one.
    """

    root: Place | Shards
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
    folder = is_folder(path)
    shards = find_shards(path, config) if folder or path.suffix == TAR else None
    rows = shard_rows(shards, split) if shards else _read_folder(path, config) if folder else _read_table(path, config, split)
    if folder and not shards and split.preset is not None:
        raise InputError(f"split.preset = {split.preset!r} names a column, but {path} is a folder; name folders train, validation and test")
    if rows.sets is None:
        labels = single_labels(rows.labels, config, known_classes, folder=rows.root)
    else:
        labels = several_labels(rows.sets, config, known_classes, folder=rows.root)
    groups, preset, kept = _groups(rows, split.group, path), rows.preset, labels.kept
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


def shard_rows(shards: Shards, split: SplitConfig) -> _Rows:
    """The samples of a set of shards, in the order in which they lie there."""
    rows = shards.rows
    sets = [tuple(map(str, labels)) for labels in rows["labels"]]
    parts, groups = rows["part"].astype(str).tolist(), rows["group"].astype(str).tolist()
    several = shards.described.get("task") == Task.MULTILABEL
    columns = {} if not any(groups) else dict.fromkeys(["group", *([split.group] if split.group else [])], groups)
    if not several and not all(len(own) == 1 for own in sets):
        bare = rows["image"].astype(str)[[len(own) != 1 for own in sets]].tolist()
        raise InputError(f"{len(bare)} samples of the shards have no label, or several: {some(bare)}; expected one each")
    return _Rows(
        root=shards,
        images=rows["image"].astype(str).tolist(),
        labels=["|".join(own) for own in sets],
        files=[tuple(map(str, files)) for files in rows["files"]],
        sets=sets if several else None,
        preset=[PART_NAMES[part.casefold()] for part in parts] if all(parts) else None,
        columns=columns,
    )


def file_pattern(config: DataConfig) -> Pattern | None:
    """The pattern of the files of a sample; None where a column or a folder names single files.

    Raises:
        ConfigError: the pattern cannot name files.
    """
    return Pattern(config.image, stated_channels(config)) if is_pattern(config.image) else None


def table_files(columns: Mapping[str, list[str]], config: DataConfig, path: Place) -> tuple[list[str], list[tuple[str, ...]]]:
    """The name and the files of each row of a table."""
    pattern = file_pattern(config)
    if pattern is not None:
        return pattern.rows(columns, path)
    names = column_of(columns, config.image, path, "data.image")
    return names, [(_with_slashes(path.parent, name),) for name in names]


def _with_slashes(root: Place, name: str) -> str:
    """A file's name as this system reads it, where a table that was written on Windows has backslashes."""
    if "\\" not in name or (isinstance(root, Path) and (root / name).is_file()):
        return name
    return name.replace("\\", "/")


def _read_folder(root: Place, config: DataConfig) -> _Rows:
    images, ignored = files_below(root)
    if not images and not ignored and not (isinstance(root, Path) and any(root.iterdir())):
        raise InputError(f"{root} is empty; expected a folder of class folders")
    folders = folders_in(root, "", images)
    parts = {name: PART_NAMES[name.casefold()] for name in folders if _is_part(root, name, images)}
    depth = 1 if "train" in parts.values() else 0
    if depth and len(parts) < len(folders):
        others = sorted(set(folders) - set(parts))
        raise InputError(
            f"{root} holds {', '.join(sorted(parts))}, and beside them {', '.join(others)}; expected only train, validation, test"
        )
    pieces = [name.split("/") for name in images]
    loose = {name for name, piece in zip(images, pieces, strict=True) if len(piece) < depth + 2}
    images, pieces = [name for name in images if name not in loose], [piece for piece in pieces if len(piece) >= depth + 2]
    table = next((name for name in ignored if "/" not in name and posixpath.splitext(name)[1].lower() in TABLE_SUFFIXES), None)
    beside = f"; it holds the table {table}: to read that, say {root / table}" if table else ""
    if not images:
        found = f"{len(loose)} images that lie in no class folder" if loose else f"no file that ends in {suffixes()}"
        raise InputError(f"{root} holds {found}; expected a folder for each class with its images inside{beside}")
    if table and len({piece[depth] for piece in pieces}) == 1:
        raise InputError(f"{root} holds the folder {pieces[0][depth]} only; expected a folder for each class{beside}")
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


def _gathered(root: Place, images: list[str], config: DataConfig) -> tuple[list[str], list[tuple[str, ...]] | None, list[str]]:
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


def _refuse_missing(root: Place, names: list[str], files: list[tuple[str, ...]], config: DataConfig) -> None:
    exists = _exist(root, list(dict.fromkeys(file for own in files for file in own)))
    if not any(exists.values()):
        shown = some(list(dict.fromkeys(files[0])))
        named = "data.image" if file_pattern(config) is None else f"data.image = {config.image!r}"
        raise MissingInputError(
            f"not one file of the {len(names)} images is there ({named}); the first would be {shown}; names are relative to {root}"
            f"{_offer_channels(root, files[0], config)}"
        )
    channels = stated_channels(config)
    missing = missing_files(names, files, channels, exists)
    if missing:
        lost = [own[place] for own in files[:1] for place in range(len(own)) if not any(exists[each[place]] for each in files)]
        offer = _offer_channels(root, tuple(lost), config)
        raise MissingInputError(
            f"{len(missing)} of the {counted(len(names), 'image')} {'lacks' if len(missing) == 1 else 'lack'} files: "
            f"{some(missing)}; names are relative to {root}{offer}"
        )


def _exist(root: Place, files: list[str]) -> dict[str, bool]:
    if isinstance(root, Path):
        return {file: (root / file).is_file() for file in files}
    found = stats([root / file for file in files])
    return {file: found[root / file] is not None for file in files}


def _offer_channels(root: Place, lost: tuple[str, ...], config: DataConfig) -> str:
    """A sentence on the channels that a sample has, for files of channels that no sample has; empty where there is nothing to say."""
    pattern = file_pattern(config)
    like = pattern.any_channel(lost[0]) if pattern is not None and pattern.of_channels and lost else None
    if like is None or not isinstance(root, Path):
        return ""
    matches = [re.fullmatch(like[1], path.relative_to(root).as_posix()) for path in root.glob(like[0])]
    found = natural_order({match["c"] for match in matches if match})
    if not found:
        return ""
    sources = [channel.source for channel in stated_channels(config)]
    wrong = next(source for source in sources if source not in found)
    return f". No image has the channel {wrong!r}.{did_you_mean(wrong, found)} The first has {', '.join(found)} (data.channels)"


def _is_part(root: Place, name: str, images: list[str]) -> bool:
    """Whether a folder is train, validation or test by its name and holds class folders."""
    return name.casefold() in PART_NAMES and bool(folders_in(root, name, images))


def _refuse_empty_folders(root: Place, parents: list[str], filled: set[str]) -> None:
    folders = [posixpath.join(parent, name) for parent in parents for name in folders_in(root, parent, sorted(filled))]
    empty = [name for name in folders if name not in filled]
    if empty:
        names = ", ".join(natural_order(empty))
        raise InputError(f"no images in the class folder {names} of {root}; expected files that end in {suffixes()}, or remove the folder")


def _read_table(path: Place, config: DataConfig, split: SplitConfig) -> _Rows:
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise InputError(f"{path} is neither a folder nor a table; expected a folder of class folders, or a .csv, .tsv or .parquet file")
    columns = read_columns(path)
    images, files = table_files(columns, config, path)
    _refuse_empty(path, "data.image", images)
    sets = _label_sets(columns, config, path)
    labels = column_of(columns, config.labels, path, "data.labels") if isinstance(config.labels, str) else list(map("|".join, sets or ()))
    if sets is None:
        _refuse_empty(path, "data.labels", labels)
    _refuse_duplicates(path, images, labels, sets)
    _refuse_missing(path.parent, images, files, config)
    preset = None if split.preset is None else _parts(column_of(columns, split.preset, path, "split.preset"), path, split.preset)
    named = None if files == [(image,) for image in images] else files
    notes = separator_note(labels, config.separator) if isinstance(config.labels, str) else ()
    return _Rows(path.parent, images, labels, named, sets, preset, columns, notes=notes)


def _refuse_empty(path: Place, key: str, values: list[str]) -> None:
    empty = [str(i + 2) for i, value in enumerate(values) if not value]
    if empty:
        rows, where = ("row", "has no value") if len(empty) == 1 else ("rows", "have no value")
        lines = f"line{'' if len(empty) == 1 else 's'} {some(empty)}"
        raise InputError(f"{len(empty)} {rows} of {path} {where} in the column of {key}: {lines} (the head is line 1)")


def _label_sets(columns: Mapping[str, list[str]], config: DataConfig, path: Place) -> list[LabelSet] | None:
    """The labels of each row where it may carry several, else None."""
    if isinstance(config.labels, str):
        if config.separator is None:
            return None
        texts = column_of(columns, config.labels, path, "data.labels")
        return [tuple(dict.fromkeys(filter(None, map(str.strip, text.split(config.separator))))) for text in texts]
    marks = {name: [value.casefold() for value in column_of(columns, name, path, "data.labels")] for name in config.labels}
    wrong = [
        f"{repr(value) if value else 'nothing'} under {name} (line {values.index(value) + 2})"
        for name, values in marks.items()
        for value in sorted(set(values) - YES - NO)
    ]
    if wrong:
        raise InputError(f"the columns of data.labels in {path} hold {some(wrong)}; expected 0 or 1 in every row, one column a class")
    return [tuple(name for name in marks if marks[name][row] in YES) for row in range(len(next(iter(marks.values()))))]


def _parts(values: list[str], path: Place, column: str) -> list[str]:
    unknown = sorted({value for value in values if value.casefold() not in PART_NAMES})
    if unknown:
        raise InputError(
            f"the column {column!r} of {path} holds {some(map(repr, unknown))}; expected train, validation or test in every row"
        )
    return [PART_NAMES[value.casefold()] for value in values]


def _refuse_duplicates(path: Place, images: list[str], labels: list[str], sets: list[LabelSet] | None) -> None:
    found: dict[str, set[str]] = {}
    said = labels if sets is None else ["|".join(natural_order(own)) for own in sets]
    counts = Counter(posixpath.normpath(image) for image in images)
    for image, label in zip(images, said, strict=True):
        if counts[posixpath.normpath(image)] > 1:
            found.setdefault(posixpath.normpath(image), set()).add(label)
    apart = " and " if sets is not None else ", "
    torn = [f"{image} ({apart.join(natural_order(names))})" for image, names in found.items() if len(names) > 1]
    if torn:
        one = "one image has one label" if sets is None else "one image stands in one row with all its labels"
        stand = counted(len(torn), "image stands", "images stand")
        raise InputError(f"{stand} under two labels in {path}: {some(torn)}; {one}, remove the wrong rows")
    if found:
        listed = counted(len(found), "image is", "images are")
        raise InputError(f"{listed} listed more than once in {path}: {some(found)}; remove the repeated rows")


def _groups(rows: _Rows, group: str | None, path: Place) -> StrArray | None:
    if group is None:
        return None
    if not group.startswith("regex:"):
        if not rows.columns:
            what = "hold no groups" if isinstance(rows.root, Shards) else "is a folder"
            raise InputError(
                f"split.group = {group!r} names a column, but {rows.root} {what}; say regex:PATTERN for a part of the file name"
            )
        names = column_of(rows.columns, group, path, "split.group")
        _refuse_empty(path, "split.group", names)
        return np.array(names, dtype=np.str_)
    try:
        pattern = re.compile(group.removeprefix("regex:"))
    except re.error as error:
        raise ConfigError(f"split.group = {group!r} is not a regular expression: {error}") from error
    whole = "/" in pattern.pattern
    matches = [pattern.search(image if whole else posixpath.basename(image)) for image in rows.images]
    found = [None if match is None else match.group(min(1, pattern.groups)) for match in matches]
    strangers = [image for image, name in zip(rows.images, found, strict=True) if name is None]
    if strangers:
        looked = "paths" if whole else "file names"
        beyond = "" if whole else "; a pattern that holds a / is looked for in the whole path"
        raise InputError(f"{len(strangers)} of {len(found)} {looked} do not match split.group = {group!r}: {some(strangers)}{beyond}")
    return np.array(found, dtype=np.str_)
