"""The bundle: a folder with a trained model and all that is needed to use it, and nothing that trains.

model.safetensors   weights; model-1.safetensors and so on where several models answer as one: those of groups of classes, or of folds
model.json          architecture, classes, channels, preprocessing, decision, provenance
sample/             inputs and expected outputs: the self-test
neighbours/         features and thumbnails of training images: what a new image looks like, and whether it is unlike all of them
trained_on.txt      shortened hashes of the images that it learned from, so that `evaluate` can warn
README.md           what this model is, for people
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import tifffile
import torch
from PIL import Image
from safetensors.torch import load_file, save

from coverslip.config import AugmentConfig, CacheConfig
from coverslip.data.cache import cached
from coverslip.data.decoding import ImageReadError, PixelArray
from coverslip.data.geometry import Geometry
from coverslip.data.normalisation import Normalisation
from coverslip.data.reading import Facts, Reading
from coverslip.data.streaming import SampleReader
from coverslip.errors import BundleError, MissingInputError
from coverslip.evaluation.decision import Decision
from coverslip.evaluation.uncertainty import uncertain_texts
from coverslip.models.groups import describe, members_of, rebuild
from coverslip.models.hardware import choose_device, choose_precision
from coverslip.models.networks import State
from coverslip.neighbours import Neighbours
from coverslip.network import Network
from coverslip.repositories import fetch_bundle, is_address
from coverslip.runtime import hash_file, hash_text, write_file, write_json, writing
from coverslip.storage import URL, Place, download, listing, place, read, stat
from coverslip.structures import Channel, File, FloatArray, IntArray, StrArray, Task, natural_key

FORMAT = 2
SAMPLE_SIDE = 512
NEIGHBOURS = "neighbours"
TRAINED_ON = "trained_on.txt"
OPTIONAL = (TRAINED_ON, "README.md", *(f"{NEIGHBOURS}/{name}" for name in ("features.safetensors", "neighbours.json", "thumbnails.zip")))
"""Files that a bundle may be without."""
DIGEST = 16
TOLERANCE = {"32": 2e-3, "bf16": 4e-2}
"""Largest difference of a score in the self-test, by the precision in which it was stored: float32, but for bundles that were saved
before that was so. bfloat16 keeps 8 bits of mantissa, and machines round differently."""


@dataclass
class Bundle:
    """A trained model, ready for use.

    Attributes:
        network: pixels in, scores out.
        task: binary or multiclass.
        classes: names in the order of the scores.
        threshold: score of the second class from which it is predicted (binary).
        temperature: by which the log-scores are divided.
        reading: how the files of a sample become one image.
        provenance: data, split, weights, versions, numbers: where the model comes from.
        neighbours: the training images as the model sees them; None where they were left out.
        trained_on: the first 16 hexadecimal digits of the SHA-256 of each image file that it learned from.
    """

    network: Network
    task: Task
    classes: tuple[str, ...]
    decision: Decision
    reading: Reading
    provenance: dict[str, Any]
    trained_on: tuple[str, ...] = ()
    neighbours: Neighbours | None = None

    def read(self, files: Sequence[File]) -> PixelArray:
        """Read and resize one sample, one file or one a channel, to stored pixels (height, width, channels).

        Raises:
            ImageReadError: the file cannot be used.
        """
        return self.read_with_facts(files)[0]

    def read_with_facts(self, files: Sequence[File]) -> tuple[PixelArray, Facts]:
        """As `read`, with what the files say of themselves."""
        return SampleReader(self.reading, self.network.geometry)(files)

    def scores(self, batches: Iterable[PixelArray]) -> FloatArray:
        """Calibrated probabilities, float64 (n, classes), of stored pixels."""
        return self.calibrated(self.network.scores(batches))

    def scores_and_distances(self, batches: Iterable[PixelArray]) -> tuple[FloatArray, FloatArray | None]:
        """Calibrated probabilities of stored pixels, and the distance of each image from the training images, float64 (n,), where known."""
        if self.neighbours is None:
            return self.scores(batches), None
        scores, features = self.network.scores_and_features(batches)
        return self.calibrated(scores), self.neighbours.distances(features)

    def uncertain(self, scores: FloatArray, predicted: IntArray, distances: FloatArray | None = None) -> StrArray | None:
        """Which decisions to doubt, str (n,): `no`, `score`, `unlike` or both; None where nothing is calibrated for it.

        Args:
            scores: float64 (n, classes), calibrated.
            predicted: what `decide` says of them.
            distances: float64 (n,) from the training images, where they are known.
        """
        unlike = None if distances is None or self.neighbours is None else self.neighbours.unlike(distances)
        return uncertain_texts(self.decision.doubtful(scores, predicted), unlike)

    def calibrated(self, scores: FloatArray) -> FloatArray:
        """Scores after calibration."""
        return self.decision.calibrated(scores)

    def decide(self, scores: FloatArray) -> IntArray:
        """Decisions on calibrated scores: class indices, int64 (n,), or with several labels int64 (n, classes) of 0 and 1."""
        return self.decision.decide(scores)


def save_bundle(bundle: Bundle, folder: Path, sample: list[PixelArray], card: str) -> None:
    """Write a bundle, whole or not at all, and prove that it reproduces itself.

    Args:
        bundle: what is written.
        folder: where; an older bundle there is replaced.
        sample: a few decoded images, (h, w, c) each, for the self-test.
        card: the text of README.md.

    Raises:
        BundleError: the written bundle does not give the scores of the one in memory.
    """
    with writing(folder) as place:
        place.mkdir()
        _write_weights(bundle, place)
        write_json(place / "model.json", _describe(bundle, {file.name: hash_file(file) for file in _weight_files(place)}))
        write_file(place / "README.md", card)
        write_file(place / TRAINED_ON, "".join(f"{digest}\n" for digest in sorted(bundle.trained_on)))
        _write_sample(bundle, place / "sample", sample)
        if bundle.neighbours is not None:
            bundle.neighbours.save(place / NEIGHBOURS)
        self_test(load_bundle(place), place)


def _write_weights(bundle: Bundle, place: Path) -> None:
    members = members_of(bundle.network.classifier)
    for number, member in enumerate(members, start=1):
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in member.state_dict().items()}
        name = "model.safetensors" if len(members) == 1 else f"model-{number}.safetensors"
        write_file(place / name, save(tensors, metadata={"format": "coverslip"}))


def _weight_files(place: Path) -> list[Path]:
    return sorted(place.glob("model*.safetensors"), key=lambda file: natural_key(file.name))


def _describe(bundle: Bundle, digests: dict[str, str]) -> dict[str, Any]:
    network = bundle.network
    return {
        "format": FORMAT,
        "task": str(bundle.task),
        "classes": list(bundle.classes),
        "channels": list(network.geometry.channels),
        "architecture": describe(network.classifier),
        "preprocessing": {
            "reading": asdict(bundle.reading),
            "geometry": asdict(network.geometry),
            "normalisation": network.normalisation.to_json(),
        },
        "test_time": {
            "views": network.tta,
            "horizontal_flip": network.augment.horizontal_flip,
            "vertical_flip": network.augment.vertical_flip,
        },
        "decision": bundle.decision.to_json(),
        "weights_sha256": digests,
        "provenance": bundle.provenance,
    }


def _write_sample(bundle: Bundle, folder: Path, images: list[PixelArray]) -> None:
    folder.mkdir()
    names = []
    for number, image in enumerate(images):
        down, across = (-(-side // SAMPLE_SIDE) for side in image.shape[:2])
        plain = image.dtype == np.uint8 and not bundle.reading.channels
        name = f"{number}.{'png' if plain else 'tif'}"
        _write_image(folder / name, np.ascontiguousarray(image[::down, ::across]), bundle.reading)
        names.append(name)
    stored = np.stack([bundle.read([folder / name]) for name in names])
    expected = {"images": names, "precision": bundle.network.precision, "scores": bundle.scores([stored]).tolist()}
    write_json(folder / "expected.json", expected)


def _write_image(path: Path, image: PixelArray, reading: Reading) -> None:
    """As PNG or TIFF by the suffix; channels under the names by which they are read."""
    plane = image[..., 0] if image.shape[2] == 1 else image
    if path.suffix == ".png":
        Image.fromarray(plane).save(path)
    elif not reading.channels:
        tifffile.imwrite(path, plane, compression="zlib", photometric="rgb" if plane.ndim == 3 else "minisblack")
    else:
        names = {"axes": "CYX", "Channel": {"Name": [channel.source for channel in reading.channels]}}
        planes = np.ascontiguousarray(np.moveaxis(image, 2, 0))
        tifffile.imwrite(path, planes, ome=True, compression="zlib", photometric="minisblack", metadata=names)


def find_bundle(path: str | Place) -> Path:
    """The bundle folder for a run folder or a bundle; what lies at a URL or in a repository is fetched, as `local_bundle` does.

    Raises:
        MissingInputError: no bundle there.
        BundleError: the description of what lies at a URL is damaged.
        UnreachableError: it cannot be fetched.
    """
    path = local_bundle(path)
    for folder in (path, path / "bundle"):
        if (folder / "model.json").is_file():
            return folder
    if not path.exists():
        raise MissingInputError(f"no bundle at {path}: there is no such folder")
    if (path / "study.toml").is_file():
        raise MissingInputError(f"{path} is a study; name a run in {path / 'runs'} that has kept its trained model in bundle/")
    if (path / "metrics.json").is_file() and (path / "config.toml").is_file():
        raise MissingInputError(
            f"{path} is a run that kept no trained model; a comparison keeps that of its best run, and those of all with --bundles all"
        )
    raise MissingInputError(f"{path} is neither a bundle (a folder with model.json) nor a run folder (with bundle/ in it)")


def local_bundle(where: str | Place) -> Path:
    """The folder of a bundle or a run; what lies at a URL or in a repository `hf://owner/name` is copied here first, once for each content.

    Raises:
        MissingInputError: no bundle there.
        BundleError: its description is damaged.
        UnreachableError: the store does not answer.
    """
    if is_address(where):
        return fetch_bundle(str(where))
    url = place(where)
    if isinstance(url, Path):
        return url
    folder = next((one for one in (url, url / "bundle") if (one / "model.json").is_file()), None)
    if folder is None:
        raise MissingInputError(f"no bundle at {url}: there is no model.json in it, nor in bundle/ below it")
    return _cached_copy(folder)


def _cached_copy(folder: URL) -> Path:
    description = read(folder / "model.json")
    sizes = _files_of(folder, description)
    key = hash_text(str(folder), description.decode("utf-8", "replace"))
    return cached("bundles", key, lambda holder: _copy(folder, list(sizes), holder), size=sum(sizes.values()), limit=CacheConfig().limit)


def _files_of(folder: URL, description: bytes) -> dict[str, int]:
    """The files of a bundle with their sizes in bytes, 0 where a web server, which cannot list, does not say."""
    if folder.parts[0] not in ("http", "https"):
        return {name: known.size for name, known in listing(folder).items()}
    try:
        weights = list(json.loads(description)["weights_sha256"])
        samples = json.loads(read(folder / "sample" / "expected.json"))["images"]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{folder / 'model.json'} does not describe a bundle: {error}") from error
    return dict.fromkeys(["model.json", *weights, "sample/expected.json", *(f"sample/{name}" for name in samples), *OPTIONAL], 0)


def _copy(folder: URL, names: Sequence[str], holder: Path) -> None:
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BundleError(f"{folder} names a file outside itself: {name}")
        if name not in OPTIONAL or stat(folder / name) is not None:
            download(folder / name, holder / name)


def load_bundle(path: str | Path, *, device: str = "auto", precision: str = "32") -> Bundle:
    """Open a bundle, or the bundle inside a run folder; in float32, as it was judged.

    Raises:
        MissingInputError: no bundle there.
        BundleError: a file is missing, changed, or of a newer format.
    """
    folder = find_bundle(path)
    model = read_description(folder)
    where = choose_device(device)
    try:
        return _build(model, _checked_weights(folder, dict(model["weights_sha256"])), folder, where, precision)
    except (KeyError, TypeError, ValueError, safetensors.SafetensorError, RuntimeError) as error:
        raise BundleError(f"the bundle {folder} cannot be opened: {error}; it is damaged, or from another version of coverslip") from error


def _checked_weights(folder: Path, digests: dict[str, str]) -> list[State]:
    """The tensors of each file of weights.

    Raises:
        BundleError: one is missing, or another than was saved.
    """
    for name, digest in digests.items():
        if Path(name).name != name or not (folder / name).is_file():
            raise BundleError(f"the bundle {folder} has no {name}; copy the whole folder")
        if hash_file(folder / name) != digest:
            raise BundleError(f"{folder / name} is not the file that the bundle was saved with (its SHA-256 differs); copy the bundle anew")
    return [load_file(folder / name) for name in digests]


def read_description(folder: Path) -> dict[str, Any]:
    """The content of a bundle's model.json.

    Raises:
        BundleError: not JSON, or of another format.
    """
    try:
        model: dict[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise BundleError(f"{folder / 'model.json'} is not JSON: {error}") from None
    found = model.get("format") if isinstance(model, dict) else None
    if found != FORMAT:
        raise BundleError(f"the bundle {folder} has format {found}; this version of coverslip reads format {FORMAT}")
    return model


def _build(model: dict[str, Any], states: list[State], folder: Path, where: torch.device, precision: str) -> Bundle:
    preprocessing, test_time, decision = model["preprocessing"], model["test_time"], model["decision"]
    classifier, task = rebuild(model["architecture"], states), Task(model["task"])
    network = Network(
        classifier=classifier,
        geometry=_geometry(preprocessing["geometry"]),
        normalisation=Normalisation.from_json(preprocessing["normalisation"]),
        augment=AugmentConfig(horizontal_flip=test_time["horizontal_flip"], vertical_flip=test_time["vertical_flip"]),
        tta=test_time["views"],
        device=where,
        precision=choose_precision(precision, where),
        several=task is Task.MULTILABEL,
        settled=True,
    )
    return Bundle(
        network=network,
        task=task,
        classes=tuple(model["classes"]),
        decision=Decision.from_json(task, decision),
        reading=_reading(preprocessing["reading"]),
        provenance=model["provenance"],
        neighbours=_neighbours(folder / NEIGHBOURS, sum(member.backbone.features for member in members_of(classifier))),
        trained_on=tuple(listed.read_text(encoding="utf-8").split()) if (listed := folder / TRAINED_ON).is_file() else (),
    )


def _neighbours(folder: Path, features: int) -> Neighbours | None:
    if not folder.is_dir():
        return None
    found = Neighbours.load(folder)
    if found.vectors.shape[1] != features + 1:
        raise BundleError(f"{folder} belongs to another model: its vectors hold {found.vectors.shape[1]} numbers, not {features + 1}")
    return found


def _geometry(fields: dict[str, Any]) -> Geometry:
    return Geometry(**{**fields, "channels": tuple(fields["channels"]), "box": tuple(fields["box"])})


def _reading(fields: dict[str, Any]) -> Reading:
    return Reading(**{**fields, "channels": tuple(Channel(**channel) for channel in fields["channels"])})


def sample_pixels(bundle: Bundle, folder: Path) -> PixelArray:
    """The stored pixels of a bundle's sample, (n, height, width, channels).

    Raises:
        BundleError: a sample is missing or cannot be read.
    """
    return _stored_sample(bundle, folder)[0]


def _stored_sample(bundle: Bundle, folder: Path) -> tuple[PixelArray, dict[str, Any]]:
    """Stored pixels, and what expected.json says."""
    place = folder / "sample"
    try:
        expected: dict[str, Any] = json.loads((place / "expected.json").read_text(encoding="utf-8"))
        return np.stack([bundle.read([place / Path(name).name]) for name in expected["images"]]), expected
    except (OSError, ValueError, KeyError, TypeError, ImageReadError) as error:
        raise BundleError(f"the self-test of {folder} cannot run: {error}") from error


def self_test(bundle: Bundle, folder: Path) -> float:
    """Score the stored inputs and hold them against the stored outputs; give the largest difference.

    Raises:
        BundleError: a sample is missing, or a score differs by more than rounding can explain.
    """
    stored, expected = _stored_sample(bundle, folder)
    try:
        wanted = np.array(expected["scores"], dtype=np.float64).reshape(len(stored), len(bundle.classes))
        allowed = TOLERANCE[expected["precision"]]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"the self-test of {folder} cannot run: {error}") from error
    found = replace(bundle, network=replace(bundle.network.for_use(), precision=expected["precision"])).scores([stored])
    difference = float(np.abs(found - wanted).max())
    if not difference <= allowed:
        raise BundleError(
            f"the bundle {folder} fails its self-test: a score differs by {difference:.3g} where at most {allowed} is allowed"
        )
    return difference
