from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coverslip.bundle import save_bundle
from coverslip.data.streaming import Sample
from coverslip.network import SCORE_BATCH
from coverslip.predict import Model
from unit.test_bundle import bundle_of, images


class Counted(list[Sample]):
    """Samples that count how many of them were asked for."""

    asked = 0

    def __iter__(self) -> Iterator[Any]:
        for item in super().__iter__():
            self.asked += 1
            yield item


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("model") / "bundle"
    save_bundle(bundle_of(), folder, images(), "# card\n")
    return Model(folder, device="cpu")


def test_many_images_are_scored_a_few_batches_at_a_time(model: Model) -> None:
    inputs = Counted(image[..., 0] for image in images(n=40, shape=(8, 8)) for _ in range(25))
    ahead: list[int] = []
    scored = model.score(inputs, lambda stage, done, total, numbers: ahead.append(inputs.asked - done))
    assert len(inputs) == 1000
    assert len(ahead) == -(-1000 // SCORE_BATCH)
    assert 0 < max(ahead) <= 4 * SCORE_BATCH
    assert not np.isnan(scored.scores).any()
    np.testing.assert_allclose(scored.scores[::25], model.predict_proba(images(n=40, shape=(8, 8))), atol=1e-6)


def test_what_cannot_be_read_stands_in_its_row(model: Model, tmp_path: Path) -> None:
    (tmp_path / "letter.png").write_text("not an image")
    good = images(n=2)
    frame = model.predict([good[0][..., 0], str(tmp_path / "letter.png"), np.zeros((4, 4)), good[1][..., 0]])
    assert frame["error"].astype(bool).tolist() == [False, True, True, False]
    assert frame["p_a"].isna().tolist() == [False, True, True, False]
    assert frame["predicted"].tolist()[1:3] == ["", ""]
