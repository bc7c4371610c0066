"""A stand-in for the Hugging Face hub: repositories in memory, and as much of its protocol as pushing and fetching a folder needs."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROUTE = re.compile(r"/api/models/(?P<name>[^/]+/[^/]+)(/(?P<verb>revision|preupload|commit|tree)/(?P<revision>[^/?]+))?(\?.*)?$")
FILE = re.compile(r"/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)$")


class Hub(http.server.BaseHTTPRequestHandler):
    """One hub; `repositories` holds name → path → bytes, `private` what was asked for when it was made."""

    repositories: ClassVar[dict[str, dict[str, bytes]]] = {}
    private: ClassVar[dict[str, bool]] = {}
    protocol_version = "HTTP/1.1"

    def _say(self, value: Any, status: int = 200, error: str = "") -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _address(self) -> str:
        return f"http://{self.headers['Host']}"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.repositories.setdefault(name, {})
            self.private.setdefault(name, asked.get("private", False) or asked.get("visibility") == "private")
            return self._say({"url": f"{self._address()}/{name}", "name": name})
        if self.path.startswith("/api/validate-yaml"):
            return self._say({"warnings": [], "errors": []})
        found = ROUTE.match(self.path)
        if found and found["verb"] == "preupload":
            files = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in json.loads(body)["files"]]
            return self._say({"files": files})
        if found and found["verb"] == "commit":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.repositories[found["name"]][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                if line["key"] == "deletedFile":
                    self.repositories[found["name"]].pop(line["value"]["path"], None)
            return self._say({"success": True, "commitUrl": f"{self._address()}/{found['name']}/commit/{COMMIT}", "commitOid": COMMIT})
        return self._say({}, 404)

    def do_GET(self) -> None:
        found, file = ROUTE.match(self.path), FILE.match(self.path)
        name = (found or file or {"name": ""})["name"]
        if name not in self.repositories:
            return self._say({"error": "Repository not found"}, 404 if self.path != "/" else 200, "RepoNotFound")
        content = self.repositories[name]
        if found and found["verb"] == "tree":
            return self._say([{"type": "file", "path": path, "size": len(data), "oid": _digest(data)} for path, data in content.items()])
        if found:
            siblings = [{"rfilename": path} for path in content]
            return self._say({"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings, "private": self.private[name], "tags": []})
        data = content.get(file["file"]) if file else None
        if data is None:
            return self._say({"error": "Entry not found"}, 404, "EntryNotFound")
        self.send_response(200)
        for header, value in (("ETag", f'"{_digest(data)}"'), ("X-Repo-Commit", COMMIT), ("Content-Length", str(len(data)))):
            self.send_header(header, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        return None

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextmanager
def hub_server() -> Iterator[tuple[str, type[Hub]]]:
    """Its address, and the hub."""
    fresh = type("Hub", (Hub,), {"repositories": {}, "private": {}})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), fresh) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", fresh
        finally:
            server.shutdown()
            thread.join()
