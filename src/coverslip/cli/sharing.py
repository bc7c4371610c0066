"""`export` and `push`: a model for other programs, and for other people."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from coverslip.cli.console import err, out, progress_bar
from coverslip.cli.options import Endpoint, Settings
from coverslip.cli.use import Bundle


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    app.command()(export)
    app.command()(push)


def export(
    bundle: Bundle,
    form: Annotated[Literal["onnx", "openvino", "bioimageio"], typer.Option("--format", help="Of which program.")],
    out_file: Annotated[str, typer.Option("--out", help="FILE.onnx, FILE.xml (and .bin), or FILE.zip; also a URL.")],
    check: Annotated[
        list[str] | None, typer.Option("--check", help="More images (files, folders, tables) on which it must give torch's scores.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help="A labelled set that the model has not seen: compared on it, too.")] = None,
    quantise: Annotated[bool, typer.Option("--quantise", help="Write it in 8 bits, too, and measure on --data what that costs.")] = False,
    depth: Annotated[int | None, typer.Option("--depth", help="Bits of the pixels that go in, 8 or 16; the model's own otherwise.")] = None,
    author: Annotated[
        list[str] | None, typer.Option("--author", help="Who made the model, in a bioimage.io package (repeat for several).")
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", metavar="SPDX", help="Under which others may use the package, such as CC-BY-4.0.")
    ] = None,
    settings: Settings = None,
    endpoint: Endpoint = None,
) -> None:
    """Write a model for other programs, its preprocessing inside, once it gives torch's scores there."""
    from coverslip.export import export_bundle

    with progress_bar() as progress:
        made = export_bundle(
            bundle, form, out_file, check=check or [], data=data, settings=settings or [], quantise=quantise, depth=depth,
            authors=author or [], licence=licence, progress=progress,
        )  # fmt: skip
    for note in made.notes:
        err.print(f"note: {note}", markup=False)
    parity = made.parity
    out.print(
        f"{made.path}: scores differ from torch by at most {parity.largest_difference:.1e} on {parity.images} images "
        f"({parity.tolerance:.0e} allowed)",
        markup=False,
    )
    if made.small is not None:
        out.print(f"{made.small[0]}: {made.small[1].sentence}", markup=False)


def push(
    bundle: Bundle,
    address: Annotated[str, typer.Argument(metavar="hf://OWNER/NAME", help="The repository; made where there is none.")],
    public: Annotated[bool, typer.Option("--public", help="Let everybody read a repository that is made, sample images and all.")] = False,
    endpoint: Endpoint = None,
) -> None:
    """Put a model into a repository of the Hugging Face hub, from which `hf://OWNER/NAME` opens it anywhere."""
    from coverslip.bundle import find_bundle
    from coverslip.repositories import push_bundle

    out.print(push_bundle(find_bundle(bundle), address, public=public), markup=False)
