"""The story of the page: read the run, say what it found, write one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coverslip.report import doubts, explanations, results, scores, sections, several, weights
from coverslip.report.files import RunFiles, read_run, within
from coverslip.report.methods import fold_counts, interval_level, methods
from coverslip.report.numbers import Shown, count, label, percent, shown
from coverslip.report.pictures import Album
from coverslip.report.templates import template
from coverslip.runtime import write_file

CARDS = ("accuracy", "macro_f1", "roc_auc")
CARDS_OF_SEVERAL = ("macro_f1", "micro_f1", "macro_roc_auc")


def write_report(folder: Path) -> Path:
    """Write `report.html` into a run folder from the files that the run left there.

    The page is one file: figures and pictures inside, no script, no outside address; for screens (light and dark) and
    paper. What a run did not write is left out of the page.

    Args:
        folder: the folder of a run or of an evaluation.

    Returns:
        The path of the page.

    Raises:
        MissingInputError: the folder is not a run.
        RunFolderError: one of its files is damaged.
        ResourceError: the disk is full or the folder cannot be written; nothing half-written stays behind.
    """
    run = read_run(folder)
    path = folder / "report.html"
    write_file(path, render(run))
    return path


def render(run: RunFiles) -> str:
    """The page of a run, as HTML."""
    part, album = sections.headline_part(run), Album(run.folder / "pictures")
    paragraphs, references = methods(run, part)
    found = results.results(run, part)
    if found is not None and found["confusion"] is None:
        numbers = {"confusion": scores.counted_confusion(scores.scored(run, part))}
        found["confusion"] = results.confusion(numbers, sections.class_names(run))
    explained = explanations.of_run(run, album)  # first, so that a page that is full has them
    content = {
        "name": run.folder.absolute().name,
        "recipe": within(run.environment, "recipe"),
        "headline": headline(run, part),
        "baseline": baseline(run, part),
        "level": interval_level(run),
        "cards": cards(run, part),
        "warnings": sections.warnings(run, part),
        "data": sections.data(run, album),
        "split": sections.split(run),
        "seen": sections.seen(run, album),
        "colours": sections.colours(run),
        "class_rows": several.class_rows(run, album),
        "augmented": sections.augmented(run, album),
        "model": sections.model(run),
        "training": sections.training(run),
        "weights": weights.weights(run),
        "results": found,
        "curves": scores.curves(run, part),
        "composition": several.composition(run),
        "matrices": several.matrices(run, part),
        "reliability": several.reliability(run, part),
        "calibration": several.calibration(run),
        "thresholds": several.thresholds(run, part),
        "mistakes": sections.mistakes(run, album, "mistake"),
        "explained": explained,
        "doubts": doubts.doubts(run, part),
        "label_errors": sections.mistakes(run, album, "label_error"),
        "more_images": results.more_images(run),
        "time": sections.time(run),
        "methods": paragraphs,
        "references": references,
        "environment": environment_facts(run),
        "notes": [str(note) for note in run.environment.get("notes") or []],
        "command": command(run),
        "config": run.config_text,
        "left_out": album.left_out,
    }
    return template("template.html").render(content)


def headline(run: RunFiles, part: str | None) -> str:
    """The result in one plain sentence, with its interval."""
    numbers = within(run.metrics, part or "")
    accuracy, size = shown(numbers.get("accuracy")), numbers.get("n")
    if accuracy is None or accuracy.value is None or not isinstance(size, int):
        f1 = shown(numbers.get("macro_f1"))
        where = {
            "test": "On {} images the model had not seen",
            "validation": "On {} validation images",
            "folds": "In cross-validation of {} images",
        }
        place = where.get(part or "", "On {} images").format(count(size)) if isinstance(size, int) else "Here"
        if f1 is None:
            return "This run has no numbers yet."
        over = results.over_classes(run, numbers.get("macro_f1"))
        return f"{place} macro F1{' ' + over if over else ''} is {f1.text}{_ends(run, f1.interval)}."
    ends, images = _ends(run, accuracy.interval_percent), "image" if size == 1 else "images"
    hits = round(accuracy.value * size)
    right = f"{'all' if hits == size > 2 else ''} {count(hits)} {'was' if hits == 1 else 'were'} right".strip()
    if part == "folds":
        folds, repeats = fold_counts(numbers)
        again = "" if repeats < 2 else ", repeated twice" if repeats == 2 else f", repeated {repeats} times"
        way = f"In {folds}-fold cross-validation{again}" if folds else "In cross-validation"
        return f"{way}, {accuracy.percent}{ends} of {count(size)} {images} were classified correctly while held out from training."
    if part == "validation":
        return f"On {count(size)} validation {images}, {right}: {accuracy.percent}{ends}."
    return f"On {count(size)} {images} the model had not seen, {right}: {accuracy.percent}{ends}."


def _ends(run: RunFiles, interval: str) -> str:
    level = interval_level(run)
    return f" ({level + ' ' if level else ''}interval {interval})" if interval else ""


def baseline(run: RunFiles, part: str | None) -> str:
    """What always answering the most frequent class would reach."""
    support = {
        name: each.get("support", 0) for name, each in within(run.metrics, part or "", "per_class").items() if isinstance(each, dict)
    }
    if run.metrics.get("task") == "multilabel" or len(support) < 2 or not sum(support.values()):
        return ""
    largest = max(support, key=lambda name: support[name])
    return f"Always answering “{largest}” would be right in {percent(support[largest] / sum(support.values()))}."


def cards(run: RunFiles, part: str | None) -> list[tuple[str, Shown, str, str]]:
    """(name, number, value as text, interval as text) of the numbers that open the page."""
    numbers = within(run.metrics, part or "")
    names = CARDS_OF_SEVERAL if run.metrics.get("task") == "multilabel" else CARDS
    found = [(name, number) for name in names if (number := shown(numbers.get(name))) is not None]
    return [
        (label(name), each, each.percent, each.interval_percent) if name == "accuracy" else (label(name), each, each.text, each.interval)
        for name, each in found
    ]


def command(run: RunFiles) -> str:
    """The command that made the run, as one line."""
    value = run.environment.get("command")
    return " ".join(str(word) for word in value) if isinstance(value, list) else str(value or "")


def environment_facts(run: RunFiles) -> list[tuple[str, str]]:
    """Versions, machine, seeds and git state, a line each."""
    environment = run.environment
    device = ", ".join(str(environment[key]) for key in ("device", "precision") if environment.get(key))
    blocks: dict[str, Any] = {
        "Software": environment.get("versions"),
        "Machine": environment.get("machine"),
        "Seeds": environment.get("seeds"),
        "Git": environment.get("git"),
        "Data": environment.get("data"),
    }
    facts = [
        (title, ", ".join(f"{str(name).replace('_', ' ')} {value}" for name, value in block.items()))
        for title, block in blocks.items()
        if isinstance(block, dict)
    ]
    given = [(title, text) for title, key in (("Bundle", "bundle"), ("Data", "data")) if isinstance(text := environment.get(key), str)]
    return [fact for fact in [*facts, ("Device", device), *given] if fact[1]]
