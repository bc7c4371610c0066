"""Predict a large table in parts: Parquet files of so many rows each, made by any engine, each row exactly once.

    DIR/plan.json            what is predicted by what: made first, and held against when one goes on
    DIR/part-000000.parquet  rows 0 to n - 1 of the list of samples, and so on
    DIR/predictions.json     rows and unreadable ones; written last, once all parts are there and hold what they must
    DIR/predict.log

A part is written whole or not at all, and named by the rows that it holds: which are done is read from the folder, so that a run that
was killed goes on with what is missing, and a part that is made twice replaces its like.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet

from coverslip.bundle import find_bundle
from coverslip.errors import InputError, ResourceError, RunFolderError
from coverslip.predict import Model
from coverslip.record import claimed
from coverslip.runtime import Progress, hash_file, hash_text, no_progress, write_json, writing
from coverslip.structures import File
from coverslip.study.engines import Engine

PART_ROWS = 8192
"""Rows of a part, where nobody says otherwise."""
PLAN, SUMMARY = "plan.json", "predictions.json"
_models: dict[tuple[Path, str], Model] = {}


@dataclass(frozen=True)
class Part:
    """Some rows that are to be predicted, and the file that they go to."""

    bundle: Path
    sha256: str
    first: int
    samples: tuple[tuple[File, ...], ...]
    names: tuple[str, ...]
    file: Path


@dataclass(frozen=True)
class MassPrediction:
    """What lies in the folder at the end: rows, those that could not be read, parts, and how many of these were made just now."""

    folder: Path
    rows: int
    unreadable: int
    parts: int
    made: int


def predict_in_parts(
    bundle: str | Path,
    inputs: Sequence[str | Path],
    folder: Path,
    engine: Engine,
    *,
    part_rows: int = PART_ROWS,
    resume: bool = False,
    progress: Progress = no_progress,
) -> MassPrediction:
    """Score files, folders and tables into a folder of Parquet parts.

    Args:
        bundle: a bundle or run folder, seen by all workers under the same path, as are the images.
        inputs: what `Model.predict` takes, but for arrays.
        folder: where the parts go.
        engine: who does the parts.
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
    place = find_bundle(bundle).absolute()
    model = Model(place)
    samples, names = model.list_samples(inputs)
    plan: dict[str, Any] = {
        "bundle_sha256": hash_file(place / "model.json"),
        "inputs_sha256": hash_text(*(f"{name}\n{files}" for name, files in zip(names, samples, strict=True))),
        "rows": len(names),
        "part_rows": part_rows,
        "classes": list(model.classes),
    }
    with claimed(folder, "predict", (PLAN,), resume=resume):
        _keep_to(folder / PLAN, plan)
        starts = range(0, len(names), part_rows)
        todo = [first for first in starts if not (folder / part_name(first, part_rows)).is_file()]

        def parts() -> Iterator[Part]:
            for first in todo:
                rows = slice(first, first + part_rows)
                file = (folder / part_name(first, part_rows)).absolute()
                yield Part(place, plan["bundle_sha256"], first, tuple(samples[rows]), tuple(names[rows]), file)

        problems: list[str] = []
        done = len(starts) - len(todo)
        progress("predicting", done, len(starts), {})
        for one in engine.each(predict_part, parts()):
            problems += [f"rows {one.task.first} to {one.task.first + len(one.task.names) - 1}: {one.error}"] if one.error else []
            done += 1
            progress("predicting", done, len(starts), {})
        if problems:
            raise ResourceError(
                f"{len(problems)} of {len(starts)} parts could not be made, the first of them {problems[0]}; the others are in {folder}: "
                "mend what is wrong and go on with --resume"
            )
        unreadable = check_parts(folder, len(names), part_rows)
        write_json(folder / SUMMARY, {"rows": len(names), "unreadable": unreadable, "parts": len(starts)})
        return MassPrediction(folder, len(names), unreadable, len(starts), len(todo))


def part_name(first: int, part_rows: int) -> str:
    """The file of the part that begins with a row."""
    return f"part-{first // part_rows:06}.parquet"


def predict_part(part: Part) -> None:
    """Score the rows of a part and write its file: what a worker does. The model is opened once in a process."""
    key = (part.bundle, part.sha256)
    if key not in _models:
        _models.clear()
        if hash_file(part.bundle / "model.json") != part.sha256:
            raise InputError(f"the bundle {part.bundle} that this worker sees is not the one that the predictions were begun with")
        _models[key] = Model(part.bundle)
    frame = _models[key].predict_samples(part.samples, part.names)
    frame.insert(0, "row", range(part.first, part.first + len(frame)))
    with writing(part.file) as temporary:
        frame.to_parquet(temporary, index=False)


def check_parts(folder: Path, rows: int, part_rows: int) -> int:
    """Hold each part against the rows that it must hold; give the number of images that could not be read.

    Raises:
        RunFolderError: a part is missing, damaged, or holds other rows.
    """
    unreadable = 0
    for first in range(0, rows, part_rows):
        file = folder / part_name(first, part_rows)
        expected = list(range(first, min(first + part_rows, rows)))
        try:
            table = pyarrow.parquet.read_table(file, columns=["row", "error"])
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{file} cannot be read ({error}); remove it, and go on with --resume") from error
        if table["row"].to_pylist() != expected:
            raise RunFolderError(f"{file} does not hold the rows {expected[0]} to {expected[-1]}; remove it, and go on with --resume")
        unreadable += sum(error != "" for error in table["error"].to_pylist())
    return unreadable


def _keep_to(file: Path, plan: dict[str, Any]) -> None:
    """Write the plan, or make sure that it is the one which the folder was begun with."""
    if not file.is_file():
        write_json(file, plan)
        return
    begun = json.loads(file.read_text(encoding="utf-8"))
    if begun != plan:
        other = ", ".join(name for name in plan if begun.get(name) != plan[name])
        raise RunFolderError(
            f"{file.parent} holds predictions that were begun with another plan (differs in {other}); choose another --out"
        )
