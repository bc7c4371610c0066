"""`audit` and `simulate`: looking at data, and making some."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from coverslip.cli.console import err, out, progress_bar

if TYPE_CHECKING:
    from coverslip.data.audit import Audit


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    app.command()(audit)
    app.command()(simulate)


def audit(
    data: Annotated[str, typer.Argument(help="Folder of class folders, a CSV or Parquet table, or a TOML file with a \\[data] section.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole audit as JSON.")] = False,
    settings: Annotated[list[str] | None, typer.Option("-s", "--set", metavar="KEY=VALUE", help="Override a key of the config.")] = None,
) -> None:
    """Look for what would make the numbers wrong: bad files, duplicates, leaks, shortcuts, imbalance."""
    from coverslip.start import audit_data

    with progress_bar() as progress:
        found = audit_data(data, settings or [], progress)
    if as_json:
        out.print(json.dumps(found.to_json(), indent=2, ensure_ascii=False), markup=False)
    else:
        _show(found)
    if any(finding.level == "problem" for finding in found.findings):
        raise typer.Exit(1)


def _show(found: Audit) -> None:
    from rich.table import Table as Sheet
    from rich.text import Text

    facts = found.to_json()
    classes = Sheet("class", "images")
    for name, count in facts["counts"].items():
        classes.add_row(Text(name), str(count))
    out.print(classes)
    out.print(f"formats: {_listed(facts['formats'])}; modes: {_listed(facts['modes'])}", markup=False)
    if not found.findings:
        out.print("nothing was found that would make the numbers wrong")
        return
    colours = {"problem": "bold red", "warning": "yellow", "info": "default"}
    findings = Sheet("level", "what", "finding")
    for finding in found.findings:
        findings.add_row(Text(finding.level, style=colours[finding.level]), finding.kind, Text(finding.message))
    out.print(findings)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def simulate(
    kind: Annotated[Literal["charts", "gels", "cells"], typer.Argument(help="What to simulate.")],
    destination: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    images: Annotated[int, typer.Option(help="Number of images in all.", min=2)] = 240,
    seed: Annotated[int, typer.Option(help="Seed of the simulation.")] = 0,
) -> None:
    """Write a folder of simulated images, for tests and for learning the program."""
    from coverslip.simulate import simulate as write_simulation

    with progress_bar() as progress:
        folder = write_simulation(kind, destination, images=images, seed=seed, progress=progress)
    err.print("these images are simulations, not data")
    out.print(str(folder), markup=False)
