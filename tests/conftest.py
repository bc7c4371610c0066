"""For every test: a cache of its own, and pictures without a screen."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors: more threads only wait for each other
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep decoded pixels and features out of the user's cache, also in commands that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COVERSLIP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
