"""Where the server meets `coverslip.explain`: the only file that knows of it."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from coverslip.data.reading import FileContent
from coverslip.serve.answers import Explanation
from coverslip.serve.refusals import Refusal

if TYPE_CHECKING:
    from coverslip.serve.models import Served

MODULE = "coverslip.explain"


def is_possible() -> bool:
    """Whether this version of coverslip explains predictions."""
    return importlib.util.find_spec(MODULE) is not None


def explain(served: Served, name: str, files: tuple[FileContent, ...], label: str | None) -> Explanation:
    """Where in an image a model saw a class.

    Args:
        served: the model.
        name: of the sample.
        files: of the sample, one, or one a channel.
        label: the class; the most probable one when not given.

    Raises:
        Refusal: 501 this version of coverslip does not explain.
        ImageReadError: a file cannot be used.
    """
    del served, name, files, label
    raise Refusal(501, "this version of coverslip does not explain predictions: it has no module coverslip.explain")
