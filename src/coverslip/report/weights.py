"""Histograms of the weights that runs learned: of one run, or of several on top of each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from coverslip.report.figures import BLUE, FULL, SERIES, styled
from coverslip.report.files import RunFiles, items
from coverslip.report.numbers import count, finite, percent, shorten
from coverslip.report.sections import Drawing, Section, draw

COLUMNS = 4
"""Panels side by side."""
NAME = 24
"""Characters of the name of a group of layers that a figure shows."""

Group = Mapping[str, Any]


def groups_of(run: RunFiles) -> list[Group]:
    """The histograms of weights.json that can be drawn: as many counts as gaps between the edges."""
    found = [group for group in items(run.weights, "groups") if isinstance(group, Mapping)]
    return [group for group in found if len(items(dict(group), "counts")) == len(items(dict(group), "edges")) - 1 > 0]


def weights(run: RunFiles) -> Section | None:
    """The section of a run's page: a histogram a group of layers, and a table of their numbers."""
    groups = groups_of(run)
    if not groups:
        return None
    return {
        "note": explained(run),
        "drawing": draw_weights({"": groups}),
        "rows": [(group_name(group), count(finite(group.get("weights")) or 0), *_numbers(group)) for group in groups],
    }


def explained(run: RunFiles) -> str:
    """What the histograms show and what they leave out, in sentences."""
    frozen, small = finite(run.weights.get("frozen")) or 0, finite(run.weights.get("near_zero_below")) or 0
    left_out = f" The {count(frozen)} weights that were frozen are left out." if frozen else ""
    return f"Filters and matrices that learned, without biases and norms. Near zero: smaller than {small:g}, without the sign.{left_out}"


def draw_weights(runs: Mapping[str, Sequence[Group]]) -> Drawing:
    """The histograms of runs, by label, as a figure of the page."""
    return draw(weight_histograms(runs), "Weights", "Height: density, all areas are equal. The outermost bins hold what lies beyond.")


def group_name(group: Group) -> str:
    """The name of a group of layers, as a reader wants it."""
    name = str(group.get("name", ""))
    return "all layers" if name == "all" else name.removeprefix("backbone.")


def _numbers(group: Group) -> tuple[str, str, str]:
    """Mean, deviation and share near zero, as text."""
    mean, deviation = (finite(group.get(key)) for key in ("mean", "deviation"))
    texts = [f"{value:.2g}".replace("-", "\u2212") if value is not None else "" for value in (mean, deviation)]
    return texts[0], texts[1], percent(finite(group.get("near_zero")))


@styled
def weight_histograms(runs: Mapping[str, Sequence[Group]]) -> Figure:
    """A panel a group of layers; one run is filled, several are lines, with a legend.

    Args:
        runs: groups of weights.json by the label of the run; those of the first run are drawn, and of the others where they agree.
    """
    first = next(iter(runs.values()))
    rows = math.ceil(len(first) / COLUMNS)
    drawing = Figure(figsize=(FULL, 1.45 * rows + (0.35 if len(runs) > 1 else 0.0)), layout="constrained")
    panels = drawing.subplots(rows, min(COLUMNS, len(first)), squeeze=False).ravel()
    for axes in panels[len(first) :]:
        axes.set_visible(False)
    for axes, group in zip(panels, first, strict=False):
        same = {label: one for label, groups in runs.items() for one in groups if one.get("name") == group.get("name")}
        for (label, one), colour in zip(same.items(), SERIES, strict=False):
            counts, edges = np.array(one["counts"], dtype=np.float64), np.array(one["edges"], dtype=np.float64)
            density = counts / max(counts.sum(), 1) / np.diff(edges)
            if len(runs) == 1:
                axes.stairs(density, edges, fill=True, color=BLUE, alpha=0.75)
            else:
                axes.stairs(density, edges, color=colour, linewidth=1.4, label=label)
        axes.set_title(shorten(group_name(group), NAME), fontsize=8, fontweight="normal")
        axes.set_ylim(bottom=0)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(4, symmetric=True))
        axes.tick_params(labelsize=7.5)
    if len(runs) > 1:
        drawing.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(runs), 4))
    return drawing
