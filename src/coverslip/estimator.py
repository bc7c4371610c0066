"""The scikit-learn face: `fit`, `predict`, `predict_proba` on lists of paths or arrays of images."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from coverslip.config import load_config
from coverslip.data.decoding import ImageReadError, PixelArray
from coverslip.data.files import some
from coverslip.data.reading import Reading
from coverslip.errors import BadImagesError, InputError
from coverslip.fitting import fit_arrays
from coverslip.network import SCORE_BATCH
from coverslip.structures import FloatArray


class ImageClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """An image classifier with scikit-learn's conventions: clone, get_params, cross_val_score and pipelines work.

    Args:
        backbone: a timm architecture or one of ours.
        weights: `pretrained`, `none`, a file, or a bundle.
        regime: `probe`, `finetune` or `scratch`.
        head: `single`, `multi` or sizes of hidden layers.
        height: rows of the network's input, in pixels; the backbone's own when None.
        width: columns; `height` when None.
        epochs: passes over the training images.
        seed: of all that is random.
        sections: further config sections, `{"augment": {"horizontal_flip": True}}`.

    Attributes:
        classes_: the labels, sorted; the numbers of the columns where an image may carry several.
        n_features_in_: 1; an image is one feature.
    """

    def __init__(
        self,
        backbone: str = "mobilenetv2_100",
        *,
        weights: str = "pretrained",
        regime: str = "probe",
        head: str | list[int] = "single",
        height: int | None = None,
        width: int | None = None,
        epochs: int = 10,
        seed: int = 0,
        sections: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.regime = regime
        self.head = head
        self.height = height
        self.width = width
        self.epochs = epochs
        self.seed = seed
        self.sections = sections

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Learn from images.

        Args:
            X: n paths, or uint8 / uint16 arrays (h, w), (h, w, 3), (h, w, 4), or one array of n of them; with named channels
                (`sections={"data": {"channels": [...]}}`) arrays (h, w, channels), float32 too.
            y: n labels; or (n, classes) of 0 and 1 where an image may carry several.

        Raises:
            InputError: no images, different lengths, labels that are missing, or fewer than two classes.
            BadImagesError: an image cannot be read.
        """
        images, labels = listed(X, self._reading()), np.asarray(y)
        if not len(images):
            raise InputError("X holds no images; expected one label and one image of each of two or more classes")
        if len(images) != len(labels):
            raise InputError(f"X holds {len(images)} images and y {len(labels)} labels; expected one label an image")
        unlabelled = np.flatnonzero(pd.isna(labels.reshape(len(labels), -1)).any(axis=1))
        if len(unlabelled):
            raise InputError(f"y has no label at {some(map(str, unlabelled))}; leave these images out, or label them")
        if labels.ndim == 2:
            self.classes_, targets = np.arange(labels.shape[1]), labels
            if not np.isin(labels, (0, 1)).all():
                raise InputError(f"y of shape {labels.shape} holds other values than 0 and 1; expected a column of 0 and 1 a class")
        else:
            self.classes_, targets = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(f"y holds one class only ({self.classes_[0]}); expected two or more")
        self.n_features_in_ = 1
        self.network_ = fit_arrays(self._config(), decode(images, self._reading()), targets.astype(np.int64), len(self.classes_))
        return self

    def predict_proba(self, X: Any) -> FloatArray:  # noqa: N803
        """Probabilities, float64 (n, classes), columns in the order of `classes_`."""
        check_is_fitted(self)
        images = decode(listed(X, self._reading()), self._reading(), self.network_.geometry.apply)
        return self.network_.scores(np.stack(images[start : start + SCORE_BATCH]) for start in range(0, len(images), SCORE_BATCH))

    def predict(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """The label of each image, (n,); int64 (n, classes) of 0 and 1, from 0.5 on, where it may carry several."""
        scores = self.predict_proba(X)
        if self.network_.several:
            return (scores >= 0.5).astype(np.int64)
        chosen: npt.NDArray[Any] = self.classes_[scores.argmax(axis=1)]
        return chosen

    def _reading(self) -> Reading:
        return Reading.of(self._config().data)

    def _config(self) -> Any:
        exact = self.regime == "probe" and self.head == "single"
        own = {
            "pixels": {} if self.height is None else {"height": self.height, "width": self.width or self.height},
            "model": {"backbone": self.backbone, "weights": self.weights, "head": self.head},
            "training": {"regime": self.regime, "epochs": self.epochs, "seed": self.seed, **({"optimizer": "exact"} if exact else {})},
        }
        config = load_config(own, self.sections or {})
        config.check()
        return config


def listed(X: Any, reading: Reading) -> Sequence[Any]:  # noqa: N803
    """Paths or arrays one by one, of whatever holds them: a list, an array, a column of a table, a generator.

    Raises:
        InputError: one path or one image in place of several, or an array of images of another dtype or shape.
    """
    if isinstance(X, (str, Path)):
        raise InputError(f"X is one path, {str(X)!r}; expected a list of paths, or of arrays")
    if hasattr(X, "to_numpy"):  # pandas: its own order, whatever its index says
        X = X.to_numpy()  # noqa: N806
    if not isinstance(X, np.ndarray):
        return X if isinstance(X, Sequence) else list(X)
    if X.dtype.kind in "OU":
        return list(X.reshape(len(X), -1)[:, 0]) if X.ndim == 2 and X.shape[1] == 1 else X  # type: ignore[return-value]
    if X.ndim < 3:
        raise InputError(f"X is one array of shape {X.shape}; expected several images: (n, height, width) or (n, height, width, channels)")
    try:
        for image in X[:1]:
            reading.of_array(image)
    except ImageReadError as error:
        raise InputError(f"X[0] of X with the shape {X.shape} cannot be used: {error}") from error
    return X  # type: ignore[return-value]


def decode(images: Sequence[Any], reading: Reading, use: Callable[[PixelArray], PixelArray] = lambda image: image) -> list[PixelArray]:
    """Paths and arrays as decoded images (h, w, c), or what is made of each at once.

    Raises:
        BadImagesError: with all images that cannot be used.
    """
    decoded, problems = [], {}
    for number, image in enumerate(images):
        if not isinstance(image, (str, os.PathLike, np.ndarray)):
            problems[str(number)] = (
                f"a {type(image).__name__}; expected a path, or an array (of a picture of Pillow: numpy.asarray(picture))"
            )
            continue
        try:
            decoded.append(use(reading.of_array(image) if isinstance(image, np.ndarray) else reading.read((Path(image),))[0]))
        except (ImageReadError, OSError) as error:
            problems[str(number) if isinstance(image, np.ndarray) else str(image)] = str(error)
    if problems:
        raise BadImagesError(problems)
    return decoded
