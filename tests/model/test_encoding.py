"""Dtypes as JSON, and back."""

import json

import numpy as np
from hypothesis import example, given, settings
from hypothesis.extra import numpy as hnp

from resumable.model.encoding import canonical, decode_dtype, encode_dtype

ALIGNED = np.dtype([("a", "i1"), ("b", "f8")], align=True)


def untitled(dtype):
    """Tell whether a dtype is without field titles, which HDF5 does not know."""
    if dtype.subdtype is not None:
        return untitled(dtype.base)
    fields = dtype.fields or {}
    return len(fields) == len(dtype.names or ()) and all(
        untitled(field[0]) for field in fields.values()
    )


dtypes = hnp.nested_dtypes() | hnp.array_dtypes(allow_subarrays=True)
dtypes = dtypes.filter(untitled)


@settings(max_examples=60)
@given(dtypes)
@example(ALIGNED)
@example(np.dtype({"names": ["b", "a"], "formats": ["f8", "i1"], "offsets": [8, 0]}))
@example(np.dtype({"names": ["a"], "formats": ["f8"], "itemsize": 32}))
@example(np.dtype([("a", "f8", (2, 3)), ("b", [("c", ">i2")], (2,))]))
@example(np.dtype(("f8", (2,))))
@example(np.dtype("V10"))
def test_a_dtype_reads_back_from_its_document(dtype):
    document = json.loads(json.dumps(encode_dtype(dtype)))

    assert decode_dtype(document) == dtype


@settings(max_examples=60)
@given(dtypes, dtypes)
def test_different_dtypes_have_different_documents(first, second):
    same = canonical(encode_dtype(first)) == canonical(encode_dtype(second))

    assert same == (first == second)
