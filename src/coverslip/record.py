"""What a run writes down: its folder, tables, environment and model card."""

from __future__ import annotations

import io
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pandas as pd
from torch import nn

from coverslip.bundle import Bundle
from coverslip.config import RunConfig, dump_toml, load_config, read_toml
from coverslip.data.audit import Audit
from coverslip.data.split import split_frame
from coverslip.errors import CoverslipError, RunFolderError
from coverslip.evaluation.frames import predictions_frame
from coverslip.evaluation.label_errors import suspected_label_errors
from coverslip.models.hardware import hardware_name
from coverslip.models.summary import Summary
from coverslip.models.weight_histograms import weights_json
from coverslip.network import Network
from coverslip.runtime import (
    explained,
    git_state,
    hash_file,
    hash_text,
    machine_facts,
    make_folder,
    package_versions,
    sweep,
    write_file,
    write_json,
)
from coverslip.storage import absolute
from coverslip.structures import FloatArray, IntArray, Predictions, RunResult, Split, Table, Task

HISTORY = (
    "fold", "group", "phase", "step", "epoch", "seconds", "learning_rate", "train_loss", "train_macro_f1", "validation_loss",
    "validation_accuracy", "validation_macro_f1", "images_per_second", "kept",
)  # fmt: skip
BEGUN = ("config.toml", "audit.json", "split.csv")
"""What a run writes before it learns."""
_LOG = logging.getLogger("coverslip")


@dataclass
class Stopwatch:
    """Seconds by stage."""

    stages: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Count the block's time for a stage."""
        start = time.perf_counter()
        _LOG.info("%s: begins", stage)
        try:
            yield
        finally:
            self.stages[stage] = time.perf_counter() - start
            _LOG.info("%s: %.1f s", stage, self.stages[stage])

    @property
    def total(self) -> float:
        """Seconds since the watch was made."""
        return time.perf_counter() - self.began


RUN_ENDS = ("metrics.json",)
"""What is sent to a store last: a run that has it is whole."""


@contextmanager
def claimed(path: Path, what: str, signs: Sequence[str], *, resume: bool) -> Iterator[None]:
    """Take a folder for this process alone, and keep a log of what happens in it in `<what>.log`.

    A folder that stays empty but for the log is removed.

    Args:
        path: the folder; made when it does not exist.
        what: what it is to hold, `run` or `study`.
        signs: names of files by which one is known to be there already.
        resume: whether one may be there.

    Raises:
        RunFolderError: another process works there, or it holds one and `resume` was not asked for.
        ResourceError: the folder cannot be written.
    """
    make_folder(path)
    lock = filelock.FileLock(path / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RunFolderError(f"another {what} is at work in {path}; wait for it, or choose another --out") from None
    handler: logging.Handler | None = None
    log = f"{what}.log"
    try:
        if not resume and any((path / name).exists() for name in signs):
            raise RunFolderError(f"{path} holds a {what} already; choose another --out, go on with --resume, or remove the folder")
        if resume:
            sweep(path, deep=what == "run")
        with explained(path):
            handler = logging.FileHandler(path / log, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        _LOG.addHandler(handler)
        _LOG.setLevel(logging.INFO)
        yield
    except BaseException as error:
        _LOG.info("stopped: %s: %s", type(error).__name__, error)
        raise
    finally:
        if handler is not None:
            _LOG.removeHandler(handler)
            handler.close()
        lock.release()
        (path / ".lock").unlink(missing_ok=True)
        if {file.name for file in path.iterdir()} <= {log}:
            shutil.rmtree(path, ignore_errors=True)


KeepBundle = Callable[[dict[str, Any]], bool]
"""Whether a run with these metrics keeps its trained model."""


def always(metrics: dict[str, Any]) -> bool:
    """Every run keeps its trained model."""
    return True


def finished_metrics(folder: Path, keep_bundle: KeepBundle = always) -> dict[str, Any] | None:
    """The content of metrics.json of a run that is finished, its bundle there where it is to be kept; None otherwise."""
    file = folder / "metrics.json"
    if not file.is_file():
        return None
    metrics: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return metrics if (folder / "bundle").is_dir() or not keep_bundle(metrics) else None


@dataclass
class RunFolder:
    """A run folder that this process alone writes to."""

    path: Path
    resume: bool

    @staticmethod
    @contextmanager
    def claim(path: Path, *, resume: bool) -> Iterator[RunFolder]:
        """Take a folder for one run; a log of the run is kept in `run.log`.

        Raises:
            RunFolderError: another run works there, or it holds a run and `resume` was not asked for.
            ResourceError: the folder cannot be written.
        """
        with claimed(path, "run", ("config.toml", "metrics.json", "checkpoints"), resume=resume):
            try:
                yield RunFolder(path, resume)
            except CoverslipError:
                if not resume and not any((path / name).exists() for name in ("checkpoints", "bundle")):
                    _remove(path / name for name in BEGUN)  # there is nothing to go on with: the folder is free for another try
                raise

    def earlier(self, config: RunConfig, keep_bundle: KeepBundle = always) -> tuple[RunConfig, RunResult | None]:
        """The config that this folder's run was started with, and its result when it is finished."""
        stored = self.path / "config.toml"
        if not self.resume or not stored.is_file():
            return config, None
        started = load_config(read_toml(stored))
        given = absolute(config.data.path or ".")
        if started.data.path != given:
            raise RunFolderError(f"{self.path} holds a run on {started.data.path}, not on {given}; choose another --out")
        metrics = finished_metrics(self.path, keep_bundle)
        if metrics is not None:
            return started, RunResult(self.path, metrics, 0.0, ("this run was finished before; nothing was done",))
        return started, None

    def write_config(self, config: RunConfig) -> None:
        """Write config.toml."""
        write_file(self.path / "config.toml", dump_toml(config))

    def write_start(self, config: RunConfig, audit: Audit, table: Table, split: Split) -> None:
        """Write all that is known before learning begins."""
        self.write_config(config)
        write_json(self.path / "audit.json", audit.to_json())
        write_file(self.path / "split.csv", csv_text(split_frame(table, split)))

    # Checkpoints

    def checkpoint(self, name: str) -> Path:
        """The file in which a fit keeps its state."""
        return self.path / "checkpoints" / f"{name}.safetensors"

    def keep_fold(self, name: str, scores: FloatArray, history: list[dict[str, Any]]) -> None:
        """Keep the scores of a finished fold and the rows of its history, for resuming; the scores last, for they say that all is there."""
        buffer, folder = io.BytesIO(), self.path / "checkpoints"
        np.save(buffer, scores, allow_pickle=False)
        write_json(folder / f"{name}.json", history)
        write_file(folder / f"{name}.npy", buffer.getvalue())

    def load_fold(self, name: str) -> tuple[FloatArray, list[dict[str, Any]]] | None:
        """Scores and history of a fold that was finished before."""
        scores, history = (self.path / "checkpoints" / f"{name}.{kind}" for kind in ("npy", "json"))
        if not scores.is_file():
            return None
        return np.load(scores, allow_pickle=False), json.loads(history.read_text(encoding="utf-8"))

    # The end

    def write_results(
        self, history: list[dict[str, Any]], predictions: dict[str, Predictions], metrics: dict[str, Any], summary: Summary
    ) -> None:
        """Write history, predictions, suspected label errors, model summary; metrics.json last, for it says that all is there."""
        write_file(self.path / "history.csv", csv_text(pd.DataFrame(history, columns=list(HISTORY))))
        write_file(self.path / "predictions.csv", csv_text(all_predictions(predictions)))
        suspects = (
            suspected_label_errors(judged) if predictions and (judged := out_of_sample(predictions)).task is not Task.MULTILABEL else []
        )
        columns = ["image", "label", "suggestion", "score"]
        write_file(
            self.path / "label_errors.csv",
            csv_text(pd.DataFrame([{name: getattr(one, name) for name in columns} for one in suspects], columns=columns)),
        )
        write_json(self.path / "summary.json", summary.to_json())
        write_json(self.path / "metrics.json", metrics)

    def write_weights(self, model: nn.Module) -> None:
        """Write weights.json: histograms of the weights that learned."""
        write_json(self.path / "weights.json", weights_json(model))

    def write_environment(self, network: Network, config: RunConfig, pixels: str, **facts: Any) -> None:
        """Write environment.json: versions, hardware, seeds, hashes (`pixels`: of images and reading), the command and other facts."""
        spec = network.classifier.backbone.spec
        environment = {
            "versions": package_versions(),
            "machine": machine_facts(),
            "device": hardware_name(network.device),
            "git": git_state(Path.cwd()),
            "seeds": {"split": config.split.seed, "training": config.training.seed},
            "weights": {"source": spec.source, "sha256": spec.sha256},
            "data": {"pixels_sha256": pixels, "split_sha256": hash_file(self.path / "split.csv")},
            "config_sha256": hash_text(dump_toml(config)),
        }
        write_json(self.path / "environment.json", environment | facts)

    def write_judgement(
        self, predictions: Predictions, metrics: dict[str, Any], model: Bundle, watch: Stopwatch, *, bad: dict[str, str], **facts: Any
    ) -> None:
        """Write the files of an evaluation: predictions, environment, timing, and metrics.json last."""
        write_file(self.path / "predictions.csv", csv_text(all_predictions({"test": predictions})))
        spec = model.network.classifier.backbone.spec
        environment = {
            "versions": package_versions(), "machine": machine_facts(), "device": hardware_name(model.network.device),
            "precision": model.network.precision, "weights": {"source": spec.source, "sha256": spec.sha256}, "provenance": model.provenance,
            "bad": bad,
        }  # fmt: skip
        write_json(self.path / "environment.json", environment | facts)
        self.write_timing(watch, 0.0, len(predictions))
        write_json(self.path / "metrics.json", metrics)

    def write_timing(self, watch: Stopwatch, training_speed: float, scored: int, **more: Any) -> None:
        """Write timing.json: seconds by stage, images per second, and what else was measured.

        `scored` is the number of images that the network scored while judging; 0 where it did not look at them then.
        """
        judged = watch.stages.get("judge", 0.0)
        timing = {
            "stages": watch.stages,
            "total_seconds": watch.total,
            "training_images_per_second": training_speed or None,
            "prediction_images_per_second": scored / judged if judged and scored else None,
        }
        write_json(self.path / "timing.json", timing | more)

    def clean(self) -> None:
        """Remove the checkpoints of a finished run."""
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def csv_text(frame: pd.DataFrame) -> str:
    """A table as CSV text with `\\n` line ends."""
    return frame.to_csv(index=False, lineterminator="\n")


def all_predictions(predictions: dict[str, Predictions]) -> pd.DataFrame:
    """The content of predictions.csv: rows of each part; out-of-fold rows with their repeat and fold."""
    frames = []
    for name, found in predictions.items():
        if name.startswith("fold-"):
            _, repeat, fold = name.split("-")
            frames.append(predictions_frame(found, part="fold", fold=fold, repeat=repeat))
        else:
            frames.append(predictions_frame(found, part=name, fold="", repeat=""))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame({"image": []})


def out_of_sample(predictions: dict[str, Predictions]) -> Predictions:
    """Each image once, with scores of models that did not learn from it: out-of-fold means where there are folds.

    Where it was scored several times the decision is that of most of them; where as many say the one as the other, the scores decide.
    """
    names: dict[str, list[tuple[Predictions, int]]] = {}
    for found in predictions.values():
        for row, image in enumerate(found.images):
            names.setdefault(image, []).append((found, row))
    some = next(iter(predictions.values()))
    scores = np.array([np.mean([found.scores[row] for found, row in places], axis=0) for places in names.values()])
    first = [places[0] for places in names.values()]
    targets = np.array([found.targets[row] for found, row in first if found.targets is not None])
    votes = np.array([np.mean([_as_columns(found)[row] for found, row in places], axis=0) for places in names.values()])
    nearly = votes + 1e-3 * (scores - 0.5)
    predicted = (nearly > 0.5).astype(np.int64) if some.task is Task.MULTILABEL else nearly.argmax(axis=1)
    return Predictions(tuple(names), scores, predicted, some.classes, some.task, targets)


def _as_columns(predictions: Predictions) -> IntArray:
    """Decisions as int64 (n, classes) of 0 and 1."""
    if predictions.predicted.ndim == 2:
        return predictions.predicted
    return np.asarray(predictions.predicted[:, None] == np.arange(len(predictions.classes)), dtype=np.int64)
