from __future__ import annotations

import pytest

from coverslip.errors import ConfigError
from coverslip.serve.guard import check_token, is_loopback, is_open
from coverslip.serve.limits import Limits


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("[::1]", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("192.168.1.4", False), ("localhost.example", False), ("", False), ("127.0.0.1.example", False),
    ],
)  # fmt: skip
def test_who_can_reach_a_host(host: str, inside: bool) -> None:
    assert is_loopback(host) is inside
    check_token("long-enough", host)
    if inside:
        check_token(None, host)
    else:
        with pytest.raises(ConfigError, match="give a token"):
            check_token(None, host)


@pytest.mark.parametrize("token", ["", "seven77", "with\nbreak", " space-before", "ünicode-token"])
def test_tokens_that_no_header_can_carry(token: str) -> None:
    with pytest.raises(ConfigError, match="at least 8 printable ASCII"):
        check_token(token, "127.0.0.1")


def test_what_is_open() -> None:
    assert [path for path in ("/", "/docs", "/health", "/page/app.js") if not is_open(path)] == []
    closed = ("/predict", "/explain", "/model", "/models", "/metrics", "/openapi.json", "/healthy", "/page", "//page/", "/pages/x")
    assert [path for path in closed if is_open(path)] == []


def test_limits_that_contradict_each_other() -> None:
    Limits().check()
    with pytest.raises(ConfigError, match="the queue holds 2 images, but one request may bring 3"):
        Limits(queue=2, images=3).check()
    with pytest.raises(ConfigError, match="2 problems"):
        Limits(pixels=0, body_bytes=10, uploads_bytes=5).check()
