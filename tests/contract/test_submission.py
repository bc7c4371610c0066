"""Commands as jobs: what can be one, and a real job server of a local Ray cluster."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coverslip.cli import app
from coverslip.errors import ConfigError, InputError, UnreachableError
from coverslip.simulate import simulate
from coverslip.study import submission
from coverslip.study.submission import JobServer, Order, cluster_token

PATIENCE = 300.0
"""Seconds after which something counts as not happening, on a machine that is busy with other things."""
CLUSTER = """
import ray, sys
context = ray.init(address="local", num_cpus=2, include_dashboard=True, dashboard_port=0, log_to_driver=False, object_store_memory=2**27)
print(context.dashboard_url, flush=True)
sys.stdin.read()
"""
"""A cluster that lives until its standard input is closed."""


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (Order(()), "there is no command to submit"),
        (Order(("trian", "gel")), "Did you mean 'train'"),
        (Order(("serve", "run")), "'serve' is no command that can be a job"),
        (Order(("compare", "gel"), processes=2), "compare uses a cluster with --engine ray"),
    ],
)
def test_what_can_be_no_job_is_refused(order: Order, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        order.check()


@pytest.mark.parametrize("address", ["127.0.0.1:8265", "ray://127.0.0.1:10001", "http://"])
def test_an_address_must_be_that_of_a_job_server(address: str) -> None:
    with pytest.raises(ConfigError, match="no address of a Ray job server"):
        JobServer(address)


def test_silence_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "BETWEEN_LOOKS", 0.01)
    with pytest.raises(UnreachableError, match=r"no Ray job server answers at http://127\.0\.0\.1:9"):
        JobServer("http://127.0.0.1:9")


def test_a_token_goes_where_it_belongs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cluster_token("http://127.0.0.1:8265") == ""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("own\n")
    assert cluster_token("http://127.0.0.1:8265") == "own"
    assert cluster_token("http://elsewhere:8265") == ""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert cluster_token("http://elsewhere:8265") == "own"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "stated")
    assert cluster_token("http://elsewhere:8265") == "stated"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The job server of a Ray cluster of this machine."""
    pytest.importorskip("aiohttp_cors", reason="needs ray[default]")
    log = (tmp_path_factory.mktemp("cluster") / "log").open("w")
    with subprocess.Popen([sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as cluster:
        assert cluster.stdin is not None
        assert cluster.stdout is not None
        yield f"http://{cluster.stdout.readline().strip()}"
        cluster.stdin.close()
        cluster.wait(60)
    log.close()


@pytest.mark.slow
def test_a_training_is_a_job_of_a_cluster(address: str, tmp_path: Path) -> None:
    gels = simulate("gels", tmp_path / "gels", images=24, seed=3)
    settings = [
        "model.backbone=small_30k", "model.weights=none", "training.regime=scratch", "training.epochs=1", "pixels.height=32",
        "pixels.width=32", "training.batch_size=8", "intervals.resamples=100", "training.device=cpu",
    ]  # fmt: skip
    keys = [word for setting in settings for word in ("-s", setting)]
    begin = ["submit", "--address", address, "--cpus", "1", "--python", sys.executable, "--folder", str(tmp_path), "--processes", "2", "--"]
    done = CliRunner().invoke(app, [*begin, "train", gels.name, "--recipe", "quick", *keys, "--out", "run"])
    assert done.exit_code == 0, done.output
    assert "report: run/report.html" in done.output
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]["n"] > 0
    wrong = CliRunner().invoke(app, [*begin[:-3], "--", "audit", "nothing"])
    assert wrong.exit_code == 1
    assert "nothing" in wrong.output
    server = JobServer(address)
    endless = ("train", gels.name, "--recipe", "quick", *keys, "-s", "training.epochs=100000", "--out", "endless")
    job = server.submit(Order(endless, cpus=1, folder=tmp_path, python=sys.executable))
    deadline = time.monotonic() + PATIENCE
    while not (tmp_path / "endless" / "run.log").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    server.stop(job)
    list(server.follow(job))
    assert server.status(job)[0] == "STOPPED"
    assert (tmp_path / "endless" / "run.log").exists()
