"""The JSON that the server answers with; also what its OpenAPI document says."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """Fields are described by their docstrings."""

    model_config = ConfigDict(use_attribute_docstrings=True, frozen=True)


class Problem(Answer):
    """An image that could not be used."""

    image: str
    """The name under which it was sent."""
    reason: str
    """What is wrong with it."""


class RefusalBody(Answer):
    """Why a request was not served."""

    detail: str
    """What was found, what was expected, what to do."""
    problems: list[Problem] = []
    """Of single images, where they are the reason."""


class Prediction(Answer):
    """What the model says of one sample."""

    image: str
    """The name of the file, or of the sample where it is one file a channel."""
    probabilities: dict[str, float] = {}
    """Calibrated probability of each class, in [0, 1]; empty where the image could not be read."""
    decision: list[str] = []
    """The label; with several labels an image all of them, which may be none."""
    uncertain: str | None = None
    """`no`, or what is in doubt, as in predictions.csv; null where the model was not calibrated to tell."""
    error: str | None = None
    """Why the image could not be read."""
    thumbnail: str | None = None
    """What the network sees, as a data URI, where it was asked for."""


class Timing(Answer):
    """Where the time of a request went, in seconds."""

    upload: float
    """From the first byte of the request to the last."""
    work: float
    """From there to the answer: decoding, waiting for others, scoring."""


class Predictions(Answer):
    """What the model says of the images of a request, in their order."""

    model: str
    """The name under which the model is served."""
    predictions: list[Prediction]
    timing: Timing


class Thresholds(Answer):
    """How probabilities become labels."""

    rule: Literal["highest", "second_class", "each_class"]
    """`highest`: the most probable class. `second_class`: the second class from its threshold on, else the first.
    `each_class`: every class from its threshold on."""
    values: dict[str, float] = {}
    """The threshold of each class that has one, in [0, 1]."""
    at_least_one: bool = False
    """With several labels an image: whether the one nearest to its threshold is taken where none reaches it."""


class LimitsBody(Answer):
    """What one request may hold."""

    body_bytes: int
    images: int
    pixels: int
    seconds: float


class ModelBody(Answer):
    """A model that is served."""

    name: str
    task: Literal["binary", "multiclass", "multilabel"]
    classes: list[str]
    """In the order of the probabilities."""
    thresholds: Thresholds
    channels: list[str]
    """The planes of an image, in order."""
    files: list[str]
    """Where a sample is one file a channel: what stands for the channel in the names of the files; else empty."""
    size: tuple[int, int]
    """Height and width, in pixels, to which images are brought."""
    backbone: str
    card: str
    """The model card, as Markdown."""
    weights_sha256: dict[str, str]
    limits: LimitsBody


class ModelsBody(Answer):
    """The models that are served."""

    models: list[str]


class Health(Answer):
    """Whether the server can be asked."""

    status: Literal["starting", "ready", "stopping"]


class Explanation(Answer):
    """Where in an image the model saw a class."""

    model: str
    image: str
    label: str
    """The class that is explained."""
    probability: float
    overlay: str
    """The image with the heat map over it, as a data URI of a PNG."""
    method: str
    """How the heat map was made: `gradcam`, or `occlusion` for a network that has no feature map."""
    channels: dict[str, float] = {}
    """With several channels: what each adds to the log-odds of the class."""
