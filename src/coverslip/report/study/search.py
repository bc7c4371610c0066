"""The page of a search: from the files of its folder to the verdict, the history, what mattered, and the best configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from coverslip.report.files import within
from coverslip.report.numbers import DASH, count, decimal, duration, finite, label, percent, plural, shown
from coverslip.report.page import environment_facts
from coverslip.report.sections import Drawing, draw
from coverslip.report.study import search_figures as figures
from coverslip.report.study.files import StudyFiles, read_study, untrained
from coverslip.report.study.page import Block, Card, Listing, Page

NAMES = {"log_loss": "log loss", "macro_f1": "macro F1"}
SEARCHES = {"tpe": "guided"}
"""Searches as the page calls them; one that is not here is called by its name."""
FIRST = 10
"""Trials that the page lists, from the best."""
EDGE = 0.03
"""Share of a range, on its own scale, within which the best value counts as lying at its end."""
SHARES = ("accuracy", "exact_match")
"""Numbers that are shown in percent."""


def page(folder: Path) -> Page:
    """All that a search says about itself; what it did not write is left out."""
    study = read_study(folder)
    verdict, trials = study.mapping("verdict.json"), study.table("trials.csv")
    axis = figures.Axis(f"{NAMES.get(str(_settings(study).get('metric')), 'value')} {_where(study)}", _lower(study))
    final = study.run("final")
    blocks = [_verdict(study, verdict), _best(study, verdict)]
    if trials is not None:
        blocks += [
            _history(study, trials, axis),
            _mattered(study, trials, axis),
            _slices(study, trials, axis, verdict),
            _listing(study, trials),
        ]
    return Page(
        name=folder.absolute().name,
        kind="search",
        headline=str(verdict.get("sentence") or "This search is not finished; go on with --resume."),
        cards=_cards(study, verdict, trials),
        warnings=[("warning", text) for text in _warnings(study, verdict, trials)],
        blocks=[block for block in blocks if block is not None],
        facts=[*_facts(study, trials), *(environment_facts(final) if final is not None else [])],
        command=str(study.study.get("command") or ""),
        config=study.study_text,
    )


def _settings(study: StudyFiles) -> dict[str, Any]:
    return within(study.study, "search")


def _lower(study: StudyFiles) -> bool:
    return _settings(study).get("metric") != "macro_f1"


def _where(study: StudyFiles) -> str:
    return "out of fold" if within(study.study, "base", "split").get("folds") else "on the validation part"


def _text(name: str, value: Any) -> str:
    number = finite(value)
    return percent(number) if name in SHARES else decimal(number)


def _value(value: Any) -> str:
    """A value of the config as a reader writes it: `0.00312`, `[128]`, `adam`."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _cards(study: StudyFiles, verdict: Mapping[str, Any], trials: pd.DataFrame | None) -> list[Card]:
    cards = []
    rows = {} if study.results is None else {str(row["model_id"]): row for _, row in study.results.iterrows()}
    if {"final", "defaults"} <= set(rows):
        final, defaults = rows["final"], rows["defaults"]
        for name in dict.fromkeys([str(verdict.get("metric")), "accuracy", "macro_f1"]):
            if name in final.index:
                ends = shown({"value": final[name], "low": final[f"{name}_low"], "high": final[f"{name}_high"]})
                interval = "" if ends is None else ends.interval_percent if name in SHARES else ends.interval
                note = f"{interval}; defaults {_text(name, defaults[name])}"
                cards.append(Card(f"{label(name)}, test part", _text(name, final[name]), note, None if name == "log_loss" else ends))
    if trials is not None:
        early = int((trials["ended"] != "complete").sum())
        cards.append(Card("Trials", count(len(trials)), f"{count(early)} of them ended early" if early else "all trained to their end"))
    return cards


def _warnings(study: StudyFiles, verdict: Mapping[str, Any], trials: pd.DataFrame | None) -> list[str]:
    """What a reader must know before believing the numbers."""
    values = within(verdict, "best", "values")
    found = [text for text in (str(within(study.study, "length").get("note") or ""),) if text]
    for name, words in (("final", "best configuration"), ("defaults", "defaults")):
        if untrained(study.run(name)):
            found.append(f"The model of the {words} is that from before the first step: no later one did better on the validation part.")
    for key, stated in within(study.study, "space").items():
        side = _edge(values.get(key), stated)
        if side:
            found.append(f"The best {key} lies at the {side} end of its range: what is beyond was not tried. Widen the range.")
    if trials is None:
        return found
    best = {kind: _best_value(study, rows) for kind, rows in trials.groupby("search")}
    guided, random = best.get("tpe"), best.get("random")
    if guided is not None and random is not None and (random < guided if _lower(study) else random > guided):
        found.append(
            f"Random search found a trial that did better {_where(study)} ({decimal(random)} against {decimal(guided)}); the final "
            "model is that of the guided search."
        )
    failed = trials[trials["ended"] == "failed"]
    if len(failed):
        found.append(f"{plural(len(failed), 'trial')} failed; the first error: {failed['error'].iloc[0]}")
    return found


def _best_value(study: StudyFiles, trials: pd.DataFrame) -> float | None:
    known = trials.loc[trials["ended"] == "complete", "value"].dropna()
    return None if known.empty else float(known.min() if _lower(study) else known.max())


def _edge(value: Any, stated: Any) -> str:
    """`lower` or `upper` where a value lies at an end of its range; empty otherwise."""
    number = finite(value)
    if number is None or not isinstance(stated, Mapping):
        return ""
    place = figures.share_of_range(number, stated)
    return "lower" if place < EDGE else "upper" if place > 1 - EDGE else ""


def _verdict(study: StudyFiles, verdict: Mapping[str, Any]) -> Block | None:
    """Both models on the test part, and the difference with its interval."""
    rows = {} if study.results is None else {str(row["model_id"]): row for _, row in study.results.iterrows()}
    if not {"final", "defaults"} <= set(rows) or not verdict:
        return None
    final, defaults = rows["final"], rows["defaults"]
    table = []
    for name, stated in within(verdict, "differences").items():
        if name in final.index:
            difference = shown(stated)
            ends = f"{_signed(difference.low)} to {_signed(difference.high)}" if difference is not None and difference.bounded else ""
            change = _signed(difference.value) if difference is not None else ""
            table.append([label(name), decimal(finite(final[name])), decimal(finite(defaults[name])), change, ends])
    level, p = percent(finite(verdict.get("level"))), finite(verdict.get("mcnemar_p"))
    images = plural(int(verdict.get("n") or 0), "test image")
    note = (
        f"Both models learned for the same length, {_length(study, 'full')}, and were judged once, on {images} "
        f"that were taken out of the data before any trial. The {level} intervals are of the paired bootstrap: both "
        f"models on the same resampled images.{'' if p is None else f' Exact McNemar test of equal accuracy: p = {p:.3g}.'}"
    )
    head = ("Number", "Best configuration", "Defaults", "Difference", f"{level} interval")
    strong = [place for place, name in enumerate(within(verdict, "differences")) if name == verdict.get("metric")]
    return Block("Verdict", note, table=Listing(head, table, right=(1, 2, 3, 4), strong=strong))


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}".replace("-", "\u2212")


def _length(study: StudyFiles, which: str) -> str:
    """How long trainings are, in words."""
    stated = within(study.study, "length", which)
    if not stated:
        return "as stated"
    unit, number = next(iter(stated.items()))
    return duration(60 * number) if unit == "minutes" else f"{count(number)} {unit}"


def _best(study: StudyFiles, verdict: Mapping[str, Any]) -> Block | None:
    """The values of the best trial beside the defaults and the ranges."""
    values = within(verdict, "best", "values")
    if not values:
        return None
    defaults = within(verdict, "best", "defaults")
    ranges = within(study.study, "space").items()
    rows = [[key, _value(values.get(key)), _value(defaults.get(key, "")), _range(stated)] for key, stated in ranges]
    options = " ".join(f"-s {key}={_value(value)}" for key, value in values.items() if not isinstance(value, (dict, list)))
    note = f"Trial {verdict['best'].get('number')} of the guided search. In a training of your own: {options}"
    head = ("Key", "Best", "Default", "Range")
    return Block("Best configuration", note, table=Listing(head, rows, right=(1, 2)))


def _range(stated: Any) -> str:
    if isinstance(stated, Mapping):
        return f"{_value(stated.get('low'))} {DASH} {_value(stated.get('high'))}{', orders of magnitude' if stated.get('log') else ''}"
    return ", ".join(map(str, stated)) if isinstance(stated, Sequence) else str(stated)


def _history(study: StudyFiles, trials: pd.DataFrame, axis: figures.Axis) -> Block:
    random = " A random search with as many trials stands beside it, made in turn with it." if "random" in set(trials["search"]) else ""
    note = (
        f"A trial learns for {_length(study, 'trial')} and is judged by its {axis.name}. It ends early where it falls behind the median of "
        f"the others at the same look. The first trial is that of the defaults.{random}"
    )
    return Block("History", note, [draw(figures.history(trials, axis), "History", "Triangles at the edge: values beyond the axis.")])


def _mattered(study: StudyFiles, trials: pd.DataFrame, axis: figures.Axis) -> Block | None:
    """Which keys make the difference, and when it shows."""
    stored, looks, most = study.mapping("importance.json"), study.table("looks.csv"), int(_settings(study).get("looks") or 1)
    shares = {key: share for key, value in within(stored, "shares").items() if (share := finite(value)) is not None}
    drawn: list[Drawing] = []
    if shares:
        caption = (
            f"The share of the differences between {count(stored.get('trials') or 0)} trials that each key explains by itself (fANOVA on "
            "ranks). A key of no importance is harmless within its range, and may still matter outside of it."
        )
        ranked = dict(sorted(shares.items(), key=lambda item: -item[1]))
        drawn.append(draw(figures.importance(ranked), "Importance of each key", caption))
    if looks is not None and most > 1:
        drawn.append(draw(figures.trial_curves(looks, trials, axis, most), "Trials as they learn", "A dot: the trial was ended there."))
    return Block("What mattered", "", drawn) if drawn else None


def _slices(study: StudyFiles, trials: pd.DataFrame, axis: figures.Axis, verdict: Mapping[str, Any]) -> Block:
    drawing = figures.slices(trials, within(study.study, "space"), axis, within(verdict, "best", "values"))
    random = "; orange squares: random search" if "random" in set(trials["search"]) else ""
    note = f"Each trial at its value of one key. Blue dots: guided search{random}; open: ended early. Green line: the best configuration."
    return Block("Key by key", note, [draw(drawing, "Slices", "Values beyond the axis are left out.")])


def _listing(study: StudyFiles, trials: pd.DataFrame) -> Block:
    """The best trials that were trained to their end."""
    keys = list(within(study.study, "space"))
    whole = trials[(trials["ended"] == "complete") & trials["value"].notna()].sort_values("value", ascending=_lower(study), kind="stable")
    rows = []
    for _, row in whole.head(FIRST).iterrows():
        values = [_value(row[key]) for key in keys]
        trial = f"{SEARCHES.get(str(row['search']), row['search'])} {row['trial']}"
        rows.append([trial, decimal(finite(row["value"])), *values, duration(float(row["seconds"]))])
    head = ("Trial", NAMES.get(str(_settings(study).get("metric")), "Value").capitalize(), *(key.split(".")[-1] for key in keys), "Time")
    note = f"The best {len(rows)} of {plural(len(whole), 'trial')} that were trained to their end; all trials stand in trials.csv."
    return Block("Best trials", note, table=Listing(head, rows, right=tuple(range(1, len(head)))))


def _facts(study: StudyFiles, trials: pd.DataFrame | None) -> list[tuple[str, str]]:
    stated = study.study
    seconds = 0.0 if trials is None else float(trials["seconds"].fillna(0).sum())
    facts = [("Data", stated.get("data")), ("Space", stated.get("name")), ("Storage", stated.get("storage") or "trials.db")]
    return [*((title, str(text)) for title, text in facts if text), ("Trials took", duration(seconds))]
