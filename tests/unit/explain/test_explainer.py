import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from coverslip.bundle import Bundle
from coverslip.errors import BadImagesError, InputError, MissingInputError
from coverslip.evaluation.decision import Decision
from coverslip.explain import Explainer
from coverslip.models.classifier import Classifier
from coverslip.models.groups import GroupedClassifier
from coverslip.structures import Task
from unit.explain.marks import CLASSES, Image, make_marks, marks_bundle
from unit.export.kinds import several
from unit.test_bundle import images as marks

Unseen = tuple[list[Image], list[int], list[Image]]


def test_hiding_the_highlighted_region_lowers_the_score_more_than_hiding_as_much_at_random(explainer: Explainer, unseen: Unseen) -> None:
    images, labels, _ = unseen
    found = [explainer.explain(image, CLASSES[label]).hiding for image, label in zip(images, labels, strict=True)]
    hiding = [one for one in found if one is not None]
    assert len(hiding) == len(images) == 24
    assert all(one.share <= 0.101 for one in hiding)
    lost = np.array([one.score - one.hidden for one in hiding])
    lost_elsewhere = np.array([one.score - one.elsewhere for one in hiding])
    assert np.mean([one.score for one in hiding]) > 0.8, "a model that has learned to tell them apart"
    assert lost.mean() > 3 * abs(lost_elsewhere.mean())
    assert (lost > lost_elsewhere).mean() >= 0.9


def test_both_methods_point_at_the_mark(explainer: Explainer, unseen: Unseen) -> None:
    images, labels, truth = unseen
    found = [explainer.explain(image, CLASSES[label]) for image, label in zip(images, labels, strict=True)]
    for maps in ([one.map for one in found], [one.check for one in found]):
        hits = [mark[np.unravel_index(values.argmax(), mark.shape)] for values, mark in zip(maps, truth, strict=True) if values is not None]
        assert len(hits) == 24
        assert np.mean(hits) > 0.7, "the mark is a twentieth of the image"
    assert np.mean([one.agreement for one in found if one.agreement is not None]) > 0.3


def test_a_model_that_learned_nothing_is_not_explained_away(bundle: Bundle, unseen: Unseen) -> None:
    """Sanity check (Adebayo et al. 2018): with random weights the highlighted region is worth no more than any other."""
    classifier = bundle.network.classifier
    assert isinstance(classifier, Classifier)
    fresh = marks_bundle(epochs=1)
    torch.manual_seed(3)
    for module in fresh.network.classifier.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    found = [Explainer(fresh).explain(image, CLASSES[0]) for image in unseen[0][:12]]
    truth = unseen[2][:12]
    hits = [mark[np.unravel_index(one.map.argmax(), mark.shape)] for one, mark in zip(found, truth, strict=True)]
    assert len(hits) == 12
    assert np.mean(hits) < 0.5


def test_of_several_channels_the_one_with_the_mark_carries_the_decision() -> None:
    model = marks_bundle(channels=("dna", "protein", "er"), channel=1)
    images, labels, truth = make_marks(12, 7, 3, 1)
    found = [Explainer(model).explain(image, CLASSES[label]) for image, label in zip(images, labels, strict=True)]
    first = [max(one.channels, key=lambda name: one.channels[name]) for one in found]
    assert first.count("protein") >= 9
    for one, mark in zip(found, truth, strict=True):
        assert set(one.channel_maps) == {"dna", "protein", "er"}
        assert one.channel_maps["protein"].shape == mark.shape
    strongest = [max(one.channel_maps, key=lambda name: one.channel_maps[name].max()) for one in found]
    assert strongest.count("protein") >= 9


def test_what_an_explanation_holds(explainer: Explainer, bundle: Bundle, unseen: Unseen) -> None:
    image = np.kron(unseen[0][0], np.ones((2, 3, 1), np.uint8))
    found = explainer.explain(image)
    scores = bundle.scores([bundle.network.geometry.apply(image)[None]])[0]
    assert (found.label, found.predicted) == (CLASSES[int(scores.argmax())], (CLASSES[int(scores.argmax())],))
    assert found.score == pytest.approx(scores.max())
    assert found.map.shape == (128, 192)
    assert found.check is not None
    assert found.check.dtype == found.map.dtype == np.float32
    with Pillow.open(io.BytesIO(found.overlay)) as picture:
        assert (picture.format, picture.size, picture.mode) == ("PNG", (192, 128), "RGB")
    other = explainer.explain(image, CLASSES[1 - int(scores.argmax())], check="none")
    assert (other.check, other.agreement, other.hiding) == (None, None, None)
    assert other.score == pytest.approx(scores.min())
    assert not np.array_equal(other.map, found.map)


def test_threads_take_turns(explainer: Explainer, unseen: Unseen) -> None:
    alone = [explainer.explain(image, check="none").map for image in unseen[0][:6]]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: explainer.explain(image, check="none").map, unseen[0][:6]))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_class_groups_are_explained_by_the_member_that_scores_the_label(bundle: Bundle, unseen: Unseen) -> None:
    member, other = (marks_bundle(epochs=epochs).network.classifier for epochs in (1, 2))
    assert isinstance(member, Classifier)
    assert isinstance(other, Classifier)
    grouped = GroupedClassifier([member, other], [(0, 3), (1, 2)])
    network = replace(bundle.network, classifier=grouped, several=True, _folded=None)
    names = ("a", "b", "c", "d")
    model = Bundle(network, Task.MULTILABEL, names, Decision(Task.MULTILABEL), bundle.reading, {})
    alone = Bundle(replace(bundle.network, classifier=other, several=True, _folded=None), Task.MULTILABEL, ("b", "c"),
                   Decision(Task.MULTILABEL), bundle.reading, {})  # fmt: skip
    image = unseen[0][0]
    for name in ("b", "c"):
        np.testing.assert_allclose(
            Explainer(model).explain(image, name).map, Explainer(alone).explain(image, name).map, rtol=1e-4, atol=1e-6
        )
    assert [one.label for one in Explainer(model).explain_labels(image, ["d", "a"])] == ["d", "a"]


def test_bad_input_is_said(explainer: Explainer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no class 'acros'.*Did you mean 'across'"):
        explainer.explain(np.zeros((64, 64), np.uint8), "acros")
    with pytest.raises(MissingInputError):
        explainer.explain(tmp_path / "none.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(BadImagesError, match=r"bad\.png"):
        explainer.explain(tmp_path / "bad.png")
    with pytest.raises(BadImagesError, match="float64"):
        explainer.explain(np.zeros((64, 64)))
    for name in "ab":
        Pillow.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "bad.png").unlink()
    with pytest.raises(InputError, match="2 images"):
        explainer.explain(tmp_path)
    with pytest.raises(ValueError, match="windows = 1"):
        Explainer(explainer.bundle, windows=1)


def test_a_label_that_no_map_reaches_leaves_grad_cam_to_the_others() -> None:
    """One that was never seen has weights of 0: only hiding can be asked, and finds nothing."""
    made = several()
    last = [module for module in made.network.classifier.modules() if isinstance(module, torch.nn.Linear)][-1]
    last.weight.data[1] = 0
    found = Explainer(made, windows=2).explain_labels(marks(1)[0], ["a", "b", "c"])
    assert [one.method for one in found] == ["gradcam", "occlusion", "gradcam"]
    assert found[1].map.max() == 0
