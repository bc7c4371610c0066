"""`submit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coverslip.cli.console import err, out


def register(app: typer.Typer) -> None:
    """Add the command of this group."""
    app.command(context_settings={"ignore_unknown_options": True})(submit)


def submit(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND...", help="A command of coverslip with all that belongs to it.")],
    address: Annotated[str, typer.Option(help="Of the cluster's job server (its dashboard).")] = "http://127.0.0.1:8265",
    processes: Annotated[int, typer.Option(help="Processes that train one model, on one machine of the cluster.", min=1)] = 1,
    cpus: Annotated[float | None, typer.Option(help="Cores that the job keeps for itself.", min=0)] = None,
    gpus: Annotated[float | None, typer.Option(help="GPUs that the job keeps for itself.", min=0)] = None,
    folder: Annotated[Path | None, typer.Option(help="Folder of the cluster in which the command runs; this one when not given.")] = None,
    python: Annotated[str, typer.Option(help="The Python of the cluster.")] = "python",
    wait: Annotated[bool, typer.Option(help="Show what the job prints, and end as it ends.")] = True,
) -> None:
    """Run a command as a job of a Ray cluster: coverslip submit --gpus 1 -- train DATA --out RUN."""
    from coverslip.study.submission import JobServer, Order

    order = Order(tuple(command), processes=processes, cpus=cpus, gpus=gpus, folder=folder or Path.cwd(), python=python)
    order.check()
    server = JobServer(address)
    job = server.submit(order)
    err.print(f"job {job}: {order.entrypoint}", markup=False)
    if not wait:
        out.print(job, markup=False)
        return
    for piece in server.follow(job):
        out.print(piece, markup=False, end="")
    status, message = server.status(job)
    err.print(f"job {job}: {status.lower()}{f': {message}' if message and status != 'SUCCEEDED' else ''}", markup=False)
    if status != "SUCCEEDED":
        raise typer.Exit(1)
