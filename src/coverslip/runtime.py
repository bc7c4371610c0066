"""The machine and its files: atomic writes, hashes, versions, folders, memory, optional packages. No torch."""

from __future__ import annotations

import errno
import hashlib
import importlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import platformdirs
import psutil
from threadpoolctl import ThreadpoolController

from coverslip.errors import MissingExtraError, ResourceError, UnreachableError

NAMED_PACKAGES = ("coverslip", "torch", "torchvision", "timm", "lightning-fabric", "numpy", "scipy", "scikit-learn", "pandas", "pillow")
HOLDER = re.compile(r"\..+-[a-z0-9_]{8}")
"""Name of a folder in which `writing` makes a file or folder."""
_BLAS = threading.Lock()


def write_file(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all: beside its place first, then renamed into it.

    Raises:
        ResourceError: the disk is full or the folder cannot be written; nothing half-written stays behind.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    with writing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, whole or not at all; NaN becomes null."""
    write_file(path, json.dumps(to_json(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def to_json(value: Any) -> Any:
    """Plain JSON values: numpy scalars and arrays become numbers and lists, paths text, NaN and infinities None."""
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, np.ndarray):
        return to_json(value.tolist())
    if isinstance(value, np.generic):
        return to_json(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; put it in place when the block ends well, remove it when it does not.

    Works for files and for folders. A folder that stands at `path` is replaced.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    path = path.absolute()
    make_folder(path.parent)
    with explained(path):
        holder = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    temporary = holder / path.name
    try:
        with explained(path):
            yield temporary
            replaced = holder / "replaced"
            if temporary.is_dir() and path.is_dir():
                path.replace(replaced)
            try:
                temporary.replace(path)
            except OSError:
                if replaced.exists():
                    replaced.replace(path)
                raise
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def sweep(folder: Path, *, deep: bool = False) -> None:
    """Remove what `writing` had begun in a folder when its process was killed; nobody else may write there now.

    Args:
        folder: where to look.
        deep: whether folders within are looked at too.
    """
    for left in list(folder.rglob(".*") if deep else folder.glob(".*")):
        if HOLDER.fullmatch(left.name) and left.is_dir():
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an operating-system error of writing into one that says what to do.

    Raises:
        ResourceError: no space left, no permission, a read-only place.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT if hasattr(errno, "EDQUOT") else errno.ENOSPC):
            raise ResourceError(
                f"the disk is full while writing {path}; free some space, or choose another place (--out, COVERSLIP_CACHE)"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG):
            raise ResourceError(f"cannot write {path}: {error.strerror}; choose another place (--out, COVERSLIP_CACHE)") from error
        raise


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there yet.

    Raises:
        ResourceError: there is no such place, or it cannot be written.
    """
    with explained(path):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            file = next(one for one in (path, *path.parents) if one.exists())
            raise ResourceError(f"cannot write into {path}: {file} is a file, where a folder is needed; choose another place") from error
        except FileNotFoundError as error:  # a drive that is not there, a place where nothing can be made
            raise ResourceError(
                f"the folder {path} cannot be made: {error.strerror}; choose another place (--out, COVERSLIP_CACHE)"
            ) from error


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_text(*texts: str) -> str:
    """SHA-256 of some texts, each with its length, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def derived_seed(*parts: int | str) -> int:
    """A seed in [0, 2**63) that depends on all parts and on nothing else."""
    return int(hash_text(*map(str, parts))[:16], 16) >> 1


def cache_folder() -> Path:
    """Where decoded pixels and features are kept: `COVERSLIP_CACHE`, or the user's cache folder."""
    named = os.environ.get("COVERSLIP_CACHE")
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("coverslip"))


def readable(size: int) -> str:
    """A number of bytes in words.

    >>> readable(5_000_000_000), readable(311_220)
    ('5.00 GB', '0.3 MB')
    """
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "3000"}
"""How threads that compute wait for their next task, by environment variables that are read when torch is loaded: they soon sleep.

Waiting awake, as is usual, makes two processes that share the cores 2 to 40 times slower. Sleeping at once makes one that is alone slower,
by a tenth (resnet18) to three times (small networks), for waking up takes its time. GNU's library, which torch has on Linux, can do both.
"""


def set_waiting() -> None:
    """Set how threads wait, where the environment does not say so."""
    for name, value in WAITING.items():
        os.environ.setdefault(name, value)


def cpu_count() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let BLAS work in the calling thread alone: its others stay awake for a while after each call, in the way of whatever comes next."""
    with _BLAS, _thread_pools().limit(limits=1, user_api="blas"):
        yield


@cache
def _thread_pools() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def environment_variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables inside the block, for processes that are started there."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


CONTAINER_MEMORY = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "inactive_file"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat", "total_inactive_file",
    ),
)  # fmt: skip
"""Where Linux says how much memory a container may use, and how much it uses, and what of this are contents of files that it would drop;
control groups of version 2 and 1."""


def free_memory() -> int:
    """Bytes that programs can still take without swapping, on this machine or in this container, whichever is less."""
    found = [int(psutil.virtual_memory().available)]
    for limit, used, facts, name in CONTAINER_MEMORY:
        numbers = [path.read_text(encoding="utf-8").strip() for path in (Path(limit), Path(used)) if path.is_file()]
        if len(numbers) == 2 and all(number.isdecimal() for number in numbers):
            lines = Path(facts).read_text(encoding="utf-8").splitlines() if Path(facts).is_file() else []
            droppable = sum(int(line.split()[1]) for line in lines if line.split()[0] == name)
            found.append(max(0, int(numbers[0]) - int(numbers[1]) + droppable))
    return min(found)


def used_memory() -> int:
    """Bytes of this process that are in memory now; files that are mapped into it count as far as they were read."""
    return int(psutil.Process().memory_info().rss)


def peak_memory() -> int:
    """The most bytes of this process that were in memory at one time."""
    windows = getattr(psutil.Process().memory_info(), "peak_wset", None)
    if windows is not None:
        return int(windows)
    status = Path("/proc/self/status")  # `getrusage` would count what stood here before this program, too
    if status.is_file():
        lines = status.read_text(encoding="utf-8").splitlines()
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), used_memory())
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def require(package: str, extra: str) -> ModuleType:
    """Import an optional package, or a module of it.

    Raises:
        MissingExtraError: with the line that installs it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        needed = package.partition(".")[0]
        raise MissingExtraError(f'this needs the package {needed}; install it with  pip install "coverslip[{extra}]"') from error


SECONDS_TO_ANSWER = 5.0
"""How long a service may take to answer before it counts as out of reach."""


def open_connection(host: str, port: int, what: str) -> socket.socket:
    """A TCP connection to a service, whose answers are waited for as long as for the connection itself.

    Raises:
        UnreachableError: nothing answers within `SECONDS_TO_ANSWER`.
    """
    try:
        return socket.create_connection((host, port), timeout=SECONDS_TO_ANSWER)
    except OSError as error:
        reason = str(error) or type(error).__name__
        raise UnreachableError(f"{what} does not answer at {host}:{port} ({reason}); check the address, and that it is running") from error


def package_versions(*packages: str) -> dict[str, str]:
    """Versions of Python and of those packages that are installed; of coverslip and what its numbers depend on when none are named."""
    versions = {"python": platform.python_version()}
    for package in packages or NAMED_PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def machine_facts() -> dict[str, str | int]:
    """Operating system, processor and cores of this machine."""
    return {
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "cores": cpu_count(),
        "executable": Path(sys.executable).name,
    }


def git_state(folder: Path) -> dict[str, str] | None:
    """The commit that a folder's checkout stands on, read from its files; None outside a checkout."""
    for parent in (folder.absolute(), *folder.absolute().parents):
        store = _git_folder(parent / ".git")
        if store is not None:
            reference = (store / "HEAD").read_text(encoding="utf-8").strip().removeprefix("ref: ")
            return {"reference": reference, "commit": _git_commit(store, reference)}
    return None


def _git_folder(place: Path) -> Path | None:
    """The folder that holds HEAD: `.git`, or where the file `.git` of a worktree or submodule points to."""
    if place.is_file():
        place = place.parent / place.read_text(encoding="utf-8").strip().removeprefix("gitdir: ")
    return place if (place / "HEAD").is_file() else None


def _git_commit(store: Path, reference: str) -> str:
    """The commit of a reference, which lies in a file of its own or in `packed-refs`; a detached HEAD is a commit itself."""
    shared = store / "commondir"
    common = store / shared.read_text(encoding="utf-8").strip() if shared.is_file() else store
    if (common / reference).is_file():
        return (common / reference).read_text(encoding="utf-8").strip()
    packed = (common / "packed-refs").read_text(encoding="utf-8").splitlines() if (common / "packed-refs").is_file() else []
    return next((line.split()[0] for line in packed if line.endswith(f" {reference}")), reference)


Progress = Callable[[str, int, int, dict[str, float]], None]
"""Called with a stage name, steps done, steps in all, and numbers to show; the command line draws the bar."""


def no_progress(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
    """A progress callback that shows nothing."""
