"""Who may ask: the token, the names of the host, and the headers that keep a browser from doing more than it should."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coverslip.errors import ConfigError
from coverslip.serve.refusals import Refusal, RefusalResponse

OPEN_PATHS = ("/health", "/", "/docs", "/page/")
"""What needs no token: whether the server lives, and the pages, which ask for the token. A `/` at the end opens what is below."""

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]", "::1")

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0"), is_loopback("::")
    (True, True, False, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_token(token: str | None, host: str) -> None:
    """Refuse to listen to a network without a token.

    Raises:
        ConfigError: no token where others can reach the server, or one that no header can carry.
    """
    if token is None and not is_loopback(host):
        raise ConfigError(f"--host {host} lets others reach the server: give a token, by --token or in COVERSLIP_TOKEN")
    if token is not None and not (token.isascii() and token.isprintable() and token.strip() == token and len(token) >= 8):
        raise ConfigError("the token must have at least 8 printable ASCII characters, without a space at either end")


class Guard:
    """Middleware: refuses requests without the token, and those of other web pages where there is none; adds `HEADERS`.

    Args:
        app: what is guarded.
        token: what `Authorization: Bearer` must say; None where nothing is asked for.
        hosts: names under which the server may be asked when there is no token: a web page that lets its own name point to this
            machine is then refused.
    """

    def __init__(self, app: ASGIApp, token: str | None, hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._digest = None if token is None else _digest(token)
        self._hosts = {name.lower() for name in (*LOOPBACK_NAMES, *hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope["path"], Headers(scope=scope))
        app = self._app if refusal is None else RefusalResponse(refusal)
        await app(scope, receive, send_with_headers)

    def _refusal(self, path: str, headers: Headers) -> Refusal | None:
        if self._digest is None:
            host = headers.get("host", "").lower()
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if name not in self._hosts:
                return Refusal(400, f"this server is not called {name[:100] or 'nothing'}; ask it as localhost, or start it with a token")
            return None
        if is_open(path):
            return None
        kind, _, said = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and hmac.compare_digest(_digest(said.strip()), self._digest):
            return None
        found = "a wrong token" if said else "no token"
        return Refusal(401, f"{found}; expected the header  Authorization: Bearer TOKEN", headers={"WWW-Authenticate": "Bearer"})


def is_open(path: str) -> bool:
    """Whether a path needs no token."""
    return any(path == one or (len(one) > 1 and one.endswith("/") and path.startswith(one)) for one in OPEN_PATHS)


def _digest(text: str) -> bytes:
    """Of one length, whatever the text's, so that comparing tells nothing of it."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
