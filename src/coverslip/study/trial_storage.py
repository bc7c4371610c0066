"""Where trials are kept: an SQLite file, or PostgreSQL by URL, reached within seconds or not at all. The place that meets optuna."""

from __future__ import annotations

import os
import re
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coverslip.errors import ConfigError, ResourceError, UnreachableError, did_you_mean
from coverslip.runtime import require

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import RDBStorage
    from sqlalchemy.engine import URL

KINDS = ("sqlite", "postgresql")
DRIVER = "postgresql+pg8000"
CONNECT_SECONDS = 5.0
"""How long a server may take to answer at the start."""
WAIT_SECONDS = 60.0
"""How long a statement may take later on, a lock on an SQLite file included."""
STARTUP_TRIALS = 8
"""Trials that are drawn at random before the sampler has a model, and run to their end before any is ended early."""

WARM_UP_LOOKS = 2
"""First look at which a trial may be ended."""


def optuna() -> Any:
    """The package, quiet.

    Raises:
        MissingExtraError: it is not installed.
    """
    package = require("optuna", "search")
    package.logging.set_verbosity(package.logging.WARNING)
    return package


def file_storage(path: Path) -> str:
    """The URL of an SQLite file."""
    return f"sqlite:///{path.absolute().as_posix()}"


def hidden(url: str) -> str:
    """A URL as it may be shown and written down: its password is `***`."""
    return _parsed(url).render_as_string(hide_password=True)


def without_password(words: Sequence[str]) -> list[str]:
    """The words of a command, with the password of a storage URL among them hidden."""
    shown = []
    for word in words:
        option, equals, url = word.partition("=") if word.startswith("--storage=") else ("", "", word)
        shown.append(f"{option}{equals}{hidden(url)}" if url.startswith(("postgres", "sqlite:")) and "://" in url else word)
    return shown


def check_url(text: str) -> str:
    """A storage URL with its driver; the password of PostgreSQL may come from PGPASSWORD.

    Raises:
        ConfigError: not a URL, of another kind, or with its password hidden.
    """
    url = _parsed(text)
    name = "postgresql" if url.drivername == "postgres" else url.get_backend_name()
    if name not in KINDS:
        raise ConfigError(
            f"--storage {hidden(text)}: {name} is not a kind of storage.{did_you_mean(name, KINDS)} "
            "Expected sqlite:///FILE or postgresql://USER@HOST:PORT/DATABASE"
        )
    if url.password == "***":
        raise ConfigError(f"--storage {text}: its password was not written down; give the whole URL again by --storage, or set PGPASSWORD")
    if name == "sqlite":
        if not url.database or url.database == ":memory:":
            raise ConfigError(f"--storage {text}: an SQLite storage is a file; say sqlite:///FILE")
        return text
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername=DRIVER)
    if url.password is None and os.environ.get("PGPASSWORD"):
        url = url.set(password=os.environ["PGPASSWORD"])
    return url.render_as_string(hide_password=False)


def open_storage(url: str) -> RDBStorage:
    """Reach a storage, and make its tables when there are none.

    Raises:
        UnreachableError: it does not answer within `CONNECT_SECONDS`, refuses, or holds something else.
        MissingExtraError: optuna or the driver is not installed.
    """
    package, alchemy = optuna(), require("sqlalchemy", "search")
    if url.startswith(DRIVER):
        require("pg8000", "search")
    try:
        if url.startswith("postgresql"):
            _knock(alchemy, url)
        return _storage(url)
    except (alchemy.exc.SQLAlchemyError, package.exceptions.OptunaError, OSError, RuntimeError) as error:
        raise UnreachableError(
            f"the storage {hidden(url)} cannot be used: {_reason(error)}. Check that the server runs and takes this user and database, "
            "or leave --storage out: the trials then go into a file of the study"
        ) from None


def open_study(url: str, name: str, *, direction: str | None = None, sampler: Any = None) -> Study:
    """A study of a storage; made when a direction is given and there is none of this name."""
    package = optuna()
    pruner = package.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=WARM_UP_LOOKS)
    found: Study
    if direction is None:
        found = package.load_study(study_name=name, storage=_storage(url), sampler=sampler, pruner=pruner)
    else:
        found = package.create_study(
            study_name=name, storage=_storage(url), sampler=sampler, pruner=pruner, direction=direction, load_if_exists=True
        )
    return found


def build_sampler(kind: str, seed: int) -> Any:
    """`tpe`: the tree-structured Parzen estimator (Bergstra et al. 2011); `random`: draws that learn nothing."""
    samplers = optuna().samplers
    if kind == "random":
        return samplers.RandomSampler(seed=seed % 2**32)
    return samplers.TPESampler(seed=seed % 2**32, n_startup_trials=STARTUP_TRIALS)


@contextmanager
def answering(url: str) -> Iterator[None]:
    """Turn a storage that stops to answer in the middle of a study into an error that says what to do; close it at the end.

    Raises:
        ResourceError: the connection is lost.
    """
    package, alchemy = optuna(), require("sqlalchemy", "search")
    try:
        yield
    except (alchemy.exc.SQLAlchemyError, package.exceptions.StorageInternalError) as error:
        raise ResourceError(f"the storage {hidden(url)} no longer answers: {_reason(error)}. Go on with --resume when it does") from error
    finally:
        storage = _opened.pop(url, None)
        if storage is not None:
            storage.remove_session()
            storage.engine.dispose()


_opened: dict[str, RDBStorage] = {}
"""The storage of each URL that this process has opened."""


def _storage(url: str) -> RDBStorage:
    """The storage of a URL, one a process."""
    if url in _opened:
        return _opened[url]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # optuna announces what may change in later versions of itself
        found: RDBStorage = optuna().storages.RDBStorage(url, engine_kwargs=_waiting(url, WAIT_SECONDS))
    _opened[url] = found
    return found


def _knock(alchemy: Any, url: str) -> None:
    """Connect and ask for nothing, with little patience."""
    engine = alchemy.create_engine(url, **_waiting(url, CONNECT_SECONDS), poolclass=alchemy.pool.NullPool)
    with engine.connect() as connection:
        connection.execute(alchemy.text("SELECT 1"))


def _waiting(url: str, seconds: float) -> dict[str, Any]:
    """What an engine of a URL is made with, so that it waits so long and no longer."""
    if url.startswith(DRIVER):
        return {"creator": _connector(url, seconds), "pool_pre_ping": True}
    if url.startswith("postgresql"):
        return {"connect_args": {"connect_timeout": int(seconds)}, "pool_pre_ping": True}
    return {"connect_args": {"timeout": seconds}}


def _connector(url: str, seconds: float) -> Callable[[], Any]:
    """Connects by a socket of its own, closed when the server refuses: the driver leaves that to the garbage collector."""
    driver, parsed = require("pg8000.dbapi", "search"), _parsed(url)
    words: Mapping[str, Any] = parsed.get_dialect()().create_connect_args(parsed)[1]

    def connect() -> Any:
        if "unix_sock" in words:
            return driver.connect(**words, timeout=seconds)
        try:
            opened = socket.create_connection((words.get("host", "localhost"), int(words.get("port", 5432))), seconds)
        except OSError as error:
            raise driver.InterfaceError(f"there is no connection to {words.get('host', 'localhost')}: {error}") from error
        try:
            return driver.connect(**words, sock=opened)
        except BaseException:
            if opened.fileno() >= 0:
                socket.close(opened.detach())
            raise

    return connect


def _parsed(text: str) -> URL:
    alchemy = require("sqlalchemy", "search")
    try:
        found: URL = alchemy.engine.make_url(text)
    except (alchemy.exc.ArgumentError, ValueError):
        shown = re.sub(r":[^:@/]*@", ":***@", text)
        raise ConfigError(f"--storage {shown} is no URL; expected sqlite:///FILE or postgresql://USER@HOST:PORT/DATABASE") from None
    return found


def _reason(error: BaseException) -> str:
    """The first line of what the driver said."""
    said = str(getattr(error, "orig", None) or error).strip().splitlines()
    return said[0].rstrip(".") if said else type(error).__name__
