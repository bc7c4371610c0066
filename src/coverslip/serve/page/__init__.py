"""The page: plain files that a browser takes as they are, and the addresses at which they are sent."""

from __future__ import annotations

from importlib.resources import files

PAGES = {"index.html": "/", "docs.html": "/docs"}
KINDS = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}


def page_files() -> list[tuple[str, bytes, str]]:
    """Address, content and media type of each file; the pages are at `/` and `/docs`, the others below `/page/`."""
    found = []
    for entry in sorted(files(__name__).iterdir(), key=lambda entry: entry.name):
        kind = next((kind for ending, kind in KINDS.items() if entry.name.endswith(ending)), None)
        if kind is not None:
            found.append((PAGES.get(entry.name, f"/page/{entry.name}"), entry.read_bytes(), kind))
    return found
