"""The figures of a search; the rules are those of `figures`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from coverslip.report.figures import BAR, BLUE, FULL, GREEN, INK, MUTED, NAME, PAPER, VERMILION, figure, styled
from coverslip.report.numbers import shorten

KINDS = {"tpe": ("guided search", BLUE, "o"), "random": ("random search", VERMILION, "s")}
"""Name, colour and marker of each search."""
SHOWN_SHARE = 0.75
"""Share of the values that the axis holds; trials far off are drawn at its edge."""
ACROSS = 2
"""Slices in a row."""
MOST_TICKS = 7
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Axis:
    """What a search went by: its name, and whether lower is better."""

    name: str
    lower: bool

    def best_so_far(self, values: pd.Series) -> pd.Series:
        """The best value up to each trial; missing values change nothing."""
        return (values.cummin() if self.lower else values.cummax()).ffill()

    def limits(self, values: pd.Series) -> tuple[float, float]:
        """From a little beyond the best value to where most values are."""
        known = values.dropna()
        if known.empty:
            return 0.0, 1.0
        best, far = (known.min(), known.quantile(SHOWN_SHARE)) if self.lower else (known.max(), known.quantile(1 - SHOWN_SHARE))
        margin = max(abs(far - best), 1e-3) * 0.12
        return (best - margin, far + margin) if self.lower else (far - margin, best + margin)


@styled
def history(trials: pd.DataFrame, axis: Axis) -> Figure:
    """Each trial in the order in which it began, and the best value so far of each search; ended early: open."""
    drawing, (axes,) = figure(FULL, 3.4)
    ends = axis.limits(trials["value"])
    handles = [_history_of(axes, trials[trials["search"] == kind], kind, axis, ends) for kind in KINDS if (trials["search"] == kind).any()]
    handles.append(Line2D([], [], color=MUTED, marker="o", markerfacecolor="none", markersize=4, linestyle="", label="ended early"))
    axes.set_ylim(*ends)
    axes.set_xlim(-0.5, max(int(trials.groupby("search").size().max()), 2) - 0.5)
    axes.set_xlabel("trial")
    axes.set_ylabel(axis.name)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(handles))
    return drawing


def _history_of(axes: Axes, rows: pd.DataFrame, kind: str, axis: Axis, ends: tuple[float, float]) -> Line2D:
    """The trials of one search, and its entry in the legend."""
    name, colour, marker = KINDS[kind]
    low, high = ends
    place, value = np.arange(len(rows)), rows["value"].to_numpy(dtype=np.float64)
    whole = (rows["ended"] == "complete").to_numpy()
    best = axis.best_so_far(rows["value"].where(whole)).to_numpy(dtype=np.float64)
    axes.plot(place, best, color=colour, linewidth=1.8, drawstyle="steps-post", zorder=3)
    for chosen, fill in ((whole, colour), (~whole, "none")):
        near = (value >= low) & (value <= high)
        look: dict[str, Any] = {"color": colour, "markerfacecolor": fill, "markersize": 4, "linestyle": "", "alpha": 0.75}
        axes.plot(place[chosen & near], value[chosen & near], marker=marker, zorder=2, **look)
        far = place[chosen & ~near]
        axes.plot(far, np.full(len(far), high if axis.lower else low), marker="^" if axis.lower else "v", clip_on=False, **look)
    return Line2D([], [], color=colour, marker=marker, markersize=4, label=f"{name}: trials, and the best so far")


@styled
def trial_curves(looks: pd.DataFrame, trials: pd.DataFrame, axis: Axis, most: int) -> Figure:
    """The value of each trial at its looks; those that were ended early stop with a dot."""
    drawing, (axes,) = figure()
    low, high = axis.limits(trials["value"])
    for _, row in trials.iterrows():
        own = looks[(looks["search"] == row["search"]) & (looks["trial"] == row["trial"]) & (looks["look"] < most)]
        x, y = own["look"].to_numpy(dtype=np.float64), own["value"].to_numpy(dtype=np.float64)
        if row["ended"] == "complete":
            axes.plot(np.append(x, most), np.append(y, float(row["value"])), color=BLUE, linewidth=0.9, alpha=0.4)
        else:
            axes.plot(x, y, color=VERMILION, linewidth=0.9, alpha=0.45)
            axes.plot(x[-1:], y[-1:], "o", color=VERMILION, markersize=3, alpha=0.7)
    far = high - low
    axes.set_ylim(*((low, high + far) if axis.lower else (low - far, high)))
    axes.set_xlim(0.8, most + 0.2)
    axes.set_xlabel(f"look at the validation part, of {most}")
    axes.set_ylabel(axis.name)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    entries = ((BLUE, "", "trained to its end"), (VERMILION, "o", "ended early"))
    handles = [Line2D([], [], color=colour, marker=marker, markersize=3, label=name) for colour, marker, name in entries]
    axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return drawing


@styled
def importance(shares: Mapping[str, float]) -> Figure:
    """How much of the differences between trials each key explains, as bars."""
    drawing, (axes,) = figure(height=max(1.6, 0.36 * len(shares) + 0.85))
    names, values = list(shares), list(shares.values())
    places = np.arange(len(names))
    axes.hlines(places, 0, values, color=PAPER, linewidth=BAR)
    axes.hlines(places, 0, values, color=BLUE, linewidth=BAR, alpha=0.6)
    for place, value in enumerate(values):
        axes.annotate(f"{100 * value:.0f} %", (value, place), (5, 0), textcoords="offset points", va="center", color=INK, fontsize=8)
    axes.set_yticks(places, [shorten(name.split(".")[-1].replace("_", " "), NAME) for name in names], color=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, max(max(values, default=0), 0.01) * 1.18)
    axes.set_xticks([])
    axes.grid(visible=False)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    return drawing


@styled
def slices(trials: pd.DataFrame, dimensions: Mapping[str, Any], axis: Axis, best: Mapping[str, Any]) -> Figure:
    """The value against each key, on the scale on which the search draws; the best configuration is marked."""
    rows = -(-len(dimensions) // ACROSS)
    drawing = Figure(figsize=(FULL, 2.75 * rows), layout="constrained")
    panels = list(np.ravel(drawing.subplots(rows, ACROSS, squeeze=False, sharey=True)))
    low, high = axis.limits(trials["value"])
    for panel, (key, stated) in zip(panels, dimensions.items(), strict=False):
        _slice(panel, trials, key, stated, axis, best.get(key))
        panel.set_ylim(low, high)
    for number, panel in enumerate(panels):
        if number % ACROSS == 0:
            panel.set_ylabel(axis.name)
        panel.set_visible(number < len(dimensions))
    return drawing


def _slice(axes: Axes, trials: pd.DataFrame, key: str, stated: Any, axis: Axis, best: Any) -> None:
    places = _places(trials[key], stated)
    for kind, (_, colour, marker) in KINDS.items():
        for whole, fill in ((True, colour), (False, "none")):
            chosen = (trials["search"] == kind) & ((trials["ended"] == "complete") == whole)
            values = trials.loc[chosen, "value"]
            axes.plot(places[chosen], values, marker, color=colour, markerfacecolor=fill, markersize=3.8, alpha=0.65)
    if best is not None:
        axes.axvline(float(_places(pd.Series([best]), stated).iloc[0]), color=GREEN, linewidth=1.4, zorder=1)
    axes.set_xlabel(key)
    if isinstance(stated, Mapping):
        if stated.get("log"):
            ticks = log_ticks(stated["low"], stated["high"])
            axes.set_xscale("log")
            axes.set_xticks(list(ticks), list(ticks.values()))
            axes.minorticks_off()
        axes.set_xlim(*_padded(stated))
    else:
        axes.set_xticks(range(len(stated)), [shorten(str(value), 14) for value in stated])
        axes.set_xlim(-0.5, len(stated) - 0.5)


def _places(values: pd.Series, stated: Any) -> pd.Series:
    """Where values stand on an axis: numbers as they are, choices in their order."""
    if isinstance(stated, Mapping):
        return values.astype(float)
    order = {str(value): place for place, value in enumerate(stated)}
    return values.map(lambda value: order.get(str(value), np.nan)).astype(float)


def log_ticks(low: float, high: float) -> dict[float, str]:
    """Ticks of an axis of orders of magnitude with their texts: powers of two for whole numbers, else powers of ten.

    >>> log_ticks(4, 512)
    {4: '4', 16: '16', 64: '64', 256: '256'}
    >>> log_ticks(1e-5, 1.0)
    {1e-05: '10⁻⁵', 0.0001: '10⁻⁴', 0.001: '10⁻³', 0.01: '10⁻²', 0.1: '10⁻¹', 1.0: '1'}
    """
    base = 2 if isinstance(low, int) else 10
    powers = list(range(math.ceil(math.log(low, base) - 1e-9), math.floor(math.log(high, base) + 1e-9) + 1))
    chosen = powers[:: 1 + (len(powers) - 1) // MOST_TICKS]
    if base == 2:
        return {2**power: f"{2**power:,}" for power in chosen}
    return {float(f"1e{power}"): "10" + str(power).translate(RAISED) if power else "1" for power in chosen}


def _padded(stated: Mapping[str, Any]) -> tuple[float, float]:
    low, high = float(stated["low"]), float(stated["high"])
    if stated.get("log"):
        share = (high / low) ** 0.03
        return low / share, high * share
    return low - 0.03 * (high - low), high + 0.03 * (high - low)


def share_of_range(value: float, stated: Mapping[str, Any]) -> float:
    """Where a value lies between the ends of its range, on its own scale: 0 to 1.

    >>> share_of_range(0.01, {"low": 1e-4, "high": 1.0, "log": True})
    0.5
    """
    low, high = float(stated["low"]), float(stated["high"])
    if stated.get("log"):
        return float(np.log(value / low) / np.log(high / low))
    return (value - low) / (high - low)
