"""From what a user typed to a run that can begin: data argument, recipe, overrides, folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coverslip.config import AugmentConfig, DataConfig, ModelConfig, RunConfig, load_config, merge_layers, parse_overrides, read_toml
from coverslip.data.audit import Audit, audit
from coverslip.data.braces import has_braces
from coverslip.data.decoding import PixelArray
from coverslip.data.files import is_folder
from coverslip.data.geometry import GREY, WHOLE, Geometry
from coverslip.data.normalisation import Normalisation, dataset_percentiles
from coverslip.data.reading import Reading
from coverslip.data.scan import scan_images
from coverslip.data.sharding import BYTES, named_channels, plan_shards, write_shards
from coverslip.data.shards import TAR
from coverslip.data.sources import load_table
from coverslip.data.store import Glance, glance, some_images
from coverslip.data.webdataset import find_shards
from coverslip.errors import ConfigError, InputError
from coverslip.experiment import run
from coverslip.models.backbones import native_size
from coverslip.models.classifier import build_classifier
from coverslip.models.hardware import choose_device, choose_precision
from coverslip.models.hub import hub_answers
from coverslip.models.weights import local_weights
from coverslip.network import SCORE_BATCH, Network
from coverslip.record import RUN_ENDS
from coverslip.runtime import Progress, no_progress
from coverslip.storage import exists, is_url, output, place
from coverslip.structures import Channel, FloatArray, RunResult, Table
from coverslip.training.choice import CANDIDATES, FEW_IMAGES, Hardware, Sight, choose_recipe
from coverslip.training.recipes import load_recipe
from coverslip.training.symmetry import UNTESTED, Symmetry, invisible, visibility

if TYPE_CHECKING:
    from coverslip.study.compare import Bundles, ComparisonResult
    from coverslip.study.engines import Engine

ASK_SIDE = 96
ASK_IMAGES = 320


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
        resume: whether the run in `out` goes on, with the config that it was started with.
        sections: overrides as nested mappings, over those of `settings`.

    Raises:
        ConfigError: an unknown key or a wrong value.
        InputError: the data is not what was asked for.
    """
    own = data_layer(data)
    overrides = merge_layers(parse_overrides(settings), sections or {})
    folder = out or free_folder(data, resume=resume)
    stored = folder / "config.toml"
    if resume and stored.is_file():
        config = load_config(read_toml(stored), {"data": {"path": own["data"]["path"]}})
        return Start(config, folder, recipe or stored.name, "the run goes on with the config that it was started with")
    name, why = recipe or "", "as asked"
    if recipe is not None:
        layer = load_recipe(recipe)
    else:
        choice = choose_recipe(look(load_config(own, overrides)))
        name, why, layer = choice.name, choice.why, choice.layer
    config = load_config(layer, own, overrides)
    return Start(config, folder, name, why)


def train(
    data: str | Path, *, recipe: str | Path | None = None, out: str | Path | None = None, resume: bool = False,
    progress: Progress = no_progress, **sections: Mapping[str, Any],
) -> RunResult:  # fmt: skip
    """Train, judge and save a classifier, and write its report: the command `coverslip train` from Python.

    Args:
        data: folder of class folders, table, or TOML file.
        recipe: a recipe by name or file; chosen from what is seen when not given.
        out: run folder, or its URL, to which it is sent; the folder that the result names is then gone.
        resume: go on with a run that was stopped in `out`.
        progress: told about long work.
        sections: config sections as keywords, `training={"epochs": 5}`.

    Raises:
        CoverslipError: see `coverslip.errors`; every class there says when.
    """
    from coverslip.report import write_report  # matplotlib: other uses of this file need not wait for it

    named = None if recipe is None else str(recipe)
    with output(out, resume=resume, last=RUN_ENDS, resumable=True) if out is not None else nullcontext() as folder:
        start = begin(str(data), recipe=named, settings=(), out=folder, resume=resume, sections=sections)
        result = run(
            start.config, start.folder, recipe=start.recipe, why=start.why, command="coverslip.train(...)", resume=resume, progress=progress
        )
        write_report(result.folder)
    return result


def compare(
    data: str | Path, *, grid: str | Path, settings: Sequence[str] = (), out: str | Path | None = None, resume: bool = False,
    bundles: Bundles = "best", engine: Engine | None = None, progress: Progress = no_progress,
) -> ComparisonResult:  # fmt: skip
    """Train every combination of a grid and compare them, and write the report: `coverslip compare` from Python.

    Args:
        data: folder of class folders, table, or TOML file.
        grid: a grid by name or file.
        settings: texts `section.key=value`; a list of values makes or replaces an axis.
        out: study folder, or its URL, to which it is sent; the folder that the result names is then gone.
        resume: go on with a comparison that was stopped in `out`.
        bundles: which runs keep their trained model.
        engine: who does the runs; this process when not given.
        progress: told about each run.

    Raises:
        CoverslipError: see `coverslip.errors`; every class there says when.
    """
    from coverslip.report.study import write_study_report  # matplotlib: other uses of this file need not wait for it
    from coverslip.study.compare import begin_comparison
    from coverslip.study.compare import compare as run_comparison
    from coverslip.study.folder import STUDY_ENDS

    comparison = begin_comparison(grid, data_layer(str(data)), settings)
    with output(out, resume=resume, last=STUDY_ENDS, resumable=True) if out is not None else nullcontext() as given:
        folder = given or free_folder(str(data), resume=resume, kind="compare")
        result = run_comparison(
            comparison, folder, engine=engine, bundles=bundles, resume=resume, command="coverslip.compare(...)", progress=progress
        )
        write_study_report(result.folder)
    return result


def data_layer(data: str) -> dict[str, Any]:
    """The config layer for a data argument.

    Raises:
        ConfigError: a TOML file without `data.path`.
    """
    where = place(data)
    if where.suffix != ".toml":
        tars = where.suffix == TAR
        there = (tars and has_braces(data)) or (exists(where) and (tars or is_folder(where)))
        shards = find_shards(where, DataConfig()) if there else None
        channels = {} if shards is None or not shards.channels else {"channels": named_channels(shards.channels)}
        return {"data": {"path": data, **channels}}
    layer = read_toml(where)
    path = layer.get("data", {}).get("path")
    if not path:
        raise ConfigError(f"{data} has no data.path: say under [data] which folder or table to read")
    return merge_layers(layer, {"data": {"path": str(place(path) if is_url(path) else where.parent / path)}})


def look(config: RunConfig) -> Sight:
    """What the choice of a recipe rests on: the data, the weights that can be found, the hardware, the budget."""
    table = load_table(config.data, config.split)
    seen = glance(table, Reading.of(config.data))
    found = tuple(name for name in CANDIDATES if local_weights(name) is not None)
    model, training = config.model, config.training
    lengths = [f"{getattr(training, name)} {name}" for name in ("steps", "epochs") if name in training.model_fields_set]
    if not found and model.weights == "pretrained" and hub_answers():
        found = CANDIDATES[:1]
    asked = model.backbone if "backbone" in model.model_fields_set else None
    backbone = (asked or (found[0] if found else None)) if model.weights != "none" else None
    top, left, bottom, right = seen.box if config.pixels.trim == "auto" else WHOLE
    device = choose_device(training.device)
    hardware: Hardware = "gpu" if device.type != "cpu" else "bf16" if choose_precision(training.precision, device) == "bf16" else "cpu"
    height, width = config.pixels.height, config.pixels.width
    asked_size = (height or width or 0, width or height or 0) if height or width else None
    return Sight(
        images=len(table),
        classes=len(table.classes),
        task=table.task,
        height=round(seen.height * (bottom - top)),
        width=round(seen.width * (right - left)),
        weights=found,
        asked_backbone=asked,
        asked_regime=training.regime if "regime" in training.model_fields_set else None,
        asked_weights=model.weights if "weights" in model.model_fields_set else None,
        minutes=training.minutes,
        asked_length=lengths[0] if lengths else None,
        hardware=hardware,
        asked_size=asked_size,
        cache_limit=config.cache.limit,
        symmetry=ask_symmetry(config, table, seen, backbone if backbone and local_weights(backbone) else None)
        if len(table) >= FEW_IMAGES and training.regime != "probe"
        else UNTESTED,
    )


def ask_symmetry(config: RunConfig, table: Table, seen: Glance, backbone: str | None) -> Symmetry:
    """Which flips and turns the images allow, asked of some of them; see `coverslip.training.symmetry`.

    Args:
        config: how images are read.
        table: n labelled samples.
        seen: what the images look like.
        backbone: one whose pretrained weights are on this machine, or None: pixels take the place of its features.
    """
    reading = Reading.of(config.data)
    reading = replace(reading, channels=reading.channels or Channel.of(*seen.names))
    names = tuple(channel.name for channel in reading.channels) or GREY
    geometry = Geometry(ASK_SIDE, ASK_SIDE, "squash", names, seen.depth if names != GREY or seen.depth == 32 else 8)
    rows, images = some_images(table, reading, geometry, ASK_IMAGES)
    if not len(rows):
        return UNTESTED
    kinds = {"horizontal flips": images[:, :, ::-1], "vertical flips": images[:, ::-1], "turns": images.transpose(0, 2, 1, 3)}
    low, high = dataset_percentiles(images, np.arange(len(images)), (0.0, 100.0)) if seen.depth == 32 else ((0.0,), (float(geometry.full),))
    ranged = Normalisation(tuple(low), tuple(high))
    features_of = frozen_features(backbone, geometry, ranged) if backbone else _flat_pixels
    plain = features_of(images)
    areas = {kind: visibility(plain, features_of(changed), table.labels[rows], seed=0) for kind, changed in kinds.items()}
    allowed = {kind: invisible(area, len(table.classes)) for kind, area in areas.items()}
    said = ", ".join(f"{kind} {'allowed' if allowed[kind] else 'not'} (AUC {area[0]:.2f})" for kind, area in areas.items())
    return Symmetry(allowed["horizontal flips"], allowed["vertical flips"], allowed["turns"] and allowed["vertical flips"], said)


def frozen_features(backbone: str, geometry: Geometry, ranged: Normalisation) -> Callable[[PixelArray], FloatArray]:
    """Features of a pretrained backbone, of stored pixels (n, h, w, c)."""
    classifier = build_classifier(ModelConfig(backbone=backbone), channels=len(geometry.channels), classes=2, size=geometry.size, seed=0)
    normalisation = replace(ranged, mean=classifier.backbone.mean, deviation=classifier.backbone.std)
    device = choose_device("auto")
    network = Network(classifier, geometry, normalisation, AugmentConfig(), "none", device, choose_precision("auto", device))

    def features_of(images: PixelArray) -> FloatArray:
        batches = (network.batch(images[start : start + SCORE_BATCH]) for start in range(0, len(images), SCORE_BATCH))
        return np.concatenate(list(network.features(batches))).astype(np.float64)

    return features_of


def _flat_pixels(images: PixelArray) -> FloatArray:
    return images[:, ::4, ::4].reshape(len(images), -1).astype(np.float64)


def free_folder(data: str, *, resume: bool, kind: str = "run") -> Path:
    """`runs/<data>`, or `studies/<data>` for a study, with a number behind it when that is taken; the last of its kind when resuming.

    Args:
        data: path of the data.
        resume: whether the work goes on.
        kind: `run`, or the kind of a study.

    Raises:
        InputError: there is nothing to go on with.
    """
    stem, under = place(data).absolute().stem.partition("{")[0].rstrip("-_.") or "run", "runs" if kind == "run" else "studies"
    folders = [Path(under) / stem, *(Path(under) / f"{stem}-{number}" for number in range(2, 1000))]
    free = next(number for number, folder in enumerate(folders) if not folder.exists())
    if not resume:
        return folders[free]
    found = [folder for folder in folders[:free] if kind == "run" or _kind_of_study(folder) in (kind, None)]
    if not found:
        where = f"{folders[0]} does not exist" if free == 0 else f"none of {', '.join(map(str, folders[:free]))} holds one"
        what = "comparison" if kind == "compare" else kind
        raise InputError(f"there is no {what} to go on with: {where}; name its folder with --out")
    return found[-1]


def _kind_of_study(folder: Path) -> Any:
    """What kind of study a folder holds; None when it was stopped before it said so."""
    file = folder / "study.toml"
    return read_toml(file).get("kind") if file.is_file() else None


def audit_data(data: str, settings: Sequence[str], progress: Progress = no_progress) -> Audit:
    """Audit a data set without training: what `coverslip audit` shows. Bad images are recorded, never a stop."""
    from coverslip.data.scan import usable_rows

    config = load_config(data_layer(data), parse_overrides(settings))
    config.check()
    table = load_table(config.data, config.split)
    reading = Reading.of(config.data)
    reading = replace(reading, channels=reading.channels or Channel.of(*reading.names_of(table.samples)))
    table, scan, bad = usable_rows(table, scan_images(table, reading, progress=progress), "skip")
    height, width = config.pixels.height, config.pixels.width
    if height is None:
        height, width = native_size(config.model)
    return audit(table, scan, fit=config.pixels.fit, height=height, width=width, bad=bad, reading=reading)


def shard_data(
    data: str, destination: str, *, settings: Sequence[str] = (), size: int = BYTES, seed: int | None = 0, workers: int | None = None,
    progress: Progress = no_progress,
) -> tuple[int, int]:  # fmt: skip
    """Write the images of a data set as shards: what `coverslip shard` does.

    Args:
        data: folder of class folders, table, TOML file, or the URL of one.
        destination: folder or URL; what a run that was stopped left there is kept.
        settings: texts `data.key=value` and `split.key=value`.
        size: bytes of a shard that are aimed at.
        seed: of the order of the samples; None keeps that of the data.
        workers: shards that are written at the same time.
        progress: told about each shard.

    Returns:
        Shards in all, and how many of them were written here.

    Raises:
        CoverslipError: see `coverslip.errors`; every class there says when.
    """
    config = load_config(data_layer(data), parse_overrides(settings))
    table = load_table(config.data, config.split)
    channels = Reading.of(config.data).channels if table.files is not None and len(table.files[0]) > 1 else ()
    plan = plan_shards(table, channels, place(destination), size=size, seed=seed)
    return len(plan.shards), write_shards(plan, workers=workers, progress=progress)
