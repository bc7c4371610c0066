"""What a reader of the numbers has to know about a fit, in sentences; each is empty when there is nothing to tell."""

from __future__ import annotations

LATE = 0.6
"""Share of a budget in minutes from which it is told that it went by before the first step."""


def late(budget: float, left: float) -> str:
    """Most of a budget, both in seconds, went by before the first step of all layers."""
    spent = budget - left
    first = "the features of the frozen backbone and a first head, or maps of frozen layers, took"
    return f"{first} {spent:.0f} s, and training.minutes allows {budget:.0f} s for all" if spent > LATE * budget else ""


def replanned(steps: int, planned: int) -> str:
    """The budget held another number of steps than was planned."""
    if steps == planned:
        return ""
    became = "slower" if steps < planned else "faster"
    return (
        f"{steps} steps in place of {planned}: the machine became {became} than it was when its first steps were timed, and "
        "training.minutes was kept"
    )


def untrained(steps: int, validation: int, *, head_learned: bool) -> str:
    """The weights before the first step did best on so many validation images."""
    what = "all layers but the head are as they were" if head_learned else "the model is as it was before it learned"
    return (
        f"on the {validation} validation images the weights after {steps} step{'' if steps == 1 else 's'} did no better "
        f"than those before the first, which are kept: {what}. A larger validation part tells better; "
        "split.validation = 0 keeps the last weights"
    )


def diverged(rate: float, steps: int, kept: int) -> str:
    """The weights were no longer finite, and those of an earlier step were kept."""
    whose = f"those of step {kept}" if kept else "those before the first step of all layers"
    return (
        f"training.learning_rate = {rate} is too large: by step {steps} the weights were no longer finite numbers, and {whose} are kept; "
        "make it smaller"
    )
