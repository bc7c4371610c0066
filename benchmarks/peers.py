"""coverslip, a linear probe, fastai and AutoGluon on one split, with the same weights and the same minutes.

    python benchmarks/peers.py --data ../shared/data/nuclei --weights ../shared/weights --minutes 5
    python benchmarks/peers.py --data ../shared/data/nuclei --weights ../shared/weights --peer autogluon --python VENV/bin/python

One split (seeded, stratified, 20 % held out) is written as folders; each peer trains on the training folder only and is
judged on the held-out folder by the same scikit-learn calls. Each runs in a process of its own, alone. A peer that needs
other versions than coverslip runs in an environment of its own (`--python`). Appends to benchmarks/results/peers-<machine>.csv.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from coverslip.runtime import WAITING

os.environ.update(WAITING | dict(os.environ))
RESULTS = Path(__file__).parent / "results"
PEERS = ("coverslip", "probe", "fastai", "autogluon")


def split_folders(data: Path, place: Path, seed: int) -> None:
    """Copy a data set into train/ and held/, 80 % and 20 % of each class."""
    import numpy as np

    generator = np.random.default_rng(seed)
    for folder in sorted(path for path in data.iterdir() if path.is_dir()):
        files = [Path(name) for name in generator.permutation([str(file) for file in sorted(folder.iterdir())])]
        held = max(1, round(0.2 * len(files)))
        for part, chosen in (("held", files[:held]), ("train", files[held:])):
            (place / part / folder.name).mkdir(parents=True)
            for file in chosen:
                shutil.copy(file, place / part / folder.name)


def held_out(place: Path) -> tuple[list[str], list[str]]:
    """Held-out files and their classes."""
    files = sorted(path for path in (place / "held").rglob("*") if path.is_file())
    return [str(file) for file in files], [file.parent.name for file in files]


def by_coverslip(place: Path, minutes: float, size: int) -> list[str]:
    """No recipe: what a user gets who says nothing but the budget."""
    import coverslip

    coverslip.train(place / "train", out=place / "run", training={"minutes": minutes})
    return list(coverslip.load(place / "run").predict(held_out(place)[0])["predicted"])


def by_probe(place: Path, minutes: float, size: int) -> list[str]:
    """A linear head on the frozen features of the same backbone: what every other way has to beat."""
    import coverslip

    coverslip.train(place / "train", out=place / "run", training={"regime": "probe"}, model={"backbone": "mobilenetv2_100"})
    return list(coverslip.load(place / "run").predict(held_out(place)[0])["predicted"])


FASTAI_RATE = 2e-3


def timm_network(weights: Path, classes: int):
    """The same architecture and weights for a peer, with a fresh linear head."""
    import safetensors
    import timm
    from safetensors.torch import load_file

    with safetensors.safe_open(weights, framework="pt") as file:
        header = file.metadata()
    network = timm.create_model(header["architecture"], num_classes=classes, **json.loads(header["arguments"]))
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in load_file(weights).items()}
    network.load_state_dict(state, strict=False)
    return network


def by_fastai(place: Path, minutes: float, size: int) -> list[str]:
    """fastai's documented way: flips and small warps, one-cycle, one epoch of the head, then all layers for what the minutes hold."""
    from fastai.vision import all as fastai

    began = time.perf_counter()
    weights = Path(os.environ["COVERSLIP_WEIGHTS"]) / "mobilenetv2_100.safetensors"
    data = fastai.ImageDataLoaders.from_folder(
        place / "train",
        valid_pct=0.1,
        seed=0,
        item_tfms=fastai.Resize(size, method="squish"),
        batch_tfms=[*fastai.aug_transforms(), fastai.Normalize.from_stats([0.5] * 3, [0.5] * 3)],
        bs=32,
        num_workers=2,
    )
    network = timm_network(weights, data.c)
    learner = fastai.Learner(
        data, network, metrics=fastai.accuracy, splitter=lambda model: [fastai.params(model)[:-2], fastai.params(model)[-2:]]
    )
    epoch = _seconds_of_an_epoch(learner, fastai)
    learner.model.load_state_dict(timm_network(weights, data.c).state_dict())
    epochs = max(2, int((60 * minutes - (time.perf_counter() - began)) / epoch))
    print(f"fastai: {epochs} epochs of about {epoch:.0f} s", file=sys.stderr)
    learner.freeze()
    learner.fit_one_cycle(1, FASTAI_RATE)
    learner.unfreeze()
    learner.fit_one_cycle(epochs - 1, FASTAI_RATE)
    scores, _ = learner.get_preds(dl=data.test_dl(held_out(place)[0]))
    return [data.vocab[index] for index in scores.argmax(dim=1).tolist()]


def _seconds_of_an_epoch(learner, fastai) -> float:
    """What an epoch costs while all layers learn: the start of its workers, and each part of it, told from two short ones."""

    def seconds(share: float) -> float:
        start = time.perf_counter()
        learner.fit(1, 1e-6, cbs=fastai.ShortEpochCallback(pct=share, short_valid=False))
        return time.perf_counter() - start

    learner.unfreeze()
    seconds(0.05)
    few, many = seconds(0.1), seconds(0.4)
    return many + 0.6 * (many - few) / 0.3


def by_autogluon(place: Path, minutes: float, size: int) -> list[str]:
    """AutoGluon's MultiModalPredictor with a timm backbone and the same weights."""
    import pandas as pd
    import timm
    from autogluon.multimodal import MultiModalPredictor

    weights = Path(os.environ["COVERSLIP_WEIGHTS"]) / "mobilenetv2_100.safetensors"
    plain = timm.create_model

    def with_weights(name: str, pretrained: bool = False, **arguments: object):
        network = plain(name, pretrained=False, **arguments)
        if pretrained:
            network.load_state_dict(timm_network(weights, 0).state_dict(), strict=False)
        return network

    timm.create_model = with_weights
    vars(sys.modules["autogluon.multimodal.models.timm_image"])["create_model"] = with_weights
    files = sorted(path for path in (place / "train").rglob("*") if path.is_file())
    frame = pd.DataFrame({"image": [str(file) for file in files], "label": [file.parent.name for file in files]})
    predictor = MultiModalPredictor(label="label", path=str(place / "autogluon"))
    settings = {
        "model.names": ["timm_image"], "model.timm_image.checkpoint_name": "mobilenetv2_100", "env.num_gpus": 0, "env.num_workers": 2,
        "env.num_workers_inference": 2,
    }  # fmt: skip
    predictor.fit(frame, time_limit=60 * minutes, hyperparameters=settings)
    return list(predictor.predict(pd.DataFrame({"image": held_out(place)[0]})))


def measure(peer: str, place: Path, minutes: float, size: int) -> None:
    """One peer in this process: train, predict the held-out files, print one JSON line."""
    from sklearn.metrics import accuracy_score, f1_score

    began = time.perf_counter()
    predicted = {"coverslip": by_coverslip, "probe": by_probe, "fastai": by_fastai, "autogluon": by_autogluon}[peer](place, minutes, size)
    seconds = time.perf_counter() - began
    labels = held_out(place)[1]
    numbers = {"accuracy": accuracy_score(labels, predicted), "macro_f1": f1_score(labels, predicted, average="macro"), "seconds": seconds}
    print("RESULT " + json.dumps(numbers | {"held_out": len(labels)}))


def main() -> None:
    """Run the peers one after the other and append to the CSV."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--size", type=int, default=224, help="side of fastai's input, in pixels; the others choose their own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer", choices=PEERS, action="append")
    parser.add_argument("--python", default=sys.executable, help="interpreter of an environment that has the peer")
    parser.add_argument("--inside", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        measure(options.inside, options.place, options.minutes, options.size)
        return
    import pandas as pd

    from machine import machine_name

    rows = []
    for peer in options.peer or ("coverslip", "probe", "fastai"):
        with tempfile.TemporaryDirectory() as holder:
            split_folders(options.data, Path(holder), options.seed)
            environment = {
                **os.environ,
                "COVERSLIP_WEIGHTS": str(options.weights.resolve()),
                "COVERSLIP_CACHE": str(Path(holder) / "cache"),
            }
            command = [
                options.python,
                __file__,
                "--inside",
                peer,
                "--place",
                holder,
                "--data",
                str(options.data),
                "--weights",
                str(options.weights),
            ]
            command += ["--minutes", str(options.minutes), "--size", str(options.size)]
            said = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
        numbers = json.loads(next(line for line in said.splitlines() if line.startswith("RESULT ")).removeprefix("RESULT "))
        rows.append(
            {"data": options.data.name, "peer": peer, "minutes": options.minutes, "seed": options.seed, "size": options.size, **numbers}
        )
        print(rows[-1], flush=True)
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"peers-{machine_name()}.csv"
    earlier = [pd.read_csv(file)] if file.exists() else []
    pd.concat([*earlier, pd.DataFrame(rows).round(4)]).to_csv(file, index=False)


if __name__ == "__main__":
    main()
