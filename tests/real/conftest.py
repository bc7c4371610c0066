"""Real images and weights for the tests that use them; they lie beside the checkout and are no part of it.

`COVERSLIP_TEST_DATA` and `COVERSLIP_WEIGHTS` name other places. What is missing skips a test, or fails it where
`COVERSLIP_REQUIRE_REAL=1` says that nothing may be missing. The cache is the one of the session, in `tests/conftest.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

BESIDE = Path(__file__).resolve().parents[3] / "shared"


def existing_folder(variable: str, beside: str) -> Path:
    """The folder that a variable names, or the one beside the checkout."""
    named = os.environ.get(variable)
    folder = Path(named.split(os.pathsep)[0]).expanduser().resolve() if named else BESIDE / beside
    if folder.is_dir():
        return folder
    reason = f"no folder {folder}; set {variable}"
    if os.environ.get("COVERSLIP_REQUIRE_REAL") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of the real data sets."""
    return existing_folder("COVERSLIP_TEST_DATA", "data")


@pytest.fixture(scope="session")
def weights_folder() -> Iterator[Path]:
    """The folder of pretrained weights, which `weights = "pretrained"` then finds."""
    folder = existing_folder("COVERSLIP_WEIGHTS", "weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COVERSLIP_WEIGHTS", os.environ.get("COVERSLIP_WEIGHTS", str(folder)))
        yield folder
