"""Why a request is refused, as an exception, and as the answer that the client gets."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from coverslip.serve.answers import Problem, RefusalBody

LINGER_SECONDS, LINGER_BYTES = 2.0, 16_000_000
"""How much of the rest of a body that nobody wants is read and thrown away, so that the client gets to see the answer."""


class Refusal(Exception):  # noqa: N818
    """A request that is not served.

    Attributes:
        status: of HTTP.
        detail: a sentence: what was found, what was expected, what to do.
        problems: of single images.
        headers: that go with the answer.
    """

    def __init__(self, status: int, detail: str, problems: Sequence[Problem] = (), headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.problems = list(problems)
        self.headers = dict(headers or {})


class RefusalResponse(JSONResponse):
    """The answer to a request that is refused, and the end of its connection where the body was not read to its end."""

    def __init__(self, refusal: Refusal) -> None:
        body = RefusalBody(detail=refusal.detail, problems=refusal.problems)
        super().__init__(body.model_dump(), refusal.status, headers=refusal.headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, then read what still comes for a little while, and close."""
        if scope.get("coverslip.body_read", False) or not _has_body(scope):
            await super().__call__(scope, receive, send)
            return
        headers = [*self.raw_headers, (b"connection", b"close")]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                left = LINGER_BYTES
                while left > 0 and (message := await receive()).get("more_body", False):
                    left -= len(message["body"])
        except TimeoutError:
            pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _has_body(scope: Scope) -> bool:
    lengths = {name: value for name, value in scope["headers"] if name in (b"content-length", b"transfer-encoding")}
    return b"transfer-encoding" in lengths or lengths.get(b"content-length", b"0").strip() != b"0"


async def answer_refusal(_request: Request, refusal: Exception) -> RefusalResponse:
    """The handler of FastAPI for `Refusal`."""
    assert isinstance(refusal, Refusal)
    return RefusalResponse(refusal)
