"""Explanations on a page: of the folder that `coverslip explain` wrote, and of the cases that a run explained for its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coverslip.errors import MissingInputError
from coverslip.report.files import RunFiles, items, read_mapping, within
from coverslip.report.numbers import decimal, finite, percent, plural
from coverslip.report.pictures import Album, Picture
from coverslip.report.templates import template
from coverslip.runtime import write_file

MANIFEST = "manifest.json"
METHODS = {"gradcam": "Grad-CAM", "occlusion": "Hiding"}
DOUBTS = {
    "score": "no class, or more than one, is likely enough",
    "unlike": "unlike all training images",
    "score|unlike": "no class, or more than one, is likely enough; unlike all training images",
}
KINDS = {"explained_wrong": "Wrong", "explained_right": "Right"}
"""Kinds of explained cases in a run's index of pictures, in the order in which they are shown."""
MOST = 60
"""Explanations that an overview shows."""
ANOTHER = 0.005
"""Scores that differ by more than this are said to come from other copies of the image."""
MOVED = 0.005
"""Changes of a score smaller than this are said to be hardly any."""
SAME = 0.01
"""Distance from a training image below which an image is said to be that image, or a copy of it."""
NO_SIGN = 0.005
"""Parts of the log-odds smaller than this are said to be none."""


@dataclass(frozen=True)
class Explained:
    """An explanation, ready for the page.

    Attributes:
        title: what is explained.
        image: the name of the image.
        shots: pictures, each with the words under it.
        lines: what there is to say.
        neighbours: pictures of the nearest training images, each with the words under it.
    """

    title: str
    image: str
    shots: list[tuple[Picture, str]]
    lines: list[str]
    neighbours: list[tuple[Picture, str]]


def write_overview(folder: Path) -> Path:
    """Write `overview.html` into a folder of explanations, from its manifest and pictures: one file, no outside address.

    Raises:
        MissingInputError: the folder holds no explanations.
        RunFolderError: the manifest is damaged.
        ResourceError: the folder cannot be written.
    """
    manifest = read_mapping(folder / MANIFEST)
    if not manifest:
        raise MissingInputError(f"{folder} holds no {MANIFEST}; give a folder that `coverslip explain` wrote")
    album = Album(folder / "pictures", limit=12_000_000)
    entries = [entry for entry in items(manifest, "explanations") if isinstance(entry, Mapping)]
    content = {
        "name": folder.absolute().name,
        "headline": _headline(entries),
        "explained": [explained(entry, album) for entry in entries[:MOST]],
        "more": max(0, len(entries) - MOST),
        "problems": [(str(image), str(reason)) for image, reason in within(manifest, "problems").items()],
        "left_out": album.left_out,
        "windows": manifest.get("windows"),
    }
    path = folder / "overview.html"
    write_file(path, template("explanations.html").render(content))
    return path


def _headline(entries: list[Mapping[str, Any]]) -> str:
    """How many explanations, and of how many of them hiding says that the highlighted region matters."""
    tried = [hiding for entry in entries if (hiding := within(entry, "hiding"))]
    moved = [hiding for hiding in tried if not _still(hiding)]
    held = sum(1 for hiding in moved if _matters(hiding))
    images = len({entry.get("image") for entry in entries})
    said = f"{plural(len(entries), 'explanation')} of {plural(images, 'image')}."
    if not tried:
        return said
    if moved:
        said += f" In {held} of {len(moved)}, hiding the highlighted region lowers the score more than hiding as much elsewhere."
    if len(moved) < len(tried):
        more = f"{len(tried) - len(moved)} more" if moved else f"{len(tried)} of {len(tried)}"
        said += f" In {more}, hiding a tenth of the image hardly changes the score, wherever it lies."
    return said


def _still(hiding: Mapping[str, Any]) -> bool:
    """Whether hiding so much hardly changes the score, neither here nor elsewhere."""
    score, *others = (finite(hiding.get(name)) for name in ("score", "hidden", "elsewhere"))
    return score is not None and all(other is not None and abs(score - other) < MOVED for other in others)


def _matters(hiding: Mapping[str, Any]) -> bool:
    score, hidden, elsewhere = (finite(hiding.get(name)) for name in ("score", "hidden", "elsewhere"))
    return score is not None and hidden is not None and elsewhere is not None and hidden < min(score, elsewhere)


def of_run(run: RunFiles, album: Album) -> list[tuple[str, list[Explained]]]:
    """(what the decision was, explanations) of the cases that a run or an evaluation explained."""
    found = [(title, [explained(entry, album) for entry in run.pictures_of(kind)]) for kind, title in KINDS.items()]
    return [(title, shown) for title, entries in found if (shown := [entry for entry in entries if entry.shots])]


def explained(entry: Mapping[str, Any], album: Album) -> Explained:
    """An entry of a manifest, or of a run's index of pictures."""
    label, score = str(entry.get("label", "")), finite(entry.get("score"))
    title = f"{label}: {decimal(score)}" if score is not None else label
    method = METHODS.get(str(entry.get("method")), "Where it looks")
    wanted = [(entry.get("image_file"), "image"), (entry.get("overlay"), method), (entry.get("check_overlay"), "Hiding, as a check")]
    parts = within(entry, "channels")
    wanted += [(file, f"{name}: {_part(parts.get(name))}") for name, file in within(entry, "channel_overlays").items()]
    return Explained(
        title=title,
        image=str(entry.get("image", "")),
        shots=[(picture, text) for file, text in wanted if (picture := _picture(album, file)) is not None],
        lines=[line for line in (_said(entry), _hiding(entry, label), _agreement(entry), _channels(parts), _distance(entry)) if line],
        neighbours=[
            (picture, f"{near.get('label', '')}".replace("|", ", ") + (" (this image)" if _is_same(near) else ""))
            for near in items(dict(entry), "neighbours")
            if isinstance(near, Mapping) and (picture := _picture(album, near.get("thumbnail"))) is not None
        ],
    )


def _picture(album: Album, file: object) -> Picture | None:
    return album.picture(Path(file).name) if isinstance(file, str) else None


def _said(entry: Mapping[str, Any]) -> str:
    predicted = entry.get("predicted")
    said = ", ".join(map(str, predicted)) if isinstance(predicted, list) else str(predicted or "").replace("|", ", ")
    true = str(entry.get("true") or "").replace("|", ", ")
    uncertain = str(entry.get("uncertain") or "")
    doubt = f" Marked as uncertain ({DOUBTS.get(uncertain, uncertain)})." if uncertain not in ("", "no") else ""
    apart = finite(entry.get("held_out_score"))
    learned = (
        "" if apart is None else f" Held out from training the score was {apart:.3f}; the model that is explained learned from this image."
    )
    return f"Predicted {said or 'nothing'}{f', labelled {true}' if true else ''}.{doubt}{learned}"


def _hiding(entry: Mapping[str, Any], label: str) -> str:
    hiding = within(entry, "hiding")
    values = [finite(hiding.get(name)) for name in ("share", "score", "hidden", "elsewhere", "lower_than")]
    if not hiding and entry.get("overlay") and "hiding" in entry:
        return f"Nothing that Grad-CAM sees speaks for {label}."
    if not hiding or any(value is None for value in values):
        return ""
    share, score, hidden, elsewhere, lower = (float(value or 0.0) for value in values)
    beats = f"lower than at {percent(lower)} of the random places" if lower > 0 else "lower than at none of the random places"
    whole = finite(entry.get("score"))
    plain = "" if whole is None or abs(whole - score) < ANOTHER else ", looked at once, without mirrored or turned copies,"
    if _still(hiding):
        verdict = " So much of the image hardly changes the score, wherever it lies: the score rests on more than this region."
    elif hidden >= min(score, elsewhere):
        verdict = " The highlighted region is not what the score rests on."
    else:
        verdict = "" if lower >= 0.5 else " Most of the random places lower it more: do not rely on this picture."
    return (
        f"Hiding the highlighted {percent(share)} of the image takes the score of {label}{plain} from {decimal(score)} "
        f"to {decimal(hidden)}; hiding as much elsewhere, to {decimal(elsewhere)} on average ({beats}).{verdict}"
    )


def _agreement(entry: Mapping[str, Any]) -> str:
    value = finite(entry.get("agreement"))
    if value is None:
        return ""
    doubt = "" if value >= 0.3 else ": the two methods do not point to the same places, so believe neither alone"
    return f"Rank correlation of Grad-CAM with hiding: {value:.2f}{doubt}."


def _part(value: object) -> str:
    number = finite(value)
    return "" if number is None else "no part" if abs(number) < NO_SIGN else f"{number:+.2f}"


def _channels(parts: Mapping[str, Any]) -> str:
    known = {name: number for name, value in parts.items() if (number := finite(value)) is not None}
    if not known:
        return ""
    listed = ", ".join(f"{name} {_part(value)}" for name, value in sorted(known.items(), key=lambda item: -abs(item[1])))
    return f"What each channel adds to the log-odds: {listed}."


def _distance(entry: Mapping[str, Any]) -> str:
    known = any(_is_same(near) for near in items(dict(entry), "neighbours") if isinstance(near, Mapping))
    text = str(entry.get("distance_text") or "")
    return f"{text} The model learned from this image, or from a copy of it, which makes the distance small." if text and known else text


def _is_same(near: Mapping[str, Any]) -> bool:
    """Whether a training image is the image that is explained, or a copy."""
    distance = finite(near.get("distance"))
    return distance is not None and distance < SAME
