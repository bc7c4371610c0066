"""Figures for several labels an image; the rules are those of `figures`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from coverslip.evaluation.decisions import ReliabilityBin
from coverslip.report.figures import BLUE, FAINT, FULL, INK, MUTED, NAME, SERIES, Curve, figure, styled
from coverslip.report.numbers import count, shorten
from coverslip.structures import FloatArray, IntArray

WRITTEN = 16
"""Classes up to which the shares of co-occurrence are written into the cells."""

PANELS = 5
"""Small panels in a row, one a class."""


@dataclass(frozen=True)
class ClassCurves:
    """F1 of one class against its threshold.

    Attributes:
        curves: part → thresholds and F1; parts without a positive have none.
        threshold: the one that is used; None when it is not known.
    """

    curves: Mapping[str, Curve]
    threshold: float | None


@styled
def labels_per_image(images: IntArray) -> Figure:
    """Bars: `images[k]` images carry k labels."""
    drawing, (axes,) = figure()
    axes.bar(np.arange(len(images)), images, width=0.62, color=BLUE)
    for labels, n in enumerate(images.tolist()):
        if n:
            axes.annotate(count(n), (labels, n), (0, 3), textcoords="offset points", ha="center", color=INK, fontsize=8)
    axes.set_ylim(0, max(float(images.max(initial=0)), 1) * 1.12)
    axes.set_xlabel("labels")
    axes.set_ylabel("images")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=False, axis="x")
    return drawing


@styled
def cooccurrence(shares: FloatArray, names: Sequence[str]) -> Figure:
    """A heat map of shares (K, K): rows given, columns also there; the diagonal is left empty."""
    size = min(FULL, 2.2 + 0.36 * len(names))
    drawing, (axes,) = figure(size, size * 0.86)
    short = [shorten(name, NAME, names) for name in names]
    for row in range(len(names)):
        for column in range(len(names)):
            share = float(shares[row, column])
            if row == column:
                continue
            axes.add_patch(_cell(column, row, share))
            if len(names) <= WRITTEN and share >= 0.005:
                axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7.5, color=INK)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xticks(range(len(names)), short, rotation=55, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), short)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return drawing


def _cell(column: int, row: int, share: float) -> Rectangle:
    return Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, facecolor=BLUE, alpha=0.05 + 0.8 * share, linewidth=0)


@styled
def threshold_curves(curves: Mapping[str, Curve]) -> Figure:
    """Macro F1 against the threshold, one line a part."""
    drawing, (axes,) = figure()
    axes.axvline(0.5, color=FAINT, linestyle=(0, (4, 3)), linewidth=1)
    for (name, (x, y)), colour in zip(curves.items(), SERIES, strict=False):
        best = int(np.argmax(y))
        axes.plot(x, y, color=colour, label=f"{name}: {y[best]:.3f} at {x[best]:.3f}")
        axes.plot(x[best], y[best], "o", color=colour, markersize=4.5)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("threshold of all classes")
    axes.set_ylabel("macro F1")
    axes.legend(loc="upper right", title="highest")
    return drawing


@styled
def class_thresholds(classes: Mapping[str, ClassCurves]) -> Figure:
    """A small panel a class: F1 against the threshold of this class, a line a part; a vertical line at the threshold in use."""
    drawing, panels = _panels(list(classes))
    parts = list(dict.fromkeys(part for each in classes.values() for part in each.curves))
    for axes, each in zip(panels, classes.values(), strict=True):
        for part, (x, y) in each.curves.items():
            axes.plot(x, y, color=SERIES[parts.index(part)], linewidth=1.2, drawstyle="steps-pre")
        if each.threshold is not None:
            axes.axvline(each.threshold, color=INK, linewidth=0.9, linestyle=(0, (1, 1.5)))
        if not each.curves:
            _say(axes, "no image has it")
    handles = [axes.plot([], [], color=SERIES[place], label=part)[0] for axes in panels[:1] for place, part in enumerate(parts)]
    if len(handles) > 1:
        drawing.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    return drawing


@styled
def class_reliability(classes: Mapping[str, tuple[Sequence[ReliabilityBin], str]]) -> Figure:
    """A small panel a class: the share of its images against the score, with intervals, and a text such as its calibration error."""
    drawing, panels = _panels(list(classes))
    for axes, (bins, text) in zip(panels, classes.values(), strict=True):
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
        scores = [each.confidence for each in bins]
        axes.vlines(scores, [each.low for each in bins], [each.high for each in bins], color=BLUE, linewidth=1, alpha=0.45)
        axes.plot(scores, [each.accuracy for each in bins], color=BLUE, marker="o", markersize=2.6, linewidth=1)
        _say(axes, text)
    return drawing


def _panels(names: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """A panel a class over both ranges from 0 to 1, with its name on top."""
    rows = -(-len(names) // PANELS)
    drawing = Figure(figsize=(FULL, 1.55 * rows + 0.45), layout="constrained")
    grid = drawing.subplots(rows, PANELS, sharex=True, sharey=True, squeeze=False)
    panels: list[Axes] = list(grid.ravel()[: len(names)])
    for unused in grid.ravel()[len(names) :]:
        unused.set_visible(False)
    for axes, name in zip(panels, names, strict=True):
        axes.set_title(shorten(name, 21), fontsize=8, pad=3)
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.03, 1.3)
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    for axes in panels[-PANELS:]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
    return drawing, panels


def _say(axes: Axes, text: str) -> None:
    axes.annotate(text, (0.03, 0.97), xycoords="axes fraction", va="top", color=MUTED, fontsize=7.5)
