"""`compare`."""

from __future__ import annotations

import contextlib
import shlex
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from coverslip.cli.console import err, out, progress_bar
from coverslip.cli.options import Address, Endpoint, EngineName, Mlflow, TensorBoard, sent, shown

if TYPE_CHECKING:
    from coverslip.runtime import Progress
    from coverslip.study.compare import Comparison, ComparisonResult


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    app.command()(compare)


def compare(
    data: Annotated[
        str, typer.Argument(help="Folder of class folders, CSV or Parquet table, TOML file with a \\[data] section, or the URL of one.")
    ],
    grid: Annotated[str, typer.Option(help="A grid by name or file: a base, and axes of which every combination is a run.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("-s", "--set", metavar="KEY=VALUE", help="Override a key of the config; a list of values makes or replaces an axis."),
    ] = None,
    out_folder: Annotated[str | None, typer.Option("--out", help="Study folder or its URL; studies/<data> when not given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a comparison that was stopped in this folder.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs with an estimate of their time and memory; train nothing.")
    ] = False,
    bundles: Annotated[Literal["best", "all", "none"], typer.Option(help="Which runs keep their trained model.")] = "best",
    engine: EngineName = "local",
    address: Address = None,
    tensorboard: TensorBoard = None,
    mlflow: Mlflow = None,
    endpoint: Endpoint = None,
) -> None:
    """Train every combination of a grid on one split, and say which are truly better."""
    from coverslip.start import data_layer, free_folder
    from coverslip.study.compare import begin_comparison

    comparison = begin_comparison(grid, data_layer(data), settings or [])
    if dry_run:
        with progress_bar() as progress:
            _show_plan(comparison, progress)
        return
    from coverslip.report.study import write_study_report
    from coverslip.study.compare import compare as run_comparison
    from coverslip.study.engines import build_engine, refuse_far_output
    from coverslip.study.folder import STUDY_ENDS
    from coverslip.study.tracking import Tracking

    command = shlex.join(["coverslip", *sys.argv[1:]])
    with sent(out_folder, resume=resume, last=STUDY_ENDS, resumable=True) as given:
        folder = given or free_folder(data, resume=resume, kind="compare")
        tracking = Tracking(folder.absolute().name, tensorboard, mlflow)
        tracking.check()
        with progress_bar() as progress, contextlib.closing(build_engine(engine, address)) as workers:
            refuse_far_output(workers, out_folder)
            result = run_comparison(
                comparison, folder, engine=workers, bundles=bundles, resume=resume, command=command, progress=progress, announce=_say
            )
        for name in result.table.loc[result.table["status"] == "done", "model_id"]:
            tracking.add(result.folder / "runs" / name, name)
        _show(result)
        out.print(f"report: {shown(write_study_report(result.folder))}", markup=False)
    if not (result.table["status"] == "done").any():
        raise typer.Exit(1)


def _say(line: str) -> None:
    err.print(line, markup=False)


def _show(result: ComparisonResult) -> None:
    from rich.table import Table as Sheet
    from rich.text import Text

    from coverslip.report.numbers import duration
    from coverslip.structures import number_text

    table = result.table
    sheet = Sheet("run", "accuracy", "time alone", "verdict")
    for column in sheet.columns[1:]:
        column.no_wrap = True
    done = table[table["status"] == "done"].sort_values(["accuracy", "macro_f1", "roc_auc"], ascending=False, kind="stable")
    for row in done.to_dict("records"):
        number = {"value": row["accuracy"], "low": row["accuracy_low"], "high": row["accuracy_high"]}
        took = duration(60 * (row["training_time_mins"] + row["features_time_mins"]))
        told = str(row["verdict"]) if row["verdict"] in ("best", "worse") else "not told apart"
        sheet.add_row(Text(str(row["model_id"])), number_text(number), took, told)
    out.print(sheet)
    for status in ("not run", "failed"):
        rows = table[table["status"] == status]
        _say_reasons(status, [(str(row["model_id"]), str(row["error"])) for row in rows.to_dict("records")], len(table))
    out.print(result.verdict.sentence, markup=False)
    for note in filter(None, (result.verdict.method, *result.verdict.notes)):
        _say(f"note: {note}")


def _say_reasons(status: str, reasons: list[tuple[str, str]], runs: int) -> None:
    """Each reason once, with the runs that it keeps back."""
    for reason in dict.fromkeys(reason for _, reason in reasons):
        names = [name for name, other in reasons if other == reason]
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        _say(f"{status}: {len(names)} of {runs} runs ({shown}): {reason}")


def _show_plan(comparison: Comparison, progress: Progress) -> None:
    from rich.table import Table as Sheet
    from rich.text import Text

    from coverslip.report.numbers import duration
    from coverslip.study.estimate import estimate_runs

    sheet = Sheet("run", "own time", "features", "memory", title=f"{len(comparison.runs)} runs, in the order they are made")
    sheet.columns[0].no_wrap = True
    estimates = estimate_runs(comparison.runs, progress)
    for one in estimates:
        features = f"{one.features_seconds:.0f} s" if one.features_seconds else ""
        cells = ("cannot be made", "", "") if one.seconds is None else (f"{one.seconds:.0f} s", features, f"{one.memory / 1e9:.1f} GB")
        sheet.add_row(Text(one.name), *cells)
    out.print(sheet)
    _say_reasons("cannot be made here", [(one.name, one.note) for one in estimates if one.note], len(estimates))
    seconds = sum(one.seconds + one.features_seconds for one in estimates if one.seconds is not None)
    possible = sum(one.seconds is not None for one in estimates)
    took = f", in about {duration(seconds)} one after the other (tried on a few images)" if possible else ""
    out.print(f"{possible} of {len(estimates)} runs can be made here{took}")
    out.print("dry run: nothing was trained and no folder was written")
