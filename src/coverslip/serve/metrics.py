"""What Prometheus may ask: requests, images, batches, the queue."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_TIMES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32)


class Metrics:
    """The numbers of one server, in a registry of their own."""

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        self.requests = Counter("coverslip_requests", "Requests by path and status.", ["path", "status"], registry=own)
        self.seconds = Histogram("coverslip_request_seconds", "Requests, from head to answer.", ["path"], buckets=_TIMES, registry=own)
        self.images = Counter("coverslip_images", "Samples by model and by what became of them.", ["model", "outcome"], registry=own)
        self.batch = Histogram("coverslip_batch_images", "Images of a batch.", buckets=_SIZES, registry=own)
        self.scoring = Histogram("coverslip_batch_seconds", "Scoring of a batch.", buckets=_TIMES, registry=own)
        self._gauges: list[Gauge] = []

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A number that is read when it is asked for."""
        gauge = Gauge(name, text, registry=self._registry)
        gauge.set_function(read)
        self._gauges.append(gauge)

    def observe_batch(self, size: int, seconds: float) -> None:
        """Count a batch."""
        self.batch.observe(size)
        self.scoring.observe(seconds)

    def text(self) -> bytes:
        """All of them, as Prometheus reads it."""
        return generate_latest(self._registry)


class Counting:
    """Middleware that counts requests and their time; paths that do not exist are counted as one."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through and count its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else "other"
        began, status = time.perf_counter(), 500

        async def send_and_look(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_look)
        finally:
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - began)
