"""Outputs that go to a store: made in a local folder, for runs need locks, renames and appending logs, and sent from there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import filelock

from coverslip.errors import InputError, ResourceError, UnreachableError
from coverslip.runtime import cache_folder, explained, hash_text
from coverslip.storage.addresses import URL, Place, place
from coverslip.storage.copies import upload, writable
from coverslip.storage.folders import exists
from coverslip.storage.mirroring import Mirror


@contextmanager
def output(
    where: str | Place, *, resume: bool = False, replace: bool = False, last: Sequence[str] = (), resumable: bool = False
) -> Iterator[Path]:
    """A local folder to write to; what is meant for a URL is written beside the cache, and sent.

    What can be resumed is sent while it is made, after an error too, and the local copy stays until all is there. A resumed run goes on
    from the local copy, or from what lies at the URL where there is none or where another machine has gone on since.

    Args:
        where: a path, which is given back as it is, or a URL.
        resume: whether there is something to go on with.
        replace: whether what lies at the URL may be replaced.
        last: names of files that say that what was written before them is whole.
        resumable: whether it may be resumed; sent at the end only otherwise.

    Raises:
        InputError: a web server, which is read only.
        ResourceError: there is something at the URL already, another process writes there, or has gone on there.
        UnreachableError: the store does not answer; the local copy stays, and the message names it.
    """
    target = place(where)
    if isinstance(target, Path):
        yield target
        return
    writable(target)
    with _holder(target) as holder:
        local = holder / (target.name or target.parts[1])
        mirror = Mirror(local, target, holder, last)
        if resume:
            mirror.go_on()
        else:
            _refuse_what_is_there(target, replace=replace, resumable=resumable)
            shutil.rmtree(holder, ignore_errors=True)
            mirror.begin()
        try:
            with mirror.sending() if resumable else nullcontext():
                yield local
        except BaseException:
            if resumable:
                mirror.give_up()
            raise
        with _telling_where(local, resumable=resumable):
            mirror.finish()
        shutil.rmtree(holder, ignore_errors=True)


@contextmanager
def output_file(where: str | Place) -> Iterator[Path]:
    """A local file to write to, replaced where there is one; at a URL it is sent at the end, with all that was written beside it.

    Raises:
        InputError: a web server, which is read only.
        ResourceError: another process writes there.
        UnreachableError: the store does not answer, which is seen before there is anything to write; or not any more: the local file
            stays, and the message names it.
    """
    target = place(where)
    if isinstance(target, Path):
        yield target
        return
    writable(target)
    with suppress(InputError):  # keys that may only write are enough
        exists(target)
    with _holder(target) as holder:
        shutil.rmtree(holder, ignore_errors=True)
        with explained(holder):
            holder.mkdir(parents=True)
        yield holder / target.name
        with _telling_where(holder / target.name, resumable=False):
            for file in sorted(holder.iterdir(), key=lambda file: (file.name == target.name, file.name)):
                upload(file, target.parent / file.name)
        shutil.rmtree(holder, ignore_errors=True)


@contextmanager
def _holder(target: URL) -> Iterator[Path]:
    """The folder of this machine for what goes to a URL, held by this process."""
    holder = cache_folder() / "outputs" / hash_text(str(target))[:16]
    with explained(holder):
        holder.parent.mkdir(parents=True, exist_ok=True)
    file = holder.with_suffix(".lock")
    lock = filelock.FileLock(file)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ResourceError(f"another process is at work on {target}; wait for it, or choose another place") from None
    try:
        yield holder
    finally:
        lock.release()
        file.unlink(missing_ok=True)


def _refuse_what_is_there(target: URL, *, replace: bool, resumable: bool) -> None:
    if not replace and exists(target):
        raise ResourceError(
            f"there is something at {target} already; choose another place{', or go on with --resume' if resumable else ''}"
        )


@contextmanager
def _telling_where(local: Path, *, resumable: bool) -> Iterator[None]:
    """Where what could not be sent is to be found."""
    try:
        yield
    except (UnreachableError, InputError) as error:
        again = "; --resume sends it again" if resumable else ""
        raise UnreachableError(f"{error}. What was made lies in {local}{again}") from error
