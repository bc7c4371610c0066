"""`explain`: where a model looks, and whether it matters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from coverslip.cli.console import err, out, progress_bar
from coverslip.cli.options import Endpoint, sent, shown
from coverslip.cli.use import Bundle


def register(app: typer.Typer) -> None:
    """Add the command of this group."""
    app.command()(explain)


def explain(
    bundle: Bundle,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Files, folders, or tables with a column `image`; also URLs.")],
    out_folder: Annotated[
        str, typer.Option("--out", help="A new folder, or its URL, for pictures, maps, manifest.json and overview.html.")
    ],
    labels: Annotated[
        list[str] | None,
        typer.Option("--label", help="A class that is explained (repeat for several), or all; by default what is predicted."),
    ] = None,
    windows: Annotated[int, typer.Option(min=2, max=64, help="Windows along each side that are hidden in turn, as a check.")] = 8,
    device: Annotated[Literal["auto", "cpu", "gpu"], typer.Option(help="Where the model runs.")] = "auto",
    endpoint: Endpoint = None,
) -> None:
    """Show where a model looks (Grad-CAM), check it by hiding, and say which channel counts."""
    from coverslip.explain.folder import explain_images
    from coverslip.predict import Model
    from coverslip.report.explanations import write_overview

    model = Model(bundle, device=device)
    with sent(out_folder) as folder:
        with progress_bar() as progress:
            written = explain_images(model, images, folder or Path(), labels=labels or [], windows=windows, progress=progress)
        for image, reason in written.problems.items():
            err.print(f"{image} could not be read: {reason}", markup=False, style="yellow")
        what = f"{written.explanations} explanation{'' if written.explanations == 1 else 's'} of {written.images} image"
        out.print(f"{what}{'' if written.images == 1 else 's'}: {shown(write_overview(written.folder))}", markup=False)
