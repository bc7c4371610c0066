"""Runs for TensorBoard: a folder a run, written whole; curves of folds and class groups in folders below it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from coverslip.errors import InputError
from coverslip.runtime import explained, require, write_json, writing
from coverslip.storage import URL, Place, delete, exists, listing, upload_folder, writable
from coverslip.study.tracking import TrackedRun

MARK = "coverslip.json"
"""The file by which a folder is known to be ours, with the fingerprint of its run."""


def check(folder: Place) -> None:
    """Whether TensorBoard is installed and the folder can be written.

    Raises:
        MissingExtraError: it is not installed.
        InputError: the URL of a web server, which is read only.
        ResourceError: the folder cannot be written.
        UnreachableError: a store does not answer.
    """
    _writer_class()
    if isinstance(folder, URL):
        writable(folder)
        exists(folder)
        return
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)


def add(run: TrackedRun, place: Place) -> None:
    """Write the folder of a run; an earlier one of that name is replaced, if it was written here too.

    Raises:
        InputError: something else stands there.
        UnreachableError: a store does not answer.
    """
    if exists(place):
        mark = place / MARK
        if not mark.is_file():
            raise InputError(f"{place} is in the way of TensorBoard's files of this run; choose another --tensorboard")
        if json.loads(mark.read_text(encoding="utf-8"))["run"] == run.fingerprint:
            return
    if isinstance(place, Path):
        with writing(place) as temporary:
            _write(run, temporary)
        return
    with tempfile.TemporaryDirectory(prefix="coverslip-") as holder:
        _write(run, Path(holder) / "run")
        for name in listing(place):
            delete(place / name)
        upload_folder(Path(holder) / "run", place, last=[MARK])


def _write(run: TrackedRun, folder: Path) -> None:
    from torch.utils.tensorboard.summary import hparams

    writer_class = _writer_class()
    folder.mkdir()
    for fit in ("", *dict.fromkeys(curve.fit for curve in run.curves if curve.fit)):
        with writer_class(str(folder / fit)) as writer:
            for curve in run.curves:
                if curve.fit == fit:
                    for step, value in zip(curve.steps, curve.values, strict=True):
                        writer.add_scalar(curve.name, value, step)
            if not fit:
                shown = {name: value for name, value in run.numbers.items() if name.count("/") == 1}
                for summary in hparams(dict(run.parameters), shown):  # type: ignore[no-untyped-call]
                    writer.file_writer.add_summary(summary)
                for name, value in run.numbers.items():
                    writer.add_scalar(name, value, 0)
                writer.add_text("config", "\n".join(f"    {line}" for line in run.config.splitlines()))
    write_json(folder / MARK, {"run": run.fingerprint})


def _writer_class() -> Any:
    require("tensorboard", "track")
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter
