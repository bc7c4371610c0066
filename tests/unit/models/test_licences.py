from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file

from coverslip.config import ModelConfig
from coverslip.models.backbones import BackboneSpec, assemble_backbone
from coverslip.models.licences import weights_licence
from coverslip.models.weights import read_header, read_weights, write_weights

NAME = "mobilenetv3_small_050"


def spec_of(source: Path) -> BackboneSpec:
    backbone = assemble_backbone(ModelConfig(backbone="small_30k", weights="none"), None, 1, (32, 32))
    return replace(backbone.spec, source=str(source), architecture=NAME)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published") / f"{NAME}.safetensors"
    save_file(timm.create_model(NAME).state_dict(), path, {"format": "pt"})  # as its authors publish it
    return path


def test_what_timm_says_of_a_published_file_goes_on_with_it(published: Path, tmp_path: Path) -> None:
    assert timm.get_pretrained_cfg(NAME).license == "apache-2.0"
    assert weights_licence(spec_of(published)) == "Apache-2.0"
    ours = tmp_path / f"{NAME}.safetensors"
    write_weights(ours, read_weights(published, NAME))
    assert read_header(ours)["license"] == "apache-2.0"
    assert weights_licence(spec_of(ours)) == "Apache-2.0"


def test_a_file_that_says_nothing_and_random_weights(published: Path, tmp_path: Path) -> None:
    silent = tmp_path / f"{NAME}.safetensors"
    write_weights(silent, replace(read_weights(published, NAME), licence=""))
    assert weights_licence(spec_of(silent)) == ""
    assert weights_licence(spec_of(tmp_path / "gone.safetensors")) == ""
    assert weights_licence(replace(spec_of(silent), source="none")) is None
    write_weights(silent, replace(read_weights(published, NAME), licence="ask the lab"))
    assert weights_licence(spec_of(silent)) == "ask the lab"
