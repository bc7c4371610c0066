"""Tar files as WebDataset writes them, as shards: members whose names begin alike, up to the first dot, are one sample.

Of a sample the image is read (or several, `<key>.<channel>.png`), and its label: from `<key>.cls`, the number or name of a class,
or from `<key>.json`, under the name that `data.labels` says, or `label`, `labels`, `cls`.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from coverslip.config import DataConfig
from coverslip.data.braces import expand_braces, has_braces
from coverslip.data.cache import cached
from coverslip.data.images import IMAGE_SUFFIXES
from coverslip.data.reading import stated_channels
from coverslip.data.shards import PLAN, TAR, Shard, Shards, has_index, open_shards
from coverslip.errors import InputError, MissingInputError, ShardError
from coverslip.runtime import hash_file, hash_text, write_json
from coverslip.storage import URL, Place, files_in, local_copy, place, stats
from coverslip.structures import Channel, natural_key

_LABEL_KEYS = ("label", "labels", "cls")


def find_shards(where: Place, config: DataConfig) -> Shards | None:
    """The shards that lie in a folder, or tar files of WebDataset, also by names in braces; None where there are neither.

    Raises:
        ShardError: an index or a tar file is damaged.
        InputError: tar files hold no images.
        UnreachableError: a store does not answer.
    """
    if where.suffix == TAR:
        named = has_braces(str(where)) and not (isinstance(where, Path) and where.exists())
        return _of_tars([place(name) for name in expand_braces(str(where))] if named else [where], config)
    if isinstance(where, URL) and where.parts[0] in ("http", "https") and where.suffix:
        return None
    if has_index(where):
        return open_shards(where)
    tars = _tars_in(where)
    if tars and (where / PLAN).is_file():
        raise ShardError(f"the shards in {where} are not finished; run the same coverslip shard command again")
    return _of_tars(tars, config) if tars else None


def _tars_in(folder: Place) -> list[Place]:
    """The tar files of a folder that holds no folders: with some beside them these are the classes."""
    if isinstance(folder, URL):
        names = [] if folder.parts[0] in ("http", "https") else list(files_in(folder))
    else:
        names = [entry.name for entry in folder.iterdir()] if not any(entry.is_dir() for entry in folder.iterdir()) else []
    return [folder / name for name in sorted(names, key=natural_key) if posixpath.splitext(name)[1] == TAR]


def _of_tars(tars: Sequence[Place], config: DataConfig) -> Shards:
    """The index of some tar files, from the cache where it was made before."""
    wanted = [channel.source for channel in stated_channels(config)]
    key = hash_text("1", str(config.labels), *wanted, *(f"{tar} {version}" for tar, version in zip(tars, _versions(tars), strict=True)))
    folder = cached("indexes", key, lambda holder: _write_index(tars, config, holder), size=0, limit=10**18)
    described = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    shards = [Shard(tar, one["size"], one["sha256"]) for tar, one in zip(tars, described["shards"], strict=True)]
    return Shards(shards, pd.read_parquet(folder / "rows.parquet"), described)


def _versions(tars: Sequence[Place]) -> Iterator[str]:
    """Texts that change with the content of tar files.

    Raises:
        MissingInputError: one is not there.
    """
    far = stats([tar for tar in tars if isinstance(tar, URL)])
    for number, tar in enumerate(tars, start=1):
        which = f", file {number} of {len(tars)}" if len(tars) > 1 else ""
        if isinstance(tar, Path):
            if not tar.is_file():
                raise MissingInputError(f"there is nothing at {tar}{which}")
            yield f"{tar.stat().st_size} {tar.stat().st_mtime_ns}"
            continue
        known = far[tar]
        if known is None:
            raise MissingInputError(f"there is nothing at {tar}{which}")
        yield f"{known.size} {known.version}"


def _write_index(tars: Sequence[Place], config: DataConfig, holder: Path) -> None:
    rows: list[dict[str, Any]] = []
    shards = []
    for number, tar in enumerate(tars):
        with local_copy(tar) as path:
            found = list(_samples(path, tar))
            rows += [sample.row(number, config, tar) for sample in found if sample.images]
            shards.append({"size": path.stat().st_size, "sha256": hash_file(path)})
    if not rows:
        raise InputError(f"{tars[0]}{' and the others' if len(tars) > 1 else ''} hold no images; expected members such as 000001.png")
    several = any(len(row["labels"]) != 1 for row in rows) and any(row["labels"] for row in rows)
    channels = rows[0].pop("channels")
    for row in rows[1:]:
        if row.pop("channels") != channels:
            raise InputError(f"{row['image']} has other channels than {rows[0]['image']} ({', '.join(channels) or 'one file'})")
    names = [row["image"] for row in rows]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"the sample {twice} stands in the tar files more than once; remove one")
    pd.DataFrame(rows).to_parquet(holder / "rows.parquet", index=False)
    described = {"task": "multilabel" if several else "multiclass", "channels": [vars(one) for one in Channel.of(*channels)]}
    write_json(holder / "index.json", {**described, "shards": shards})


@dataclass
class _Sample:
    """The members of one sample: images by ending (name, start, length, SHA-256), and what says its label."""

    key: str
    images: dict[str, tuple[str, int, int, str]] = field(default_factory=dict)
    said: dict[str, bytes] = field(default_factory=dict)

    def row(self, shard: int, config: DataConfig, tar: Place) -> dict[str, Any]:
        """A row of the index."""
        try:
            facts = json.loads(self.said["json"]) if "json" in self.said else {}
        except ValueError as error:
            raise ShardError(f"{self.key}.json in {tar} is not JSON: {error}") from None
        facts = facts if isinstance(facts, dict) else {"label": facts}
        wanted = [channel.source for channel in stated_channels(config)]
        found = {ending.rpartition(".")[0]: place for ending, place in self.images.items()}
        order = wanted if len(found) > 1 and set(wanted) <= set(found) else sorted(found, key=natural_key)
        names, starts, lengths, digests = zip(*(found[channel] for channel in order), strict=True)
        return {
            "image": str(facts.get("image") or (names[0] if len(names) == 1 else self.key)), "labels": self._labels(facts, config),
            "part": str(facts.get("part") or ""), "group": str(facts.get("group") or ""), "files": list(names), "shard": shard,
            "starts": list(starts), "lengths": list(lengths), "sha256": list(digests), "channels": order if len(order) > 1 else [],
        }  # fmt: skip

    def _labels(self, facts: dict[str, Any], config: DataConfig) -> list[str]:
        keys = ([config.labels] if isinstance(config.labels, str) else []) + ["labels", *_LABEL_KEYS]
        value = next((facts[key] for key in keys if key in facts), None)
        if value is None and "cls" in self.said:
            value = self.said["cls"].decode("utf-8", "replace").strip()
        return [str(one) for one in value] if isinstance(value, list) else [] if value is None else [str(value)]


def _samples(path: Path, tar: Place) -> Iterator[_Sample]:
    """The samples of a tar file, in its order.

    Raises:
        ShardError: it is no tar file, or truncated.
    """
    current: _Sample | None = None
    size = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as opened, path.open("rb") as stream:
            for member in opened:
                if not member.isfile():
                    continue
                if member.offset_data + member.size > size:
                    raise ShardError(f"the shard {tar} is truncated: it ends in the middle of {member.name}; copy it anew")
                folder, base = posixpath.split(member.name)
                stem, _, ending = base.partition(".")
                key = posixpath.join(folder, stem)
                if current is None or key != current.key:
                    if current is not None:
                        yield current
                    current = _Sample(key)
                stream.seek(member.offset_data)
                data = stream.read(member.size)
                if posixpath.splitext(base)[1].lower() in IMAGE_SUFFIXES:
                    place = (member.name, member.offset_data, member.size, hashlib.sha256(data).hexdigest())
                    current.images[ending] = place
                else:
                    current.said[ending.lower()] = data
    except tarfile.TarError as error:
        raise ShardError(f"the shard {tar} is damaged, or no tar file: {error}; copy it anew") from None
    if current is not None:
        yield current
