"""Where the server meets `coverslip.explain`: an uploaded image in, the JSON of its explanation out."""

from __future__ import annotations

import base64
from dataclasses import replace

from coverslip.bundle import Bundle
from coverslip.data.reading import FileContent
from coverslip.errors import BadImagesError
from coverslip.explain import Explainer
from coverslip.serve.answers import Explanation, Problem
from coverslip.serve.refusals import Refusal


def build_explainer(bundle: Bundle, max_pixels: int) -> Explainer:
    """What explains the predictions of a bundle, for images of at most `max_pixels`."""
    reading = replace(bundle.reading, max_pixels=min(max_pixels, bundle.reading.max_pixels))
    return Explainer(replace(bundle, reading=reading))


def explain(explainer: Explainer, model: str, name: str, files: tuple[FileContent, ...], label: str | None) -> Explanation:
    """Where in an image a model saw a class.

    Args:
        explainer: what `build_explainer` gave.
        model: the name under which the model is served.
        name: of the sample.
        files: of the sample, one, or one a channel.
        label: the class; the predicted one when not given.

    Raises:
        Refusal: 422 a file cannot be used.
    """
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
