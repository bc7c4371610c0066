"""Options that several commands share, so that one word means one thing everywhere."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer


def _set_endpoint(url: str | None) -> str | None:
    """Set it for this process and for those that it starts."""
    from coverslip.storage import ENDPOINT

    if url:
        os.environ[ENDPOINT] = url
    return url


@contextlib.contextmanager
def sent(out_folder: str | None, *, resume: bool = False, replace: bool = False, last: Sequence[str] = ()) -> Iterator[Path | None]:
    """The path that `--out` means; what is written there goes to the store at the end where it is a URL, which is then said."""
    from coverslip.cli.console import out
    from coverslip.storage import is_url, output

    if out_folder is None:
        yield None
        return
    with output(out_folder, resume=resume, replace=replace, last=last) as folder:
        yield folder
    if is_url(out_folder):
        out.print(f"sent to {out_folder}", markup=False)


Endpoint = Annotated[
    str | None,
    typer.Option("--endpoint", metavar="URL", callback=_set_endpoint, help="Address of the object store, where it is not the cloud's own."),
]
Settings = Annotated[list[str] | None, typer.Option("-s", "--set", metavar="KEY=VALUE", help="Override a key of the config.")]
TensorBoard = Annotated[
    Path | None, typer.Option("--tensorboard", metavar="DIR", help="Also write curves and final numbers of every run for TensorBoard.")
]
Mlflow = Annotated[
    str | None,
    typer.Option("--mlflow", metavar="URI", help="Also log every run with MLflow: http://HOST:PORT of a server, or sqlite:///FILE."),
]
EngineName = Annotated[
    Literal["local", "ray"], typer.Option("--engine", help="Who does the runs: this machine (a process a GPU), or a Ray cluster.")
]
Address = Annotated[
    str | None,
    typer.Option("--address", help="Of a Ray cluster: HOST:PORT, auto, or ray://HOST:PORT; one is started here when not given."),
]
