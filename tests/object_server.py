"""A small object store on loopback that misbehaves when told to: the S3 protocol, and plain HTTP, over a folder.

What it speaks: GET (with ranges), HEAD, PUT, DELETE, listings of version 2 and uploads in parts, path style, any signature.
Faults are asked for by request; see `Fault`. Run as a program it serves until it is ended: `object_server.py FOLDER PORT`.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import threading
import time
import xml.sax.saxutils as xml
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

Fault = Literal["", "close", "cut", "500", "503", "429", "403", "slow", "hang"]
"""`close` before an answer; `cut` in the middle of the body; a status; a body at one byte a second; silence."""
Plan = Callable[[str, str, int], Fault]
"""Method, path and how often it was asked before → what goes wrong."""
PAGE = 1000


@dataclass
class Store:
    """What a server serves, what it was asked, and what it is to do wrong."""

    folder: Path
    plan: Plan = lambda method, path, before: ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)

    def fault(self, method: str, path: str) -> Fault:
        with self.lock:
            before = self.counts.get((method, path), 0)
            self.counts[method, path] = before + 1
            self.requests.append((method, path))
        return self.plan(method, path, before)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    store: Store

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_HEAD(self) -> None:
        self._answer(self._get)

    def do_PUT(self) -> None:
        self._answer(self._put)

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_DELETE(self) -> None:
        self._answer(self._delete)

    def _answer(self, handle: Callable[[], None]) -> None:
        split = urlsplit(self.path)
        self.key, self.query = unquote(split.path).strip("/"), {k: v[0] for k, v in parse_qs(split.query, keep_blank_values=True).items()}
        self.store.queries.append(split.query)
        self.body = self._content()
        self.trouble = self.store.fault(self.command, self.key)
        with contextlib.suppress(ConnectionError):
            if self.trouble == "hang":
                self.store.over.wait(60)
                self.close_connection = True
            elif self.trouble == "close":
                self.close_connection = True
            elif self.trouble in ("500", "503", "429", "403"):
                code = {"500": "InternalError", "503": "SlowDown", "429": "TooManyRequests", "403": "AccessDenied"}[self.trouble]
                self._send(int(self.trouble), f"<Error><Code>{code}</Code><Message>as planned</Message></Error>".encode())
            else:
                handle()

    def _content(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            data = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.trouble == "cut":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.close_connection = True
        elif self.trouble == "slow":
            for place in range(len(body)):
                self.wfile.write(body[place : place + 1])
                self.wfile.flush()
                if self.store.over.wait(1):
                    break
            self.close_connection = True
        else:
            self.wfile.write(body)

    def _get(self) -> None:
        if "list-type" in self.query:
            return self._list()
        file = self.store.folder / self.key
        if not file.is_file():
            return self._send(404, b"<Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>")
        size = file.stat().st_size
        first, last = 0, size - 1
        asked = self.headers.get("Range")
        if asked:
            low, high = asked.removeprefix("bytes=").split("-")
            first, last = (int(low), min(int(high or size - 1), size - 1)) if low else (max(size - int(high), 0), size - 1)
        facts = {"ETag": f'"{tag(file)}"', "Last_Modified": "Mon, 01 Jan 2024 00:00:00 GMT", "Accept_Ranges": "bytes"}
        if self.command == "HEAD":
            return self._send(200, Content_Length=str(size), **facts)
        with file.open("rb") as stream:
            stream.seek(first)
            body = stream.read(last - first + 1)
        if asked:
            facts["Content_Range"] = f"bytes {first}-{last}/{size}"
        return self._send(206 if asked else 200, body, **facts)

    def _list(self) -> None:
        root = self.store.folder / self.key
        prefix, mark, after = self.query.get("prefix", ""), self.query.get("delimiter"), self.query.get("continuation-token", "")
        keys = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()) if root.is_dir() else []
        keys = [key for key in keys if key.startswith(prefix)]
        folders = sorted({prefix + key[len(prefix) :].split(mark)[0] + mark for key in keys if mark in key[len(prefix) :]}) if mark else []
        keys = [key for key in keys if not mark or mark not in key[len(prefix) :]]
        rest = [key for key in keys if key > after]
        shown = rest[:PAGE]
        items = "".join(
            f"<Contents><Key>{xml.escape(key)}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;{tag(root / key)}&quot;</ETag><Size>{(root / key).stat().st_size}</Size></Contents>"
            for key in shown
        )
        common = "".join(f"<CommonPrefixes><Prefix>{xml.escape(name)}</Prefix></CommonPrefixes>" for name in folders)
        more = f"<NextContinuationToken>{xml.escape(shown[-1])}</NextContinuationToken>" if len(rest) > PAGE else ""
        truncated = str(bool(more)).lower()
        body = f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{more}{items}{common}</ListBucketResult>"
        self._send(200, body.encode(), Content_Type="application/xml")

    def _put(self) -> None:
        if "uploadId" in self.query:
            self.store.uploads[self.query["uploadId"]][int(self.query["partNumber"])] = self.body
            return self._send(200, ETag=f'"{hashlib.md5(self.body, usedforsecurity=False).hexdigest()}"')
        write(self.store.folder / self.key, self.body)
        return self._send(200, ETag=f'"{tag(self.store.folder / self.key)}"')

    def _post(self) -> None:
        if "uploads" in self.query:
            name = f"upload-{len(self.store.uploads)}"
            self.store.uploads[name] = {}
            text = f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
            return self._send(200, text.encode())
        if "uploadId" in self.query:
            parts = self.store.uploads.pop(self.query["uploadId"])
            write(self.store.folder / self.key, b"".join(parts[number] for number in sorted(parts)))
            etag = tag(self.store.folder / self.key)
            text = f"<CompleteMultipartUploadResult><ETag>&quot;{etag}&quot;</ETag></CompleteMultipartUploadResult>"
            return self._send(200, text.encode())
        keys = [element.text or "" for element in ElementTree.fromstring(self.body).iter() if element.tag.endswith("Key")]
        for key in keys:
            (self.store.folder / self.key / key).unlink(missing_ok=True)
        deleted = "".join(f"<Deleted><Key>{xml.escape(key)}</Key></Deleted>" for key in keys)
        return self._send(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())

    def _delete(self) -> None:
        (self.store.folder / self.key).unlink(missing_ok=True)
        self._send(204)


def tag(file: Path) -> str:
    """An ETag that changes with the content."""
    facts = file.stat()
    return hashlib.md5(f"{facts.st_size} {facts.st_mtime_ns}".encode(), usedforsecurity=False).hexdigest()


def write(file: Path, data: bytes) -> None:
    """Write whole or not at all, as an object store does."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}-{threading.get_ident()}-{time.monotonic_ns()}")
    temporary.write_bytes(data)
    temporary.replace(file)


class Server(ThreadingHTTPServer):
    """Threads that end with the program."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *arguments: object) -> None:
        """Connections that clients give up are what these tests are about."""


@contextmanager
def object_server(folder: Path, plan: Plan = lambda method, path, before: "") -> Iterator[tuple[str, Store]]:
    """A server in a thread; gives its address and its store."""
    store = Store(folder, plan)
    server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"store": store}))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", store
    finally:
        store.over.set()
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[2])), type("Bound", (Handler,), {"store": Store(Path(sys.argv[1]))})).serve_forever()
