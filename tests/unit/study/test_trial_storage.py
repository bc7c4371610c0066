"""Storages are reached within seconds or refused, and passwords stay out of what is shown."""

from __future__ import annotations

import time
from pathlib import Path

import optuna
import pytest

from coverslip.errors import ConfigError, UnreachableError
from coverslip.study.trial_storage import (
    build_sampler,
    check_url,
    file_storage,
    hidden,
    open_storage,
    open_study,
    without_password,
)
from servers import free_port, postgres_server, silent_server


def refused(url: str) -> str:
    """The error of a storage, which must come within seconds."""
    began = time.perf_counter()
    with pytest.raises(UnreachableError) as caught:
        open_storage(check_url(url))
    assert time.perf_counter() - began < 8
    return str(caught.value)


def test_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGPASSWORD", raising=False)
    assert check_url("sqlite:///trials.db") == "sqlite:///trials.db"
    assert check_url("postgresql://me@host/base") == "postgresql+pg8000://me@host/base"
    assert check_url("postgres://me:word@host:99/base") == "postgresql+pg8000://me:word@host:99/base"
    assert check_url("postgresql+psycopg://me@host/base") == "postgresql+psycopg://me@host/base"
    monkeypatch.setenv("PGPASSWORD", "secret")
    assert check_url("postgresql://me@host/base") == "postgresql+pg8000://me:secret@host/base"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("trials.db", "is no URL; expected sqlite:///FILE or postgresql://"),
        ("postgresql://me:secret@host:port/base", r"postgresql://me:\*\*\*@host:port/base is no URL"),
        ("mysql://me:secret@host/base", r"--storage mysql://me:\*\*\*@host/base: mysql is not a kind of storage"),
        ("postgresq://host/base", "Did you mean 'postgresql'"),
        ("sqlite://", "an SQLite storage is a file"),
        ("sqlite:///:memory:", "an SQLite storage is a file"),
        ("postgresql://me:***@host/base", "its password was not written down"),
    ],
)
def test_what_is_no_storage(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        check_url(url)
    assert "secret" not in str(caught.value)


def test_passwords_are_hidden() -> None:
    assert hidden("postgresql+pg8000://me:secret@host/base") == "postgresql+pg8000://me:***@host/base"
    words = ["coverslip", "search", "data", "--storage", "postgresql://me:secret@host/base", "--storage=postgres://me:secret@host/base"]
    assert not any("secret" in word for word in without_password(words))
    assert without_password(words)[:4] == words[:4]


def test_a_server_that_is_not_there_is_refused_within_seconds() -> None:
    assert "127.0.0.1" in refused(f"postgresql://me:secret@127.0.0.1:{free_port()}/base")


def test_a_server_that_never_answers_is_refused_within_seconds() -> None:
    with silent_server() as port:
        said = refused(f"postgresql://me:secret@127.0.0.1:{port}/base")
    assert "cannot be used" in said
    assert "secret" not in said


def test_a_file_that_is_no_storage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no database, only words " * 100)
    assert "file is not a database" in refused(file_storage(tmp_path / "notes.txt"))
    assert "unable to open" in refused(file_storage(tmp_path / "no folder" / "trials.db"))


def test_postgresql_refuses_a_wrong_password_and_an_unknown_database() -> None:
    with postgres_server() as url:
        assert "password authentication failed" in refused(url.replace("coverslip:", "coverslip:wrong"))
        assert 'database "nothing" does not exist' in refused(url.removesuffix("/postgres") + "/nothing")
        open_storage(check_url(url))


def test_a_study_is_found_again_by_plain_optuna(tmp_path: Path) -> None:
    url = file_storage(tmp_path / "trials.db")
    study = open_study(url, "mine", direction="minimize")
    trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    study.tell(trial, 0.5)
    assert open_study(url, "mine", direction="minimize").trials[0].value == 0.5
    assert optuna.load_study(study_name="mine", storage=url).best_value == 0.5


@pytest.mark.parametrize("kind", ["tpe", "random"])
def test_the_draw_depends_on_the_seed(kind: str, tmp_path: Path) -> None:
    space = {"x": optuna.distributions.FloatDistribution(0, 1)}
    drawn = []
    for name, seed in (("a", 2**62 + 1), ("b", 2**62 + 1), ("c", 2)):
        study = open_study(file_storage(tmp_path / "trials.db"), name, direction="minimize", sampler=build_sampler(kind, seed))
        drawn.append(study.ask(space).params["x"])
    assert drawn[0] == drawn[1] != drawn[2]
