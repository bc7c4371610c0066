"""Predict a large table in parts: Parquet files of so many rows each, made by any engine, each row exactly once.

    DIR/plan.json            what is predicted by what: made first, and held against when one goes on
    DIR/part-000000.parquet  rows 0 to n - 1 of the list of samples, and so on
    DIR/predictions.json     rows and unreadable ones; written last, once all parts are there and hold what they must
    DIR/predict.log

A part is written whole or not at all, and named by the rows that it holds: which are done is read from the folder, so that a run that
was killed goes on with what is missing, and a part that is made twice replaces its like.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet

from coverslip.errors import InputError, ResourceError, RunFolderError
from coverslip.inference import RuntimeName
from coverslip.predict import Model
from coverslip.record import claimed
from coverslip.repositories import is_address
from coverslip.runtime import Progress, hash_file, hash_text, no_progress
from coverslip.storage import URL, Place, absolute, listing, place, write
from coverslip.structures import File
from coverslip.study.engines import Engine

PART_ROWS = 8192
"""Rows of a part, where nobody says otherwise."""
PLAN, SUMMARY = "plan.json", "predictions.json"
_models: dict[tuple[str, str, str], Model] = {}


@dataclass(frozen=True)
class Part:
    """Some rows that are to be predicted, and the file that they go to."""

    bundle: str
    sha256: str
    runtime: RuntimeName
    first: int
    samples: tuple[tuple[File, ...], ...]
    names: tuple[str, ...]
    file: Place


@dataclass(frozen=True)
class MassPrediction:
    """What lies in the folder at the end: rows, those that could not be read, parts, and how many of these were made just now."""

    folder: Place
    rows: int
    unreadable: int
    parts: int
    made: int


def predict_in_parts(
    bundle: str | Path,
    inputs: Sequence[str | Path],
    folder: str | Path,
    engine: Engine,
    *,
    runtime: RuntimeName = "torch",
    part_rows: int = PART_ROWS,
    resume: bool = False,
    progress: Progress = no_progress,
) -> MassPrediction:
    """Score files, folders and tables into a folder of Parquet parts.

    Args:
        bundle: a bundle or run folder, or its URL; seen by all workers under the same path, as are the images.
        inputs: what `Model.predict` takes, but for arrays.
        folder: where the parts go; a URL of an object store, too, to which each worker then writes by itself.
        engine: who does the parts.
        runtime: what computes the scores, on all workers.
        part_rows: rows of a part.
        resume: go on with what is missing in a folder that was begun with the same bundle and the same inputs.
        progress: told about each part.

    Returns:
        What the folder holds: `row` (place in the list of samples), then the columns of `Model.predict`.

    Raises:
        MissingInputError: an input or the bundle does not exist.
        RunFolderError: the folder holds other predictions, or some and `resume` was not asked for.
        ResourceError: some parts could not be made; the others are there.
    """
    if part_rows < 1:
        raise InputError(f"a part of {part_rows} rows: expected 1 or more")
    model, named, out = Model(bundle, runtime=runtime), str(bundle) if is_address(str(bundle)) else absolute(bundle), place(folder)
    if isinstance(out, Path):
        out = out.absolute()
    samples, names = model.list_samples(inputs)
    plan: dict[str, Any] = {
        "bundle_sha256": hash_file(model.folder / "model.json"),
        "runtime": runtime,
        "inputs_sha256": hash_text(*(f"{name}\n{' '.join(map(str, files))}" for name, files in zip(names, samples, strict=True))),
        "rows": len(names),
        "part_rows": part_rows,
        "classes": list(model.classes),
    }
    with claimed(out, "predict", (PLAN,), resume=resume) if isinstance(out, Path) else contextlib.nullcontext():
        _keep_to(out, plan, resume=resume)
        starts, there = range(0, len(names), part_rows), _names_in(out)
        todo = [first for first in starts if part_name(first, part_rows) not in there]

        def parts() -> Iterator[Part]:
            for first in todo:
                rows, file = slice(first, first + part_rows), out / part_name(first, part_rows)
                yield Part(named, plan["bundle_sha256"], runtime, first, tuple(samples[rows]), tuple(names[rows]), file)

        problems: list[str] = []
        done = len(starts) - len(todo)
        progress("predicting", done, len(starts), {})
        for one in engine.each(predict_part, parts()):
            problems += [f"rows {one.task.first} to {one.task.first + len(one.task.names) - 1}: {one.error}"] if one.error else []
            done += 1
            progress("predicting", done, len(starts), {})
        if problems:
            raise ResourceError(
                f"{len(problems)} of {len(starts)} parts could not be made, the first of them {problems[0]}; the others are in {out}: "
                "mend what is wrong and go on with --resume"
            )
        unreadable = check_parts(out, len(names), part_rows)
        _write_json(out / SUMMARY, {"rows": len(names), "unreadable": unreadable, "parts": len(starts)})
        return MassPrediction(out, len(names), unreadable, len(starts), len(todo))


def part_name(first: int, part_rows: int) -> str:
    """The file of the part that begins with a row."""
    return f"part-{first // part_rows:06}.parquet"


def predict_part(part: Part) -> None:
    """Score the rows of a part and write its file: what a worker does. The model is opened once in a process."""
    key = (part.bundle, part.sha256, part.runtime)
    if key not in _models:
        _models.clear()
        model = Model(part.bundle, runtime=part.runtime)
        if hash_file(model.folder / "model.json") != part.sha256:
            raise InputError(f"the bundle {part.bundle} that this worker sees is not the one that the predictions were begun with")
        _models[key] = model
    frame = _models[key].predict_samples(part.samples, part.names)
    frame.insert(0, "row", range(part.first, part.first + len(frame)))
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    write(part.file, buffer.getvalue())


def check_parts(folder: Place, rows: int, part_rows: int) -> int:
    """Hold each part against the rows that it must hold; give the number of images that could not be read.

    Raises:
        RunFolderError: a part is missing, damaged, or holds other rows.
    """
    unreadable = 0
    for first in range(0, rows, part_rows):
        file = folder / part_name(first, part_rows)
        expected = list(range(first, min(first + part_rows, rows)))
        try:
            table = pyarrow.parquet.read_table(io.BytesIO(file.read_bytes()), columns=["row", "error"])
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{file} cannot be read ({error}); remove it, and go on with --resume") from error
        if table["row"].to_pylist() != expected:
            raise RunFolderError(f"{file} does not hold the rows {expected[0]} to {expected[-1]}; remove it, and go on with --resume")
        unreadable += sum(error != "" for error in table["error"].to_pylist())
    return unreadable


def _names_in(folder: Place) -> set[str]:
    """The names of the files in a folder, or of the objects below a URL."""
    return set(listing(folder)) if isinstance(folder, URL) else {file.name for file in folder.iterdir()}


def _write_json(file: Place, value: Any) -> None:
    write(file, json.dumps(value, indent=2).encode() + b"\n")


def _keep_to(folder: Place, plan: dict[str, Any], *, resume: bool) -> None:
    """Write the plan, or make sure that it is the one which the folder was begun with."""
    file = folder / PLAN
    if not file.is_file():
        _write_json(file, plan)
        return
    if not resume:
        raise RunFolderError(f"{folder} holds predictions already; choose another --out, or go on with --resume")
    begun = json.loads(file.read_bytes())
    if begun != plan:
        other = ", ".join(name for name in plan if begun.get(name) != plan[name])
        raise RunFolderError(f"{folder} holds predictions that were begun with another plan (differs in {other}); choose another --out")
