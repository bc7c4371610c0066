"""`train` and `demo`."""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coverslip.cli.console import err, out, progress_bar
from coverslip.cli.options import Endpoint, Mlflow, Settings, TensorBoard, sent, shown

if TYPE_CHECKING:
    from coverslip.start import Start
    from coverslip.structures import RunResult


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    app.command()(train)
    app.command()(demo)


def train(
    data: Annotated[
        str, typer.Argument(help="Folder of class folders, CSV or Parquet table, TOML file with a \\[data] section, or the URL of one.")
    ],
    recipe: Annotated[str | None, typer.Option(help="A recipe by name or file; chosen from what is seen when not given.")] = None,
    settings: Settings = None,
    out_folder: Annotated[str | None, typer.Option("--out", help="Run folder or its URL; runs/<data> when not given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped in this folder.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Load, audit and split; show the config and the model; train nothing.")
    ] = False,
    learning_curve: Annotated[bool, typer.Option("--learning-curve", help="Also measure accuracy against training-set size.")] = False,
    tensorboard: TensorBoard = None,
    mlflow: Mlflow = None,
    endpoint: Endpoint = None,
) -> None:
    """Train, judge and save a classifier, and write its report. Several processes, started by torchrun, train one model."""
    from coverslip.record import RUN_ENDS
    from coverslip.start import begin
    from coverslip.storage import place
    from coverslip.study.tracking import Tracking
    from coverslip.training.ranks import together

    with (
        together() as ranks,
        sent(None if dry_run or not ranks.first else out_folder, resume=resume, last=RUN_ENDS, resumable=True) as folder,
        progress_bar() as progress,
    ):
        if not ranks.first:
            from coverslip.companion import accompany

            accompany(ranks)
            return
        start = begin(data, recipe=recipe, settings=settings or [], out=folder, resume=resume)
        err.print(f"[bold]{start.recipe}[/bold]: {start.why}", soft_wrap=False)
        if resume and not (start.folder / "config.toml").is_file():
            _say(f"there is no run to go on with in {shown(start.folder)}: a new one begins")
        if dry_run:
            _show_plan(start, progress)
            return
        from coverslip.experiment import run
        from coverslip.report import write_report
        from coverslip.study.learning_curve import measure_learning_curve

        tracking = Tracking(place(data).absolute().stem or "runs", tensorboard, mlflow)
        tracking.check()
        command = shlex.join(["coverslip", *sys.argv[1:]])
        result = run(
            start.config, start.folder, recipe=start.recipe, why=start.why, command=command, resume=resume, progress=progress, announce=_say
        )
        _finish(result)
        if learning_curve:
            measure_learning_curve(result.folder, progress=progress)
            write_report(result.folder)
            out.print("would more images help? The report now holds the learning curve", markup=False)
        tracking.add(result.folder, result.folder.absolute().name)


def demo(
    out_folder: Annotated[
        str | None, typer.Option("--out", help="Folder or URL to which images and run go; a temporary folder when not given.")
    ] = None,
    images: Annotated[int, typer.Option(help="Number of simulated images.", min=20)] = 240,
    seed: Annotated[int, typer.Option(help="Seed of the simulation.")] = 0,
    endpoint: Endpoint = None,
) -> None:
    """The tour in about a minute, without a network: simulate gel photographs, audit, train, report."""
    from coverslip.experiment import run
    from coverslip.simulate import simulate
    from coverslip.start import begin

    with sent(out_folder) as given, progress_bar() as progress:
        folder = given or Path(tempfile.mkdtemp(prefix="coverslip-demo-"))
        err.print("simulating gel photographs and other pictures (they are simulations, not data) ...")
        gels = simulate("gels", folder / "gels", images=images, seed=seed, progress=progress)
        start = begin(str(gels), recipe="quick", settings=[], out=folder / "runs" / gels.name, resume=False)
        result = run(start.config, start.folder, recipe=start.recipe, why="the demo's recipe", command="coverslip demo", progress=progress)
        _finish(result)


def _say(line: str) -> None:
    err.print(line, markup=False)


def _finish(result: RunResult) -> None:
    from coverslip.report import write_report
    from coverslip.structures import headline

    report = write_report(result.folder)
    for note in result.notes:
        err.print(f"note: {note}", markup=False)
    out.print(headline(result.metrics), markup=False)
    out.print(f"report: {shown(report)}", markup=False)
    out.print(f"model:  {'' if result.bundle is None else shown(result.bundle)}", markup=False)


def _show_plan(start: Start, progress: Any) -> None:
    from rich.table import Table as Sheet

    from coverslip.config import dump_toml
    from coverslip.fitting import Fits
    from coverslip.preparing import prepare
    from coverslip.record import RunFolder

    start.config.check()
    data = prepare(start.config, progress)
    fits = Fits(data, RunFolder(start.folder, resume=False), progress)
    summary = fits.summary
    sheet = Sheet("layer", "type", "output", "weights", "learns", title=data.config.model.backbone)
    for layer in summary.layers:
        sheet.add_row(layer.name, layer.kind, "x".join(map(str, layer.output)), f"{layer.weights:,}", layer.trainable)
    out.print(dump_toml(data.config), markup=False)
    out.print(sheet)
    out.print(summary.sentence)
    for part in ("train", "validation", "test"):
        out.print(f"{part}: {len(data.split.rows(part))} images")
    if data.audit.sentence:
        _say(f"audit:  {data.audit.sentence}; in full by coverslip audit")
    for note in (*data.notes, *fits.notes):
        _say(f"note: {note}")
    out.print(f"dry run: nothing was trained; {start.folder} was not written", markup=False)
