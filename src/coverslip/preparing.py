"""From a config to data that is ready to be learned from: table, pixels, audit, split, every `auto` resolved."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from coverslip.config import RunConfig, with_values
from coverslip.data.audit import Audit, audit, leaks
from coverslip.data.duplicates import duplicate_groups
from coverslip.data.geometry import GREY, RGB, WHOLE, Geometry
from coverslip.data.labels import class_names
from coverslip.data.normalisation import NEAR_WHITE, Normalisation, pixel_statistics
from coverslip.data.reading import Reading
from coverslip.data.scan import Scan, usable_rows
from coverslip.data.sources import load_table
from coverslip.data.split import join_units, split_table
from coverslip.data.store import Glance, Pixels, glance, load_pixels
from coverslip.errors import ConfigError, LeakError
from coverslip.models.backbones import native_size
from coverslip.runtime import Progress, hash_text, no_progress
from coverslip.storage import absolute
from coverslip.structures import Channel, IntArray, Split, Table
from coverslip.training.samples import Samples

COLOUR_REASONS = {
    "channels": "the images have named channels",
    "all": "the images have colour",
    "none": "no image has colour",
    "some": "some images have colour and some have none, a difference that a model must not learn from; say rgb to keep it",
}


@dataclass
class Prepared:
    """The data of a run, ready to be learned from. `depth`: bits of the files' pixels, 32 for floating point."""

    config: RunConfig
    table: Table
    scan: Scan
    pixels: Pixels
    reading: Reading
    geometry: Geometry
    depth: int
    audit: Audit
    split: Split
    samples: Samples
    bad: dict[str, str]
    notes: list[str] = field(default_factory=list)

    def under(self, config: RunConfig) -> Prepared:
        """The same data for another config with the same `preparation_key`: only model, training and what follows differ."""
        made_by = {name: getattr(self.config, name) for name in MADE_BY}
        return replace(self, config=config.model_copy(update=made_by), notes=list(self.notes))


MADE_BY = ("data", "split", "pixels", "cache", "memory")
"""Sections of the config that the prepared data depends on; the others may differ between runs that share it."""


def preparation_key(config: RunConfig) -> str:
    """Hash of all that `prepare` depends on: configs with one key may share the prepared data."""
    size = native_size(config.model) if config.pixels.height is None else ()
    return hash_text(*(getattr(config, name).model_dump_json() for name in MADE_BY), str(size))


def prepare(config: RunConfig, progress: Progress = no_progress) -> Prepared:
    """Files → table → pixels and scan → audit → split, with every `auto` of the config resolved on the way."""
    table = load_table(config.data, config.split)
    seen = glance(table, Reading.of(config.data))
    geometry, config, notes = choose_geometry(config, table, seen)
    reading = Reading.of(config.data)
    pixels, scan = load_pixels(
        table, reading, geometry, config.cache.limit, progress, memory=config.memory, largest=seen.height * seen.width
    )
    readable = np.flatnonzero((scan.facts["error"] == "").to_numpy())
    table, scan, bad = usable_rows(table, scan, config.data.on_bad_image)
    table = replace(table, channels=reading.channels or Channel.of(*geometry.channels))
    pixels = pixels.take(readable)
    findings = audit(table, scan, fit=geometry.fit, height=geometry.height, width=geometry.width, bad=bad, reading=reading)
    ties = duplicate_groups(len(table), findings.duplicates.exact, findings.duplicates.confirmed)
    split = split_table(table, config.split, ties=ties)
    findings = _meet_leaks(config, table, split, findings)
    invert = inverts(config, pixels, split.rows("train"), geometry)
    config = with_values(config, split={"seed": split.seed}, pixels={"invert": invert})
    notes += [*table.notes, *split.notes, *pixels.notes]
    samples = _samples(table, pixels, ties)
    return Prepared(config, table, scan, pixels, reading, geometry, seen.depth, findings, split, samples, bad, notes)


def choose_geometry(config: RunConfig, table: Table, seen: Glance) -> tuple[Geometry, RunConfig, list[str]]:
    """Resolve size, channels and depth from the config, the backbone and a glance at the images.

    Channels that have to be resized are kept at 16 bits, so that 8-bit files lose nothing by it.
    """
    height, width = config.pixels.height, config.pixels.width
    if height is None:
        height, width = native_size(config.model)
    colour, names, notes = choose_colour(config, seen)
    box, sentence = choose_box(config.pixels.trim, seen.box)
    kept = seen.one_size and box == WHOLE and (seen.height, seen.width) == (height, width or height)
    bits = max(seen.depth, 16) if colour == "channels" and not kept else seen.depth
    geometry = Geometry(height, width or height, config.pixels.fit, names, bits, box)
    data: dict[str, Any] = {"path": absolute(config.data.path or ".")}
    if isinstance(config.data.classes, str):
        data["classes"] = class_names(config.data, table.root)
    if colour == "channels" and config.data.channels is None:
        data["channels"] = list(names)
    ranged = choose_range(config, seen.depth)
    resolved = {"height": geometry.height, "width": geometry.width, "colour": colour, "trim": "none" if box == WHOLE else list(box)}
    return geometry, with_values(config, pixels={**resolved, "range": ranged}, data=data), [*notes, *sentence]


def choose_colour(config: RunConfig, seen: Glance) -> tuple[str, tuple[str, ...], list[str]]:
    """What `pixels.colour` comes to, the names of the channels, and a sentence when it was chosen here.

    Raises:
        ConfigError: the images have channels where grey or RGB was asked for, or the other way round.
    """
    stated = tuple(channel.name for channel in Reading.of(config.data).channels) or seen.names
    colour = config.pixels.colour
    if colour in ("grey", "rgb") and stated:
        raise ConfigError(f'pixels.colour = "{colour}", but the images have channels ({", ".join(stated)}); say "channels"')
    if colour == "channels" and not stated:
        raise ConfigError('pixels.colour = "channels", but the images are grey or RGB; name theirs: -s \'data.channels=["red", ...]\'')
    if colour == "auto":
        chosen, reason = ("channels", "channels") if stated else ("rgb" if seen.colour == "all" else "grey", seen.colour)
        names = stated or (RGB if chosen == "rgb" else GREY)
        listed = f" ({', '.join(names)})" if stated else ""
        return chosen, names, [f"pixels.colour = {chosen!r}: {COLOUR_REASONS[reason]}{listed}"]
    return colour, stated or (RGB if colour == "rgb" else GREY), []


def choose_range(config: RunConfig, depth: int) -> Any:
    """What `pixels.range` comes to: the full range of integers, percentiles of the data set for floating point.

    Raises:
        ConfigError: the full range of floating point was asked for, or as many ranges as there are no channels.
    """
    asked, channels = config.pixels.range, len(Reading.of(config.data).channels)
    if asked == "full" and depth == 32:
        raise ConfigError('pixels.range = "full", but floating-point pixels have none; say "dataset", "image", or [low, high]')
    if isinstance(asked, list) and isinstance(asked[0], list) and len(asked) != max(channels, 1):
        raise ConfigError(f"pixels.range holds {len(asked)} ranges; expected one for each of {max(channels, 1)} channels, or one for all")
    return asked if asked != "auto" else "dataset" if depth == 32 else "full"


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
    if config.pixels.colour == "channels" or geometry.bits == 32:
        return False
    mean, _ = pixel_statistics(pixels.array, pixels.index[rows], Normalisation((0.0,), (float(geometry.full),)), most=200)
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
