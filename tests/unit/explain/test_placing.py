import numpy as np
import pytest

from coverslip.data.geometry import Geometry
from coverslip.explain.placing import to_image, to_size

SIZES = [(90, 60), (60, 90), (33, 200), (64, 64)]


@pytest.mark.parametrize("fit", ["squash", "letterbox", "crop"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("box", [(0.0, 0.0, 1.0, 1.0), (0.1, 0.2, 0.9, 0.8)])
def test_a_mark_comes_back_to_where_it_was(fit: str, size: tuple[int, int], box: tuple[float, float, float, float]) -> None:
    geometry = Geometry(64, 48, fit, ("grey",), 8, box)  # type: ignore[arg-type]
    y, x = np.mgrid[: size[0], : size[1]]
    middle = (0.5 * size[0], 0.47 * size[1])
    image = (250 * np.exp(-((y - middle[0]) ** 2 + (x - middle[1]) ** 2) / 40)).astype(np.uint8)[..., None]
    seen = geometry.apply(image)[..., 0].astype(np.float32)
    back = to_image(seen - seen.min(), geometry, *size)
    assert back.shape == size
    assert back.dtype == np.float32
    peak = np.unravel_index(back.argmax(), size)
    assert np.hypot(peak[0] - middle[0], peak[1] - middle[1]) < 2.5


def test_what_the_network_did_not_see_is_nothing() -> None:
    cropped = to_image(np.ones((40, 40), np.float32), Geometry(40, 40, "crop", ("grey",), 8), 50, 100)
    assert (cropped[:, :24] == 0).all()
    assert (cropped[:, 26:74] == 1).all()
    assert (cropped[:, 76:] == 0).all()
    boxed = to_image(np.ones((40, 40), np.float32), Geometry(40, 40, "squash", ("grey",), 8, (0.5, 0.0, 1.0, 1.0)), 50, 100)
    assert (boxed[:25] == 0).all()
    assert (boxed[25:] == 1).all()


def test_size_keeps_the_mean() -> None:
    values = np.random.default_rng(0).random((8, 8), dtype=np.float32)
    assert to_size(values, 4, 4).mean() == pytest.approx(values.mean(), abs=0.02)
    assert to_size(values, 8, 8) is values
