from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from coverslip.bundle import Bundle, load_bundle, save_bundle
from coverslip.config import AugmentConfig
from coverslip.data.cache import cache_entries
from coverslip.data.decoding import PixelArray
from coverslip.errors import ConfigError, ExportError
from coverslip.graphs import exporting
from coverslip.inference import RUNTIMES, Runtimes
from coverslip.inference.choice import LARGEST_DIFFERENCE, WORTH_PREPARING, images_between, largest_difference
from coverslip.inference.torch_runtime import TorchRuntime
from coverslip.neighbours import Neighbours
from coverslip.predict import Model
from coverslip.structures import FloatArray
from unit.export.kinds import KINDS
from unit.test_bundle import bundle_of, images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("choice") / "bundle"
    save_bundle(bundle_of(), place, images(), "# card\n")
    return place


@pytest.fixture(scope="module", autouse=True)
def cache_of_the_module(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COVERSLIP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def opened(folder: Path) -> Bundle:
    return load_bundle(folder, device="cpu", precision="32")


def pixels(count: int = 7) -> PixelArray:
    return np.random.default_rng(5).integers(0, 256, (count, 32, 32, 1)).astype(np.uint8)


def test_every_engine_gives_the_scores_of_torch(folder: Path) -> None:
    bundle = opened(folder)
    expected = bundle.scores([pixels()])
    assert np.ptp(expected[:, 0]) > 0.05
    for name in RUNTIMES:
        runtime = Runtimes(bundle, folder, name).runtime()  # type: ignore[arg-type]
        assert runtime.name == name
        found = runtime.scores(pixels())
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, atol=2e-5)
        assert runtime.scores(pixels(0)).shape == (0, 2)
    assert len(RUNTIMES) == 3


def test_auto_takes_torch_for_few_images_and_else_measures_once(folder: Path) -> None:
    few = Runtimes(opened(folder), folder)
    assert few.runtime(WORTH_PREPARING - 1).name == "torch"
    many = few.runtime(WORTH_PREPARING)
    choice = json.loads(next(entry.folder for entry in cache_entries() if entry.kind == "graphs").joinpath("choice.json").read_text())
    speeds = choice["images_per_second"]
    assert {"torch", "onnx", "openvino"} <= set(speeds)
    assert choice["runtime"] == max(speeds, key=lambda name: speeds[name])
    assert many.name == choice["runtime"].removesuffix("-bf16")
    assert few.runtime(1) is many
    again = Model(folder, device="cpu")
    assert again.runtime(1).name == many.name


def test_the_choice_belongs_to_the_model(folder: Path, tmp_path: Path) -> None:
    save_bundle(bundle_of(classes=("a", "b", "c")), tmp_path / "other", images(), "# card\n")
    first, second = (Runtimes(opened(place), place)._key() for place in (folder, tmp_path / "other"))
    assert first != second


class Off(TorchRuntime):
    """Scores that are off by a little."""

    def __init__(self, bundle: Bundle, by: float, precision: str = "32") -> None:
        super().__init__(bundle)
        self.by, self.precision = by, precision

    def scores(self, pixels: PixelArray) -> FloatArray:
        right = super().scores(pixels)
        return right + self.by * np.array([1, -1]) * np.minimum(right.min(axis=1, keepdims=True), 1)


def test_an_engine_that_differs_is_refused(folder: Path) -> None:
    bundle = opened(folder)
    runtimes = Runtimes(bundle, folder)
    with pytest.raises(ExportError, match="gives other scores than torch in float32"):
        runtimes._check(Off(bundle, 0.01))
    runtimes._check(Off(bundle, 1e-5))


def test_sure_answers_do_not_hide_a_coarse_precision(folder: Path) -> None:
    bundle = opened(folder)
    with torch.no_grad():
        bundle.network.classifier.head[-1].weight.mul_(40)  # type: ignore[index, operator, union-attr]
        bundle.network.classifier.head[-1].bias.mul_(40)  # type: ignore[index, operator, union-attr]
    sure = pixels(64)
    reference = TorchRuntime(bundle)
    sure = sure[reference.scores(sure).max(axis=1) > 0.99999]
    assert len(sure) > 3
    assert largest_difference(Off(bundle, 0.5), reference, sure) < LARGEST_DIFFERENCE
    assert largest_difference(Off(bundle, 0.5, "bf16"), reference, sure) > LARGEST_DIFFERENCE


def test_mixtures_keep_size_depth_and_range() -> None:
    for kind in (np.uint8, np.uint16, np.float32):
        made = images_between((pixels(3).astype(kind) * 200).astype(kind), 5)
        assert made.shape == (5, 32, 32, 1)
        assert made.dtype == kind


def test_a_model_on_a_gpu_is_not_taken_to_the_cpu_in_silence(folder: Path) -> None:
    bundle = opened(folder)
    bundle.network.device = torch.device("cuda")
    with pytest.raises(ConfigError, match="say --device cpu"):
        Runtimes(bundle, folder, "onnx")


@pytest.mark.parametrize("kind", ["grey", "groups of classes"])
def test_where_training_images_are_known_every_engine_gives_the_features_of_torch(kind: str, tmp_path: Path) -> None:
    made = KINDS[kind]()
    made.network.tta = "flips"
    made.network.augment = AugmentConfig(horizontal_flip=True)
    vectors = made.network.scores_and_features([np.stack([made.network.geometry.apply(image) for image in images()])])[1]
    made.neighbours = Neighbours.of(vectors, ["a"] * len(vectors))
    save_bundle(made, tmp_path / "bundle", images(), "# card\n")
    bundle = opened(tmp_path / "bundle")
    scores, features = bundle.network.scores_and_features([pixels()])
    for name in RUNTIMES:
        found = Runtimes(bundle, tmp_path / "bundle", name).runtime().scores_and_features(pixels())  # type: ignore[arg-type]
        np.testing.assert_allclose(found[0], bundle.calibrated(scores), atol=2e-5)
        assert found[1] is not None
        assert found[1].dtype == np.float32
        np.testing.assert_allclose(found[1], features, atol=1e-4)


def test_a_model_that_cannot_be_a_graph_stays_with_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "LARGEST", 10_000)
    monkeypatch.setenv("COVERSLIP_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "bundle"
    save_bundle(bundle_of(classes=("a", "b", "c")), place, images(), "# card\n")
    assert Runtimes(opened(place), place).runtime().name == "torch"
    (choice,) = (tmp_path / "cache" / "graphs").glob("*/choice.json")
    refused = json.loads(choice.read_text())["refused"]
    assert {"onnx", "openvino"} <= set(refused)
    assert "an ONNX file holds 2" in refused["onnx"]
    with pytest.raises(ExportError, match="predict with --runtime torch"):
        Runtimes(opened(place), place, "onnx").runtime()


def test_a_choice_whose_graph_went_away_is_no_end(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVERSLIP_CACHE", str(tmp_path / "cache"))
    runtimes = Runtimes(opened(folder), folder)
    runtimes.runtime()
    (entry,) = (tmp_path / "cache" / "graphs").iterdir()
    (entry / "choice.json").write_text(json.dumps({"runtime": "openvino"}))
    assert Runtimes(opened(folder), folder).runtime(1).name == "openvino"
    (entry / "network.onnx").unlink()
    (entry / "failed.txt").write_text("it is gone")
    assert Runtimes(opened(folder), folder).runtime(1).name == "torch"
