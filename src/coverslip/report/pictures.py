"""Pictures of a run as data URIs, under a ceiling of bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coverslip.report.numbers import finite

LARGE = 40_000
"""Pictures of more bytes than this are embedded smaller and as JPEG."""

SIDE = 384
"""Longest side of a picture that was made smaller, in pixels."""


@dataclass(frozen=True)
class Picture:
    """An embedded picture: its data URI and its size in pixels."""

    uri: str
    width: int
    height: int

    @property
    def tiny(self) -> bool:
        """Small enough that single pixels should stay visible when it is drawn larger."""
        return max(self.width, self.height) < 100


@dataclass
class Album:
    """Hands out pictures of a folder until the ceiling is reached; counts what it left out."""

    folder: Path
    limit: int = 3_600_000
    used: int = 0
    left_out: int = 0
    seen: dict[str, Picture] = field(default_factory=dict)

    def picture(self, name: object) -> Picture | None:
        """The picture of a plain file name in the folder; None when it is missing, unreadable, or too much."""
        if not isinstance(name, str) or Path(name).name != name or not (self.folder / name).is_file():
            return None
        if name not in self.seen:
            embedded = _embed(self.folder / name)
            if embedded is None:
                return None
            if self.used + len(embedded.uri) > self.limit:
                self.left_out += 1
                return None
            self.used += len(embedded.uri)
            self.seen[name] = embedded
        return self.seen[name]


def wrong_decision(entry: Mapping[str, Any]) -> str:
    """Of an image with several labels that is a mistake: the decision that is furthest off; empty with one label an image.

    >>> wrong_decision({"label": "burr|rim", "wrong_class": "rim", "score": 0.05})
    'rim missed, score 0.05'
    >>> wrong_decision({"label": "burr", "wrong_class": "rim", "score": 0.9})
    'rim wrongly given, score 0.90'
    """
    name, score = entry.get("wrong_class"), finite(entry.get("score"))
    if not isinstance(name, str) or score is None:
        return ""
    missed = name in str(entry.get("label") or "").split("|")
    return f"{name} {'missed' if missed else 'wrongly given'}, score {score:.2f}"


def _embed(path: Path) -> Picture | None:
    from PIL import Image

    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            kind = image.format
            if len(data) > LARGE:
                image.thumbnail((SIDE, SIDE))
                stream, kind = io.BytesIO(), "JPEG"
                flat = Image.new("RGB", image.size, "white")
                flat.paste(image.convert("RGB"), mask=image.getchannel("A") if "A" in image.getbands() else None)
                flat.save(stream, format="JPEG", quality=85)
                data = stream.getvalue()
            width, height = image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return Picture(f"data:image/{str(kind).lower()};base64,{base64.b64encode(data).decode('ascii')}", width, height)
