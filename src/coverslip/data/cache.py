"""The on-disk cache of decoded pixels, features, maps, and graphs of models.

An entry is a folder named by the hash of all that went into it. It is built beside its place and renamed into it, so that
two runs that build the same entry at the same time both end well and the first one's copy stays. Entries unused for
longest are removed when the cache grows over its limit.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import filelock

from coverslip.errors import ResourceError
from coverslip.runtime import cache_folder, explained, make_folder, readable

KINDS = ("pixels", "features", "maps", "graphs", "bundles", "shards", "indexes")
STALE_SECONDS = 86_400
_USED = "used"
_UNFINISHED = ".building-"
_LOCK = ".lock"


@dataclass(frozen=True)
class CacheEntry:
    """One finished entry: its kind, folder, size in bytes, and when it was last used (seconds since the epoch)."""

    kind: str
    folder: Path
    size: int
    used: float


class Hold:
    """Keeps an entry from being evicted by this process, for as long as the hold lives."""

    def __init__(self, folder: Path) -> None:
        _held[id(self)] = folder
        weakref.finalize(self, _held.pop, id(self), None)


_held: dict[int, Path] = {}


def held_bytes() -> int:
    """Bytes of the entries that are held."""
    held = set(_held.values())
    return sum(entry.size for entry in cache_entries() if entry.folder in held)


def cached(kind: str, key: str, build: Callable[[Path], None], *, size: int, limit: int) -> Path:
    """The folder of an entry; built first when it is not there.

    Args:
        kind: one of `KINDS`.
        key: hash of the content and of the settings.
        build: fills the folder that it is given.
        size: expected size of the entry, in bytes.
        limit: largest size of the whole cache, in bytes.

    Raises:
        ResourceError: the entry alone is larger than the limit, or the disk is full.
    """
    place = entry_of(kind, key)
    if not place.is_dir():
        if size > limit:
            raise ResourceError(
                f"the {kind} need {readable(size)} on disk, but cache.limit is {readable(limit)}; "
                f"raise it (-s cache.limit={size * 2}) or make pixels.height and pixels.width smaller"
            )
        evict(limit - size)
        _build_entry(place, build)
    with explained(place), suppress(FileNotFoundError):  # another run may have removed it in this moment
        (place / _USED).touch()
    return place


def entry_of(kind: str, key: str) -> Path:
    """Where an entry lies, or would lie."""
    return cache_folder() / kind / key


def _build_entry(place: Path, build: Callable[[Path], None]) -> None:
    make_folder(place.parent)
    with explained(place):
        holder = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=place.parent))
    at_work = filelock.FileLock(holder.with_name(holder.name + _LOCK))  # which the system frees when this process is killed
    try:
        with explained(place), at_work:
            build(holder)
            try:
                holder.rename(place)
            except OSError:
                if not place.is_dir():
                    raise
    finally:
        shutil.rmtree(holder, ignore_errors=True)
        Path(at_work.lock_file).unlink(missing_ok=True)


def cache_entries() -> list[CacheEntry]:
    """All finished entries, the one unused for longest first."""
    return sorted(_entries(), key=lambda entry: entry.used)


def _entries() -> Iterator[CacheEntry]:
    for kind in KINDS:
        for folder in (cache_folder() / kind).glob("*"):
            if folder.name.startswith(".") or not folder.is_dir():
                continue
            mark = folder / _USED
            with suppress(FileNotFoundError):  # another run may be removing it
                size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
                yield CacheEntry(kind, folder, size, (mark if mark.exists() else folder).stat().st_mtime)


def evict(limit: int) -> int:
    """Remove the entries unused for longest until the rest fits into `limit` bytes; give the bytes freed."""
    held = set(_held.values())
    entries = cache_entries()
    excess = sum(entry.size for entry in entries) - limit
    freed = 0
    for entry in entries:
        if freed >= excess:
            break
        if entry.folder in held:
            continue
        if _remove(entry.folder):
            freed += entry.size
    _remove_abandoned()
    return freed


def _remove(folder: Path) -> bool:
    """Move an entry out of its place before it is deleted, so that half an entry is never found there."""
    holder = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder.parent))
    try:
        folder.rename(holder / "removed")
    except OSError:
        return False
    finally:
        shutil.rmtree(holder, ignore_errors=True)
    return True


def clear_cache() -> int:
    """Remove every entry; give the bytes freed."""
    return evict(0)


def _remove_abandoned() -> None:
    """Half-built entries of runs that were killed: nobody holds their lock; those without one go after a day."""
    for kind in KINDS:
        for mark in (cache_folder() / kind).glob(f"{_UNFINISHED}*{_LOCK}"):
            with suppress(filelock.Timeout, OSError), filelock.FileLock(mark, timeout=0):
                shutil.rmtree(mark.with_name(mark.name.removesuffix(_LOCK)), ignore_errors=True)
                mark.unlink(missing_ok=True)
        for holder in (cache_folder() / kind).glob(f"{_UNFINISHED}*"):
            with suppress(FileNotFoundError):
                if holder.is_dir() and time.time() - holder.stat().st_mtime > STALE_SECONDS:
                    shutil.rmtree(holder, ignore_errors=True)
