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


_far: dict[Path, str] = {}
"""Local folders and files of outputs that are sent to a store, and their URLs."""


@contextlib.contextmanager
def sent(
    out_folder: str | None, *, resume: bool = False, replace: bool = False, last: Sequence[str] = (), resumable: bool = False
) -> Iterator[Path | None]:
    """The folder that `--out` means; what is written there goes to the store where it is a URL (`storage.output`), which is then said."""
    from coverslip.storage import output

    if out_folder is None:
        yield None
        return
    with output(out_folder, resume=resume, replace=replace, last=last, resumable=resumable) as folder, _known(folder, out_folder):
        yield folder
    _say_sent(out_folder)


@contextlib.contextmanager
def sent_file(out_file: str) -> Iterator[Path]:
    """The file that `--out` means; it goes to the store at the end where it is a URL, which is then said."""
    from coverslip.storage import output_file

    with output_file(out_file) as file, _known(file.parent, out_file.rpartition("/")[0]):
        yield file
    _say_sent(out_file)


@contextlib.contextmanager
def _known(folder: Path, place: str) -> Iterator[None]:
    from coverslip.storage import is_url

    if is_url(place):
        _far[folder] = place.rstrip("/")
    yield
    _far.pop(folder, None)


def _say_sent(place: str) -> None:
    from coverslip.cli.console import out
    from coverslip.storage import URL
    from coverslip.storage import place as as_place

    if isinstance(as_place(place), URL):
        out.print(f"sent to {place}", markup=False)


def shown(path: Path | str) -> str:
    """A path as the user knows it: with the URL to which it is sent, where it is."""
    found = next((folder for folder in _far if Path(path).is_relative_to(folder)), None)
    return str(path) if found is None else "/".join([_far[found], *Path(path).relative_to(found).parts])


Endpoint = Annotated[
    str | None,
    typer.Option("--endpoint", metavar="URL", callback=_set_endpoint, help="Address of the object store, where it is not the cloud's own."),
]
Settings = Annotated[list[str] | None, typer.Option("-s", "--set", metavar="KEY=VALUE", help="Override a key of the config.")]
TensorBoard = Annotated[
    str | None,
    typer.Option("--tensorboard", metavar="DIR", help="Also write curves and final numbers of every run for TensorBoard; also a URL."),
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
