import errno
import json
import mmap
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from coverslip.errors import MissingExtraError, ResourceError
from coverslip.runtime import (
    cache_folder,
    derived_seed,
    environment_variables,
    free_memory,
    git_state,
    hash_file,
    hash_text,
    machine_facts,
    one_blas_thread,
    package_versions,
    peak_memory,
    require,
    sweep,
    to_json,
    used_memory,
    write_file,
    write_json,
    writing,
)


def everything_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def fail_half_way(path: Path, error: BaseException) -> None:
    with writing(path) as temporary:
        temporary.write_text("half of it")
        raise error


# Whole or not at all --------------------------------------------------------------------------------------------------


def test_a_file_is_written_whole_into_folders_that_are_made(tmp_path: Path) -> None:
    write_file(tmp_path / "a" / "b" / "c.txt", "µ")
    assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == "µ".encode()
    assert everything_below(tmp_path) == ["a", "a/b", "a/b/c.txt"]


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), OSError(errno.EIO, "x"), OSError(errno.ENOSPC, "x")])
@pytest.mark.parametrize("exists", [True, False])
def test_an_error_in_the_middle_leaves_what_was_there_and_no_litter(tmp_path: Path, error: BaseException, exists: bool) -> None:
    path = tmp_path / "file.txt"
    if exists:
        path.write_text("old")
    with pytest.raises((RuntimeError, KeyboardInterrupt, OSError)):
        fail_half_way(path, error)
    assert everything_below(tmp_path) == (["file.txt"] if exists else [])
    assert not exists or path.read_text() == "old"


def test_nothing_can_be_seen_at_the_place_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with writing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent.stat().st_dev == path.stat().st_dev
    assert path.read_text() == "new"


def test_a_folder_takes_the_place_of_a_folder_and_nothing_of_the_old_one_stays(tmp_path: Path) -> None:
    place = tmp_path / "bundle"
    place.mkdir()
    (place / "old.txt").write_text("old")
    with writing(place) as temporary:
        temporary.mkdir()
        (temporary / "new.txt").write_text("new")
    assert everything_below(tmp_path) == ["bundle", "bundle/new.txt"]


def test_an_error_in_the_middle_of_a_folder_leaves_the_old_one(tmp_path: Path) -> None:
    place = tmp_path / "bundle"
    place.mkdir()
    (place / "old.txt").write_text("old")

    def fail() -> None:
        with writing(place) as temporary:
            temporary.mkdir()
            (temporary / "new.txt").write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert everything_below(tmp_path) == ["bundle", "bundle/old.txt"]


def test_a_folder_that_cannot_be_moved_in_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "bundle"
    place.mkdir()
    (place / "old.txt").write_text("old")
    real, calls = os.rename, []

    def second_move_fails(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.EIO, "input/output error")
        real(self, target)
        return Path(target)

    monkeypatch.setattr(Path, "replace", second_move_fails)
    with pytest.raises(OSError, match="input/output"), writing(place) as temporary:
        temporary.mkdir()
    assert len(calls) == 3
    assert everything_below(tmp_path) == ["bundle", "bundle/old.txt"]


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.EDQUOT, "disk is full"), (errno.EACCES, "cannot write"), (errno.EROFS, "cannot write")],
)
def test_errors_of_the_disk_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ResourceError, match=words) as caught:
        write_file(tmp_path / "x.json", "content")
    assert str(tmp_path / "x.json") in str(caught.value)
    assert "--out" in str(caught.value)
    assert everything_below(tmp_path) == []


def test_a_file_where_a_folder_is_needed(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("I am a file")
    with pytest.raises(ResourceError, match=r"cannot write .*runs is a file, where a folder is needed"):
        write_file(tmp_path / "runs" / "x.json", "content")
    assert (tmp_path / "runs").read_text() == "I am a file"


def test_a_folder_where_none_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_drive(self: Path, *_: object, **__: object) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))

    monkeypatch.setattr(Path, "mkdir", no_drive)
    with pytest.raises(ResourceError, match=r"the folder .*absent.runs cannot be made: .*--out"):
        write_file(tmp_path / "absent" / "runs" / "x.json", "content")


# JSON -----------------------------------------------------------------------------------------------------------------


def test_values_become_plain_json(tmp_path: Path) -> None:
    value = {
        "nan": float("nan"),
        "infinite": [float("inf"), -np.inf],
        "numpy": [np.float32(0.5), np.int64(3), np.bool_(True), np.float64("nan")],
        "array": np.array([[1.0, np.nan], [2.0, 3.0]]),
        "path": Path("a/b"),
        3: ("tuple", None, True),
        "text": "µ",
    }
    write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert "NaN" not in text
    assert "Infinity" not in text
    assert "µ" in text
    assert json.loads(text) == {
        "nan": None,
        "infinite": [None, None],
        "numpy": [0.5, 3, True, None],
        "array": [[1.0, None], [2.0, 3.0]],
        "path": "a/b",
        "3": ["tuple", None, True],
        "text": "µ",
    }


def test_numbers_keep_all_their_digits() -> None:
    assert to_json(np.float64(0.1) + np.float64(0.2)) == 0.1 + 0.2
    assert to_json(2**60) == 2**60


# Hashes and seeds -----------------------------------------------------------------------------------------------------


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert hash_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2


def test_the_hash_of_texts_knows_where_one_ends() -> None:
    assert hash_text("ab", "c") != hash_text("a", "bc")
    assert hash_text("ab") != hash_text("ab", "")
    assert hash_text("ab", "c") == hash_text("ab", "c")


def test_a_derived_seed_depends_on_every_part_and_fits_torch_and_numpy() -> None:
    seeds = {derived_seed(name, seed, step) for name in ("a", "b") for seed in range(10) for step in range(50)}
    assert len(seeds) == 2 * 10 * 50
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62
    assert derived_seed("order", 1, 23) == derived_seed("order", 1, 23) != derived_seed("order", 12, 3)


# The machine ----------------------------------------------------------------------------------------------------------


def test_a_missing_package_names_the_line_that_installs_it() -> None:
    with pytest.raises(MissingExtraError, match=r'pip install "coverslip\[search\]"') as caught:
        require("no_such_package_at_all", "search")
    assert "no_such_package_at_all" in str(caught.value)
    assert isinstance(caught.value, ImportError)
    assert require("json", "search") is json


def test_the_cache_stands_where_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVERSLIP_CACHE", "~/somewhere")
    assert cache_folder() == Path.home() / "somewhere"
    monkeypatch.delenv("COVERSLIP_CACHE")
    assert "coverslip" in str(cache_folder())


def test_versions_and_machine_are_recorded() -> None:
    versions = package_versions()
    assert {"python", "torch", "timm", "numpy", "scikit-learn"} <= versions.keys()
    assert versions["numpy"] == np.__version__
    assert machine_facts()["cores"] == len(os.sched_getaffinity(0))


def test_the_state_of_a_checkout_is_read_from_its_files(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / ".git" / "refs" / "heads").mkdir(parents=True)
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / ".git" / "refs" / "heads" / "main").write_text("abc123\n")
    assert git_state(inner) == {"reference": "refs/heads/main", "commit": "abc123"}
    (tmp_path / ".git" / "HEAD").write_text("def456\n")
    assert (git_state(inner) or {})["commit"] == "def456"


def test_blas_works_in_one_thread_inside_the_block_only() -> None:
    def threads() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    with threadpool_limits(2, user_api="blas"):
        with one_blas_thread():
            assert threads() == {1}
        assert threads() == {2}


def test_environment_variables_hold_inside_the_block_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVERSLIP_ONE", "before")
    monkeypatch.delenv("COVERSLIP_TWO", raising=False)
    with environment_variables({"COVERSLIP_ONE": "inside", "COVERSLIP_TWO": "inside"}):
        assert os.environ["COVERSLIP_ONE"] == os.environ["COVERSLIP_TWO"] == "inside"
    assert os.environ["COVERSLIP_ONE"] == "before"
    assert "COVERSLIP_TWO" not in os.environ


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_state_is_that_of_git_also_when_packed_detached_and_in_a_worktree(tmp_path: Path) -> None:
    def git(*words: str, folder: str = "repository") -> str:
        named = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        said = subprocess.run(["git", *named, *words], cwd=tmp_path / folder, check=True, capture_output=True, text=True)
        return said.stdout.strip()

    (tmp_path / "repository").mkdir()
    git("init", "--initial-branch=trunk")
    git("commit", "--allow-empty", "-m", "first")
    git("worktree", "add", "-b", "side", str(tmp_path / "side"))
    git("commit", "--allow-empty", "-m", "second", folder="side")
    checked = 0
    for change in ((), ("pack-refs", "--all"), ("checkout", "--detach")):
        if change:
            git(*change)
        for folder in ("repository", "side"):
            assert (git_state(tmp_path / folder) or {})["commit"] == git("rev-parse", "HEAD", folder=folder)
            checked += 1
    assert checked == 6
    assert (git_state(tmp_path / "side") or {})["reference"] == "refs/heads/side"


def test_memory_is_counted() -> None:
    before = used_memory()
    with mmap.mmap(-1, 50_000_000) as block:  # never memory that the process has had before
        block.write(bytes(len(block)))
        held = used_memory()
    assert before + 40_000_000 < held < free_memory() + held
    assert peak_memory() > held - 5_000_000  # the kernel counts the pages of its threads in lots


def test_a_container_may_have_less_memory_than_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, used, facts = tmp_path / "memory.max", tmp_path / "memory.current", tmp_path / "memory.stat"
    monkeypatch.setattr("coverslip.runtime.CONTAINER_MEMORY", ((str(limit), str(used), str(facts), "inactive_file"),))
    whole = free_memory()
    limit.write_text("1000000\n")
    used.write_text("400000\n")
    assert free_memory() == 600_000
    facts.write_text("anon 200000\ninactive_file 150000\nactive_file 30000\n")
    assert free_memory() == 750_000
    facts.unlink()
    used.write_text("1400000\n")
    assert free_memory() == 0
    limit.write_text("max\n")
    assert free_memory() > 0.5 * whole


def test_what_a_killed_process_had_begun_is_swept_away_and_nothing_else(tmp_path: Path) -> None:
    script = "import os, sys, pathlib, coverslip.runtime as r\nwith r.writing(pathlib.Path(sys.argv[1])) as place: os._exit(9)"
    for place in (tmp_path / "bundle", tmp_path / "runs" / "one" / "bundle"):
        place.parent.mkdir(parents=True, exist_ok=True)
        assert subprocess.run([sys.executable, "-c", script, str(place)], check=False).returncode == 9
    kept = [tmp_path / name for name in (".git", ".hidden-folder", "a-folder_8", "bundle")]
    for folder in kept:
        folder.mkdir()
    (tmp_path / ".notes-abcdefgh").write_text("a file is nothing that was begun")
    assert len(list(tmp_path.rglob(".bundle-*"))) == 2
    sweep(tmp_path)
    assert len(list(tmp_path.rglob(".bundle-*"))) == 1
    sweep(tmp_path, deep=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([*(folder.name for folder in kept), ".notes-abcdefgh", "runs"])
    assert list((tmp_path / "runs" / "one").iterdir()) == []
