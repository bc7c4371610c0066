"""What lies in a folder of a store, and which of many files are there: one request for many."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from coverslip.errors import InputError
from coverslip.runtime import require
from coverslip.storage.addresses import URL, WEB, Place
from coverslip.storage.connecting import AT_ONCE, patiently, surroundings
from coverslip.storage.reading import Stat, stat, stat_of

LISTING_SECONDS = 60.0
"""How long what a listing of a folder said is taken to be so."""
LISTINGS = 64
"""Folders whose listings are remembered at the same time."""
SEVERAL = 20
"""From so many files of one folder on, one listing is cheaper than to ask for each."""


def listing(url: URL) -> dict[str, Stat]:
    """All objects below a folder, by their names relative to it; empty where there are none.

    Raises:
        InputError: access refused, or a web server, which cannot list.
        UnreachableError: the store does not answer.
    """
    if url.parts[0] in WEB:
        raise InputError(f"{url}: a web server does not list its folders; name a table, or single files")
    obstore = require("obstore", "cloud")

    def ask(store: Any, key: str) -> dict[str, Stat]:
        pages = obstore.list(store, prefix=key or None, chunk_size=1000)
        return {_below(str(meta["path"]), key): stat_of(meta) for page in pages for meta in page}

    return patiently(url, "cannot be listed", ask)


def _below(path: str, key: str) -> str:
    return path.removeprefix(key).lstrip("/") if key else path


_listings: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[float, dict[str, Stat]]] = {}
_listing_lock = threading.Lock()


def stats(urls: Sequence[URL]) -> dict[URL, Stat | None]:
    """What the stores say of many objects: one listing for a folder of several, one request for each of the others."""
    folders: dict[URL, list[URL]] = {}
    for url in dict.fromkeys(urls):
        folders.setdefault(url.parent, []).append(url)
    found: dict[URL, Stat | None] = {}
    single: list[URL] = []
    for folder, own in folders.items():
        if len(own) < SEVERAL or folder.parts[0] in WEB:
            single += own
            continue
        names = files_in(folder)
        found |= {url: names.get(url.name) for url in own}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found |= dict(zip(single, pool.map(stat, single), strict=True))
    return found


def files_in(folder: URL) -> dict[str, Stat]:
    """The objects of a folder, not those below it; asked for again after a minute."""
    obstore = require("obstore", "cloud")
    key = folder.text, surroundings()  # an endpoint may have changed
    with _listing_lock:
        when, found = _listings.get(key, (-LISTING_SECONDS, {}))
        if time.monotonic() - when < LISTING_SECONDS:
            return found
        said = patiently(folder, "cannot be listed", lambda store, prefix: obstore.list_with_delimiter(store, prefix=prefix or None))
        found = {_below(str(meta["path"]), folder.parts[2]): stat_of(meta) for meta in said["objects"]}
        if len(_listings) >= LISTINGS:
            _listings.clear()
        _listings[key] = (time.monotonic(), found)
        return found


def exists(where: Place) -> bool:
    """Whether there is a file, an object, or a folder with something in it."""
    if isinstance(where, Path):
        return where.exists()
    return stat(where) is not None or (where.parts[0] in ("s3", "gs", "az") and bool(_first_below(where)))


def _first_below(url: URL) -> list[Any]:
    obstore = require("obstore", "cloud")
    first: list[Any] = patiently(
        url, "cannot be listed", lambda store, key: next(iter(obstore.list(store, prefix=key or None, chunk_size=1)), [])
    )
    return first
