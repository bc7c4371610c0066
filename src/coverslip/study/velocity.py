"""How fast, and why: training speed by model, batch size and strategy, measured with the training step of a real run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from coverslip.config import RunConfig, load_config, with_values
from coverslip.data.reading import Reading
from coverslip.data.sources import load_table
from coverslip.data.store import glance, load_pixels
from coverslip.data.streaming import StreamedArray
from coverslip.errors import ConfigError, InputError, ResourceError, did_you_mean
from coverslip.fitting import choose_normalisation
from coverslip.models.classifier import build_classifier
from coverslip.models.hardware import choose_device, choose_precision, hardware_name
from coverslip.models.networks import check_architecture
from coverslip.preparing import choose_geometry, inverts
from coverslip.runtime import Progress, free_memory, machine_facts, no_progress, package_versions
from coverslip.structures import Table
from coverslip.study.advice import Advice, Circumstances, advise
from coverslip.study.engines import Done, Engine
from coverslip.study.folder import StudyFolder
from coverslip.study.fresh import FreshProcesses
from coverslip.study.measuring import Task, measure
from coverslip.study.strategies import STRATEGIES, Material

MODELS = ("alexnet_grey", "resnet10t", "small_200k")
"""About 60 million, 5 million and 200,000 weights at 224x224 pixels."""
BATCH_SIZES = (8, 32, 128)
SECONDS = 1.0
LIMIT_SECONDS = 120.0
"""What a measurement may take beside 30 times the seconds for its steps; then it is stopped."""
IMAGES = 256
"""Images that speed is measured on, evenly spaced over the data."""
USUAL: dict[str, Any] = {"augment": {"horizontal_flip": True, "random_crop": 0.04}, "training": {"ema": 0.99}}
"""What the recipes that are chosen for training all layers do in a step, and the defaults of the config do not."""

COLUMNS = (
    "model", "weights", "multiply_adds", "strategy", "batch_size", "images_per_second", "waiting_share", "step_milliseconds", "step_low",
    "step_high", "steps", "peak_memory_megabytes", "idle_memory_megabytes", "peak_gpu_megabytes", "latency_milliseconds",
    "latency_p95_milliseconds", "batch_latency_milliseconds", "batch_latency_p95_milliseconds", "status", "error",
)  # fmt: skip


@dataclass(frozen=True)
class VelocityPlan:
    """What is to be measured.

    Attributes:
        config: of the runs whose speed is asked for; model, weights, regime and batch size are set for each measurement.
        models: backbones.
        batch_sizes: images a step, rising.
        strategies: names of `STRATEGIES`.
        seconds: for how long steps are taken in each measurement.
    """

    config: RunConfig
    models: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    strategies: tuple[str, ...]
    seconds: float

    @property
    def combinations(self) -> list[tuple[str, str, int]]:
        """(model, strategy, batch size) of every measurement, in their order."""
        return [(model, strategy, size) for model in self.models for strategy in self.strategies for size in self.batch_sizes]


def plan_velocity(
    *layers: Mapping[str, Any],
    models: Sequence[str] | None = None,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    strategies: Sequence[str] = tuple(STRATEGIES),
    seconds: float = SECONDS,
) -> VelocityPlan:
    """Put a plan together, and meet all that is wrong with it before any work.

    Args:
        layers: of the config, later ones over earlier ones; the first ones over `USUAL`.
        models: backbones; those of the layers, or `MODELS`, when not given.
        batch_sizes: 1 and more.
        strategies: names of `STRATEGIES`.
        seconds: above 0.

    Raises:
        ConfigError: an unknown model or strategy, an empty list, a batch without images, a contradiction in the config.
    """
    asked = [name for layer in layers if (name := layer.get("model", {}).get("backbone"))]
    named = tuple(dict.fromkeys(models if models is not None else asked[-1:] or MODELS))
    problems = [*_problems(named, batch_sizes, strategies, seconds), *_unknown(named)]
    if any("batch_size" in layer.get("training", {}) for layer in layers):
        problems.append("training.batch_size is what is measured: say --batch-sizes")
    if problems:
        raise ConfigError(problems)
    config = load_config(USUAL, *layers)
    config = with_values(config, model={"weights": "none", "class_groups": None}, training={"regime": "scratch"})
    if config.training.optimizer == "exact":
        config = with_values(config, training={"optimizer": "adamw"})
    config.check()
    return VelocityPlan(config, named, tuple(sorted(set(batch_sizes))), tuple(dict.fromkeys(strategies)), seconds)


def _problems(models: Sequence[str], batch_sizes: Sequence[int], strategies: Sequence[str], seconds: float) -> list[str]:
    known, unknown = ", ".join(STRATEGIES), [name for name in strategies if name not in STRATEGIES]
    return [
        *([] if models else ["no model: name at least one, for example --models resnet18,small_200k"]),
        *([] if batch_sizes else ["no batch size: name at least one, for example --batch-sizes 8,32"]),
        *(f"a batch size of {size}: a batch holds at least one image" for size in batch_sizes if size < 1),
        *([] if strategies else [f"no strategy: name at least one of {known}"]),
        *(f"no strategy is called {name!r}.{did_you_mean(name, STRATEGIES)} Known: {known}" for name in unknown),
        *([] if seconds > 0 else [f"{seconds:g} seconds for a measurement: expected more than 0"]),
    ]


def _unknown(models: Sequence[str]) -> Iterator[str]:
    for name in models:
        try:
            check_architecture(name)
        except ConfigError as error:
            yield from error.problems


def measure_velocity(
    plan: VelocityPlan,
    folder: Path,
    *,
    command: str = "",
    engine: Engine | None = None,
    progress: Progress = no_progress,
) -> tuple[pd.DataFrame, Advice]:
    """Measure every combination, each in a fresh process; write study.toml, environment.json, results and verdict.json.

    What cannot be done is a row with its reason.

    Args:
        plan: what is to be measured.
        folder: of the study; must not hold another.
        command: the command line, for the record.
        engine: who does the measurements; fresh processes on this machine when not given.
        progress: told about each measurement.

    Returns:
        The rows of results.csv, and what is recommended.

    Raises:
        InputError: the data is not what was asked for.
        RunFolderError: the folder is taken.
        ResourceError: the disk is full, or the cache too small.
    """
    engine = engine or FreshProcesses(LIMIT_SECONDS + 30 * plan.seconds)
    with StudyFolder.claim(folder, "velocity", resume=False) as place:
        material, around = gather(plan, progress)
        place.write_study(_asked(plan, material, command))
        place.write("environment.json", _environment(plan, material, around))
        rows: list[dict[str, Any]] = []
        for done in engine.each(measure, _tasks(plan, material)):
            if done.task.prepare:
                continue
            rows.append(_row(done))
            place.results(_frame(rows))
            shown = {"images_per_second": rows[-1]["images_per_second"]} if rows[-1]["status"] == "ok" else {}
            progress("measuring", len(rows), len(plan.combinations), shown)
        advice = advise(rows, around)
        place.write("verdict.json", advice.to_json())
        return _frame(rows), advice


def gather(plan: VelocityPlan, progress: Progress = no_progress) -> tuple[Material, Circumstances]:
    """The images that speed is measured on, decoded into the cache; those that cannot be read are left out."""
    config, free = plan.config, free_memory()
    whole = load_table(config.data, config.split)
    table = whole.take(np.unique(np.linspace(0, len(whole) - 1, min(IMAGES, len(whole))).round().astype(np.int64)))
    seen = glance(table, Reading.of(config.data))
    geometry, config, _ = choose_geometry(config, table, seen)
    reading = Reading.of(config.data)
    pixels, scan = load_pixels(table, reading, geometry, config.cache.limit, progress, memory=config.memory)
    if isinstance(pixels.array, StreamedArray):
        raise ResourceError(
            f"the {len(table)} images that speed is measured on do not fit into cache.limit = {config.cache.limit}; raise it, or make "
            "pixels.height and pixels.width smaller"
        )
    readable = np.flatnonzero((scan.facts["error"] == "").to_numpy()).astype(np.int64)
    if len(readable) < 2:
        raise InputError(f"of {len(table)} images only {len(readable)} can be read; `coverslip audit` says why")
    table, pixels = table.take(readable), pixels.take(readable)
    rows = np.arange(len(table), dtype=np.int64)
    config = with_values(config, pixels={"invert": inverts(config, pixels, rows, geometry)})
    # Mean and deviation of another backbone change no speed: the smallest network stands in for all.
    stand_in = build_classifier(
        with_values(config, model={"backbone": "small_30k", "arguments": {}}).model, channels=len(geometry.channels), classes=1,
        size=geometry.size, seed=0,
    )  # fmt: skip
    largest = int((scan.facts["height"] * scan.facts["width"]).max())
    normalisation = choose_normalisation(config, geometry, seen.depth, pixels, stand_in, rows)
    material = Material(
        config, tuple(table.samples), table.labels, len(table.classes), reading, geometry, normalisation,
        Path(str(cast("np.memmap[Any, Any]", pixels.array).filename)), pixels.index, pixels.key, largest,
    )  # fmt: skip
    return material, Circumstances(len(whole), _training_images(whole, config), len(table), material.image_bytes, free)


def _training_images(table: Table, config: RunConfig) -> int:
    if table.preset is not None:
        return int((table.preset == "train").sum())
    return max(1, round(len(table) * (1 - config.split.test - config.split.validation)))


def _tasks(plan: VelocityPlan, material: Material) -> Iterator[Task]:
    """The measurements in their order; before those on features, one task that computes the features."""
    prepared = None
    for model, strategy, size in plan.combinations:
        if STRATEGIES[strategy].frozen and prepared != model:
            prepared = model
            yield Task(material, model, strategy, size, plan.seconds, prepare=True)
        yield Task(material, model, strategy, size, plan.seconds, latency=strategy == plan.strategies[0])


def _row(done: Done[Task, dict[str, Any]]) -> dict[str, Any]:
    asked = {"model": done.task.model, "strategy": done.task.strategy, "batch_size": done.task.batch_size}
    return asked | (done.result or {"status": "failed", "error": done.error})


def _frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """results.csv: the latency of a model, and of a batch of it, stands in all rows of that model, and of that batch."""
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame["steps"] = frame["steps"].astype("Int64")
    for prefix, keys in (
        ("latency", ["model"]),
        ("batch_latency", ["model", "batch_size"]),
        ("weights", ["model"]),
        ("multiply_adds", ["model"]),
    ):
        for column in [name for name in COLUMNS if name.startswith(prefix)]:
            frame[column] = frame.groupby(keys)[column].transform("first")
    return frame


def _asked(plan: VelocityPlan, material: Material, command: str) -> dict[str, Any]:
    """study.toml."""
    config = material.config.model_dump(mode="json", exclude_none=True)
    return {
        "command": command, "data": material.config.data.path, "models": list(plan.models), "batch_sizes": list(plan.batch_sizes),
        "strategies": list(plan.strategies), "seconds": plan.seconds, "config": config,
    }  # fmt: skip


def _environment(plan: VelocityPlan, material: Material, around: Circumstances) -> dict[str, Any]:
    device = choose_device(plan.config.training.device)
    return {
        "versions": package_versions(), "machine": machine_facts(), "device": hardware_name(device),
        "precision": choose_precision(plan.config.training.precision, device), "data": asdict(around),
        "input": [len(material.geometry.channels), *material.geometry.size],
    }  # fmt: skip
