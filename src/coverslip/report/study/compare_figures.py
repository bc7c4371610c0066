"""The figures of a comparison. Each is pure: a table of results in, a matplotlib `Figure` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from coverslip.report.figures import BLUE, FAINT, FULL, HALF, INK, MUTED, ORANGE, PAPER, SERIES, VERMILION, figure, styled
from coverslip.report.numbers import duration, shorten

NAME = 44
"""Characters of a run's name that a figure shows."""
MARKERS = "osD^vP"
SHADES = (0.05, 0.55)
"""Opacity of the blue of the worst and the best of a column: text in the colour of ink is read on all of them, on light and dark pages."""
MOST_LINES = 8
"""Curves of one panel that are told apart; more are drawn faintly but for the best."""

Column = tuple[str, str, bool, bool]
"""Column of the table, its title, whether larger is better, whether it is a time."""


@styled
def heatmap(table: pd.DataFrame, columns: Sequence[Column], best: str) -> Figure:
    """A row a run, a column a number: the better within its column, the stronger the blue, the best bold; empty without numbers."""
    rows = len(table)
    widest = max((len(shorten(str(name), NAME)) for name in table["model_id"]), default=0)
    drawing, (axes,) = figure(FULL, 0.26 * rows + 0.75)
    for column, (name, _, rising, timed) in enumerate(columns):
        values = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64)
        for row, (value, strength) in enumerate(zip(values, _strengths(values, rising=rising, logarithmic=timed), strict=True)):
            _cell(axes, row, column, value, strength, timed=timed)
    for row, status in enumerate(table["status"]):
        if status != "done":
            axes.annotate(status, ((len(columns) - 1) / 2, row), ha="center", va="center", color=MUTED, fontsize=9, style="italic")
    axes.set_xticks(range(len(columns)), [title for _, title, _, _ in columns], color=INK, fontsize=9)
    axes.xaxis.tick_top()
    axes.set_yticks(range(rows), [shorten(str(name), NAME) for name in table["model_id"]], color=INK, fontsize=9 if widest < 36 else 8)
    for label, name in zip(axes.get_yticklabels(), table["model_id"], strict=True):
        label.set_fontweight("bold" if name == best else "normal")
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return drawing


def _strengths(values: np.ndarray, *, rising: bool, logarithmic: bool) -> np.ndarray:
    """From 0 (worst of the column) to 1 (best); NaN stays NaN."""
    scaled = np.log(np.maximum(values, 1e-9)) if logarithmic else values
    known = scaled[~np.isnan(scaled)]
    if not len(known) or np.ptp(known) == 0:
        return np.where(np.isnan(scaled), np.nan, 0.5)
    share = (scaled - known.min()) / np.ptp(known)
    return np.asarray(share if rising else 1 - share)


def _cell(axes: Axes, row: int, column: int, value: float, strength: float, *, timed: bool) -> None:
    if np.isnan(value):
        axes.add_patch(Rectangle((column - 0.48, row - 0.46), 0.96, 0.92, facecolor=FAINT, alpha=0.14, linewidth=0))
        return
    faintest, strongest = SHADES
    alpha = faintest + (strongest - faintest) * strength
    axes.add_patch(Rectangle((column - 0.48, row - 0.46), 0.96, 0.92, facecolor=BLUE, alpha=alpha, linewidth=0))
    text = duration(value) if timed else f"{value:.3f}"
    weight = "bold" if strength == 1 else "normal"
    axes.annotate(text, (column, row), ha="center", va="center", color=INK, fontsize=9, fontweight=weight)


@styled
def bars(table: pd.DataFrame, number: str, title: str) -> Figure:
    """The main number of each run with its interval, best first: full dots cannot be told from the best, open ones are worse."""
    drawing, (axes,) = figure(FULL, 0.235 * len(table) + 0.85)
    for row, one in enumerate(table.to_dict("records")):
        worse = one["verdict"] == "worse"
        colour = ORANGE if worse else BLUE
        value, low, high = (float(one[name]) for name in (number, f"{number}_low", f"{number}_high"))
        axes.hlines(row, low, high, color=colour, linewidth=2.2 if not worse else 1.4, alpha=0.75)
        axes.plot([low, high], [row, row], linestyle="", marker="|", markersize=6, markeredgewidth=1.3, color=colour)
        marker, size = ("D", 7) if one["verdict"] == "best" else ("o", 6)
        face = PAPER if worse else colour
        axes.plot(value, row, marker=marker, markersize=size, color=colour, markerfacecolor=face, markeredgewidth=1.5, zorder=3)
        where: Any = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        axes.annotate(f"{value:.3f}", (1.0, row), (6, 0), **where, va="center", fontsize=8)
    axes.set_yticks(range(len(table)), [shorten(str(name), NAME) for name in table["model_id"]], color=INK, fontsize=8)
    axes.set_ylim(len(table) - 0.4, -0.6)
    lowest = float(np.nanmin(table[f"{number}_low"]))
    axes.set_xlim(max(0.0, np.floor(lowest * 10) / 10 - 0.02), 1.02)
    axes.set_xlabel(title)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    _legend(axes, [("D", BLUE, BLUE, "best"), ("o", BLUE, BLUE, "cannot be told from it"), ("o", ORANGE, PAPER, "worse")], table["verdict"])
    return drawing


def _legend(axes: Axes, kinds: Sequence[tuple[str, str, str, str]], verdicts: pd.Series) -> None:
    present = {"best": "best", "worse": "worse"}
    shown = {present.get(str(verdict), "cannot be told from it") for verdict in verdicts}
    for marker, edge, face, word in kinds:
        if word in shown:
            axes.plot([], [], linestyle="", marker=marker, color=edge, markerfacecolor=face, markeredgewidth=1.5, markersize=6, label=word)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.2, handletextpad=0.3)


@styled
def time_and_number(table: pd.DataFrame, number: str, title: str) -> Figure:
    """What a run takes on its own against what it reaches: a colour a network, a shape a head."""
    drawing, (axes,) = figure(FULL, 3.6)
    size, unit = _time_unit(float(table["alone"].max()))
    known = table["alone"].to_numpy(dtype=np.float64)[table["alone"].to_numpy() > 0]
    both = len(set(table["hardware_type"])) > 1
    networks, heads = _names(table, "pretrained_model"), _names(table, "classifier_head")
    for (network, head), rows in table.groupby(["pretrained_model", "classifier_head"], sort=False):
        place = networks.index(str(network))
        colour = SERIES[place] if place < len(SERIES) else MUTED
        marker = MARKERS[heads.index(str(head)) % len(MARKERS)]
        for one in rows.to_dict("records"):
            filled = PAPER if both and one["hardware_type"] != "cpu" else colour
            axes.plot(
                one["alone"] / size, one[number], marker=marker, color=colour, markerfacecolor=filled, markersize=8, markeredgewidth=1.5,
                alpha=0.8, linestyle="",
            )  # fmt: skip
    named = networks if len(networks) <= len(SERIES) else [*networks[: len(SERIES)], f"{len(networks) - len(SERIES)} other networks"]
    for network, colour in zip(named, (*SERIES, MUTED), strict=False):
        axes.plot([], [], linestyle="", marker="s", color=colour, markersize=7, label=shorten(network, 28))
    for place, head in enumerate(heads):
        axes.plot([], [], linestyle="", marker=MARKERS[place % len(MARKERS)], color=MUTED, markersize=7, label=f"head {shorten(head, 18)}")
    if both:
        axes.plot([], [], linestyle="", marker="o", color=MUTED, markerfacecolor=PAPER, markersize=7, label="on a GPU")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0)
    if len(known) and known.max() / known.min() > 4:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0), numticks=12))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(f"{unit} that a run takes on its own, features included")
    axes.set_ylabel(title)
    return drawing


def _time_unit(longest: float) -> tuple[float, str]:
    """Seconds of the unit in which a time axis is best read, and its name."""
    return (3600.0, "hours") if longest >= 7200 else (60.0, "minutes") if longest >= 120 else (1.0, "seconds")


def _names(table: pd.DataFrame, column: str) -> list[str]:
    return list(dict.fromkeys(str(name) for name in table[column]))


@styled
def losses(curves: Mapping[str, Mapping[str, pd.DataFrame]], best: str) -> Figure:
    """Training loss against the epoch: a panel a network, a line a run. `curves` maps network to run to its history."""
    names = {network: dict(zip(runs, short_names(list(runs)), strict=True)) for network, runs in curves.items()}
    kinds = list(dict.fromkeys(name for each in names.values() for name in each.values()))
    faint = len(kinds) > MOST_LINES
    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    drawing = Figure(figsize=(FULL if columns > 1 else HALF, 2.7 * rows + 0.45), layout="constrained")
    panels = drawing.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes, (network, runs) in zip(panels, curves.items(), strict=False):
        for name, history in runs.items():
            leads, kind = name == best, kinds.index(names[network][name])
            colour = (VERMILION if leads else FAINT) if faint else SERIES[kind % len(SERIES)]
            axes.plot(
                history["epoch"], history["train_loss"], color=colour, linewidth=2.6 if leads else 1.4, zorder=3 if leads else 2,
                linestyle="--" if kind >= len(SERIES) and not faint else "-",
            )  # fmt: skip
        axes.set_title(shorten(network, 30))
        axes.set_xlabel("epoch")
        axes.set_ylim(bottom=0)
    for axes in panels[len(curves) :]:
        axes.set_visible(False)
    panels[0].set_ylabel("training loss")
    shown = [(VERMILION, "the best run"), (FAINT, "the others")] if faint else list(zip((*SERIES, *SERIES), kinds, strict=False))
    lines = [Line2D([], [], color=colour, linestyle="--" if place >= len(SERIES) else "-") for place, (colour, _) in enumerate(shown)]
    drawing.legend(lines, [shorten(word, 30) for _, word in shown], loc="outside lower center", ncols=4)
    return drawing


def short_names(names: Sequence[str]) -> list[str]:
    """What differs between names of runs: the words that all begin or end with are left out, but for the word before a bare number.

    >>> short_names(["cpu-resnet18-single-adam", "cpu-resnet18-multi-adam"]), short_names(["weight-decay-0", "weight-decay-0.05"])
    (['single', 'multi'], ['decay-0', 'decay-0.05'])
    """
    words = [name.split("-") for name in names]
    shortest = min(map(len, words))
    before = next((place for place in range(shortest) if len({each[place] for each in words}) > 1), 0)
    while before and any(not each[before][:1].isalpha() for each in words):
        before -= 1
    after = next((place for place in range(shortest - before) if len({each[-1 - place] for each in words}) > 1), 0)
    return ["-".join(each[before : len(each) - after]) or name for each, name in zip(words, names, strict=True)]
