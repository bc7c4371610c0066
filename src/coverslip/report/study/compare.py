"""The page of a comparison: which run is best, which cannot be told from it, and what each costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from coverslip.report.files import RunFiles, items, within
from coverslip.report.numbers import Shown, count, decimal, finite, label, listed, plural, shown
from coverslip.report.pictures import Album, wrong_decision
from coverslip.report.results import confusion
from coverslip.report.scores import counted_confusion, curves, scored
from coverslip.report.sections import class_names, draw
from coverslip.report.sections import warnings as run_warnings
from coverslip.report.study import compare_figures as figures
from coverslip.report.study.files import StudyFiles, read_study, untrained
from coverslip.report.study.page import Block, Card, Listing, Page, Shot
from coverslip.report.study.weights import weight_block

COLUMNS: tuple[figures.Column, ...] = (
    ("accuracy", "accuracy", True, False),
    ("precision", "precision", True, False),
    ("recall", "recall", True, False),
    ("macro_f1", "F1, macro", True, False),
    ("roc_auc", "ROC AUC", True, False),
    ("log_loss", "log loss", False, False),
    ("alone", "training", False, True),
    ("inference_time_secs", "inference", False, True),
)
"""Columns of the heatmap."""
SEVERAL = {"accuracy": "all right", "roc_auc": "AUC, macro"}
COLUMNS_OF_SEVERAL = tuple((name, SEVERAL.get(name, title), rising, timed) for name, title, rising, timed in COLUMNS)
"""With several labels an image."""
PARTS = {"test": "the test part", "folds": "out-of-fold predictions", "validation": "the validation part"}
MOST_RUNS = 60
"""Runs that a figure draws, the best ones."""
SHOTS = 12


def page(folder: Path) -> Page:
    """The page of a comparison, from the files of its folder.

    Raises:
        RunFolderError: the folder is not a study, or one of its files is damaged.
    """
    study = read_study(folder)
    table = _table(study)
    verdict = study.mapping("verdict.json")
    done = table[table["status"] == "done"]
    best = study.run(verdict.get("best")) if verdict.get("best") else None
    part = _judged_on(done, verdict.get("best"))
    found = [
        *_numbers(table, done, verdict),
        *_best(best, part, str(verdict.get("best"))),
        *_curves(study, done, str(verdict.get("best"))),
        _against(verdict),
        weight_block([run for name in done["model_id"] if (run := study.run(name)) is not None]),
        *_gallery(study),
        _axes(study),
        _left_out(table),
    ]
    return Page(
        name=folder.absolute().name,
        kind="compare",
        headline=str(verdict.get("sentence") or "This comparison is not finished; go on with --resume."),
        cards=_cards(table, done, verdict),
        warnings=[*_untrained(study, done), *_warnings(verdict, best, part)],
        blocks=[block for block in found if block is not None],
        facts=_facts(study, done),
        command=str(study.study.get("command") or ""),
        config=study.study_text,
    )


def _table(study: StudyFiles) -> pd.DataFrame:
    """results.csv with its numbers as numbers, and what each run would take alone."""
    columns = ["model_id", "status", "error", "verdict", "judged_on", "hardware_type", "pretrained_model", "classifier_head"]
    table = study.results if study.results is not None else pd.DataFrame(columns=columns)
    numeric = [name for name, *_ in COLUMNS if name != "alone"] + ["training_time_mins", "features_time_mins"]
    numeric += [f"{name}_{end}" for name in ("accuracy", "macro_f1") for end in ("low", "high")]
    for name in numeric:
        table = table.assign(**{name: pd.to_numeric(table[name], errors="coerce") if name in table else float("nan")})
    table = table.assign(verdict=table["verdict"].fillna(""), error=table["error"].fillna(""))
    return table.assign(alone=60 * (table["training_time_mins"] + table["features_time_mins"].fillna(0)))


def _judged_on(done: pd.DataFrame, name: object) -> str:
    """The part that judged a run; with `split.folds` as an axis runs differ."""
    found = done.loc[done["model_id"] == name, "judged_on"]
    return str(found.iloc[0]) if len(found) else ""


def _number(verdict: Mapping[str, Any]) -> str:
    return str(verdict.get("number") or "accuracy")


def _by_rank(done: pd.DataFrame, verdict: Mapping[str, Any]) -> pd.DataFrame:
    """The runs with numbers, best first."""
    order = [verdict.get("best"), *(one.get("model_id") for one in items(dict(verdict), "compared"))]
    place = {name: number for number, name in enumerate(order)}
    ranks = done["model_id"].map(lambda name: place.get(name, len(place)))
    return done.loc[ranks.sort_values(kind="stable").index]


def _cards(table: pd.DataFrame, done: pd.DataFrame, verdict: Mapping[str, Any]) -> list[Card]:
    number = _number(verdict)
    cards = []
    found = done[done["model_id"] == verdict.get("best")]
    if len(found):
        row = found.iloc[0]
        value = Shown(finite(row[number]), finite(row[f"{number}_low"]), finite(row[f"{number}_high"]))
        level = f"{100 * float(verdict.get('level', 0.95)):g} % interval"
        text, ends = (value.percent, value.interval_percent) if number == "accuracy" else (value.text, value.interval)
        cards.append(Card(f"{label(number)} of the best", text, f"{level} {ends}", value))
    equals = items(dict(verdict), "cannot_be_told_from_best")
    cards.append(Card("Runs", f"{len(done)} of {len(table)}", "have numbers"))
    if len(done) > 1:
        cards.append(Card("Cannot be told from the best", str(len(equals)), f"of the {len(done) - 1} others"))
    return cards


def _warnings(verdict: Mapping[str, Any], best: RunFiles | None, part: str) -> list[tuple[str, str]]:
    notes = [("warning", str(note)) for note in items(dict(verdict), "notes")]
    return [*notes, *(run_warnings(best, part or None) if best is not None else [])]


def _untrained(study: StudyFiles, done: pd.DataFrame) -> list[tuple[str, str]]:
    """A warning about runs whose models are those from before their first step."""
    names = [str(name) for name in done["model_id"] if untrained(study.run(name))]
    if not names:
        return []
    shown_names = listed([*names[:3], *([f"{len(names) - 3} more"] if len(names) > 3 else [])])
    return [
        ("warning", f"Kept the weights from before the first step, for no later ones did better on the validation part: {shown_names}.")
    ]


def _numbers(table: pd.DataFrame, done: pd.DataFrame, verdict: Mapping[str, Any]) -> list[Block]:
    number, best = _number(verdict), str(verdict.get("best") or "")
    if not len(done):
        return []
    shown_rows = table if len(table) <= MOST_RUNS else _by_rank(done, verdict).head(MOST_RUNS)
    left_out = "" if len(shown_rows) == len(table) else f" The best {len(shown_rows)} of {len(table)} runs; all are in results.csv."
    heat = draw(
        figures.heatmap(shown_rows, COLUMNS_OF_SEVERAL if number == "macro_f1" else COLUMNS, best), "All runs",
        "The stronger the blue, the better within its column; the best is bold. Precision and recall are weighted by class; training is "
        "the time of a run on its own, with the features that it may share; inference is the time of the whole network for the images "
        "that judge it." + left_out,
    )  # fmt: skip
    ranked = _by_rank(done, verdict).dropna(subset=[number]).head(MOST_RUNS)
    if not len(ranked):
        return [Block("All runs", figures=(heat,))]
    bars = draw(figures.bars(ranked, number, label(number).lower()), f"{label(number)} with intervals", str(verdict.get("method") or ""))
    spread = draw(
        figures.time_and_number(ranked, number, label(number).lower()), "Time and " + label(number).lower(),
        "What a run would take on its own. Runs of one network that share features took less together.",
    )  # fmt: skip
    return [Block("All runs", figures=(heat,)), Block(bars.title, figures=(bars,)), Block(spread.title, figures=(spread,))]


def _best(best: RunFiles | None, part: str, name: str) -> list[Block]:
    if best is None:
        return []
    numbers = within(best.metrics, part)
    matrix = confusion(numbers, class_names(best)) or confusion(
        {"confusion": counted_confusion(scored(best, part))}, class_names(best)
    )  # fmt: skip
    drawn = [drawing for drawing in curves(best, part) if drawing.title == "ROC curve"]
    return [Block("The best run", f"{name}, on {PARTS.get(part, part)}.", figures=drawn, matrix=matrix)] if matrix or drawn else []


def _curves(study: StudyFiles, done: pd.DataFrame, best: str) -> list[Block]:
    """Training loss of the runs that learned by steps."""
    found: dict[str, dict[str, pd.DataFrame]] = {}
    for row in done.head(MOST_RUNS).to_dict("records"):
        run = study.run(row["model_id"])
        history = None if run is None else run.history
        if history is None or not {"epoch", "train_loss"} <= set(history):
            continue
        final = history[history["fold"].isna()] if "fold" in history else history
        final = final.dropna(subset=["train_loss", "epoch"])
        if len(final) > 2:
            found.setdefault(str(row["pretrained_model"]), {})[str(row["model_id"])] = final
    if not found:
        return []
    found = dict(list(found.items())[:6])
    thick = " Thick: the best run." if any(best in runs for runs in found.values()) else ""
    drawing = draw(figures.losses(found, best), "Learning curves", f"Training loss of the fit that is kept.{thick}")
    return [Block("Learning curves", figures=(drawing,))]


def _against(verdict: Mapping[str, Any]) -> Block | None:
    """The best run held against each other."""
    compared = [one for one in items(dict(verdict), "compared") if isinstance(one, Mapping)]
    if not compared:
        return None
    tests = {str(one.get("test")) for one in compared}
    rows = []
    for one in compared:
        difference = shown(one.get("difference")) or Shown(None)
        interval = f"{decimal(difference.low)} to {decimal(difference.high)}" if difference.bounded else ""
        said = "worse" if one.get("worse") else "not told apart"
        test = [str(one.get("test"))] if len(tests) > 1 else []
        rows.append((str(one.get("model_id")), difference.text, interval, _p(one.get("p")), _p(one.get("p_corrected")), *test, said))
    head = ("Run", "Behind by", "Interval", "p", "p, corrected", *(["Test"] if len(tests) > 1 else []), "Verdict")
    images = count(float(verdict.get("images") or 0))
    note = f"How far each run is behind {verdict.get('best')}, on {images} images. {verdict.get('method') or ''}"
    return Block("Is the difference real?", note, table=Listing(head, rows, right=(1, 2, 3, 4, len(head) - 1)))


def _p(value: object) -> str:
    number = finite(value)
    return "" if number is None else "< 0.001" if number < 0.001 else f"{number:.3f}"


def _gallery(study: StudyFiles) -> list[Block]:
    """Predictions of the best run on images that it had not seen."""
    index = study.json("pictures/index.json")
    entries = [entry for entry in index if isinstance(entry, dict)] if isinstance(index, list) else []
    album, blocks = Album(study.folder / "pictures"), []
    for kind, title, note in (
        ("mistake", "Wrong on unseen images", "The best run's mistakes, the most confident first."),
        ("right", "Right on unseen images", "Some of what the best run got right, the classes in turn."),
    ):
        chosen = [(entry, picture) for entry in entries if entry.get("kind") == kind and (picture := album.picture(entry.get("file")))]
        shots = [
            Shot(picture, _lines(entry, right=kind == "right"), str(entry.get("image") or "")) for entry, picture in chosen[:SHOTS]
        ]  # fmt: skip
        if shots:
            blocks.append(Block(title, note, gallery=shots))
    return blocks


def _lines(entry: Mapping[str, Any], *, right: bool) -> list[tuple[str, bool]]:
    said, score = str(entry.get("predicted") or "no class").replace("|", ", "), finite(entry.get("score"))
    wrong = wrong_decision(entry)
    with_score = said + ("" if score is None or wrong else f" ({score:.2f})")
    true = str(entry.get("label") or "no class").replace("|", ", ")
    return (
        [(with_score, True)]
        if right
        else [(f"predicted {with_score}", True), *([(wrong, False)] if wrong else []), (f"label {true}", False)]
    )


def _axes(study: StudyFiles) -> Block | None:
    """What was varied, and what was left out of it."""
    axes = within(study.study, "axes")
    if not axes:
        return None
    rows = [(key, listed([_value(value) for value in values]) if isinstance(values, list) else str(values)) for key, values in axes.items()]
    excluded = [one for one in items(study.study, "exclude") if isinstance(one, Mapping)]
    note = "Every combination is a run." if not excluded else f"Every combination is a run, but for {plural(len(excluded), 'exclusion')}."
    return Block("What was compared", note, table=Listing(("Key", "Values"), rows))


def _value(value: object) -> str:
    return ", ".join(f"{name} {one}" for name, one in value.items()) if isinstance(value, Mapping) else str(value)


def _left_out(table: pd.DataFrame) -> Block | None:
    rest = table[table["status"] != "done"]
    if not len(rest):
        return None
    named: dict[tuple[str, str], list[str]] = {}
    for row in rest.to_dict("records"):
        named.setdefault((str(row["status"]), str(row["error"])), []).append(str(row["model_id"]))
    rows = [(status, reason, str(len(names)), listed(names)) for (status, reason), names in named.items()]
    return Block("Runs without numbers", "", table=Listing(("Status", "Why", "Runs", "Names"), rows, right=(2,)))


def _facts(study: StudyFiles, done: pd.DataFrame) -> list[tuple[str, str]]:
    blocks = {"Software": within(study.study, "versions"), "Machine": within(study.study, "machine")}
    facts = [(title, ", ".join(f"{name} {value}" for name, value in block.items())) for title, block in blocks.items() if block]
    data = within(study.study, "base", "data").get("path")
    parts = [PARTS.get(part, part) for part in dict.fromkeys(map(str, done["judged_on"].dropna()))]
    return [("Data", str(data or "")), ("Grid", str(study.study.get("grid") or "")), ("Judged on", listed(parts)), *facts]
