from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from bioimageio.core import test_model as check_model
from bioimageio.spec import load_description_and_validate_format_only
from PIL import Image

from coverslip.errors import ExportError, InputError
from coverslip.export import export_bundle, exporting
from coverslip.predict import Model
from coverslip.structures import FloatArray
from unit.test_bundle import images

from .kinds import KINDS, saved

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("kinds")
    return {kind: saved(kind, root / str(number)) for number, kind in enumerate(KINDS)}


def raw(model: Model, count: int = 5, shape: tuple[int, int] = (45, 70)) -> list[Array]:
    """Decoded images of another size than those of the sample."""
    geometry = model.bundle.network.geometry
    random = np.random.default_rng(3)
    high = {8: 256, 16: 65536, 32: 2000}[geometry.bits]
    return [(random.random((*shape, len(geometry.channels))) * high * (k + 1) / count).astype(geometry.dtype) for k in range(count)]


def by_onnx(file: Path, pixels: Array) -> FloatArray:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    found: FloatArray = session.run(["scores"], {"pixels": pixels})[0]
    return found


def test_every_kind_of_bundle_gives_its_scores_as_onnx(bundles: dict[str, Path], tmp_path: Path) -> None:
    """Raw pixels of another size in, several at once; held against `Model`, which reads, resizes and calibrates by itself."""
    checked = 0
    for kind, folder in bundles.items():
        made = export_bundle(folder, "onnx", tmp_path / f"{checked}.onnx")
        model = Model(folder, device="cpu", runtime="torch")
        inputs = raw(model)
        expected = model.predict_proba(inputs)
        assert np.ptp(expected, axis=0).min() > 1e-3, kind
        found = by_onnx(made.path, np.stack(inputs))
        np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=kind)
        np.testing.assert_allclose(by_onnx(made.path, np.stack(inputs[:1])), expected[:1], atol=1e-4, err_msg=kind)
        assert made.parity.holds
        assert made.parity.images == 3
        checked += 1
    assert checked == len(KINDS) == 8


def test_the_file_says_what_its_scores_mean(bundles: dict[str, Path], tmp_path: Path) -> None:
    made = export_bundle(bundles["several labels"], "onnx", tmp_path / "model.onnx")
    model = onnx.load(made.path)
    facts = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert facts["classes"] == ["a", "b", "c"]
    assert facts["threshold"] == [0.3, 0.5, 0.6]
    assert facts["at_least_one"] is True
    pixels = model.graph.input[0].type.tensor_type
    assert [dim.dim_param or dim.dim_value for dim in pixels.shape.dim] == ["batch", "height", "width", "channels"]
    assert pixels.elem_type == onnx.TensorProto.UINT8


def test_parity_is_remembered_in_the_bundle(tmp_path: Path) -> None:
    folder = saved("grey", tmp_path / "bundle")
    (tmp_path / "more").mkdir()
    for number, image in enumerate(images(n=5)):
        Image.fromarray(image[..., 0]).save(tmp_path / "more" / f"{number}.png")
    (tmp_path / "more" / "letter.png").write_text("not an image")
    made = export_bundle(folder, "onnx", tmp_path / "out", check=[tmp_path / "more"])
    assert made.path == tmp_path / "out.onnx"
    assert (made.parity.images, made.parity.left_out) == (8, 1)
    assert "1 images were not compared" in made.notes[0]
    record = json.loads((folder / "exports.json").read_text())["onnx"]
    assert record["parity"]["images"] == 8
    assert record["parity"]["largest_difference"] == made.parity.largest_difference <= 1e-4
    assert record["parity"]["tolerance"] == 1e-4
    assert record["file"] == "out.onnx"
    Model(folder)


def test_eight_bit_images_of_a_deeper_model_and_the_other_way_round(bundles: dict[str, Path], tmp_path: Path) -> None:
    made = export_bundle(bundles["grey"], "onnx", tmp_path / "deep.onnx", depth=16)
    model = Model(bundles["grey"], device="cpu", runtime="torch")
    inputs = [image.astype(np.uint16) * 257 for image in raw(model)]
    np.testing.assert_allclose(by_onnx(made.path, np.stack(inputs)), model.predict_proba(inputs), atol=1e-4)
    with pytest.raises(ExportError, match="could not be compared with torch: none of 3 images"):
        export_bundle(bundles["16 bit"], "onnx", tmp_path / "flat.onnx", depth=8)
    with pytest.raises(ExportError, match="say 8 or 16"):
        export_bundle(bundles["grey"], "onnx", tmp_path / "wrong.onnx", depth=32)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep.onnx"]


def test_openvino_files_give_the_scores(bundles: dict[str, Path], tmp_path: Path) -> None:
    checked = 0
    for kind in ("grey", "colour", "channels", "several labels", "groups of classes"):
        made = export_bundle(bundles[kind], "openvino", tmp_path / f"{checked}.xml")
        assert made.parity.holds
        model = Model(bundles[kind], device="cpu", runtime="torch")
        compiled = openvino.Core().compile_model(made.path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        inputs = raw(model)
        np.testing.assert_allclose(compiled({0: np.stack(inputs)})[0], model.predict_proba(inputs), atol=1e-4, err_msg=kind)
        checked += 1
    assert checked == 5
    assert {path.suffix for path in tmp_path.iterdir()} == {".xml", ".bin"}
    assert len(list(tmp_path.iterdir())) == 10


@pytest.mark.filterwarnings("ignore")
def test_a_bioimageio_package_validates_and_runs(bundles: dict[str, Path], tmp_path: Path) -> None:
    said = {"channels": {}, "several labels": {"authors": ["Ada Lovelace"], "licence": "cc-by-4.0"}}
    for kind, words in said.items():
        made = export_bundle(bundles[kind], "bioimageio", tmp_path / f"{kind}.zip", **words)  # type: ignore[arg-type]
        valid(made.path)
        assert bool(made.notes) is not bool(words), made.notes
    assert "--author NAME and --licence SPDX" in export_bundle(bundles["channels"], "bioimageio", tmp_path / "channels.zip").notes[0]
    found = described(tmp_path / "several labels.zip")
    assert ([author["name"] for author in found["authors"]], found["license"]) == (["Ada Lovelace"], "CC-BY-4.0")


@pytest.mark.filterwarnings("ignore")
def test_a_package_in_8_bits_validates_and_says_what_it_costs(tmp_path: Path) -> None:
    folder = saved("grey", tmp_path / "bundle")
    for number, image in enumerate(images(n=18)):
        place = tmp_path / "data" / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(place)
    made = export_bundle(folder, "bioimageio", tmp_path / "model.zip", data=tmp_path / "data", quantise=True)
    assert made.small is not None
    small, cost = made.small
    assert small.name == "model-int8.zip"
    valid(small)
    assert "in 8 bits" in described(small)["description"]
    with zipfile.ZipFile(small) as archive:
        assert cost.sentence in archive.read("README.md").decode()
        assert len(archive.read("model.onnx")) == cost.bytes[0]


def valid(package: Path) -> None:
    """Hold a package against the tools of bioimage.io, which run it, too."""
    summary = load_description_and_validate_format_only(package)
    assert summary.status == "valid-format", summary.format()
    tested = check_model(package)
    assert tested.status == "passed", tested.format()


def described(package: Path) -> Any:
    with zipfile.ZipFile(package) as archive:
        return json.loads(archive.read("rdf.yaml"))


def test_a_graph_that_gives_other_scores_is_refused(bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose calibration was lost on the way."""
    right = exporting.raw_graph

    def wrong(bundle: Any, depth: int) -> Any:
        changed = right(bundle, depth)
        next(node for node in changed.graph.node if node.op_type == "Sigmoid").op_type = "Tanh"
        return changed

    monkeypatch.setattr(exporting, "raw_graph", wrong)
    with pytest.raises(ExportError, match="differs from torch: by up to"):
        export_bundle(bundles["several labels"], "onnx", tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_wrong_endings_and_a_quantised_model_without_labels(bundles: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ends in \.xml"):
        export_bundle(bundles["grey"], "openvino", tmp_path / "model.onnx")
    with pytest.raises(InputError, match="say --data"):
        export_bundle(bundles["grey"], "onnx", tmp_path / "model.onnx", quantise=True)
    for words, message in (
        ({"form": "onnx", "authors": ["Ada"]}, "say --format bioimageio"),
        ({"form": "bioimageio", "authors": ["a/b"]}, "the name of a person"),
        ({"form": "bioimageio", "licence": "CC-BY"}, "Did you mean 'CC-BY-4.0'"),
    ):
        with pytest.raises(InputError, match=message):
            export_bundle(bundles["grey"], words.pop("form"), tmp_path / "model", **words)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
