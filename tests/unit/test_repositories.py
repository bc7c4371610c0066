from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import close_session, constants
from safetensors.torch import save

import coverslip
from coverslip.bundle import find_bundle
from coverslip.errors import BundleError, InputError, MissingInputError, UnreachableError, WeightsError
from coverslip.models.weights import find_weights
from coverslip.predict import Model
from coverslip.repositories import fetch_bundle, is_address, parse_address, push_bundle
from hub import Hub, hub_server
from unit.export.kinds import saved
from unit.test_bundle import images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("grey", tmp_path_factory.mktemp("pushed") / "bundle")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    with hub_server() as (endpoint, hub):
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("HF_TOKEN", "hf_for_tests_only")
        yield hub
        close_session()


def test_a_bundle_goes_to_a_repository_and_comes_back(hub: type[Hub], folder: Path) -> None:
    (folder / "notes.txt").write_text("not for others")
    assert "/lab/gels/commit/" in push_bundle(folder, "hf://lab/gels")
    assert hub.private == {"lab/gels": True}
    assert {"model.json", "model.safetensors", "README.md", "sample/expected.json"} <= set(hub.repositories["lab/gels"])
    assert "notes.txt" not in hub.repositories["lab/gels"]
    here = Model(folder, device="cpu").predict_proba(images())
    for address in ("hf://lab/gels", "hf://lab/gels@main", Path("hf://lab/gels")):
        np.testing.assert_allclose(coverslip.load(address, device="cpu").predict_proba(images()), here, atol=1e-6)
    hub.repositories["lab/gels"]["model.safetensors"] = b"something else"
    shutil.rmtree(find_bundle("hf://lab/gels").parent.parent)
    with pytest.raises(BundleError, match="SHA-256"):
        coverslip.load("hf://lab/gels")


def test_a_public_repository_is_asked_for(hub: type[Hub], folder: Path) -> None:
    push_bundle(folder, "hf://lab/open", public=True)
    assert hub.private == {"lab/open": False}


def test_pickles_in_a_repository_are_not_fetched(hub: type[Hub], folder: Path) -> None:
    push_bundle(folder, "hf://lab/gels")
    hub.repositories["lab/gels"]["pytorch_model.bin"] = b"\x80\x04."
    assert not (fetch_bundle("hf://lab/gels") / "pytorch_model.bin").exists()


def test_weights_come_from_a_bundle_in_a_repository_and_from_a_published_file(
    hub: type[Hub], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_bundle(folder, "hf://lab/gels")
    here, there = (find_weights("small_30k", where) for where in (str(folder), "hf://lab/gels"))
    assert here is not None
    assert there is not None
    assert (there.source, there.sha256, there.classes) == ("hf://lab/gels", here.sha256, here.classes)
    state = {name: tensor.contiguous() for name, tensor in timm.create_model("resnet10t").state_dict().items()}
    hub.repositories["timm/resnet"], hub.private["timm/resnet"] = {"model.safetensors": save(state, {"format": "pt"})}, False
    found = find_weights("resnet10t", "hf://timm/resnet")
    assert found is not None
    assert torch.equal(found.state["conv1.0.weight"], state["conv1.0.weight"])
    hub.repositories["lab/empty"], hub.private["lab/empty"] = {"README.md": b"#"}, False
    with pytest.raises(WeightsError, match="holds neither a bundle"):
        find_weights("small_30k", "hf://lab/empty")


def test_a_bundle_cannot_make_the_constructor_load_something(hub: type[Hub], folder: Path) -> None:
    push_bundle(folder, "hf://lab/gels")
    files = hub.repositories["lab/gels"]
    described = json.loads(files["model.json"])
    described["architecture"]["backbone"] |= {"architecture": "resnet10t", "arguments": {"checkpoint_path": "sample/evil.pth"}}
    files["model.json"] = json.dumps(described).encode()
    with pytest.raises(BundleError, match="checkpoint_path"):
        coverslip.load("hf://lab/gels")


def test_what_is_not_there_and_who_does_not_answer(hub: type[Hub], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingInputError, match="no bundle at hf://lab/nothing"):
        fetch_bundle("hf://lab/nothing")
    hub.repositories["lab/empty"], hub.private["lab/empty"] = {"README.md": b"#"}, False
    with pytest.raises(MissingInputError, match="neither a bundle"):
        find_bundle("hf://lab/empty")
    push_bundle(folder, "hf://lab/gels")
    kept = fetch_bundle("hf://lab/gels")
    close_session()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert fetch_bundle("hf://lab/gels") == kept
    with pytest.raises(UnreachableError, match="no copy is in the cache"):
        fetch_bundle("hf://lab/other")
    with pytest.raises(UnreachableError, match="cannot be written"):
        push_bundle(folder, "hf://lab/gels")


@pytest.mark.parametrize("wrong", ["hf://", "hf://gels", "hf://lab/gels/more", "hf://lab/../x y"])
def test_other_addresses_are_refused(wrong: str) -> None:
    with pytest.raises(InputError, match="expected hf://OWNER/NAME"):
        parse_address(wrong)
    assert is_address(wrong)
