"""Files and objects copied, written and removed, each whole or not at all, in bounded memory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from coverslip.errors import InputError, MissingInputError
from coverslip.runtime import require, writing
from coverslip.storage.addresses import URL, WEB, Place
from coverslip.storage.connecting import AT_ONCE, CHUNK, patiently, telling
from coverslip.storage.folders import listing
from coverslip.storage.reading import chunks


def download(url: URL, path: Path) -> int:
    """Copy an object to a file, whole or not at all, in bounded memory; give its size in bytes.

    Raises:
        MissingInputError: nothing there.
        InputError: access refused.
        UnreachableError: the store does not answer.
        ResourceError: the disk is full.
    """
    with writing(path) as temporary, temporary.open("wb") as stream:
        size = 0
        obstore = require("obstore", "cloud")
        store, key, total = patiently(url, "cannot be read", lambda store, key: (store, key, int(obstore.head(store, key)["size"])))
        pieces = chunks(store, key, total)
        while True:
            with telling(url, "cannot be read"):
                piece = next(pieces, None)
            if piece is None:
                return size
            size += stream.write(piece)


def upload(path: Path, url: URL) -> None:
    """Copy a file to an object, whole or not at all, in bounded memory.

    Raises:
        InputError: access refused, or a web server, which is read only.
        UnreachableError: the store does not answer.
    """
    writable(url)
    obstore = require("obstore", "cloud")
    patiently(url, "cannot be written", lambda store, key: obstore.put(store, key, path, chunk_size=CHUNK, max_concurrency=4))


def writable(url: URL) -> None:
    """Refuse a URL of a web server.

    Raises:
        InputError: it is one.
    """
    if url.parts[0] in WEB:
        raise InputError(f"{url}: web servers are read, not written; choose a path, or s3://, gs:// or az://")


def write(where: Place, data: bytes) -> None:
    """Write a file or an object, whole or not at all."""
    with tempfile.TemporaryDirectory(prefix="coverslip-") as folder:
        file = Path(folder) / "object"
        file.write_bytes(data)
        if isinstance(where, URL):
            upload(file, where)
            return
        with writing(where) as temporary:
            shutil.copyfile(file, temporary)


def delete(where: Place) -> None:
    """Remove a file or an object, if it is there."""
    if isinstance(where, Path):
        where.unlink(missing_ok=True)
        return
    obstore = require("obstore", "cloud")
    with suppress(MissingInputError):
        patiently(where, "cannot be removed", obstore.delete)


@contextmanager
def local_copy(file: Any) -> Iterator[Path]:
    """A path with the content of a file, an object or a piece of a shard, with its ending, for readers that need one."""
    if isinstance(file, Path):
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="coverslip-") as folder:
        path = Path(folder) / f"file{file.suffix}"  # never its own name: that may come from outside
        if isinstance(file, URL):
            download(file, path)
        else:
            path.write_bytes(file.read_bytes())
        yield path


def upload_folder(folder: Path, url: URL, last: Iterable[str] = ()) -> list[str]:
    """Copy the files of a folder to a store, where they replace those of the same name.

    Args:
        folder: what is copied.
        url: where to.
        last: names of files that go last, in this order: they say that the rest is whole.

    Returns:
        The names of the files that were sent.
    """
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    late = [name for name in last if name in names]
    sent = [name for name in names if name not in late]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda name: upload(folder / name, url / name), sent))
    for name in late:
        upload(folder / name, url / name)
    return [*sent, *late]


def download_folder(url: URL, folder: Path, without: Sequence[str] = ()) -> list[str]:
    """Copy the objects below a URL into a folder, but for those with some endings; gives their names."""
    names = [name for name in listing(url) if name and not name.endswith(tuple(without))]
    unsafe = [name for name in names if name.startswith("/") or ".." in name.split("/") or "\\" in name]
    if unsafe:
        raise InputError(f"{url} holds names that lead out of a folder: {unsafe[0]}")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda name: download(url / name, folder / name), names))
    return names


@contextmanager
def local_folder(where: Place, without: Sequence[str] = ()) -> Iterator[Path]:
    """A folder, or a copy of what lies below a URL but for files with some endings, for as long as the block lasts.

    Raises:
        MissingInputError: there is nothing at the URL.
        InputError: a web server, which does not list.
        UnreachableError: the store does not answer.
    """
    if isinstance(where, Path):
        yield where
        return
    with tempfile.TemporaryDirectory(prefix="coverslip-") as holder:
        folder = Path(holder) / where.name
        if not download_folder(where, folder, without):
            raise MissingInputError(f"there is nothing at {where}")
        yield folder
