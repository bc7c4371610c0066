from pathlib import Path

import pytest
import torch

from coverslip.config import ModelConfig
from coverslip.errors import ConfigError
from coverslip.models.backbones import BackboneSpec, build_backbone, empty_backbone, features_of, native_size
from coverslip.models.networks import create_network
from coverslip.models.weights import Weights, write_weights


def untrained(backbone: str, **keys: object) -> ModelConfig:
    return ModelConfig.model_validate({"backbone": backbone, "weights": "none", **keys})


def test_max_and_both_pool_the_last_map() -> None:
    network = create_network("small_30k", channels=1, size=(40, 40), arguments={}).eval()
    images = torch.randn(2, 1, 40, 40)
    last = network.forward_features(images)
    torch.testing.assert_close(features_of(network, images, "max"), last.amax((2, 3)))
    torch.testing.assert_close(features_of(network, images, "both"), torch.cat([last.mean((2, 3)), last.amax((2, 3))], 1))


def test_transformers_pool_their_patches() -> None:
    network = create_network("vit_tiny_patch16_224", channels=3, size=(32, 48), arguments={"depth": 1}).eval()
    images = torch.randn(2, 3, 32, 48)
    tokens = network.forward_features(images)
    torch.testing.assert_close(features_of(network, images, "average"), tokens[:, 0])
    torch.testing.assert_close(features_of(network, images, "max"), tokens[:, 1:].amax(1))


def test_maps_with_channels_last_are_pooled_over_space() -> None:
    network = create_network(
        "swin_tiny_patch4_window7_224", channels=1, size=(64, 64), arguments={"depths": (1, 1), "num_heads": (3, 6)}
    ).eval()
    images = torch.randn(1, 1, 64, 64)
    assert features_of(network, images, "max").shape == (1, network.num_features)


def test_a_size_that_the_network_cannot_take() -> None:
    with pytest.raises(ConfigError, match=r"patches of 16x16 pixels and would lose the rest of 60x64"):
        build_backbone(untrained("vit_tiny_patch16_224", arguments={"depth": 1}), 1, (60, 64))
    with pytest.raises(ConfigError, match=r"inception_resnet_v2 cannot take 1 channels of 32x32 pixels"), torch.device("meta"):
        build_backbone(untrained("inception_resnet_v2"), 1, (32, 32))


@pytest.mark.parametrize(("name", "size"), [("xcit_nano_12_p16_224", (224, 224)), ("pvt_v2_b0", (100, 124))])
def test_patches_that_overlap_lose_nothing(name: str, size: tuple[int, int]) -> None:
    with torch.device("meta"):
        backbone = build_backbone(untrained(name), 1, size)
        assert backbone(torch.zeros(2, 1, *size)).shape == (2, backbone.features)


def test_a_network_of_several_branches_has_no_last_map_to_pool() -> None:
    with pytest.raises(ConfigError, match=r'CrossVit ends in several maps.*model.pooling = "average"'), torch.device("meta"):
        build_backbone(untrained("crossvit_tiny_240", pooling="max"), 1, (240, 240))


def test_numbers_of_random_weights() -> None:
    small = build_backbone(untrained("small_30k"), 4, (32, 32))
    assert (small.mean, small.std, small.weights, small.input_size) == ((0.0,) * 4, (1.0,) * 4, "none", (32, 32))
    grey = build_backbone(untrained("mobilenetv2_035"), 1, (64, 64))
    assert grey.mean == pytest.approx(((0.485 + 0.456 + 0.406) / 3,))


def test_the_spec_survives_json() -> None:
    backbone = build_backbone(untrained("small_30k", pooling="both"), 2, (32, 48))
    assert BackboneSpec.from_json(backbone.spec.to_json()) == backbone.spec
    assert empty_backbone(backbone.spec)(torch.zeros(2, 2, 32, 48)).shape == (2, backbone.features) == (2, 128)


def test_native_size_comes_from_the_weights_then_from_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert native_size(untrained("inception_resnet_v2")) == (299, 299)
    assert native_size(untrained("small_200k")) == (128, 128)
    state = create_network("small_30k", channels=1, size=(48, 80), arguments={}).state_dict()
    write_weights(tmp_path / "small_30k.safetensors", Weights("small_30k", "", "", {}, (0.0,), (1.0,), (1, 48, 80), "bilinear", state))
    monkeypatch.setenv("COVERSLIP_WEIGHTS", str(tmp_path))
    assert native_size(ModelConfig(backbone="small_30k")) == (48, 80)
    assert native_size(untrained("small_30k")) == (128, 128)


def test_config_arguments_stand_above_those_of_the_file(tmp_path: Path) -> None:
    network = create_network("mobilenetv2_035", channels=3, size=(64, 64), arguments={})
    path = tmp_path / "mobilenetv2_035.safetensors"
    write_weights(
        path,
        Weights(
            "mobilenetv2_035",
            "",
            "",
            {"bn_eps": 0.5, "drop_rate": 0.1},
            (0.5,) * 3,
            (0.5,) * 3,
            (3, 64, 64),
            "bilinear",
            network.state_dict(),
        ),
    )
    backbone = build_backbone(ModelConfig(backbone="mobilenetv2_035", weights=str(path), arguments={"drop_rate": 0.2}), 3, (64, 64))
    assert backbone.spec.arguments == {"bn_eps": 0.5, "drop_rate": 0.2}
    assert backbone.network.bn1.eps == 0.5


def test_first_layer_mean_divides_the_response_by_three(tmp_path: Path) -> None:
    network = create_network("small_30k", channels=3, size=(32, 32), arguments={})
    path = tmp_path / "small_30k.safetensors"
    write_weights(path, Weights("small_30k", "", "", {}, (0.0,) * 3, (1.0,) * 3, (3, 32, 32), "bilinear", network.state_dict()))
    summed, averaged = (
        build_backbone(ModelConfig.model_validate({"backbone": "small_30k", "weights": str(path), "first_layer": how}), 1, (32, 32))
        for how in ("repeat", "mean")
    )
    torch.testing.assert_close(summed.network.stem[0].weight, 3 * averaged.network.stem[0].weight)
