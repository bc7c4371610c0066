"""Recipes: TOML files in the package, and the choice of one from what is seen."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from coverslip.config import read_toml
from coverslip.errors import MissingInputError, did_you_mean
from coverslip.storage import place

_FOLDER = resources.files("coverslip.training") / "recipes"


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(item.name.removesuffix(".toml") for item in _FOLDER.iterdir() if item.name.endswith(".toml"))


def recipe_text(name: str) -> str:
    """The TOML text of a recipe that comes with the package.

    Raises:
        MissingInputError: no such recipe, with the near name.
    """
    names = recipe_names()
    if name not in names:
        raise MissingInputError(
            f"no recipe {name!r}, and no file of that name.{did_you_mean(name, names)} "
            f"Recipes: {', '.join(names)}; or give the path of a TOML file"
        )
    return (_FOLDER / f"{name}.toml").read_text(encoding="utf-8")


def load_recipe(name: str | Path) -> dict[str, Any]:
    """The config layer of a recipe, by name, by file or by the URL of one.

    Raises:
        MissingInputError: neither a recipe nor a file.
        ConfigError: the file is not TOML.
    """
    where = place(name)
    if where.suffix == ".toml" or (isinstance(where, Path) and where.is_file()):
        return read_toml(where)
    return tomllib.loads(recipe_text(str(name)))
