import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from coverslip.bundle import Bundle, find_bundle, load_bundle, save_bundle, self_test
from coverslip.config import AugmentConfig, ModelConfig
from coverslip.data.geometry import GREY, RGB, Geometry
from coverslip.data.normalisation import Normalisation
from coverslip.data.reading import Reading
from coverslip.errors import BundleError, MissingInputError
from coverslip.evaluation.decision import Decision
from coverslip.evaluation.uncertainty import Conformal
from coverslip.models.classifier import build_classifier
from coverslip.neighbours import Neighbours
from coverslip.network import Network
from coverslip.runtime import hash_file
from coverslip.structures import Channel, Task

NAMES = {1: GREY, 3: RGB, 4: ("dna", "tubulin", "er", "protein")}


def bundle_of(channels: int = 1, bits: int = 8, classes: tuple[str, ...] = ("a", "b"), **changes: Any) -> Bundle:
    full = float(min(1 << bits, 1 << 16) - 1)
    config = ModelConfig(backbone="small_30k", weights="none", head=[8])
    classifier = build_classifier(config, channels=channels, classes=len(classes), size=(32, 32), seed=3)
    network = Network(
        classifier=classifier,
        geometry=Geometry(32, 32, "letterbox", NAMES[channels], bits, (0.0, 0.1, 0.9, 1.0)),
        normalisation=Normalisation((0.0,), (full,), invert=True, mean=(0.4,) * channels, deviation=(0.2,) * channels),
        augment=AugmentConfig(vertical_flip=True),
        tta="flips",
        device=torch.device("cpu"),
        precision="32",
        settled=True,
    )
    spread_scores(network, images(channels, bits, n=8))
    task = Task.BINARY if len(classes) == 2 else Task.MULTICLASS
    settings: dict[str, Any] = {
        "decision": Decision(task, changes.pop("threshold", 0.3), changes.pop("temperature", 1.7)),
        "reading": Reading("#10ff00", 10_000),
        "provenance": {"images": 7},
    }
    return Bundle(network, task, classes, **{**settings, **changes})


def images(channels: int = 1, bits: int = 8, n: int = 3, shape: tuple[int, int] = (40, 50)) -> list[np.ndarray[Any, Any]]:
    generator = np.random.default_rng(0)
    high = min(1 << bits, 1 << 16)
    dtype = {8: np.uint8, 16: np.uint16, 32: np.float32}[bits]
    return [generator.integers(0, high // (k + 1), (*shape, channels)).astype(dtype) for k in range(n)]


@torch.no_grad()
def spread_scores(network: Network, sample: list[np.ndarray[Any, Any]]) -> None:
    """Scale the random head so that its logits on the sample have mean 0 and deviation 1: scores that differ visibly."""
    classifier = network.classifier.eval()
    logits = classifier(network.batch(np.stack([network.geometry.apply(image) for image in sample])))
    last = classifier.head[-1]  # type: ignore[index]
    last.bias.sub_(logits.mean(dim=0)).div_(logits.std(dim=0))
    last.weight.div_(logits.std(dim=0)[:, None])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "run" / "bundle"
    save_bundle(bundle_of(), folder, images(), "# card\n")
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "bundle"))


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


# Save and load --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "bits"), [(1, 8), (3, 8), (1, 16), (3, 16)])
def test_what_is_loaded_is_what_was_saved(tmp_path: Path, channels: int, bits: int) -> None:
    before = bundle_of(channels, bits, ("x", "y", "z"))
    save_bundle(before, tmp_path / "b", images(channels, bits), "# card\n")
    after = load_bundle(tmp_path / "b", device="cpu", precision="32")
    for name in ("task", "classes", "decision", "reading", "provenance"):
        assert getattr(after, name) == getattr(before, name), name
    for name in ("geometry", "normalisation", "augment", "tta", "precision"):
        assert getattr(after.network, name) == getattr(before.network, name), name
    pixels = np.stack([before.network.geometry.apply(image) for image in images(channels, bits, n=5)])
    np.testing.assert_allclose(after.scores([pixels]), before.scores([pixels]), atol=1e-6)
    assert np.ptp(before.scores([pixels]), axis=0).max() > 0.1
    assert (tmp_path / "b" / "README.md").read_text() == "# card\n"
    assert {path.name for path in tmp_path.iterdir()} == {"b"}


def test_the_sample_keeps_its_depth(tmp_path: Path) -> None:
    deep = images(1, 16)
    save_bundle(bundle_of(1, 16), tmp_path / "b", deep, "")
    files = sorted((tmp_path / "b" / "sample").glob("*.tif"))
    assert len(files) == 3
    assert [tifffile.imread(file).dtype for file in files] == [np.uint16] * 3
    assert np.array_equal(tifffile.imread(files[0]), deep[0][..., 0])


@pytest.mark.parametrize("shape", [(1500, 30), (30, 1500), (2, 2000), (513, 2), (512, 512)])
def test_large_samples_are_thinned_and_odd_shapes_are_kept_readable(tmp_path: Path, shape: tuple[int, int]) -> None:
    save_bundle(bundle_of(reading=Reading(max_pixels=10**6)), tmp_path / "b", images(shape=shape, n=1), "")
    with Image.open(tmp_path / "b" / "sample" / "0.png") as sample:
        assert max(sample.size) <= 512
        assert min(sample.size) == min(shape)


def test_a_bundle_takes_the_place_of_an_older_one(folder: Path) -> None:
    (folder / "stray.txt").write_text("old")
    save_bundle(bundle_of(threshold=0.9), folder, images(n=1), "new")
    assert load_bundle(folder).decision.threshold == 0.9
    assert not (folder / "stray.txt").exists()
    assert len(list((folder / "sample").glob("*.png"))) == 1


def test_a_bundle_that_does_not_reproduce_itself_is_not_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: hash_file(path) for path in folder.iterdir() if path.is_file()}
    other = bundle_of()
    with torch.no_grad():
        other.network.classifier.head[-1].weight.mul_(-1)  # type: ignore[index]
    monkeypatch.setattr("coverslip.bundle.load_bundle", lambda place: other)
    with pytest.raises(BundleError, match="fails its self-test"):
        save_bundle(bundle_of(threshold=0.9), folder, images(), "new")
    assert {path.name: hash_file(path) for path in folder.iterdir() if path.is_file()} == before
    assert {path.name for path in folder.parent.iterdir()} == {"bundle"}


def test_temperature_and_threshold_are_applied() -> None:
    bundle = bundle_of(threshold=0.3, temperature=2.0)
    raw = np.array([[0.9, 0.1], [0.6, 0.4]])
    odds = np.sqrt(raw[:, 1] / raw[:, 0])
    np.testing.assert_allclose(bundle.calibrated(raw)[:, 1], odds / (1 + odds), rtol=1e-6)
    assert bundle.decide(np.array([[0.71, 0.29], [0.7, 0.3], [0.1, 0.9]])).tolist() == [0, 1, 1]
    assert np.array_equal(bundle_of(temperature=1.0).calibrated(raw), raw)


def test_an_image_file_is_read_as_the_bundle_says(tmp_path: Path) -> None:
    clear = np.zeros((30, 30, 4), dtype=np.uint8)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    pixels = bundle_of(channels=3).read([tmp_path / "clear.png"])
    assert pixels.shape == (32, 32, 3)
    assert pixels[0, 0].tolist() == [16, 255, 0]
    with pytest.raises(ValueError, match="pixels"):
        bundle_of(reading=Reading(max_pixels=100)).read([tmp_path / "clear.png"])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_named_channels_travel_with_the_bundle(tmp_path: Path, dtype: type) -> None:
    bits = np.dtype(dtype).itemsize * 8
    reading = Reading(channels=tuple(Channel(name, f"w{number}") for number, name in enumerate(NAMES[4])), projection="max")
    before = bundle_of(4, bits, ("x", "y", "z"), reading=reading)
    save_bundle(before, tmp_path / "b", images(4, bits), "")
    after = load_bundle(tmp_path / "b", device="cpu", precision="32")
    assert after.reading == reading
    assert after.network.geometry == before.network.geometry
    assert after.network.normalisation == before.network.normalisation
    assert json.loads((tmp_path / "b" / "model.json").read_text())["channels"] == ["dna", "tubulin", "er", "protein"]
    samples = sorted((tmp_path / "b" / "sample").glob("*.tif"))
    assert len(samples) == 3
    for file, image in zip(samples, images(4, bits), strict=True):
        assert np.array_equal(tifffile.imread(file), image.transpose(2, 0, 1))
        assert np.array_equal(after.read([file]), before.network.geometry.apply(image))
    shuffled = replace(after.reading, channels=after.reading.channels[::-1])
    assert np.array_equal(shuffled.read([samples[0]])[0], images(4, bits)[0][..., ::-1])


def test_a_sample_of_several_files_is_read_as_the_bundle_says(tmp_path: Path) -> None:
    bundle = bundle_of(4, reading=Reading(channels=Channel.of(*NAMES[4])))
    image, files = images(4)[0], [tmp_path / f"{number}.png" for number in range(4)]
    for number, file in enumerate(files):
        Image.fromarray(image[..., number]).save(file)
    assert np.array_equal(bundle.read(files), bundle.network.geometry.apply(image))
    files[1].unlink()
    with pytest.raises(ValueError, match=r"channel 'tubulin', 1\.png"):
        bundle.read(files)


@pytest.mark.parametrize(
    "change",
    [
        lambda reading: reading.update(channels=["dna"]),
        lambda reading: reading.update(channels=[{"name": "dna"}]),
        lambda reading: reading.update(colour="grey"),
        lambda reading: reading.pop("channels"),
    ],
)
def test_a_wrong_reading_in_the_description_is_met(folder: Path, change: Callable[[Any], Any]) -> None:
    edit(folder / "model.json", lambda model: change(model["preprocessing"]["reading"]))
    with pytest.raises(BundleError):
        load_bundle(folder)


# Finding --------------------------------------------------------------------------------------------------------------


def test_a_run_folder_or_the_bundle_in_it(saved: Path) -> None:
    assert find_bundle(saved) == saved == find_bundle(saved.parent)
    assert load_bundle(saved.parent).classes == ("a", "b")


def test_a_place_without_a_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no such folder"):
        load_bundle(tmp_path / "nowhere")
    for files, said in (
        (["study.toml"], "is a study; name a run"),
        (["metrics.json", "config.toml"], "kept no trained model; a comparison"),
    ):
        folder = tmp_path / files[0]
        folder.mkdir()
        for name in files:
            (folder / name).touch()
        with pytest.raises(MissingInputError, match=said):
            find_bundle(folder)
    with pytest.raises(MissingInputError, match=r"neither a bundle .* nor a run folder"):
        load_bundle(tmp_path)
    (tmp_path / "file.png").write_bytes(b"x")
    with pytest.raises(MissingInputError, match=r"file\.png"):
        load_bundle(tmp_path / "file.png")


# Damage ---------------------------------------------------------------------------------------------------------------


def test_an_undamaged_copy_passes(folder: Path) -> None:
    assert self_test(load_bundle(folder, precision="32"), folder) < 1e-5


def test_changed_weights_are_met(folder: Path) -> None:
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(BundleError, match=r"model\.safetensors is not the file"):
        load_bundle(folder)


def test_missing_weights_are_met(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(BundleError, match=r"no model\.safetensors"):
        load_bundle(folder)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_description_is_met(folder: Path, share: float) -> None:
    text = (folder / "model.json").read_text()
    (folder / "model.json").write_text(text[: int(share * len(text))])
    with pytest.raises(BundleError, match=r"model\.json is not JSON"):
        load_bundle(folder)


@pytest.mark.parametrize("value", [[], 3, None, "text", {}])
def test_a_description_of_another_kind_is_met(folder: Path, value: Any) -> None:
    (folder / "model.json").write_text(json.dumps(value))
    with pytest.raises(BundleError, match="format"):
        load_bundle(folder)


def test_a_newer_format_is_met(folder: Path) -> None:
    edit(folder / "model.json", lambda model: model.update(format=99))
    with pytest.raises(BundleError, match="format 99"):
        load_bundle(folder)


def keys_below(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(value, dict):
        return []
    return [found for key, inner in value.items() for found in ((*path, key), *keys_below(inner, (*path, key)))]


def test_a_description_without_any_one_of_its_keys_gives_a_bundle_error_or_is_not_needed(folder: Path) -> None:
    whole = json.loads((folder / "model.json").read_text())
    refused: list[tuple[str, ...]] = []
    messages: list[str] = []
    for path in keys_below(whole):
        model = json.loads(json.dumps(whole))
        inner = model
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]
        (folder / "model.json").write_text(json.dumps(model))
        try:
            load_bundle(folder)
        except BundleError as error:
            refused.append(path)
            messages.append(str(error))
    assert all(str(folder) in message for message in messages)
    assert len(refused) > 25
    assert ("weights_sha256",) in refused
    assert ("decision", "threshold") in refused


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.update(task="guess"),
        lambda model: model["decision"].update(threshold="high"),
        lambda model: model["preprocessing"]["geometry"].update(box=3),
        lambda model: model["test_time"].update(horizontal_flip="sometimes"),
        lambda model: model["architecture"].update(classes=5),
    ],
)
def test_wrong_values_in_the_description_are_met(folder: Path, change: Callable[[Any], None]) -> None:
    edit(folder / "model.json", change)
    with pytest.raises(BundleError):
        load_bundle(folder)


def test_weights_of_another_network_are_met_also_with_a_matching_hash(folder: Path) -> None:
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    tensors.pop("head.0.weight")
    save_file(tensors, weights)
    edit(folder / "model.json", lambda model: model["weights_sha256"].update({"model.safetensors": hash_file(weights)}))
    with pytest.raises(BundleError, match="do not fit"):
        load_bundle(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda expected: expected["scores"][1].reverse(),
        lambda expected: expected["scores"][0].__setitem__(0, expected["scores"][0][0] + 0.01),
        lambda expected: expected["scores"][0].__setitem__(0, None),
        lambda expected: expected["scores"].pop(),
        lambda expected: expected.update(scores=[[0.5]]),
        lambda expected: expected.update(scores={}),
        lambda expected: expected.update(images=[]),
        lambda expected: expected.pop("scores"),
        lambda expected: expected.pop("precision"),
        lambda expected: expected.update(precision="8"),
        lambda expected: expected.clear(),
    ],
)
def test_changed_scores_fail_the_self_test(folder: Path, change: Callable[[Any], Any]) -> None:
    edit(folder / "sample" / "expected.json", change)
    with pytest.raises(BundleError, match="self-test"):
        self_test(load_bundle(folder, precision="32"), folder)


@pytest.mark.parametrize("name", ["0.png", "expected.json"])
def test_a_removed_sample_fails_the_self_test(folder: Path, name: str) -> None:
    (folder / "sample" / name).unlink()
    with pytest.raises(BundleError, match=r"self-test of .* cannot run"):
        self_test(load_bundle(folder, precision="32"), folder)


def test_a_changed_sample_fails_the_self_test(folder: Path) -> None:
    Image.fromarray(np.zeros((40, 50), dtype=np.uint8)).save(folder / "sample" / "0.png")
    with pytest.raises(BundleError, match="fails its self-test"):
        self_test(load_bundle(folder, precision="32"), folder)


def test_changed_preprocessing_fails_the_self_test(folder: Path) -> None:
    edit(folder / "model.json", lambda model: model["preprocessing"]["normalisation"].update(invert=False))
    with pytest.raises(BundleError, match="fails its self-test"):
        self_test(load_bundle(folder, precision="32"), folder)


def test_a_sample_outside_the_bundle_is_not_read(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "sample" / "0.png", tmp_path / "outside.png")
    edit(folder / "sample" / "expected.json", lambda expected: expected["images"].__setitem__(0, "../../outside.png"))
    with pytest.raises(BundleError, match="cannot run"):
        self_test(load_bundle(folder, precision="32"), folder)


def remembering(bundle: Bundle, **changes: Any) -> Bundle:
    """The bundle with the features of some images, and doubts that are calibrated."""
    stored = np.stack([bundle.network.geometry.apply(image) for image in images(n=12)])
    features = bundle.network.scores_and_features([stored])[1]
    found = Neighbours.of(features, ["a"] * 12, [f"{k}.png" for k in range(12)])
    neighbours = replace(found, reference=np.linspace(0.1, 0.4, 9), source="validation images")
    decision = replace(bundle.decision, conformal=Conformal(0.9, 30, 0.4))
    return replace(bundle, **({"neighbours": neighbours, "decision": decision} | changes))


def test_doubts_and_neighbours_survive(tmp_path: Path) -> None:
    bundle = remembering(bundle_of())
    save_bundle(bundle, tmp_path / "bundle", images(), "")
    opened = load_bundle(tmp_path / "bundle", precision="32")
    assert opened.decision.conformal == bundle.decision.conformal
    stored = np.stack([bundle.network.geometry.apply(image) for image in images(n=20)])
    said = []
    for one in (bundle, opened):
        scores, distances = one.scores_and_distances([stored])
        assert distances is not None
        np.testing.assert_allclose(scores, bundle.scores([stored]), atol=1e-5)
        said.append(one.uncertain(scores, one.decide(scores), distances))
    assert said[0] is not None
    assert said[1] is not None
    assert said[0].tolist() == said[1].tolist()
    assert len(set(said[0].tolist())) > 1
    assert bundle.uncertain(scores, bundle.decide(scores)) is not None, "by score alone, where distances are not known"
    assert bundle_of().uncertain(scores, bundle.decide(scores)) is None


def test_neighbours_of_another_model_are_refused(tmp_path: Path) -> None:
    bundle = bundle_of()
    strange = replace(Neighbours.of(np.ones((3, 5), np.float32), ["a"] * 3), source="validation images")
    with pytest.raises(BundleError, match="belongs to another model: its vectors hold 6 numbers, not 65"):
        save_bundle(replace(bundle, neighbours=strange), tmp_path / "bundle", images(), "")
    assert not (tmp_path / "bundle").exists()
