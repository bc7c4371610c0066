"""Four channels an image, one file each, several labels: through the real command line."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from coverslip.config import RunConfig, load_config, read_toml
from coverslip.preparing import prepare

from .conftest import SMALL, Cli, nothing_left

CHANNELS = ("red", "green", "blue", "yellow")


def resolved(run_folder: Path, **data: object) -> RunConfig:
    """The config of a finished run, read from other files."""
    return load_config(read_toml(run_folder / "config.toml"), {"data": data})


def test_a_run_on_four_files_an_image(cell_run: Path) -> None:
    split = pd.read_csv(cell_run / "split.csv")
    assert len(split) == 24
    assert split.groupby("group")["part"].nunique().max() == 1
    model = json.loads((cell_run / "bundle" / "model.json").read_text())
    assert model["channels"] == list(CHANNELS)
    assert model["preprocessing"]["geometry"]["bits"] == 16
    page = (cell_run / "report.html").read_text(encoding="utf-8")
    assert "Every channel is stretched by itself" in page
    assert "read as the channels red, green, blue and yellow" in page
    assert (cell_run / "bundle" / "sample" / "0.tif").exists()


def test_what_calibration_did_stands_beside_the_numbers(cell_run: Path) -> None:
    numbers = json.loads((cell_run / "metrics.json").read_text())
    assert set(numbers["calibration"]) == {"validation", "test"}
    for part, rows in numbers["calibration"].items():
        for name in ("log_loss", "brier", "calibration_error"):
            assert rows[name]["after"]["value"] == pytest.approx(numbers[part][name]["value"], abs=1e-6)
            assert rows[name]["gain"]["value"] == pytest.approx(rows[name]["before"]["value"] - rows[name]["after"]["value"])
    assert numbers["calibration"]["validation"]["log_loss"]["gain"]["value"] >= 0  # it was fitted there
    assert "Did calibration help?" in (cell_run / "report.html").read_text(encoding="utf-8")


def test_a_mistake_names_the_decision_that_is_furthest_off(cell_run: Path) -> None:
    table = pd.read_csv(cell_run / "predictions.csv", keep_default_na=False).set_index("image")
    entries = [each for each in json.loads((cell_run / "pictures" / "index.json").read_text()) if each["kind"] == "mistake"]
    assert entries
    page = (cell_run / "report.html").read_text(encoding="utf-8")
    for entry in entries:
        row, name = table.loc[entry["image"]], entry["wrong_class"]
        labelled, predicted = (set(row[column].split("|")) for column in ("label", "predicted"))
        assert name in labelled ^ predicted
        off = {each: abs(float(row[f"p_{each}"]) - (each in labelled)) for each in (labelled ^ predicted) - {""}}
        assert off[name] == pytest.approx(max(off.values()))
        assert entry["score"] == pytest.approx(float(row[f"p_{name}"]), abs=1e-6)
        assert f"{name} {'missed' if name in labelled else 'wrongly given'}, score {entry['score']:.2f}" in page


def test_one_ome_tiff_an_image_gives_the_network_the_same_input(cells: Path, cell_run: Path, tmp_path: Path) -> None:
    table = pd.read_csv(cells / "train.csv")
    (tmp_path / "stacks").mkdir()
    shutil.copy(cells / "classes.txt", tmp_path)
    table.to_csv(tmp_path / "train.csv", index=False)
    for name in table["Id"]:
        planes = np.stack([np.asarray(Image.open(cells / "images" / f"{name}_{channel}.png")) for channel in CHANNELS[::-1]])
        metadata = {"axes": "CYX", "Channel": {"Name": list(CHANNELS[::-1])}}
        tifffile.imwrite(tmp_path / "stacks" / f"{name}.ome.tif", planes.astype(np.uint16), photometric="minisblack", metadata=metadata)
    apart = prepare(resolved(cell_run))
    together = prepare(resolved(cell_run, path=str(tmp_path / "train.csv"), image="stacks/{Id}.ome.tif"))
    assert apart.table.images == together.table.images
    np.testing.assert_array_equal(apart.pixels.read(np.arange(24)), together.pixels.read(np.arange(24)))
    np.testing.assert_array_equal(apart.split.part, together.split.part)


def test_planes_of_a_stack_become_one_as_stated_in_training_and_prediction(cli: Cli, cells: Path, tmp_path: Path) -> None:
    table = pd.read_csv(cells / "train.csv")
    (tmp_path / "stacks").mkdir()
    shutil.copy(cells / "classes.txt", tmp_path)
    table.to_csv(tmp_path / "train.csv", index=False)
    for name in table["Id"]:
        planes = np.stack([np.asarray(Image.open(cells / "images" / f"{name}_{channel}.png")) for channel in CHANNELS[:2]])
        stack = np.stack([planes // 2, planes, planes // 3])
        metadata = {"axes": "ZCYX", "Channel": {"Name": list(CHANNELS[:2])}}
        tifffile.imwrite(tmp_path / "stacks" / f"{name}.ome.tif", stack.astype(np.uint16), photometric="minisblack", metadata=metadata)
    own = ("-s", "data.image=stacks/{Id}.ome.tif", "-s", 'data.channels=["red","green"]', "-s", "training.epochs=1")
    done = cli("train", tmp_path / "train.csv", *SMALL, *own, "--out", tmp_path / "run")
    assert done.status == 2
    assert "z-stack of 3 planes; say how they become one: -s data.projection=max" in done.err
    done = cli("train", tmp_path / "train.csv", *SMALL, *own, "-s", "data.projection=1", "--out", tmp_path / "run")
    assert done.status == 0, done.err
    chosen = prepare(resolved(tmp_path / "run")).pixels.read(np.arange(24))
    highest = prepare(resolved(tmp_path / "run", projection="max")).pixels.read(np.arange(24))
    np.testing.assert_array_equal(chosen, highest)  # the middle plane is the brightest everywhere
    assert not np.array_equal(chosen, prepare(resolved(tmp_path / "run", projection=0)).pixels.read(np.arange(24)))
    done = cli("predict", tmp_path / "run", tmp_path / "train.csv", "--out", tmp_path / "p.csv")
    assert done.status == 0, done.err
    assert pd.read_csv(tmp_path / "p.csv")["error"].isna().all()


def test_predict_on_a_table_without_labels_on_a_folder_and_on_one_file(cli: Cli, cells: Path, cell_run: Path, tmp_path: Path) -> None:
    table = cells / "new.csv"
    pd.read_csv(cells / "train.csv")[["Id"]].to_csv(table, index=False)
    inputs = {"table": table, "folder": cells / "images", "file": next((cells / "images").glob("*_blue.png"))}
    found = {}
    for name, given in inputs.items():
        done = cli("predict", cell_run, given, "--out", tmp_path / f"{name}.csv")
        assert done.status == 0, done.err
        found[name] = pd.read_csv(tmp_path / f"{name}.csv")
        assert found[name]["error"].isna().all()
    assert found["table"]["image"].tolist() == pd.read_csv(table)["Id"].tolist()
    assert len(found["folder"]) == 24
    assert len(found["file"]) == 1
    whole = found["table"].set_index("image")
    scores = [column for column in whole if column.startswith("p_")]
    np.testing.assert_allclose(found["folder"].set_index("image").loc[whole.index, scores], whole[scores], atol=1e-3)
    done = cli("predict", cell_run, table, "--format", "submission", "--out", tmp_path / "submission.csv")
    assert done.status == 0, done.err
    assert list(pd.read_csv(tmp_path / "submission.csv").columns) == ["Id", "Predicted"]
    copy = broken(cells, tmp_path / "cells")
    gone = sorted((copy / "images").glob("*_green.png"))[0]
    gone.unlink()
    done = cli("predict", cell_run, copy / "new.csv", "--format", "submission", "--out", tmp_path / "submission.csv")
    assert done.status == 1
    told, name = " ".join(done.err.split()), gone.name.removesuffix("_green.png")
    assert f"1 of 24 images could not be read; {name}: channel 'green', {gone.name}: cannot be opened" in told
    assert pd.read_csv(tmp_path / "submission.csv")["Predicted"].isna().sum() >= 1
    assert "these rows are empty, as if the images carried no label" in done.err


def test_channels_are_chosen_ordered_and_renamed(cli: Cli, cells: Path, tmp_path: Path) -> None:
    chosen = ("-s", 'data.channels={nucleus="blue", protein="green"}', "-s", "pixels.range=image", "-s", "pixels.normalise=none")
    done = cli("train", cells / "train.csv", *SMALL, *chosen, "--out", tmp_path / "run")
    assert done.status == 0, done.err
    model = json.loads((tmp_path / "run" / "bundle" / "model.json").read_text())
    assert model["channels"] == ["nucleus", "protein"]
    assert model["preprocessing"]["normalisation"]["percentiles"] == [0.1, 99.9]
    assert model["architecture"]["backbone"]["channels"] == 2
    assert cli("predict", tmp_path / "run", cells / "train.csv", "--out", tmp_path / "p.csv").status == 0
    assert cli("evaluate", tmp_path / "run", cells / "train.csv", "--out", tmp_path / "judged").status == 0


def test_class_groups_answer_as_one(cli: Cli, cells: Path, tmp_path: Path) -> None:
    done = cli("train", cells / "train.csv", *SMALL, "-s", "model.class_groups=2", "--out", tmp_path / "run")
    assert done.status == 0, done.err
    assert "2 models" in done.err + done.out
    bundle = tmp_path / "run" / "bundle"
    assert sorted(path.name for path in bundle.glob("*.safetensors")) == ["model-1.safetensors", "model-2.safetensors"]
    assert set(pd.read_csv(tmp_path / "run" / "history.csv")["group"]) == {1, 2}
    assert cli("predict", tmp_path / "run", cells / "train.csv", "--out", tmp_path / "p.csv").status == 0
    written = pd.read_csv(tmp_path / "run" / "predictions.csv").set_index("image")
    found = pd.read_csv(tmp_path / "p.csv").set_index("image").loc[written.index]
    scores = [column for column in written if column.startswith("p_")]
    np.testing.assert_allclose(found[scores], written[scores], atol=4e-3)


@pytest.mark.parametrize("recipe", ["hpa-10-transfer", "hpa-small", "hpa-large"])
def test_the_other_recipes_run_without_a_hub(cli: Cli, cells: Path, tmp_path: Path, recipe: str) -> None:
    names = (cells / "classes.txt").read_text().splitlines()
    kept = ("-s", f"data.keep={json.dumps(names[:6])}") if recipe == "hpa-10-transfer" else ()
    less = ("-s", "training.steps_per_epoch=2") if recipe != "hpa-10-transfer" else ()
    done = cli("train", cells / "train.csv", "--recipe", recipe, *SMALL[2:], *kept, *less, "--out", tmp_path / "run")
    assert done.status == 0, done.err
    if kept:
        assert json.loads((tmp_path / "run" / "metrics.json").read_text())["classes"] == names[:6]


def broken(cells: Path, place: Path) -> Path:
    """A copy of the cells that may be spoiled."""
    shutil.copytree(cells, place)
    return place


def test_a_missing_channel_names_the_sample_and_the_channel(cli: Cli, cells: Path, tmp_path: Path) -> None:
    copy = broken(cells, tmp_path / "cells")
    gone = sorted((copy / "images").glob("*_green.png"))[3]
    gone.unlink()
    done = cli("train", copy / "train.csv", *SMALL, "--out", tmp_path / "run")
    assert done.status == 2
    assert f"{gone.name.removesuffix('_green.png')} has no green" in done.err
    assert nothing_left(tmp_path / "run")


def test_a_channel_that_is_not_there_is_told_in_one_line(cli: Cli, cells: Path, tmp_path: Path) -> None:
    done = cli("train", cells / "train.csv", *SMALL, "-s", 'data.channels=["red","gren"]', "--out", tmp_path / "run")
    assert done.status == 2
    assert "Did you mean 'green'? The first has blue, green, red, yellow" in done.err
    (tmp_path / "stacks").mkdir()
    table = pd.read_csv(cells / "train.csv").head(8)
    table.to_csv(tmp_path / "train.csv", index=False)
    shutil.copy(cells / "classes.txt", tmp_path)
    for name in table["Id"]:
        names = {"axes": "CYX", "Channel": {"Name": ["red", "green"]}}
        tifffile.imwrite(tmp_path / "stacks" / f"{name}.ome.tif", np.full((2, 64, 64), 9, np.uint16), metadata=names)
    stacks = ("-s", "data.image=stacks/{Id}.ome.tif", "-s", 'data.channels=["red","gren"]')
    done = cli("train", tmp_path / "train.csv", *SMALL, *stacks, "--out", tmp_path / "run")
    assert done.status == 2
    assert "not one of the 8 images can be used" in done.err
    assert "no channel 'gren'. Did you mean 'green'? It holds 2 channels, red, green" in done.err
    assert nothing_left(tmp_path / "run")


def test_a_channel_of_another_size_and_nan_pixels(cli: Cli, cells: Path, tmp_path: Path) -> None:
    copy = broken(cells, tmp_path / "cells")
    first, second = sorted((copy / "images").glob("*_green.png"))[:2]
    Image.fromarray(np.zeros((32, 64), np.uint16)).save(first)
    second.unlink()
    tifffile.imwrite(second, np.full((64, 64), np.nan, np.float32))
    done = cli("train", copy / "train.csv", *SMALL, "--out", tmp_path / "run")
    assert done.status == 2
    assert "channel 'green' has 32x64 pixels, channel 'red' 64x64" in done.err
    assert "NaN" in done.err
    assert nothing_left(tmp_path / "run")
    done = cli("train", copy / "train.csv", *SMALL, "-s", "data.on_bad_image=skip", "--out", tmp_path / "run")
    assert done.status == 0, done.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.assign(Target=table["Target"].where(table.index != 2, "99")), ["99", "data.classes"]),
        (lambda table: pd.concat([table, table.head(1).assign(Target="1")]), ["two labels"]),
        (lambda table: table.assign(Target=table["Target"].where(table.index != 2, "")), ["no label", "allow_empty"]),
    ],
)
def test_tables_that_contradict_themselves(cli: Cli, cells: Path, tmp_path: Path, change: object, words: list[str]) -> None:
    place = cells / f"broken-{words[0][:2]}.csv"
    change(pd.read_csv(cells / "train.csv", dtype=str)).to_csv(place, index=False)  # type: ignore[operator]
    done = cli("train", place, *SMALL, "--out", tmp_path / "run")
    place.unlink()
    assert done.status == 2
    assert all(word in done.err for word in words), done.err
    assert nothing_left(tmp_path / "run")


def test_a_group_in_two_preset_splits_is_a_leak(cli: Cli, cells: Path, tmp_path: Path) -> None:
    table = pd.read_csv(cells / "train.csv", dtype=str)
    place = cells / "preset.csv"
    table.assign(part=np.where(np.arange(len(table)) % 3 == 0, "test", "train")).to_csv(place, index=False)
    done = cli("train", place, *SMALL, "-s", "split.preset=part", "--out", tmp_path / "run")
    place.unlink()
    assert done.status == 2
    assert "on both sides of the split" in done.err
    assert "data.on_leak=warn" in done.err
    assert nothing_left(tmp_path / "run")


def test_the_resolved_config_repeats_the_channels(cell_run: Path) -> None:
    config = tomllib.loads((cell_run / "config.toml").read_text())
    assert config["data"]["channels"] == list(CHANNELS)
    assert config["pixels"]["colour"] == "channels"
    assert config["pixels"]["range"] == "full"


def test_channels_are_explained_each_by_itself(cli: Cli, cells: Path, cell_run: Path, tmp_path: Path) -> None:
    image = next((cells / "images").glob("*_green.png"))
    done = cli("explain", cell_run, image, "--out", tmp_path / "why", "--label", "all", "--windows", 3)
    assert done.status == 0, done.err
    manifest = json.loads((tmp_path / "why" / "manifest.json").read_text(encoding="utf-8"))
    assert [entry["label"] for entry in manifest["explanations"]] == manifest["classes"]
    assert len(manifest["classes"]) > 3
    for entry in manifest["explanations"]:
        assert list(entry["channels"]) == list(entry["channel_overlays"]) == list(CHANNELS)
        values = tifffile.imread(tmp_path / "why" / entry["channel_maps"])
        assert (values.shape, values.dtype) == ((4, 64, 64), np.float32)
        assert all((tmp_path / "why" / file).is_file() for file in entry["channel_overlays"].values())
