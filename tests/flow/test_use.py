from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
from safetensors.torch import save_file

import coverslip

from .conftest import TINY, Cli


def test_predict_gives_what_the_run_wrote(cli: Cli, gel_run: Path, gels: Path, tmp_path: Path) -> None:
    written = pd.read_csv(gel_run / "predictions.csv").set_index("image")
    done = cli("predict", gel_run, gels, "--out", tmp_path / "p.csv")
    assert done.status == 0, done.err
    found = pd.read_csv(tmp_path / "p.csv")
    assert list(found.columns) == ["image", "p_gel", "p_not_gel", "predicted", "uncertain", "error"]
    assert len(found) == 40
    names = found["image"].map(lambda name: "/".join(Path(name).parts[-2:]))
    found = found.set_index(names)
    assert np.allclose(found.loc[written.index, "p_gel"], written["p_gel"], atol=1e-3)
    assert len(written) == 12


@pytest.mark.parametrize("precision", ["32", "bf16"])
@pytest.mark.parametrize("regime", ["scratch", "probe"])
def test_a_model_gives_what_it_was_judged_by_whatever_it_learned_in(
    cli: Cli, gels: Path, tmp_path: Path, precision: str, regime: str
) -> None:
    run, found = tmp_path / "run", tmp_path / "p.csv"
    settings = (*TINY, "-s", f"training.precision={precision}", "-s", f"training.regime={regime}")
    assert cli("train", gels, "--recipe", "quick", *settings, "--out", run).status == 0
    assert cli("predict", run, gels, "--out", found).status == 0
    environment = json.loads((run / "environment.json").read_text())
    assert environment["precision"] == (precision if regime == "scratch" else "32")  # a head on features learns in float32
    assert environment["features_precision"] in ({""} if regime == "scratch" else {"32", precision})
    assert json.loads((run / "bundle" / "sample" / "expected.json").read_text())["precision"] == "32"
    written, told = pd.read_csv(run / "predictions.csv"), pd.read_csv(found)
    told = told.set_index(told["image"].map(lambda name: "/".join(Path(name).parts[-2:])))
    assert np.allclose(told.loc[written["image"], "p_gel"], written["p_gel"], atol=1e-4 if regime == "scratch" else 0.02)


def test_predict_reports_bad_files_and_goes_on(cli: Cli, gel_run: Path, gels: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(gels / "gel", folder)
    (folder / "text.png").write_text("not an image")
    whole = next(path for path in folder.iterdir() if path.name != "text.png")
    (folder / f"cut{whole.suffix}").write_bytes(whole.read_bytes()[:200])
    done = cli("predict", gel_run, folder, "--out", tmp_path / "p.parquet")
    assert done.status == 0, done.err
    assert "2 of 22 images could not be read" in done.err
    found = pd.read_parquet(tmp_path / "p.parquet")
    bad = found[found["error"] != ""]
    assert len(bad) == 2
    assert bad["p_gel"].isna().all()
    assert (bad["predicted"] == "").all()


def test_predict_from_a_table_keeps_its_order(cli: Cli, gel_run: Path, gels: Path, tmp_path: Path) -> None:
    files = sorted(path for path in gels.rglob("*") if path.is_file())[::-1][:7]
    table = tmp_path / "list.csv"
    pd.DataFrame({"image": [str(path) for path in files]}).to_csv(table, index=False)
    done = cli("predict", gel_run / "bundle", table, "--out", tmp_path / "out")
    assert done.status == 0, done.err
    found = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert [Path(name).name for name in found["image"]] == [path.name for path in files]


def test_evaluate_writes_numbers_and_a_report(cli: Cli, gel_run: Path, gels: Path, tmp_path: Path) -> None:
    done = cli("evaluate", gel_run, gels, "--out", tmp_path / "judged")
    assert done.status == 0, done.err
    metrics = json.loads((tmp_path / "judged" / "metrics.json").read_text())
    predictions = pd.read_csv(tmp_path / "judged" / "predictions.csv")
    assert metrics["test"]["n"] == len(predictions) == 40
    assert metrics["test"]["accuracy"]["value"] == pytest.approx((predictions["predicted"] == predictions["label"]).mean())
    assert (tmp_path / "judged" / "report.html").is_file()


def test_evaluate_refuses_classes_that_the_model_does_not_know(cli: Cli, gel_run: Path, charts: Path, tmp_path: Path) -> None:
    done = cli("evaluate", gel_run, charts, "--out", tmp_path / "judged")
    assert done.status == 2
    assert "chimeric" in done.err
    assert not (tmp_path / "judged").exists()


def test_a_changed_bundle_is_refused(cli: Cli, gel_run: Path, gels: Path, tmp_path: Path) -> None:
    shutil.copytree(gel_run / "bundle", tmp_path / "bundle")
    weights = tmp_path / "bundle" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 0xFF
    weights.write_bytes(bytes(data))
    done = cli("predict", tmp_path / "bundle", gels, "--out", tmp_path / "p.csv")
    assert done.status == 2
    assert "SHA-256" in done.err
    assert not (tmp_path / "p.csv").exists()


def test_report_is_written_again_from_files(cli: Cli, gel_run: Path, tmp_path: Path) -> None:
    shutil.copytree(gel_run, tmp_path / "copy")
    (tmp_path / "copy" / "report.html").unlink()
    assert cli("report", tmp_path / "copy").status == 0
    assert "<svg" in (tmp_path / "copy" / "report.html").read_text()
    for wrong in (tmp_path, tmp_path / "nowhere"):
        said = cli("report", wrong)
        assert said.status == 2
        assert "is not a run folder" in said.err


def test_python_face(gel_run: Path, gels: Path) -> None:
    model = coverslip.load(gel_run)
    files = sorted(path for path in gels.rglob("*") if path.is_file())[:3]
    frame = model.predict(files)
    assert list(frame["predicted"]) == [max(model.classes, key=lambda name: row[f"p_{name}"]) for _, row in frame.iterrows()]
    with pytest.raises(coverslip.errors.MissingInputError, match="there is nothing at nowhere"):
        model.predict("nowhere.png")


def test_help_needs_no_torch() -> None:
    heavy = ("torch", "timm", "sklearn", "matplotlib")
    code = f"import sys, coverslip, coverslip.cli; print([name for name in sys.modules if name.split('.')[0] in {heavy}])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_the_version_is_that_of_the_package(cli: Cli) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    said = cli("--version")
    assert (said.status, said.out.strip()) == (0, f"coverslip {project['version']}")


def test_audit_as_table_and_as_json(cli: Cli, gels: Path, tmp_path: Path) -> None:
    assert "gel" in cli("audit", gels).out
    said = cli("audit", gels, "--json")
    found = json.loads(said.out)
    assert found["counts"] == {"gel": 20, "not_gel": 20}
    assert "classes in natural order: gel, not_gel" in cli("audit", gels).out
    shutil.copytree(gels, tmp_path / "twice")
    first = next((tmp_path / "twice" / "gel").iterdir())
    shutil.copy(first, tmp_path / "twice" / "not_gel" / f"copy{first.suffix}")
    wrong = cli("audit", tmp_path / "twice")
    assert wrong.status == 1
    assert "problem" in wrong.out


def test_the_audit_names_files_that_are_not_read_and_says_what_the_fit_discards(cli: Cli, gels: Path, tmp_path: Path) -> None:
    shutil.copytree(gels, tmp_path / "gels")
    (tmp_path / "gels" / "gel" / "letter.png").write_text("not an image")
    (tmp_path / "gels" / "gel" / "notes.txt").write_text("lanes 3 and 4 are controls")
    said = cli("audit", tmp_path / "gels", "-s", "pixels.fit=crop", "-s", "pixels.height=64", "-s", "pixels.width=128")
    assert said.status == 0, said.err
    assert "cannot be used: gel/letter.png: not an image" in said.out
    assert "no images by their names: 1 (gel/notes.txt)" in said.out
    found = json.loads(
        cli("audit", tmp_path / "gels", "-s", "pixels.fit=crop", "-s", "pixels.height=64", "-s", "pixels.width=128", "--json").out
    )
    assert found["fit"]["discarded"]["mean"] > 0.3
    assert f"pixels.fit = crop at 64x128: discards {found['fit']['discarded']['mean']:.0%} of an image on average" in said.out


def test_the_demo_ends_with_a_report_without_weights_or_network(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COVERSLIP_WEIGHTS", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = cli("demo", "--images", "24", "--seed", "5", "--out", tmp_path / "tour")
    assert done.status == 0, done.err
    assert "simulations, not data" in done.err
    assert "test part" in done.out
    run = tmp_path / "tour" / "runs" / "gels"
    assert f"report: {run / 'report.html'}" in done.out
    assert len(pd.read_csv(run / "split.csv")) == 24
    again = cli("demo", "--images", "24", "--out", tmp_path / "tour")
    assert again.status == 2
    assert "is not empty" in again.err


def test_weights_are_listed_checked_and_fetched(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVERSLIP_WEIGHTS", str(tmp_path / "mine"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cached = tmp_path / "torch" / "hub" / "checkpoints" / "mobilenetv3_small_050.safetensors"
    cached.parent.mkdir(parents=True)
    save_file(timm.create_model("mobilenetv3_small_050").state_dict(), cached, {"format": "pt"})  # as its authors publish it
    fetched = cli("weights", "fetch", "mobilenetv3_small_050")
    assert fetched.status == 0, fetched.err
    assert Path(fetched.out.strip()) == tmp_path / "mine" / cached.name
    assert "mobilenetv3_small_050" in cli("weights", "list").out
    assert cli("weights", "check").status == 0
    (tmp_path / "mine" / cached.name).write_bytes(cached.read_bytes()[:-100])
    damaged = cli("weights", "check")
    assert damaged.status == 1
    assert "cannot" in damaged.out


def test_the_cache_is_listed_and_cleared(cli: Cli, gels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVERSLIP_CACHE", str(tmp_path / "cache"))
    assert cli("train", gels, "--recipe", "quick", *TINY, "-s", "training.epochs=1", "--out", tmp_path / "run").status == 0
    assert "1 entry" in cli("cache", "list").out
    assert "MB freed" in cli("cache", "clear").out
    assert "0 entries, 0.0 MB" in cli("cache", "list").out


@pytest.mark.parametrize(("kind", "files"), [("charts", 12), ("gels", 12), ("cells", 48)])
def test_simulated_images_of_each_kind(cli: Cli, tmp_path: Path, kind: str, files: int) -> None:
    done = cli("simulate", kind, tmp_path / kind, "--images", "12")
    assert done.status == 0, done.err
    assert "these images are simulations, not data" in done.err
    assert sum(path.suffix in (".png", ".jpg") for path in (tmp_path / kind).rglob("*")) == files
    assert cli("simulate", kind, tmp_path / kind, "--images", "12").status == 2


def test_simulate_config_cache_weights(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("simulate", "charts", tmp_path / "charts", "--images", "6", "--seed", "3").status == 0
    assert len(list((tmp_path / "charts").rglob("*.png"))) == 6
    schema = json.loads(cli("config", "--schema").out)
    assert {"data", "split", "pixels", "augment", "model", "training", "decision"} <= set(schema["properties"])
    assert "gel-probe" in cli("config").out
    assert "regime" in cli("config", "--recipe", "quick").out
    wrong = cli("config", "--recipe", "quik")
    assert wrong.status == 2
    assert "'quick'" in wrong.err
    assert cli("cache", "list").status == 0
    monkeypatch.setenv("COVERSLIP_CACHE", str(tmp_path / "cache"))
    assert "0.0 MB freed" in cli("cache", "clear").out
    monkeypatch.setenv("COVERSLIP_WEIGHTS", str(tmp_path))
    assert cli("weights", "list").status == 0
    assert cli("weights", "check").status == 0
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    missing = cli("weights", "fetch", "resnet18")
    assert missing.status == 2
    assert "resnet18" in missing.err


def test_evaluate_warns_of_images_that_the_model_learned_from(cli: Cli, gel_run: Path, gels: Path, tmp_path: Path) -> None:
    split = pd.read_csv(gel_run / "split.csv")
    learned = int((split["part"] == "train").sum())
    assert learned == 28
    said = cli("evaluate", gel_run, gels, "--out", tmp_path / "judged")
    assert f"WARNING: {learned} of 40 images" in said.err
    for image in split["image"][split["part"] == "test"]:
        (tmp_path / "kept" / image).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(gels / image, tmp_path / "kept" / image)
    honest = cli("evaluate", gel_run, tmp_path / "kept", "--out", tmp_path / "judged-kept")
    assert honest.status == 0, honest.err
    assert "WARNING" not in honest.err


def test_evaluate_refuses_wrong_keys(cli: Cli, gel_run: Path, gels: Path, tmp_path: Path) -> None:
    for setting, said in (("intervals.level=2", "intervals.level"), ("data.imagee=x", "'image'"), ("training.epochs=3", "data.*")):
        done = cli("evaluate", gel_run, gels, "--out", tmp_path / "judged", "-s", setting)
        assert done.status == 2
        assert said in done.err
        assert not (tmp_path / "judged").exists()


def test_every_runtime_predicts_the_same(cli: Cli, gel_run: Path, gels: Path, tmp_path: Path) -> None:
    frames = {}
    for runtime in ("torch", "onnx", "openvino", "auto"):
        done = cli("predict", gel_run, gels, "--runtime", runtime, "--out", tmp_path / f"{runtime}.csv")
        assert done.status == 0, done.err
        frames[runtime] = pd.read_csv(tmp_path / f"{runtime}.csv")
    assert len(frames) == 4
    for frame in frames.values():
        assert list(frame["predicted"]) == list(frames["torch"]["predicted"])
        np.testing.assert_allclose(frame["p_gel"], frames["torch"]["p_gel"], atol=1e-3)
