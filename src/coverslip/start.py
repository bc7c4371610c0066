"""From what a user typed to a run that can begin: data argument, recipe, overrides, folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coverslip.config import RunConfig, load_config, merge_layers, parse_overrides, read_toml
from coverslip.data.audit import Audit, audit
from coverslip.data.scan import scan_images
from coverslip.data.sources import load_table
from coverslip.data.store import glance
from coverslip.errors import ConfigError, InputError
from coverslip.experiment import run
from coverslip.models.backbones import native_size
from coverslip.models.hardware import choose_device
from coverslip.models.weights import local_weights
from coverslip.runtime import Progress, no_progress
from coverslip.structures import RunResult
from coverslip.training.choice import CANDIDATES, Sight, choose_recipe
from coverslip.training.recipes import load_recipe


@dataclass(frozen=True)
class Start:
    """A run that can begin: its config, its folder, and why it looks as it does."""

    config: RunConfig
    folder: Path
    recipe: str
    why: str


def begin(
    data: str,
    *,
    recipe: str | None,
    settings: Sequence[str],
    out: Path | None,
    resume: bool,
    sections: Mapping[str, Any] | None = None,
) -> Start:
    """Put a config together: defaults, then recipe, then the data's own TOML, then overrides.

    Args:
        data: folder, table, or TOML file with a `[data]` section.
        recipe: name or file; chosen from what is seen when None.
        settings: texts `section.key=value`.
        out: run folder; `runs/<data>` when None, with a number behind it when that is taken.
        resume: whether the run in `out` goes on.
        sections: overrides as nested mappings, over those of `settings`.

    Raises:
        ConfigError: an unknown key or a wrong value.
        InputError: the data is not what was asked for.
    """
    own = data_layer(data)
    overrides = merge_layers(parse_overrides(settings), sections or {})
    name, why = recipe or "", "as asked"
    if recipe is not None:
        layer = load_recipe(recipe)
    else:
        choice = choose_recipe(look(load_config(own, overrides)))
        name, why, layer = choice.name, choice.why, choice.layer
    config = load_config(layer, own, overrides)
    return Start(config, out or free_folder(data, resume=resume), name, why)


def train(
    data: str | Path, *, recipe: str | Path | None = None, out: str | Path | None = None, resume: bool = False,
    progress: Progress = no_progress, **sections: Mapping[str, Any],
) -> RunResult:  # fmt: skip
    """Train, judge and save a classifier, and write its report: the command `coverslip train` from Python.

    Args:
        data: folder of class folders, table, or TOML file.
        recipe: a recipe by name or file; chosen from what is seen when not given.
        out: run folder.
        resume: go on with a run that was stopped in `out`.
        progress: told about long work.
        sections: config sections as keywords, `training={"epochs": 5}`.

    Raises:
        CoverslipError: see `coverslip.errors`; every class there says when.
    """
    from coverslip.report import write_report  # matplotlib: other uses of this file need not wait for it

    named, place = None if recipe is None else str(recipe), None if out is None else Path(out)
    start = begin(str(data), recipe=named, settings=(), out=place, resume=resume, sections=sections)
    result = run(
        start.config, start.folder, recipe=start.recipe, why=start.why, command="coverslip.train(...)", resume=resume, progress=progress
    )
    write_report(result.folder)
    return result


def data_layer(data: str) -> dict[str, Any]:
    """The config layer for a data argument.

    Raises:
        ConfigError: a TOML file without `data.path`.
    """
    if not data.endswith(".toml"):
        return {"data": {"path": data}}
    layer = read_toml(Path(data))
    path = layer.get("data", {}).get("path")
    if not path:
        raise ConfigError(f"{data} has no data.path: say under [data] which folder or table to read")
    return merge_layers(layer, {"data": {"path": str(Path(data).parent / path)}})


def look(config: RunConfig) -> Sight:
    """What the choice of a recipe rests on: the data, the weights that can be found, the hardware, the budget."""
    table = load_table(config.data, config.split)
    seen = glance(table, config.data)
    found = [name for name in CANDIDATES if local_weights(name) is not None]
    return Sight(
        images=len(table),
        classes=len(table.classes),
        task=table.task,
        height=seen.height,
        width=seen.width,
        weights=tuple(found),
        asked_backbone=config.model.backbone if "backbone" in config.model.model_fields_set else None,
        asked_regime=config.training.regime if "regime" in config.training.model_fields_set else None,
        asked_weights=config.model.weights if "weights" in config.model.model_fields_set else None,
        minutes=config.training.minutes,
        gpu=choose_device(config.training.device).type != "cpu",
    )


def free_folder(data: str, *, resume: bool) -> Path:
    """`runs/<data>`, with a number behind it when that folder is taken; the last one that exists when resuming."""
    stem = Path(data).absolute().stem or "run"
    folders = [Path("runs") / stem, *(Path("runs") / f"{stem}-{number}" for number in range(2, 1000))]
    free = next(number for number, folder in enumerate(folders) if not folder.exists())
    if resume:
        if free == 0:
            raise InputError(f"there is no run to go on with: {folders[0]} does not exist; name its folder with --out")
        return folders[free - 1]
    return folders[free]


def audit_data(data: str, settings: Sequence[str], progress: Progress = no_progress) -> Audit:
    """Audit a data set without training: what `coverslip audit` shows. Bad images are recorded, never a stop."""
    from coverslip.data.scan import usable_rows

    config = load_config(data_layer(data), parse_overrides(settings))
    config.check()
    table = load_table(config.data, config.split)
    table, scan, bad = usable_rows(table, scan_images(table, config.data, progress=progress), "skip")
    height, width = config.pixels.height, config.pixels.width
    if height is None:
        height, width = native_size(config.model)
    return audit(table, scan, fit=config.pixels.fit, height=height, width=width, bad=bad, background=config.data.background)
