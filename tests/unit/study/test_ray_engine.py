"""An address at which no Ray cluster answers is refused within seconds; the rest is in the contract of all engines."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from coverslip.errors import ConfigError, UnreachableError
from coverslip.study.engines import build_engine
from coverslip.study.ray_engine import HELLO, SETTINGS, check_address


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, list[bytes]]]:
    """A server that takes one connection, answers with `request.param`, and keeps what it was told."""
    listener, heard = socket.create_server(("127.0.0.1", 0)), []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            heard.append(connection.recv(100))
            connection.sendall(request.param)

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}", heard
    thread.join()
    listener.close()


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "head:six", "head:70000", "ray://head", "6379"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="expected host:port"):
        build_engine("ray", address)


def test_a_port_where_nothing_listens_is_refused_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    began = time.monotonic()
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        with pytest.raises(UnreachableError, match=f"does not answer at 127.0.0.1:{port}"):
            build_engine("ray", address)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("server", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b""], indirect=True)
def test_another_server_is_refused(server: tuple[str, list[bytes]]) -> None:
    with pytest.raises(UnreachableError, match="but it is not a Ray cluster"):
        build_engine("ray", server[0])


@pytest.mark.parametrize("server", [bytes([0, 0, 6, SETTINGS, 0, 0, 0, 0, 0, 0, 4, 0, 0, 255, 255])], indirect=True)
def test_a_server_of_http_2_is_taken_for_one(server: tuple[str, list[bytes]]) -> None:
    """Frames as RFC 9113 draws them: length in three bytes, kind, flags, stream in four, content."""
    check_address(server[0])
    assert server[1] == [HELLO]
    assert HELLO[24:] == bytes([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0])
