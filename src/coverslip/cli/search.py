"""`search`: which settings do best."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from coverslip.cli.console import err, out, progress_bar
from coverslip.cli.options import Address, Endpoint, EngineName, Mlflow, TensorBoard, sent, shown

if TYPE_CHECKING:
    from coverslip.study.search import SearchRequest


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    app.command()(search)


def search(
    data: Annotated[
        str, typer.Argument(help="Folder of class folders, CSV or Parquet table, TOML file with a \\[data] section, or the URL of one.")
    ],
    space: Annotated[str | None, typer.Option(help="A space by name or file; that of the study when it goes on.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="How many trials; 30 when neither they nor minutes are given.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Minutes for everything, the final trainings included.")] = None,
    metric: Annotated[
        Literal["log_loss", "macro_f1"] | None, typer.Option(help="What a trial is judged by on the validation part.")
    ] = None,
    compare_random: Annotated[
        bool | None, typer.Option("--compare-random/--no-compare-random", help="Make a random search with as many trials beside it.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="sqlite:///FILE or postgresql://USER@HOST/DATABASE; a file of the study when not given.")
    ] = None,
    engine: EngineName = "local",
    address: Address = None,
    settings: Annotated[
        list[str] | None, typer.Option("-s", "--set", metavar="KEY=VALUE", help="Override a key, or the range of one that varies.")
    ] = None,
    out_folder: Annotated[str | None, typer.Option("--out", help="Study folder or its URL; studies/<data> when not given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a search that was stopped in this folder.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be searched; make nothing.")] = False,
    tensorboard: TensorBoard = None,
    mlflow: Mlflow = None,
    endpoint: Endpoint = None,
) -> None:
    """Look for the settings that do best, and judge them beside the defaults on images that no trial has seen."""
    from coverslip.config import merge_layers, parse_overrides
    from coverslip.start import data_layer, free_folder
    from coverslip.storage import place
    from coverslip.study.engines import build_engine, refuse_far_output
    from coverslip.study.folder import STUDY_ENDS
    from coverslip.study.search import refuse_far_file, request_search
    from coverslip.study.search import search as run_search
    from coverslip.study.tracking import Tracking

    stated = {"metric": metric, "compare_random": compare_random}
    overrides = merge_layers(
        parse_overrides(settings or []), {"search": {key: value for key, value in stated.items() if value is not None}}
    )
    refuse_far_file(storage, out_folder)
    local = out_folder if out_folder is None or isinstance(place(out_folder), Path) else None
    with sent(local if dry_run else out_folder, resume=resume, last=STUDY_ENDS, resumable=True) as folder:
        asked = request_search(
            data_layer(data), folder or free_folder(data, resume=resume and local == out_folder, kind="search"), space=space,
            overrides=overrides, trials=trials, minutes=minutes, storage=storage, resume=resume, command=["coverslip", *sys.argv[1:]],
        )  # fmt: skip
        if dry_run:
            _show(asked, out_folder)
            return
        tracking = Tracking(place(data).absolute().stem or "studies", tensorboard, mlflow)
        tracking.check()
        with progress_bar() as progress, contextlib.closing(build_engine(engine, address)) as workers:
            refuse_far_output(workers, out_folder)
            verdict = run_search(asked, workers, progress=progress, announce=_say)
        _finish(asked, verdict)
        for name in ("final", "defaults"):
            tracking.add(asked.folder / "runs" / name, f"{asked.folder.name}-{name}")


def _say(line: str) -> None:
    err.print(line, markup=False)


def _finish(asked: SearchRequest, verdict: dict[str, Any]) -> None:
    from coverslip.report import write_report
    from coverslip.report.study import write_study_report

    write_report(asked.folder / "runs" / "final")
    out.print(verdict["sentence"], markup=False)
    for key, value in verdict["best"]["values"].items():
        out.print(f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}", markup=False)
    out.print(f"report: {shown(write_study_report(asked.folder))}", markup=False)
    out.print(f"model:  {shown(asked.folder / 'runs' / 'final' / 'bundle')}", markup=False)


def _show(asked: SearchRequest, out_folder: str | None) -> None:
    from coverslip.config import dump_toml

    out.print(dump_toml(asked.space.defaults), markup=False)
    for dimension in asked.space.dimensions:
        out.print(f"varies: {dimension}", markup=False)
    out.print(f"budget: {asked.budget.sentence}", markup=False)
    out.print(f"dry run: nothing was trained; {out_folder or asked.folder} was not written", markup=False)
