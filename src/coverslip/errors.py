"""Everything that coverslip raises on purpose.

    CoverslipError
    ├── ConfigError (ValueError)           a key or a value of the config is wrong
    │   └── DivergedError                  the learning rate is so large that the weights are no longer finite
    ├── InputError (ValueError)            a path, table or folder is not what was asked for
    │   └── MissingInputError (FileNotFoundError)
    ├── BadImagesError (ValueError)        images that cannot be read; carries the whole list
    ├── ShardError (ValueError)            a shard of a data set is missing, truncated, or changed
    ├── LeakError (ValueError)             duplicates or groups on both sides of a split
    ├── WeightsError (RuntimeError)        pretrained weights are missing or do not fit
    ├── BundleError (ValueError)           a bundle is incomplete, changed, or fails its self-test
    ├── ExportError (RuntimeError)         a model cannot be written in another format, or does not agree with itself there
    ├── ResourceError (RuntimeError)       memory, disk or time ran out
    │   ├── RunFolderError                 a run folder is taken, or damaged
    │   └── LostProcessError               one of the processes that train together has ended, or does not answer
    ├── UnreachableError (ConnectionError) a service does not answer at the address that was given
    └── MissingExtraError (ImportError)    an optional package is not installed

Each message says what was found, what was expected, and what to do. Every class also inherits from the builtin that a
caller would catch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class CoverslipError(Exception):
    """Base of every error that coverslip raises on purpose."""


class ConfigError(CoverslipError, ValueError):
    """A key or a value of the config is wrong. `problems` holds one sentence per problem."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__(bullet_list(self.problems, head="the config has {n} problems:"))


class DivergedError(ConfigError):
    """The learning rate is so large that the weights are no longer finite numbers."""


class InputError(CoverslipError, ValueError):
    """A path, table or folder is not what was asked for."""


class MissingInputError(InputError, FileNotFoundError):
    """A file or folder does not exist."""


class BadImagesError(CoverslipError, ValueError):
    """Images that cannot be read. `problems` maps each image to its reason."""

    def __init__(self, problems: dict[str, str], advice: str = "") -> None:
        self.problems = dict(problems)
        lines = [f"{image}: {reason}" for image, reason in self.problems.items()]
        noun = "image" if len(lines) == 1 else "images"
        message = f"{len(lines)} {noun} cannot be used:\n" + "\n".join(f"  - {line}" for line in lines)
        super().__init__(f"{message}\n{advice}" if advice else message)


class ShardError(CoverslipError, ValueError):
    """A shard of a data set is missing, truncated, or not the one that was written."""


class LeakError(CoverslipError, ValueError):
    """Duplicates or groups stand on both sides of a split that was given."""


class WeightsError(CoverslipError, RuntimeError):
    """Pretrained weights are missing or do not fit the architecture."""


class BundleError(CoverslipError, ValueError):
    """A bundle is incomplete, changed, or fails its self-test."""


class ExportError(CoverslipError, RuntimeError):
    """A model cannot be written in another format, or gives other scores there."""


class ResourceError(CoverslipError, RuntimeError):
    """Memory, disk or time ran out."""


class RunFolderError(ResourceError):
    """A run folder is taken by another run, or one of its files is damaged."""


class LostProcessError(ResourceError):
    """One of the processes that train a model together has ended, or does not answer any more."""


class UnreachableError(CoverslipError, ConnectionError):
    """A service does not answer at the address that was given, or answers as another one."""


class MissingExtraError(CoverslipError, ImportError):
    """An optional package is needed and not installed."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence that offers the nearest known word, else one that begins alike, or the empty string; case does not count.

    >>> did_you_mean("resnt18", ["resnet18", "vgg16"]), did_you_mean("golgi", ["Cytosol", "Golgi apparatus"])
    (" Did you mean 'resnet18'?", " Did you mean 'Golgi apparatus'?")
    """
    names = list(known)
    folded = [name.casefold() for name in names]
    begun = [name for name in folded if len(word) > 2 and name.startswith(word.casefold())]
    near = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.6) or begun[:1]
    return f" Did you mean {names[folded.index(near[0])]!r}?" if near else ""


def counted(number: int, one: str, several: str = "") -> str:
    """A number and its noun, with more words where these change with it; the plural takes an s when it is not given.

    >>> counted(1, "pixel"), counted(2, "pixel"), counted(1, "row has", "rows have"), counted(3, "row has", "rows have")
    ('1 pixel', '2 pixels', '1 row has', '3 rows have')
    """
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def bullet_list(lines: Sequence[str], head: str) -> str:
    """One line as it is; several under a head, in which `{n}` is their number."""
    if len(lines) == 1:
        return lines[0]
    return head.format(n=len(lines)) + "".join(f"\n  - {line}" for line in lines)
