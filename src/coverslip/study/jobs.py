"""One run of a study: a config and a folder in, the folder filled; what runs share is made once in a process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coverslip.config import RunConfig
from coverslip.experiment import run
from coverslip.models.classifier import FrozenBackbones
from coverslip.models.hardware import choose_device
from coverslip.preparing import Prepared, preparation_key, prepare
from coverslip.record import finished_metrics
from coverslip.runtime import Progress, no_progress
from coverslip.study.verdict import Rank, rank

KEPT = 2
"""Prepared data sets, and frozen backbones, that a process keeps: neighbouring runs of a study share theirs."""
_prepared: dict[str, Prepared] = {}
_frozen: dict[bool, FrozenBackbones] = {}


@dataclass(frozen=True)
class Job:
    """A run that is to be made.

    Attributes:
        name: in the study.
        config: the whole config.
        folder: of the run.
        bundle: whether the trained model is kept: always, never, or when no run of the study has been better so far.
        beats: for `best`, the best rank so far; None when there is none.
        every_row: whether other runs look at other rows of the same images.
        time_inference: whether the time of inference is measured.
    """

    name: str
    config: RunConfig
    folder: Path
    bundle: str = "all"
    beats: Rank | None = None
    every_row: bool = False
    time_inference: bool = False

    def keeps_bundle(self, metrics: dict[str, Any]) -> bool:
        """Whether the run keeps its trained model, given its metrics.json."""
        return self.bundle == "all" or (self.bundle == "best" and (self.beats is None or rank(metrics) >= self.beats))


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
    config.check()
    choose_device(config.training.device)  # a machine without it says so before the work on the data
    data = None if finished_metrics(job.folder, job.keeps_bundle) is not None else shared_data(config)
    result = run(
        config, job.folder, recipe=f"study: {job.name}", resume=True, data=data, frozen=shared_backbones(every_row=job.every_row),
        keep_bundle=job.keeps_bundle, pictures=False, time_inference=job.time_inference,
    )  # fmt: skip
    return JobResult(job.name, result.metrics, result.seconds, os.getpid())


def shared_data(config: RunConfig, progress: Progress = no_progress) -> Prepared:
    """The prepared data of a config: made once in this process for all configs that agree on what it is made of."""
    key = preparation_key(config)
    if key not in _prepared:
        while len(_prepared) >= KEPT:
            _prepared.pop(next(iter(_prepared)))
        _prepared[key] = prepare(config, progress)
    return _prepared[key]


def shared_backbones(*, every_row: bool = False) -> FrozenBackbones:
    """The frozen backbones of this process, for runs that look at the same rows or at different ones."""
    return _frozen.setdefault(every_row, FrozenBackbones(KEPT, every_row=every_row))
