import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from coverslip.config import ModelConfig
from coverslip.errors import BundleError
from coverslip.models.classifier import Classifier, FrozenBackbones, architecture_json, build_classifier, from_architecture

SMALL = ModelConfig(backbone="small_30k", weights="none")


def build(config: ModelConfig = SMALL, classes: int = 3, channels: int = 1, seed: int = 0) -> Classifier:
    return build_classifier(config, channels=channels, classes=classes, size=(32, 32), seed=seed)


def save_bundle(folder: Path, classifier: Classifier, classes: list[str]) -> None:
    folder.mkdir(parents=True)
    save_file(classifier.state_dict(), folder / "model.safetensors")
    (folder / "model.json").write_text(json.dumps({"architecture": architecture_json(classifier), "classes": classes}))


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_logits_are_float32_also_in_bfloat16() -> None:
    classifier = build().eval()
    with torch.autocast("cpu", torch.bfloat16):
        logits = classifier(torch.zeros(2, 1, 32, 32))
    assert logits.shape == (2, 3)
    assert logits.dtype == torch.float32


def test_the_seed_decides_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = build(seed=1), build(seed=1), build(seed=2)
    from_architecture(architecture_json(first))
    assert torch.equal(torch.rand(3), expected)
    assert same(first, again)
    assert not same(first.head, other.head)
    assert not same(first.backbone, other.backbone)


@pytest.mark.parametrize("head", ["single", "multi", [32, 16]])
@pytest.mark.parametrize("backbone", ["small_30k", "mobilenetv2_035", "vit_tiny_patch16_224"])
def test_the_same_module_is_built_again_without_looking_for_weights(head: str, backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {"depth": 1} if backbone.startswith("vit") else {}
    classifier = build(ModelConfig(backbone=backbone, weights="none", head=head, pooling="both", arguments=arguments), channels=4)
    value = json.loads(json.dumps(architecture_json(classifier)))
    monkeypatch.setattr("coverslip.models.backbones.find_weights", lambda *_: pytest.fail("looked for weights"))
    again = from_architecture(value, classifier.state_dict())
    assert same(classifier, again)
    assert again.backbone.spec == classifier.backbone.spec
    images = torch.randn(2, 4, 32, 32)
    torch.testing.assert_close(again.eval()(images), classifier.eval()(images), rtol=0, atol=0)


def test_weights_that_do_not_fit_the_bundle() -> None:
    classifier = build()
    value = architecture_json(classifier)
    with pytest.raises(BundleError, match=r"2 missing \(head.weight, head.bias\)"):
        from_architecture(value, classifier.backbone.state_dict(prefix="backbone."))
    with pytest.raises(BundleError, match="incomplete: KeyError: 'classes'"):
        from_architecture({"backbone": value["backbone"], "head": "single"})


def test_going_on_from_a_bundle_takes_backbone_and_head(tmp_path: Path) -> None:
    trained = build(seed=7)
    save_bundle(tmp_path / "run" / "bundle", trained, ["a", "b", "c"])
    for where in (tmp_path / "run", tmp_path / "run" / "bundle"):
        went_on = build(ModelConfig(backbone="small_30k", weights=str(where)), seed=8)
        assert same(went_on, trained)
        assert "told a, b, c apart" in went_on.notes[1]
        assert went_on.backbone.weights.startswith(str(tmp_path))


def test_another_number_of_classes_takes_the_backbone_only(tmp_path: Path) -> None:
    trained = build(seed=7)
    save_bundle(tmp_path / "bundle", trained, ["a", "b", "c"])
    went_on = build(ModelConfig(backbone="small_30k", weights=str(tmp_path / "bundle")), classes=2, seed=8)
    assert same(went_on.backbone, trained.backbone)
    assert "head: random" in went_on.notes[1]
    assert same(went_on.head, build(ModelConfig(backbone="small_30k", weights=str(tmp_path / "bundle")), classes=2, seed=8).head)


def test_the_head_of_a_bundle_goes_on_class_by_class(tmp_path: Path) -> None:
    """In whatever order the classes stand now: the positive class of a bundle comes last, and its corrected table knows nothing of that."""
    trained = build(seed=7).eval()
    save_bundle(tmp_path / "bundle", trained, ["c", "a", "b"])
    config, images = ModelConfig(backbone="small_30k", weights=str(tmp_path / "bundle")), torch.randn(4, 1, 32, 32)
    scores = dict(zip("cab", trained(images).T, strict=True))
    for names, said in (("abc", "class by class: a, b, c"), ("bx", "b; new, and random: x; not asked for any more: c, a")):
        went_on = build_classifier(config, channels=1, classes=len(names), size=(32, 32), seed=8, names=list(names)).eval()
        found = dict(zip(names, went_on(images).T, strict=True))
        for name in set(names) & set("abc"):
            torch.testing.assert_close(found[name], scores[name])
        assert said in went_on.notes[1]
    strange = build_classifier(config, channels=1, classes=3, size=(32, 32), seed=8, names=["x", "y", "z"])
    assert "told other classes apart" in strange.notes[1]
    other = build_classifier(config.model_copy(update={"head": [8]}), channels=1, classes=3, size=(32, 32), seed=8, names=list("abc"))
    assert "is another one" in other.notes[1]


def test_a_grey_bundle_goes_on_with_three_channels(tmp_path: Path) -> None:
    trained = build(seed=7).eval()
    save_bundle(tmp_path / "bundle", trained, ["a", "b", "c"])
    colour = build(ModelConfig(backbone="small_30k", weights=str(tmp_path / "bundle")), channels=3).eval()
    images = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(colour(images.expand(-1, 3, -1, -1)), trained(images))


@pytest.mark.parametrize(
    ("channels", "how", "said"),
    [
        (4, "repeat", "4 channels, filters learned on 3 are taken in turn and scaled by 3/4"),
        (5, "mean", "5 channels, filters learned on 3 are kept, those beyond get their mean"),
        (4, "zero", "4 channels, filters learned on 3 are kept, those beyond start at zero"),
        (2, "zero", "2 channels, filters learned on 3 are taken in turn and scaled by 3/2"),
        (1, "repeat", "1 channel, filters learned on 3 are summed over them"),
        (1, "mean", "1 channel, filters learned on 3 are averaged over them"),
    ],
)
def test_what_became_of_the_first_layer_is_said(tmp_path: Path, channels: int, how: str, said: str) -> None:
    save_bundle(tmp_path / "bundle", build(channels=3), ["a", "b", "c"])
    config = ModelConfig.model_validate({"backbone": "small_30k", "weights": str(tmp_path / "bundle"), "first_layer": how})
    assert build(config, channels=channels).notes[1] == f"first layer: {said}"
    assert not any("first layer" in note for note in build(config, channels=3).notes + build(channels=channels).notes)


def test_a_shared_frozen_backbone_gives_the_classifier_that_is_built_alone() -> None:
    shelf = FrozenBackbones(1)
    wanted = {"channels": 1, "size": (32, 32), "seed": 3}
    first, second = (shelf.classifier(SMALL.model_copy(update={"head": head}), classes=3, **wanted) for head in ("single", [8]))
    assert first.backbone is second.backbone
    assert same(first, build_classifier(SMALL, classes=3, **wanted))
    assert same(second, build_classifier(SMALL.model_copy(update={"head": [8]}), classes=3, **wanted))
    other = shelf.classifier(SMALL, classes=3, **{**wanted, "seed": 4})
    assert other.backbone is not first.backbone
    assert shelf.classifier(SMALL, classes=3, **wanted).backbone is not first.backbone  # one is kept, and that was another
