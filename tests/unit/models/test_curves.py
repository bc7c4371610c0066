import numpy as np
import pytest
import torch
from torch import Tensor

import coverslip.models.curves as curves
from coverslip.config import ModelConfig
from coverslip.models.classifier import Classifier, build_classifier
from coverslip.models.curves import SIGNALS, CurveNetwork, LineProfile, stretched
from coverslip.models.cutting import cut_unlearned
from coverslip.models.own import OWN_NETWORKS

HEIGHT, WIDTH = 100, 40


def chart(top: int, bottom: int, columns: slice = slice(0, WIDTH)) -> Tensor:
    """White paper (1, 1, 100, 40), black in the rows from `top` to before `bottom` of some columns."""
    image = torch.ones(1, 1, HEIGHT, WIDTH)
    image[..., top:bottom, columns] = 0
    return image


def made(backbone: str, channels: int = 1, size: tuple[int, int] = (60, 400)) -> Classifier:
    config = ModelConfig(backbone=backbone, weights="none", pooling="both")
    return build_classifier(config, channels=channels, classes=3, size=size, seed=0).eval()


def random_charts(n: int, channels: int = 1, size: tuple[int, int] = (60, 400)) -> Tensor:
    """Charts (n, channels, h, w) of random walks, drawn three pixels thick."""
    generator = np.random.default_rng(0)
    rows, columns = size
    images = np.ones((n, channels, rows, columns), dtype=np.float32)
    for image in images.reshape(-1, rows, columns):
        walk = (rows / 2 + generator.normal(0, 1, columns).cumsum()).clip(3, rows - 4).astype(int)
        for column, row in enumerate(walk):
            image[row - 1 : row + 2, column] = 0
    return torch.from_numpy(images)


def test_a_profile_says_where_the_line_is_and_how_much_of_it() -> None:
    ink, top, bottom, middle, amount = LineProfile()(chart(20, 30, slice(5, 15)))[0, :, 0]
    drawn = torch.zeros(WIDTH, dtype=torch.bool)
    drawn[5:15] = True
    for signal in (ink, top, bottom, middle, amount):
        assert (signal[~drawn] == 0).all()
        torch.testing.assert_close(signal[drawn], signal[5].expand(10))
    assert ink[5] == 1
    torch.testing.assert_close(top[5], torch.tensor(1 - 20.5 / HEIGHT))
    torch.testing.assert_close(bottom[5], torch.tensor(1 - 29.5 / HEIGHT))
    torch.testing.assert_close(middle[5], torch.tensor(1 - 25 / HEIGHT))
    torch.testing.assert_close(amount[5], torch.tensor(10 * 10 / HEIGHT))


@pytest.mark.parametrize("changed", [lambda x: 1 - x, lambda x: 3 * x - 7, lambda x: x * 0.2])
def test_a_profile_does_not_depend_on_brightness_contrast_or_which_of_both_is_dark(changed: object) -> None:
    image = random_charts(2)
    torch.testing.assert_close(LineProfile()(changed(image)), LineProfile()(image), rtol=1e-4, atol=1e-4)  # type: ignore[operator]


def test_an_empty_chart_has_an_empty_profile() -> None:
    assert not LineProfile()(torch.full((1, 2, HEIGHT, WIDTH), 0.7)).any()


def test_neighbours_are_read_as_one_and_channels_and_images_alone() -> None:
    images = random_charts(3, channels=2)
    profile = LineProfile()(images)
    assert profile.shape == (3, 2 * SIGNALS, 1, 400)
    ink, top, bottom, middle, amount = profile.reshape(3, SIGNALS, 2, 100, 4).unbind(dim=1)
    joined = [ink.amax(dim=3), top.amax(dim=3), bottom.amin(dim=3), middle.mean(dim=3), amount.mean(dim=3)]
    torch.testing.assert_close(LineProfile(4)(images).reshape(3, SIGNALS, 2, 100), torch.stack(joined, dim=1), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(LineProfile()(images[1:2]), profile[1:2])
    torch.testing.assert_close(LineProfile()(images[:, 1:]), profile[:, 1::2])


def test_a_profile_is_stretched_by_a_little_and_never_out_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = LineProfile()(random_charts(4))
    torch.manual_seed(3)
    first = stretched(profile)
    torch.manual_seed(3)
    torch.testing.assert_close(stretched(profile), first, rtol=0, atol=0)
    assert not torch.allclose(stretched(profile), first, atol=0.01)
    assert (stretched(profile)[:, 1] <= profile[:, 1].amax(dim=2, keepdim=True) * (1 + curves.HIGHER) + 1e-6).all()
    for name in ("WIDER", "MOVED", "HIGHER"):
        monkeypatch.setattr(curves, name, 0.0)
    torch.testing.assert_close(stretched(profile), profile, rtol=1e-4, atol=1e-4)
    monkeypatch.undo()
    network, images = CurveNetwork(1, 4), random_charts(4)
    assert not torch.equal(network.train()(images), network(images))
    torch.testing.assert_close(network.eval()(images), network(images))


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_read_of_an_image_is_cut_off_and_the_rest_learns(channels: int) -> None:
    classifier, images = made("curve_160k", channels), random_charts(3, channels)
    parts = cut_unlearned(classifier)
    assert parts is not None
    assert parts.name == "profile"
    assert parts.shape == (SIGNALS * channels, 1, 400)
    assert parts.sentence == f"profile has no weights: what it reads of an image ({SIGNALS * channels} × 1 × 400 numbers) is computed once"
    with torch.no_grad():
        torch.testing.assert_close(parts.upper(parts.lower(images)), classifier(images))
    assert {id(weight) for weight in parts.upper.parameters()} == {id(weight) for weight in classifier.parameters()}
    assert all(weight.requires_grad for weight in classifier.parameters())


@pytest.mark.parametrize("backbone", ["small_30k", "resnet18", "vit_tiny_patch16_224"])
def test_networks_that_begin_with_weights_are_not_cut(backbone: str) -> None:
    assert cut_unlearned(made(backbone, size=(224, 224))) is None


def test_a_network_of_curves_learns_a_dip() -> None:
    torch.manual_seed(0)
    network, head = OWN_NETWORKS["curve_160k"](1, (HEIGHT, 160), width=4), torch.nn.Linear(16, 2)
    targets = torch.arange(32) % 2
    images = torch.ones(32, 1, HEIGHT, 160)
    for image, target, place in zip(images, targets, torch.randint(40, 100, (32,)), strict=True):
        image[0, 20:24] = 0
        if target:
            image[0, :, place : place + 20] = 1
            image[0, 60:64, place : place + 20] = 0
    optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], 1e-2)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(head(network(images)), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    assert (head(network(images)).argmax(dim=1) == targets).float().mean() > 0.95
