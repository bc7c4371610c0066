"""Any path or URL: objects of S3, Google Cloud Storage, Azure and web servers read and written like files. No torch.

`place` tells a URL from a path; all that reads data takes either. Requests go through obstore (Rust's object_store), which tries
again after a closed connection, a status of 5xx or silence, with growing pauses; a body that was cut off goes on where it ended.
What does not come right is an error with the URL, after a time that is known:

    COVERSLIP_ENDPOINT            address of the store, where it is not the cloud's own (`--endpoint`)
    COVERSLIP_STORAGE_TIMEOUT     seconds that one request may take, 20 when not set
    COVERSLIP_STORAGE_PATIENCE    seconds from the first try of a request to the last, 60 when not set
"""

from __future__ import annotations

import configparser
import json
import os
import posixpath
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from coverslip.errors import ConfigError, InputError, MissingInputError, ResourceError, UnreachableError, did_you_mean
from coverslip.runtime import cache_folder, explained, hash_text, require, writing

SCHEMES = ("s3", "gs", "az", "http", "https")
ENDPOINT, TIMEOUT, PATIENCE = "COVERSLIP_ENDPOINT", "COVERSLIP_STORAGE_TIMEOUT", "COVERSLIP_STORAGE_PATIENCE"
RETRIES = 8
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=0.1), timedelta(seconds=5)
AT_ONCE = 16
"""Requests that wait for answers at the same time."""
CHUNK = 8 << 20
"""Bytes of a large object that one request asks for or sends, so that each is done in time."""
LISTING_SECONDS = 60.0
"""How long what a listing of a folder said is taken to be so."""
LISTINGS = 64
"""Folders whose listings are remembered at the same time."""
SEVERAL = 20
"""From so many files of one folder on, one listing is cheaper than to ask for each."""


@dataclass(frozen=True, order=True)
class URL:
    """The address of an object, or of a folder of them; what of `pathlib.Path` makes sense for it.

    >>> url = URL("s3://bucket/images") / "a.png"
    >>> str(url), url.name, url.suffix, str(url.parent)
    ('s3://bucket/images/a.png', 'a.png', '.png', 's3://bucket/images')
    """

    text: str

    def __str__(self) -> str:
        return self.text

    def __truediv__(self, name: str) -> URL:
        """The address below this one; a name that is an address itself, or begins at the bucket's root, is taken as it is."""
        if is_url(name):
            return URL(name)
        scheme, bucket, key = self.parts
        joined = posixpath.normpath(posixpath.join("/" + key, name)).lstrip("/")
        return URL(f"{scheme}://{bucket}/{joined}".rstrip("/"))

    @property
    def parts(self) -> tuple[str, str, str]:
        """Scheme, bucket (or container, or host) and key."""
        split = urlsplit(self.text)
        start = len(split.scheme) + 3 + len(split.netloc)
        return split.scheme, split.netloc, self.text[start:].strip("/")

    @property
    def name(self) -> str:
        """The last piece of the path."""
        return posixpath.basename(self.parts[2])

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return posixpath.splitext(self.name)[0]

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot."""
        return posixpath.splitext(self.name)[1]

    @property
    def parent(self) -> URL:
        """The folder that it lies in."""
        scheme, bucket, key = self.parts
        return URL(f"{scheme}://{bucket}/{posixpath.dirname(key)}".rstrip("/"))

    def absolute(self) -> URL:
        """The address itself."""
        return self

    def as_posix(self) -> str:
        """The address as text."""
        return self.text

    def is_file(self) -> bool:
        """Whether there is an object at the address."""
        return stat(self) is not None

    def read_bytes(self) -> bytes:
        """The object's bytes; see `read`."""
        return read(self)

    def read_text(self, encoding: str = "utf-8") -> str:
        """The object as text."""
        return self.read_bytes().decode(encoding)


Place = Path | URL


@dataclass(frozen=True)
class Stat:
    """What a store says of an object: its bytes, and a text that changes with its content."""

    size: int
    version: str


def is_url(text: object) -> bool:
    """Whether a text is meant as a URL."""
    return "://" in str(text)


def place(text: str | Place) -> Place:
    """A path or a URL, told by its form; `file://` is a path.

    Raises:
        InputError: a scheme that is not known.
    """
    if isinstance(text, (Path, URL)):
        return text
    if not is_url(text):
        return Path(text).expanduser()
    scheme = text.split("://", 1)[0].lower()
    if scheme == "file":
        return Path(url2pathname(urlsplit(text).path))
    if scheme not in SCHEMES:
        known = [*SCHEMES, "file"]
        raise InputError(f"{text}: {scheme}:// is not read.{did_you_mean(scheme, known)} Known: {', '.join(known)}")
    url = URL(text.rstrip("/"))
    if not url.parts[1]:
        raise InputError(f"{text} names no bucket or host; expected {scheme}://BUCKET/PATH")
    return url


def absolute(text: str | Place) -> str:
    """A path or URL as text that means the same from any folder."""
    return str(place(text).absolute())


# Stores ---------------------------------------------------------------------------------------------------------------


def _seconds(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = 0.0
    if value <= 0:
        raise ConfigError(f"{name}={text}: expected a number of seconds above 0")
    return value


def _store(url: URL) -> tuple[Any, str]:
    """The obstore store of a URL's bucket or host, and the key in it."""
    scheme, bucket, key = url.parts
    # tokens that are renewed in the environment make a new store
    told = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "COVERSLIP_"))}
    return _open_store(scheme, bucket, tuple(sorted(told.items()))), key


@lru_cache(maxsize=32)
def _open_store(scheme: str, bucket: str, told: tuple[tuple[str, str], ...]) -> Any:
    stores = require("obstore.store", "cloud")
    environment = dict(told)
    endpoint = environment.get(ENDPOINT) if scheme in ("s3", "gs", "az") else None
    named = endpoint or next((value for name, value in told if name.startswith("AWS_ENDPOINT") or name.endswith("_ENDPOINT")), "")
    client: dict[str, Any] = {
        "timeout": timedelta(seconds=_seconds(TIMEOUT, 20)),
        "connect_timeout": timedelta(seconds=min(5, _seconds(TIMEOUT, 20))),
        "allow_http": scheme == "http" or named.startswith("http://") or environment.get("AWS_ALLOW_HTTP") == "true",
    }
    retry = {
        "max_retries": RETRIES,
        "retry_timeout": timedelta(seconds=_seconds(PATIENCE, 60)),
        "backoff": {"init_backoff": FIRST_PAUSE, "max_backoff": LONGEST_PAUSE, "base": 2.0},
    }
    settings: dict[str, Any] = {}
    if scheme == "s3":
        settings = {**_profile(environment), **({"endpoint": endpoint} if endpoint else {})}
        return stores.S3Store(bucket, client_options=client, retry_config=retry, config=settings)
    if scheme == "gs":
        if endpoint:
            key = {"gcs_base_url": endpoint, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
            settings = {"service_account_key": json.dumps(key)}
            client["allow_http"] = endpoint.startswith("http://")
        return stores.GCSStore(bucket, client_options=client, retry_config=retry, config=settings)
    if scheme == "az":
        settings = {"endpoint": endpoint} if endpoint else {}
        return stores.AzureStore(bucket, client_options=client, retry_config=retry, config=settings)
    return stores.HTTPStore.from_url(f"{scheme}://{bucket}", client_options=client, retry_config=retry)


def _profile(environment: Mapping[str, str]) -> dict[str, str]:
    """Keys, region and endpoint of a profile in ~/.aws, where the environment holds no keys; obstore does not look there."""
    if "AWS_ACCESS_KEY_ID" in environment or environment.get("AWS_SKIP_SIGNATURE") == "true":
        return {}
    name = environment.get("AWS_PROFILE", "default")
    files = [
        environment.get("AWS_CONFIG_FILE", "~/.aws/config"),
        environment.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
    ]
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read([Path(file).expanduser() for file in files], encoding="utf-8")
    except configparser.Error as error:
        raise ConfigError(f"{' or '.join(files)} cannot be read: {str(error).splitlines()[0]}") from None
    keys = {
        "aws_access_key_id": "access_key_id", "aws_secret_access_key": "secret_access_key", "aws_session_token": "session_token",
        "region": "region", "endpoint_url": "endpoint",
    }  # fmt: skip
    sections = [section for section in (f"profile {name}", name) if parser.has_section(section)]
    told = {theirs: value for section in sections for theirs, value in parser.items(section)}
    return {ours: told[theirs] for theirs, ours in keys.items() if theirs in told}


@contextmanager
def _told(url: URL, doing: str) -> Iterator[None]:
    """Errors of the store as ours, with the URL.

    Raises:
        MissingInputError: nothing there.
        InputError: access refused.
        UnreachableError: the store does not answer, or not as it should, after all tries.
    """
    errors = require("obstore.exceptions", "cloud")
    try:
        yield
    except (errors.NotFoundError, FileNotFoundError):
        raise MissingInputError(f"there is nothing at {url}") from None
    except (errors.PermissionDeniedError, errors.UnauthenticatedError) as error:
        raise InputError(
            f"{url} {doing}: access was refused ({_reason(error)}); check the credentials of the store in the environment, "
            "or AWS_SKIP_SIGNATURE=true for a public bucket"
        ) from None
    except (errors.BaseError, OSError) as error:
        if "169.254.169.254" in str(error):  # where machines of a cloud find their keys
            raise InputError(
                f"{url} {doing}: no keys of the store were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
                "or AWS_SKIP_SIGNATURE=true for a public bucket"
            ) from None
        tried = f"it was tried for up to {_seconds(PATIENCE, 60):g} s ({PATIENCE})"
        raise UnreachableError(f"{url} {doing}: {_reason(error)}; {tried}") from None


def _reason(error: Exception) -> str:
    """The first lines of what obstore says, without its debugging output."""
    said = str(error).split("\n\nDebug source:")[0].split("\n")
    return " ".join(line.strip() for line in said if line.strip())[:400]


# Reading --------------------------------------------------------------------------------------------------------------


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
    with _told(url, "cannot be read"):
        store, key = _store(url)
        if length is not None:
            return bytes(obstore.get_range(store, key, start=start, length=length)) if length else b""
        answer = obstore.get(store, key)
        size = int(answer.meta["size"])
        if most is not None and size > most:
            raise InputError(f"{url} has {size / 1e9:.1f} GB, where at most {most / 1e9:.1f} GB are read")
        if size <= CHUNK:
            data = bytes(answer.bytes())
            return data[start:] if start else data
        return b"".join(_chunks(store, key, size, start))


def _chunks(store: Any, key: str, size: int, start: int = 0) -> Iterator[bytes]:
    """A large object piece by piece, a few ahead."""
    obstore = require("obstore", "cloud")
    begins = range(start, size, CHUNK)
    with ThreadPoolExecutor(4) as pool:
        ask = [lambda begin=begin: bytes(obstore.get_range(store, key, start=begin, end=min(begin + CHUNK, size))) for begin in begins]
        waiting = [pool.submit(one) for one in ask[:4]]
        for number in range(len(ask)):
            yield waiting.pop(0).result()
            if number + 4 < len(ask):
                waiting.append(pool.submit(ask[number + 4]))


def stat(url: URL) -> Stat | None:
    """What the store says of an object; None where there is none.

    Raises:
        InputError: access refused.
        UnreachableError: the store does not answer.
    """
    obstore = require("obstore", "cloud")
    try:
        with _told(url, "cannot be looked at"):
            store, key = _store(url)
            return _stat_of(obstore.head(store, key)) if key else None
    except MissingInputError:
        return None


def _stat_of(meta: Mapping[str, Any]) -> Stat:
    return Stat(int(meta["size"]), str(meta.get("e_tag") or meta.get("last_modified")).strip(chr(34)))


def listing(url: URL) -> dict[str, Stat]:
    """All objects below a folder, by their names relative to it; empty where there are none.

    Raises:
        InputError: access refused, or a web server, which cannot list.
        UnreachableError: the store does not answer.
    """
    if url.parts[0] in ("http", "https"):
        raise InputError(f"{url}: a web server does not list its folders; name a table, or single files")
    obstore = require("obstore", "cloud")
    found: dict[str, Stat] = {}
    with _told(url, "cannot be listed"):
        store, key = _store(url)
        for page in obstore.list(store, prefix=key or None, chunk_size=1000):
            found |= {_below(str(meta["path"]), key): _stat_of(meta) for meta in page}
    return found


def _below(path: str, key: str) -> str:
    return path.removeprefix(key).lstrip("/") if key else path


_listings: dict[str, tuple[float, dict[str, Stat]]] = {}
_listing_lock = threading.Lock()


def stats(urls: Sequence[URL]) -> dict[URL, Stat | None]:
    """What the stores say of many objects: one listing for a folder of several, one request for each of the others."""
    folders: dict[URL, list[URL]] = {}
    for url in dict.fromkeys(urls):
        folders.setdefault(url.parent, []).append(url)
    found: dict[URL, Stat | None] = {}
    single: list[URL] = []
    for folder, own in folders.items():
        if len(own) < SEVERAL or folder.parts[0] in ("http", "https"):
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
    with _listing_lock:
        when, found = _listings.get(folder.text, (-LISTING_SECONDS, {}))
        if time.monotonic() - when < LISTING_SECONDS:
            return found
        with _told(folder, "cannot be listed"):
            store, key = _store(folder)
            told = obstore.list_with_delimiter(store, prefix=key or None)
        found = {_below(str(meta["path"]), key): _stat_of(meta) for meta in told["objects"]}
        if len(_listings) >= LISTINGS:
            _listings.clear()
        _listings[folder.text] = (time.monotonic(), found)
        return found


def exists(where: Place) -> bool:
    """Whether there is a file, an object, or a folder with something in it."""
    if isinstance(where, Path):
        return where.exists()
    return stat(where) is not None or (where.parts[0] in ("s3", "gs", "az") and bool(_first_below(where)))


def _first_below(url: URL) -> list[Any]:
    obstore = require("obstore", "cloud")
    with _told(url, "cannot be listed"):
        store, key = _store(url)
        return next(iter(obstore.list(store, prefix=key or None, chunk_size=1)), [])


# Copies ---------------------------------------------------------------------------------------------------------------


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
        with _told(url, "cannot be read"):
            store, key = _store(url)
            total = int(require("obstore", "cloud").head(store, key)["size"])
        pieces = _chunks(store, key, total)
        while True:
            with _told(url, "cannot be read"):
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
    if url.parts[0] in ("http", "https"):
        raise InputError(f"{url}: web servers are read, not written; choose a path, or s3://, gs:// or az://")
    obstore = require("obstore", "cloud")
    with _told(url, "cannot be written"):
        store, key = _store(url)
        obstore.put(store, key, path, chunk_size=CHUNK, max_concurrency=4)


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
    with suppress(MissingInputError), _told(where, "cannot be removed"):
        store, key = _store(where)
        obstore.delete(store, key)


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
    """Copy the files of a folder to a store, those that lie there already left out, and remove there what is not in the folder.

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


def download_folder(url: URL, folder: Path) -> list[str]:
    """Copy all objects below a URL into a folder; gives their names."""
    names = [name for name in listing(url) if name]
    unsafe = [name for name in names if name.startswith("/") or ".." in name.split("/") or "\\" in name]
    if unsafe:
        raise InputError(f"{url} holds names that lead out of a folder: {unsafe[0]}")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda name: download(url / name, folder / name), names))
    return names


@contextmanager
def output(where: str | Place, *, resume: bool = False, replace: bool = False, last: Sequence[str] = ()) -> Iterator[Path]:
    """A local folder or file to write to; what is meant for a URL is written beside the cache first and sent whole at the end.

    After an error or a kill the local copy stays, and a resumed run goes on from it, or else from what lies at the URL.

    Args:
        where: a path, which is given back as it is, or a URL.
        resume: whether there is something to go on with.
        replace: whether what lies at the URL may be replaced.
        last: names of files that are sent last.

    Raises:
        InputError: a web server, which is read only.
        UnreachableError: the store does not answer; the local copy stays, and the message names it.
    """
    target = place(where)
    if isinstance(target, Path):
        yield target
        return
    if target.parts[0] in ("http", "https"):
        raise InputError(f"{target}: web servers are read, not written; choose a path, or s3://, gs:// or az://")
    holder = cache_folder() / "outputs" / hash_text(str(target))[:16]
    local = holder / target.name
    if resume and not local.exists():
        download_folder(target, local)
    elif not resume:
        if not replace and exists(target):
            raise ResourceError(f"there is something at {target} already; choose another place, or go on with --resume")
        shutil.rmtree(holder, ignore_errors=True)
    with explained(local):
        holder.mkdir(parents=True, exist_ok=True)
    yield local
    try:
        if local.is_dir():
            upload_folder(local, target, last)
        elif local.exists():
            upload(local, target)
    except (UnreachableError, InputError) as error:
        raise UnreachableError(f"{error}. What was made lies in {local}; --resume sends it again") from error
    shutil.rmtree(holder, ignore_errors=True)
