"""References that the methods paragraph cites."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib import resources


@cache
def references() -> dict[str, str]:
    """Every reference that can be cited, by its key."""
    return tomllib.loads(resources.files("coverslip.report").joinpath("references.toml").read_text(encoding="utf-8"))


@dataclass
class Citations:
    """Numbers references in the order of their first use."""

    keys: list[str] = field(default_factory=list)

    def cite(self, *keys: str) -> str:
        """The mark of some references: ` [1]`, ` [1, 2]`; empty for unknown ones."""
        known = [key for key in keys if key in references()]
        self.keys.extend(key for key in known if key not in self.keys)
        return f" [{', '.join(str(self.keys.index(key) + 1) for key in known)}]" if known else ""

    @property
    def texts(self) -> list[str]:
        """The references, in order."""
        return [references()[key] for key in self.keys]
