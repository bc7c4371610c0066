from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from coverslip.errors import ConfigError, ExportError
from coverslip.models import openvino
from coverslip.network import Network
from coverslip.training import extractor
from coverslip.training.extractor import WORTH_PREPARING, Arithmetic, Extractor, choose_runtime
from coverslip.training.features import FeatureStore

CPU = torch.device("cpu")
SIZES = (5, 8, 1)


@pytest.fixture
def network(make_config: Any, make_network: Any) -> Network:
    made: Network = make_network(make_config())
    generator = torch.Generator().manual_seed(1)
    for norm in (module for module in made.classifier.backbone.modules() if isinstance(module, nn.BatchNorm2d)):
        assert norm.running_mean is not None
        norm.running_mean += 0.1 * torch.rand(norm.running_mean.shape, generator=generator)  # as if it had learned
    made.classifier.backbone.requires_grad_(False)
    return made


def batches(network: Network, samples: Any) -> Iterator[Tensor]:
    first = 0
    for size in SIZES:
        yield network.batch(samples.pixels.read(np.arange(first, first + size)))
        first += size


def few(network: Network, samples: Any) -> Tensor:
    return network.batch(samples.pixels.read(np.arange(8)))


def by_torch(network: Network, samples: Any) -> Any:
    network.classifier.eval()
    with torch.no_grad():
        return network.classifier.backbone(torch.cat(list(batches(network, samples)))).numpy()


def test_openvino_gives_the_features_of_torch_in_the_order_of_the_images(network: Network, make_samples: Any) -> None:
    samples = make_samples()
    made = Extractor(network, few(network, samples), "openvino")
    found = list(made(batches(network, samples)))
    assert made.runtime == "openvino"
    assert [(len(one), one.dtype) for one in found] == [(size, np.float32) for size in SIZES]
    expected = by_torch(network, samples)
    assert len(np.unique(expected, axis=0)) == sum(SIZES)
    np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-4 * np.abs(expected).max())
    assert np.array_equal(np.concatenate(list(made(batches(network, samples)))), np.concatenate(found))
    assert list(made([])) == []


def test_bfloat16_is_computed_where_the_network_says_so(network: Network, make_samples: Any) -> None:
    samples, expected = make_samples(), by_torch(network, make_samples())
    network.precision = "bf16"
    made = Extractor(network, few(network, samples), "openvino", strict=True)
    found = np.concatenate(list(made(batches(network, samples))))
    assert np.abs(found - expected).max() <= 0.05 * np.abs(expected).max()


@pytest.mark.parametrize(("precision", "tolerance"), [("32", 1e-4), ("bf16", 0.05)])
def test_wide_layers_see_whole_batches_and_the_features_are_the_same(
    monkeypatch: pytest.MonkeyPatch, make_config: Any, make_network: Any, make_samples: Any, precision: str, tolerance: float
) -> None:
    network: Network = make_network(make_config(model={"backbone": "vgg11", "weights": "none"}))
    network.classifier.requires_grad_(False)
    samples, expected, seen = make_samples(), by_torch(network, make_samples()), []
    wide = next(layer for layer in network.classifier.backbone.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size == (7, 7))
    network.precision, forward = precision, wide.forward
    made = Extractor(network, few(network, samples), "openvino", strict=True)
    found = np.concatenate(list(made(batches(network, samples))))
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()
    monkeypatch.setattr(wide, "forward", lambda images: seen.append(len(images)) or forward(images))
    if precision == "32":  # the layers are the network's own
        list(made(batches(network, samples)))
        assert seen == list(SIZES)


class FaintDifferences(nn.Module):
    """What tells images apart, beside a number a thousand times as large: bfloat16 rounds it away."""

    def __init__(self, large: float) -> None:
        super().__init__()
        self.scale, self.large = nn.Parameter(torch.ones(1), requires_grad=False), large

    def forward(self, images: Tensor) -> Tensor:
        means = images.mean(dim=(2, 3))
        return self.scale * (means.to(torch.bfloat16) + self.large if torch.is_autocast_enabled("cpu") else means + self.large).float()


@pytest.mark.parametrize(("large", "precision"), [(0.0, "bf16"), (1000.0, "32")])
@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_bfloat16_is_taken_where_it_leaves_alone_what_tells_images_apart(
    network: Network, make_samples: Any, monkeypatch: pytest.MonkeyPatch, runtime: str, large: float, precision: str
) -> None:
    samples = make_samples()
    monkeypatch.setattr(network.classifier.backbone, "network", FaintDifferences(large))
    network.precision = "bf16"
    made = Extractor(network, few(network, samples), runtime, strict=True)
    found = np.concatenate(list(made(batches(network, samples))))
    assert (made.precision, network.precision, made.runtime) == (precision, "bf16", runtime)
    expected = by_torch(network, samples)
    assert np.linalg.norm(found - expected) <= 0.05 * np.linalg.norm(expected - expected.mean(axis=0))


class SingularValues(nn.Module):
    """For which OpenVINO has no operation."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * torch.linalg.svdvals(images[:, 0])


def wrong(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """A converter that loses the weights' last digits."""

    def roughly(module: nn.Module, image: Tensor, precision: str) -> Any:
        made = openvino.compile_module(module, image, precision)
        return lambda images: [made(images)[0] * np.float32(1.001)]

    monkeypatch.setattr(extractor, "compile_module", roughly)


@pytest.mark.parametrize("why", ["does not convert", "gives other features"])
def test_torch_takes_over_where_openvino_cannot_be_trusted_and_the_log_says_why(
    network: Network, make_samples: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "does not convert":
        monkeypatch.setattr(network.classifier.backbone, "network", SingularValues())
    else:
        wrong(network, monkeypatch)
    samples = make_samples()
    made = Extractor(network, few(network, samples), "openvino")
    with caplog.at_level("WARNING", "coverslip"):
        found = np.concatenate(list(made(batches(network, samples))))
    assert made.runtime == "torch"
    np.testing.assert_allclose(found, by_torch(network, samples), rtol=1e-3, atol=1e-4)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("features: torch, for OpenVINO ")
    assert ("cannot run this network" in said) if why == "does not convert" else ("gives other features than torch: they differ by" in said)
    with pytest.raises(ExportError, match=r'say training.runtime = "torch"'):
        list(Extractor(network, few(network, samples), "openvino", strict=True)(batches(network, samples)))


def test_what_computed_is_part_of_the_entry_and_is_told(network: Network, make_samples: Any, make_config: Any) -> None:
    samples, rows = make_samples(), np.arange(20)

    def store(runtime: str) -> FeatureStore:
        return FeatureStore(network, samples.pixels, make_config().augment, 0, 10**9, runtime=runtime)

    made = {name: store(name) for name in ("torch", "openvino")}
    found = {name: one.rows(rows) for name, one in made.items()}
    assert {name: one.used for name, one in made.items()} == {name: {Arithmetic(name, "32")} for name in ("torch", "openvino")}
    assert set(made["torch"].seconds).isdisjoint(made["openvino"].seconds)
    np.testing.assert_allclose(found["torch"], found["openvino"], atol=1e-4 * np.abs(found["torch"]).max())
    again = store("openvino")
    assert np.array_equal(again.rows(rows), found["openvino"])
    assert again.used == {Arithmetic("openvino", "32")}


def test_the_choice_is_a_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    enough = WORTH_PREPARING
    assert choose_runtime("auto", CPU, enough) == "openvino"
    assert choose_runtime("auto", CPU, enough - 1) == "torch"
    assert choose_runtime("auto", torch.device("cuda"), enough) == "torch"
    assert choose_runtime("torch", CPU, enough) == "torch"
    assert choose_runtime("openvino", CPU, 1) == "openvino"
    with pytest.raises(ConfigError, match=r'training.runtime = "openvino" computes on the CPU, but the device is cuda'):
        choose_runtime("openvino", torch.device("cuda"), 1)
    monkeypatch.setattr(extractor, "is_installed", lambda: False)
    assert choose_runtime("auto", CPU, enough) == "torch"
