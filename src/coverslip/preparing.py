"""From a config to data that is ready to be learned from: table, pixels, audit, split, every `auto` resolved."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from coverslip.config import RunConfig, with_values
from coverslip.data.audit import Audit, audit, leaks
from coverslip.data.duplicates import duplicate_groups
from coverslip.data.labels import class_names
from coverslip.data.pixels import NEAR_WHITE, WHOLE, Geometry, pixel_statistics
from coverslip.data.scan import Scan, usable_rows
from coverslip.data.sources import load_table
from coverslip.data.split import join_units, split_table
from coverslip.data.store import Pixels, glance, load_pixels
from coverslip.errors import LeakError
from coverslip.models.backbones import native_size
from coverslip.runtime import Progress, no_progress
from coverslip.structures import IntArray, Split, Table
from coverslip.training.loop import Samples

COLOUR_REASONS = {
    "all": "the images have colour",
    "none": "no image has colour",
    "some": "some images have colour and some have none, a difference that a model must not learn from; say rgb to keep it",
}


@dataclass
class Prepared:
    """The data of a run, ready to be learned from."""

    config: RunConfig
    table: Table
    scan: Scan
    pixels: Pixels
    geometry: Geometry
    audit: Audit
    split: Split
    samples: Samples
    bad: dict[str, str]
    notes: list[str] = field(default_factory=list)


def prepare(config: RunConfig, progress: Progress = no_progress) -> Prepared:
    """Files → table → pixels and scan → audit → split, with every `auto` of the config resolved on the way."""
    table = load_table(config.data, config.split)
    geometry, config, notes = choose_geometry(config, table)
    pixels, scan = load_pixels(table, config.data, geometry, config.cache.limit, progress)
    readable = np.flatnonzero((scan.facts["error"] == "").to_numpy())
    table, scan, bad = usable_rows(table, scan, config.data.on_bad_image)
    table = replace(table, channels=geometry.channel_names)
    pixels = pixels.take(readable)
    findings = audit(
        table, scan, fit=geometry.fit, height=geometry.height, width=geometry.width, bad=bad, background=config.data.background
    )
    ties = duplicate_groups(len(table), findings.duplicates.exact, findings.duplicates.confirmed)
    split = split_table(table, config.split, ties=ties)
    findings = _meet_leaks(config, table, split, findings)
    config = with_values(config, split={"seed": split.seed}, pixels={"invert": inverts(config, pixels, split.rows("train"), geometry)})
    return Prepared(
        config, table, scan, pixels, geometry, findings, split, _samples(table, pixels, ties), bad, [*notes, *table.notes, *split.notes]
    )


def choose_geometry(config: RunConfig, table: Table) -> tuple[Geometry, RunConfig, list[str]]:
    """Resolve size and colour from the config, the backbone and a glance at the images."""
    notes: list[str] = []
    seen = glance(table, config.data)
    height, width = config.pixels.height, config.pixels.width
    if height is None:
        height, width = native_size(config.model)
    colour = config.pixels.colour
    if colour == "auto":
        colour = "rgb" if seen.colour == "all" else "grey"
        notes.append(f"pixels.colour = {colour!r}: {COLOUR_REASONS[seen.colour]}")
    box, sentence = choose_box(config.pixels.trim, seen.box)
    geometry = Geometry(height, width or height, config.pixels.fit, 1 if colour == "grey" else 3, seen.bits, box)
    classes = config.data.classes
    names: dict[str, Any] = {"classes": class_names(config.data, table.root)} if isinstance(classes, str) else {}
    resolved = {"height": geometry.height, "width": geometry.width, "colour": colour, "trim": "none" if box == WHOLE else list(box)}
    names["path"] = str(Path(config.data.path or ".").absolute())
    return geometry, with_values(config, pixels=resolved, data=names), [*notes, *sentence]


def choose_box(trim: list[float] | str, seen: tuple[float, float, float, float]) -> tuple[tuple[float, float, float, float], list[str]]:
    """The box that is looked at, and a sentence when something is cut off on its own account."""
    if isinstance(trim, list):
        top, left, bottom, right = trim
        return (top, left, bottom, right), []
    if trim == "none" or seen == WHOLE:
        return WHOLE, []
    lost = 1 - (seen[2] - seen[0]) * (seen[3] - seen[1])
    return seen, [f"pixels.trim: a border of {lost:.0%} of the area is the same in all images that were looked at, and is cut off"]


def inverts(config: RunConfig, pixels: Pixels, rows: IntArray, geometry: Geometry) -> bool:
    """Whether images are turned from dark on white to bright on black; `auto` asks the training rows."""
    if config.pixels.invert != "auto":
        return config.pixels.invert
    mean, _ = pixel_statistics(pixels.array, pixels.index[rows], geometry.full, most=200)
    return bool(mean.mean() > NEAR_WHITE)


def _meet_leaks(config: RunConfig, table: Table, split: Split, findings: Audit) -> Audit:
    """The audit with the leaks of a given split among its findings.

    Raises:
        LeakError: there are some, unless the config says to go on.
    """
    if table.preset is None:
        return findings
    found = leaks(table, split.part, findings.duplicates)
    if found and config.data.on_leak == "stop":
        listed = "\n".join(f"  - {finding.message}" for finding in found)
        raise LeakError(f"the split that was given leaks:\n{listed}\nMend the split, or go on with -s data.on_leak=warn")
    return replace(findings, findings=(*found, *findings.findings))


def _samples(table: Table, pixels: Pixels, ties: IntArray) -> Samples:
    return Samples(pixels, table.labels, len(table.classes), join_units(len(table), table.groups, ties))


def split_facts(split: Split) -> dict[str, Any]:
    """How the split was made, for the record."""
    return {"method": split.method, "seed": split.seed, "notes": list(split.notes)}
