import multiprocessing
import os
import signal
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from coverslip.data.cache import STALE_SECONDS, cache_entries, cached, clear_cache, evict
from coverslip.errors import ResourceError

LARGE = 10**9


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COVERSLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def build(folder: Path) -> None:
    (folder / "data.bin").write_bytes(b"x" * 1000)


def unwanted(folder: Path) -> None:
    pytest.fail(f"{folder} was built again")


def put(key: str, *, used: float, limit: int = LARGE, kind: str = "pixels") -> Path:
    place = cached(kind, key, build, size=1000, limit=limit)
    os.utime(place / "used", (used, used))
    return place


def keys() -> list[str]:
    return [entry.folder.name for entry in cache_entries()]


def hidden(cache: Path) -> list[Path]:
    return list(cache.rglob(".*"))


def test_an_entry_is_built_once(cache: Path) -> None:
    place = cached("pixels", "key", build, size=1000, limit=LARGE)
    assert place == cache / "pixels" / "key"
    assert (place / "data.bin").stat().st_size == 1000
    assert cached("pixels", "key", unwanted, size=1000, limit=LARGE) == place
    assert hidden(cache) == []


def test_kinds_are_kept_apart() -> None:
    first, second = put("key", used=1, kind="pixels"), put("key", used=2, kind="features")
    assert first != second
    assert [(entry.kind, entry.size) for entry in cache_entries()] == [("pixels", 1000), ("features", 1000)]


def test_a_builder_that_fails_leaves_nothing(cache: Path) -> None:
    def fail(folder: Path) -> None:
        build(folder)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        cached("pixels", "key", fail, size=1000, limit=LARGE)
    assert cache_entries() == []
    assert hidden(cache) == []
    assert cached("pixels", "key", build, size=1000, limit=LARGE).is_dir()


def test_a_full_disk_is_explained(cache: Path) -> None:
    def fail(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(ResourceError, match=r"disk is full.*COVERSLIP_CACHE"):
        cached("pixels", "key", fail, size=1000, limit=LARGE)
    assert hidden(cache) == []


def test_an_entry_larger_than_the_cache_is_refused_with_advice_and_costs_no_other_entry() -> None:
    put("old", used=1)
    with pytest.raises(ResourceError, match=r"5\.00 GB.*cache\.limit is 2\.00 GB.*-s cache\.limit="):
        cached("pixels", "key", unwanted, size=5 * 10**9, limit=2 * 10**9)
    assert keys() == ["old"]


def test_the_entry_unused_for_longest_goes_first() -> None:
    for key, used in (("b", 200), ("a", 300), ("c", 100)):
        put(key, used=used)
    assert keys() == ["c", "b", "a"]
    put("new", used=400, limit=3000)
    assert keys() == ["b", "a", "new"]
    put("newer", used=500, limit=2999)
    assert keys() == ["new", "newer"]


def test_use_keeps_an_entry() -> None:
    put("first", used=100)
    put("second", used=200)
    cached("pixels", "first", unwanted, size=1000, limit=LARGE)
    evict(1000)
    assert keys() == ["first"]


def test_eviction_says_how_much_was_freed_and_stops_when_enough() -> None:
    for number in range(4):
        put(str(number), used=number)
    assert evict(4000) == 0
    assert evict(2500) == 2000
    assert keys() == ["2", "3"]
    assert clear_cache() == 2000
    assert keys() == []
    assert clear_cache() == 0


def test_half_an_eviction_leaves_no_half_of_an_entry(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Deleting takes a while: a kill in the middle of it must not leave an entry without its data."""
    put("key", used=1)

    def killed(path: Path, *, ignore_errors: bool = False) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("coverslip.data.cache.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        evict(0)
    assert not (cache / "pixels" / "key").exists()
    assert cache_entries() == []


def test_what_a_killed_builder_left_is_removed_after_a_day_and_not_before(cache: Path) -> None:
    for name, age in ((".building-old", STALE_SECONDS + 100), (".building-young", STALE_SECONDS - 100)):
        folder = cache / "pixels" / name
        folder.mkdir(parents=True)
        (folder / "data.bin").write_bytes(b"x")
        os.utime(folder, (time.time() - age,) * 2)
    assert cache_entries() == []
    put("key", used=1)
    assert [path.name for path in hidden(cache)] == [".building-young"]


# Two processes --------------------------------------------------------------------------------------------------------


def build_slowly(started: Event, other: Event) -> None:
    def slow(folder: Path) -> None:
        started.set()
        assert other.wait(30)
        build(folder)

    place = cached("pixels", "shared", slow, size=1000, limit=LARGE)
    assert (place / "data.bin").stat().st_size == 1000


def build_for_ever(started: Event) -> None:
    def slow(folder: Path) -> None:
        (folder / "data.bin").write_bytes(b"half")
        started.set()
        time.sleep(600)

    cached("pixels", "shared", slow, size=1000, limit=LARGE)


def test_two_processes_that_build_one_entry_both_end_well(cache: Path) -> None:
    context = multiprocessing.get_context("spawn")
    events = context.Event(), context.Event()
    both = [context.Process(target=build_slowly, args=pair) for pair in (events, events[::-1])]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert keys() == ["shared"]
    assert hidden(cache) == []


def test_a_killed_builder_leaves_nothing_that_is_used() -> None:
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    process = context.Process(target=build_for_ever, args=(started,))
    process.start()
    assert started.wait(30)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    assert cache_entries() == []
    place = cached("pixels", "shared", build, size=1000, limit=LARGE)
    assert (place / "data.bin").stat().st_size == 1000
