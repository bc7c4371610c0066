import pytest

from coverslip.bundle import Bundle
from coverslip.explain import Explainer
from unit.explain.marks import Image, make_marks, marks_bundle


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return marks_bundle()


@pytest.fixture(scope="session")
def explainer(bundle: Bundle) -> Explainer:
    return Explainer(bundle)


@pytest.fixture(scope="session")
def unseen() -> tuple[list[Image], list[int], list[Image]]:
    """Images that no model learned from, their labels, and where their marks are."""
    images, labels, truth = make_marks(24, 99)
    return images, labels.tolist(), truth
