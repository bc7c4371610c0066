"""Explanations of many images, written down: overlays as PNG, maps as TIFF, and a manifest that says what is what."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from coverslip.bundle import Bundle
from coverslip.data.inputs import list_samples
from coverslip.errors import BadImagesError, InputError
from coverslip.explain.explainer import Explainer, Explanation, HasBundle, data_config
from coverslip.explain.hiding import SHARE, TIMES, WINDOWS
from coverslip.explain.overlay import overlay, png
from coverslip.models.hardware import keeping_memory
from coverslip.runtime import Progress, no_progress, write_file, write_json, writing

MANIFEST = "manifest.json"
ALL = "all"
"""As a label: every class of the model."""
UNITS = "log-odds of the label; float32, one value a pixel of the image"


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        folder: where.
        explanations: how many: one an image and label.
        images: how many images they are of.
        problems: image → reason, of those that could not be read.
    """

    folder: Path
    explanations: int
    images: int
    problems: dict[str, str]


def explain_images(
    model: Bundle | HasBundle,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    labels: Sequence[str] = (),
    windows: int = WINDOWS,
    progress: Progress = no_progress,
) -> Written:
    """Explain images and write a folder, whole or not at all.

    Args:
        model: a bundle, or what holds one.
        inputs: files, folders, tables, as `Model.predict` takes them.
        out: the folder; it must not hold anything.
        labels: classes to explain; the predicted ones when empty, every one when it is `all`.
        windows: that are hidden along each side of an image.
        progress: told about each image.

    Raises:
        InputError: the folder holds files, or no such class.
        MissingInputError: an input does not exist.
        BadImagesError: not one image could be read.
        ResourceError: the folder cannot be written.
    """
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--out {folder} holds files already; name a folder that is empty or not there")
    explainer = Explainer(model, windows=windows)
    bundle = explainer.bundle
    every = list(labels) == [ALL] and ALL not in bundle.classes
    wanted = list(bundle.classes) if every else list(dict.fromkeys(labels)) or None
    samples, names = list_samples(inputs, data_config(bundle))
    problems: dict[str, str] = {}
    entries: list[dict[str, Any]] = []
    with writing(folder) as place, keeping_memory(bundle.network.device):
        place.mkdir()
        for number, (files, name) in enumerate(zip(samples, names, strict=True), start=1):
            try:
                found = explainer.explain_labels(files, wanted, name=name)
                entries += [_write(place, f"{number:04}", one, bundle) for one in found]
            except BadImagesError as error:
                problems |= error.problems
            progress("explaining", number, len(samples), {})
        if not entries:
            raise BadImagesError(problems, "Not one image could be read.")
        write_json(place / MANIFEST, _manifest(explainer, entries, problems))
    return Written(folder, len(entries), len(samples) - len(problems), problems)


def _manifest(explainer: Explainer, entries: list[dict[str, Any]], problems: dict[str, str]) -> dict[str, Any]:
    bundle = explainer.bundle
    return {
        "task": str(bundle.task),
        "classes": list(bundle.classes),
        "backbone": bundle.provenance.get("backbone", ""),
        "units": UNITS,
        "windows": explainer.windows,
        "hidden_share": SHARE,
        "random_places": TIMES,
        "explanations": entries,
        "problems": problems,
    }


def _write(place: Path, number: str, found: Explanation, bundle: Bundle) -> dict[str, Any]:
    """Write the pictures and maps of one explanation; gives its entry of the manifest."""
    stem = f"{number}-{bundle.classes.index(found.label)}-{slug(found.label)}"
    pictures = {"image_file": (f"pictures/{number}.png", found.plain), "overlay": (f"pictures/{stem}-{found.method}.png", found.overlay)}
    maps = {"map": (f"maps/{stem}-{found.method}.tif", found.map)}
    if found.check is not None and found.method != "occlusion" and (drawn := found.check_overlay) is not None:
        pictures["check_overlay"] = (f"pictures/{stem}-occlusion.png", drawn)
    if found.check is not None:
        maps["check_map"] = (f"maps/{stem}-hiding.tif", found.check)
    for file, content in pictures.values():
        write_file(place / file, content)
    for file, values in maps.values():
        write_map(place / file, values)
    return {
        **{name: getattr(found, name) for name in ("image", "label", "score", "predicted", "method", "agreement", "channels")},
        "size": found.map.shape,
        "hiding": None if found.hiding is None else asdict(found.hiding),
        **{name: file for name, (file, _) in (pictures | maps).items()},
        **_write_channels(place, stem, found),
        **{name: getattr(found, name) for name in ("uncertain", "distance", "distance_text")},
        "neighbours": _write_neighbours(place, number, found),
    }


def _write_neighbours(place: Path, number: str, found: Explanation) -> list[dict[str, Any]]:
    entries = []
    for rank, near in enumerate(found.neighbours, start=1):
        file = f"pictures/{number}-near-{rank}.jpg" if near.thumbnail else ""
        if near.thumbnail:
            write_file(place / file, near.thumbnail)
        entries.append({"label": near.label, "distance": near.distance, "image": near.image, "thumbnail": file})
    return entries


def _write_channels(place: Path, stem: str, found: Explanation) -> dict[str, Any]:
    if not found.channel_maps:
        return {}
    file = f"maps/{stem}-channels.tif"
    named = {"axes": "CYX", "Channel": {"Name": list(found.channel_maps)}}
    with writing(place / file) as temporary:
        planes = np.stack(list(found.channel_maps.values()))
        tifffile.imwrite(temporary, planes, ome=True, compression="zlib", photometric="minisblack", metadata=named)
    pictures = {name: f"pictures/{stem}-channel-{slug(name)}.png" for name in found.channel_maps}
    highest = max(float(values.max()) for values in found.channel_maps.values())
    for name, values in found.channel_maps.items():
        write_file(place / pictures[name], png(overlay(found.channel_pictures[name], values, highest)))
    return {"channel_maps": file, "channel_overlays": pictures}


def write_map(path: Path, values: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    """A map as a float32 TIFF, (h, w)."""
    with writing(path) as temporary:
        tifffile.imwrite(temporary, values.astype(np.float32), compression="zlib", photometric="minisblack")


def slug(text: str) -> str:
    """A piece of a file name that every system takes.

    >>> slug("Golgi apparatus / left"), slug("…")
    ('Golgi-apparatus-left', 'x')
    """
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-.")[:40] or "x"
