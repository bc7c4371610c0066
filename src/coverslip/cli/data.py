"""`audit` and `simulate`: looking at data, and making some."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from coverslip.cli.console import err, out, progress_bar
from coverslip.cli.options import Endpoint, sent, shown

if TYPE_CHECKING:
    from coverslip.data.audit import Audit


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    app.command()(audit)
    app.command()(simulate)
    app.command()(shard)


def audit(
    data: Annotated[str, typer.Argument(help="Folder of class folders, a CSV or Parquet table, or a TOML file with a \\[data] section.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole audit as JSON.")] = False,
    settings: Annotated[list[str] | None, typer.Option("-s", "--set", metavar="KEY=VALUE", help="Override a key of the config.")] = None,
    endpoint: Endpoint = None,
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
    for line in _fact_lines(facts):
        out.print(line, markup=False)
    if not found.findings:
        out.print("nothing was found that would make the numbers wrong")
        return
    colours = {"problem": "bold red", "warning": "yellow", "info": "default"}
    findings = Sheet("level", "what", "finding")
    for finding in found.findings:
        findings.add_row(Text(finding.level, style=colours[finding.level]), finding.kind, Text(finding.message))
    out.print(findings)
    for image, reason in found.bad.items():
        out.print(f"cannot be used: {image}: {reason}", markup=False)


def _fact_lines(facts: Mapping[str, Any]) -> list[str]:
    """What the files are, and what the fit does to them, in a few lines."""
    from coverslip.data.files import some

    def listed(key: str) -> str:
        return some([f"{name} {count}" for name, count in facts[key].items()])

    pairs, fit, ignored = facts["duplicates"], facts["fit"], facts["ignored"]
    lost, stretch = fit["discarded"], fit["stretch"]
    lines = [
        *facts["notes"],
        f"formats: {listed('formats')}; modes: {listed('modes')}",
        f"sizes (height x width): {listed('sizes')}",
        f"duplicates: {pairs['exact']} exact pairs, {pairs['confirmed']} near pairs (of {pairs['candidates']} that a hash proposed)",
        f"pixels.fit = {fit['fit']} at {fit['height']}x{fit['width']}: discards {lost['mean']:.0%} of an image on average, up to "
        f"{lost['highest']:.0%}; changes the aspect ratio {stretch['median']:.2f} times (median), up to {stretch['highest']:.2f} times",
    ]
    if facts["shortcuts"]:
        guessed = ", ".join(f"{one['name']} {one['balanced_accuracy']:.0%}" for one in facts["shortcuts"])
        lines.append(f"classes guessed from the file alone (balanced accuracy, chance {facts['shortcuts'][0]['chance']:.0%}): {guessed}")
    if ignored:
        lines.append(f"not read, as they are no images by their names: {len(ignored)} ({some(ignored)})")
    return lines


def simulate(
    kind: Annotated[Literal["charts", "gels", "cells"], typer.Argument(help="What to simulate.")],
    destination: Annotated[str, typer.Argument(help="A new or empty folder, or a URL.")],
    images: Annotated[int, typer.Option(help="Number of images in all.", min=2)] = 240,
    seed: Annotated[int, typer.Option(help="Seed of the simulation.")] = 0,
    side: Annotated[int, typer.Option(help="Height and width of an image of cells, in pixels.", min=64)] = 128,
    endpoint: Endpoint = None,
) -> None:
    """Write a folder of simulated images, for tests and for learning the program."""
    from coverslip.simulate import simulate as write_simulation

    with sent(destination) as folder:
        with progress_bar() as progress:
            made = write_simulation(kind, folder or Path(), images=images, seed=seed, side=side, progress=progress)
        err.print("these images are simulations, not data")
        out.print(shown(made), markup=False)


def shard(
    data: Annotated[str, typer.Argument(help="Folder of class folders, CSV or Parquet table, TOML file, or the URL of one.")],
    destination: Annotated[str, typer.Argument(help="A new folder or URL; with shards of the same data it is completed.")],
    settings: Annotated[list[str] | None, typer.Option("-s", "--set", metavar="KEY=VALUE", help="data.* and split.* keys.")] = None,
    size: Annotated[int, typer.Option(help="Bytes of a shard that are aimed at.", min=10_000)] = 64_000_000,
    seed: Annotated[int, typer.Option(help="Of the order in which the samples lie.", min=0)] = 0,
    shuffle: Annotated[bool, typer.Option("--shuffle/--no-shuffle", help="Mix the samples, or keep the order of the data.")] = True,
    workers: Annotated[int | None, typer.Option(help="Shards that are written at the same time.", min=1)] = None,
    endpoint: Endpoint = None,
) -> None:
    """Write images as shards: few large tar files with an index, for training from a bucket and for exchange."""
    from coverslip.start import shard_data

    with progress_bar() as progress:
        total, written = shard_data(
            data, destination, settings=settings or [], size=size, seed=seed if shuffle else None, workers=workers, progress=progress
        )
    err.print(f"{written} of {total} shards were written and read back; the others were there", markup=False)
    out.print(destination, markup=False)
