"""What runs of a study share, and the order in which sharing costs least."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coverslip.config import RunConfig
from coverslip.preparing import preparation_key
from coverslip.runtime import hash_text
from coverslip.study.grid import PlannedRun


def in_sharing_order(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Runs that share their data stand together, within them those that share their features; otherwise in their order."""
    keys = {run.model_id: (preparation_key(run.config), features_key(run.config)) for run in runs}
    first: dict[Any, int] = {}
    for number, run in enumerate(runs):
        data, features = keys[run.model_id]
        first.setdefault(data, number)
        first.setdefault((data, features), number)
    return sorted(runs, key=lambda run: (first[keys[run.model_id][0]], first[keys[run.model_id]]))


def features_key(config: RunConfig) -> str:
    """Hash of what the features of a frozen backbone depend on, beside the data."""
    model = config.model.model_dump_json(exclude={"head", "class_groups"})
    training = config.training
    computed = (training.regime, training.device, training.precision, training.runtime, str(training.seed))
    return hash_text(model, config.augment.model_dump_json(), *computed)
