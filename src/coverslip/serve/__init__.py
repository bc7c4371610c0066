"""HTTP and its page. `serve` is the way in; the packages of the extra `serve` are imported behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from coverslip.runtime import require

if TYPE_CHECKING:
    from coverslip.inference import RuntimeName

PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


def serve(
    bundles: Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    device: str = "auto",
    runtime: RuntimeName = "auto",
    announce: Callable[[str], None] = lambda line: None,
    when_ready: Callable[[], None] = lambda: None,
    **limits: float,
) -> bool:
    """Serve bundles until a signal says stop; gives whether all threads have ended (see `coverslip.serve.server.run_server`).

    Args:
        bundles: `BUNDLE` or `NAME=BUNDLE`, each a bundle or a run folder.
        host: the address to listen at; other than loopback it needs a token.
        port: 0 takes a free one.
        token: what requests must carry.
        device: `auto`, `cpu` or `gpu`.
        runtime: `torch`, `onnx`, `openvino`, or `auto` for the fastest on this machine.
        announce: told the address once the server listens.
        when_ready: called once all models are open.
        limits: fields of `coverslip.serve.limits.Limits`.

    Raises:
        MissingExtraError: the packages of the extra `serve` are not installed.
        ConfigError, InputError, BundleError: see `coverslip.serve.server.run_server`.
    """
    for package in PACKAGES:
        require(package, "serve")
    from coverslip.serve.limits import Limits
    from coverslip.serve.models import name_bundles
    from coverslip.serve.server import run_server

    named = name_bundles(bundles)
    bounds = Limits(**limits)  # type: ignore[arg-type]
    return run_server(
        named, host=host, port=port, token=token, device=device, runtime=runtime, limits=bounds, announce=announce, when_ready=when_ready
    )
