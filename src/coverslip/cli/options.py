"""Options that several commands share, so that one word means one thing everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

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
