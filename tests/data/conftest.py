"""The toy table of the contract with the samples and classes that metadata may have."""

from dataclasses import replace

import pytest

from dgm_ray.data import Metadata


@pytest.fixture(scope="session")
def md7(md7: Metadata) -> Metadata:
    return replace(md7, num_samples=4, num_classes=2, classes=("no", "yes"))
