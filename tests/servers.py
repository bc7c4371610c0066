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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
