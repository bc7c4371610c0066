"""What the marks `uncertain` are worth: how many images carry one, and how often those without are right."""

from __future__ import annotations

from dataclasses import dataclass

from coverslip.report.files import RunFiles, within
from coverslip.report.numbers import Shown, shown

TITLES = {
    "uncertain": "Marked as uncertain",
    "right_unmarked": "Right, of those not marked",
    "wrong_unmarked": "Wrong and not marked",
    "covered": "True class not ruled out",
}
PREFIX = "uncertain: "
"""How notes on the marks begin."""


@dataclass(frozen=True)
class Doubts:
    """What there is to say of the marks.

    Attributes:
        rows: (what, share) on the part that judges.
        notes: what the marks promise, or why there are none.
    """

    rows: list[tuple[str, Shown]]
    notes: list[str]


def doubts(run: RunFiles, part: str | None) -> Doubts | None:
    """The marks of a run or an evaluation; None where nothing is said of them."""
    found = within(run.metrics, "uncertainty", part or "")
    rows = [(title, number) for name, title in TITLES.items() if (number := shown(found.get(name))) is not None]
    said = [str(note) for note in run.environment.get("notes") or [] if str(note).startswith(PREFIX)]
    notes = [f"{note[len(PREFIX)].upper()}{note[len(PREFIX) + 1 :]}." for note in said]
    return Doubts(rows, notes) if rows or notes else None
