"""The sections of the page: from the files of a run to what the template shows. One function a section."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from coverslip.report import figures
from coverslip.report.files import RunFiles, items, within
from coverslip.report.numbers import Shown, count, duration, finite, large, percent, plural, shown, size_text
from coverslip.report.pictures import Album, Picture, wrong_decision
from coverslip.structures import PARTS, FloatArray, natural_key

MOST_PICTURES = {"sample": 16, "augmented": 4, "mistake": 12, "duplicate": 8, "label_error": 12}
"""Entries of each kind of picture that the page shows."""

MOST_ROWS = 40
"""Rows of a table or figure; what is left out is counted."""

HISTORY = (
    "step", "epoch", "train_loss", "validation_loss", "validation_accuracy", "train_macro_f1", "validation_macro_f1", "learning_rate",
    "images_per_second",
)  # fmt: skip
"""Numbers of `history.csv` that are drawn."""
BESIDE = (
    "Training: augmented images of the steps since the point before, as the model then was. Validation: the whole part, its images as "
    "they are, before thresholds and calibration are chosen. The two are not counted alike; what they do over time is what to look at."
)
"""What has to be known of a curve of the training part beside one of the validation part."""

PART_TITLES = {"test": "test part", "folds": "cross-validation", "validation": "validation part"}

Section = dict[str, Any]


@dataclass(frozen=True)
class Drawing:
    """A figure on the page."""

    svg: Markup
    title: str
    caption: str
    wide: bool


def draw(drawing: Figure, title: str, caption: str = "") -> Drawing:
    """Make a figure part of the page; its title stands above it, its caption below."""
    name = re.sub(r"[^a-z0-9]+", "-", title.lower())
    return Drawing(Markup(figures.as_svg(drawing, name, title)), title, caption, drawing.get_figwidth() > figures.HALF)


def headline_part(run: RunFiles) -> str | None:
    """The part that the headline is about: test, else folds, else validation."""
    return next((part for part in PART_TITLES if within(run.metrics, part)), None)


def class_names(run: RunFiles) -> list[str]:
    """The classes in their order, as far as any file names them."""
    stated = [str(name) for name in items(run.metrics, "classes")]
    if stated or run.split is None or "label" not in run.split:
        return stated or [str(name) for name in within(run.audit, "counts")]
    return sorted(run.split["label"].dropna().unique(), key=natural_key)


def data(run: RunFiles, album: Album) -> Section:
    """Classes, sizes, modes, findings, duplicates, and what was left out."""
    counts = {str(name): int(n) for name, n in within(run.audit, "counts").items() if finite(n) is not None} or _label_counts(run)
    drawn = dict(list(counts.items())[:MOST_ROWS])
    caption = f"The first {len(drawn)} of {len(counts)} classes." if len(drawn) < len(counts) else ""
    findings = [finding for finding in items(run.audit, "findings") if isinstance(finding, Mapping)]
    order = {"problem": 0, "warning": 1, "info": 2}
    duplicates = [
        {**entry, "pictures": pictures}
        for entry in run.pictures_of("duplicate")[: MOST_PICTURES["duplicate"]]
        if len(pictures := _pictures(album, entry.get("files"))) == 2
    ]
    return {
        "drawing": draw(figures.class_counts(drawn), "Images per class", caption) if counts else None,
        "facts": _audit_facts(run),
        "findings": [
            {
                **finding,
                "message": sentence(finding.get("message")),
                "files": _some([str(image) for image in items(dict(finding), "images")], 4),
            }
            for finding in sorted(findings, key=lambda finding: order.get(str(finding.get("level")), 3))
        ],
        "shortcuts": _shortcuts(run),
        "duplicates": duplicates,
        "more_duplicates": max(0, len(run.pictures_of("duplicate")) - len(duplicates)),
        "notes": [str(note) for note in items(run.audit, "notes")],
    }


def _shortcuts(run: RunFiles) -> list[tuple[str, Shown, Shown, bool]]:
    """(property, balanced accuracy, chance, whether it is alarming) of what trivial properties tell of the labels."""
    stated = [entry for entry in items(run.audit, "shortcuts") if isinstance(entry, Mapping)]
    rows = [
        (str(entry.get("name")), shown(entry.get("balanced_accuracy")), shown(entry.get("chance")), bool(entry.get("alarming")))
        for entry in stated
    ]
    return [(name, reached, chance, alarming) for name, reached, chance, alarming in rows if reached is not None and chance is not None]


def _label_counts(run: RunFiles) -> dict[str, int]:
    """Images a class, from the split, for runs without an audit."""
    if run.split is None or "label" not in run.split:
        return {}
    labels = run.split["label"].dropna()
    counts = (labels.str.split("|").explode() if run.metrics.get("task") == "multilabel" else labels).value_counts()
    return {name: int(counts.get(name, 0)) for name in class_names(run)}


def _audit_facts(run: RunFiles) -> list[tuple[str, str]]:
    """Short facts on the files: how many of each format, mode and size, duplicates, what the fit does, what was left out."""
    titles = {"images": "Images", "formats": "Formats", "modes": "Modes", "sizes": "Sizes (height × width)"}
    facts = [
        (title, _fact(run.audit.get(key)).replace("x", " × ") if key == "sizes" else _fact(run.audit.get(key)))
        for key, title in titles.items()
    ]
    facts += [("Duplicates", _duplicate_text(within(run.audit, "duplicates"))), *_fit_facts(within(run.audit, "fit"))]
    bad = within(run.audit, "bad") or within(run.environment, "bad")
    ignored = [str(name) for name in items(run.audit, "ignored")]
    facts += [
        (title, f"{len(names)}: {_some(names)}") for title, names in (("Cannot be read", list(bad)), ("Not images", ignored)) if names
    ]
    return [fact for fact in facts if fact[1]]


def _duplicate_text(duplicates: Mapping[str, Any]) -> str:
    exact, confirmed = finite(duplicates.get("exact")), finite(duplicates.get("confirmed"))
    if exact is None or confirmed is None:
        return ""
    candidates = finite(duplicates.get("candidates"))
    looked = f" ({plural(int(candidates), 'candidate')} compared pixel by pixel)" if candidates else ""
    return f"{plural(int(exact), 'exact pair')}, {plural(int(confirmed), 'near pair')}{looked}"


def _fit_facts(fit: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the fit does to the images, on average and at most."""
    if not fit:
        return []
    facts = [("Thrown away by the fit", _share_text(within(fit, "discarded")) or "nothing")]
    if padded := _share_text(within(fit, "padded")):
        facts.append(("Filled up by the fit", padded))
    stretch = within(fit, "stretch")
    median, highest = finite(stretch.get("median")), finite(stretch.get("highest"))
    if median is not None and highest is not None and highest > 1.005:
        facts.append(("Aspect ratio changed", f"{median:.2f} times (median), up to {highest:.2f} times"))
    return facts


def _share_text(summary: Mapping[str, Any]) -> str:
    mean, highest = finite(summary.get("mean")), finite(summary.get("highest"))
    return f"{percent(mean)} of an image on average, up to {percent(highest)}" if mean and highest else ""


def _fact(value: object) -> str:
    """A count, or how many images have each value: `JPEG (70), PNG (22)`."""
    if isinstance(value, Mapping):
        return _some([f"{name} ({count(n)})" for name, n in value.items() if finite(n) is not None], 6)
    number = finite(value)
    return "" if number is None else count(number)


def _some(words: Sequence[str], most: int = 8) -> str:
    rest = f", and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + rest


def split(run: RunFiles) -> Section | None:
    """Images of each class in each part; method, seed, groups and notes."""
    if run.split is None or "part" not in run.split:
        return None
    table, stated = run.split, run.split_facts
    parts = [part for part in PARTS if (table["part"] == part).any()]
    rows = _split_rows(run, table, parts)
    groups = table["group"].dropna() if "group" in table else pd.Series(dtype=str)
    seed = stated.get("seed")
    facts = [
        ("Method", str(stated.get("method") or "")),
        ("Seed", str(seed) if seed is not None else ""),
        ("Groups", f"{count(groups.nunique())} groups" if len(groups) else ""),
    ]
    return {
        "parts": parts,
        "rows": rows[:MOST_ROWS],
        "more": max(0, len(rows) - MOST_ROWS),
        "totals": [int((table["part"] == part).sum()) for part in parts],
        "facts": [fact for fact in facts if fact[1]],
        "notes": [str(note) for note in items(stated, "notes")],
    }


def _split_rows(run: RunFiles, table: pd.DataFrame, parts: Sequence[str]) -> list[tuple[str, list[int], list[float]]]:
    """(class, images in each part, share of each part in percent)."""
    if "label" not in table:
        return []
    pairs = table[["label", "part"]].dropna()
    if run.metrics.get("task") == "multilabel":
        pairs = pairs.assign(label=pairs["label"].str.split("|")).explode("label")
    crossed = pd.crosstab(pairs["label"], pairs["part"]).reindex(index=class_names(run), columns=list(parts), fill_value=0)
    return [(str(name), [int(n) for n in row], [round(100 * n / max(sum(row), 1), 2) for n in row]) for name, *row in crossed.itertuples()]


def seen(run: RunFiles, album: Album) -> list[Section]:
    """Original images beside what the network sees of them."""
    chosen = run.pictures_of("sample")[: MOST_PICTURES["sample"]]
    pairs = [
        {**entry, "original": album.picture(entry.get("original")), "network": album.picture(entry.get("network"))} for entry in chosen
    ]
    return [pair for pair in pairs if pair["original"] and pair["network"]]


def colours(run: RunFiles) -> list[tuple[str, str]]:
    """(channel, `#rrggbb`) of the pictures of images with channels."""
    pairs = [pair for entry in run.pictures_of("channels") for pair in within(entry, "colours").items()]
    return [(str(name), colour) for name, colour in pairs if isinstance(colour, str) and re.fullmatch("#[0-9a-f]{6}", colour)]


def augmented(run: RunFiles, album: Album) -> list[Section]:
    """Rows of augmented copies."""
    chosen = run.pictures_of("augmented")[: MOST_PICTURES["augmented"]]
    rows = [{**entry, "pictures": _pictures(album, items(entry, "files")[:8])} for entry in chosen]
    return [row for row in rows if row["pictures"]]


def mistakes(run: RunFiles, album: Album, kind: str) -> Section:
    """Most confident mistakes, or suspected label errors: pictures with label, verdict and score."""
    entries = run.pictures_of(kind)
    chosen = [
        {**entry, "picture": album.picture(entry.get("file")), "wrong": wrong_decision(entry)} for entry in entries[: MOST_PICTURES[kind]]
    ]
    chosen = [entry for entry in chosen if entry["picture"]]
    total = len(run.label_errors) if kind == "label_error" and run.label_errors is not None else len(entries)
    return {"entries": chosen, "total": max(total, len(chosen))}


def _pictures(album: Album, names: object) -> list[Picture]:
    found = [album.picture(name) for name in names] if isinstance(names, (list, tuple)) else []
    return [picture for picture in found if picture is not None]


def model(run: RunFiles) -> Section | None:
    """The summary table and where the weights came from."""
    layers = [layer for layer in items(run.summary, "layers") if isinstance(layer, Mapping)]
    configured, weights, summary = within(run.config, "model"), within(run.environment, "weights"), run.summary
    batch = summary.get("batch_size")
    input_shape = " × ".join(str(side) for side in items(summary, "input"))
    facts = [
        ("Backbone", str(configured.get("backbone") or within(run.environment, "provenance").get("backbone") or "")),
        ("Regime", str(within(run.config, "training").get("regime") or "")),
        ("Input", f"{input_shape} (channels × height × width)" if input_shape else ""),
        ("Weights", _amount(summary.get("weights"))),
        ("Trainable", _amount(summary.get("trainable_weights"))),
        ("Multiply-adds an image", _amount(summary.get("multiply_adds"))),
        ("Memory of the weights", _size(summary.get("weight_bytes"))),
        (f"Memory to train ({batch} images a step)" if batch else "Memory to train", _size(summary.get("training_bytes"))),
        ("Weights from", str(weights.get("source") or "")),
        ("SHA-256", str(weights.get("sha256") or "")),
    ]
    rows = [
        {
            "name": str(layer.get("name", "")),
            "kind": str(layer.get("kind", "")),
            "output": " × ".join(str(side) for side in items(dict(layer), "output")),
            "weights": _counted(layer.get("weights")),
            "trainable": str(layer.get("trainable") or ""),
            "multiply_adds": _amount(layer.get("multiply_adds")) if layer.get("multiply_adds") else "",
        }
        for layer in layers
    ]
    facts = [fact for fact in facts if fact[1]]
    return {"facts": facts, "rows": rows} if facts or rows else None


def _amount(value: object) -> str:
    number = finite(value)
    return large(number) if number is not None else ""


def _counted(value: object) -> str:
    number = finite(value)
    return count(number) if number else ""


def _size(value: object) -> str:
    number = finite(value)
    return size_text(number) if number is not None else ""


def training(run: RunFiles) -> Section | None:
    """Loss, validation numbers and learning rate against the step, or why there is nothing to draw."""
    if run.history is None and not within(run.config, "training"):
        return None
    final, folds = _history(run)
    faint = "Faint lines: folds."
    if final.empty and len(folds):  # their models answer together
        first = folds["fold"] == folds["fold"].iloc[0]
        final, folds, faint = folds[first], folds[~first], "The first fold; faint lines: the others."
    exact = within(run.config, "training").get("optimizer") == "exact"
    if len(final) < 3:
        reason = "The head was solved exactly on frozen features, in one go: there is no curve to draw."
        return {"drawings": [], "message": reason if exact else "Fewer than three steps were recorded: there is no curve to draw."}
    drawings = []
    losses = {"train_loss": "training", "validation_loss": "validation"}
    if present := _present(final, losses):
        drawings.append(draw(figures.history(final, present, "loss", folds), "Loss", faint if len(folds) else ""))
    drawings += _score_curves(final)
    if _present(final, {"learning_rate": ""}):
        drawings.append(draw(figures.learning_rate(final), "Learning rate"))
    if _present(final, {"images_per_second": ""}):
        drawings.append(draw(figures.speed(final), "Speed"))
    return {"drawings": drawings, "message": "" if drawings else "The history holds no loss and no score: there is no curve to draw."}


def _score_curves(final: pd.DataFrame) -> list[Drawing]:
    """Accuracy and macro F1 on the validation part; where macro F1 was noted on the training images too, the two of them."""
    both = _present(final, {"train_macro_f1": "training", "validation_macro_f1": "validation"})
    if len(both) == 2:
        accuracy = _present(final, {"validation_accuracy": "accuracy"})
        alone = [draw(figures.history(final, accuracy, "", None, share=True), "Accuracy on the validation part")] if accuracy else []
        return [*alone, draw(figures.history(final, both, "macro F1", None), "Macro F1", BESIDE)]
    present = _present(final, {"validation_accuracy": "accuracy", "validation_macro_f1": "macro F1"})
    if not present:
        return []
    named = "macro F1" if list(present.values()) == ["macro F1"] else ""
    title = "Macro F1 on the validation part" if named else "On the validation part"
    return [draw(figures.history(final, present, named, None, share=not named), title)]


def _history(run: RunFiles) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of the final fit and those of the folds; steps go on from one phase to the next."""
    table = run.history
    if table is None or "step" not in table:
        return pd.DataFrame(), pd.DataFrame()
    for column in HISTORY:
        table = table.assign(**{column: pd.to_numeric(table[column], errors="coerce") if column in table else np.nan})
    table = table.dropna(subset=["step"])
    in_fold = table["fold"].notna() if "fold" in table else pd.Series(data=False, index=table.index)
    final = table[~in_fold]
    fits = [rows for _, rows in final.groupby("group", sort=False, dropna=False)] if "group" in final else [final]
    going_on = [rows.assign(step=_going_on(rows, "step"), epoch=_going_on(rows, "epoch")) for rows in fits]
    return pd.concat(going_on) if going_on else final, table[in_fold]


def _going_on(rows: pd.DataFrame, column: str) -> FloatArray:
    """Steps or epochs that go on where the phase before ended, in place of beginning anew."""
    values, steps = rows[column].to_numpy(dtype=np.float64), rows["step"].to_numpy(dtype=np.float64)
    restarts = np.append(0.0, np.where(np.diff(steps) < 0, np.nan_to_num(values[:-1]), 0.0)) if len(values) else values
    return np.asarray(values + np.cumsum(restarts))


def _present(table: pd.DataFrame, columns: Mapping[str, str]) -> dict[str, str]:
    return {column: name for column, name in columns.items() if column in table and table[column].notna().sum() >= 2}


def time(run: RunFiles) -> Section | None:
    """Seconds a stage and images a second."""
    stages = {name: value for name, each in within(run.timing, "stages").items() if (value := finite(each)) is not None}
    total = finite(run.timing.get("total_seconds"))
    speeds = {"training_images_per_second": "Training", "prediction_images_per_second": "Judging, intervals included"}
    facts = [("In all", duration(total))] if total is not None else []
    facts += [(title, f"{_speed(value)} images a second") for key, title in speeds.items() if (value := finite(run.timing.get(key)))]
    drawing = draw(figures.stages(stages), "Time", "Wall time of each stage.") if stages else None
    return {"drawing": drawing, "facts": facts} if facts or drawing else None


def _speed(value: float) -> str:
    return count(value) if value >= 10 else f"{value:.2g}"


def sentence(text: object) -> str:
    """Text with its first letter in upper case."""
    words = str(text or "")
    return words[:1].upper() + words[1:]


def warnings(run: RunFiles, part: str | None) -> list[tuple[str, str]]:
    """(level, sentence) of what a reader must know before believing the numbers."""
    found = [
        (str(finding.get("level")), sentence(finding.get("message")))
        for finding in items(run.audit, "findings")
        if isinstance(finding, Mapping) and finding.get("level") in ("problem", "warning")
    ]
    found.sort(key=lambda each: each[0] != "problem")
    size, accuracy = finite(within(run.metrics, part or "").get("n")), shown(within(run.metrics, part or "").get("accuracy"))
    if size is not None and size < 50 and accuracy is not None and accuracy.low is not None and accuracy.high is not None:
        width = 100 * (accuracy.high - accuracy.low)
        found.append(
            (
                "warning",
                f"Only {plural(int(size), 'image')} judged this model: the interval of the accuracy is {width:.0f} percentage points wide.",
            )
        )
    if part == "validation":
        found.append(
            (
                "warning",
                "There is no test part and there were no folds. The validation part helped to choose the model: expect less on new images.",
            )
        )
    return found
