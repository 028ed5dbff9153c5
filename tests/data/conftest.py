import pytest

from dgm_ray.data import Metadata, Variable


@pytest.fixture(scope="session")
def md7() -> Metadata:
    """The toy metadata of the contract, section 8."""
    return Metadata(
        (
            Variable("n1", "numerical"),
            Variable("b1", "binary"),
            Variable("b2", "binary"),
            Variable("c1", "categorical", 3),
            Variable("n2", "numerical"),
            Variable("c2", "categorical", 5),
            Variable("b3", "binary"),
        ),
        num_samples=4,
        num_classes=2,
        classes=("no", "yes"),
    )
