"""A search, top to bottom: trials that never see the test part, the best of them trained in full, and one look at the test part."""

from __future__ import annotations

import secrets
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coverslip.config import merge_layers, read_toml
from coverslip.errors import ConfigError, InputError, ResourceError
from coverslip.preparing import Prepared
from coverslip.runtime import Progress, machine_facts, no_progress, package_versions
from coverslip.storage import URL, absolute, place
from coverslip.structures import PARTS
from coverslip.study.budget import Budget, plan_budget
from coverslip.study.engines import Done, Engine
from coverslip.study.folder import STUDY, StudyFolder
from coverslip.study.jobs import Job, JobResult, perform, shared_data
from coverslip.study.search_record import read_best, read_outcome, write_best, write_outcome, write_trials
from coverslip.study.space import Space, differences, load_space, read_space, same_space, space_names
from coverslip.study.trial import make_trial
from coverslip.study.trial_storage import answering, check_url, file_storage, hidden, open_storage, optuna, without_password
from coverslip.study.trials import Trials

TRIALS_FILE = "trials.db"


@dataclass(frozen=True)
class SearchRequest:
    """What was asked for.

    Attributes:
        space: where to look, on which data.
        budget: how long.
        folder: of the study.
        storage: URL of the storage of the trials; a file in the folder when None.
        resume: whether a search that was stopped in the folder goes on.
        command: the command line, for the record.
    """

    space: Space
    budget: Budget
    folder: Path
    storage: str | None = None
    resume: bool = False
    command: str = ""


def request_search(
    data: Mapping[str, Any],
    folder: Path,
    *,
    space: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    trials: int | None = None,
    minutes: float | None = None,
    storage: str | None = None,
    resume: bool = False,
    command: Sequence[str] = (),
) -> SearchRequest:
    """Everything that can be known to be right or wrong before any work.

    Args:
        data: config layer of the data.
        folder: of the study.
        space: by name or file; that of the study in the folder when it goes on.
        overrides: nested mapping of `-s KEY=VALUE`.
        trials: how many; those of the study when it goes on.
        minutes: for everything; those of the study when it goes on.
        storage: URL; a file in the folder, or that of the study, when None.
        resume: whether the search in the folder goes on.
        command: the words of the command line.

    Raises:
        ConfigError: no space, or one that is wrong, with all that is wrong; a storage that is no URL.
        MissingInputError: no such space.
    """
    file = folder / STUDY
    stored = read_toml(file) if resume and file.is_file() else {}
    if space is None and not stored:
        raise ConfigError(f"say where to search: --space NAME or FILE. Spaces: {', '.join(space_names())}")
    layer = merge_layers(data, {"data": {"path": absolute(str(data.get("data", {}).get("path", "")))}})
    content = stored if space is None else load_space(space)
    read = read_space(str(stored.get("name", "")) if space is None else space, content, layer, overrides or {})
    if trials is None and minutes is None:
        trials, minutes = stored.get("trials"), stored.get("minutes")
    budget = plan_budget(read.defaults.training, read.settings.trial_share, trials, minutes)
    if stored:
        lengths = stored["length"]
        budget = replace(budget, full=lengths["full"], short=lengths["trial"], note=lengths["note"])
    shown = shlex.join(without_password(command)) if command else ""
    return SearchRequest(read, budget, folder, check_url(storage) if storage else None, resume, shown)


def refuse_far_file(storage: str | None, out: str | None) -> None:
    """Refuse an SQLite file of this machine for a study that goes to a URL: where it goes on, its trials would be missing.

    Raises:
        ConfigError: that is what was asked for.
    """
    if storage is not None and storage.startswith("sqlite") and out is not None and isinstance(place(out), URL):
        raise ConfigError(
            f"--storage {storage} stays on this machine, while the study goes to {out}; leave --storage out (the trials are then kept in "
            f"{TRIALS_FILE} of the study and sent with it), or say postgresql://USER@HOST/DATABASE"
        )


def search(
    asked: SearchRequest, engine: Engine, *, progress: Progress = no_progress, announce: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Search, train the best configuration in full, and judge it beside the defaults on the test part.

    Args:
        asked: what was asked for.
        engine: who makes the trials.
        progress: told about the trials.
        announce: told in some lines what is searched where.

    Returns:
        The content of verdict.json.

    Raises:
        UnreachableError: the storage cannot be used.
        ConfigError: the study in the folder is another one.
        InputError: the data is not what was asked for, or has no part to choose or to judge by.
        RunFolderError: the folder is taken.
        ResourceError: no trial came to its end, or a final training failed.
    """
    began = time.perf_counter()
    with StudyFolder.claim(asked.folder, "search", resume=asked.resume) as place:
        facts = _facts(asked, place)
        if (found := read_outcome(place)) is not None:
            announce("this search was finished before, and its model judged on the test part; nothing was done")
            return found
        url = _storage_of(asked, place)
        open_storage(url)
        data = shared_data(asked.space.defaults, progress)
        _check_parts(data)
        place.write_study(facts | {"storage": hidden(url) if asked.storage or "storage" in place.stored() else None})
        for line in _introduction(asked, data):
            announce(line)
        best = read_best(place)
        if best is None:
            with answering(url):
                trials = Trials(asked.space, asked.budget, place, url, facts["study"], engine.workers, began)
                for done in engine.each(make_trial, trials.tasks()):
                    trials.take(done)
                    progress(*trials.state())
                write_trials(place, asked.space, trials.studies)
                shutil.rmtree(place.path / "trials", ignore_errors=True)
                best = write_best(place, trials.best())
        full = {"training": asked.budget.full}
        configs = {"final": asked.space.config(best.values, full), "defaults": asked.space.config({}, full)}
        jobs = [Job(name, config, place.run_folder(name).absolute()) for name, config in configs.items()]
        made = {done.task.name: _finished(done) for done in engine.each(perform, jobs)}
        return write_outcome(place, asked.space, best, made)


def _facts(asked: SearchRequest, place: StudyFolder) -> dict[str, Any]:
    """What study.toml says; written when a search begins, compared when it goes on.

    Raises:
        ConfigError: the folder holds a search of another space, or on other data.
    """
    stored, space, budget = place.stored(), asked.space.to_toml(), asked.budget
    earlier = {name: stored.get(name, {}) for name in space}
    if stored and not same_space(space, earlier):
        changed = ", ".join(differences(earlier, space))
        raise ConfigError(
            f"{place.path} holds a search that differs in {changed}; go on with what it was started with (leave --space and -s out), "
            "or choose another --out"
        )
    given = stored.get("command") or asked.command
    limits = {"trials": budget.trials, "minutes": None if budget.seconds is None else budget.seconds / 60}
    lengths = {"full": budget.full, "trial": budget.short, "note": budget.note}
    named = {"name": asked.space.name, "study": stored.get("study") or f"{place.path.name}-{secrets.token_hex(3)}"}
    named |= {"versions": package_versions() | {"optuna": optuna().__version__}, "machine": machine_facts()}
    return named | {"command": given, "data": str(asked.space.defaults.data.path)} | limits | {"length": lengths} | space


def _storage_of(asked: SearchRequest, place: StudyFolder) -> str:
    """Where the trials are kept: as asked, as at the first start, or in a file of the folder.

    Raises:
        ConfigError: they were kept elsewhere when the search began.
    """
    stored, own = place.stored(), file_storage(place.path / TRIALS_FILE)
    url = check_url(asked.storage or str(stored.get("storage") or own))
    before = str(stored.get("storage") or hidden(own))
    if stored and hidden(url) != before:
        raise ConfigError(f"{place.path} keeps its trials in {before}, not in {hidden(url)}; go on with that, or choose another --out")
    return url


def _check_parts(data: Prepared) -> None:
    """Refuse data that leaves nothing to choose or to judge by."""
    if data.split.folds is None and not len(data.split.rows("validation")):
        raise InputError("a search chooses on the validation part, and there is none; set split.validation, or split.folds")
    if not len(data.split.rows("test")):
        raise InputError("the model of a search is judged on a test part that no trial has seen, and there is none; set split.test")


def _introduction(asked: SearchRequest, data: Prepared) -> Iterator[str]:
    """What is about to be searched, where and how long."""
    yield f"images: {', '.join(f'{len(data.split.rows(part)):,} {part}' for part in PARTS)}; no trial sees the test part"
    for dimension in asked.space.dimensions:
        yield f"varies: {dimension}"
    yield f"budget: {asked.budget.sentence}"
    if asked.budget.note:
        yield f"note: {asked.budget.note}"


def _finished(done: Done[Job, JobResult]) -> JobResult:
    if done.result is None:
        raise ResourceError(f"the final training {done.task.name!r} failed: {done.error}. Mend the cause and go on with --resume")
    return done.result
