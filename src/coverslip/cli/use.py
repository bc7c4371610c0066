"""`predict`, `evaluate` and `report`: what one does with a finished run."""

from __future__ import annotations

import contextlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from coverslip.cli.console import err, out, progress_bar
from coverslip.cli.options import Address, Endpoint, sent, sent_file, shown

if TYPE_CHECKING:
    from coverslip.inference import RuntimeName

Bundle = Annotated[str, typer.Argument(help="A run folder, the bundle inside it, the URL of one, or hf://OWNER/NAME.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    app.command()(evaluate)
    app.command()(predict)
    app.command()(report)


def predict(
    bundle: Bundle,
    inputs: Annotated[list[str], typer.Argument(help="Image files, folders, or tables with a column `image`; also URLs.")],
    out_file: Annotated[str, typer.Option("--out", help="FILE.csv, FILE.parquet, or a folder for predictions.csv; also a URL.")],
    device: Annotated[Literal["auto", "cpu", "gpu"], typer.Option(help="Where the model runs.")] = "auto",
    runtime: Annotated[
        Literal["auto", "torch", "onnx", "openvino"], typer.Option(help="The engine that computes; auto takes the fastest on this machine.")
    ] = "auto",
    form: Annotated[
        Literal["table", "submission"], typer.Option("--format", help="All columns, or only Id,Predicted with class numbers.")
    ] = "table",
    engine: Annotated[
        Literal["local", "ray"] | None,
        typer.Option("--engine", help="Write Parquet parts into the folder --out, made by this machine or by a Ray cluster."),
    ] = None,
    address: Address = None,
    part_rows: Annotated[int | None, typer.Option("--part-rows", help="Rows of a part; 8192 when not given.", min=1)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Make the parts that are missing in this folder.")] = False,
    endpoint: Endpoint = None,
) -> None:
    """Score images; files that cannot be read are reported in the table and stop nothing. Large tables are predicted in parts.

    A submission has no place for such a report: it is written all the same, and the command ends with status 1.
    """
    if engine or address or part_rows or resume:
        _predict_in_parts(bundle, inputs, out_file, device, runtime, form, engine or "local", address, part_rows, resume)
        return
    from coverslip.data.files import some
    from coverslip.predict import Model, submission, write_table

    model = Model(bundle, device=device, runtime=runtime)
    with progress_bar() as progress:
        frame = model.predict(inputs, progress)
    with sent_file(out_file) if PurePosixPath(out_file).suffix else sent(out_file, replace=True) as place:
        written = shown(write_table(submission(frame, model) if form == "submission" else frame, place or Path()))
    bad = frame[frame["error"] != ""]
    if len(bad):
        reasons = [f"{image}: {error}" for image, error in zip(bad["image"], bad["error"], strict=True)]
        why = some(reasons) if form == "submission" else "the column `error` says why"
        err.print(f"{len(bad)} of {len(frame)} images could not be read; {why}", markup=False, style="yellow")
    doubtful = int((~frame["uncertain"].isin(["", "no"])).sum())
    marked = f", {doubtful} of them marked as uncertain" if doubtful else ""
    out.print(f"{len(frame) - len(bad)} images predicted{marked}: {written}", markup=False)
    if len(bad) and form == "submission":
        err.print("a submission cannot say so: these rows are empty, as if the images carried no label", markup=False, style="yellow")
        raise typer.Exit(1)


def _predict_in_parts(
    bundle: str, inputs: list[str], folder: str, device: str, runtime: RuntimeName, form: str, engine: str, address: str | None,
    part_rows: int | None, resume: bool,
) -> None:  # fmt: skip
    from coverslip.errors import InputError
    from coverslip.mass_prediction import PART_ROWS, predict_in_parts
    from coverslip.study.engines import build_engine

    if PurePosixPath(folder).suffix in (".csv", ".parquet"):
        raise InputError(f"--out {folder}: predictions in parts go to a folder, not to a file")
    if device != "auto" or form != "table":
        raise InputError("--device and --format do not go with predictions in parts: workers take the GPU that they are given")
    with progress_bar() as progress, contextlib.closing(build_engine(engine, address)) as workers:
        made = predict_in_parts(
            bundle, inputs, folder, workers, runtime="torch" if runtime == "auto" else runtime, part_rows=part_rows or PART_ROWS,
            resume=resume, progress=progress,
        )  # fmt: skip
    if made.unreadable:
        err.print(f"{made.unreadable} of {made.rows} images could not be read; the column `error` says why", markup=False, style="yellow")
    out.print(f"{made.rows - made.unreadable} images predicted: {made.folder} ({made.made} of {made.parts} parts made now)", markup=False)


def evaluate(
    bundle: Bundle,
    data: Annotated[str, typer.Argument(help="A labelled set that the model has not seen: folder of class folders, or a table.")],
    out_folder: Annotated[str | None, typer.Option("--out", help="Where metrics.json, predictions.csv and report.html go.")] = None,
    settings: Annotated[list[str] | None, typer.Option("-s", "--set", metavar="KEY=VALUE", help="data.* and split.group keys.")] = None,
    endpoint: Endpoint = None,
) -> None:
    """Judge a model on a labelled set that it has not seen."""
    from coverslip.judge import evaluate_bundle
    from coverslip.record import RUN_ENDS
    from coverslip.report import write_report
    from coverslip.structures import headline

    with sent(out_folder, last=RUN_ENDS) as folder:
        with progress_bar() as progress:
            result = evaluate_bundle(bundle, data, folder, settings=settings or [], progress=progress)
        for note in result.notes:
            err.print(f"note: {note}", markup=False)
        out.print(headline(result.metrics), markup=False)
        out.print(f"report: {shown(write_report(result.folder))}", markup=False)


def report(
    run: Annotated[str, typer.Argument(metavar="RUN|STUDY", help="The folder of a run or of a study, or its URL.")],
    endpoint: Endpoint = None,
) -> None:
    """Write report.html of a run or a study again, from its files."""
    from coverslip.report import write_report
    from coverslip.report.study import is_study, write_study_report
    from coverslip.storage import URL, local_folder, place, upload, writable

    where = place(run)
    if isinstance(where, URL):
        writable(where)
    with local_folder(where, without=(".safetensors",)) as folder:
        written = (write_study_report if is_study(folder) else write_report)(folder)
        if isinstance(where, URL):
            upload(written, where / written.name)
    out.print(str(where / written.name), markup=False)
