"""What a user asks to predict: files, folders and tables as samples with names; labels are not needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coverslip.config import DataConfig
from coverslip.data.files import TABLE_SUFFIXES, existing_path, files_below, is_folder, read_columns, suffixes
from coverslip.data.patterns import Pattern
from coverslip.data.shards import TAR
from coverslip.data.sources import file_pattern, table_files
from coverslip.data.webdataset import find_shards
from coverslip.errors import InputError
from coverslip.storage import is_url, place
from coverslip.structures import File


def list_samples(inputs: Sequence[str | Path], config: DataConfig) -> tuple[list[tuple[File, ...]], list[str]]:
    """Expand files, folders (with all folders inside) and CSV or Parquet tables into samples to predict.

    Args:
        inputs: paths; a file is taken as an image whatever its name, unless it is a table. Where a sample is one file a
            channel, any of its files, or its path without channel and ending, stands for it.
        config: the column that names the images, or the pattern of their files, relative to the table.

    Returns:
        The files of each sample, and a name for each: relative to the given folder or table, or as it was given. Where two
        inputs hold the same name, all names are whole paths.

    Raises:
        MissingInputError: an input does not exist.
        InputError: nothing was found, or a table has no such column.
    """
    pattern = file_pattern(config)
    found = [pair for text in inputs for pair in _expanded(text, config, pattern)]
    if not found:
        raise InputError(f"no images in {', '.join(map(str, inputs))}; expected files that end in {suffixes()}")
    unique = {_identity(files[0]): (files, name) for files, name in reversed(found)}
    pairs = list(reversed(unique.values()))
    distinct = len({name for _, name in pairs}) == len(pairs)
    return [files for files, _ in pairs], [name if distinct else str(files[0]) for files, name in pairs]


def _expanded(text: str | Path, config: DataConfig, pattern: Pattern | None) -> list[tuple[tuple[File, ...], str]]:
    by_channel = pattern if pattern is not None and pattern.of_channels else None
    if by_channel is not None and not (is_url(text) or Path(text).exists()):
        files = by_channel.files_at(Path(text).as_posix())
        if any(Path(file).is_file() for file in files):
            return [(tuple(map(Path, files)), str(text))]
    path = existing_path(text)
    shards = find_shards(path, config) if is_folder(path) or path.suffix == TAR else None
    if shards:
        rows = zip(shards.rows["image"].astype(str), shards.rows["files"], strict=True)
        return [(tuple(shards[str(file)] for file in files), name) for name, files in rows]
    if is_folder(path):
        images = files_below(path)[0]
        samples, others = by_channel.gather(images) if by_channel is not None else ([], images)
        named = [*samples, *((name, (name,)) for name in others)]
        return [(tuple(path / file for file in files), name) for name, files in named]
    if path.suffix.lower() in TABLE_SUFFIXES:
        names, own = table_files(read_columns(path), config, path)
        return [(tuple(path.parent / file for file in files), name) for name, files in zip(names, own, strict=True) if name]
    sample = by_channel.sample_of(path.as_posix()) if by_channel is not None else None
    return [((path,), str(path)) if sample is None else (tuple(map(place, sample[1])), str(place(sample[0])))]


def _identity(file: File) -> object:
    return file.absolute() if isinstance(file, Path) else file
