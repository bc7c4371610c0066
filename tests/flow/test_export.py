from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from huggingface_hub import ModelCard, close_session, constants

from coverslip.data.reading import Reading
from coverslip.serve.models import name_bundles
from hub import hub_server

from .conftest import Cli


def by_onnx(file: Path, images: list[Path]) -> np.ndarray:
    """What another program gets: it decodes the files and knows nothing else."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"pixels": Reading().read([image])[0][None]})[0] for image in images])


def test_a_run_becomes_an_onnx_file_that_predicts_the_same(cli: Cli, gel_run: Path, gels: Path, tmp_path: Path) -> None:
    done = cli("export", gel_run, "--format", "onnx", "--out", tmp_path / "gel.onnx", "--check", gels)
    assert done.status == 0, done.err
    assert "scores differ from torch by at most" in done.out
    assert "on 42 images (1e-04 allowed)" in done.out
    assert cli("predict", gel_run, gels, "--out", tmp_path / "p.csv").status == 0
    predicted = pd.read_csv(tmp_path / "p.csv")
    files = [gels / image for image in predicted["image"]]
    assert len(files) == 40
    np.testing.assert_allclose(by_onnx(tmp_path / "gel.onnx", files), predicted[["p_gel", "p_not_gel"]], atol=1e-4)
    record = json.loads((gel_run / "bundle" / "exports.json").read_text())["onnx"]
    assert record["parity"]["images"] == 42


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_eight_bits_come_with_what_they_cost(cli: Cli, gel_run: Path, gels: Path, tmp_path: Path, form: str) -> None:
    ending = {"onnx": "onnx", "openvino": "xml"}[form]
    done = cli("export", gel_run, "--format", form, "--out", tmp_path / f"gel.{ending}", "--data", gels, "--quantise")
    assert done.status == 0, done.err
    assert "8 bits: accuracy" in done.out
    cost = json.loads((gel_run / "bundle" / "exports.json").read_text())[form]["int8"]["cost"]
    assert (cost["calibrated_on"], cost["images"]) == (13, 27)
    assert (
        cost["numbers"]["accuracy"]["loss"]["low"]
        <= cost["numbers"]["accuracy"]["loss"]["value"]
        <= cost["numbers"]["accuracy"]["loss"]["high"]
    )
    assert 0 < cost["mean_difference"] < 0.2
    assert (tmp_path / f"gel-int8.{ending}").is_file()
    if form == "onnx":
        files = sorted(path for path in gels.rglob("*") if path.is_file())
        small, full = (by_onnx(tmp_path / name, files) for name in ("gel-int8.onnx", "gel.onnx"))
        assert 0 < np.abs(small - full).mean() < 0.2
    again = cli("export", gel_run, "--format", form, "--out", tmp_path / "other" / f"gel.{ending}", "--quantise")
    assert again.status == 2
    assert "say --data with a labelled set" in again.err


def test_the_card_is_one_that_the_hub_reads(gel_run: Path) -> None:
    card = ModelCard.load(gel_run / "bundle" / "README.md")
    assert card.data.library_name == "coverslip"
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.license is None
    split = pd.read_csv(gel_run / "split.csv")
    counts = split.groupby(["label", "part"]).size()
    assert f"| gel | {counts['gel', 'train']} | {counts['gel', 'validation']} | {counts['gel', 'test']} |" in card.text
    metrics = json.loads((gel_run / "metrics.json").read_text())["test"]
    assert f"- accuracy: {metrics['accuracy']['value']:.3f} ({metrics['accuracy']['low']:.3f} to" in card.text
    for words in ("no licence of others comes with it", "Another instrument", "random weights"):
        assert words in card.text


def test_a_run_goes_to_the_hub_and_predicts_from_there(
    cli: Cli, gel_run: Path, gels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub_server() as (endpoint, _):
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("HF_TOKEN", "hf_for_tests_only")
        pushed = cli("push", gel_run, "hf://lab/gels")
        assert pushed.status == 0, pushed.err
        assert pushed.out.startswith(f"{endpoint}/lab/gels/commit/")
        there = cli("predict", "hf://lab/gels", gels / "gel", "--out", tmp_path / "there.csv")
        assert there.status == 0, there.err
        assert cli("predict", gel_run, gels / "gel", "--out", tmp_path / "here.csv").status == 0
        assert list(name_bundles(["hf://lab/gels"])) == ["gels"]
        close_session()
    assert (tmp_path / "there.csv").read_text() == (tmp_path / "here.csv").read_text()
