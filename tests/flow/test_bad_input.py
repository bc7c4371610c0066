"""Bad input: a message that helps, the right exit status, and nothing half-written."""

from __future__ import annotations

import errno
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from coverslip import runtime
from coverslip.training import loop

from .conftest import TINY, Cli, nothing_left


def train(cli: Cli, data: Path, run: Path, *settings: str):
    return cli("train", data, "--recipe", "quick", *TINY, *settings, "--out", run)


@pytest.fixture
def small(gels: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "small"
    for name in ("gel", "not_gel"):
        for file in sorted((gels / name).iterdir())[:8]:
            (folder / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / name)
    return folder


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"\0" * 64))
    )


def test_wrong_path(cli: Cli, small: Path, tmp_path: Path) -> None:
    done = train(cli, small.parent / "smal", tmp_path / "run")
    assert done.status == 2
    assert "smal" in done.err
    assert "Did you mean" in done.err
    assert nothing_left(tmp_path / "run")


def test_empty_folder(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = train(cli, tmp_path / "empty", tmp_path / "run")
    assert done.status == 2
    assert "empty" in done.err
    assert nothing_left(tmp_path / "run")


def test_one_class_only(cli: Cli, small: Path, tmp_path: Path) -> None:
    shutil.rmtree(small / "gel")
    done = train(cli, small, tmp_path / "run")
    assert done.status == 2
    assert "one class" in done.err
    assert nothing_left(tmp_path / "run")


def test_class_without_images(cli: Cli, small: Path, tmp_path: Path) -> None:
    (small / "blank").mkdir()
    done = train(cli, small, tmp_path / "run")
    assert done.status == 2
    assert "blank" in done.err


def test_class_with_one_image_is_said_and_does_not_crash(cli: Cli, small: Path, tmp_path: Path) -> None:
    (small / "rare").mkdir()
    shutil.copy(next((small / "gel").iterdir()), small / "rare" / "one.png")
    pixels = np.random.default_rng(0).integers(0, 255, (50, 60), dtype=np.uint8)
    Image.fromarray(pixels).save(small / "rare" / "one.png")
    done = train(cli, small, tmp_path / "run")
    assert done.status == 0, done.err
    assert "rare" in done.err
    said = next(line for line in done.err.splitlines() if line.startswith("audit: "))
    assert "1 warning (" in said
    assert "tiny class" in said


@pytest.mark.parametrize("kind", ["truncated", "text", "tiny", "huge"])
def test_unusable_images_stop_with_the_whole_list_or_are_skipped(cli: Cli, small: Path, tmp_path: Path, kind: str) -> None:
    bad = small / "gel" / f"bad-{kind}.png"
    if kind == "truncated":
        bad = bad.with_suffix(".jpg")
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)).save(bad)
        bad.write_bytes(bad.read_bytes()[:3000])
    elif kind == "text":
        bad.write_text("this is a letter, not an image")
    elif kind == "tiny":
        Image.new("L", (1, 1)).save(bad)
    else:
        bad.write_bytes(png_header(20_000, 20_000))
    stopped = train(cli, small, tmp_path / "run")
    assert stopped.status == 2
    assert bad.name in stopped.err
    assert "data.on_bad_image" in stopped.err
    assert nothing_left(tmp_path / "run")
    skipped = train(cli, small, tmp_path / "run2", "-s", "data.on_bad_image=skip")
    assert skipped.status == 0, skipped.err
    assert bad.name in (tmp_path / "run2" / "audit.json").read_text()
    assert bad.name not in (tmp_path / "run2" / "split.csv").read_text()


def test_unknown_keys_and_values_all_at_once(cli: Cli, small: Path, tmp_path: Path) -> None:
    done = train(cli, small, tmp_path / "run", "-s", "training.epoch=3", "-s", "pixels.fit=stretch", "-s", "modle.backbone=x")
    assert done.status == 2
    assert "'epochs'" in done.err
    assert "'squash'" in done.err
    assert "'model'" in done.err
    assert nothing_left(tmp_path / "run")


def test_unknown_backbone(cli: Cli, small: Path, tmp_path: Path) -> None:
    done = train(cli, small, tmp_path / "run", "-s", "model.backbone=resnt18")
    assert done.status == 2
    assert "resnet18" in done.err
    assert nothing_left(tmp_path / "run")


def test_a_line_a_class_is_for_several_labels(cli: Cli, small: Path, tmp_path: Path) -> None:
    done = train(cli, small, tmp_path / "run", "-s", "decision.calibrate=platt", "-s", "split.validation=0.25")
    assert done.status == 2
    assert 'decision.calibrate = "platt" is for several labels' in done.err
    assert "model: " not in done.err, "refused before anything is built or trained"
    nothing = train(cli, small, tmp_path / "run", "-s", "decision.sensitivity=0.9", "-s", "split.validation=0.01")
    assert nothing.status == 2
    assert "choose on the validation part, but it is empty" in nothing.err
    (small / "third").mkdir()
    for number in range(8):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (50, 60), dtype=np.uint8)).save(small / "third" / f"{number}.png")
    third = train(cli, small, tmp_path / "run", "-s", "decision.sensitivity=0.9")
    assert third.status == 2
    assert "decision.sensitivity is for binary tasks; this one is multiclass with 3 classes; join classes with data.merge" in third.err
    assert "model: " not in nothing.err + third.err
    assert nothing_left(tmp_path / "run")


def test_missing_weights_name_the_three_ways_out(cli: Cli, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVERSLIP_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    settings = ("-s", "model.backbone=resnet18", "-s", "model.weights=pretrained", "-s", "training.regime=probe")
    done = train(cli, small, tmp_path / "run", *settings)
    assert done.status == 2
    assert "COVERSLIP_WEIGHTS" in done.err
    assert "give a path" in done.err
    assert "none" in done.err


def test_full_disk_leaves_nothing_half_written(cli: Cli, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(source: str, target: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runtime.os, "replace", no_space)
    done = train(cli, small, tmp_path / "run")
    assert done.status == 1
    assert "disk is full" in done.err
    assert nothing_left(tmp_path / "run")


ON_A_SMALL_DISK = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"'
"""Shell: a disk of so many bytes at a place, then a command; in a namespace of its own, so that nothing stays mounted."""


def on_a_small_disk(size: str, place: Path, *command: object) -> subprocess.CompletedProcess[str]:
    words = ["unshare", "--map-root-user", "--mount", "sh", "-c", ON_A_SMALL_DISK, "sh", size, str(place), *map(str, command)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("full", ["cache", "run"])
def test_a_disk_that_is_really_full(small: Path, tmp_path: Path, full: str) -> None:
    """Pixels would be 300 kB, the bundle 130 kB. A memory map of the cache would die of a bus error here."""
    place = tmp_path / "disk"
    place.mkdir()
    if shutil.which("unshare") is None or on_a_small_disk("100k", place, "true").returncode:
        pytest.skip("a small disk cannot be mounted here")
    run = (place if full == "run" else tmp_path) / "run"
    cache = (place if full == "cache" else tmp_path) / "cache"
    settings = ("-s", "pixels.height=128", "-s", "pixels.width=128", "-s", "training.epochs=1", "--out", run)
    listing = ["sh", "-c", '"$@"; echo "status $?"; find "$0" -type f', place, sys.executable, "-m", "coverslip"]
    command = ["env", f"COVERSLIP_CACHE={cache}", *listing, "train", small, "--recipe", "quick", *TINY, *settings]
    done = on_a_small_disk("100k", place, *command)
    assert "status 1" in done.stdout, done.stdout + done.stderr
    assert "the disk is full" in done.stderr
    left = {Path(line).name for line in done.stdout.splitlines() if line.startswith(str(place))}
    assert left <= {"run.log"}


def test_a_batch_that_does_not_fit_into_memory_is_met_at_once_and_leaves_the_folder_free(
    cli: Cli, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried ...")

    with monkeypatch.context() as small_machine:
        small_machine.setattr(loop, "make_batch", no_memory)
        done = train(cli, small, tmp_path / "run")
    assert done.status == 1
    assert "a batch of 8 images of 32x32 does not fit into the memory of cpu; try -s training.batch_size=4" in done.err
    assert nothing_left(tmp_path / "run")
    assert train(cli, small, tmp_path / "run", "-s", "training.batch_size=4").status == 0


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system in which nothing can be made")
def test_a_place_that_the_system_refuses(cli: Cli) -> None:
    done = cli("simulate", "gels", "/proc/gels", "--images", 4)
    assert done.status == 1
    assert "error: the system refuses /proc/" in done.err
    assert "Traceback" not in done.err


def test_two_runs_in_one_folder(cli: Cli, small: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"):
        done = train(cli, small, tmp_path / "run")
    assert done.status == 1
    assert "another run" in done.err


def test_a_finished_run_is_not_overwritten(cli: Cli, gel_run: Path, small: Path) -> None:
    before = (gel_run / "metrics.json").read_bytes()
    done = train(cli, small, gel_run)
    assert done.status == 1
    assert "--resume" in done.err
    assert (gel_run / "metrics.json").read_bytes() == before
    assert {"config.toml", "audit.json", "split.csv", "bundle"} <= {path.name for path in gel_run.iterdir()}


def test_a_run_that_was_stopped_early_is_not_touched_by_another(cli: Cli, small: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text("# of a run that has no checkpoint yet")
    done = train(cli, small, tmp_path / "run")
    assert done.status == 1
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.toml"]
