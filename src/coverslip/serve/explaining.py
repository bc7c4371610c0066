"""Where the server meets `coverslip.explain`: the only file that knows of it."""

from __future__ import annotations

import base64
import importlib
import importlib.util
from dataclasses import replace
from typing import Any

from coverslip.bundle import Bundle
from coverslip.data.reading import FileContent
from coverslip.errors import BadImagesError
from coverslip.serve.answers import Explanation, Problem
from coverslip.serve.refusals import Refusal

MODULE = "coverslip.explain"


def build_explainer(bundle: Bundle, max_pixels: int) -> Any | None:
    """What explains the predictions of a bundle, for images of at most `max_pixels`; None where this version does not explain."""
    if importlib.util.find_spec(MODULE) is None:
        return None
    reading = replace(bundle.reading, max_pixels=min(max_pixels, bundle.reading.max_pixels))
    return importlib.import_module(MODULE).Explainer(replace(bundle, reading=reading))


def explain(explainer: Any | None, model: str, name: str, files: tuple[FileContent, ...], label: str | None) -> Explanation:
    """Where in an image a model saw a class.

    Args:
        explainer: what `build_explainer` gave.
        model: the name under which the model is served.
        name: of the sample.
        files: of the sample, one, or one a channel.
        label: the class; the predicted one when not given.

    Raises:
        Refusal: 501 this version of coverslip does not explain; 422 a file cannot be used.
    """
    if explainer is None:
        raise Refusal(501, f"this version of coverslip does not explain predictions: it has no module {MODULE}")
    several = len(explainer.bundle.reading.channels) > 1
    try:
        (found,) = explainer.explain_labels(files, None if label is None else [label], check="quick" if several else "none", name=name)[:1]
    except BadImagesError as error:
        reason = next(iter(error.problems.values()))
        raise Refusal(422, f"the image cannot be used: {reason}", [Problem(image=name, reason=reason)]) from None
    return Explanation(
        model=model,
        image=name,
        label=found.label,
        probability=found.score,
        method=found.method,
        overlay=f"data:image/png;base64,{base64.b64encode(found.overlay).decode('ascii')}",
        channels=found.channels,
    )
