"""Outputs that are sent as they grow: what a store holds when a machine is lost, and who goes on with it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from coverslip.errors import ResourceError
from coverslip.runtime import write_file
from coverslip.storage import ENDPOINT, PATIENCE, TIMEOUT, URL, listing, mirroring, output, output_file, read
from object_server import Fault, Store, object_server

RUN = "s3://bucket/run"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    for name, value in {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", TIMEOUT: "0.5", PATIENCE: "0.5"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(mirroring, "SHORTEST_PAUSE", 0.05)
    (tmp_path / "store").mkdir()
    with object_server(tmp_path / "store") as (address, server):
        monkeypatch.setenv(ENDPOINT, address)
        machine(monkeypatch, tmp_path, "first")
        yield server


def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    """What follows happens on a machine of that name."""
    monkeypatch.setenv("COVERSLIP_CACHE", str(tmp_path / name))


def wait_for(*names: str) -> None:
    """Until the store holds these files of the run."""
    deadline = time.monotonic() + 20
    while not set(names) <= set(listing(URL(RUN))):
        assert time.monotonic() < deadline, (names, listing(URL(RUN)))
        time.sleep(0.02)


class Lost(BaseException):
    """The machine is gone in this moment."""


def lose(self: mirroring.Mirror) -> None:
    raise Lost


def test_what_is_made_is_sent_meanwhile_and_another_machine_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def work() -> None:
        with output(RUN, resumable=True, last=["metrics.json"]) as folder:
            write_file(folder / "runs" / "a" / "bundle" / "model.bin", b"weights")
            write_file(folder / "runs" / "a" / "metrics.json", b"{}")
            write_file(folder / "half.txt", b"1")
            wait_for("runs/a/metrics.json", "half.txt")
            write_file(folder / "half.txt", b"2")
            (folder / "runs" / "a" / "bundle" / "model.bin").unlink()
            deadline = time.monotonic() + 20
            while read(URL(RUN) / "half.txt") != b"2" or "runs/a/bundle/model.bin" in listing(URL(RUN)):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            raise KeyError

    with monkeypatch.context() as patch:
        patch.setattr(mirroring.Mirror, "give_up", lose)
        with pytest.raises(Lost):
            work()
    puts = [path for method, path in store.requests if method == "PUT"]
    assert puts[0] == "bucket/run/.working.json"
    assert puts.index("bucket/run/runs/a/bundle/model.bin") < puts.index("bucket/run/runs/a/metrics.json")

    machine(monkeypatch, tmp_path, "second")
    store.requests.clear()
    with output(RUN, resume=True, resumable=True) as folder:
        assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {"runs/a/metrics.json", "half.txt"}
        write_file(folder / "end.json", b"{}")
    assert [path for method, path in store.requests if method == "PUT"] == ["bucket/run/.working.json", "bucket/run/end.json"]
    assert set(listing(URL(RUN))) == {"runs/a/metrics.json", "half.txt", "end.json"}

    machine(monkeypatch, tmp_path, "first")  # whose copy is older than what lies in the store
    with output(RUN, resume=True, resumable=True) as folder:
        assert (folder / "end.json").is_file()


def test_a_machine_whose_work_was_taken_over_is_told_and_overwrites_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def work() -> None:
        with output(RUN, resumable=True) as folder:
            write_file(folder / "a.txt", b"first")
            wait_for("a.txt")
            with pytest.raises(ResourceError, match="another process is at work on s3://bucket/run"), output(RUN, resume=True):
                pass
            machine(monkeypatch, tmp_path, "second")
            with pytest.raises(ResourceError, match="there is something at s3://bucket/run already"), output(RUN):
                pass
            with output(RUN, resume=True, resumable=True) as taken:
                write_file(taken / "a.txt", b"second")
            write_file(folder / "a.txt", b"late")

    with pytest.raises(ResourceError, match=r"another process has gone on with what lies at s3://bucket/run"):
        work()
    assert read(URL(RUN) / "a.txt") == b"second"


def test_after_an_error_the_state_is_sent_and_nothing_is_left_of_what_never_began(store: Store) -> None:
    with suppress(KeyError), output(RUN, resumable=True) as folder:
        write_file(folder / "state.bin", b"1")
        raise KeyError
    assert set(listing(URL(RUN))) == {"state.bin", ".working.json"}
    with pytest.raises(KeyError), output("s3://bucket/other", resumable=True):
        raise KeyError
    assert not listing(URL("s3://bucket/other"))


def test_a_bucket_as_a_whole_takes_an_output(store: Store) -> None:
    with output("s3://whole") as folder:
        write_file(folder / "a.txt", b"a")
    assert set(listing(URL("s3://whole"))) == {"a.txt"}


def test_a_store_that_fails_for_a_while_stops_no_work(store: Store) -> None:
    refused = [True]

    def plan(method: str, path: str, before: int) -> Fault:
        return "503" if method == "PUT" and refused[0] else ""

    store.plan = plan
    with output(RUN, resumable=True) as folder:
        write_file(folder / "a.txt", b"a")
        time.sleep(0.3)
        assert not listing(URL(RUN))
        refused[0] = False
        wait_for("a.txt")
    assert set(listing(URL(RUN))) == {"a.txt"}


def test_a_database_is_sent_as_its_last_commit_left_it(store: Store, tmp_path: Path) -> None:
    with output(RUN, resumable=True) as folder:
        folder.mkdir()
        with closing(sqlite3.connect(folder / "trials.db", isolation_level=None)) as database:
            database.execute("CREATE TABLE trials (value TEXT)")
            database.execute("INSERT INTO trials VALUES ('whole')")
            database.execute("BEGIN")
            wait_for("trials.db")
            assert (folder / "trials.db").is_file()
            (tmp_path / "copy.db").write_bytes(read(URL(RUN) / "trials.db"))
            database.execute("ROLLBACK")
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("SELECT value FROM trials").fetchall() == [("whole",)]
    assert "trials.db-journal" not in "".join(path for _, path in store.requests)


def test_a_file_goes_to_a_url_with_what_lies_beside_it(store: Store) -> None:
    for content in (b"1", b"2"):
        with output_file("s3://bucket/out/model.xml") as file:
            file.write_bytes(content)
            file.with_suffix(".bin").write_bytes(content)
    assert read(URL("s3://bucket/out/model.xml")) == read(URL("s3://bucket/out/model.bin")) == b"2"
    with suppress(KeyError), output_file("s3://bucket/out/other.xml") as file:
        file.write_bytes(b"half")
        raise KeyError
    assert set(listing(URL("s3://bucket/out"))) == {"model.xml", "model.bin"}
