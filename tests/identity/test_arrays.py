"""Arrays that are kept, by what stands for them in an identity."""

import numpy as np
import pytest

from resumable import identity
from resumable.model import canonical

NAMES = ["_data", "_mask", "_fill_value"]


def document_of(value):
    return canonical(identity.write_value(value))


def test_a_masked_array_that_an_older_version_kept_as_pairs_is_found():
    masked = np.ma.array([1.0, 2.0, 3.0], mask=[0, 1, 0])

    found = identity.by_document([masked.toflex()])[document_of(masked)]

    assert found.data.flags.c_contiguous
    assert found.tolist() == [1.0, None, 3.0]


@pytest.mark.parametrize(
    "other",
    [
        np.zeros(3, [(name, "f8") for name in NAMES]),
        np.zeros(3, [(name, "f8") for name in NAMES[:2]]),
        np.zeros((), [("_data", "f8", 2), ("_mask", "?", 3), ("_fill_value", "f8")]),
        np.zeros((), [("_data", "f8"), ("_mask", "?"), ("_fill_value", "S1")]),
        np.zeros((), [("_data", "M8[s]"), ("_mask", "?"), ("_fill_value", "f8", 2)]),
    ],
    ids=["array", "pairs", "shape", "text", "dates"],
)
def test_an_array_with_such_fields_is_no_masked_one(other):
    assert identity.by_document([other])[document_of(other)] is other
