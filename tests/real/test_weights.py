"""The real ImageNet weights, where they are."""

import os
from pathlib import Path

import pytest
import torch

from coverslip.config import ModelConfig
from coverslip.models.backbones import build_backbone
from coverslip.models.weights import check_weights, find_weights, list_weights

BESIDE = Path(__file__).parents[3] / "shared" / "weights"
FOLDER = Path(os.environ.get("COVERSLIP_WEIGHTS", str(BESIDE)).split(os.pathsep)[0])
NAMES = ("mobilenetv2_035", "mobilenetv2_100")

pytestmark = pytest.mark.skipif(
    not all((FOLDER / f"{name}.safetensors").is_file() for name in NAMES), reason=f"no weights of {NAMES} in {FOLDER}"
)


@pytest.fixture(autouse=True)
def _folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVERSLIP_WEIGHTS", str(FOLDER))


@pytest.mark.parametrize("name", NAMES)
def test_grey_gives_what_its_rgb_copy_gives(name: str) -> None:
    config = ModelConfig(backbone=name)
    grey, colour = build_backbone(config, 1, (96, 96)).eval(), build_backbone(config, 3, (96, 96)).eval()
    assert (grey.mean, grey.std) == ((0.5,), (0.5,))
    images = torch.randn(4, 1, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(grey(images), colour(images.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_four_channels_keep_the_response_to_equal_planes(name: str) -> None:
    config = ModelConfig(backbone=name)
    four = build_backbone(config, 4, (96, 96))
    filters, kept = find_weights(name, "pretrained").state["conv_stem.weight"], four.network.conv_stem.weight
    torch.testing.assert_close(kept[:, 3], filters[:, 0] * 3 / 4)


def test_half_precision_files_become_float32_and_are_named_with_their_hash() -> None:
    weights = find_weights("mobilenetv2_100", "pretrained")
    assert {tensor.dtype for tensor in weights.state.values()} == {torch.float32, torch.int64}
    assert weights.arguments == {"pad_type": "same"}
    backbone = build_backbone(ModelConfig(backbone="mobilenetv2_100"), 3, (64, 64))
    assert backbone.weights == f"{FOLDER / 'mobilenetv2_100.safetensors'} (sha256 {weights.sha256})"


def test_the_folder_is_listed_and_sound() -> None:
    files = {file.name: file for file in list_weights()}
    assert set(NAMES) <= set(files)
    assert files["mobilenetv2_035"].input_size == (3, 224, 224)
    checked = [file for file in check_weights() if file.path.parent == FOLDER]
    assert len(checked) >= 2
    assert [file.problem for file in checked] == [""] * len(checked)
