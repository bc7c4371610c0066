"""`velocity`: how fast training is, and why."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from coverslip.cli.console import err, out, progress_bar
from coverslip.cli.options import Endpoint, sent, shown

if TYPE_CHECKING:
    import pandas as pd


def register(app: typer.Typer) -> None:
    """Add the command of this group."""
    app.command()(velocity)


def velocity(
    data: Annotated[
        str, typer.Argument(help="Folder of class folders, CSV or Parquet table, TOML file with a \\[data] section, or the URL of one.")
    ],
    models: Annotated[str | None, typer.Option(help="Backbones, with commas; three of very different sizes when not given.")] = None,
    batch_sizes: Annotated[str, typer.Option(help="Images a step, with commas.")] = "8,32,128",
    strategies: Annotated[str, typer.Option(help="Where images of a step come from, with commas.")] = "disk,memory,stream,none,features",
    seconds: Annotated[float, typer.Option(help="For how long steps are timed in each measurement.")] = 1.0,
    recipe: Annotated[str | None, typer.Option(help="Pixels, augmentation and optimizer of a recipe, by name or file.")] = None,
    settings: Annotated[list[str] | None, typer.Option("-s", "--set", metavar="KEY=VALUE", help="Override a key of the config.")] = None,
    out_folder: Annotated[str | None, typer.Option("--out", help="Study folder or its URL; studies/<data> when not given.")] = None,
    endpoint: Endpoint = None,
) -> None:
    """Measure training speed, waiting for data, memory and latency by model, batch size and caching, and recommend."""
    from coverslip.config import parse_overrides
    from coverslip.report.study import write_study_report
    from coverslip.start import data_layer, free_folder
    from coverslip.study.velocity import measure_velocity, plan_velocity
    from coverslip.training.recipes import load_recipe

    layers = (load_recipe(recipe) if recipe else {}, data_layer(data), parse_overrides(settings or []))
    plan = plan_velocity(
        *layers,
        models=None if models is None else _words(models),
        batch_sizes=_sizes(batch_sizes),
        strategies=_words(strategies),
        seconds=seconds,
    )
    with sent(out_folder) as given:
        folder = given or free_folder(data, resume=False, kind="velocity")
        err.print(f"{len(plan.combinations)} measurements of about {plan.seconds + 2:.0f} seconds each: nothing else should run meanwhile")
        with progress_bar() as progress:
            rows, advice = measure_velocity(plan, folder, command=shlex.join(["coverslip", *sys.argv[1:]]), progress=progress)
        _show(rows)
        out.print(advice.headline, markup=False)
        out.print(f"report: {shown(write_study_report(folder))}", markup=False)
    if not (rows["status"] == "ok").any():
        raise typer.Exit(1)


def _words(text: str) -> list[str]:
    return [word for part in text.split(",") if (word := part.strip())]


def _sizes(text: str) -> list[int]:
    from coverslip.errors import ConfigError

    try:
        return [int(word) for word in _words(text)]
    except ValueError:
        raise ConfigError(f"--batch-sizes {text!r}: expected whole numbers with commas between them, for example 8,32,128") from None


def _show(rows: pd.DataFrame) -> None:
    from rich.table import Table as Sheet

    failed = bool((rows["status"] != "ok").any())
    sheet = Sheet("model", "strategy", "batch", "images/s", "waiting", "memory MB", *(["why not"] if failed else []))
    for row in rows.to_dict("records"):
        cells = ["", "", "", str(row["error"])]
        if row["status"] == "ok":
            cells = [f"{row['images_per_second']:,.1f}", f"{row['waiting_share']:.0%}", f"{row['peak_memory_megabytes']:,.0f}"]
        sheet.add_row(row["model"], row["strategy"], str(row["batch_size"]), *cells)
    out.print(sheet)
