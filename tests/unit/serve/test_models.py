"""The names of bundles that are served, from folders and from URLs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from coverslip.errors import InputError
from coverslip.serve.models import name_bundles
from coverslip.storage import ENDPOINT
from object_server import object_server
from unit.export.kinds import saved


def test_bundles_are_called_as_their_run_wherever_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("COVERSLIP_CACHE", str(tmp_path / "cache"))
    run = tmp_path / "store" / "bucket" / "gels"
    saved("grey", run / "bundle")
    shutil.copytree(run, run.with_name("a=b"))
    with object_server(tmp_path / "store") as (address, _):
        monkeypatch.setenv(ENDPOINT, address)
        web = f"{address}/bucket/gels/bundle?signature=x"
        for text in (str(run), run.as_uri(), "s3://bucket/gels", "s3://bucket/gels/bundle", web):
            ((name, folder),) = name_bundles([text]).items()
            assert name == "gels", text
            assert (folder / "model.json").is_file()
        assert list(name_bundles(["x=s3://bucket/gels", "s3://bucket/a=b"])) == ["x", "a=b"]
        with pytest.raises(InputError, match="two models are called 'gels'"):
            name_bundles(["s3://bucket/gels", str(run)])
