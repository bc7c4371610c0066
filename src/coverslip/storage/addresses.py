"""Addresses: what is a path, what a URL, and how to get from one to another below it. Nothing here asks a store."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from coverslip.errors import InputError, did_you_mean

WEB = ("http", "https")
SCHEMES = ("s3", "gs", "az", *WEB)


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
        plain = name.replace("%", "%25").replace("?", "%3F") if scheme in WEB else name
        joined = posixpath.normpath(posixpath.join("/" + key, plain)).lstrip("/")
        return URL(f"{scheme}://{bucket}/{joined}".rstrip("/") + self._signature)

    @property
    def parts(self) -> tuple[str, str, str]:
        """Scheme, bucket (or container, or host) and key; of a web server without its query."""
        split = urlsplit(self.text)
        start = len(split.scheme) + 3 + len(split.netloc)
        path = self.text[start:].partition("?")[0] if split.scheme in WEB else self.text[start:]
        return split.scheme, split.netloc, path.strip("/")

    @property
    def query(self) -> str:
        """What stands behind the `?` of the URL of a web server, which often is a signature; empty for other stores."""
        return self.text.partition("?")[2] if self.text.startswith(tuple(f"{scheme}://" for scheme in WEB)) else ""

    @property
    def _signature(self) -> str:
        return f"?{self.query}" if self.query else ""

    @property
    def shown(self) -> str:
        """The address as it may be shown: without its query."""
        return self.text.removesuffix(self.query) + ("..." if self.query else "")

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
        return URL(f"{scheme}://{bucket}/{posixpath.dirname(key)}".rstrip("/") + self._signature)

    def absolute(self) -> URL:
        """The address itself."""
        return self

    def as_posix(self) -> str:
        """The address as text."""
        return self.text

    def is_file(self) -> bool:
        """Whether there is an object at the address."""
        from coverslip.storage.reading import stat

        return stat(self) is not None

    def read_bytes(self) -> bytes:
        """The object's bytes; see `read`."""
        from coverslip.storage.reading import read

        return read(self)

    def read_text(self, encoding: str = "utf-8") -> str:
        """The object as text."""
        return self.read_bytes().decode(encoding)


Place = Path | URL


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
