"""Runs for MLflow: an experiment a study, one MLflow run a run, all through the client, so that no global state is touched."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from coverslip.errors import UnreachableError
from coverslip.runtime import environment_variables, explained, open_connection, require
from coverslip.study.tracking import TrackedRun

QUICK = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""How MLflow is asked whether it is there; it would try for minutes."""
TAG = "coverslip.run"
"""The tag of a run with its fingerprint."""
MOST_METRICS, MOST_PARAMETERS, LONGEST = 1000, 100, 6000
"""What MLflow takes in one request, and the length of a parameter."""
SQLITE = "sqlite:///"
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
"""URIs of databases that MLflow uses without a server."""


def check(uri: str) -> None:
    """Whether MLflow is installed and answers, within seconds. A database is made where there is none.

    Raises:
        MissingExtraError: it is not installed.
        UnreachableError: nothing answers, or MLflow cannot use the address.
    """
    mlflow = _mlflow()
    with _explained(mlflow, uri):
        if urlsplit(uri).scheme.partition("+")[0] in DATABASES:
            _check_database(uri)
        with environment_variables(QUICK):
            mlflow.MlflowClient(tracking_uri=uri).search_experiments(max_results=1)


def _check_database(uri: str) -> None:
    """Connect once: MLflow tries for minutes where a database refuses."""
    address, file = urlsplit(uri), sqlite_file(uri)
    if file is not None:
        with explained(file):
            file.parent.mkdir(parents=True, exist_ok=True)
    elif address.hostname and address.port:
        open_connection(address.hostname, address.port, "the database of --mlflow").close()
    engine = require("sqlalchemy", "track").create_engine(uri)
    engine.connect().close()
    engine.dispose()


def add(run: TrackedRun, uri: str, experiment: str) -> None:
    """Log a run with all its curves; one that is there already stays as it is, a half-logged one is replaced.

    Raises:
        UnreachableError: MLflow does not answer, or refuses.
    """
    mlflow = _mlflow()
    with _explained(mlflow, uri):
        client = mlflow.MlflowClient(tracking_uri=uri)
        number = _experiment(client, uri, experiment)
        for earlier in client.search_runs([number], f"tags.`{TAG}` = '{run.fingerprint}'"):
            if earlier.info.status == "FINISHED":
                return
            client.delete_run(earlier.info.run_id)
        ended = round(1000 * run.ended)
        begun = client.create_run(number, start_time=ended - round(1000 * run.seconds), tags={TAG: run.fingerprint}, run_name=run.name)
        _log(client, mlflow.entities, begun.info.run_id, run, ended)
        client.set_terminated(begun.info.run_id, "FINISHED", end_time=ended)


def _experiment(client: Any, uri: str, name: str) -> str:
    """The number of an experiment, which is made where there is none; files beside an SQLite database lie beside it."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    file = sqlite_file(uri)
    place = (file.parent / "mlartifacts" / name).as_uri() if file else None
    return str(client.create_experiment(name, artifact_location=place))


def _log(client: Any, entities: ModuleType, number: str, run: TrackedRun, ended: int) -> None:
    metrics = [entities.Metric(name, value, ended, 0) for name, value in run.numbers.items()]
    for curve in run.curves:
        name = f"{curve.fit}/{curve.name}" if curve.fit else curve.name
        metrics += [entities.Metric(name, value, ended, step) for step, value in zip(curve.steps, curve.values, strict=True)]
    known = [entities.Param(name, str(value)[:LONGEST]) for name, value in run.parameters.items()]
    for metrics_of_one in _slices(metrics, MOST_METRICS):
        client.log_batch(number, metrics=metrics_of_one)
    for parameters_of_one in _slices(known, MOST_PARAMETERS):
        client.log_batch(number, params=parameters_of_one)
    for file in run.files:
        client.log_artifact(number, str(file))


def _slices(values: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def sqlite_file(uri: str) -> Path | None:
    """The absolute path of an SQLite database; None for another URI."""
    return Path(uri.removeprefix(SQLITE)).absolute() if uri.startswith(SQLITE) else None


def _mlflow() -> ModuleType:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing about a run is sent anywhere but to the URI
    mlflow = require("mlflow", "track")
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return mlflow


@contextmanager
def _explained(mlflow: ModuleType, uri: str) -> Iterator[None]:
    try:
        yield
    except (mlflow.exceptions.MlflowException, require("sqlalchemy", "track").exc.SQLAlchemyError, ModuleNotFoundError) as error:
        raise UnreachableError(
            f"MLflow cannot be told of runs at {uri}: {_reason(error)}; give the address of a server (http://localhost:5000), "
            "or sqlite:///FILE"
        ) from error


def _reason(error: BaseException) -> str:
    """What an error says in its first line; of a failed request only why nothing came back."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if "Max retries exceeded" not in said:
        return said
    cause = re.search(r"\[Errno -?\d+\] [^\"')]+|timed out", said)
    return f"it does not answer ({cause.group()})" if cause else "it does not answer"
