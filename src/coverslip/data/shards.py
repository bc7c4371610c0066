"""Shards: many images in few large files, with an index of where each lies, and reading them piece by piece.

A set of shards is a folder, local or in a store: `shard-00000.tar` and so on, tar files that WebDataset and any tar program read;
`rows.parquet`, a row a sample; and `index.json`, which is written last. Each piece that is read is held against its SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coverslip.config import CacheConfig
from coverslip.data.cache import cached, held_bytes
from coverslip.errors import MissingInputError, ResourceError, ShardError
from coverslip.runtime import hash_file
from coverslip.storage import URL, Place, download, local_copy, read
from coverslip.structures import Channel, IntArray, Table

FORMAT, KIND = 1, "coverslip shards"
INDEX, ROWS, PLAN, TAR = "index.json", "rows.parquet", "plan.json", ".tar"
WHOLE_FROM = 4
"""How many pieces of a shard in a store are asked for one by one before it is copied into the cache whole."""


@dataclass(frozen=True)
class Shard:
    """One file of many samples, as it was written.

    Attributes:
        place: where it is.
        size: in bytes.
        sha256: of its content; empty where it is not known.
    """

    place: Place
    size: int
    sha256: str


@dataclass
class Shelf:
    """Reads pieces of shards; those of a store come from a copy in the cache once several of one shard were asked for.

    Attributes:
        limit: largest size of the cache, in bytes.
    """

    limit: int = field(default_factory=lambda: CacheConfig().limit)
    _asked: Counter[Place] = field(default_factory=Counter)
    _copies: dict[Place, Path] = field(default_factory=dict)
    _checked: set[Path] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _copying: threading.Lock = field(default_factory=threading.Lock)

    def __reduce__(self) -> tuple[type[Shelf], tuple[int]]:
        """To another process only the limit goes; it makes copies, or finds them, itself."""
        return Shelf, (self.limit,)

    def read(self, shard: Shard, start: int, length: int) -> bytes:
        """The bytes of a piece.

        Raises:
            ShardError: the shard is missing, truncated or changed.
            UnreachableError: the store does not answer.
        """
        if isinstance(shard.place, Path):
            try:
                if shard.place not in self._checked:
                    _check_size(shard, shard.place.stat().st_size)
                    self._checked.add(shard.place)
                data = _piece(shard.place, start, length)
            except FileNotFoundError:
                raise ShardError(f"the shard {shard.place} is missing; copy it anew, or make the shards again") from None
        else:
            data = self._from_store(shard, start, length)
        if len(data) < length:
            raise ShardError(f"the shard {shard.place} is truncated: a sample should end at byte {start + length}; {_AGAIN}")
        return data

    def _from_store(self, shard: Shard, start: int, length: int) -> bytes:
        assert isinstance(shard.place, URL)
        with self._lock:
            self._asked[shard.place] += 1
            whole = self._asked[shard.place] >= WHOLE_FROM
        copy = self._copy(shard, shard.place) if whole else None
        if copy is not None:
            with suppress(FileNotFoundError):  # it may have been evicted in this moment
                return _piece(copy, start, length)
        try:
            return read(shard.place, start, length)
        except MissingInputError:
            raise ShardError(f"the shard {shard.place} is missing; {_AGAIN}") from None

    def _copy(self, shard: Shard, url: URL) -> Path | None:
        """The shard in the cache, copied there first; None where it does not fit beside what is in use."""
        known = self._copies.get(url)
        if known is not None and known.is_file():
            return known
        with self._copying:
            known = self._copies.get(url)
            if known is not None and known.is_file():
                return known
            if not shard.sha256 or 2 * shard.size > self.limit - held_bytes():
                return None
            try:
                folder = cached("shards", shard.sha256, lambda holder: _fetch(shard, url, holder), size=shard.size, limit=self.limit)
            except ResourceError:
                return None
            self._copies[url] = folder / "shard.tar"
            return self._copies[url]


_AGAIN = "copy it anew, or make the shards again"


def _piece(path: Path, start: int, length: int) -> bytes:
    with path.open("rb", buffering=0) as stream:
        stream.seek(start)
        return stream.read(length)


def _check_size(shard: Shard, size: int) -> None:
    """An error where a file has another size than was written, also where only its end is gone, which holds no sample."""
    if shard.sha256 and size != shard.size:
        how = "is truncated" if size < shard.size else "was changed"
        raise ShardError(f"the shard {shard.place} {how}: it has {size:,} bytes, where {shard.size:,} were written; {_AGAIN}")


def _fetch(shard: Shard, url: URL, holder: Path) -> None:
    try:
        size = download(url, holder / "shard.tar")
    except MissingInputError:
        raise ShardError(f"the shard {url} is missing; {_AGAIN}") from None
    _check_size(shard, size)
    if hash_file(holder / "shard.tar") != shard.sha256:
        raise ShardError(f"the shard {url} is not the one that was written (its SHA-256 differs); {_AGAIN}")


@dataclass(frozen=True)
class Piece:
    """An image file that lies in a shard."""

    name: str
    shard: Shard
    start: int
    length: int
    sha256: str
    shelf: Shelf = field(repr=False, compare=False)

    @property
    def suffix(self) -> str:
        """The ending of its name, with the dot."""
        return posixpath.splitext(self.name)[1]

    def __str__(self) -> str:
        return f"{self.name} in {self.shard.place}"

    def read_bytes(self) -> bytes:
        """The bytes of the file, as they were when the shards were written.

        Raises:
            ShardError: they are not; the shard is named.
            UnreachableError: the store does not answer.
        """
        data = self.shelf.read(self.shard, self.start, self.length)
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise ShardError(f"the shard {self.shard.place} was changed: {self.name} in it is not what was written; {_AGAIN}")
        return data


class Shards:
    """A set of shards as the root of a table: gives the piece of each name.

    Args:
        shards: the files.
        rows: what `rows.parquet` holds, or an index of foreign tar files: columns `image`, `files`, `shard`, `starts`, `lengths`,
            `sha256` (lists, one entry a file), `labels` (lists), `part` and `group` (text, empty where there is none).
        described: what `index.json` holds.
    """

    def __init__(self, shards: Sequence[Shard], rows: pd.DataFrame, described: Mapping[str, Any]) -> None:
        self.shelf, self.shards, self.rows, self.described = Shelf(), tuple(shards), rows, described
        self._places: dict[str, tuple[int, int, int, str]] = {}
        columns = (rows[name] for name in ("files", "shard", "starts", "lengths", "sha256"))
        for files, shard, starts, lengths, digests in zip(*columns, strict=True):
            for file, start, length, digest in zip(files, starts, lengths, digests, strict=True):
                self._places[str(file)] = (int(shard), int(start), int(length), str(digest))

    def __str__(self) -> str:
        return f"the shards in {self.shards[0].place.parent}" if self.shards else "shards"

    def __getitem__(self, name: str) -> Piece:
        shard, start, length, digest = self._places[name]
        return Piece(name, self.shards[shard], start, length, digest, self.shelf)

    def __truediv__(self, name: str) -> Piece:
        """The piece of that name."""
        return self[name]

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels of the files of a sample, in their order; none where it is one file of grey or RGB."""
        return tuple(Channel(**channel) for channel in self.described.get("channels", ()))

    def shards_of(self, table: Table) -> IntArray:
        """int64 (n,): the number of the shard that each sample lies in."""
        return np.array([self._places[names[0]][0] for names in table.names], dtype=np.int64)


def has_index(folder: Place) -> bool:
    """Whether a folder holds shards of ours."""
    file = folder / INDEX
    return file.is_file() and KIND in file.read_bytes()[:1000].decode("utf-8", "replace")


def open_shards(folder: Place) -> Shards:
    """Read the index of a set of shards.

    Raises:
        ShardError: the index is damaged, or of another format.
    """
    try:
        described = json.loads((folder / INDEX).read_bytes())
        if described["kind"] != KIND or described["format"] != FORMAT:
            raise ShardError(f"{folder / INDEX} has format {described['format']}; this version of coverslip reads format {FORMAT}")
        with local_copy(folder / ROWS) as file:
            if hash_file(file) != described["rows_sha256"]:
                raise ShardError(f"{folder / ROWS} is not the one that belongs to {INDEX} (its SHA-256 differs); {_AGAIN}")
            rows = pd.read_parquet(file)
        shards = [Shard(folder / one["name"], int(one["size"]), str(one["sha256"])) for one in described["shards"]]
    except FileNotFoundError as error:
        raise ShardError(f"the shards in {folder} are incomplete: {error}; {_AGAIN}") from None
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ShardError(f"{folder / INDEX} is damaged: {error!r}; {_AGAIN}") from None
    return Shards(shards, rows, described)
