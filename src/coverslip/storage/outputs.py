"""Outputs that go to a store: made in a local folder, for runs need locks, renames and appending logs, and sent whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from coverslip.errors import InputError, ResourceError, UnreachableError
from coverslip.runtime import cache_folder, explained, hash_text
from coverslip.storage.addresses import Place, place
from coverslip.storage.copies import download_folder, upload, upload_folder
from coverslip.storage.folders import exists


@contextmanager
def output(where: str | Place, *, resume: bool = False, replace: bool = False, last: Sequence[str] = ()) -> Iterator[Path]:
    """A local folder or file to write to; what is meant for a URL is written beside the cache first and sent whole at the end.

    After an error or a kill the local copy stays, and a resumed run goes on from it, or else from what lies at the URL.

    Args:
        where: a path, which is given back as it is, or a URL.
        resume: whether there is something to go on with.
        replace: whether what lies at the URL may be replaced.
        last: names of files that are sent last.

    Raises:
        InputError: a web server, which is read only.
        UnreachableError: the store does not answer; the local copy stays, and the message names it.
    """
    target = place(where)
    if isinstance(target, Path):
        yield target
        return
    if target.parts[0] in ("http", "https"):
        raise InputError(f"{target}: web servers are read, not written; choose a path, or s3://, gs:// or az://")
    holder = cache_folder() / "outputs" / hash_text(str(target))[:16]
    local = holder / target.name
    if resume and not local.exists():
        download_folder(target, local)
    elif not resume:
        if not replace and exists(target):
            raise ResourceError(f"there is something at {target} already; choose another place, or go on with --resume")
        shutil.rmtree(holder, ignore_errors=True)
    with explained(local):
        holder.mkdir(parents=True, exist_ok=True)
    yield local
    try:
        if local.is_dir():
            upload_folder(local, target, last)
        elif local.exists():
            upload(local, target)
    except (UnreachableError, InputError) as error:
        raise UnreachableError(f"{error}. What was made lies in {local}; --resume sends it again") from error
    shutil.rmtree(holder, ignore_errors=True)
