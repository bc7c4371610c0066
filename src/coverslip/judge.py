"""Judge a bundle on a labelled set that it has not seen: numbers with intervals, predictions, pictures for a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coverslip.bundle import DIGEST, Bundle
from coverslip.config import load_config, parse_overrides
from coverslip.errors import ConfigError
from coverslip.evaluation.evaluate import evaluate
from coverslip.evaluation.uncertainty import uncertainty_numbers
from coverslip.pictures import save_judged_pictures
from coverslip.predict import Model
from coverslip.record import RUN_ENDS, RunFolder, Stopwatch
from coverslip.runtime import Progress, no_progress
from coverslip.storage import absolute, output
from coverslip.structures import RunResult, Table, Task


def evaluate_bundle(
    bundle: str | Path, data: str | Path, out: str | Path | None = None, *, settings: Sequence[str] = (), progress: Progress = no_progress
) -> RunResult:
    """Score a labelled set and write metrics.json, predictions.csv, environment.json, pictures.

    Args:
        bundle: a bundle or run folder.
        data: folder of class folders or a table; its classes must be among the bundle's. Merges of the training run apply.
        out: folder for the results, or its URL, to which they are sent; `evaluations/<data>` when not given.
        settings: `data.*`, `split.group` and `intervals.*` overrides.
        progress: told about each batch.

    Raises:
        InputError: a class that the bundle does not know.
        RunFolderError: the folder holds results already.
    """
    layer = parse_overrides(settings)
    unknown = set(layer) - {"data", "split", "intervals"}
    if unknown:
        raise ConfigError(f"evaluate takes data.*, split.group and intervals.* keys, not {', '.join(sorted(unknown))}")
    intervals = load_config(layer).intervals
    model = Model(bundle)
    model = Model(bundle)
    with (
        output(out if out is not None else Path("evaluations") / Path(absolute(data)).stem, last=RUN_ENDS) as folder,
        RunFolder.claim(folder, resume=False) as place,
    ):
        watch = Stopwatch()
        with watch("judge"):
            predictions, table, problems, digests = model.judge(data, progress, layer)
        decision = model.bundle.decision
        numbers: dict[str, Any] = {"task": str(model.bundle.task), "classes": list(model.classes), "level": intervals.level}
        if model.bundle.task == Task.BINARY:
            numbers |= {"positive": model.classes[1], "threshold": decision.threshold}
        numbers["test"] = evaluate(predictions, level=intervals.level, resamples=intervals.resamples, seed=0, threshold=decision.reported)
        if worth := uncertainty_numbers(predictions, decision.conformal, decision.reported, intervals.level):
            numbers["uncertainty"] = {"test": worth}
        notes = [*table.notes, *([f"{len(problems)} images could not be read: {', '.join(list(problems)[:5])}"] if problems else [])]
        notes += known_images(model.bundle, table, digests)
        with watch("pictures"):
            save_judged_pictures(place.path / "pictures", table, predictions, model.bundle)
        place.write_judgement(predictions, numbers, model.bundle, watch, bundle=str(bundle), data=str(data), notes=notes, bad=problems)
        return RunResult(place.path, numbers, watch.total, tuple(notes))


def known_images(bundle: Bundle, table: Table, digests: Sequence[str]) -> list[str]:
    """A warning when images of the table are among those that the model learned from: such numbers are not honest.

    Args:
        bundle: the model.
        table: n samples.
        digests: n SHA-256 of their files.
    """
    learned = set(bundle.trained_on)
    known = [image for image, digest in zip(table.images, digests, strict=True) if digest[:DIGEST] in learned]
    if not known:
        return []
    return [
        f"WARNING: {len(known)} of {len(table)} images are among those that the model learned from ({', '.join(known[:3])}"
        f"{', ...' if len(known) > 3 else ''}): the numbers flatter it"
    ]
