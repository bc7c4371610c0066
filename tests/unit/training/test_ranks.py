"""What each of several processes takes of a step, put together again, is the step of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from coverslip.config import AugmentConfig, load_config
from coverslip.errors import ConfigError
from coverslip.runtime import no_progress
from coverslip.structures import IntArray
from coverslip.training.batches import make_batch, make_share
from coverslip.training.loop import Learner
from coverslip.training.losses import build_loss
from coverslip.training.ranks import ALONE, Ranks, current, together

CHANGES: dict[str, Any] = {
    "horizontal_flip": True, "vertical_flip": True, "quarter_turns": True, "rotation_degrees": 10.0, "random_crop": 0.1, "crop_scale": 0.7,
    "brightness": 0.2,
}  # fmt: skip


def ranks_of(size: int) -> list[Ranks]:
    return [Ranks(rank, size) for rank in range(size)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("n", [1, 10, 64, 1001])
def test_parts_hold_every_item_once_and_are_alike_in_size(n: int, size: int) -> None:
    parts = [np.arange(n)[ranks.part(n)] for ranks in ranks_of(size)]
    assert np.concatenate(parts).tolist() == list(range(n))
    lengths = {len(part) for part in parts}
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("mixup", [0.0, 0.4])
@pytest.mark.parametrize("weights", [[1.0, 1.0], [0.3, 2.5]])
def test_shares_of_a_step_are_its_images_targets_and_loss(
    make_config: Callable[..., Any], make_network: Callable[..., Any], make_samples: Callable[..., Any], mixup: float, weights: list[float]
) -> None:
    samples, network = make_samples(11), make_network(make_config())
    config, rows = AugmentConfig(**CHANGES, mixup=mixup), np.arange(11)
    whole = make_batch(network, samples.pixels.read(rows), samples.targets, config, seed=5)
    read: list[int] = []

    def pixels(chosen: IntArray) -> Any:
        read.extend(chosen.tolist())
        return samples.pixels.read(rows[chosen])

    shares = [make_share(network, pixels, samples.targets, config, 5, ranks.part(11)) for ranks in ranks_of(3)]
    torch.testing.assert_close(torch.cat([share.images for share in shares]), whole.images, rtol=0, atol=0)
    assert torch.equal(torch.cat([share.shown for share in shares]), whole.shown)
    assert len(read) == (22 if mixup else 11)
    assert set(read) == set(range(11))
    loss = build_loss(load_config().training, np.array(weights), torch.device("cpu"), several=False)
    logits = torch.randn(11, 2, generator=torch.Generator().manual_seed(1))
    parts = [
        share.loss(loss, logits[ranks.part(11)]) * ranks.weight(len(share.images), 11)
        for share, ranks in zip(shares, ranks_of(3), strict=True)
    ]
    torch.testing.assert_close(torch.stack(parts).mean(), whole.loss(loss, logits))


def test_noise_is_each_process_own_and_seeded(make_config: Callable[..., Any], make_network: Callable[..., Any], make_samples: Any) -> None:
    samples, network = make_samples(8), make_network(make_config())
    config = AugmentConfig(noise=0.2)

    def share(part: slice, seed: int) -> torch.Tensor:
        return make_share(network, samples.pixels.read, samples.targets, config, seed, part).images

    assert torch.equal(share(slice(0, 4), 1), share(slice(0, 4), 1))
    assert not torch.equal(share(slice(0, 4), 1), share(slice(0, 4), 2))
    assert share(slice(4, 8), 1).isfinite().all()


def test_a_process_alone_does_everything_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with together() as ranks:
        assert ranks is ALONE is current()
        assert ranks.part(5) == slice(0, 5)
        assert ranks.dealt([1, 2, 3], lambda item: 2 * item) == [2, 4, 6]
        assert ranks.same(lambda: "made") == "made"
        assert ranks.in_turn(lambda: 3) == 3
        assert ranks.weight(5, 5) == 1.0
        assert ranks.slowest(0.5) == 0.5


def test_an_incomplete_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match="RANK is not set; start several processes with torchrun"), together():
        pass
    with pytest.raises(ConfigError, match="train one model with `coverslip train`"):
        ALONE.fabric("cpu", "32-true")


def test_a_step_with_less_images_than_processes_is_refused(
    make_config: Callable[..., Any], make_network: Callable[..., Any], make_samples: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coverslip.training.loop.current", lambda: Ranks(0, 9))
    config = make_config()
    with pytest.raises(ConfigError, match="a step of 8 images cannot be shared out to 9 processes; start fewer"):
        Learner(make_network(config), make_samples(48), np.arange(40), np.arange(40, 48), config, np.ones(2), no_progress)
