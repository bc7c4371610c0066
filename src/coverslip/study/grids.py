"""Grids by name or by file: TOML files in the package, or the user's own."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path

from coverslip.config import read_toml
from coverslip.errors import MissingInputError, did_you_mean
from coverslip.storage import place
from coverslip.study.grid import Grid, parse_grid

_FOLDER = resources.files("coverslip.study") / "grids"


def grid_names() -> list[str]:
    """The grids that come with the package."""
    return sorted(item.name.removesuffix(".toml") for item in _FOLDER.iterdir() if item.name.endswith(".toml"))


def grid_text(name: str) -> str:
    """The TOML text of a grid that comes with the package.

    Raises:
        MissingInputError: no such grid, with the near name.
    """
    names = grid_names()
    if name not in names:
        near, known = did_you_mean(name, names), ", ".join(names)
        raise MissingInputError(f"no grid {name!r}, and no file of that name.{near} Grids: {known}; or give the path of a TOML file")
    return (_FOLDER / f"{name}.toml").read_text(encoding="utf-8")


def load_grid(name: str | Path) -> Grid:
    """A grid by name, by file or by the URL of one; the `study.toml` of a comparison is one too.

    Raises:
        MissingInputError: neither a grid nor a file.
        ConfigError: the file is not TOML, or not a grid.
    """
    where = place(name)
    if where.suffix == ".toml" or (isinstance(where, Path) and where.is_file()):
        return parse_grid(read_toml(where))
    return parse_grid(tomllib.loads(grid_text(str(name))))
