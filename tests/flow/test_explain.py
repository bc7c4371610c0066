"""`coverslip explain` from the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from .conftest import Cli


def read_manifest(folder: Path) -> dict:  # type: ignore[type-arg]
    manifest: dict = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))  # type: ignore[type-arg]
    return manifest


def test_explain_writes_pictures_maps_manifest_and_overview(cli: Cli, gels: Path, gel_run: Path, tmp_path: Path) -> None:
    images = [sorted((gels / name).iterdir())[0] for name in ("gel", "not_gel")]
    (tmp_path / "broken.png").write_bytes(images[0].read_bytes()[:60])
    out = tmp_path / "why"
    outcome = cli("explain", gel_run, *images, tmp_path / "broken.png", "--out", out, "--label", "all", "--windows", 4)
    assert outcome.status == 0, outcome.err
    assert "4 explanations of 2 images" in outcome.out
    assert "broken.png could not be read" in outcome.err
    manifest = read_manifest(out)
    assert list(manifest["problems"]) == [str(tmp_path / "broken.png")]
    assert [(entry["image"], entry["label"]) for entry in manifest["explanations"]] == [
        (str(image), label) for image in images for label in ("gel", "not_gel")
    ]
    named = {"manifest.json", "overview.html"}
    for entry in manifest["explanations"]:
        with Image.open(entry["image"]) as original:
            size = (original.height, original.width)
        assert tuple(entry["size"]) == size
        for name in ("map", "check_map"):
            values = tifffile.imread(out / entry[name])
            assert (values.shape, values.dtype) == (size, np.float32)
            assert np.isfinite(values).all()
        for name in ("image_file", "overlay", "check_overlay"):
            with Image.open(out / entry[name]) as picture:
                assert picture.format == "PNG"
        assert len(entry["neighbours"]) == 6
        assert [near["distance"] for near in entry["neighbours"]] == sorted(near["distance"] for near in entry["neighbours"])
        named |= {entry[name] for name in ("map", "check_map", "image_file", "overlay", "check_overlay")}
        named |= {near["thumbnail"] for near in entry["neighbours"]}
    assert {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} == named
    page = (out / "overview.html").read_text(encoding="utf-8")
    assert page.count('<article class="explained">') == 4
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "broken.png" in page


def test_explained_scores_are_those_of_predict(cli: Cli, gels: Path, gel_run: Path, tmp_path: Path) -> None:
    image = sorted((gels / "gel").iterdir())[1]
    outcome = cli("explain", gel_run.as_uri(), image, "--out", (tmp_path / "why").as_uri(), "--windows", 2)
    assert outcome.status == 0, outcome.err
    assert cli("predict", gel_run, image, "--out", tmp_path / "p.csv").status == 0
    (entry,) = read_manifest(tmp_path / "why")["explanations"]
    line = dict(zip(*[text.split(",") for text in (tmp_path / "p.csv").read_text().splitlines()], strict=True))
    assert entry["predicted"] == [line["predicted"]]
    assert entry["score"] == pytest.approx(float(line[f"p_{entry['label']}"]), abs=1e-5)


def test_explain_says_what_is_wrong(cli: Cli, gels: Path, gel_run: Path, tmp_path: Path) -> None:
    image = sorted((gels / "gel").iterdir())[0]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("keep me")
    outcome = cli("explain", gel_run, image, "--out", tmp_path / "full")
    assert (outcome.status, (tmp_path / "full" / "thesis.txt").read_text()) == (2, "keep me")
    assert "holds files already" in outcome.err
    outcome = cli("explain", gel_run, image, "--out", tmp_path / "new", "--label", "gle")
    assert (outcome.status, (tmp_path / "new").exists()) == (2, False)
    assert "Did you mean 'gel'" in outcome.err
    (tmp_path / "broken.png").write_bytes(b"not an image")
    outcome = cli("explain", gel_run, tmp_path / "broken.png", "--out", tmp_path / "new")
    assert (outcome.status, (tmp_path / "new").exists()) == (2, False)
    assert "Not one image could be read" in outcome.err
