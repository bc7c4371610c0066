import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from coverslip.errors import BundleError, ConfigError, WeightsError
from coverslip.models.networks import create_network
from coverslip.models.weights import (
    Weights,
    check_weights,
    fetch_weights,
    find_weights,
    list_weights,
    local_weights,
    read_header,
    weight_folders,
    write_weights,
)
from object_server import object_server
from unit.export.kinds import saved

PUBLISHED = "mobilenetv3_small_050"
REPOSITORY = "timm/mobilenetv3_small_050.lamb_in1k"


@pytest.fixture(autouse=True)
def _nothing_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights in any cache, and no network."""
    monkeypatch.delenv("COVERSLIP_WEIGHTS", raising=False)
    monkeypatch.setenv("COVERSLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def save_small(path: Path, name: str = "small_30k", **changes: object) -> Weights:
    state = create_network(name, channels=1, size=(32, 32), arguments={}).state_dict()
    values = {"mean": (0.25,), "std": (0.5,), "input_size": (1, 32, 48), "state": state, **changes}
    weights = Weights(name, "", "", {}, interpolation="bicubic", **values)
    write_weights(path, weights)
    return weights


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as timm's authors publish it: with its classifier, without our header."""
    path = tmp_path_factory.mktemp("published") / "model.safetensors"
    save_file(timm.create_model(PUBLISHED).state_dict(), path, {"format": "pt"})
    return path


def test_none_is_none() -> None:
    assert find_weights("resnet18", "none") is None
    with pytest.raises(ConfigError, match="resnet18"):
        find_weights("resnt18", "none")


def test_what_is_written_is_found_first_in_the_first_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    monkeypatch.setenv("COVERSLIP_WEIGHTS", f"{tmp_path / 'absent'}:{first}:{second}")
    save_small(second / "small_30k.safetensors")
    assert find_weights("small_30k", "pretrained").source == str(second / "small_30k.safetensors")
    written = save_small(first / "small_30k.safetensors")
    found = find_weights("small_30k", "pretrained")
    path = first / "small_30k.safetensors"
    assert found.source == str(path)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (found.mean, found.std, found.input_size, found.interpolation) == ((0.25,), (0.5,), (1, 32, 48), "bicubic")
    for name, tensor in found.state.items():
        torch.testing.assert_close(tensor, written.state[name])


def test_coverslips_own_cache_is_looked_at_last(tmp_path: Path) -> None:
    assert weight_folders() == [tmp_path / "cache" / "weights"]
    save_small(tmp_path / "cache" / "weights" / "small_30k.safetensors")
    assert local_weights("small_30k") == tmp_path / "cache" / "weights" / "small_30k.safetensors"


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    state = create_network("small_30k", channels=1, size=(32, 32), arguments={}).half().state_dict()
    save_small(tmp_path / "weights.safetensors", state=state)
    found = find_weights("small_30k", str(tmp_path / "weights.safetensors"))
    assert {tensor.dtype for tensor in found.state.values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize("architecture", ["resnet18", "small_200k", "mobilenetv2_035"])
def test_nothing_found_names_three_ways_out_and_what_was_looked_at(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COVERSLIP_WEIGHTS", str(tmp_path / "mine"))
    save_small(tmp_path / "mine" / "small_30k.safetensors")
    with pytest.raises(WeightsError) as caught:
        find_weights(architecture, "pretrained")
    for piece in (
        str(tmp_path / "mine" / architecture),
        str(tmp_path / "cache"),
        "COVERSLIP_WEIGHTS names",
        "give a path",
        'model.weights = "none"',
    ):
        assert piece in str(caught.value)
    if architecture == "resnet18":
        assert "timm/resnet18.a1_in1k" in str(caught.value)
        assert "offline" in str(caught.value)


def test_an_unreachable_hub_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match=r"at http://127\.0\.0\.1:9: .*refused"):
        find_weights("resnet18", "pretrained")


def test_a_cached_file_of_the_hub_is_converted(tmp_path: Path, published: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = tmp_path / "hub" / f"models--{REPOSITORY.replace('/', '--')}"
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit / "model.safetensors").symlink_to(published)
    found = find_weights(PUBLISHED, "pretrained")
    assert commit in found.source
    check_converted(found, published)


def test_a_cached_file_of_torch_hub_is_converted(tmp_path: Path, published: Path) -> None:
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / f"{PUBLISHED}.safetensors").symlink_to(published)
    (folder / "resnet18.pth").write_bytes(b"a pickle that is never opened")
    check_converted(find_weights(PUBLISHED, "pretrained"), published)
    with pytest.raises(WeightsError, match="no pretrained weights for resnet18"):
        find_weights("resnet18", "pretrained")


def check_converted(found: Weights, published: Path) -> None:
    wanted = create_network(PUBLISHED, channels=3, size=(64, 64), arguments={}).state_dict()
    assert set(found.state) == set(wanted)
    torch.testing.assert_close(found.state["conv_stem.weight"], load_file(published)["conv_stem.weight"])
    assert found.input_size == (3, 224, 224)
    assert found.mean == (0.485, 0.456, 0.406)
    assert found.sha256 == hashlib.sha256(published.read_bytes()).hexdigest()


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub's protocol as one file needs."""

    content: ClassVar[bytes] = b""
    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.asked.append(self.path)
        known = self.path in ("/", f"/{REPOSITORY}/resolve/main/model.safetensors")
        self.send_response(200 if known else 404)
        self.send_header("ETag", f'"{hashlib.sha256(self.content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0123456789abcdef0123456789abcdef01234567")
        if not known:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def hub(published: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    monkeypatch.setattr(Hub, "content", published.read_bytes())
    monkeypatch.setattr(Hub, "asked", [])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
        yield Hub
        server.shutdown()
        thread.join()


def test_fetch_brings_a_file_from_the_hub_into_the_first_folder(
    hub: type[Hub], published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COVERSLIP_WEIGHTS", str(tmp_path / "mine"))
    path = fetch_weights(PUBLISHED)
    assert path == tmp_path / "mine" / f"{PUBLISHED}.safetensors"
    header = read_header(path)
    assert header["architecture"] == PUBLISHED
    assert (header["library"], header["arguments"], header["input_size"]) == ("timm", {}, [3, 224, 224])
    assert "classifier.weight" not in load_file(path)
    asked = len(hub.asked)
    assert asked >= 2
    assert fetch_weights(PUBLISHED) == path
    assert find_weights(PUBLISHED, "pretrained").source == str(path)
    assert len(hub.asked) == asked
    assert [file.problem for file in check_weights()] == [""]


def test_a_hub_without_the_file(hub: type[Hub]) -> None:
    with pytest.raises(WeightsError, match=r"the hub: timm/resnet18\.a1_in1k/model\.safetensors at http"):
        find_weights("resnet18", "pretrained")
    assert hub.asked


def test_a_path_that_is_not_there_or_not_safe(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="Did you mean 'pretrained'"):
        find_weights("resnet18", "pretraned")
    (tmp_path / "model.pth").write_bytes(b"pickle")
    with pytest.raises(WeightsError, match="can run code"):
        find_weights("resnet18", str(tmp_path / "model.pth"))
    with pytest.raises(WeightsError, match=r"without model\.json and model\.safetensors"):
        find_weights("resnet18", str(tmp_path))


def test_files_that_are_cut_short_or_of_another_architecture(tmp_path: Path, published: Path) -> None:
    path = tmp_path / "small_30k.safetensors"
    save_small(path)
    with pytest.raises(WeightsError, match="holds weights of small_30k"):
        find_weights("small_200k", str(path))
    with pytest.raises(WeightsError, match="does not fit resnet18"):
        find_weights("resnet18", str(published))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        find_weights("small_30k", str(path))


def test_a_published_file_by_its_path(published: Path) -> None:
    check_converted(find_weights(PUBLISHED, str(published)), published)


def test_a_bundle_of_another_architecture_or_without_its_json(tmp_path: Path) -> None:
    backbone = {"architecture": "small_30k", "channels": 1, "size": [32, 32], "mean": [0.0], "std": [1.0], "arguments": {}}
    (tmp_path / "model.json").write_text(json.dumps({"architecture": {"backbone": backbone}}))
    save_file({"backbone.network.x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"holds a small_30k, but model\.backbone = 'resnet18'"):
        find_weights("resnet18", str(tmp_path))
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(BundleError, match="KeyError: 'architecture'"):
        find_weights("small_30k", str(tmp_path))


def test_list_and_check_tell_the_good_from_the_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVERSLIP_WEIGHTS", str(tmp_path))
    save_small(tmp_path / "small_30k.safetensors")
    save_small(tmp_path / "small_200k.safetensors", name="small_30k")
    save_small(tmp_path / "small_600k.safetensors", name="small_600k", state={"stem.0.weight": torch.zeros(24, 1, 3, 3)})
    save_small(tmp_path / "unheard_of.safetensors")
    (tmp_path / "resnet18.safetensors").write_bytes(b"\0" * 20)
    listed = {file.name: file for file in list_weights()}
    assert len(listed) == 5
    assert listed["small_30k"].input_size == (1, 32, 48)
    assert listed["small_30k"].size == (tmp_path / "small_30k.safetensors").stat().st_size
    problems = {file.name: file.problem for file in check_weights()}
    assert problems.pop("small_30k") == ""
    assert "holds weights of small_30k" in problems["small_200k"]
    assert "missing" in problems["small_600k"]
    assert "small_30k" in problems["unheard_of"] or "not a known" in problems["unheard_of"]
    assert "cannot be read" in problems["resnet18"]


def test_weights_at_a_url_are_those_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    far = tmp_path / "store" / "bucket" / "small_30k.safetensors"
    far.parent.mkdir(parents=True)
    here = save_small(far)
    with object_server(tmp_path / "store") as (address, server):
        monkeypatch.setenv("COVERSLIP_ENDPOINT", address)
        for url in ("s3://bucket/small_30k.safetensors", f"{address}/bucket/small_30k.safetensors", far.as_uri()):
            found = find_weights("small_30k", url)
            assert found is not None
            assert found.source in (url, str(far))
            assert all(torch.equal(found.state[name], tensor) for name, tensor in here.state.items())
            find_weights("small_30k", url)
        assert sum(method == "GET" for method, _ in server.requests) == 2  # once for each URL
        save_small(far, mean=(0.5,))  # another file at the same address
        changed = find_weights("small_30k", "s3://bucket/small_30k.safetensors")
        assert changed is not None
        assert changed.mean == (0.5,)
        with pytest.raises(WeightsError, match="there is nothing at this address"):
            find_weights("small_30k", "s3://bucket/other.safetensors")
        with pytest.raises(WeightsError, match=r"neither a \.safetensors file, nor a bundle or run"):
            find_weights("small_30k", "s3://bucket/model.pth")


def test_a_bundle_at_a_url_lends_its_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    bundle = saved("grey", tmp_path / "store" / "bucket" / "run" / "bundle")
    here = find_weights("small_30k", str(bundle))
    assert here is not None
    with object_server(tmp_path / "store") as (address, server):
        monkeypatch.setenv("COVERSLIP_ENDPOINT", address)
        for url in ("s3://bucket/run", "s3://bucket/run/bundle", f"{address}/bucket/run/bundle"):
            found = find_weights("small_30k", url)
            assert found is not None
            assert (found.source, found.sha256, found.classes) == (url, here.sha256, here.classes)
        assert not [path for _, path in server.requests if "sample" in path or "neighbours" in path]


def test_a_bundle_of_class_groups_is_not_gone_on_from(tmp_path: Path) -> None:
    groups = [{"columns": [0, 1], "backbone": {}}, {"columns": [2], "backbone": {}}]
    (tmp_path / "model.json").write_text(json.dumps({"classes": ["a", "b", "c"], "architecture": {"groups": groups}}))
    for name in ("model-1.safetensors", "model-2.safetensors"):
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(WeightsError, match="a model for each of several class groups"):
        find_weights("small_30k", str(tmp_path))
