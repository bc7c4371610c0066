"""`weights`, `cache` and `config`: what lies around a run."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from coverslip.cli.console import out


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    weights = typer.Typer(help="Pretrained weights: list, check, fetch.", no_args_is_help=True)
    weights.command("list")(list_weights)
    weights.command("check")(check_weights)
    weights.command("fetch")(fetch_weights)
    app.add_typer(weights, name="weights")
    cache = typer.Typer(help="Decoded pixels, features and graphs of models on disk: list, clear.", no_args_is_help=True)
    cache.command("list")(list_cache)
    cache.command("clear")(clear_cache)
    app.add_typer(cache, name="cache")
    app.command()(config)


def list_weights() -> None:
    """Weights that were found in COVERSLIP_WEIGHTS and in the caches."""
    from coverslip.models import weights

    _show_weights(weights.list_weights())


def check_weights() -> None:
    """Open each file of weights and fit it into its architecture."""
    from coverslip.models import weights

    found = weights.check_weights()
    _show_weights(found)
    if any(one.problem for one in found):
        raise typer.Exit(1)


def _show_weights(found: object) -> None:
    from rich.table import Column
    from rich.table import Table as Sheet

    from coverslip.models.weights import WeightsFile

    assert isinstance(found, list)
    if not found:
        out.print(
            "no weights found; put <architecture>.safetensors into a folder that COVERSLIP_WEIGHTS names, "
            "or say: coverslip weights fetch ARCHITECTURE"
        )
        return
    sheet = Sheet("architecture", "MB", "sha256", Column("path", overflow="fold"), "problem")
    for one in found:
        assert isinstance(one, WeightsFile)
        sheet.add_row(one.name, f"{one.size / 1e6:.1f}", one.sha256[:12], str(one.path), one.problem)
    out.print(sheet)


def fetch_weights(architecture: Annotated[str, typer.Argument(help="A timm architecture.")]) -> None:
    """Download weights from the hub into the first folder of COVERSLIP_WEIGHTS, or the cache."""
    from coverslip.models import weights

    out.print(str(weights.fetch_weights(architecture)), markup=False)


def list_cache() -> None:
    """Entries of the cache, the one unused for longest first."""
    from datetime import datetime

    from rich.table import Table as Sheet

    from coverslip.data.cache import cache_entries
    from coverslip.runtime import cache_folder

    entries = cache_entries()
    sheet = Sheet("kind", "MB", "last used", "entry", title=str(cache_folder()))
    for entry in entries:
        used = datetime.fromtimestamp(entry.used).astimezone().strftime("%Y-%m-%d %H:%M")
        sheet.add_row(entry.kind, f"{entry.size / 1e6:.1f}", used, entry.folder.name[:12])
    out.print(sheet)
    out.print(f"{len(entries)} {'entry' if len(entries) == 1 else 'entries'}, {sum(entry.size for entry in entries) / 1e6:.1f} MB")


def clear_cache() -> None:
    """Remove every entry of the cache."""
    from coverslip.data.cache import clear_cache as clear

    out.print(f"{clear() / 1e6:.1f} MB freed")


def config(
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of the config.")] = False,
    recipe: Annotated[str | None, typer.Option(help="Print a recipe.")] = None,
    grid: Annotated[str | None, typer.Option(help="Print a grid of `compare`.")] = None,
) -> None:
    """Print the default config, its schema, a recipe, or a grid."""
    from coverslip.config import RunConfig, dump_toml
    from coverslip.config import schema as build_schema
    from coverslip.training.recipes import recipe_names, recipe_text

    if grid:
        from coverslip.study.grids import grid_text

        out.print(grid_text(grid), markup=False, end="")
    elif schema:
        out.print(json.dumps(build_schema(), indent=2), markup=False)
    elif recipe:
        out.print(recipe_text(recipe), markup=False, end="")
    else:
        out.print(f"# recipes: {', '.join(recipe_names())}\n\n{dump_toml(RunConfig())}", markup=False, end="")
