"""The application without a socket: what depends on time."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from coverslip.serve.app import build_app
from coverslip.serve.limits import Limits
from coverslip.serve.service import Service

from .conftest import images_of


class Client:
    """One request after the other, straight into the application."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def post(self, path: str, file: Path, *, stays: bool = True) -> tuple[int, dict[str, Any], dict[bytes, bytes]]:
        """Status, body and headers; a client that does not stay is gone once its request is sent."""
        body = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n' + file.read_bytes() + b"\r\n--x--\r\n"
        headers = [(b"host", b"localhost"), (b"content-type", b"multipart/form-data; boundary=x")]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http", "path": path,
            "raw_path": b"", "query_string": b"", "root_path": "", "headers": headers,
            "server": ("localhost", 80), "client": ("localhost", 1), "state": {},
        }  # fmt: skip
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            if stays:
                await asyncio.Event().wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        content = b"".join(message.get("body", b"") for message in sent[1:])
        return sent[0]["status"], json.loads(content), dict(sent[0]["headers"])


def answers(gel_run: Path, limits: Limits, file: Path, **options: bool) -> list[tuple[int, dict[str, Any], dict[bytes, bytes]]]:
    """What a fresh service answers, once its model is open, to three requests at one time."""

    async def ask() -> list[tuple[int, dict[str, Any], dict[bytes, bytes]]]:
        opened = asyncio.Event()
        loop = asyncio.get_running_loop()
        service = Service({"gel": gel_run / "bundle"}, "cpu", "torch", limits)
        client = Client(build_app(service, None))
        service.start(lambda: loop.call_soon_threadsafe(opened.set))
        await opened.wait()
        if not options.get("stays", True):
            service._worker.call(lambda: time.sleep(0.5))  # a model that answers at once would answer even who is gone
        try:
            return list(await asyncio.gather(*(client.post("/predict", file, **options) for _ in range(3))))
        finally:
            await asyncio.to_thread(service.close)

    return asyncio.run(ask())


def test_work_that_takes_too_long_is_given_up(gel_run: Path, gels: Path) -> None:
    for status, body, headers in answers(gel_run, Limits(seconds=1e-6), images_of(gels)[0]):
        assert status == 503
        assert headers[b"retry-after"] == b"1"
        assert body["detail"].startswith("not done within 1e-06 seconds")


def test_a_client_that_is_gone_is_not_waited_for(gel_run: Path, gels: Path) -> None:
    found = answers(gel_run, Limits(), images_of(gels)[0], stays=False)
    assert {(status, body["detail"]) for status, body, _ in found} == {(400, "the client went away")}


@pytest.mark.parametrize("queue", [1, 2, 3])
def test_the_queue_takes_what_it_holds(gel_run: Path, gels: Path, queue: int) -> None:
    found = answers(gel_run, Limits(queue=queue, images=1), images_of(gels)[0])
    statuses = [status for status, _, _ in found]
    assert statuses.count(200) >= queue
    assert set(statuses) <= {200, 429}
