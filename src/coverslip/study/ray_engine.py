"""Tasks on a Ray cluster: an existing one by its address, or one of this machine that lives as long as the study.

Folders of data, cache and study are reached by all workers under the same paths: one machine, or a shared file system.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from coverslip.errors import ConfigError, UnreachableError
from coverslip.runtime import cpu_count, environment_variables, open_connection, package_versions, require
from coverslip.study.crew import Lost, feed
from coverslip.study.engines import Done, attempt, thread_variables

T = TypeVar("T")
R = TypeVar("R")

STORE = 128 * 1024**2
"""Bytes of shared memory that a local cluster sets aside; tasks and results are small, images travel by file."""
AS_HERE = {"RAY_worker_niceness": "0"}
"""Ray would give its workers what other programs leave over; they are all that works for a study."""
PASSED_ON = ("COVERSLIP_WEIGHTS", "COVERSLIP_CACHE", "COVERSLIP_ENDPOINT")
"""Variables of this process that the workers of an existing cluster are given; Ray itself gives a task as many threads as cores."""
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
"""What a client of HTTP/2 says first, with empty settings (RFC 9113, sections 3.4 and 6.5)."""
LOSSES = ("WorkerCrashedError", "OutOfMemoryError", "NodeDiedError", "LocalRayletDiedError", "ObjectLostError")
"""Ray's errors that mean a worker or its machine was lost, and not that the work failed."""
SETTINGS = 4
"""The kind of frame with which a server of HTTP/2 begins its answer."""


class RayEngine:
    """Does a task on each worker of a Ray cluster: one a GPU where it has GPUs, one a core otherwise.

    Args:
        address: `host:port` of a cluster that this machine is part of, `auto` for the one that runs here, or `ray://host:port`;
            a cluster of this machine is started when None, and ends with `close`, or with this process.
        workers: number of workers of a cluster that is started here.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError: this is no address.
        UnreachableError: no Ray cluster answers there, its workers have no coverslip of this version, or do not see this folder.
    """

    def __init__(self, address: str | None = None, *, workers: int | None = None) -> None:
        if address is not None:
            check_address(address)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing about a study is sent anywhere
        self._ray = require("ray", "ray")
        logging.getLogger("ray").setLevel(logging.ERROR)
        self._session: Path | None = None
        if address is None:
            self._start(workers or cpu_count())
        else:
            self._connect(address)
        resources = self._ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        self.workers = gpus or int(resources.get("CPU", 0))
        """How many tasks are done at a time."""
        self.machines = sum(bool(node["Alive"]) for node in self._ray.nodes())
        """On how many machines."""
        options = {"num_cpus": 1, "num_gpus": 1 if gpus else 0, "max_retries": 0, "max_calls": 0}
        self._attempt = self._ray.remote(**options)(_attempt_there)
        if address is not None:
            self._greet(address)

    def each(self, work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[Done[T, R]]:
        """Do each task, several at a time, in the order in which they end."""
        return feed(self, work, tasks)

    def close(self) -> None:
        """Leave the cluster; end one that was started here, and remove its logs."""
        self._ray.shutdown()
        if self._session is not None:
            shutil.rmtree(self._session, ignore_errors=True)

    # A crew, whose handles are Ray's references to results

    def begin(self, work: Callable[[Any], Any], task: Any) -> Any:
        """Queue a task."""
        return self._attempt.remote(str(Path.cwd()), work, task)

    def wait(self, handles: Sequence[Any]) -> Any:
        """Wait until one of the results is there."""
        ready, _ = self._ray.wait(list(handles), num_returns=1)
        return ready[0]

    def outcome(self, handle: Any) -> Done[Any, Any] | Lost:
        """The result of a task, or how its worker was lost."""
        errors = self._ray.exceptions
        try:
            result, error = self._ray.get(handle)
        except tuple(getattr(errors, name) for name in LOSSES) as lost:
            return Lost(str(lost).splitlines()[0])
        except errors.RayError as failed:  # no failure of the work, which `attempt` meets: it could not be brought there and back
            return Done(None, None, _last_line(failed))
        return Done(None, result, error)

    def drop(self, handle: Any) -> None:
        """Stop a task in the middle."""
        self._ray.cancel(handle, force=True)

    # The cluster

    def _start(self, cores: int) -> None:
        with environment_variables({**thread_variables(cores), **AS_HERE}):  # its workers are children of what starts here
            context = self._initialise("here", address="local", num_cpus=cores, include_dashboard=False, object_store_memory=STORE)
        self._session = Path(context.address_info["session_dir"])

    def _connect(self, address: str) -> None:
        variables = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        self._initialise(f"at {address}", address=address, runtime_env={"env_vars": variables})

    def _initialise(self, where: str, **options: Any) -> Any:
        try:
            return self._ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except (ConnectionError, RuntimeError, ValueError, self._ray.exceptions.RayError) as error:
            token = "" if "RAY_AUTH_MODE" in os.environ else "; where a cluster asks for a token, set RAY_AUTH_MODE=token"
            raise UnreachableError(f"no work can be given to a Ray cluster {where}: {_last_line(error)}{token}") from error

    def _greet(self, address: str) -> None:
        """Ask one worker whether it can work for this study at all."""
        problem = "it has no core to give"
        if self.workers:
            outcome = self.outcome(self.begin(_version_there, None))
            problem = outcome.reason if isinstance(outcome, Lost) else outcome.error
            here = _version_there(None)
            if isinstance(outcome, Done) and outcome.result not in (None, here):
                problem = f"coverslip is {outcome.result} there and {here} here; install the same version"
        if problem:
            self.close()
            raise UnreachableError(f"the Ray cluster at {address} cannot work for this study: {problem}")


def check_address(address: str) -> None:
    """Ask whether a server like Ray's answers at an address, within seconds: Ray itself would wait for minutes.

    Raises:
        ConfigError: this is no address.
        UnreachableError: nothing answers there, or something else.
    """
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ConfigError(f"{address!r} is no address of a Ray cluster; expected host:port, ray://host:port, or auto")
    what = "a Ray cluster"
    with open_connection(host.strip("[]"), int(port), what) as connection:
        if os.environ.get("RAY_USE_TLS", "0") == "1":
            return
        try:
            connection.sendall(HELLO)
            answer = connection.recv(9)
        except OSError:
            answer = b""
    if len(answer) < 4 or answer[3] != SETTINGS:
        raise UnreachableError(f"something answers at {host}:{port}, but it is not {what}; check the port (`ray start` says which it is)")


def _attempt_there(folder: str, work: Callable[[Any], Any], task: Any) -> tuple[Any, str]:
    """On a worker: do a task in the folder of the process that wants it done, so that relative paths mean the same."""
    try:
        os.chdir(folder)
    except OSError as error:
        return None, f"a worker cannot see the folder {folder} ({error.strerror}); all machines of a cluster have to share it"
    done = attempt(work, task)
    return done.result, done.error


def _version_there(_: None) -> str:
    return package_versions().get("coverslip", "of unknown version")


def _last_line(error: BaseException) -> str:
    """The line of an error that says it; Ray sends whole traces."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
