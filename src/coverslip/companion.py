"""What every process but the first does where several train one model: it fits and scores what it is told, and writes nothing."""

from __future__ import annotations

from coverslip.fitting import Fits
from coverslip.preparing import prepare
from coverslip.runtime import no_progress
from coverslip.training.fit import Fitted
from coverslip.training.ranks import Ranks


def accompany(ranks: Ranks) -> None:
    """Live through the fits of a run as its first process tells, to the end.

    Data is prepared when the first fit is asked for: the config then has no `auto` left, and what lies in this machine's cache is used.

    Raises:
        ConfigError: this process sees other images, or finds other weights, than the first.
        LostProcessError: another process has ended in the middle.
    """
    learner: Fits | None = None
    fitted: Fitted | None = None
    while (asked := ranks.told()).verb != "end":
        details = dict(asked.details)
        if asked.verb == "fit":
            config = details.pop("config")
            learner = learner or Fits(ranks.in_turn(lambda config=config: prepare(config)), None, no_progress)  # type: ignore[misc]
            learner.config = config
            fitted = learner.fit(**details)
        elif asked.verb == "score" and learner and fitted:
            fitted.scores(learner.data.samples, **details)
        else:
            raise RuntimeError(f"asked for {asked.verb!r} before any fit")
