"""What a user should know of the images before any training: a list of findings, and the numbers behind them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from coverslip.data.duplicates import COMPARED_SIDE, Duplicates, Picture, near_duplicates
from coverslip.data.reading import Reading
from coverslip.data.scan import Scan, small_grey
from coverslip.data.shortcuts import Shortcut, find_shortcuts
from coverslip.structures import StrArray, Table, class_counts

Level = Literal["problem", "warning", "info"]
LEVELS = ("problem", "warning", "info")

TINY_CLASS = 10
IMBALANCED = 10.0
MUCH_DISCARDED = 0.1
MUCH_SQUASHED = 1.5
SMALL_RANGE = 0.25
ODD_SHARE = 0.05


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        kind: a short name, e.g. `exact duplicates`, `shortcut`, `tiny class`.
        level: `info`, `warning` (think about it), `problem` (numbers will be wrong unless it is mended).
        message: what was found and what to do, for people.
        images: the names of the images that it is about; pairs one after the other.
    """

    kind: str
    level: Level
    message: str
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Audit:
    """The findings and the numbers behind them.

    Attributes:
        findings: problems first, then warnings, then infos.
        counts: images of each class.
        formats, modes, sizes: how many images have each, the most frequent first; sizes as `heightxwidth`.
        duplicates: exact and near duplicates by row.
        duplicate_pairs: the same by name: `kind` (`exact` or `near`), `images`, `labels`, `correlation`.
        shortcuts: what trivial properties tell of the labels.
        fit: what the chosen fit does to the images.
        bad: images that cannot be read, with the reason.
        ignored: files that are no images by their name.
        notes: what was merged, dropped or chosen on the way in.
    """

    findings: tuple[Finding, ...]
    counts: dict[str, int]
    formats: dict[str, int]
    modes: dict[str, int]
    sizes: dict[str, int]
    duplicates: Duplicates
    duplicate_pairs: tuple[dict[str, Any], ...]
    shortcuts: tuple[Shortcut, ...]
    fit: dict[str, Any]
    bad: dict[str, str]
    ignored: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """How many problems and warnings there are, and of what; empty without any."""
        serious = [finding for finding in self.findings if finding.level != "info"]
        levels, kinds = Counter[str](finding.level for finding in serious), Counter(finding.kind for finding in serious)
        counted = " and ".join(_plural(levels[level], level) for level in LEVELS if levels[level])
        named = ", ".join(kind if times == 1 else f"{kind} x{times}" for kind, times in kinds.items())
        return f"{counted} ({named})" if serious else ""

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON values: the content of `audit.json`."""
        content = asdict(self)
        content["images"] = sum(self.formats.values())
        content["duplicates"] = {
            "exact": len(self.duplicates.exact),
            "candidates": self.duplicates.candidates,
            "confirmed": len(self.duplicates.confirmed),
            "pairs": content.pop("duplicate_pairs"),
        }
        for shortcut, entry in zip(self.shortcuts, content["shortcuts"], strict=True):
            entry["alarming"] = shortcut.alarming
        return content


def audit(
    table: Table,
    scan: Scan,
    *,
    fit: str,
    height: int | None,
    width: int | None,
    bad: Mapping[str, str],
    reading: Reading,
) -> Audit:
    """Look for what spoils a training or its numbers.

    Args:
        table: n readable samples.
        scan: their facts, row by row.
        fit: `squash`, `letterbox` or `crop`.
        height: rows of the network's input; a square is assumed when not given.
        width: columns of the network's input; `height` when not given.
        bad: images that were left out, with the reason.
        reading: how the files of a sample become one image, for confirming duplicates.
    """
    facts = scan.facts
    duplicates = find_duplicates(table, scan, reading)
    pairs = _named_pairs(table, duplicates)
    counts = {} if table.targets is None else dict(zip(table.classes, class_counts(table.targets, table.classes).tolist(), strict=True))
    simple = table.targets is not None and table.targets.ndim == 1
    shortcuts = find_shortcuts(facts, table.labels, table.classes, table.groups) if simple else []
    effect = fit_effect(facts, fit, height, width)
    sizes = facts["height"].astype(str) + "x" + facts["width"].astype(str)
    findings = [
        *_unreadable(bad),
        *_duplicate_findings(pairs),
        *_shortcut_findings(shortcuts),
        *_balance_findings(counts, "balanced accuracy and macro F1" if simple else "macro F1 and the numbers of each class"),
        *_pixel_findings(facts, sizes),
        *_fit_findings(effect),
    ]
    return Audit(
        findings=tuple(sorted(findings, key=lambda finding: LEVELS.index(finding.level))),
        counts=counts,
        formats=_frequencies(facts["format"]),
        modes=_frequencies(facts["mode"]),
        sizes=_frequencies(sizes),
        duplicates=duplicates,
        duplicate_pairs=tuple(pairs),
        shortcuts=tuple(shortcuts),
        fit=effect,
        bad=dict(bad),
        ignored=table.ignored,
        notes=table.notes,
    )


def find_duplicates(table: Table, scan: Scan, reading: Reading) -> Duplicates:
    """Exact and near duplicates of a scanned table; the few promising pairs are read again to compare their pixels."""
    samples = table.samples

    def read(row: int) -> Picture:
        return small_grey(reading.read(samples[row])[0], COMPARED_SIDE)

    return near_duplicates(scan.hashes, scan.thumbnails, sha256=scan.facts["sha256"].tolist(), read=read)


def leaks(table: Table, part: StrArray, duplicates: Duplicates) -> list[Finding]:
    """Duplicates and groups that stand on more than one side of a split.

    Args:
        table: n samples.
        part: str (n,) of `train`, `validation`, `test`.
        duplicates: as in `Audit.duplicates`.

    Returns:
        At most one finding each for exact duplicates, near duplicates and groups, all of level `problem`.
    """
    found = []
    exact = [(a, b) for a, b in duplicates.exact if part[a] != part[b]]
    near = [(a, b) for a, b, _ in duplicates.confirmed if part[a] != part[b]]
    for kind, pairs in (("exact", exact), ("near", near)):
        if pairs:
            shown = "; ".join(f"{table.images[a]} ({part[a]}) and {table.images[b]} ({part[b]})" for a, b in pairs[:5])
            names = tuple(table.images[row] for pair in pairs for row in pair)
            message = f"{_plural(len(pairs), f'{kind} duplicate')} on both sides of the split: {shown}{_more(pairs, 5)}"
            found.append(Finding(f"leak of {kind} duplicates", "problem", message, names))
    if table.groups is not None:
        parts = pd.Series(part).groupby(pd.Series(table.groups)).nunique()
        torn = parts.index[parts > 1].tolist()
        if torn:
            names = tuple(np.array(table.images)[np.isin(table.groups, torn)].tolist())
            message = f"{_plural(len(torn), 'group')} on both sides of the split: {', '.join(torn[:5])}{_more(torn, 5)}"
            found.append(Finding("leak of groups", "problem", message, names))
    return found


def fit_effect(facts: pd.DataFrame, fit: str, height: int | None, width: int | None) -> dict[str, Any]:
    """What a fit does to each image.

    Returns:
        `fit`, `height`, `width`; `discarded` (share of the area that is cut off), `padded` (share of the input that is filler),
        `stretch` (change of the aspect ratio, 1 = none), each with median, highest and mean over the images.
    """
    rows, columns = height or width or 1, width or height or 1
    ratio = (facts["width"] / columns / (facts["height"] / rows)).to_numpy(dtype=np.float64)
    excess = np.maximum(ratio, 1 / ratio)
    none, lost = np.zeros_like(excess), 1 - 1 / excess
    return {
        "fit": fit,
        "height": height,
        "width": width,
        "discarded": _summary(lost if fit == "crop" else none),
        "padded": _summary(lost if fit == "letterbox" else none),
        "stretch": _summary(excess if fit == "squash" else none + 1),
    }


def _summary(values: Any) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "median": float(np.median(values)), "highest": float(np.max(values))}


def _named_pairs(table: Table, duplicates: Duplicates) -> list[dict[str, Any]]:
    pairs = [("exact", a, b, 1.0) for a, b in duplicates.exact] + [("near", a, b, value) for a, b, value in duplicates.confirmed]
    known = table.targets is not None
    return [
        {
            "kind": kind,
            "images": [table.images[a], table.images[b]],
            "labels": [table.label_text(a), table.label_text(b)] if known else [],
            "correlation": round(value, 4),
        }
        for kind, a, b, value in pairs
    ]


def _unreadable(bad: Mapping[str, str]) -> list[Finding]:
    if not bad:
        return []
    return [Finding("unreadable", "warning", f"{_plural(len(bad), 'image')} cannot be used and {_is(bad)} left out", tuple(bad))]


def _duplicate_findings(pairs: Sequence[dict[str, Any]]) -> list[Finding]:
    found = []
    for kind, what in (("exact", "the same file"), ("near", "the same image in another version")):
        chosen = [pair for pair in pairs if pair["kind"] == kind]
        torn = [pair for pair in chosen if pair["labels"] and pair["labels"][0] != pair["labels"][1]]
        if chosen:
            message = f"{_plural(len(chosen), 'pair')} of images {_is(chosen)} {what}; they move together in a split that coverslip makes"
            found.append(Finding(f"{kind} duplicates", "warning", message, _names(chosen)))
        if torn:
            shown = "; ".join(f"{p['images'][0]} = {p['images'][1]}" for p in torn[:3])
            message = (
                f"{_plural(len(torn), 'pair')} of {what} {_is(torn)} under two labels: {shown}{_more(torn, 3)}; decide which label is right"
            )
            found.append(Finding("two labels", "problem" if kind == "exact" else "warning", message, _names(torn)))
    return found


def _shortcut_findings(shortcuts: Sequence[Shortcut]) -> list[Finding]:
    return [
        Finding(
            "shortcut",
            "warning",
            f"the {shortcut.name} alone tells the classes apart: balanced accuracy {shortcut.balanced_accuracy:.0%}, chance "
            f"{shortcut.chance:.0%}{f' ({shortcut.values})' if shortcut.values else ''}; "
            + (
                "this can be the subject itself, or the exposure of each class"
                if shortcut.name == "brightness"
                else "a model can learn this in place of the subject: save all images in one way"
            ),
        )
        for shortcut in shortcuts
        if shortcut.alarming
    ]


def _balance_findings(counts: Mapping[str, int], fair: str) -> list[Finding]:
    if not counts:
        return []
    found = []
    absent = [name for name, count in counts.items() if count == 0]
    if absent:
        found.append(Finding("absent class", "warning", f"no image of {', '.join(absent)}: such a class cannot be learned, nor judged"))
    counts = {name: count for name, count in counts.items() if count}
    tiny = [f"{name} ({count})" for name, count in counts.items() if count < TINY_CLASS]
    if tiny:
        named = f"{', '.join(tiny[:5])}{_more(tiny, 5)}"
        message = f"fewer than {TINY_CLASS} images of {named}: too few for numbers; add images, or join classes (data.merge)"
        found.append(Finding("tiny class", "warning", message))
    most, least = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
    ratio = counts[most] / counts[least]
    if ratio >= IMBALANCED:
        message = f"{most} ({counts[most]}) has {ratio:.0f} times the images of {least} ({counts[least]}): look at {fair}"
        found.append(Finding("imbalance", "warning", message))
    return found


def _pixel_findings(facts: pd.DataFrame, sizes: pd.Series) -> list[Finding]:
    return [*_oddities(facts, "mode", facts["mode"]), *_oddities(facts, "size", sizes), *_range_findings(facts)]


def _oddities(facts: pd.DataFrame, what: str, values: pd.Series) -> list[Finding]:
    """Values that few images have while most share one: another camera, an export with other settings."""
    counts = values.value_counts()
    odd = counts.index[(counts < ODD_SHARE * len(values)).to_numpy()]
    if not len(odd) or counts.iloc[0] < len(values) / 2:
        return []
    rows = values.isin(odd).to_numpy()
    message = f"{_plural(int(rows.sum()), 'image')} of another {what} than most ({counts.index[0]}): {', '.join(odd[:5])}{_more(odd, 5)}"
    return [Finding(f"odd {what}", "info", message, tuple(facts["image"][rows]))]


def _range_findings(facts: pd.DataFrame) -> list[Finding]:
    deep = ((facts["bits"] > 8) & (facts["bits"] <= 16)).to_numpy()
    narrow = deep & ((facts["high"] - facts["low"]) < SMALL_RANGE).to_numpy()
    found = []
    if narrow.any():
        message = (
            f"{int(narrow.sum())} of {_plural(int(deep.sum()), '16-bit image')} use less than a quarter of the range, the brightest "
            f"up to {facts['high'][narrow].max():.1%} of it; normalise by data set or by image so that they are not nearly black"
        )
        found.append(Finding("small range", "info", message, tuple(facts["image"][narrow])))
    shallow = (facts["bits"] == 8).to_numpy()
    if shallow.any() and narrow.sum() > deep.sum() / 2:
        message = (
            f"{_plural(int(shallow.sum()), 'image')} of 8 bit beside {int(deep.sum())} of 16 bit, most of which use less than a quarter of "
            'their range and are much darker to the network; pixels.range = "image" treats them alike, or save all in one way'
        )
        found.append(Finding("mixed depth", "warning", message, tuple(facts["image"][narrow])))
    flat = (facts["high"] == facts["low"]).to_numpy()
    if flat.any():
        message = f"{_plural(int(flat.sum()), 'image')} of one single grey level: nothing can be seen in such an image"
        found.append(Finding("flat", "warning", message, tuple(facts["image"][flat])))
    return found


def _fit_findings(effect: Mapping[str, Any]) -> list[Finding]:
    lost, stretch = effect["discarded"], effect["stretch"]
    if lost["mean"] > MUCH_DISCARDED:
        message = (
            f"pixels.fit = crop cuts off {lost['mean']:.0%} of an image (mean), up to {lost['highest']:.0%}: the ends of the longer side "
            'are not seen; pixels.fit = "squash" or "letterbox" keeps them'
        )
        return [Finding("discarded", "warning", message)]
    if stretch["median"] > MUCH_SQUASHED:
        message = (
            f"pixels.fit = squash changes the aspect ratio {stretch['median']:.1f} times (median), up to {stretch['highest']:.1f} times"
        )
        return [Finding("squashed", "info", f"{message}; nothing is cut off. Set pixels.height and pixels.width to keep the shape")]
    return []


def _frequencies(values: pd.Series) -> dict[str, int]:
    return {str(value): int(count) for value, count in values.value_counts().items()}


def _names(pairs: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(name for pair in pairs for name in pair["images"])


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _is(items: Sequence[Any] | Mapping[str, Any]) -> str:
    return "is" if len(items) == 1 else "are"


def _more(items: Any, shown: int) -> str:
    return f" and {len(items) - shown} more" if len(items) > shown else ""
