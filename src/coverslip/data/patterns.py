"""File names by pattern: `images/{Id}_{channel}.png` names the files of a sample from the columns of a table, and the other way round."""

from __future__ import annotations

import glob
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from coverslip.errors import ConfigError, InputError, did_you_mean
from coverslip.structures import Channel, natural_order

CHANNEL = "channel"
_FIELD = re.compile(r"\{([^{}]*)\}")


def is_pattern(text: str) -> bool:
    """Whether `data.image` is a pattern and not the name of a column."""
    return "{" in text or "}" in text


@dataclass(frozen=True)
class Pattern:
    """A pattern of file names.

    Attributes:
        text: with the names of columns, or `channel`, in braces.
        channels: what may stand for `channel`, in order.
    """

    text: str
    channels: tuple[Channel, ...]

    def __post_init__(self) -> None:
        """Refuse what cannot name files.

        Raises:
            ConfigError: braces that do not close, no column, or `channel` without channels.
        """
        if re.search(r"[{}]", _FIELD.sub("", self.text)) or "" in _FIELD.findall(self.text):
            raise ConfigError(f"data.image = {self.text!r}: expected names of columns in braces, such as images/{{Id}}_{{channel}}.png")
        if not self.columns:
            raise ConfigError(f"data.image = {self.text!r} names no column that tells the samples apart, such as {{Id}}")
        if self.of_channels and not self.channels:
            raise ConfigError(f'data.image = {self.text!r} has a file for each channel; name them: -s \'data.channels=["red", "green"]\'')

    @property
    def columns(self) -> list[str]:
        """The columns that it needs, in its order."""
        return [name for name in dict.fromkeys(_FIELD.findall(self.text)) if name != CHANNEL]

    @property
    def of_channels(self) -> bool:
        """Whether a sample is one file a channel."""
        return CHANNEL in _FIELD.findall(self.text)

    def files(self, values: Mapping[str, str]) -> tuple[str, ...]:
        """The files of a sample: one, or one a channel in their order.

        >>> Pattern("{Id}_{channel}.png", Channel.of("red", "green")).files({"Id": "a"})
        ('a_red.png', 'a_green.png')
        """
        sources = [channel.source for channel in self.channels] if self.of_channels else [""]
        return tuple(self._filled({**values, CHANNEL: source}) for source in sources)

    def _filled(self, values: Mapping[str, str]) -> str:
        return _FIELD.sub(lambda found: values[found[1]], self.text)

    def rows(self, columns: Mapping[str, Sequence[str]], where: object) -> tuple[list[str], list[tuple[str, ...]]]:
        """The name and the files of each row of a table; the name is the value of the column, `/` between several; empty where one is.

        Raises:
            InputError: the table has no such column.
        """
        for name in self.columns:
            if name not in columns:
                offer = did_you_mean(name, [*columns, *([] if self.of_channels else [CHANNEL])])
                raise InputError(
                    f"the table {where} has no column {name!r} (data.image = {self.text!r}).{offer} Its columns: {', '.join(columns)}"
                )
        values = [dict(zip(self.columns, row, strict=True)) for row in zip(*(columns[name] for name in self.columns), strict=True)]
        names = ["/".join(value.values()) if all(value.values()) else "" for value in values]
        return names, [self.files(value) for value in values]

    def sample_of(self, file: str) -> tuple[str, tuple[str, ...]] | None:
        """The path of the sample that a file belongs to, and all its files; None for a file of another form.

        Only the end of the path is looked at: the file's name, and the folders above it when `channel` stands there.

        >>> Pattern("images/{Id}_{channel}.png", Channel.of("red", "green")).sample_of("x/a_1_green.png")
        ('x/a_1', ('x/a_1_red.png', 'x/a_1_green.png'))
        """
        own = self._tail
        pieces = file.split("/")
        levels = own.files(dict.fromkeys(own.columns, "x"))[0].count("/") + 1
        found = re.fullmatch(own._expression(), "/".join(pieces[-levels:]))
        if found is None:
            return None
        folder, values = "/".join(pieces[:-levels]), {name: found[f"f{place}"] for place, name in enumerate(own.columns)}
        return posixpath.join(folder, *values.values()), tuple(posixpath.join(folder, name) for name in own.files(values))

    def files_at(self, path: str) -> tuple[str, ...]:
        """The files of the sample at a path that ends with its last column, without channel and ending.

        >>> Pattern("images/{Id}_{channel}.png", Channel.of("red", "green")).files_at("x/a_1")
        ('x/a_1_red.png', 'x/a_1_green.png')
        """
        folder, base = posixpath.split(path)
        own = self._tail
        return tuple(posixpath.join(folder, name) for name in own.files(dict.fromkeys(own.columns, base)))

    @property
    def _tail(self) -> Pattern:
        """The shortest end of the pattern, in whole folders, that holds a column and, if there is one, `channel`."""
        pieces = self.text.split("/")
        last = [place for place, piece in enumerate(pieces) for name in _FIELD.findall(piece) if name != CHANNEL][-1]
        channel = [place for place, piece in enumerate(pieces) if f"{{{CHANNEL}}}" in piece]
        return Pattern("/".join(pieces[min([last, *channel]) :]), self.channels)

    def any_channel(self, file: str) -> tuple[str, str] | None:
        """What the files of one sample are called whatever their channel: a glob, and a regular expression with the group `c`.

        Args:
            file: one that `files` gave.

        Returns:
            None where values of columns hold folders.

        >>> Pattern("{Id}_{channel}.png", Channel.of("rde")).any_channel("a_rde.png")
        ('a_*.png', 'a_(?P<c>[^/]+)\\\\.png')
        """
        found = re.fullmatch(self._expression(), file)
        if found is None:
            return None
        values = {name: found[f"f{place}"] for place, name in enumerate(self.columns)}
        pieces = [values.get(piece) if number % 2 else piece for number, piece in enumerate(_FIELD.split(self.text))]
        groups = iter(["(?P<c>[^/]+)", *["(?P=c)"] * len(pieces)])
        like = "".join("*" if piece is None else glob.escape(piece) for piece in pieces)
        return like, "".join(next(groups) if piece is None else re.escape(piece) for piece in pieces)

    def _expression(self) -> str:
        """A regular expression with a group `f<number>` for each column."""
        sources = "|".join(re.escape(channel.source) for channel in self.channels)
        written, seen = "", set[str]()
        for number, piece in enumerate(_FIELD.split(self.text)):
            if number % 2 == 0:
                written += re.escape(piece)
                continue
            group = "c" if piece == CHANNEL else f"f{self.columns.index(piece)}"
            inside = sources if piece == CHANNEL else "[^/]+"
            written += f"(?P={group})" if piece in seen else f"(?P<{group}>{inside})"
            seen.add(piece)
        return written

    def gather(self, files: Iterable[str]) -> tuple[list[tuple[str, tuple[str, ...]]], list[str]]:
        """Files as samples (path, files), each once, in their order; and the files of another form."""
        samples: dict[str, tuple[str, ...]] = {}
        others = []
        for file in files:
            found = self.sample_of(file)
            if found is None:
                others.append(file)
            else:
                samples.setdefault(*found)
        return list(samples.items()), others


def missing_files(
    names: Sequence[str], files: Sequence[tuple[str, ...]], channels: Sequence[Channel], exists: Mapping[str, bool]
) -> list[str]:
    """What is missing of each sample, by name and channel, in natural order.

    Args:
        names: of n samples.
        files: of each, one a channel, or one.
        channels: in the order of the files.
        exists: whether each file is there.
    """
    said = []
    for name, own in zip(names, files, strict=True):
        lost = [(place, file) for place, file in enumerate(own) if not exists[file]]
        if lost and len(own) > 1:
            said.append(f"{name} has no {' and no '.join(f'{channels[place].name} ({file})' for place, file in lost)}")
        elif lost:
            said.append(f"{name} ({own[0]})" if name != own[0] else name)
    return list(natural_order(said))
