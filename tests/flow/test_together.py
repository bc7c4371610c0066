"""The models of the folds, kept as one that answers with the mean of their logits."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from coverslip.bundle import load_bundle
from coverslip.experiment import run as train
from coverslip.explain import Explainer
from coverslip.models.groups import GroupedClassifier, members_of
from coverslip.predict import Model
from coverslip.start import begin

from .conftest import TINY, Cli, images_of

TOGETHER = (*TINY, "-s", "split.folds=2", "-s", "split.test=0.2", "-s", "split.validation=0", "-s", "training.final=folds")


@pytest.fixture(scope="module")
def run(gels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = [text for text in TOGETHER if text != "-s"]
    start = begin(str(gels), recipe="quick", settings=settings, out=tmp_path_factory.mktemp("together") / "run", resume=False)
    made = train(start.config, start.folder, recipe=start.recipe)
    assert "the models of 2 folds answer together, with the mean of their logits" in made.notes
    return made.folder


def test_the_model_is_the_mean_of_those_of_the_folds(run: Path, gels: Path) -> None:
    history = pd.read_csv(run / "history.csv")
    assert set(history["fold"]) == {1.1, 1.2}  # and no fit of all rows
    bundle = load_bundle(run / "bundle")
    network = bundle.network
    assert isinstance(network.classifier, GroupedClassifier)
    images = torch.randn(4, len(network.geometry.channels), *network.geometry.size)
    members = [member.eval()(images) for member in members_of(network.classifier)]
    assert len(members) == 2
    assert not torch.allclose(members[0], members[1])
    torch.testing.assert_close(network.classifier.eval()(images), torch.stack(members).mean(dim=0))
    told = pd.read_csv(run / "predictions.csv").query("part == 'test'")
    again = Model(run, runtime="torch").predict([gels / name for name in told["image"]])
    np.testing.assert_allclose(again["p_gel"], told["p_gel"], atol=1e-5)
    explanation = Explainer(bundle).explain(images_of(gels)[0], check="none")
    assert explanation.method == "gradcam"
    assert np.isfinite(explanation.map).all()


def test_a_run_that_was_stopped_after_a_fold_goes_on_with_its_model(run: Path, cli: Cli, gels: Path, tmp_path: Path) -> None:
    stopped = tmp_path / "stopped"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("coverslip.fitting.Fits._together", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        assert cli("train", gels, "--recipe", "quick", *TOGETHER, "--out", stopped).status == 130
    assert cli("train", gels, "--recipe", "quick", *TOGETHER, "--out", stopped, "--resume").status == 0
    for name in ("model-1.safetensors", "model-2.safetensors"):
        assert (stopped / "bundle" / name).read_bytes() == (run / "bundle" / name).read_bytes()
    shutil.rmtree(stopped)


def test_training_goes_on_from_the_model_of_the_first_fold(run: Path, cli: Cli, gels: Path, tmp_path: Path) -> None:
    settings = (*TINY, "-s", "training.learning_rate=1e-12", "-s", f"model.weights={run / 'bundle'}")
    assert cli("train", gels, "--recipe", "quick", *settings, "--out", tmp_path / "on").status == 0
    first, on = (
        load_file(folder / "bundle" / name) for folder, name in ((run, "model-1.safetensors"), (tmp_path / "on", "model.safetensors"))
    )
    torch.testing.assert_close(on["head.weight"], first["head.weight"], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("wrong", [("split.folds=0", "training.regime=scratch"), ("split.folds=2", "training.regime=probe")])
def test_without_folds_that_learn_there_is_nothing_to_put_together(cli: Cli, gels: Path, tmp_path: Path, wrong: tuple[str, str]) -> None:
    settings = [part for text in wrong for part in ("-s", text)]
    done = cli("train", gels, "--recipe", "quick", *TOGETHER, *settings, "--out", tmp_path / "run")
    assert done.status == 2
    assert 'training.final = "folds"' in done.err
