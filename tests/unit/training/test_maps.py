from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import coverslip.training.loop
import coverslip.training.maps
from coverslip.data.cache import cache_entries
from coverslip.errors import ConfigError, ResourceError
from coverslip.models.curves import LineProfile
from coverslip.models.cutting import cut
from coverslip.training.extractor import Arithmetic
from coverslip.training.fit import fit
from coverslip.training.maps import Maps
from coverslip.training.plan import Plan

TRAIN, VALIDATION = np.arange(32), np.arange(32, 48)
CUT = {
    "model": {"weights": "pretrained"},
    "augment": {"horizontal_flip": True, "noise": 0.2},
    "training": {"regime": "finetune", "frozen_share": 0.5, "views": 2, "epochs": 6},
}
"""As if the backbone had been loaded."""
reading = LineProfile._read


def maps_of(network: Any, samples: Any, config: Any, **changes: Any) -> Maps:
    settings = {"copies": 2, "seed": 0, "limit": 10**9, **changes}
    return Maps(network, cut(network.classifier, 0.5), samples.pixels, TRAIN, config.augment, **settings)


def weights_of(network: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.classifier.state_dict().items()}


def test_maps_are_what_the_lower_part_gives_and_the_copies_differ(make_config: Any, make_network: Any, make_samples: Any) -> None:
    config, samples = make_config(**CUT), make_samples()
    network = make_network(make_config())
    maps = maps_of(network, samples, config)
    maps.compute()
    rows = np.array([31, 0, 7])
    with torch.no_grad():
        whole = maps.cut.lower(network.batch(samples.pixels.read(rows)))
    plain, copies = (maps.read(rows, np.full(3, view)) for view in (0, 1))
    torch.testing.assert_close(plain, whole, rtol=2e-3, atol=2e-3)
    assert not torch.allclose(plain, copies, atol=0.05)
    assert maps.views == 3
    assert set(maps.draw(200, 5)) == {0, 1, 2}
    np.testing.assert_array_equal(maps.draw(9, 5), maps.draw(9, 5))


def test_openvino_computes_the_same_maps_under_another_key(make_config: Any, make_network: Any, make_samples: Any) -> None:
    pytest.importorskip("openvino")
    config, samples = make_config(**CUT), make_samples()
    network = make_network(make_config())
    found = []
    for runtime in ("torch", "openvino"):
        maps = maps_of(network, samples, config, runtime=runtime, strict=True)
        maps.compute()
        assert maps.used == {Arithmetic(runtime, "32")}
        again = maps_of(network, samples, config, runtime=runtime)
        again.compute()
        assert again.used == {Arithmetic(runtime, "32")}
        found.append(maps.read(np.repeat(TRAIN, 3), np.tile(np.arange(3), 32)))
    torch.testing.assert_close(*found, rtol=2e-3, atol=2e-3)
    assert len(cache_entries()) == 2


def test_what_is_cached_is_not_computed_again_and_pieces_add_up(
    make_config: Any, make_network: Any, make_samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coverslip.training.maps, "PIECE", 20)
    config, samples, told = make_config(**CUT), make_samples(), list[tuple[str, int, int]]()

    def note(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
        told.append((stage, done, total))

    for _ in range(2):
        maps = maps_of(make_network(make_config()), samples, config, progress=note)
        maps.compute()
    assert told == [("first layers", 20, 32), ("first layers", 32, 32)]
    assert [entry.kind for entry in cache_entries()] == ["maps", "maps"]
    assert maps.read(TRAIN, np.zeros(32, dtype=np.int64)).shape == (32, *maps.cut.shape)


@pytest.mark.parametrize(("normalise", "told"), [("dataset", 32), ("none", 48)])
def test_fits_of_other_rows_share_maps_only_where_they_see_the_same(
    make_config: Any, make_network: Any, make_samples: Any, normalise: str, told: int
) -> None:
    config, totals = make_config(**{**CUT, "pixels": {"normalise": normalise}}), set[int]()

    def note(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
        if stage == "first layers":
            totals.add(total)

    fit(make_network(make_config()), make_samples(), TRAIN, VALIDATION, config, every_row=True, progress=note)
    assert totals == {told}


def test_maps_larger_than_the_cache_are_refused_before_any_work(make_config: Any, make_network: Any, make_samples: Any) -> None:
    config = make_config(**CUT)
    with pytest.raises(ResourceError, match=r"32 images in 3 views.*cache\.limit.*training\.views.*frozen_share=0"):
        maps_of(make_network(make_config()), make_samples(), config, limit=1000).compute()
    assert not cache_entries()


def test_the_upper_layers_learn_from_maps_and_the_lower_stay(make_config: Any, make_network: Any, make_samples: Any) -> None:
    config, samples = make_config(**CUT), make_samples()
    network = make_network(make_config())
    before = weights_of(network)
    plans: list[Plan] = []
    found = fit(network, samples, TRAIN, VALIDATION, config, on_plan=plans.append)
    after = weights_of(network)
    frozen = {id(weight) for weight in cut(network.classifier, 0.5).lower.parameters()}
    lower = {name for name, weight in network.classifier.named_parameters() if id(weight) in frozen}
    assert lower
    assert all(torch.equal(before[name], after[name]) for name in lower)
    assert any(not torch.equal(before[name], after[name]) for name in set(before) - lower if name.startswith("backbone"))
    assert plans == [Plan(24, 4, views=2)]
    losses = [row["train_loss"] for row in found.history if "train_loss" in row]
    assert losses[-1] < losses[0]
    scores = network.for_use().scores([samples.pixels.read(VALIDATION)])
    assert (scores.argmax(axis=1) == samples.targets[VALIDATION]).mean() > 0.8
    np.testing.assert_array_equal(found.scores(samples, VALIDATION), scores)


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_a_resumed_fit_ends_with_the_same_weights(
    make_config: Any, make_network: Any, make_samples: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mixup: float
) -> None:
    monkeypatch.setattr(coverslip.training.loop, "SHORT_EPOCH_SECONDS", 0.0)
    config, samples = make_config(**{**CUT, "augment": {**CUT["augment"], "mixup": mixup}}), make_samples()

    def stop(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
        if stage == "training" and done == 10:
            raise KeyboardInterrupt

    unbroken, broken, resumed = (make_network(make_config()) for _ in range(3))
    fit(unbroken, samples, TRAIN, VALIDATION, config)
    with pytest.raises(KeyboardInterrupt):
        fit(broken, samples, TRAIN, VALIDATION, config, checkpoint=tmp_path / "fit.ckpt", progress=stop)
    fit(resumed, samples, TRAIN, VALIDATION, config, checkpoint=tmp_path / "fit.ckpt")
    assert all(torch.equal(tensor, weights_of(resumed)[name]) for name, tensor in weights_of(unbroken).items())


def test_a_budget_makes_fewer_copies_and_says_how_many(make_config: Any, make_network: Any, make_samples: Any) -> None:
    config = make_config(**{**CUT, "training": {**CUT["training"], "views": 100_000, "minutes": 0.03}})
    plans: list[Plan] = []
    fit(make_network(make_config()), make_samples(), TRAIN, VALIDATION, config, minutes=0.03, on_plan=plans.append)
    assert plans[0].views is not None
    assert 1 <= plans[0].views < 100_000


@pytest.mark.parametrize(("regime", "said"), [("probe", "regime"), ("finetune", "random")])
def test_contradictions_are_met(make_config: Any, regime: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_config(training={"regime": regime, "frozen_share": 0.5}).check()


def test_a_network_that_reads_lines_learns_from_what_it_read_once(
    make_config: Any, make_network: Any, make_samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = make_samples()
    found, read = [], []
    monkeypatch.setattr(LineProfile, "_read", lambda *known: read.append(len(known[1])) or reading(*known))
    for limit in (10**9, 1000):  # what does not fit is read anew
        read.clear()
        config = make_config(model={"backbone": "curve_160k"}, training={"epochs": 4}, cache={"limit": limit})
        network = make_network(config)
        fitted = fit(network, samples, TRAIN, np.zeros(0, dtype=np.int64), config)
        found.append(([row["train_loss"] for row in fitted.history if "train_loss" in row], sum(read)))
    (cached, few), (live, many) = found
    assert len(cached) == len(live) == 16
    np.testing.assert_allclose(cached[:3], live[:3], rtol=0.01)  # in half precision, which later steps amplify
    assert few < len(TRAIN) + 20 < 4 * len(TRAIN) <= many
