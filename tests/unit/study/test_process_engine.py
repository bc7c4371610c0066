"""What processes do beyond the contract of all engines: their own environments, and no life without their parent."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from contract.engine_work import Marked, own_variable
from coverslip.study.process_engine import ProcessEngine

PARENT = """
import sys
from pathlib import Path
from contract.engine_work import Marked, survive
from coverslip.study.process_engine import ProcessEngine

if __name__ == "__main__":
    tasks = [Marked(name, Path(sys.argv[1]), waits=True) for name in "ab"]
    list(ProcessEngine([{}, {}]).each(survive, tasks))
"""
TESTS = Path(__file__).parents[2]


def test_each_process_has_its_environment() -> None:
    engine = ProcessEngine([{"CUDA_VISIBLE_DEVICES": "7"}, {"CUDA_VISIBLE_DEVICES": "9"}])
    before = dict(os.environ)
    seen = {one.result for one in engine.each(own_variable, ["CUDA_VISIBLE_DEVICES"] * 4)}
    engine.close()
    assert seen == {"7", "9"}
    assert dict(os.environ) == before


def test_processes_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent / "src"), os.environ.get("PYTHONPATH", "")])
    parent = subprocess.Popen([sys.executable, tmp_path / "parent.py", tmp_path], env={**os.environ, "PYTHONPATH": paths})
    tasks, deadline = [Marked(name, tmp_path) for name in "ab"], time.monotonic() + 300
    while not all(task.pids() for task in tasks) and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = [task.pids()[0] for task in tasks]
    parent.kill()
    parent.wait()
    while any(map(psutil.pid_exists, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(psutil.pid_exists, workers))
