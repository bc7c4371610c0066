from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coverslip.config import AugmentConfig
from coverslip.data.cache import cache_entries, clear_cache
from coverslip.data.transforms import augment
from coverslip.network import SCORE_BATCH, Network
from coverslip.training import features
from coverslip.training.features import FeatureStore, module_hash

ROWS = np.arange(20)


def store_of(network: Network, samples: Any, **changes: Any) -> FeatureStore:
    settings: dict[str, Any] = {"augment": AugmentConfig(noise=0.5), "seed": 0, "limit": 10**9}
    return FeatureStore(network=network, pixels=samples.pixels, **{**settings, **changes})


def by_hand(network: Network, samples: Any, rows: Any) -> Any:
    network.classifier.eval()
    with torch.no_grad():
        return network.classifier.backbone(network.batch(samples.pixels.read(rows))).numpy()


def test_features_are_those_of_the_backbone_in_evaluation_mode(make_config: Any, make_network: Any, make_samples: Any) -> None:
    samples, network = make_samples(100), make_network(make_config())
    rows = np.random.default_rng(0).permutation(100)[:80]
    found = store_of(network, samples).rows(rows)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_hand(network, samples, rows), atol=1e-5)


def test_features_are_computed_once(make_config: Any, make_network: Any, make_samples: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, network = make_samples(), make_network(make_config())
    store = store_of(network, samples)
    first = [store.rows(ROWS), store.rows(ROWS, 1), store.rows(ROWS, 2)]
    monkeypatch.setattr(network.classifier.backbone, "forward", lambda *_: pytest.fail("computed again"))
    assert all(np.array_equal(old, store.rows(ROWS, view)) for view, old in enumerate(first))
    with torch.no_grad():
        network.classifier.head.bias.add_(1)  # type: ignore[operator, union-attr]
    assert np.array_equal(store.rows(ROWS), first[0])


def test_views_are_augmented_copies_each_another(make_config: Any, make_network: Any, make_samples: Any) -> None:
    samples, network = make_samples(), make_network(make_config())
    store = store_of(network, samples)
    plain, first, second = (store.rows(ROWS, view) for view in range(3))
    assert not np.allclose(plain, first)
    assert not np.allclose(first, second)
    assert not np.allclose(store_of(network, samples, seed=1).rows(ROWS, 1), first)
    assert np.array_equal(store_of(network, samples, seed=1).rows(ROWS, 0), plain)
    torch.manual_seed(5)
    wild = augment(network.batch(samples.pixels.read(ROWS)), AugmentConfig(noise=0.5), torch.Generator().manual_seed(0))
    with torch.no_grad():
        typical = float((network.classifier.backbone(wild).numpy() - plain).std())
    assert (first - plain).std() == pytest.approx(typical, rel=0.5)


def changed(network: Network, what: str) -> Network:
    if what == "weights":
        with torch.no_grad():
            next(network.classifier.backbone.parameters())[0] += 0.5
    elif what == "buffers":
        next(module for module in network.classifier.backbone.modules() if hasattr(module, "running_mean")).running_mean += 0.5  # type: ignore[operator]
    elif what == "normalisation":
        from dataclasses import replace

        network.normalisation = replace(network.normalisation, invert=True)
    return network


@pytest.mark.parametrize("what", ["weights", "buffers", "normalisation"])
def test_what_changes_the_features_changes_the_entry(make_config: Any, make_network: Any, make_samples: Any, what: str) -> None:
    samples = make_samples()
    store_of(make_network(make_config()), samples).rows(ROWS)
    other = changed(make_network(make_config()), what)
    np.testing.assert_allclose(store_of(other, samples).rows(ROWS), by_hand(other, samples, ROWS), atol=1e-5)


def test_pooling_changes_the_features_though_no_weight_changes(make_config: Any, make_network: Any, make_samples: Any) -> None:
    samples = make_samples()
    for pooling in ("average", "max", "both"):
        network = make_network(make_config(model={"pooling": pooling}))
        np.testing.assert_allclose(store_of(network, samples).rows(ROWS), by_hand(network, samples, ROWS), atol=1e-5)


def test_rows_are_those_of_the_table(make_config: Any, make_network: Any, make_samples: Any) -> None:
    samples, network = make_samples(), make_network(make_config())
    dropped = samples.pixels.take(np.arange(5, 48))
    from dataclasses import replace

    found = store_of(network, replace(samples, pixels=dropped)).rows(np.array([0, 3]))
    np.testing.assert_allclose(found, by_hand(network, samples, np.array([5, 8])), atol=1e-5)


def test_progress_reaches_the_end_and_an_interruption_leaves_nothing(
    make_config: Any, make_network: Any, make_samples: Any, tmp_path: Path
) -> None:
    calls: list[tuple[int, int]] = []

    def stop(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
        calls.append((done, total))
        if len(calls) == 2:
            raise KeyboardInterrupt

    samples, network = make_samples(100), make_network(make_config())
    with pytest.raises(KeyboardInterrupt):
        store_of(network, samples, progress=stop).rows(np.arange(100))
    assert cache_entries() == []
    store_of(network, samples, progress=lambda stage, done, total, numbers: calls.append((done, total))).rows(np.arange(100))
    assert calls == [(32, 100), (64, 100), *[(done, 100) for done in (32, 64, 96, 100)]]


def test_an_interruption_costs_one_piece(make_config: Any, make_network: Any, make_samples: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows come in pieces, each an entry of its own; the numbers are those of one piece."""
    samples, network = make_samples(100), make_network(make_config())
    rows = np.random.default_rng(1).permutation(100)
    whole = [store_of(network, samples).rows(rows, view) for view in (0, 1)]
    clear_cache()
    monkeypatch.setattr(features, "PIECE", SCORE_BATCH)
    done: list[int] = []

    def stop(stage: str, seen: int, total: int, numbers: dict[str, float]) -> None:
        assert total == 100
        done.append(seen)
        if seen == 3 * SCORE_BATCH:
            raise KeyboardInterrupt

    for view in (0, 1):
        done.clear()
        with pytest.raises(KeyboardInterrupt):
            store_of(network, samples, progress=stop).rows(rows, view)
        assert done == [SCORE_BATCH, 2 * SCORE_BATCH, 3 * SCORE_BATCH]
        done.clear()
        found = store_of(network, samples, progress=lambda stage, seen, total, numbers: done.append(seen)).rows(rows, view)
        assert done == [3 * SCORE_BATCH, 100]
        np.testing.assert_allclose(found, whole[view], atol=1e-5)


def test_the_hash_of_a_module_knows_names_values_and_kinds() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 3)
    first = module_hash(layer)
    assert module_hash(layer) == first
    assert module_hash(torch.nn.Sequential(layer)) != first
    assert module_hash(torch.nn.Linear(3, 3)) != first
    with torch.no_grad():
        layer.bias[0] += 1e-6
    assert module_hash(layer) != first
