"""`serve`."""

from __future__ import annotations

import os
from typing import Annotated, Literal

import typer

from coverslip.cli.console import err, out
from coverslip.cli.options import Endpoint


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    app.command()(serve)


def serve(
    bundles: Annotated[list[str], typer.Argument(metavar="[NAME=]BUNDLE...", help="Run folders, bundles, URLs; a name tells them apart.")],
    host: Annotated[str, typer.Option(help="Address to listen at; one that others can reach needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    token: Annotated[
        str | None, typer.Option(envvar="COVERSLIP_TOKEN", help="Requests must carry it: Authorization: Bearer TOKEN.", show_default=False)
    ] = None,
    device: Annotated[Literal["auto", "cpu", "gpu"], typer.Option(help="Where the models run.")] = "auto",
    runtime: Annotated[
        Literal["auto", "torch", "onnx", "openvino"], typer.Option(help="The engine that computes; auto takes the fastest on this machine.")
    ] = "auto",
    body: Annotated[float, typer.Option(help="Largest request, in MB.")] = 64,
    uploads: Annotated[float, typer.Option(help="All requests that are held at one time, in MB.")] = 256,
    images: Annotated[int, typer.Option(help="Most images of a request.")] = 256,
    pixels: Annotated[float, typer.Option(help="Largest image that is decoded, in megapixels.")] = 40,
    queue: Annotated[int, typer.Option(help="Most images that wait; beyond it clients are told to come back (429).")] = 512,
    connections: Annotated[int, typer.Option(help="Most connections at one time.")] = 256,
    upload_seconds: Annotated[float, typer.Option(help="Within which a request must have arrived.")] = 60,
    seconds: Annotated[float, typer.Option(help="For which a request may be worked on.")] = 60,
    endpoint: Endpoint = None,
) -> None:
    """Answer over HTTP what models say of images, and show it on a page."""
    from coverslip.serve import serve as run

    def announce(address: str) -> None:
        out.print(address, markup=False)
        out.file.flush()
        err.print("opening the models ...")

    ended = run(
        bundles, host=host, port=port, token=token, device=device, runtime=runtime, announce=announce,
        when_ready=lambda: err.print("ready; Ctrl+C stops, after what was accepted is done"), body_bytes=round(body * 1e6),
        uploads_bytes=round(uploads * 1e6), images=images, pixels=round(pixels * 1e6), queue=queue, connections=connections,
        upload_seconds=upload_seconds, seconds=seconds,
    )  # fmt: skip
    if not ended:  # Python would wait for the model that is being opened, which can take minutes
        out.file.flush()
        err.file.flush()
        os._exit(0)
