"""Figures for several labels an image; the rules are those of `figures`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from coverslip.report.figures import BLUE, FAINT, FULL, INK, NAME, SERIES, Curve, figure, styled
from coverslip.report.numbers import count, shorten
from coverslip.structures import FloatArray, IntArray

WRITTEN = 16
"""Classes up to which the shares of co-occurrence are written into the cells."""


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
    short = [shorten(name, NAME) for name in names]
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
        axes.plot(x, y, color=colour, label=f"{name}: {y[best]:.3f} at {x[best]:.2f}")
        axes.plot(x[best], y[best], "o", color=colour, markersize=4.5)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("threshold of all classes")
    axes.set_ylabel("macro F1")
    axes.legend(loc="upper right", title="highest")
    return drawing
