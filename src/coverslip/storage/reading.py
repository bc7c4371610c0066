"""Reading objects, whole or in part, and looking at one without reading it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from coverslip.errors import InputError, MissingInputError
from coverslip.runtime import require
from coverslip.storage.addresses import URL
from coverslip.storage.connecting import CHUNK, patiently


@dataclass(frozen=True)
class Stat:
    """What a store says of an object: its bytes, and a text that changes with its content."""

    size: int
    version: str


def read(url: URL, start: int = 0, length: int | None = None, *, most: int | None = None) -> bytes:
    """The bytes of an object, or a range of them.

    Args:
        url: of the object.
        start: first byte.
        length: bytes from there on; all when None.
        most: largest object that is read whole, in bytes.

    Raises:
        MissingInputError: nothing there.
        InputError: access refused, or larger than `most`.
        UnreachableError: the store does not answer.
    """
    obstore = require("obstore", "cloud")

    def ask(store: Any, key: str) -> bytes:
        if length is not None:
            return bytes(obstore.get_range(store, key, start=start, length=length)) if length else b""
        answer = obstore.get(store, key)
        size = int(answer.meta["size"])
        if most is not None and size > most:
            raise InputError(f"{url} has {size / 1e9:.1f} GB, where at most {most / 1e9:.1f} GB are read")
        if size <= CHUNK:
            data = bytes(answer.bytes())
            return data[start:] if start else data
        return b"".join(chunks(store, key, size, start))

    return patiently(url, "cannot be read", ask)


def chunks(store: Any, key: str, size: int, start: int = 0) -> Iterator[bytes]:
    """A large object piece by piece, a few ahead; in one go from a web server that gives no parts of files."""
    obstore, errors = require("obstore", "cloud"), require("obstore.exceptions", "cloud")
    begins = range(start, size, CHUNK)
    with ThreadPoolExecutor(4) as pool:
        ask = [lambda begin=begin: bytes(obstore.get_range(store, key, start=begin, end=min(begin + CHUNK, size))) for begin in begins]
        waiting = [pool.submit(one) for one in ask[:4]]
        for number in range(len(ask)):
            try:
                piece = waiting.pop(0).result()
            except errors.NotSupportedError:
                yield from _in_one_go(store, key, start)
                return
            yield piece
            if number + 4 < len(ask):
                waiting.append(pool.submit(ask[number + 4]))


def _in_one_go(store: Any, key: str, start: int) -> Iterator[bytes]:
    passed = 0
    for piece in require("obstore", "cloud").get(store, key).stream(min_chunk_size=CHUNK):
        wanted = bytes(piece)[max(0, start - passed) :]
        passed += len(piece)
        if wanted:
            yield wanted


def stat(url: URL) -> Stat | None:
    """What the store says of an object; None where there is none.

    Raises:
        InputError: access refused.
        UnreachableError: the store does not answer.
    """
    obstore = require("obstore", "cloud")
    try:
        return patiently(url, "cannot be looked at", lambda store, key: stat_of(obstore.head(store, key)) if key else None)
    except MissingInputError:
        return None


def stat_of(meta: Mapping[str, Any]) -> Stat:
    """What obstore says of an object, as a `Stat`."""
    return Stat(int(meta["size"]), str(meta.get("e_tag") or meta.get("last_modified")).strip(chr(34)))
