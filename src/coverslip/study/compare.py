"""A comparison, top to bottom: every run of a grid, the table of their numbers, and which of them are truly better."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from coverslip.config import RunConfig, load_config, merge_layers, read_toml
from coverslip.data.reading import Reading
from coverslip.data.sources import load_table
from coverslip.errors import ConfigError, RunFolderError
from coverslip.fitting import RANDOM_PROBE
from coverslip.models.hardware import NO_GPU, choose_device
from coverslip.models.networks import check_architecture
from coverslip.pictures import save_gallery
from coverslip.record import csv_text, finished_metrics
from coverslip.runtime import Progress, machine_facts, no_progress, package_versions, sweep, write_file
from coverslip.storage import absolute
from coverslip.study.engines import Done, Engine, LocalEngine
from coverslip.study.folder import StudyFolder
from coverslip.study.grid import Grid, PlannedRun, override, parse_grid, plan
from coverslip.study.grids import load_grid
from coverslip.study.jobs import Job, JobResult, perform
from coverslip.study.results import contender, finished_row, folds_frame, judged_predictions, planned_row, read_json, results_frame
from coverslip.study.sharing import in_sharing_order
from coverslip.study.verdict import Rank, Verdict, judge, rank
from coverslip.training.recipes import load_recipe

Bundles = Literal["best", "all", "none"]
Row = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """What is to be compared, checked.

    Attributes:
        name: of the grid, or its file.
        grid: complete: its base holds the data, the recipe's layer and the overrides.
        runs: every combination, in the order of the axes.
        drawn: whether the seed of the split was drawn, not given.
    """

    name: str
    grid: Grid
    runs: tuple[PlannedRun, ...]
    drawn: bool = False


@dataclass(frozen=True)
class ComparisonResult:
    """A finished comparison: its folder, results.csv as a table, and the verdict."""

    folder: Path
    table: pd.DataFrame
    verdict: Verdict


def begin_comparison(grid: str | Path, data: Mapping[str, Any], settings: Sequence[str] = ()) -> Comparison:
    """Put a comparison together: the grid's base (over its recipe), then the data's own TOML, then overrides.

    Args:
        grid: a grid by name or file.
        data: the config layer of the data.
        settings: texts `section.key=value`; a list makes an axis.

    Raises:
        MissingInputError: no such grid, no such data.
        InputError: the data is not what was asked for.
        ConfigError: unknown keys, empty axes, axes or values that contradict each other: all problems at once.
    """
    found = load_grid(grid)
    base = dict(found.base)
    recipe = base.pop("recipe", None)
    layers = merge_layers(merge_layers(load_recipe(recipe) if recipe else {}, base), data)
    path = layers.get("data", {}).get("path")
    if path is not None:
        layers = merge_layers(layers, {"data": {"path": absolute(path)}})
    whole = override(replace(found, base=layers), settings)
    drawn = whole.base.get("split", {}).get("seed") == "random"
    if drawn:  # once, for all runs
        whole = _with_split_seed(whole, int(np.random.default_rng().integers(2**31)))
    runs = plan(whole)
    _check_architectures(runs)
    for config in {run.config.data.model_dump_json() + run.config.split.model_dump_json(): run.config for run in runs}.values():
        load_table(config.data, config.split)
    return Comparison(str(grid), whole, tuple(runs), drawn)


def _with_split_seed(grid: Grid, seed: int) -> Grid:
    return replace(grid, base=merge_layers(grid.base, {"split": {"seed": seed}}))


def _check_architectures(runs: Sequence[PlannedRun]) -> None:
    problems = []
    for backbone in dict.fromkeys(run.config.model.backbone for run in runs):
        try:
            check_architecture(backbone)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)


def compare(
    comparison: Comparison,
    folder: str | Path,
    *,
    engine: Engine | None = None,
    bundles: Bundles = "best",
    resume: bool = False,
    command: str = "",
    progress: Progress = no_progress,
    announce: Callable[[str], None] = lambda line: None,
) -> ComparisonResult:
    """Make every run of a comparison, and compare them. A run that fails is a row with its error.

    Args:
        comparison: what `begin_comparison` made.
        folder: the study folder; must not hold another study.
        engine: who does the runs; this process when not given.
        bundles: which runs keep their trained model.
        resume: go on with a comparison that was stopped in this folder; it must be the same.
        command: the command line, for the record.
        progress: told about each run.
        announce: told in a line about each run that is over.

    Raises:
        RunFolderError: the folder is taken, or holds another comparison.
        ResourceError: memory or disk ran out.
    """
    with StudyFolder.claim(Path(folder), "compare", resume=resume) as place:
        comparison = _same_as_before(comparison, place)
        if not place.stored():
            place.write_study(
                {"command": command, "grid": comparison.name, "bundles": bundles, **comparison.grid.to_toml()}
                | {"versions": package_versions(), "machine": machine_facts()}
            )
        study = _Study(comparison, place, bundles, progress, announce)
        study.make(engine or LocalEngine())
        return study.conclude()


def _same_as_before(comparison: Comparison, place: StudyFolder) -> Comparison:
    """The comparison that the folder was begun with, its seed of the split included.

    Raises:
        RunFolderError: it is another one than is asked for now.
    """
    stored = place.stored()
    if not stored:
        return comparison
    before, now = parse_grid(stored), comparison.grid
    runs = plan(before)
    if comparison.drawn:
        now = _with_split_seed(now, before.base["split"]["seed"])
    asked = {run.model_id: run.config for run in plan(now)}
    found = {run.model_id: run.config for run in runs}
    if asked != found:
        changed = [name for name in {**found, **asked} if found.get(name) != asked.get(name)]
        raise RunFolderError(
            f"{place.path} holds another comparison: {len(changed)} of its runs differ from those asked for now "
            f"({', '.join(changed[:4])}{', ...' if len(changed) > 4 else ''}); choose another --out, or repeat the command that began it: "
            f"{stored.get('command', '')}"
        )
    return Comparison(comparison.name, before, tuple(runs))


@dataclass
class _Study:
    """A comparison at work."""

    comparison: Comparison
    place: StudyFolder
    bundles: Bundles
    progress: Progress
    announce: Callable[[str], None]
    rows: dict[str, Row] = field(default_factory=dict)
    ranks: dict[str, Rank] = field(default_factory=dict)

    @property
    def best(self) -> str | None:
        """The run that leads: of equals the first of the grid."""
        order = {run.model_id: number for number, run in enumerate(self.comparison.runs)}
        return max(self.ranks, key=lambda name: (self.ranks[name], -order[name]), default=None)

    # Making

    def make(self, engine: Engine) -> None:
        """Make the runs that are missing, and keep the table of results up to date."""
        here = isinstance(engine, LocalEngine)
        waiting = []
        for run in self.comparison.runs:
            reason = absent_hardware(run.config) if here else ""
            if reason:
                self.rows[run.model_id] = planned_row(run, "not run", reason)
            elif not self._take(run):
                self.rows[run.model_id] = planned_row(run, "waiting")
                waiting.append(run)
        self._write_table()
        self._report_progress()
        for missing in (in_sharing_order(waiting), self._without_its_model()):
            self._perform(engine, missing)

    def _perform(self, engine: Engine, runs: Iterable[PlannedRun]) -> None:
        by_name = {run.model_id: run for run in self.comparison.runs}
        for done in engine.each(perform, self._jobs(runs)):
            self._note(by_name[done.task.name], done)
            self._write_table()
            self._report_progress()

    def _take(self, run: PlannedRun) -> bool:
        """Take a finished run into the table; whether it is one."""
        folder = self.place.run_folder(run.model_id)
        metrics = finished_metrics(folder, lambda metrics: self.bundles == "all")
        if metrics is None:
            return False
        self.rows[run.model_id] = finished_row(run, folder)
        self.ranks[run.model_id] = rank(metrics)
        return True

    def _without_its_model(self) -> Iterator[PlannedRun]:
        """The leading run, when its trained model is to be kept and is not there; who leads is asked when it is taken."""
        best = self.best
        if self.bundles == "best" and best is not None and not (self.place.run_folder(best) / "bundle").is_dir():
            yield next(run for run in self.comparison.runs if run.model_id == best)

    def _jobs(self, runs: Iterable[PlannedRun]) -> Iterator[Job]:
        several = len({run.config.split.model_dump_json() for run in self.comparison.runs}) > 1
        for run in runs:
            leader = self.best
            beats = self.ranks[leader] if leader is not None else None
            kept = "none" if self.bundles == "best" and run.model_id not in self.ranks and soon_made_again(run.config) else self.bundles
            yield Job(run.model_id, run.config, self.place.run_folder(run.model_id), kept, beats, several, time_inference=True)

    def _note(self, run: PlannedRun, done: Done[Job, JobResult]) -> None:
        name, known = run.model_id, run.model_id in self.ranks
        reason = done.error.splitlines()[0] if done.error else ""
        if done.result is None and known:
            self.announce(f"{name}: its numbers are kept, its trained model is not: {reason}")
        elif done.result is None:
            absent = done.error.startswith(NO_GPU)
            self.rows[name] = planned_row(run, "not run" if absent else "failed", done.error)
            self.announce(f"{name}: {'not run' if absent else 'failed'}: {reason}")
        elif self._take(run):
            number = self.rows[name]["accuracy"]
            shown = "no images judged it" if number is None else f"accuracy {number:.3f}"
            self.announce(f"{name}: leads, its trained model is kept" if known else f"{name}: {shown}, {done.result.seconds:.1f} s")
        self._drop_models()

    def _drop_models(self) -> None:
        """Remove the trained models of runs that do not lead."""
        if self.bundles == "best":
            for name in self.ranks:
                if name != self.best:
                    shutil.rmtree(self.place.run_folder(name) / "bundle", ignore_errors=True)

    def _report_progress(self) -> None:
        over = sum(row["status"] != "waiting" for row in self.rows.values())
        best = self.best
        numbers = {} if best is None or self.rows[best]["accuracy"] is None else {"best_accuracy": float(self.rows[best]["accuracy"])}
        self.progress("runs", over, len(self.comparison.runs), numbers)

    def _write_table(self) -> pd.DataFrame:
        frame = results_frame([self.rows[run.model_id] for run in self.comparison.runs])
        self.place.results(frame)
        return frame

    # Concluding

    def conclude(self) -> ComparisonResult:
        """Judge the runs, and write the verdict, the folds and the pictures of the best."""
        self._drop_models()
        done = {run.model_id: self.place.run_folder(run.model_id) for run in self.comparison.runs if run.model_id in self.ranks}
        for folder in done.values():  # a run that was killed with its numbers written is not begun again
            sweep(folder, deep=True)
        found = [contender(run, done[run.model_id]) for run in self.comparison.runs if run.model_id in done]
        level, resamples = self._intervals()
        verdict = self._with_baseline_note(judge([one for one in found if one is not None], level=level, resamples=resamples))
        self.place.write("verdict.json", verdict.to_json())
        for name in done:
            self.rows[name]["verdict"] = "best" if name == verdict.best else "worse" if name in verdict.worse else "not told from the best"
        folds = folds_frame(done)
        if len(folds):
            write_file(self.place.path / "folds.csv", csv_text(folds))
        if verdict.best:
            self._picture(verdict.best)
        return ComparisonResult(self.place.path, self._write_table(), verdict)

    def _with_baseline_note(self, verdict: Verdict) -> Verdict:
        """The verdict with a note when its best run keeps random weights frozen."""
        config = next((run.config for run in self.comparison.runs if run.model_id == verdict.best), None)
        if config is None or config.training.regime != "probe" or config.model.weights != "none":
            return verdict
        return replace(verdict, notes=(*verdict.notes, f"The best run has {RANDOM_PROBE}."))

    def _intervals(self) -> tuple[float, int]:
        intervals = self.comparison.runs[0].config.intervals
        return intervals.level, intervals.resamples

    def _picture(self, best: str) -> None:
        """Pictures of what the best run got right and wrong on images that it had not seen."""
        folder = self.place.run_folder(best)
        config = load_config(read_toml(folder / "config.toml"))
        judged = judged_predictions(folder, read_json(folder / "metrics.json"))
        if judged is not None:
            save_gallery(self.place.path / "pictures", load_table(config.data, config.split), judged, Reading.of(config.data))


def soon_made_again(config: RunConfig) -> bool:
    """Whether a run is a head on cached features: learned again sooner than the models of all that lead for a while are written."""
    return config.training.regime == "probe" and config.split.folds == 0


def absent_hardware(config: RunConfig) -> str:
    """Why a run cannot be made on this machine; empty when it can."""
    try:
        choose_device(config.training.device)
    except ConfigError as error:
        return str(error)
    return ""
