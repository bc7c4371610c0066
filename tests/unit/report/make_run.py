"""A realistic run folder in the true format, without a run: `make_run(folder)`, or `python make_run.py FOLDER [KIND] [IMAGES]`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from coverslip.config import dump_toml, load_config
from coverslip.evaluation.evaluate import evaluate, folds_summary
from coverslip.runtime import write_json
from coverslip.structures import Predictions, Task

GEL = ("gel", "other")
NUCLEI = (
    "Anaphase", "Apoptosis", "Binuclear", "Elongated", "Grape", "Hole", "Interphase", "Large", "Metaphase", "MetaphaseAlignment",
    "OutOfFocus", "Polylobed", "Prometaphase", "Prophase", "SmallIrregular", "ADCCF",
)  # fmt: skip

RECIPES = {"gel": "gel-probe", "nuclei": "nuclei-finetune"}

CONFIGS: dict[str, dict[str, Any]] = {
    "gel": {
        "split": {"folds": 5, "repeats": 3},
        "pixels": {"height": 224, "colour": "grey", "invert": False, "normalise": "backbone"},
        "augment": {"horizontal_flip": True},
        "training": {"regime": "probe", "optimizer": "exact"},
        "model": {"backbone": "mobilenetv2_100"},
    },
    "nuclei": {
        "pixels": {"height": 128, "colour": "grey", "invert": False},
        "augment": {"horizontal_flip": True, "vertical_flip": True, "quarter_turns": True, "brightness": 0.2},
        "training": {"regime": "finetune", "backbone_rate": 0.3, "label_smoothing": 0.05, "tta": "flips", "class_weights": "root"},
        "model": {"backbone": "mobilenetv2_100"},
        "decision": {"calibrate": True},
    },
}


def make_run(
    folder: Path, kind: str = "gel", classes: Sequence[str] | None = None, images: Sequence[Path] = (), size: int = 48, seed: int = 0
) -> Path:
    """Write the files of a finished run: `gel` (probe, folds, binary) or `nuclei` (finetune, 16 classes, groups)."""
    random = np.random.default_rng(seed)
    names = tuple(classes or (GEL if kind == "gel" else NUCLEI))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(dump_toml(load_config(CONFIGS[kind], {"data": {"path": f"data/{kind}"}})), encoding="utf-8")
    n = 92 if kind == "gel" else max(2200, 40 * len(names))
    targets = np.sort(random.choice(len(names), size=n, p=_frequencies(len(names), kind)))
    targets[: len(names)] = np.arange(len(names))
    files = [f"{names[t]}/image_{i:04d}.png" for i, t in enumerate(targets)]
    groups = np.array([f"plate {i % 9}" for i in range(n)]) if kind == "nuclei" else None
    part = random.choice(["train", "validation", "test"], size=n, p=[0.6, 0.15, 0.25])
    split = pd.DataFrame({"image": files, "label": [names[t] for t in targets], "part": part})
    if groups is not None:
        split.insert(2, "group", groups)
    split.to_csv(folder / "split.csv", index=False)
    _write_numbers(folder, kind, names, files, targets, groups, part, random)
    _write_history(folder, kind, random)
    _write_facts(folder, kind, names, targets)
    _write_pictures(folder, names, files, targets, images, size, random)
    if kind == "nuclei":
        curve = {
            "images": [150, 300, 600, 1200, 1650],
            "share": [0.09, 0.18, 0.36, 0.73, 1.0],
            "accuracy": [0.71, 0.78, 0.835, 0.878, 0.893],
        }
        spread = np.array([0.05, 0.04, 0.03, 0.025, 0.022])
        table = pd.DataFrame(curve)
        table.assign(low=table.accuracy - spread, high=table.accuracy + spread, macro_f1=table.accuracy - 0.03).to_csv(
            folder / "learning_curve.csv", index=False
        )
    return folder


def make_evaluation(folder: Path) -> Path:
    """Write what `coverslip evaluate` writes: numbers, predictions, environment."""
    make_run(folder)
    for name in ("config.toml", "audit.json", "split.csv", "history.csv", "timing.json", "summary.json", "label_errors.csv"):
        (folder / name).unlink()
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    write_json(folder / "metrics.json", {key: metrics[key] for key in ("task", "classes", "test")})
    table = pd.read_csv(folder / "predictions.csv")
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    kept = {key: environment[key] for key in ("versions", "machine", "device", "precision", "weights")}
    provenance = {"backbone": "mobilenetv2_100", "split": environment["split"]}
    judged = {"bundle": "runs/gel/bundle", "data": "more-gels", "bad": {"torn.jpg": "truncated"}, "notes": [], "provenance": provenance}
    write_json(folder / "environment.json", kept | judged)
    index = json.loads((folder / "pictures" / "index.json").read_text(encoding="utf-8"))
    write_json(folder / "pictures" / "index.json", [entry for entry in index if entry["kind"] in ("mistake", "label_error")])
    table[table["part"] == "test"].drop(columns=["part", "fold", "repeat"]).to_csv(folder / "predictions.csv", index=False)
    return folder


def _frequencies(classes: int, kind: str) -> np.ndarray:
    weights = np.ones(classes) if kind == "gel" else 1 / (1 + 0.35 * np.arange(classes))
    return weights / weights.sum()


def _scores(targets: np.ndarray, classes: int, skill: float, random: np.random.Generator) -> np.ndarray:
    logits = random.normal(0, 1.3, size=(len(targets), classes))
    logits[np.arange(len(targets)), targets] += skill
    logits[:, -1] += 0.4
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def _write_numbers(folder: Path, kind: str, names, files, targets, groups, part, random) -> None:
    task = Task.BINARY if len(names) == 2 else Task.MULTICLASS
    skill = 4.0 if kind == "gel" else 5.0

    def predictions(rows: np.ndarray) -> Predictions:
        scores = _scores(targets[rows], len(names), skill, random)
        own = None if groups is None else groups[rows]
        return Predictions(tuple(files[i] for i in rows), scores, scores.argmax(axis=1), tuple(names), task, targets[rows], own)

    parts = {name: predictions(np.flatnonzero(part == name)) for name in ("test", "validation")}
    metrics = {"task": str(task), "classes": list(names)} | {name: evaluate(each, resamples=200) for name, each in parts.items()}
    frames = [_frame(each, names, part=name) for name, each in parts.items()]
    if kind == "gel":
        rest = np.flatnonzero(part != "test")
        repeats = [[predictions(rows) for rows in np.array_split(random.permutation(rest), 5)] for _ in range(3)]
        metrics["folds"] = folds_summary(repeats, resamples=200)
        frames += [_frame(fold, names, part="train", fold=j, repeat=i) for i, repeat in enumerate(repeats) for j, fold in enumerate(repeat)]
    write_json(folder / "metrics.json", metrics)
    pd.concat(frames).to_csv(folder / "predictions.csv", index=False)


def _frame(predictions: Predictions, names, part: str, fold: int | None = None, repeat: int | None = None) -> pd.DataFrame:
    columns: dict[str, Any] = {"image": predictions.images, "part": part, "fold": fold, "repeat": repeat}
    columns |= {f"p_{name}": predictions.scores[:, k] for k, name in enumerate(names)}
    columns |= {"predicted": [names[k] for k in predictions.predicted], "uncertain": None, "label": [names[k] for k in predictions.targets]}
    if predictions.groups is not None:
        columns["group"] = predictions.groups
    return pd.DataFrame(columns).astype({"fold": "Int64", "repeat": "Int64"})


def _write_history(folder: Path, kind: str, random) -> None:
    columns = (
        "fold", "phase", "step", "epoch", "seconds", "learning_rate", "train_loss", "validation_loss", "validation_accuracy",
        "validation_macro_f1", "images_per_second", "kept",
    )  # fmt: skip
    rows = [
        dict.fromkeys(columns)
        | {"phase": "head", "step": 1, "epoch": 1, "train_loss": 0.08, "validation_loss": 0.12, "validation_accuracy": 0.97}
    ]
    if kind == "nuclei":
        rows[0] |= {"step": 50, "train_loss": 1.1, "validation_loss": 1.05, "validation_accuracy": 0.66, "validation_macro_f1": 0.58}
        for i in range(1, 101):
            rate = 1e-3 * np.sin(np.pi * min(1.0, i / 100) ** 0.6) ** 2
            loss = 0.25 + 1.2 * np.exp(-i / 22) + random.normal(0, 0.03)
            row = dict.fromkeys(columns) | {
                "phase": "all",
                "step": 50 + 8 * i,
                "epoch": 1 + (i - 1) // 10,
                "learning_rate": rate,
                "train_loss": loss,
            }
            if i % 10 == 0:
                score = 0.9 - 0.3 * np.exp(-i / 25)
                row |= {"validation_loss": 0.38 + 0.9 * np.exp(-i / 20), "validation_accuracy": score, "validation_macro_f1": score - 0.03}
            rows.append(row | {"seconds": 2.4 * i, "images_per_second": 240 + random.normal(0, 6)})
    pd.DataFrame(rows, columns=list(columns)).to_csv(folder / "history.csv", index=False)


def _write_facts(folder: Path, kind: str, names, targets) -> None:
    counts = np.bincount(targets, minlength=len(names))
    shortcut = (
        "the file mode alone tells the classes apart (accuracy 1.000 against 0.500 by guessing): a model may learn it instead of the image"
    )
    findings = [
        {"kind": "shortcut", "level": "warning", "message": shortcut, "images": []},
        {
            "kind": "near duplicates",
            "level": "warning",
            "message": "3 pairs of near duplicates; they stay in one part",
            "images": ["a.png", "b.png"],
        },
        {"kind": "size", "level": "info", "message": "sizes range from 180 × 240 to 1200 × 1600 pixels (height × width)", "images": []},
        {"kind": "tiny class", "level": "info", "message": "the smallest class has 40 images", "images": []},
    ]
    write_json(
        folder / "audit.json",
        {
            "findings": findings,
            "counts": dict(zip(names, counts.tolist(), strict=True)),
            "formats": {"JPEG": 70, "PNG": 22},
            "modes": {"L": 46, "RGB": 40, "RGBA": 6},
            "sizes": {"480x640": 31, "600x800": 22, "1200x1600": 9},
            "duplicates": {"exact": 1, "candidates": 14, "confirmed": 2, "pairs": []},
            "shortcuts": [
                {"name": "file mode", "balanced_accuracy": 1.0, "chance": 0.5, "values": "gel: RGB; other: L", "alarming": True},
                {"name": "image size", "balanced_accuracy": 0.61, "chance": 0.5, "values": "", "alarming": False},
            ],
            "fit": {
                "fit": "squash", "height": 224, "width": 224, "discarded": {"mean": 0.0, "median": 0.0, "highest": 0.0},
                "padded": {"mean": 0.0, "median": 0.0, "highest": 0.0}, "stretch": {"mean": 1.4, "median": 1.33, "highest": 2.6},
            },
            "bad": {}, "ignored": ["Thumbs.db", "notes.txt"], "notes": [], "images": len(targets),
        },
    )  # fmt: skip
    method = "stratified, groups and duplicates kept together" + ("; 5 folds, 3 repeats" if kind == "gel" else "")
    environment = {
        "versions": {"python": "3.12.4", "coverslip": "0.1.0", "torch": "2.6.0", "timm": "1.0.15", "scikit-learn": "1.6.1"},
        "machine": {"system": "Linux", "release": "6.1", "machine": "x86_64", "cores": 2, "executable": "python"},
        "git": {"reference": "refs/heads/main", "commit": "0123456789abcdef0123456789abcdef01234567"},
        "recipe": {"name": RECIPES[kind], "why": "few images of one task, and learned weights were found"},
        "weights": {"source": "weights/mobilenetv2_100.safetensors", "sha256": "a3f1" * 16},
        "seeds": {"split": 0, "training": 0},
        "split": {"method": method, "seed": 0, "notes": []},
        "device": "cpu", "precision": "32", "features_runtime": "openvino 2026.4.1" if kind == "gel" else "",
        "features_precision": "32" if kind == "gel" else "", "notes": [],
        "command": f"coverslip train data/{kind} --recipe {RECIPES[kind]} --out runs/{kind}",
    }  # fmt: skip
    write_json(folder / "environment.json", environment)
    stages = {
        "load": 0.4,
        "audit": 1.9,
        "split": 0.05,
        "pixels": 2.2,
        "features": 4.1,
        "fit": 3.3,
        "score": 1.2,
        "save": 0.9,
        "report": 1.4,
    }
    write_json(
        folder / "timing.json",
        {"stages": stages, "total_seconds": 15.5, "training_images_per_second": 243.7, "prediction_images_per_second": 1020.0},
    )
    layers = [
        ("backbone.conv_stem", "Conv2d", [32, 112, 112], 864, "frozen", 10_838_016),
        ("backbone.bn1", "BatchNormAct2d", [32, 112, 112], 64, "frozen", 0),
        *((f"backbone.blocks.{i}", "Sequential", [16 * (i + 1), 56 >> i // 2, 56 >> i // 2], 9000 * i + 64, "frozen", 21_000_000)
          for i in range(7)),
        ("backbone.conv_head", "Conv2d", [1280, 7, 7], 409_600, "frozen", 20_070_400),
        ("head", "Linear", [len(names)], 1281 * len(names), "trainable", 1280 * len(names)),
    ]  # fmt: skip
    keys = ("name", "kind", "output", "weights", "trainable", "multiply_adds")
    summary = {
        "input": [1, 224, 224], "layers": [dict(zip(keys, layer, strict=True)) for layer in layers], "weights": 2_226_434,
        "trainable_weights": 1281 * len(names), "multiply_adds": 300_774_272, "weight_bytes": 9_042_312, "activation_bytes": 26_000_000,
        "training_bytes": 841_000_000, "batch_size": 32,
    }  # fmt: skip
    write_json(folder / "summary.json", summary)
    write_json(folder / "weights.json", make_weights(0.02))


def make_weights(deviation: float) -> dict[str, Any]:
    """The content of weights.json: normal weights, the same shape in all groups of layers."""
    edges = np.linspace(-0.1, 0.1, 61)
    counts = np.histogram(np.random.default_rng(0).normal(0, deviation, 5000).clip(-0.1, 0.1), edges)[0]
    numbers = {"weights": 5000, "mean": -0.0002, "deviation": deviation, "near_zero": 0.04}
    numbers |= {"edges": edges.tolist(), "counts": counts.tolist()}
    names = ("all", "backbone.conv_stem", *(f"backbone.blocks.{i}" for i in range(7)), "head")
    return {"near_zero_below": 0.001, "frozen": 0, "groups": [{"name": name, **numbers} for name in names]}


def _write_pictures(folder: Path, names, files, targets, images: Sequence[Path], size: int, random) -> None:
    place = folder / "pictures"
    place.mkdir(exist_ok=True)
    made = 0

    def picture(source: int, side: int = size, turn: int = 0) -> str:
        nonlocal made
        made += 1
        if images:
            image = Image.open(images[source % len(images)]).convert("RGB")
            image = image.resize((side, side)) if turn or side < 100 else image
            image.thumbnail((max(side, 200), max(side, 200)))
        else:
            image = Image.fromarray(random.integers(0, 255, size=(side, side), dtype=np.uint8))
        image.rotate(90 * turn).save(place / f"{made:03d}.png")
        return f"{made:03d}.png"

    label = [names[t] for t in targets]
    chosen = [int(i) for i in random.permutation(len(files))[:12]]
    index: list[dict[str, Any]] = []
    for i in chosen[:6]:
        index.append({"kind": "sample", "image": files[i], "label": label[i], "original": picture(i), "network": picture(i, 64)})
    for i in chosen[:3]:
        index.append({"kind": "augmented", "image": files[i], "label": label[i], "files": [picture(i, size, turn) for turn in range(8)]})
    for i in chosen[:7]:
        index.append({"kind": "mistake", "image": files[i], "label": label[i], "predicted": names[-1], "score": 0.93, "file": picture(i)})
    for i in chosen[:3]:
        pair = {"first": files[i], "second": files[i + 1], "first_label": label[i], "second_label": label[i], "similarity": 0.987}
        index.append({"kind": "duplicate", **pair, "files": [picture(i), picture(i)]})
    suspects = [{"image": files[i], "label": label[i], "suggestion": names[0], "score": 0.81} for i in chosen[:5]]
    index += [{"kind": "label_error", **suspect, "file": picture(i)} for i, suspect in zip(chosen, suspects, strict=False)]
    pd.DataFrame(suspects).to_csv(folder / "label_errors.csv", index=False)
    write_json(place / "index.json", index)


if __name__ == "__main__":
    kind = sys.argv[2] if len(sys.argv) > 2 else "gel"
    pictures = (
        sorted(path for path in Path(sys.argv[3]).rglob("*") if path.suffix in (".png", ".jpg", ".jpeg")) if len(sys.argv) > 3 else []
    )
    make_run(Path(sys.argv[1]), kind, images=pictures[:: max(1, len(pictures) // 24)], size=180 if pictures else 48)
