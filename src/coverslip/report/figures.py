"""The figures of the page. Each function is pure: data in, matplotlib `Figure` out; `as_svg` makes it part of the page.

Colours are those of Okabe and Ito (2008), which colour-blind readers tell apart. On the page they become CSS variables,
so that one drawing serves light, dark and paper; text stays text.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from coverslip.evaluation.decisions import ReliabilityBin
from coverslip.evaluation.metrics import BINS
from coverslip.report.numbers import Shown, count, duration, shorten
from coverslip.structures import FloatArray

INK, MUTED, GRID, FAINT, PAPER = "#1c2630", "#5b6875", "#dde3e9", "#a9b4bf", "#fefefe"
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#c0699a", "#e69f00", "#56b4e9"
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    FAINT: "faint",
    PAPER: "paper",
    BLUE: "blue",
    VERMILION: "vermilion",
    GREEN: "green",
    PURPLE: "purple",
    ORANGE: "orange",
    SKY: "sky",
}

HALF, FULL = 4.5, 9.3
"""Widths of a figure, in inches: half the page, and the whole page."""

BAR = 12
"""Thickness of a bar with an interval, in points."""

NAME = 26
"""Characters of a class name that a figure shows."""

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": INK,
    "text.parse_math": False,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": FAINT,
    "axes.titlecolor": INK,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 5,
    "ytick.major.pad": 5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
    "path.simplify": True,
}

Curve = tuple[FloatArray, FloatArray]

styled = mpl.rc_context(STYLE)


def figure(width: float = HALF, height: float = 3.1, columns: int = 1, **shared: Any) -> tuple[Figure, list[Axes]]:
    """An empty figure of the page's style, in inches, with its panels in a row."""
    drawing = Figure(figsize=(width, height), layout="constrained")
    return drawing, list(drawing.subplots(1, columns, squeeze=False, **shared)[0])


def as_svg(drawing: Figure, name: str, title: str) -> str:
    """A figure as an `<svg>` element: theme colours as CSS variables, ids that are unique to `name`, no outside address."""
    stream = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # The browser has the glyphs that matplotlib's own font lacks (class names may be in any script).
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        drawing.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<g) id="[\w.]+_\d+"', r"\1", text)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r' transform="rotate\(-0 [^"]*\)"', "", text)
    text = re.sub(r"font: (\d[^;\"]*?px) [^;\"]*", r"font-size: \1", text)
    text = re.sub(r"; font-family: [^;\"]*|font-family: [^;\"]*; ", "", text)
    text = re.sub(r"#[0-9a-f]{6}", lambda found: f"var(--{VARIABLES[found[0]]}, {found[0]})" if found[0] in VARIABLES else found[0], text)
    text = re.sub(r"\s*\n\s*", " ", text).strip()
    width, height = drawing.get_size_inches() * 96
    opening = f'<svg role="img" aria-label="{html.escape(title, quote=True)}" width="{width:.0f}" height="{height:.0f}" '
    return re.sub(r'^<svg width="[^"]*" height="[^"]*" ', lambda _: opening, text)


@styled
def class_counts(counts: Mapping[str, int]) -> Figure:
    """Images a class, as bars from the first class down."""
    names, values = list(counts), np.array(list(counts.values()), dtype=np.float64)
    drawing, (axes,) = figure(HALF, _tall(len(names)))
    axes.barh(np.arange(len(names)), values, height=0.62, color=BLUE)
    for place, value in enumerate(values):
        axes.annotate(count(value), (value, place), (4, 0), textcoords="offset points", va="center", color=INK, fontsize=8)
    axes.set_xlim(0, max(float(values.max(initial=0)), 1) * 1.16)
    _names_down(axes, names)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_xlabel("images")
    return drawing


@styled
def history(table: pd.DataFrame, columns: Mapping[str, str], ylabel: str, folds: pd.DataFrame | None = None, share: bool = False) -> Figure:
    """Columns of the history against the step; `columns` maps each to its name in the legend. Folds are drawn faintly."""
    drawing, (axes,) = figure()
    for _, fold in folds.groupby("fold") if folds is not None else ():
        for column in columns:
            part = fold.dropna(subset=[column])
            axes.plot(part["step"], part[column], color=FAINT, linewidth=0.7, alpha=0.55)
    for (column, name), colour in zip(columns.items(), SERIES, strict=False):
        part = table.dropna(subset=[column])
        keys = [key for key in ("group", "phase") if key in part]
        phases = [rows for _, rows in part.groupby(keys, sort=False, dropna=False)] if keys else [part]
        for i, rows in enumerate(phases):
            marker = "o" if len(part) <= 25 or len(rows) == 1 else ""
            axes.plot(rows["step"], rows[column], color=colour, label="" if i else name, marker=marker, markersize=3.5, linewidth=1.6)
    _mark_phases(axes, table)
    _epochs_above(axes, table)
    axes.set_xlabel("step")
    axes.set_ylabel(ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if share:
        _percent_axis(axes.yaxis)
    if len(columns) > 1:
        axes.legend(loc="best")
    return drawing


@styled
def learning_rate(table: pd.DataFrame) -> Figure:
    """The learning rate against the step."""
    drawing = history(table, {"learning_rate": "learning rate"}, "learning rate")
    drawing.axes[0].set_ylim(bottom=0)
    return drawing


@styled
def speed(table: pd.DataFrame) -> Figure:
    """Images a second against the step."""
    drawing = history(table, {"images_per_second": "images a second"}, "images a second")
    drawing.axes[0].set_ylim(0, 1.2 * float(table["images_per_second"].max()))
    return drawing


@styled
def roc(curves: Mapping[str, Curve], areas: Mapping[str, Shown | None]) -> Figure:
    """Receiver operating characteristic: a curve a class; many classes are drawn faintly, the three worst named."""
    drawing, (axes,) = figure(HALF, 4.1)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)))
    _curves(axes, curves, areas, "AUC")
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    _square(axes)
    axes.legend(loc="lower right")
    return drawing


@styled
def precision_recall(curves: Mapping[str, Curve], areas: Mapping[str, Shown | None]) -> Figure:
    """Precision against recall, drawn as in `roc`."""
    drawing, (axes,) = figure(HALF, 4.1)
    _curves(axes, curves, areas, "AP", drawstyle="steps-pre")
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    _square(axes)
    axes.legend(loc="best")
    return drawing


@styled
def reliability(bins: Sequence[ReliabilityBin], *, several: bool = False) -> Figure:
    """The share that was right against the score, with intervals, over a histogram of the scores."""
    drawing = Figure(figsize=(HALF, 4.1), layout="constrained")
    axes, below = drawing.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)))
    confidence = [each.confidence for each in bins]
    axes.vlines(confidence, [each.low for each in bins], [each.high for each in bins], color=BLUE, linewidth=1.4, alpha=0.55)
    axes.plot(confidence, [each.accuracy for each in bins], color=BLUE, marker="o", markersize=4.5, linewidth=1.2)
    axes.set_ylabel("share that carries the label" if several else "share that was right")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.03)
    places = [(min(int(each.confidence * BINS), BINS - 1) + 0.5) / BINS for each in bins]
    below.bar(places, [each.n for each in bins], width=0.86 / BINS, color=FAINT)
    below.set_ylabel("decisions" if several else "images")
    below.set_xlabel("score of a label" if several else "score of the predicted class")
    below.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    return drawing


@styled
def per_class(columns: Mapping[str, Mapping[str, Shown | None]]) -> Figure:
    """Bars with intervals: a panel a metric, a row a class. `columns` maps metric to class to number."""
    names = list(next(iter(columns.values())))
    drawing, panels = figure(FULL, _tall(len(names), 0.27, 0.75), columns=len(columns), sharey=True)
    for axes, (metric, numbers), colour in zip(panels, columns.items(), SERIES, strict=False):
        _bars(axes, list(numbers.values()), colour)
        axes.set_xlim(0, 1.02)
        axes.set_title(metric)
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    _names_down(panels[0], names)
    return drawing


@styled
def folds(numbers: Mapping[str, Sequence[tuple[int, float]]], means: Mapping[str, Shown | None]) -> Figure:
    """Each fold as a dot, a row a metric, with the overall number as a line; `numbers` holds (repeat, value) pairs."""
    drawing, (axes,) = figure(HALF, _tall(len(numbers), 0.62, 0.7))
    for place, (metric, values) in enumerate(numbers.items()):
        repeats = sorted({repeat for repeat, _ in values})
        for repeat, value in values:
            offset = 0.0 if len(repeats) == 1 else 0.36 * (repeats.index(repeat) / (len(repeats) - 1) - 0.5)
            axes.plot(value, place + offset, "o", color=BLUE, markersize=5, alpha=0.6, markeredgewidth=0, clip_on=False)
        mean = means.get(metric)
        if mean is not None and mean.value is not None:
            axes.vlines(mean.value, place - 0.34, place + 0.34, color=VERMILION, linewidth=1.8)
    _names_down(axes, list(numbers))
    lowest = min((value for values in numbers.values() for _, value in values), default=0.0)
    axes.set_xlim(max(0.0, np.floor(lowest * 10 - 0.5) / 10), 1.0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    return drawing


@styled
def learning_curve(table: pd.DataFrame) -> Figure:
    """Accuracy, with its interval, and macro F1 against the number of training images."""
    drawing, (axes,) = figure(HALF, 3.3)
    x = table["images"].to_numpy(dtype=np.float64)
    if {"low", "high"} <= set(table.columns):
        axes.fill_between(x, table["low"].astype(float), table["high"].astype(float), color=BLUE, alpha=0.16, linewidth=0)
    axes.plot(x, table["accuracy"].astype(float), color=BLUE, marker="o", markersize=4.5, label="accuracy")
    if "macro_f1" in table and table["macro_f1"].notna().any():
        axes.plot(x, table["macro_f1"].astype(float), color=VERMILION, marker="s", markersize=4, label="macro F1")
    if x.min() > 0 and x.max() / x.min() >= 8:
        axes.set_xscale("log")
        axes.set_xticks(x, [count(value) for value in x])
        axes.minorticks_off()
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("training images")
    axes.legend(loc="lower right")
    return drawing


@styled
def stages(seconds: Mapping[str, float]) -> Figure:
    """Wall time of each stage, as bars."""
    names, values = [name.replace("_", " ") for name in seconds], np.array(list(seconds.values()))
    drawing, (axes,) = figure(HALF, _tall(len(names)))
    axes.barh(np.arange(len(names)), values, height=0.62, color=BLUE)
    for place, value in enumerate(values):
        axes.annotate(duration(value), (value, place), (4, 0), textcoords="offset points", va="center", color=INK, fontsize=8)
    axes.set_xlim(0, max(float(values.max(initial=0)), 1e-3) * 1.22)
    _names_down(axes, names)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel("seconds")
    return drawing


def _curves(axes: Axes, curves: Mapping[str, Curve], areas: Mapping[str, Shown | None], word: str, drawstyle: Any = "default") -> None:
    ranked = sorted(curves, key=lambda name: _value(areas.get(name)))
    named = list(curves) if len(curves) <= len(SERIES) else ranked[:3]
    for name in curves:
        if name not in named:
            axes.plot(*curves[name], color=FAINT, linewidth=0.9, drawstyle=drawstyle, alpha=0.8)
    for name, colour in zip(named, SERIES, strict=False):
        area = areas.get(name)
        short = shorten(name, NAME, list(curves))
        text = f"{short}  {word} {area.text}" if area is not None else short
        axes.plot(*curves[name], color=colour, linewidth=1.8, drawstyle=drawstyle, label=text, clip_on=False)
    if len(named) < len(curves):
        axes.plot([], [], color=FAINT, linewidth=0.9, label=f"the other {len(curves) - len(named)} classes")


def _value(number: Shown | None) -> float:
    return number.value if number is not None and number.value is not None else 2.0


def _bars(axes: Axes, numbers: Sequence[Shown | None], colour: str) -> None:
    """Bars with intervals, as few artists as can be: a bar is a thick line."""
    known = [
        (place, number.value, number.low, number.high)
        for place, number in enumerate(numbers)
        if number is not None and number.value is not None
    ]
    places, values = [place for place, *_ in known], [value for _, value, *_ in known]
    axes.hlines(places, 0, values, color=PAPER, linewidth=BAR)
    axes.hlines(places, 0, values, color=colour, linewidth=BAR, alpha=0.6)
    ends = [(place, low, high) for place, _, low, high in known if low is not None and high is not None]
    rows, lows, highs = ([end[i] for end in ends] for i in range(3))
    axes.hlines(rows, lows, highs, color=INK, linewidth=1.2)
    axes.plot([*lows, *highs], [*rows, *rows], linestyle="", marker="|", markersize=6, markeredgewidth=1.2, color=INK)
    for place in sorted(set(range(len(numbers))) - set(places)):
        axes.annotate("undefined", (0, place), (3, 0), textcoords="offset points", va="center", color=MUTED, fontsize=7.5)


def _mark_phases(axes: Axes, table: pd.DataFrame) -> None:
    """A dotted line where all layers begin to learn."""
    if "phase" not in table or not {"head", "all"} <= set(table["phase"].dropna()):
        return
    start = float(table.loc[table["phase"] == "all", "step"].min())
    axes.axvline(start, color=MUTED, linewidth=0.9, linestyle=(0, (1, 2)))
    axes.annotate(
        "all layers",
        (start, 1),
        (3, -2),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        va="top",
        color=MUTED,
        fontsize=7.5,
    )


def _epochs_above(axes: Axes, table: pd.DataFrame) -> None:
    """A second axis on top that counts in epochs, where the history has them."""
    known = table.dropna(subset=["epoch"]).sort_values("step") if "epoch" in table else table.iloc[:0]
    steps, epochs = known["step"].to_numpy(dtype=np.float64), (known["epoch"] if len(known) else known["step"]).to_numpy(dtype=np.float64)
    if len(known) < 2 or epochs[-1] <= epochs[0] or steps[-1] <= steps[0]:
        return
    above = axes.twiny()
    above.grid(visible=False)
    above.spines["top"].set_visible(False)
    low, high = axes.get_xlim()
    rate = (epochs[-1] - epochs[0]) / (steps[-1] - steps[0])
    above.set_xlim(*(epochs[0] + (end - steps[0]) * rate for end in (low, high)))
    above.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    above.set_xlabel("epoch")
    above.tick_params(length=0)


def _names_down(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(np.arange(len(names)), [shorten(name, NAME, names) for name in names], color=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def _square(axes: Axes) -> None:
    axes.set_xlim(-0.015, 1.015)
    axes.set_ylim(-0.015, 1.03)
    axes.set_aspect("equal")


def _percent_axis(axis: Any) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(100 * value, 6):g} %"))


def _tall(rows: int, row: float = 0.25, rest: float = 0.65) -> float:
    return max(1.35, row * rows + rest)
