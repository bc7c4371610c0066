from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from coverslip.config import AugmentConfig
from coverslip.data.transforms import augment, mix, tta_copies

EVERYTHING: dict[str, Any] = {
    "horizontal_flip": True,
    "vertical_flip": True,
    "quarter_turns": True,
    "rotation_degrees": 10.0,
    "random_crop": 0.1,
    "crop_scale": 0.7,
    "brightness": 0.2,
    "noise": 0.1,
}
ONE_BY_ONE = [{key: value} for key, value in EVERYTHING.items()]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def image(channels: int = 1, height: int = 12, width: int = 12) -> Tensor:
    return torch.randn(channels, height, width, generator=generator(99))


def copies_of(one: Tensor, n: int, **changes: Any) -> Tensor:
    """n differently changed copies of one image."""
    return augment(one.expand(n, *one.shape).contiguous(), AugmentConfig(**changes), generator())


def ramp(height: int, width: int) -> Tensor:
    """Two channels: each pixel holds its own x, and its own y, in pixels from the centre."""
    y, x = torch.meshgrid(torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2, indexing="ij")
    return torch.stack([x, y])


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("changes", [*ONE_BY_ONE, EVERYTHING], ids=lambda changes: "+".join(changes) if len(changes) < 3 else "everything")
def test_each_option_takes_any_channels_changes_by_image_and_is_seeded(channels: int, changes: dict[str, Any]) -> None:
    batch = image(channels).expand(16, channels, 12, 12).contiguous()
    before, config = batch.clone(), AugmentConfig(**changes)
    found = augment(batch, config, generator(1))
    assert found.shape == batch.shape
    assert found.dtype == torch.float32
    assert torch.equal(batch, before)
    assert torch.equal(found, augment(batch, config, generator(1)))
    assert not torch.equal(found, augment(batch, config, generator(2)))
    assert len({tuple(one.flatten().tolist()) for one in found}) >= 2
    assert found.isfinite().all()


def test_the_global_generator_plays_no_part() -> None:
    batch, config = torch.randn(4, 1, 8, 8, generator=generator()), AugmentConfig(**EVERYTHING, mixup=0.3)
    torch.manual_seed(1)
    first = augment(batch, config, generator(5)), mix(batch, 0.3, generator(5))[0]
    state = torch.get_rng_state()
    torch.manual_seed(2)
    second = augment(batch, config, generator(5)), mix(batch, 0.3, generator(5))[0]
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_is_changed_when_nothing_is_asked_for() -> None:
    batch = torch.randn(4, 3, 8, 9)
    assert torch.equal(augment(batch, AugmentConfig(), generator()), batch)


@pytest.mark.parametrize(("key", "axis"), [("horizontal_flip", 1), ("vertical_flip", 0)])
def test_flips_are_the_image_or_its_mirror_in_halves(key: str, axis: int) -> None:
    one = image(3, 6, 9)
    mirror = torch.from_numpy(np.flip(one.numpy(), axis + 1).copy())
    found = copies_of(one, 400, **{key: True})
    same = sum(torch.equal(copy, one) for copy in found)
    mirrored = sum(torch.equal(copy, mirror) for copy in found)
    assert same + mirrored == 400
    assert 150 < mirrored < 250


def test_quarter_turns_are_the_four_rotations_and_no_mirror() -> None:
    one = image(2)
    wanted = [torch.from_numpy(np.rot90(one.numpy(), turns, (1, 2)).copy()) for turns in range(4)]
    found = copies_of(one, 400, quarter_turns=True)
    counts = [sum(torch.equal(copy, turned) for copy in found) for turned in wanted]
    assert sum(counts) == 400
    assert min(counts) > 60


def test_flips_and_turns_together_reach_all_eight_symmetries() -> None:
    found = copies_of(image(), 200, quarter_turns=True, horizontal_flip=True)
    assert len({tuple(copy.flatten().tolist()) for copy in found}) == 8


def seen_corners(found: Tensor) -> Tensor:
    """(n, 2 (x, y), 2 (down, across)): how the source moves per pixel of the result, in the middle."""
    middle_y, middle_x = found.shape[-2] // 2, found.shape[-1] // 2
    down = found[:, :, middle_y + 2, middle_x] - found[:, :, middle_y - 2, middle_x]
    across = found[:, :, middle_y, middle_x + 2] - found[:, :, middle_y, middle_x - 2]
    return torch.stack([down, across], dim=2) / 4


@pytest.mark.parametrize(("height", "width"), [(40, 40), (30, 60)])
def test_rotation_turns_by_at_most_the_angle_around_the_middle_without_shear(height: int, width: int) -> None:
    found = copies_of(ramp(height, width), 200, rotation_degrees=20.0)
    steps = seen_corners(found)
    down, across = steps[..., 0], steps[..., 1]
    assert torch.allclose(down.norm(dim=1), torch.ones(200), atol=1e-3)
    assert torch.allclose(across.norm(dim=1), torch.ones(200), atol=1e-3)
    assert ((down * across).sum(dim=1)).abs().max() < 1e-3
    angles = torch.rad2deg(torch.atan2(across[:, 1], across[:, 0]))
    assert angles.abs().max() <= 20.01
    assert angles.max() > 15
    assert angles.min() < -15


@pytest.mark.parametrize(("height", "width"), [(40, 40), (20, 60)])
def test_random_crop_shifts_each_side_by_at_most_its_share(height: int, width: int) -> None:
    found = copies_of(ramp(height, width), 300, random_crop=0.2)
    shift = found[:, :, height // 2, width // 2] - ramp(height, width)[:, height // 2, width // 2]
    for axis, side in ((0, width), (1, height)):
        assert shift[:, axis].abs().max() <= 0.2 * side + 1e-3
        assert shift[:, axis].max() > 0.17 * side
        assert shift[:, axis].min() < -0.17 * side
    steps = seen_corners(found)
    assert torch.allclose(steps[:, 0, 1], torch.ones(300), atol=1e-3)
    assert torch.allclose(steps[:, 1, 0], torch.ones(300), atol=1e-3)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_random_resized_crop_keeps_at_least_its_share_of_the_area_and_stays_inside(share: float) -> None:
    source = ramp(48, 48)
    found = copies_of(source, 400, crop_scale=share)
    steps = seen_corners(found)
    across, down = steps[:, 0, 1], steps[:, 1, 0]
    area = across * down
    assert area.min() >= share - 1e-3
    assert area.max() <= 1 + 1e-3
    assert area.min() < share + 0.05
    assert max(across.max(), down.max()) <= 1 + 1e-3
    aspect = across / down
    assert 0.74 < aspect.min() < 0.95
    assert 1.05 < aspect.max() < 1.35
    first, last = found[:, :, 0, 0], found[:, :, -1, -1]  # the outermost pixels' centres: half a pixel inside
    assert first.min() >= source.min() - 1e-3
    assert last.max() <= source.max() + 1e-3


def test_what_lies_outside_repeats_the_border() -> None:
    one = torch.zeros(1, 20, 20)
    one[:, :, 10:] = 5
    found = copies_of(one, 50, random_crop=0.3)
    assert found[:, 0, :, 0].abs().max() < 1e-4
    assert (found[:, 0, :, -1] - 5).abs().max() < 1e-4


@pytest.mark.parametrize("scale", [1.0, 0.05])
def test_brightness_moves_the_mean_and_stretches_the_contrast_by_shares_of_the_deviation(scale: float) -> None:
    one = image(3) * scale + 7
    found = copies_of(one, 400, brightness=0.3)
    deviation = one.std()
    shift = (found.mean(dim=(1, 2, 3)) - one.mean()) / deviation
    contrast = found.std(dim=(1, 2, 3)) / deviation
    assert shift.abs().max() <= 0.301
    assert shift.abs().max() > 0.27
    assert 0.699 <= contrast.min() < 0.74
    assert 1.26 < contrast.max() <= 1.301
    assert abs(float(np.corrcoef(shift, contrast)[0, 1])) < 0.2
    whitened = (found - found.mean(dim=(1, 2, 3), keepdim=True)) / found.std(dim=(1, 2, 3), keepdim=True)
    assert torch.allclose(whitened, ((one - one.mean()) / deviation).expand_as(whitened), atol=1e-3)


@pytest.mark.parametrize("scale", [1.0, 0.05])
def test_noise_is_a_share_of_the_image_s_deviation(scale: float) -> None:
    one = image(1, 40, 40) * scale + 7
    added = copies_of(one, 200, noise=0.5) - one
    strength = added.std(dim=(1, 2, 3)) / one.std()
    assert strength.max() <= 0.53
    assert strength.max() > 0.45
    assert strength.min() < 0.05
    assert (added.mean(dim=(1, 2, 3)) / one.std()).abs().max() < 0.06


# Mixup ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [0.1, 1.0, 8.0])
def test_mixup_blends_each_image_with_its_partner_and_says_by_how_much(strength: float) -> None:
    batch = torch.randn(64, 2, 5, 5, generator=generator())
    mixed, mixing = mix(batch, strength, generator(1))
    assert sorted(mixing.partner.tolist()) == list(range(64))
    assert mixing.share.min() >= 0.5
    assert mixing.share.max() <= 1.0
    for i in range(64):
        share = float(mixing.share[i])
        torch.testing.assert_close(mixed[i], share * batch[i] + (1 - share) * batch[int(mixing.partner[i])])


def test_shares_follow_the_beta_distribution_folded_at_a_half() -> None:
    from scipy.stats import beta, kstest

    shares = mix(torch.zeros(4000, 1, 1, 1), 0.4, generator(3))[1].share.double().numpy()
    assert kstest(shares, lambda x: beta.cdf(x, 0.4, 0.4) - beta.cdf(1 - x, 0.4, 0.4)).pvalue > 0.01


# Test-time copies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("views", "allowed", "count"),
    [
        ("none", {"horizontal_flip": True}, 1),
        ("flips", {}, 2),
        ("flips", {"horizontal_flip": True}, 2),
        ("flips", {"vertical_flip": True}, 2),
        ("flips", {"horizontal_flip": True, "vertical_flip": True}, 4),
        ("turns", {}, 8),
        ("turns", {"vertical_flip": True}, 8),
    ],
)
def test_copies_are_distinct_and_hold_the_same_pixels(views: str, allowed: dict[str, bool], count: int) -> None:
    batch = torch.randn(2, 3, 6, 6, generator=generator())
    copies = tta_copies(batch, views, AugmentConfig.model_validate(allowed))
    assert len(copies) == count
    assert torch.equal(copies[0], batch)
    assert all(not torch.equal(first, second) for first, second in combinations(copies, 2))
    assert all(torch.equal(copy.flatten(2).sort().values, batch.flatten(2).sort().values) for copy in copies)


def test_an_image_that_must_not_be_mirrored_left_to_right_is_not() -> None:
    batch = torch.randn(1, 1, 4, 5, generator=generator())
    copies = tta_copies(batch, "flips", AugmentConfig(vertical_flip=True))
    assert torch.equal(copies[1], torch.from_numpy(np.flipud(batch[0, 0].numpy()).copy())[None, None])


def test_turns_are_the_eight_symmetries_of_the_square() -> None:
    batch = torch.randn(1, 1, 4, 4, generator=generator())
    plane = batch[0, 0].numpy()
    wanted = {np.rot90(side, turns).tobytes() for side in (plane, np.fliplr(plane)) for turns in range(4)}
    assert {np.ascontiguousarray(copy[0, 0].numpy()).tobytes() for copy in tta_copies(batch, "turns", AugmentConfig())} == wanted
