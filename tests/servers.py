"""Real servers for tests, each on a loopback port: `coverslip serve`, PostgreSQL, object stores, and one that never answers."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil
import pytest
import requests

USER = "coverslip"


def postgres_binaries() -> Path | None:
    """The folder of initdb and pg_ctl; None where PostgreSQL is not installed."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name), reverse=True)
    return next((folder for folder in folders if (folder / "pg_ctl").exists()), None)


@contextmanager
def postgres_server() -> Iterator[str]:
    """A fresh database with a password, as its URL; the server refuses to run as root, so that root lends it another user."""
    binaries = postgres_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed: there is no initdb on the PATH nor under /usr/lib/postgresql")
    user = _other_user() if getattr(os, "geteuid", lambda: 1)() == 0 else None
    place = Path(tempfile.mkdtemp(prefix="coverslip-postgres-"))
    password, port = secrets.token_hex(8), free_port()
    (place / "password").write_text(password)
    if user is not None:
        for path in (place, place / "password"):
            os.chown(path, *user)

    def call(program: str, *arguments: str) -> None:
        owner = {} if user is None else {"user": user[0], "group": user[1], "extra_groups": []}
        subprocess.run([binaries / program, *arguments], cwd=place, check=True, stdout=subprocess.DEVNULL, timeout=60, **owner)  # type: ignore[call-overload]

    data = str(place / "data")
    call("initdb", "-D", data, "-U", USER, "--pwfile", str(place / "password"), "-A", "scram-sha-256", "-E", "UTF8", "--no-sync")
    call("pg_ctl", "-D", data, "-w", "-l", str(place / "log"), "-o", f"-c listen_addresses=127.0.0.1 -p {port} -k {place} -F", "start")
    try:
        yield f"postgresql://{USER}:{password}@127.0.0.1:{port}/postgres"
    finally:
        call("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
        shutil.rmtree(place, ignore_errors=True)


def _other_user() -> tuple[int, int]:
    import pwd  # not on Windows, where root is not either

    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = names.get("postgres") or names["nobody"]
    return entry.pw_uid, entry.pw_gid


def free_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def silent_server() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


SECONDS_TO_START = 60


@contextmanager
def moto_server() -> Iterator[str]:
    """An S3 server (moto) with the bucket `bucket`, as its address; its packages may lie in the folder COVERSLIP_TEST_SERVERS."""
    beside = os.environ.get("COVERSLIP_TEST_SERVERS")
    if importlib.util.find_spec("moto") is None and beside is None:
        pytest.skip("moto is not installed")
    environment = {**os.environ, **({"PYTHONPATH": beside} if beside else {})}
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with _running([sys.executable, "-m", "moto.server", "-p", str(port)], address, environment):
        _ask("PUT", f"{address}/bucket")
        yield address


@contextmanager
def azurite_server() -> Iterator[str]:
    """An Azure server (Azurite, from npm), as its endpoint; skips where there is none."""
    program = shutil.which("azurite-blob") or os.environ.get("COVERSLIP_TEST_AZURITE")
    if program is None:
        pytest.skip("Azurite is not installed: npm install -g azurite")
    port = free_port()
    place = Path(tempfile.mkdtemp(prefix="coverslip-azurite-"))
    command = [program, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(place), "--silent", "--skipApiVersionCheck"]
    try:
        with _running(command, f"http://127.0.0.1:{port}", dict(os.environ)):
            yield f"http://127.0.0.1:{port}/devstoreaccount1"
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def gcs_server() -> Iterator[str]:
    """A server of Google Cloud Storage (fake-gcs-server) with the bucket `bucket`, as its address; skips where there is none."""
    program = shutil.which("fake-gcs-server") or os.environ.get("COVERSLIP_TEST_GCS")
    if program is None:
        pytest.skip("fake-gcs-server is not installed")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [
        program,
        "-backend",
        "memory",
        "-scheme",
        "http",
        "-host",
        "127.0.0.1",
        "-port",
        str(port),
        "-public-host",
        f"127.0.0.1:{port}",
    ]
    with _running(command, address, dict(os.environ)):
        _ask("POST", f"{address}/storage/v1/b?project=test", b'{"name": "bucket"}', {"Content-Type": "application/json"})
        yield address


@contextmanager
def _running(command: list[str], address: str, environment: dict[str, str]) -> Iterator[None]:
    """A program that answers at an address, for as long as the block lasts."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(10 * SECONDS_TO_START):
            if process.poll() is not None:
                raise RuntimeError(f"{command[0]} ended with status {process.returncode}")
            try:
                _ask("GET", address)
                break
            except urllib.error.URLError:
                time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(20)


def _ask(method: str, url: str, data: bytes | None = None, headers: dict[str, str] | None = None) -> None:
    request = urllib.request.Request(url, data=data, method=method, headers=headers or {})
    try:
        urllib.request.urlopen(request, timeout=10).close()
    except urllib.error.HTTPError as answer:
        answer.close()


@dataclass(frozen=True)
class Server:
    """`coverslip serve` in a process of its own."""

    address: str
    process: subprocess.Popen[str]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.address + path, timeout=60, **options)

    def send(self, path: str, files: Iterable[Path | tuple[str, bytes]], **options: Any) -> requests.Response:
        """Post files, or names with bytes, as the parts `images`."""
        named = [file if isinstance(file, tuple) else (file.name, file.read_bytes()) for file in files]
        return requests.post(self.address + path, files=[("images", one) for one in named], timeout=120, **options)

    def memory(self) -> int:
        """Bytes of the process that are in memory now."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def connect(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def ask(self, text: bytes) -> bytes:
        """What comes back for raw bytes, until the server closes or is silent for two seconds."""
        answer = b""
        with self.connect() as connection, suppress(TimeoutError, ConnectionError):
            connection.sendall(text)
            connection.settimeout(2)
            while more := connection.recv(65_536):
                answer += more
        return answer

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 120
        while self.get("/health").status_code != 200:
            assert time.monotonic() < deadline, "the server did not become ready"
            time.sleep(0.05)


@contextmanager
def coverslip_server(*arguments: object, port: int = 0, ready: bool = True) -> Iterator[Server]:
    """The real command, at a free port unless one is given, stopped at the end of the block if it still runs; it must not complain."""
    command = [sys.executable, "-m", "coverslip", "serve", "--runtime", "torch", *map(str, arguments), "--port", str(port)]
    with tempfile.TemporaryFile("w+") as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://"), _said(log)
        server = Server(address, process)
        try:
            if ready:
                server.wait_until_ready()
            yield server
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        said = _said(log)
    assert "Traceback" not in said, said
    assert len(said.splitlines()) <= 3, said  # opening, ready, and the word of a signal


def _said(log: IO[str]) -> str:
    log.seek(0)
    return log.read()
