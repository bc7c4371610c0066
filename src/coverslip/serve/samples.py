"""From the parts of a request to samples: one part a sample, or one part a channel, told by the names of the files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from coverslip.data.patterns import Pattern
from coverslip.data.reading import FileContent
from coverslip.structures import Channel


@dataclass(frozen=True)
class Named:
    """A sample with its name; `files` is empty, and `problem` says why, where channels are missing."""

    name: str
    files: tuple[FileContent, ...] = ()
    problem: str = ""


def gather_samples(parts: Sequence[FileContent], channels: Sequence[Channel], pattern: Pattern | None) -> list[Named]:
    """Put parts together that are channels of one sample, in the order in which their samples begin.

    Args:
        parts: as they were sent.
        channels: of the model; fewer than two are never spread over several files.
        pattern: by which the model names files; `<Id>_<channel>.<ending>` is understood too.

    Returns:
        One for each sample. A part that is named like no channel stands for a whole sample.
    """
    if len(channels) < 2:
        return [Named(part.name, (part,)) for part in parts]
    begun: dict[str, list[dict[int, FileContent]]] = {}
    order: list[tuple[str, dict[int, FileContent]] | FileContent] = []
    for part in parts:
        found = _channel_of(part.name, channels, pattern)
        if found is None:
            order.append(part)
            continue
        name, place = found
        open_ones = begun.setdefault(name, [])
        sample = next((one for one in open_ones if place not in one), None)
        if sample is None:
            sample = {}
            open_ones.append(sample)
            order.append((name, sample))
        sample[place] = part
    return [Named(one.name, (one,)) if isinstance(one, FileContent) else _complete(*one, channels) for one in order]


def _complete(name: str, found: dict[int, FileContent], channels: Sequence[Channel]) -> Named:
    missing = [channel.source for place, channel in enumerate(channels) if place not in found]
    if not missing:
        return Named(name, tuple(found[place] for place in range(len(channels))))
    whole = ", ".join(channel.source for channel in channels)
    sent = ", ".join(found[place].name for place in sorted(found))
    lacking = f"the channel{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
    return Named(name, problem=f"there is no file for {lacking} ({sent} came); a sample has {whole}")


def _channel_of(file: str, channels: Sequence[Channel], pattern: Pattern | None) -> tuple[str, int] | None:
    """The sample and the place of the channel that a file's name speaks of."""
    if pattern is not None and pattern.of_channels:
        found = pattern.sample_of(file)
        if found is not None:
            return found[0], found[1].index(file)
    path = PurePosixPath(file)
    for place, channel in enumerate(channels):
        for word in dict.fromkeys((channel.source, channel.name)):
            ending = re.fullmatch(rf"(.+)[_-]{re.escape(word)}", path.stem, re.IGNORECASE)
            if ending is not None:
                return str(path.with_name(ending[1])), place
    return None
