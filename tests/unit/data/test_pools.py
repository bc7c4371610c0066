"""Who works on images: threads that compute alone, and processes where there is much to do, with the same results."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from PIL import Image

from coverslip.config import DataConfig, SplitConfig
from coverslip.data import pools
from coverslip.data.geometry import GREY, Geometry
from coverslip.data.pools import Crew, image_threads
from coverslip.data.reading import Reading
from coverslip.data.scan import Scan
from coverslip.data.sources import load_table
from coverslip.data.store import load_pixels

HERE = os.getpid()
ITEMS = 400


def threads_of_torch(pool: ThreadPoolExecutor) -> set[int]:
    """How many threads torch takes in each of two threads of a pool."""
    both = threading.Barrier(2, timeout=60)

    def ask() -> int:
        both.wait()
        return torch.get_num_threads()

    with pool:
        return {future.result() for future in [pool.submit(ask), pool.submit(ask)]}


def test_each_thread_computes_alone_and_others_as_before() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert threads_of_torch(image_threads(2)) == {1}
        assert torch.get_num_threads() == 2
        assert threads_of_torch(ThreadPoolExecutor(2)) == {2}
    finally:
        torch.set_num_threads(before)


def test_a_thread_says_what_it_is_for() -> None:
    with image_threads(1, "decode") as pool:
        assert pool.submit(lambda: threading.current_thread().name).result().startswith("decode")


def test_reading_images_needs_no_torch() -> None:
    """It takes longer to load than many images to read, in each process that reads some."""
    asked = "import sys, coverslip.data.audit, coverslip.data.split, coverslip.data.store; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", asked], check=True, timeout=120)


# Processes ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes, two of them, are started for anything, and waited for."""
    monkeypatch.setattr(pools, "cpu_count", lambda: 2)
    monkeypatch.setattr(pools, "START_SECONDS", -1e9)
    monkeypatch.setattr(pools, "TRIED_SECONDS", 0.0)
    monkeypatch.setattr(pools._Processes, "ready", property(lambda processes: not any(one.result() for one in processes._starting)))


def who(number: int) -> tuple[int, int]:
    """The number, and which process was asked."""
    return number, os.getpid()


def who_ends_at_300(here: int, number: int) -> tuple[int, int]:
    """As `who`; but a process that is asked for 300 ends, unless it is this one."""
    if number == 300 and os.getpid() != here:
        os._exit(1)
    return who(number)


def one_item(number: int) -> int:
    """An error at 200."""
    if number == 200:
        raise ValueError(f"no {number}")
    return number


@pytest.mark.usefixtures("eager")
def test_processes_take_over_and_results_keep_their_order() -> None:
    with Crew(who, ITEMS, 2) as crew:
        found = list(crew.in_order(range(ITEMS)))
    assert [number for number, _ in found] == list(range(ITEMS))
    asked = [process for _, process in found]
    assert asked[0] == HERE
    assert HERE not in asked[50:]


def slow_who(number: int) -> int:
    """Which process has done an item."""
    time.sleep(0.05)
    return os.getpid()


@pytest.mark.usefixtures("eager")
def test_what_waits_for_a_thread_goes_to_the_processes() -> None:
    """All items are handed out before processes have started."""
    with Crew(slow_who, 1000, 2) as crew:
        first = [crew.submit(number) for number in range(300)]
        assert HERE in {one.result() for one in first[:2]}
        while crew._processes is None:  # by now it is known that there is much to do
            crew.submit(300)
        assert {one.result() for one in first[-100:]}.isdisjoint({HERE})


@pytest.mark.usefixtures("eager")
def test_a_process_that_ends_costs_its_items_time_only(caplog: pytest.LogCaptureFixture) -> None:
    with Crew(partial(who_ends_at_300, HERE), ITEMS, 2) as crew:
        found = list(crew.in_order(range(ITEMS)))
    assert [number for number, _ in found] == list(range(ITEMS))
    assert HERE not in {process for _, process in found[250:280]}
    assert {process for _, process in [found[300], *found[350:]]} == {HERE}
    assert caplog.messages == ["a process that read images was ended; threads read on"]


@pytest.mark.usefixtures("eager")
def test_an_error_of_a_process_is_raised_here() -> None:
    with Crew(one_item, ITEMS, 2) as crew, pytest.raises(ValueError, match="no 200"):
        list(crew.in_order(range(ITEMS)))


def process_of(number: int) -> int:
    """Which process was asked."""
    return who(number)[1]


@pytest.mark.usefixtures("eager")
def test_processes_stay_for_the_next_crew_whichever_thread_asks() -> None:
    def asked() -> set[int]:
        with Crew(process_of, ITEMS, 2) as crew:
            return set(crew.in_order(range(ITEMS))) - {HERE}

    found = []
    for _ in range(2):
        with ThreadPoolExecutor(1) as pool:
            found.append(pool.submit(asked).result())
    assert found[0]
    assert found[0] & found[1]  # one of them may have done nothing the second time


SCRIPT = """
import os, time
from coverslip.data import pools
processes = pools._Processes(os.path.exists, 2)
print(*{processes.executor.submit(os.getpid).result() for _ in range(20)}, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a system without SIGKILL")
def test_processes_end_with_the_one_that_started_them_however_it_ends() -> None:
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as main:
        assert main.stdout is not None
        started = [psutil.Process(int(number)) for number in main.stdout.readline().split()]
        assert started
        main.kill()
        assert main.stdout.read() == ""  # all that could write to it have ended, though nobody has asked yet how it ended itself
        assert not psutil.wait_procs(started, timeout=60)[1]


@pytest.mark.parametrize(("left", "busy", "cores", "free", "count"), [
    (4.0, 1.7, 2, 1e12, None), (10.0, 1.7, 2, 1e12, 2), (3.0, 1.0, 2, 1e12, 2), (60.0, 2.6, 2, 1e12, None), (5.0, 1.7, 16, 1e12, 16),
    (1.0, 1.7, 16, 1e12, None), (60.0, 1.7, 16, 1e9, 4), (60.0, 1.7, 16, 2.5e8, None), (7.0, 1.0, 1, 1e12, None),
    (60.0, 1.0, 16, 1e8, None),
])  # fmt: skip
def test_processes_are_started_where_they_gain_more_than_it_costs(
    monkeypatch: pytest.MonkeyPatch, left: float, busy: float, cores: int, free: float, count: int | None
) -> None:
    monkeypatch.setattr(pools, "cpu_count", lambda: cores)
    monkeypatch.setattr(pools, "free_memory", lambda: int(free))
    monkeypatch.setattr(pools._Processes, "__init__", lambda self, function, count: setattr(self, "count", count))
    started = pools._Processes.worth(who, left, busy, 64)
    assert (None if started is None else started.count) == count


def test_a_system_that_starts_no_processes_has_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no semaphores here")

    monkeypatch.setattr("loky.get_reusable_executor", refuse)
    assert pools._Processes.worth(who, 1e6, 1.0, 64) is None


def load(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, Scan]:
    monkeypatch.setenv("COVERSLIP_CACHE", str(cache))
    pixels, scan = load_pixels(
        load_table(DataConfig(path=str(folder)), SplitConfig()), Reading(), Geometry(16, 16, "squash", GREY, 8), 10**9
    )
    return np.array(pixels.array), scan


def test_images_read_by_processes_are_those_read_by_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "d" / name).mkdir(parents=True)
        for number in range(30):
            Image.fromarray(random.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(tmp_path / "d" / name / f"{number}.png")
    (tmp_path / "d" / "a" / "7.png").write_bytes(b"no image")
    monkeypatch.setattr("coverslip.data.scan.PORTION", 1)
    threads, scan = load(tmp_path / "d", tmp_path / "one", monkeypatch)
    request.getfixturevalue("eager")
    worth, started = pools._Processes.worth, []
    monkeypatch.setattr(pools._Processes, "worth", lambda *known: started.append(worth(*known)) or started[-1])
    processes, other = load(tmp_path / "d", tmp_path / "other", monkeypatch)
    assert [one is not None for one in started] == [True]
    assert np.array_equal(threads, processes)
    assert np.array_equal(scan.thumbnails, other.thumbnails)
    assert np.array_equal(scan.hashes, other.hashes)
    pd.testing.assert_frame_equal(scan.facts, other.facts)
    assert scan.facts["error"].astype(bool).sum() == 1
