"""The process: a socket, uvicorn, signals, and connections that do not keep others waiting."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from coverslip.errors import ConfigError
from coverslip.inference import RuntimeName
from coverslip.serve.app import build_app
from coverslip.serve.guard import check_token
from coverslip.serve.limits import Limits
from coverslip.serve.service import Service

HEAD_SECONDS = 10.0
"""Within how many seconds the head of a request must have arrived."""
UNREAD_SECONDS = 60.0
"""For how long an answer that the client does not read is kept."""
KEEP_ALIVE_SECONDS = 15
SHUTDOWN_GRACE_SECONDS = 5


class PatientProtocol(H11Protocol):
    """HTTP/1.1 of uvicorn, which ends connections whose request never comes, or whose answer is never read."""

    head_seconds = HEAD_SECONDS
    _head_timer: asyncio.TimerHandle | None = None
    _answered_at: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there: its request must follow."""
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Something came: a whole head, or a part of one."""
        self._answered_at = None
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._forget_head()
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that is not used, but give the client time to read the answer."""
        if self.transport.get_write_buffer_size():
            self._answered_at = self._answered_at or self.loop.time()
            if self.loop.time() - self._answered_at > UNREAD_SECONDS:
                self.transport.abort()
            else:
                self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
            return
        super().timeout_keep_alive_handler()

    def _watch_head(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._forget_head()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_seconds, self._head_is_late)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.conn.their_state is h11.IDLE and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()


def protocol_with(head_seconds: float) -> type[PatientProtocol]:
    """The protocol with another patience for heads of requests."""
    return type("PatientProtocol", (PatientProtocol,), {"head_seconds": head_seconds})


def run_server(
    bundles: Mapping[str, Path],
    *,
    host: str,
    port: int,
    token: str | None,
    device: str,
    runtime: RuntimeName,
    limits: Limits,
    announce: Callable[[str], None],
    when_ready: Callable[[], None],
) -> bool:
    """Serve until a signal says stop; what was accepted by then is finished.

    A signal that comes while the models are being opened ends it at once, although a thread is still at it.

    Args:
        bundles: name → bundle folder.
        host: the address to listen at.
        port: 0 takes a free one.
        token: what requests must carry.
        device: `auto`, `cpu` or `gpu`.
        runtime: `torch`, `onnx`, `openvino`, or `auto` for the fastest on this machine.
        limits: what is accepted.
        announce: told the address once the server listens.
        when_ready: called once all models are open.

    Returns:
        Whether all threads have ended; Python waits for the others before the process can.

    Raises:
        ConfigError: a token is needed, limits contradict each other, or the address is taken.
        MissingInputError, BundleError: a model cannot be opened.
    """
    check_token(token, host)
    limits.check()
    service = Service(bundles, device, runtime, limits)
    listener = _listen(host, port)

    def opened() -> None:
        if service.failure is not None:
            server.should_exit = True
        elif service.ready:
            when_ready()

    config = uvicorn.Config(
        build_app(service, token, [host], opened), http=protocol_with(min(HEAD_SECONDS, limits.upload_seconds)), ws="none",
        lifespan="on", log_level="error", access_log=False,
        server_header=False, proxy_headers=False, timeout_keep_alive=KEEP_ALIVE_SECONDS, limit_concurrency=limits.connections,
        timeout_graceful_shutdown=round(limits.upload_seconds + limits.seconds) + SHUTDOWN_GRACE_SECONDS,
    )  # fmt: skip
    server = uvicorn.Server(config)
    announce(_address(host, listener))
    with _signals_end_here(), _quiet_decoders():
        server.run(sockets=[listener])
    if service.failure is not None:
        raise service.failure
    return not service.abandoned


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, place = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(place[:2], family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"cannot listen at {host}:{port}: {error}; choose another --host or --port") from None


def _address(host: str, listener: socket.socket) -> str:
    shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"http://{shown}:{listener.getsockname()[1]}"


@contextmanager
def _quiet_decoders() -> Iterator[None]:
    """What decoders log and warn of while they read a damaged file is in the answer; clients could fill the log with it."""
    loggers = [logging.getLogger(name) for name in ("tifffile", "PIL", "czifile", "nd2", "liffile")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextmanager
def _signals_end_here() -> Iterator[None]:
    """uvicorn raises the signal that stopped it once more when it is done; nothing is left to stop then."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ignore(*_: Any) -> None:
        pass

    before = {number: signal.signal(number, ignore) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
