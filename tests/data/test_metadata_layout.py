import pickle
from collections.abc import Callable
from typing import Any

import pytest

from dgm_ray.data import Block, Metadata, Variable
from dgm_ray.errors import DataError


def test_layout_of_the_contract(md7: Metadata) -> None:
    assert (md7.num_features, md7.num_variables) == (13, 7)
    assert [s.start for s in md7.slices] == [0, 1, 2, 3, 6, 7, 12]
    assert md7.blocks == (
        Block("numerical", 0, 1),
        Block("binary", 1, 3),
        Block("categorical", 3, 6),
        Block("numerical", 6, 7),
        Block("categorical", 7, 12),
        Block("binary", 12, 13),
    )
    assert md7.index_of("c2") == 5
    assert md7.to_dict()["value_to_index"]["c2"]["3"] == 10
    assert md7.features[2:5] == ("b2", "c1_0", "c1_1")
    with pytest.raises(DataError, match="did you mean 'c2'"):
        md7.index_of("c22")


def test_neighbouring_categoricals_are_separate_blocks() -> None:
    metadata = Metadata((Variable("a", "categorical", 3), Variable("b", "categorical", 4)))
    assert metadata.blocks == (Block("categorical", 0, 3), Block("categorical", 3, 7))


def test_metadata_travels_between_processes_and_is_a_key(md7: Metadata) -> None:
    assert pickle.loads(pickle.dumps(md7)) == md7
    assert len({md7, Metadata.from_dict(md7.to_dict())}) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Variable("x", "categorical", 2), r"variable 'x'.size: .*above 2, not 2"),
        (lambda: Variable("x", "binary", 2), r"variable 'x'.size: .*size 1, not 2"),
        (lambda: Variable("x", "ordinal"), r"variable 'x'.kind: must be 'numerical', 'binary' or"),  # type: ignore[arg-type]
        (lambda: Variable("x", "categorical", 3, ("a",)), r"variable 'x'.categories: must have 3 items, not 1"),
        (lambda: Variable("x", "numerical", 1, ("a",)), r"variable 'x'.categories: must have 0 items, not 1"),
        (lambda: Metadata(()), r"metadata.variables: must be one or more"),
        (lambda: Metadata((Variable("x", "binary"), Variable("x", "numerical"))), r"metadata.variables: .*different"),
        (lambda: Metadata((Variable("x", "binary"),), classes=("a",)), r"num_classes: .*\(1\), not 0"),
        (lambda: Metadata((Variable("x", "binary"),), feature_names=("a", "b")), r"must have 1 items, not 2"),
    ],
)
def test_what_is_built_by_hand_is_checked_too(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make()
