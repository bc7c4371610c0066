"""A folder that is worked in, and its copy in a store: sent as it grows, so that a machine that is lost takes little with it.

What is sent is a moment of the folder, held fast by hard links, in the order in which it was written: at any time the store holds
what a process that was killed would have left behind. Beside it lies `WORKING`, which says whose working copy is the newest.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import shutil
import socket
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from coverslip.errors import CoverslipError, MissingInputError, ResourceError
from coverslip.runtime import HOLDER, write_json
from coverslip.storage.addresses import URL
from coverslip.storage.connecting import AT_ONCE
from coverslip.storage.copies import delete, download_folder, upload, write
from coverslip.storage.folders import exists
from coverslip.storage.reading import read

WORKING = ".working.json"
"""In the store while the folder is worked in: who does, and the name of the working copy."""
SHORTEST_PAUSE, LONGEST_PAUSE = 5.0, 60.0
"""Seconds between two looks at the folder; within them, nine times as long as the last look and sending took."""
SENT = "sent.json"
_OWN = re.compile(r"\.lock|.*-(journal|wal|shm)")
_SQLITE = b"SQLite format 3\0"
_LOG = logging.getLogger("coverslip")

Signature = tuple[int, int]
"""Size in bytes and time of the last change in nanoseconds."""


class Mirror:
    """A local folder whose content goes to a URL, again and again while it is worked in, and once more at the end.

    Args:
        folder: the working copy; it need not exist yet.
        url: where its content goes.
        notes: a folder of this machine for what the mirror has to remember.
        last: names of files that are sent after all that was written before them, for they say that it is whole.
    """

    def __init__(self, folder: Path, url: URL, notes: Path, last: Collection[str] = ()) -> None:
        self.folder, self.url, self.notes, self.last = folder, url, notes, frozenset(last)
        self.copy = ""
        """Name of the working copy, under which the store knows it."""
        self.sent: dict[str, Signature] = {}
        self.claimed = False
        self._lock = threading.Lock()

    # Beginning

    def begin(self) -> None:
        """A new working copy, of which the store learns when there is something in it."""
        self.copy = secrets.token_hex(8)
        self._remember()

    def go_on(self) -> None:
        """Go on with the working copy of this machine, or, where another has gone on since, with what lies in the store.

        Raises:
            UnreachableError: the store does not answer.
        """
        known, holder = self._known(), self._holder()
        if self.folder.exists() and known is not None and (holder == known or self._is_new()):
            self.copy, self.claimed = known, holder == known
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.sent = {}
        self.begin()
        names = download_folder(self.url, self.folder)
        (self.folder / WORKING).unlink(missing_ok=True)
        self.sent = {name: found for name, found in self._signatures().items() if name in names}
        if self.sent:
            self._claim()
        self._remember()

    def _known(self) -> str | None:
        """The name of the working copy on this machine, and what was sent of it."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            told = json.loads((self.notes / SENT).read_text(encoding="utf-8"))
            self.sent = {name: (size, changed) for name, (size, changed) in told["sent"].items()}
            return str(told["copy"])
        return None

    def _holder(self) -> str | None:
        """The working copy that the store knows as the newest; None where nobody works in the folder."""
        try:
            return str(json.loads(read(self.url / WORKING))["copy"])
        except (MissingInputError, ValueError, KeyError, TypeError):
            return None

    def _is_new(self) -> bool:
        """Whether nothing of the working copy was sent before, and nothing lies in the store."""
        return not self.sent and not exists(self.url)

    def _remember(self) -> None:
        write_json(self.notes / SENT, {"copy": self.copy, "sent": self.sent})

    def _claim(self) -> None:
        told = {"copy": self.copy, "host": socket.gethostname(), "process": os.getpid()}
        write(self.url / WORKING, json.dumps(told).encode() + b"\n")
        self.claimed = True

    # Sending

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Send what changes while the block lasts, in a thread; what a store does not take now it is given later."""
        over = threading.Event()
        thread = threading.Thread(target=self._send_until, args=(over,), name="coverslip-mirror", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _send_until(self, over: threading.Event) -> None:
        pause = SHORTEST_PAUSE
        while not over.wait(pause):
            began = time.monotonic()
            try:
                self.send(over)
            except CoverslipError as error:
                _LOG.warning("not sent to %s yet: %s", self.url, error)
                if isinstance(error, ResourceError):
                    return
            pause = min(LONGEST_PAUSE, max(SHORTEST_PAUSE, 9 * (time.monotonic() - began)))

    def send(self, over: threading.Event | None = None) -> None:
        """Bring the store to what the folder holds now.

        Args:
            over: when set, sending ends at the next file.

        Raises:
            ResourceError: another working copy has gone on with what lies at the URL.
            InputError: access refused.
            UnreachableError: the store does not answer.
        """
        with self._lock:
            found = self._signatures()
            changed = [name for name, signature in found.items() if self.sent.get(name) != signature]
            gone = [name for name in self.sent if name not in found]
            if not changed and not gone:
                return
            self._check_holder()
            with self._moment(changed, found) as (moment, held):
                for wave in self._waves(held):
                    if over is not None and over.is_set():
                        break
                    with ThreadPoolExecutor(AT_ONCE) as pool:
                        list(pool.map(lambda name: upload(moment / name, self.url / name), wave))
                    self.sent |= {name: held[name] for name in wave}
                    self._remember()
                else:
                    for name in gone:
                        delete(self.url / name)
                        del self.sent[name]
            self._remember()

    def _check_holder(self) -> None:
        if not self.claimed:
            self._claim()
        elif self._holder() != self.copy:
            raise ResourceError(f"another process has gone on with what lies at {self.url}; what this one made stays in {self.folder}")

    def _signatures(self) -> dict[str, Signature]:
        """Every file of the folder that is whole, by its name."""
        found: dict[str, Signature] = {}
        for above, folders, files in os.walk(self.folder):
            folders[:] = [name for name in folders if not HOLDER.fullmatch(name)]
            for name in files:
                path = Path(above) / name
                if not _OWN.fullmatch(name):
                    with suppress(FileNotFoundError):
                        facts = path.stat()
                        found[path.relative_to(self.folder).as_posix()] = (facts.st_size, facts.st_mtime_ns)
        return found

    @contextmanager
    def _moment(self, names: Sequence[str], found: Mapping[str, Signature]) -> Iterator[tuple[Path, dict[str, Signature]]]:
        """Some files as they are now, in a folder that nobody else changes, and their signatures."""
        moment = self.notes / "moment"
        shutil.rmtree(moment, ignore_errors=True)
        held: dict[str, Signature] = {}
        for name in names:
            with suppress(FileNotFoundError):  # of what is gone by now the next look knows
                hold_fast(self.folder / name, moment / name)
                held[name] = found[name]
        try:
            yield moment, held
        finally:
            shutil.rmtree(moment, ignore_errors=True)

    def _waves(self, held: Mapping[str, Signature]) -> Iterator[list[str]]:
        """Names in the order in which they were written, several that may be sent at a time; one that others rest on goes alone."""
        wave: list[str] = []
        for name in sorted(held, key=lambda name: (held[name][1], name.rpartition("/")[2] in self.last, name)):
            if name.rpartition("/")[2] in self.last:
                yield wave
                yield [name]
                wave = []
            else:
                wave.append(name)
        yield wave

    # Ending

    def finish(self) -> None:
        """Send what is left, and let the store know that nobody works in the folder any more; errors as those of `send`."""
        self.send()
        if self.claimed:
            delete(self.url / WORKING)

    def give_up(self) -> None:
        """After an error: send what there is, if it can be; what is left in the store is no more than lies in the folder."""
        try:
            self.send()
            if self.claimed and not self.sent:
                delete(self.url / WORKING)
        except CoverslipError as error:
            _LOG.warning("not sent to %s: %s", self.url, error)


def hold_fast(file: Path, copy: Path) -> None:
    """A second name for a file that is only ever replaced; a copy where the disk gives none, and of a database, which changes in place.

    Raises:
        FileNotFoundError: the file is gone.
    """
    copy.parent.mkdir(parents=True, exist_ok=True)
    with file.open("rb") as stream:
        is_database = stream.read(len(_SQLITE)) == _SQLITE
    if is_database:
        with closing(sqlite3.connect(file, timeout=60)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        return
    try:
        os.link(file, copy)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(file, copy)
