"""With and without regularisation: the weights of runs that differ in their weight decay, on top of each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from coverslip.report.figures import SERIES
from coverslip.report.files import RunFiles, within
from coverslip.report.numbers import finite, percent
from coverslip.report.study.page import Block, Listing
from coverslip.report.weights import draw_weights, explained, group_name, groups_of

KEY, LABEL = "weight_decay", "weight decay "


def weight_block(runs: Iterable[RunFiles]) -> Block | None:
    """A section on runs whose configs agree in all but the weight decay; None where there are no two of them.

    Of several such families the first is shown, and of it at most as many runs as there are colours.

    Args:
        runs: in the order of the study.
    """
    families: dict[str, dict[float, RunFiles]] = {}
    for run in runs:
        decay = finite(within(run.config, "training").get(KEY))
        if decay is not None and groups_of(run):
            families.setdefault(_all_else(run.config), {}).setdefault(decay, run)
    family = next((found for found in families.values() if len(found) > 1), None)
    if family is None:
        return None
    chosen = {f"{LABEL}{decay:g}": run for decay, run in sorted(family.items())[: len(SERIES)]}
    groups = {label: groups_of(run) for label, run in chosen.items()}
    first = next(iter(chosen.values()))
    head = ["Layers", *(title for label in chosen for title in (f"Deviation, {label.removeprefix(LABEL)}", "near zero"))]
    named = {label: {str(group.get("name")): group for group in found} for label, found in groups.items()}
    rows = [
        [group_name(group), *(cell for label in chosen for cell in _cells(named[label].get(str(group.get("name")), {})))]
        for group in groups_of(first)
    ]
    note = f"The same training with and without weight decay: {', '.join(run.folder.name for run in chosen.values())}. {explained(first)}"
    return Block("Weights", note, [draw_weights(groups)], Listing(head, rows, right=range(1, len(head))))


def _all_else(config: Mapping[str, Any]) -> str:
    """The config without its weight decay, to be compared."""
    training = {key: value for key, value in within(config, "training").items() if key != KEY}
    return repr(sorted({**config, "training": sorted(training.items())}.items(), key=lambda pair: pair[0]))


def _cells(group: Mapping[str, Any]) -> tuple[str, str]:
    deviation, small = finite(group.get("deviation")), finite(group.get("near_zero"))
    return (f"{deviation:.3g}" if deviation is not None else "", percent(small) if small is not None else "")
