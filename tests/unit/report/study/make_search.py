"""The folder of a search, with numbers from a formula in the place of trainings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tomli_w

LOOKS = 8
SPACE: dict[str, Any] = {
    "training.learning_rate": {"low": 1e-5, "high": 1.0, "log": True},
    "training.weight_decay": {"low": 1e-6, "high": 1.0, "log": True},
    "training.batch_size": {"low": 4, "high": 512, "log": True},
    "model.arguments.width": {"low": 2, "high": 64, "log": True},
    "training.optimizer": ["adamw", "sgd"],
}
DEFAULTS = {
    "training.learning_rate": 0.001, "training.weight_decay": 0.01, "training.batch_size": 32, "model.arguments.width": 16,
    "training.optimizer": "adamw",
}  # fmt: skip


def loss(point: dict[str, Any]) -> float:
    """Lowest near a learning rate of 0.01, flat in the weight decay."""
    far = np.log10(point["training.learning_rate"]) + 2
    return float(0.55 + 0.12 * far**2 + 0.03 * abs(np.log2(point["model.arguments.width"]) - 4) + 3.0 * (far > 1.6))


def draw_point(generator: np.random.Generator, kind: str) -> dict[str, Any]:
    spread = 1.0 if kind == "random" else 0.35
    point: dict[str, Any] = {}
    for key, stated in SPACE.items():
        if isinstance(stated, list):
            point[key] = stated[int(generator.integers(len(stated)))]
            continue
        low, high = np.log(stated["low"]), np.log(stated["high"])
        middle = np.log(0.01) if key == "training.learning_rate" else (low + high) / 2
        value = float(np.exp(np.clip(middle + spread * (high - low) * generator.uniform(-0.5, 0.5), low, high)))
        point[key] = value if isinstance(stated["low"], float) else round(value)
    return point


def make_search(folder: Path, *, trials: int = 40, random: bool = True, seed: int = 0) -> pd.DataFrame:
    """Write the files of a finished search; gives its trials."""
    generator = np.random.default_rng(seed)
    rows, looks = [], []
    for kind in ("tpe", "random")[: 2 if random else 1]:
        for number in range(trials):
            point = draw_point(generator, kind)
            value = loss(point) + float(generator.normal(0, 0.01))
            ended = "pruned" if value > 0.75 and number > 8 else "diverged" if point["training.learning_rate"] > 0.8 else "complete"
            last = LOOKS if ended == "complete" else int(generator.integers(2, LOOKS)) if ended == "pruned" else 0
            curve = value + 0.6 * np.exp(-np.arange(1, LOOKS + 1) / 2)
            looks += [{"search": kind, "trial": number, "look": look, "value": curve[look - 1]} for look in range(1, min(last + 1, LOOKS))]
            shown = None if ended == "diverged" else value if ended == "complete" else float(curve[last - 1])
            numbers = {"log_loss": value, "macro_f1": 1 - value / 2, "accuracy": 1 - value / 2} if ended == "complete" else {}
            rows.append(
                {"search": kind, "trial": number, "ended": ended, "value": shown, "looks": last, **point, **numbers, "seconds": last * 0.8}
            )
    frame = pd.DataFrame(rows)
    frame["error"] = None
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_csv(folder / "trials.csv", index=False)
    pd.DataFrame(looks).to_csv(folder / "looks.csv", index=False)
    _write_verdict(folder, frame)
    study = {
        "kind": "search", "name": "small-cnn", "command": "coverslip search charts --space small-cnn", "data": "charts",
        "storage": "sqlite:///trials.db", "length": {"full": {"minutes": 1.0}, "trial": {"minutes": 0.1}, "note": ""},
        "search": {"metric": "log_loss", "looks": LOOKS, "trial_share": 0.1, "compare_random": random},
        "base": {"model": {"arguments": {"width": 16}}, "training": {"minutes": 1.0}}, "space": SPACE,
    }  # fmt: skip
    (folder / "study.toml").write_text(tomli_w.dumps(study), encoding="utf-8")
    return frame


def _write_verdict(folder: Path, frame: pd.DataFrame) -> None:
    shares = dict(zip(SPACE, (0.62, 0.04, 0.11, 0.21, 0.02), strict=True))
    (folder / "importance.json").write_text(json.dumps({"trials": len(frame), "shares": shares}), encoding="utf-8")
    whole = frame[(frame["search"] == "tpe") & (frame["ended"] == "complete")]
    best = whole.loc[whole["value"].idxmin()]
    numbers = {"log_loss": (0.512, 0.634), "macro_f1": (0.781, 0.733), "accuracy": (0.788, 0.739)}
    results = [
        {"model_id": name, "n": 720, "seconds": 75.0}
        | {key: pair[side] for key, pair in numbers.items()}
        | {f"{key}_low": pair[side] - 0.03 for key, pair in numbers.items()}
        | {f"{key}_high": pair[side] + 0.03 for key, pair in numbers.items()}
        for side, name in enumerate(("final", "defaults"))
    ]
    pd.DataFrame(results).to_csv(folder / "results.csv", index=False)
    differences = {
        key: {"value": a - b, "low": a - b - 0.02, "high": a - b + 0.02, "method": "bootstrap"} for key, (a, b) in numbers.items()
    }
    values = {key: best[key].item() if hasattr(best[key], "item") else best[key] for key in SPACE}
    verdict = {
        "metric": "log_loss", "sentence": "The best configuration is better than the defaults.", "n": 720, "level": 0.95,
        "best": {"number": int(best["trial"]), "value": float(best["value"]), "values": values, "defaults": DEFAULTS},
        "differences": differences,
        "mcnemar_p": 0.0004, "verdict": "better",
    }  # fmt: skip
    (folder / "verdict.json").write_text(json.dumps(verdict), encoding="utf-8")
