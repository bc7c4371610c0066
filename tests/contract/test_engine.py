"""One contract for every engine: the same tasks, the same results, whoever does them and whatever happens on the way."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from contract.engine_work import Marked, MarkedJob, die, halve, perform_marked, predict_marked, survive, whoami
from coverslip.config import RunConfig, with_values
from coverslip.errors import ConfigError
from coverslip.experiment import run
from coverslip.mass_prediction import predict_in_parts, predict_part
from coverslip.study.crew import TRIES
from coverslip.study.engines import Engine, LocalEngine, refuse_far_output, thread_variables
from coverslip.study.jobs import Job
from coverslip.study.process_engine import ProcessEngine
from unit.study.make_config import tiny_config

ENGINES = ("local", "processes", "ray")
PATIENCE = 300.0
"""Seconds after which something counts as not happening, on a machine that is busy with other things."""


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, Engine]]:
    """Every engine; those of several workers have two."""
    pytest.importorskip("ray")
    from coverslip.study.ray_engine import RayEngine

    shares = [{**thread_variables(2, cores=2), "OWN": name} for name in ("first", "second")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
        found: dict[str, Engine] = {"local": LocalEngine(), "processes": ProcessEngine(shares), "ray": RayEngine(workers=2)}
        assert sorted(found) == sorted(ENGINES)
        yield found
        for engine in found.values():
            engine.close()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, engines: dict[str, Engine]) -> Engine:
    return engines[request.param]


@pytest.fixture(params=ENGINES[1:])
def crew(request: pytest.FixtureRequest, engines: dict[str, Engine]) -> Engine:
    """The engines that work in other processes."""
    return engines[request.param]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return tiny_config(tmp_path_factory.mktemp("data"))


def kill_when(path: Path, task: Marked) -> threading.Thread:
    """Kill the process of a task as soon as a file is there, once."""

    def watch() -> None:
        deadline = time.monotonic() + PATIENCE
        while not path.exists():
            time.sleep(0.005)
            if time.monotonic() > deadline:
                return
        os.kill(task.pids()[0], signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


class TestEngine:
    """What each engine keeps."""

    def test_each_task_comes_back_once_with_its_result_or_its_error(self, engine: Engine) -> None:
        done = {one.task: (one.result, one.error) for one in engine.each(halve, [2, 3, 0, 6])}
        assert done == {
            2: (3, ""), 3: (None, "3 is odd"), 0: (None, "ZeroDivisionError: integer division or modulo by zero"), 6: (1, ""),
        }  # fmt: skip

    def test_a_url_is_refused_where_there_are_several_machines(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        refuse_far_output(engine, "s3://bucket/study")
        monkeypatch.setattr(engine, "machines", 3)
        refuse_far_output(engine, "studies/gel")
        refuse_far_output(engine, None)
        with pytest.raises(ConfigError, match="the workers are on 3 machines"):
            refuse_far_output(engine, "s3://bucket/study")

    def test_no_task_is_no_work(self, engine: Engine) -> None:
        assert list(engine.each(halve, [])) == []

    def test_tasks_are_taken_as_workers_become_free(self, engine: Engine) -> None:
        taken = []

        def tasks() -> Iterator[int]:
            for number in (2, 4, 6, 8, 10, 12):
                taken.append(number)
                yield number

        seen = 0
        for _ in engine.each(halve, tasks()):
            seen += 1
            assert len(taken) <= seen + engine.workers - 1
        assert seen == 6

    def test_a_closed_iterator_takes_no_more_and_the_engine_works_on(self, engine: Engine) -> None:
        taken = iter((2, 4, 6, 8))
        running = engine.each(halve, taken)
        next(running)
        running.close()
        assert len(list(taken)) == 4 - engine.workers
        assert [one.result for one in engine.each(halve, [6])] == [1]

    def test_relative_paths_mean_the_same(self, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        here = Path.cwd()
        (one,) = engine.each(whoami, [0])
        assert one.result is not None
        assert one.result[2] == str(here)


class TestLostWorkers:
    """What the engines keep that work in other processes."""

    def test_two_work_at_a_time_and_share_the_cores(self, crew: Engine) -> None:
        assert crew.workers == 2
        done = [one.result for one in crew.each(whoami, range(6)) if one.result is not None]
        assert len(done) == 6
        assert len({pid for pid, _, _ in done}) == 2
        assert {threads for _, threads, _ in done} == {"1"}
        assert os.getpid() not in {pid for pid, _, _ in done}

    def test_a_killed_worker_costs_the_time_of_its_task_only(self, crew: Engine, tmp_path: Path) -> None:
        tasks = [Marked(name, tmp_path, waits=name == "b") for name in "abcde"]
        killer = kill_when(tmp_path / "b-1.pid", tasks[1])
        done = {one.task.name: (one.result, one.error) for one in crew.each(survive, tasks)}
        killer.join()
        assert done == {name: (name.upper(), "") for name in "abcde"}
        assert [len(task.pids()) for task in tasks] == [1, 2, 1, 1, 1]

    def test_a_task_that_kills_its_workers_is_given_up(self, crew: Engine, tmp_path: Path) -> None:
        (one,) = crew.each(die, [Marked("a", tmp_path)])
        assert one.result is None
        assert f"its worker was lost {TRIES} times in a row" in one.error
        assert len(tasks := Marked("a", tmp_path).pids()) == TRIES == len(set(tasks))

    def test_what_is_under_way_ends_with_the_iterator(self, crew: Engine, tmp_path: Path) -> None:
        short, long = Marked("a", tmp_path, after="b"), Marked("b", tmp_path, waits=True)
        running = crew.each(survive, [long, short])
        assert next(running).task == short
        running.close()
        (pid,) = long.pids()
        deadline = time.monotonic() + PATIENCE
        while psutil.pid_exists(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not psutil.pid_exists(pid)


def test_runs_are_the_same_here_and_on_a_cluster_that_loses_a_worker(engines: dict[str, Engine], config: RunConfig, tmp_path: Path) -> None:
    configs = {
        "folds": with_values(config, split={"folds": 2}, training={"epochs": 20}),
        "other": with_values(config, training={"optimizer": "sgd"}),
    }
    results, files = {}, {}
    for name in ("local", "ray"):
        folder = tmp_path / name
        folder.mkdir()
        tasks = [MarkedJob(Job(one, own, folder / one), Marked(one, folder)) for one, own in configs.items()]
        killer = kill_when(folder / "folds" / "checkpoints" / "fold-0-0.npy", tasks[0].mark) if name == "ray" else None
        done = list(engines[name].each(perform_marked, tasks))
        if killer:
            killer.join()
        assert [one.error for one in done] == ["", ""]
        results[name] = {one.result.name: one.result.metrics for one in done if one.result}
        files[name] = {one: sorted(str(file.relative_to(folder)) for file in (folder / one).rglob("*")) for one in configs}
        assert [len(task.mark.pids()) for task in tasks] == ([2, 1] if name == "ray" else [1, 1])
    assert results["local"] == results["ray"]
    assert sorted(results["ray"]) == ["folds", "other"]
    assert files["local"] == files["ray"]
    assert len(files["ray"]["folds"]) > 10
    assert (tmp_path / "ray" / "folds" / "run.log").read_text().count("train: begins") == 2


@dataclass(frozen=True)
class Marking:
    """An engine whose parts of a prediction leave the number of their process."""

    engine: Engine

    @property
    def workers(self) -> int:
        return self.engine.workers

    def each(self, work: Any, tasks: Any) -> Iterator[Any]:
        assert work is predict_part
        return self.engine.each(predict_marked, tasks)

    def close(self) -> None:
        self.engine.close()


def test_parts_of_a_prediction_are_the_same_here_and_on_a_cluster_that_loses_a_worker(
    engines: dict[str, Engine], config: RunConfig, tmp_path: Path
) -> None:
    assert config.data.path is not None
    run(config, tmp_path / "run", pictures=False)
    found = {}
    for name in ("local", "ray"):
        folder = tmp_path / name
        folder.mkdir()
        if name == "local":
            (folder / "part-000001-1.pid").write_text("0")  # a second try, which does not wait
        task = Marked("part-000001", folder)
        killer = kill_when(folder / "part-000001-1.pid", task) if name == "ray" else None
        made = predict_in_parts(tmp_path / "run", [config.data.path], folder / "parts", Marking(engines[name]), part_rows=5)
        if killer:
            killer.join()
        assert (made.rows, made.unreadable, made.parts, made.made) == (24, 0, 5, 5)
        assert len(task.pids()) == 2
        found[name] = pd.concat([pd.read_parquet(file) for file in sorted((folder / "parts").glob("*.parquet"))], ignore_index=True)
    assert found["ray"]["row"].tolist() == list(range(24))
    pd.testing.assert_frame_equal(found["ray"], found["local"])
