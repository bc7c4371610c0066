"""The figures of a velocity study. Each is pure: rows of results.csv in, matplotlib `Figure` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from coverslip.report.figures import FAINT, FULL, HALF, INK, MUTED, ORANGE, SERIES, figure, styled
from coverslip.report.numbers import count, shorten

MARKERS = ("o", "s", "^", "D", "v", "P")
NAME = 22
"""Characters of a model's name that a figure shows."""


@styled
def speeds(rows: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Images a second against the batch size: a panel a strategy, a line a model, both axes logarithmic."""
    strategies = list(dict.fromkeys(rows["strategy"]))
    drawing, panels = figure(FULL if len(strategies) > 1 else HALF, 3.4, len(strategies), sharey=True)
    for axes, strategy in zip(panels, strategies, strict=True):
        _lines(axes, rows[rows["strategy"] == strategy], "images_per_second", list(dict.fromkeys(rows["model"])))
        axes.set_title(titles.get(strategy, strategy))
        axes.set_yscale("log")
    panels[0].set_ylabel("images a second")
    _plain_log(panels[0], rows["images_per_second"])
    _legend(drawing, panels[0])
    return drawing


@styled
def memory(rows: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Peak memory of the process against the batch size, in gigabytes: a panel a strategy, a line a model."""
    strategies = list(dict.fromkeys(rows["strategy"]))
    drawing, panels = figure(FULL if len(strategies) > 1 else HALF, 3.1, len(strategies), sharey=True)
    scaled = rows.assign(gigabytes=rows["peak_memory_megabytes"] / 1000)
    for axes, strategy in zip(panels, strategies, strict=True):
        _lines(axes, scaled[scaled["strategy"] == strategy], "gigabytes", list(dict.fromkeys(rows["model"])))
        axes.set_title(titles.get(strategy, strategy))
    panels[0].set_ylim(0, 1.08 * float(scaled["gigabytes"].max()))
    panels[0].set_ylabel("GB")
    _legend(drawing, panels[0])
    return drawing


@styled
def waiting(rows: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Share of the time that a step waits for its batch: a panel a model, a bar a strategy; one batch size a model."""
    models, strategies = list(dict.fromkeys(rows["model"])), list(dict.fromkeys(rows["strategy"]))
    drawing, panels = figure(FULL if len(models) > 1 else HALF, 0.34 * len(strategies) + 1.05, len(models), sharey=True)
    for axes, model in zip(panels, models, strict=True):
        mine = rows[rows["model"] == model].set_index("strategy")
        for place, strategy in enumerate(strategies):
            axes.barh(place, 1.0, height=0.62, color=FAINT, alpha=0.35)
            if strategy not in mine.index:
                axes.annotate("not measured", (0, place), (4, 0), textcoords="offset points", va="center", color=MUTED, fontsize=7.5)
                continue
            share = float(mine.loc[strategy, "waiting_share"])
            axes.barh(place, share, height=0.62, color=ORANGE)
            axes.annotate(_percent(share), (share, place), (4, 0), textcoords="offset points", va="center", color=INK, fontsize=8)
        axes.set_xlim(0, 1.15)
        axes.set_xticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
        axes.set_title(f"{shorten(model, NAME)}, batches of {int(mine['batch_size'].iloc[0])}")
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
    panels[0].set_yticks(range(len(strategies)), [titles.get(strategy, strategy) for strategy in strategies], color=INK)
    panels[0].set_ylim(len(strategies) - 0.4, -0.6)
    return drawing


@styled
def latencies(rows: pd.DataFrame) -> Figure:
    """Time to score one image and whole batches: a panel a model, a dot the median, a line to the 95th percentile, in ms."""
    models = list(dict.fromkeys(rows["model"]))
    sizes = sorted({int(size) for size in rows["batch_size"]})
    drawing, panels = figure(FULL if len(models) > 1 else HALF, 0.3 * (len(sizes) + 1) + 1.15, len(models), sharey=True, sharex=True)
    for axes, model, colour in zip(panels, models, _colours(models), strict=True):
        mine = rows[rows["model"] == model].drop_duplicates("batch_size").set_index("batch_size")
        spans = [(0, *mine.iloc[0][["latency_milliseconds", "latency_p95_milliseconds"]])]
        spans += [
            (place, *mine.loc[size, ["batch_latency_milliseconds", "batch_latency_p95_milliseconds"]])
            for place, size in enumerate(sizes, start=1)
            if size in mine.index
        ]
        for place, middle, high in spans:
            axes.hlines(place, middle, high, color=colour, linewidth=1.6, alpha=0.6)
            axes.plot(high, place, marker="|", markersize=7, markeredgewidth=1.4, color=colour)
            axes.plot(middle, place, marker="o", markersize=5.5, color=colour)
            axes.annotate(_few(middle), (middle, place), (0, 6), textcoords="offset points", ha="center", color=INK, fontsize=7.5)
        axes.set_title(shorten(model, NAME))
        axes.set_xscale("log")
        axes.set_xlabel("milliseconds")
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False, axis="y")
    known = rows[["latency_milliseconds", "batch_latency_p95_milliseconds"]].to_numpy(dtype=np.float64)
    panels[0].set_xlim(np.nanmin(known) / 1.8, np.nanmax(known) * 1.8)
    for axes in panels:
        axes.xaxis.set_major_locator(LogLocator(numticks=5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _few(value)))
        axes.xaxis.set_minor_locator(NullLocator())
    panels[0].set_yticks(range(len(sizes) + 1), ["1 image", *(f"{size} images" for size in sizes)], color=INK)
    panels[0].set_ylim(len(sizes) + 0.5, -0.7)
    return drawing


def _lines(axes: Axes, rows: pd.DataFrame, column: str, models: Sequence[str]) -> None:
    """A line a model against the batch size, on an axis of powers of two with the measured sizes as ticks."""
    for model, colour, marker in zip(models, _colours(models), _repeated(MARKERS, len(models)), strict=True):
        mine = rows[rows["model"] == model].sort_values("batch_size")
        axes.plot(mine["batch_size"], mine[column], color=colour, marker=marker, markersize=5, label=shorten(model, NAME))
    sizes = sorted({int(size) for size in rows["batch_size"]})
    axes.set_xscale("log", base=2)
    axes.set_xlim(sizes[0] / 1.5, sizes[-1] * 1.5)
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("batch size")


def _plain_log(axes: Axes, values: pd.Series) -> None:
    """A logarithmic axis with numbers as they are written, three a decade where there is less than two decades."""
    low, high = float(values.min()), float(values.max())
    axes.set_ylim(low / 1.35, high * 1.35)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 200 else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _few(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_locator(NullLocator())


def _legend(drawing: Figure, axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    if len(names) > 1:
        drawing.legend(handles, names, loc="outside lower center", ncols=min(len(names), 4))


def _colours(models: Sequence[str]) -> list[str]:
    return _repeated(SERIES, len(models))


def _repeated(values: Sequence[Any], number: int) -> list[Any]:
    return [values[place % len(values)] for place in range(number)]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 or share == 0 else "< 1 %"


def _few(value: float) -> str:
    """A number with two or three digits, and separators when it is large."""
    return count(value) if value >= 100 else f"{value:.3g}" if value >= 10 else f"{value:.2g}"
