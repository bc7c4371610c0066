"""Writing shards: a table's image files in few large tar files, in bounded memory, several at a time, resumable, read back.

A member of a tar is named by the number of its row, so that WebDataset takes what belongs to a sample together: the image files
(`000000012.png`, or `000000012.red.png` for a channel), `000000012.cls` with the number of its class where it has one label, and
`000000012.json` with its name, labels, part and group.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coverslip.data.pools import in_order
from coverslip.data.shards import FORMAT, INDEX, KIND, PLAN, ROWS, Piece, open_shards
from coverslip.errors import InputError, ResourceError, ShardError
from coverslip.runtime import Progress, cpu_count, hash_file, hash_text, no_progress
from coverslip.storage import AT_ONCE, CHUNK, URL, Place, delete, exists, read, stat, stats, upload, write
from coverslip.structures import Channel, File, IntArray, Table

_UNFINISHED = ".unfinished-"
BYTES = 64_000_000
"""Size of a shard that is aimed at: a few hundred to a few thousand images."""


@dataclass(frozen=True)
class Plan:
    """Which rows go into which shard, and where to.

    Attributes:
        table: n samples.
        channels: of the files of a sample; none where it is one file.
        shards: int64 arrays of table rows.
        destination: folder or URL.
        key: hash of all that decides what the shards hold.
    """

    table: Table
    channels: tuple[Channel, ...]
    shards: tuple[IntArray, ...]
    destination: Place
    key: str


def plan_shards(table: Table, channels: tuple[Channel, ...], destination: Place, *, size: int = BYTES, seed: int | None = 0) -> Plan:
    """Choose the rows of each shard from the sizes of the files; no file is read.

    Args:
        table: n samples.
        channels: of the files of a sample, as the config states them.
        destination: folder or URL.
        size: bytes of a shard that are aimed at.
        seed: of the order in which the samples lie, so that each shard is a fair sample; None keeps the order of the table.

    Raises:
        InputError: a file is missing.
    """
    sizes = _sizes(table)
    order = np.arange(len(table)) if seed is None else np.random.default_rng(seed).permutation(len(table))
    number = np.cumsum(sizes[order]) // max(1, size)
    shards = tuple(order[number == one] for one in np.unique(number))
    said = [
        f"{name} {own} {table.label_text(row) if table.targets is not None else ''}"
        for row, (name, own) in enumerate(zip(table.images, sizes, strict=True))
    ]
    key = hash_text(str(FORMAT), str(size), str(seed), str(channels), *said)
    return Plan(table, channels, shards, destination, key)


def _sizes(table: Table) -> IntArray:
    files = [file for own in table.samples for file in own]
    found = stats([file for file in files if isinstance(file, URL)])

    def size(file: File) -> int:
        if isinstance(file, Path):
            return file.stat().st_size
        if isinstance(file, Piece):
            return file.length
        known = found.get(file) if isinstance(file, URL) else None
        if known is None:
            raise InputError(f"there is nothing at {file}; remove it from the table")
        return known.size

    return np.array([sum(map(size, own)) for own in table.samples], dtype=np.int64)


def write_shards(plan: Plan, *, workers: int | None = None, progress: Progress = no_progress) -> int:
    """Write what is not there yet, read each shard back, and write the index last.

    Args:
        plan: what goes where.
        workers: shards that are written at the same time; as many as there are cores, 4 at most, when not given.
        progress: told about each shard.

    Returns:
        How many shards were written here; the others were there from a run that was stopped.

    Raises:
        ResourceError: something else is at the destination, or the disk is full.
        ShardError: what was written does not read back.
        UnreachableError: a store does not answer.
    """
    if _claim(plan):
        return 0
    written, done = 0, 0
    todo = iter(range(len(plan.shards)))
    workers = workers or min(4, cpu_count())
    with ThreadPoolExecutor(workers) as pool:
        running: set[Future[bool]] = {pool.submit(_one_shard, plan, number) for _, number in zip(range(workers), todo, strict=False)}
        try:
            while running:
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    written += future.result()
                    done += 1
                    progress("shards", done, len(plan.shards), {})
                    running |= {pool.submit(_one_shard, plan, number) for number in [next(todo, None)] if number is not None}
        finally:
            for future in running:
                future.cancel()
    _write_index(plan)
    return written


def shard_name(number: int) -> str:
    """The name of a shard."""
    return f"shard-{number:05d}.tar"


def _claim(plan: Plan) -> bool:
    """Take the destination, or find that a run with the same plan took it; whether that is finished.

    Raises:
        ResourceError: something else is there.
        ShardError: it is finished, but a shard is missing or truncated.
    """
    where = plan.destination
    if not exists(where) or (isinstance(where, Path) and not any(where.iterdir())):
        write(where / PLAN, json.dumps({"kind": KIND, "key": plan.key, "shards": len(plan.shards)}).encode())
        return False
    if isinstance(where, Path):
        for left in where.glob(f"{_UNFINISHED}*"):  # of a run that was killed
            shutil.rmtree(left, ignore_errors=True)
    unfinished = _json(where / PLAN)
    known = unfinished or _json(where / INDEX) or {}
    if known.get("kind") != KIND or known.get("key") != plan.key:
        what = "shards of other data, or made with other options" if known.get("kind") == KIND else "something else than shards"
        raise ResourceError(f"{where} holds {what}; choose another destination, or remove it")
    if unfinished is None:
        _check_whole(where)
    return unfinished is None


def _json(file: Place) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _one_shard(plan: Plan, number: int) -> bool:
    """Write one shard with the note on what is in it; whether it was not there."""
    name = shard_name(number)
    target, note = plan.destination / name, plan.destination / f"{name}.json"
    known = _json(note)
    if known is not None and known.get("key") == plan.key and _size(target) == known["size"]:
        return False
    with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=_near(plan.destination)) as folder:
        file = Path(folder) / name
        rows = _fill(plan, plan.shards[number], file)
        size, digest = file.stat().st_size, hash_file(file)
        if isinstance(target, URL):
            upload(file, target)
        else:
            file.replace(target)
    if _read_back(target, size) != digest:
        raise ShardError(f"the shard {target} does not read back as it was written; write it again, or choose another destination")
    write(note, json.dumps({"key": plan.key, "name": name, "size": size, "sha256": digest, "rows": rows}).encode())
    return True


def _near(destination: Place) -> Path | None:
    """Where a shard is put together: on the disk that it is meant for, so that it can be moved into its place."""
    return destination if isinstance(destination, Path) else None


def _size(file: Place) -> int:
    if isinstance(file, Path):
        return file.stat().st_size if file.is_file() else -1
    known = stat(file)
    return -1 if known is None else known.size


def _read_back(file: Place, size: int) -> str:
    if isinstance(file, Path):
        return hash_file(file)
    digest = hashlib.sha256()
    for start in range(0, size, CHUNK):
        digest.update(read(file, start, min(CHUNK, size - start)))
    return digest.hexdigest()


def _fill(plan: Plan, rows: IntArray, path: Path) -> list[dict[str, Any]]:
    """Write the files of some rows, one after the other; give where each lies."""
    table, samples, said = plan.table, plan.table.samples, []

    def fetch(row: int) -> list[bytes]:
        return [file.read_bytes() for file in samples[row]]

    with path.open("wb") as stream, tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for row, contents in zip(rows.tolist(), in_order(fetch, rows.tolist(), _fetching(table)), strict=True):
            starts = []
            for place, (file, data) in enumerate(zip(samples[row], contents, strict=True)):
                channel = f".{plan.channels[place].source}" if len(contents) > 1 else ""
                _add(tar, f"{row:09d}{channel}{file.suffix.lower()}", data)
                starts.append(stream.tell() - tarfile.BLOCKSIZE * -(-len(data) // tarfile.BLOCKSIZE))
            facts = _facts(table, row)
            if table.targets is not None and table.targets.ndim == 1:
                _add(tar, f"{row:09d}.cls", str(int(table.targets[row])).encode())
            _add(tar, f"{row:09d}.json", json.dumps(facts, ensure_ascii=False).encode())
            digests = [hashlib.sha256(data).hexdigest() for data in contents]
            said.append(facts | {"files": list(table.names[row]), "starts": starts, "lengths": list(map(len, contents)), "sha256": digests})
    return said


def _fetching(table: Table) -> int:
    """Threads that fetch for one shard."""
    return 2 if isinstance(table.root, Path) else AT_ONCE // 2


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    facts = tarfile.TarInfo(name)  # without times and owners: the same files give the same shard
    facts.size = len(data)
    tar.addfile(facts, io.BytesIO(data))


def _facts(table: Table, row: int) -> dict[str, Any]:
    labels: list[str] = []
    if table.targets is not None:
        target = table.targets[row]
        labels = [table.classes[code] for code in np.flatnonzero(target)] if target.ndim else [table.classes[int(target)]]
    part = "" if table.preset is None else str(table.preset[row])
    return {"image": table.images[row], "labels": labels, "part": part, "group": "" if table.groups is None else str(table.groups[row])}


def _write_index(plan: Plan) -> None:
    """The rows of all shards and, last, what the set is; then the notes are of no use any more."""
    where = plan.destination
    notes = [_json(where / f"{shard_name(number)}.json") for number in range(len(plan.shards))]
    shards, rows = [], []
    for number, note in enumerate(notes):
        if note is None:
            raise ShardError(f"{where / shard_name(number)} is missing its note; run the command again")
        shards.append({"name": note["name"], "size": note["size"], "sha256": note["sha256"], "samples": len(note["rows"])})
        rows += [row | {"shard": number} for row in note["rows"]]
    buffer = io.BytesIO()
    pd.DataFrame(rows).to_parquet(buffer, index=False)
    write(where / ROWS, buffer.getvalue())
    table = plan.table
    described: Mapping[str, Any] = {
        "kind": KIND, "format": FORMAT, "key": plan.key, "samples": len(rows), "classes": list(table.classes), "task": str(table.task),
        "channels": [{"name": channel.name, "source": channel.source} for channel in plan.channels],
        "split": table.preset is not None, "groups": table.groups is not None,
        "rows_sha256": hashlib.sha256(buffer.getvalue()).hexdigest(), "shards": shards,
    }  # fmt: skip
    write(where / INDEX, json.dumps(described, indent=1, ensure_ascii=False).encode())
    delete(where / PLAN)
    for number in range(len(plan.shards)):
        delete(where / f"{shard_name(number)}.json")


def _check_whole(where: Place) -> None:
    """Hold every shard of a finished set against its size.

    Raises:
        ShardError: one is missing or truncated.
    """
    for shard in open_shards(where).shards:
        found = _size(shard.place)
        if found != shard.size:
            state = "is missing" if found < 0 else f"has {found:,} bytes, where {shard.size:,} were written"
            raise ShardError(f"the shard {shard.place} {state}; remove {where / INDEX} and run the command again")


def named_channels(channels: Sequence[Channel]) -> dict[str, str]:
    """Channels as `data.channels` states them."""
    return {channel.name: channel.source for channel in channels}
