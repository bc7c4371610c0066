"""From the labels that a source writes to classes and targets: one label an image, or several."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coverslip.config import DataConfig
from coverslip.errors import ConfigError, InputError, counted, did_you_mean
from coverslip.storage import URL, Place, place
from coverslip.structures import IntArray, Root, Task, natural_order

CLASS_FILE = "classes.txt"
"""Where class names stand beside a table, as simulated cells have them."""

LabelSet = tuple[str, ...]
"""The labels of one image."""

SEPARATORS: tuple[str, ...] = ("|", ";", ",", " ")
"""What may stand between the labels of one image."""

MANY_CLASSES = 30
"""Names up to which a note states them all."""

SEVERAL_IN_ONE = 0.1
"""Share of the rows from which a mark inside labels looks like one between labels."""


@dataclass(frozen=True)
class Labels:
    """What the labels of n rows mean.

    Attributes:
        classes: names in their order.
        targets: as in `Table`, for the rows that are kept.
        task: binary, multiclass or multilabel.
        kept: int64 (m,), the rows that are kept.
        notes: what was merged, dropped or chosen, in sentences.
    """

    classes: tuple[str, ...]
    targets: IntArray
    task: Task
    kept: IntArray
    notes: tuple[str, ...]


# One label an image ---------------------------------------------------------------------------------------------------


def _some_classes(classes: Sequence[str]) -> str:
    """Their names in order; of many, the first and the last."""
    if len(classes) <= MANY_CLASSES:
        return ", ".join(classes)
    return f"{', '.join(classes[: MANY_CLASSES - 2])}, ... {classes[-1]} ({len(classes)} in all)"


def single_labels(
    labels: list[str], config: DataConfig, known_classes: Sequence[str] | None = None, *, folder: Root | None = None
) -> Labels:
    """Classes and class indices.

    Args:
        labels: n labels as the source writes them.
        config: merges, class order, the positive class.
        known_classes: the classes of a model that is to be judged, in its order; the data may hold only some of them.
        folder: where a file of class names may lie beside the data.

    Raises:
        InputError: one class only, a class that is not there, or one that the model does not know.
        ConfigError: `data.merge` contradicts itself, or keys that are for several labels.
    """
    _refuse_keys_for_several(config)
    merge = config.merge if known_classes is None else _present(config.merge, set(labels))
    new_name = _new_names(merge, set(labels))
    merged = [new_name.get(label, label) for label in labels]
    classes = _class_order(merged, config, folder) if known_classes is None else _refuse_strangers(set(merged), known_classes)
    position = {name: i for i, name in enumerate(classes)}
    order = "as stated" if config.classes or config.positive else "in natural order"
    ordered = (f"classes {order}: {_some_classes(classes)}",) if known_classes is None else ()
    return Labels(
        classes=classes,
        targets=np.array([position[label] for label in merged], dtype=np.int64),
        task=Task.BINARY if len(classes) == 2 else Task.MULTICLASS,
        kept=np.arange(len(labels), dtype=np.int64),
        notes=(*_merge_notes(merge, Counter(merged)), *ordered),
    )


def _refuse_keys_for_several(config: DataConfig) -> None:
    given = [f"data.{key}" for key in ("keep", "drop_rare", "allow_empty") if getattr(config, key)]
    if given:
        raise ConfigError(f"{', '.join(given)}: for several labels an image; say data.separator, or name columns of 0 and 1 in data.labels")


def _class_order(labels: list[str], config: DataConfig, folder: Root | None) -> tuple[str, ...]:
    known = set(labels)
    if len(known) < 2:
        raise InputError(f"there is only one class, {labels[0]!r} ({len(labels)} images); a classifier needs at least two")
    classes = natural_order(known)
    if config.classes is not None:
        stated = class_names(config, folder)
        for name in stated:
            if name not in known:
                hint = "".join(f" {note}" for note in separator_note(labels, None))
                raise InputError(f"data.classes names {name!r}, which is not in the data.{_offer(name, known)}{hint and '.'}{hint}")
        absent = [name for name in classes if name not in stated]
        if absent or len(set(stated)) < len(stated):
            raise InputError(f"data.classes must name every class once; missing: {', '.join(absent) or 'none'}, found: {', '.join(stated)}")
        classes = tuple(stated)
    if config.positive is None:
        return classes
    if config.positive not in known:
        raise InputError(f"data.positive = {config.positive!r} is not a class.{_offer(config.positive, known)}")
    if len(classes) > 2:
        raise InputError(f"data.positive is for two classes, but there are {len(classes)}: {', '.join(classes)}; join some with data.merge")
    return (*(name for name in classes if name != config.positive), config.positive)


# Several labels an image ----------------------------------------------------------------------------------------------


def several_labels(
    sets: list[LabelSet], config: DataConfig, known_classes: Sequence[str] | None = None, *, folder: Root | None = None
) -> Labels:
    """Classes and 0/1 targets. In this order: names for numbers, merging, the classes to keep, rare classes dropped.

    A class is what an image carries, what is stated, and every column of 0 and 1, also one of zeros.

    Args:
        sets: n sets of labels as the source writes them.
        config: class names, merges, classes to keep, rare classes, empty sets.
        known_classes: the classes of a model that is to be judged, in its order; labels for which it has no class are an error, but
            for those that its own `data.keep` leaves out.
        folder: where a file of class names may lie beside the table.

    Raises:
        InputError: a label that is not in the class list, rows without a label, fewer than two classes, classes that are not there.
        ConfigError: `data.merge` contradicts itself.
    """
    stated = class_names(config, folder) if config.classes is not None else None
    named = [tuple(_name(label, stated) for label in labels) for labels in sets]
    columns = [_name(name, stated) for name in config.labels] if isinstance(config.labels, list) else []
    found = {*columns, *(label for labels in named for label in labels)}
    if stated is not None:
        _refuse_unlisted(found, stated, named)
    merge = config.merge if known_classes is None else _present(config.merge, found)
    new_name = _new_names(merge, found | set(stated or ()))
    merged = [tuple(new_name.get(label, label) for label in labels) for labels in named]
    if known_classes is None:
        everything = dict.fromkeys(new_name.get(name, name) for name in (stated or natural_order(found)))
        classes, notes = _chosen(list(everything), merged, config)
    else:
        classes, notes = tuple(known_classes), []
        if config.keep is None:
            _refuse_strangers({label for labels in merged for label in labels}, known_classes)
    position = {name: column for column, name in enumerate(classes)}
    targets = np.zeros((len(sets), len(classes)), dtype=np.int64)
    for row, labels in enumerate(merged):
        targets[row, [position[label] for label in labels if label in position]] = 1
    kept, lost = _rows_with_labels(targets, sets, config)
    order = "as stated" if stated else "in natural order"
    ordered = (f"classes {order}, several an image: {_some_classes(classes)}",) if known_classes is None else ()
    counts = Counter(label for labels in merged for label in set(labels))
    return Labels(
        classes,
        targets[kept],
        Task.MULTILABEL,
        kept,
        (*_merge_notes(merge, counts), *notes, *lost, *ordered, *_other_list(sets, config, folder)),
    )


def _name(label: str, stated: Sequence[str] | None) -> str:
    """The class name for a label that is a number; any other label is itself."""
    if stated is None or label in stated or not label.isdecimal() or int(label) >= len(stated):
        return label
    return stated[int(label)]


def _refuse_unlisted(found: set[str], stated: Sequence[str], rows: Sequence[LabelSet]) -> None:
    unlisted = natural_order(found - set(stated))
    if unlisted:
        line: dict[str, str] = {}
        for row, labels in enumerate(rows):
            for label in labels:
                line.setdefault(label, f" (line {row + 2})")
        shown = ", ".join(f"{label}{line.get(label, '')}" for label in unlisted[:5])
        more = f" and {len(unlisted) - 5} more" if len(unlisted) > 5 else ""
        mark = next((mark for mark in SEPARATORS if _is_listed_apart(unlisted, mark, stated)), None)
        offer = f" Parted at {mark!r} they are: {say_separator(mark)}." if mark else did_you_mean(unlisted[0], stated)
        raise InputError(
            f"{counted(len(unlisted), 'label of the table is', 'labels of the table are')} not in data.classes: {shown}{more}.{offer} "
            f"It names {len(stated)} classes: {', '.join(stated[:30])}; a number counts from 0 into them"
        )


def _other_list(sets: Sequence[LabelSet], config: DataConfig, folder: Root | None) -> tuple[str, ...]:
    """A sentence where numbers count into a stated list, such as a recipe's, and a file beside the table has other names."""
    if not isinstance(config.classes, list) or not isinstance(folder, Path) or not (folder / CLASS_FILE).is_file():
        return ()
    if not any(label.isdecimal() for labels in sets for label in labels):
        return ()
    beside = _lines_of(folder / CLASS_FILE)
    if beside == config.classes:
        return ()
    return (
        f"numbers are counted into data.classes, which states {len(config.classes)} names; {CLASS_FILE} beside the table has "
        f"{len(beside)} others: where it is meant, say -s data.classes={CLASS_FILE}",
    )


def _is_listed_apart(labels: Sequence[str], mark: str, stated: Sequence[str]) -> bool:
    """Whether labels that are not in the list are made of listed ones with a mark between them."""
    pieces = {_name(piece.strip(), stated) for label in labels for piece in label.split(mark)}
    return pieces <= set(stated)


def _chosen(classes: list[str], merged: list[LabelSet], config: DataConfig) -> tuple[tuple[str, ...], list[str]]:
    """The classes that are looked at, and sentences on those that are not."""
    notes = []
    if config.keep is not None:
        for name in config.keep:
            if name not in classes:
                raise InputError(f"data.keep names {name!r}, which is not a class.{_offer(name, set(classes))}")
        notes.append(f"data.keep: {len(config.keep)} of {len(classes)} classes are looked at")
        classes = [name for name in classes if name in config.keep]
    counts = Counter(label for labels in merged for label in set(labels))
    rare = [name for name in classes if counts[name] < config.drop_rare]
    if rare:
        notes.append(f"data.drop_rare = {config.drop_rare}: dropped {', '.join(f'{name} ({counts[name]} images)' for name in rare)}")
        classes = [name for name in classes if name not in rare]
    if len(classes) < 2:
        raise InputError(f"{len(classes)} classes are left ({', '.join(classes)}); a classifier of several labels needs at least two")
    return tuple(classes), notes


def _rows_with_labels(targets: IntArray, sets: list[LabelSet], config: DataConfig) -> tuple[IntArray, list[str]]:
    empty = [row for row, labels in enumerate(sets) if not labels]
    if empty and not config.allow_empty:
        lines = ", ".join(str(row + 2) for row in empty[:5])
        raise InputError(
            f"{counted(len(empty), 'row has no label: line', 'rows have no label: lines')} {lines}"
            f"{f' and {len(empty) - 5} more' if len(empty) > 5 else ''} (the head is line 1); "
            "if an image may carry none of the classes, say -s data.allow_empty=true"
        )
    if config.allow_empty:
        return np.arange(len(sets), dtype=np.int64), []
    kept = np.flatnonzero(targets.sum(axis=1)).astype(np.int64)
    lost = len(sets) - len(kept)
    if not len(kept):
        raise InputError("not one row carries a label of the classes that are looked at; check data.keep and data.drop_rare")
    return kept, [f"{lost} of {len(sets)} rows are left without a label by the classes that were dropped, and are not used"] if lost else []


# Both -----------------------------------------------------------------------------------------------------------------


def say_separator(mark: str) -> str:
    """The option that states what stands between labels, as one types it."""
    return f"-s 'data.separator=\"{mark}\"'"


def separator_note(texts: Sequence[str], separator: str | None) -> tuple[str, ...]:
    """A sentence where labels that are taken as they stand look like several in one.

    Spaces count between numbers only, for names of classes hold spaces too.

    >>> [note] = separator_note(["a|b", "b", "a"], None)
    >>> print(note)
    1 labels hold '|' and are taken as they stand; for several labels an image say -s 'data.separator="|"'
    """
    if separator is not None and any(separator in text for text in texts):
        return ()
    for mark in SEPARATORS:
        joined = sum(bool(re.fullmatch(r"\d+( +\d+)+", text)) if mark == " " else mark in text for text in texts)
        if joined > SEVERAL_IN_ONE * len(texts):
            none = f"no label holds {separator!r}, but " if separator is not None else ""
            return (
                f"{none}{joined} labels hold {mark!r} and are taken as they stand; for several labels an image say {say_separator(mark)}",
            )
    return ()


def class_names(config: DataConfig, folder: Root | None = None) -> list[str]:
    """The stated class names; a text file is looked for as it is named, then beside the table.

    Raises:
        InputError: no such file, one that is no plain text, or a name twice.
    """
    if config.classes is None or isinstance(config.classes, list):
        names = list(config.classes or ())
    else:
        places = [place(config.classes), *([folder / config.classes] if isinstance(folder, (Path, URL)) else [])]
        file = next((one for one in places if one.is_file()), None)
        if file is None:
            raise InputError(f"data.classes = {config.classes!r}: there is no such file; expected a list of names, or a text file of them")
        names = _lines_of(file)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"data.classes names {', '.join(twice)} more than once")
    return names


def _lines_of(file: Place) -> list[str]:
    """The lines of a file of class names; a table would make a class of its head, and shift the numbers of all others."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"data.classes = {str(file)!r}: not UTF-8 text ({error.reason}); expected one class name a line") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if file.suffix.lower() in (".csv", ".tsv", ".parquet") and lines and re.search("[,;\t]", lines[0]):
        raise InputError(f"data.classes = {str(file)!r} is a table, which begins {lines[0]!r}; expected a text file, one class name a line")
    return lines


def _new_names(merge: Mapping[str, Sequence[str]], known: set[str]) -> dict[str, str]:
    new_name = dict[str, str]()
    for new, olds in merge.items():
        for old in olds:
            if old not in known:
                raise InputError(f"data.merge.{new} names the class {old!r}, which is not in the data.{_offer(old, known)}")
            if new_name.setdefault(old, new) != new:
                raise ConfigError(f"data.merge puts the class {old!r} into {new_name[old]!r} and into {new!r}; name it once")
    return new_name


def _merge_notes(merge: Mapping[str, Sequence[str]], counts: Mapping[str, int]) -> list[str]:
    return [f"merged {', '.join(olds)} into {new} ({counts.get(new, 0)} images)" for new, olds in merge.items()]


def _present(merge: Mapping[str, Sequence[str]], known: set[str]) -> dict[str, list[str]]:
    found = {new: [old for old in olds if old in known] for new, olds in merge.items()}
    return {new: olds for new, olds in found.items() if olds}


def _refuse_strangers(labels: Iterable[str], known: Sequence[str]) -> tuple[str, ...]:
    strangers = natural_order(set(labels) - set(known))
    if strangers:
        raise InputError(
            f"the data holds classes that the model does not know: {', '.join(strangers)}; its classes: {', '.join(known)}. "
            f"Join or rename them with data.merge, for example -s 'data.merge.{known[0]}=[\"{strangers[0]}\"]'"
        )
    return tuple(known)


def _offer(name: str, known: set[str]) -> str:
    return f"{did_you_mean(name, known)} Its classes: {', '.join(natural_order(known))}"
