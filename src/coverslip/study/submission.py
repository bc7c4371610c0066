"""Commands as jobs of a Ray cluster, through its REST interface: nothing of Ray is needed where a job is sent from.

https://docs.ray.io/en/latest/cluster/running-applications/job-submission/rest.html
"""

from __future__ import annotations

import json
import os
import shlex
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from coverslip.errors import ConfigError, InputError, UnreachableError, did_you_mean
from coverslip.runtime import WAITING
from coverslip.study.ray_engine import PASSED_ON

SECONDS_TO_ANSWER = 30.0
BETWEEN_LOOKS = 1.0
TRIES = 5
"""Times that a question is put to a cluster that is silent for a moment."""
COMMANDS = ("train", "compare", "search", "velocity", "evaluate", "predict", "audit", "report")
TOKEN_ADVICE = "set RAY_AUTH_TOKEN, or RAY_AUTH_MODE=token where the token lies in ~/.ray/auth_token"
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class Order:
    """A command that is to become a job.

    Attributes:
        arguments: those of `coverslip`.
        processes: that train one model; torchrun starts them on one machine of the cluster.
        cpus, gpus: what the job needs for itself; what it asks of an engine with `--engine ray` comes on top.
        folder: where it runs, on the cluster; it gives relative paths their meaning.
        python: the Python of the cluster.
    """

    arguments: tuple[str, ...]
    processes: int = 1
    cpus: float | None = None
    gpus: float | None = None
    folder: Path | None = None
    python: str = "python"

    @property
    def entrypoint(self) -> str:
        """The line that the cluster's shell runs.

        >>> Order(("train", "my gels"), processes=2, folder=Path("/data")).entrypoint
        "cd /data && exec python -m torch.distributed.run --standalone --nproc-per-node 2 -m coverslip train 'my gels'"
        """
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(self.processes)] if self.processes > 1 else []
        line = f"exec {shlex.join([self.python, *torchrun, '-m', 'coverslip', *self.arguments])}"
        return f"cd {shlex.quote(str(self.folder))} && {line}" if self.folder else line

    def check(self) -> None:
        """Refuse what can be no job.

        Raises:
            InputError: no command, an unknown one, or several processes of another command than `train`.
        """
        name = self.arguments[0] if self.arguments else ""
        if name not in COMMANDS:
            said = f"{name!r} is no command that can be a job" if name else "there is no command to submit"
            raise InputError(f"{said}; expected one of {', '.join(COMMANDS)}.{did_you_mean(name, COMMANDS)}")
        if self.processes > 1 and name != "train":
            raise InputError(f"--processes {self.processes}: several processes train one model; {name} uses a cluster with --engine ray")


class JobServer:
    """The job server of a Ray cluster.

    Args:
        address: `http://HOST:8265`, that of the cluster's dashboard.

    Raises:
        ConfigError: this is no such address.
        UnreachableError: no job server answers there.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{address!r} is no address of a Ray job server; expected http://HOST:8265, that of the dashboard")
        self.address = address.rstrip("/")
        if "ray_version" not in self._ask("GET", "/api/version"):
            raise UnreachableError(f"something answers at {address}, but it is not the job server of a Ray cluster")

    def submit(self, order: Order) -> str:
        """Hand in a job; its number.

        Raises:
            InputError: what is ordered can be no job.
            UnreachableError: the server does not take it.
        """
        order.check()
        variables = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        wanted = {
            "entrypoint": order.entrypoint,
            "entrypoint_num_cpus": order.cpus,
            "entrypoint_num_gpus": order.gpus,
            "runtime_env": {"env_vars": {**WAITING, **variables}},
            "metadata": {"name": f"coverslip {order.arguments[0]}"},
        }
        answer = self._ask("POST", "/api/jobs/", {key: value for key, value in wanted.items() if value is not None}, tries=1)
        return str(answer["submission_id"])

    def status(self, job: str) -> tuple[str, str]:
        """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED, and what the cluster says to it."""
        answer = self._ask("GET", f"/api/jobs/{job}")
        return str(answer["status"]), str(answer.get("message") or "")

    def logs(self, job: str) -> str:
        """What the job has printed so far."""
        return str(self._ask("GET", f"/api/jobs/{job}/logs")["logs"])

    def stop(self, job: str) -> None:
        """End a job; a run or study in it goes on with --resume in another one."""
        self._ask("POST", f"/api/jobs/{job}/stop")

    def follow(self, job: str) -> Iterator[str]:
        """What the job prints, piece by piece, until it has ended."""
        told = 0
        while True:
            status, _ = self.status(job)
            printed = self.logs(job)
            if len(printed) > told:
                yield printed[told:]
                told = len(printed)
            if status in ENDED:
                return
            time.sleep(BETWEEN_LOOKS)

    def _ask(self, verb: str, path: str, body: dict[str, Any] | None = None, tries: int = TRIES) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        token = cluster_token(self.address)
        if token:
            headers["Authorization"] = f"Bearer {token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data=data, headers=headers, method=verb)
        silence: OSError | None = None
        for _ in range(tries):
            if silence is not None:
                time.sleep(BETWEEN_LOOKS)
            try:
                with urllib.request.urlopen(request, timeout=SECONDS_TO_ANSWER) as answer:
                    return _as_json(answer.read(), self.address)
            except urllib.error.HTTPError as error:
                said = error.read().decode(errors="replace").strip().splitlines()
                advice = f"; {TOKEN_ADVICE}" if error.code in (401, 403) else ""
                raise UnreachableError(
                    f"the Ray job server at {self.address} answers {error.code} to {path}: {said[-1] if said else ''}{advice}"
                ) from error
            except OSError as error:
                silence = error
        raise UnreachableError(f"no Ray job server answers at {self.address} ({silence}); check the address") from silence


def cluster_token(address: str) -> str:
    """The token that a cluster asks for, where Ray's own tools would look: `RAY_AUTH_TOKEN`, `RAY_AUTH_TOKEN_PATH`, `~/.ray/auth_token`.

    The last is that of this machine, and goes to other machines only where `RAY_AUTH_MODE` is `token`. Empty where there is none.
    """
    if os.environ.get("RAY_AUTH_TOKEN"):
        return os.environ["RAY_AUTH_TOKEN"]
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    here = urlsplit(address).hostname in ("localhost", "127.0.0.1", "::1")
    if not (named or here or os.environ.get("RAY_AUTH_MODE") == "token"):
        return ""
    file = Path(named) if named else Path.home() / ".ray" / "auth_token"
    return file.read_text(encoding="utf-8").strip() if file.is_file() else ""


def _as_json(data: bytes, address: str) -> dict[str, Any]:
    try:
        value = json.loads(data or b"{}")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UnreachableError(f"something answers at {address}, but it is not the job server of a Ray cluster")
    return value
