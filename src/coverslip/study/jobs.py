"""One run of a study: a config and a folder in, the folder filled; what runs share is made once in a process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coverslip.config import RunConfig
from coverslip.experiment import run
from coverslip.preparing import Prepared, preparation_key, prepare

KEPT = 2
"""Prepared data sets that a process keeps: neighbouring runs of a study share theirs."""
_prepared: dict[str, Prepared] = {}


@dataclass(frozen=True)
class Job:
    """A run that is to be made: its name in the study, its config, its folder."""

    name: str
    config: RunConfig
    folder: Path


@dataclass(frozen=True)
class JobResult:
    """A run that was made: the content of its metrics.json, its seconds, and the process that made it."""

    name: str
    metrics: dict[str, Any]
    seconds: float
    worker: int


def perform(job: Job) -> JobResult:
    """Make the run, or go on with it where it was stopped; a finished one is read, not made again."""
    config = job.config
    finished = (job.folder / "metrics.json").is_file() and (job.folder / "bundle").is_dir()
    config.check()
    data = None if finished else shared_data(config)
    result = run(config, job.folder, recipe=f"study: {job.name}", resume=True, data=data, pictures=False)
    return JobResult(job.name, result.metrics, result.seconds, os.getpid())


def shared_data(config: RunConfig) -> Prepared:
    """The prepared data of a config: made once in this process for all configs that agree on what it is made of."""
    key = preparation_key(config)
    if key not in _prepared:
        while len(_prepared) >= KEPT:
            _prepared.pop(next(iter(_prepared)))
        _prepared[key] = prepare(config)
    return _prepared[key]
