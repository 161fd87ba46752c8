"""Sources read as a whole."""

import numpy as np

from resumable.source.reader import Reader
from resumable.source.reference import refer


def read_all(source, axes=0):
    """Read all positions of a source in order."""
    with Reader(refer(source, axes)) as reader:
        rows = reader.empty(reader.geometry.size)
        reader.read(0, np.ones(reader.geometry.size, bool), rows)
    return rows


def fingerprint(source, axes=0, *, full=False):
    with Reader(refer(source, axes)) as reader:
        return reader.fingerprint(full=full)


LAYOUTS = {
    "contiguous": {},
    "chunked": {"chunks": True},
    "compressed": {"chunks": (2, 3, 2), "compression": "gzip"},
    "filtered": {"chunks": (3, 1, 4), "shuffle": True, "fletcher32": True},
    "growable": {"chunks": (2, 2, 2), "maxshape": (None, None, None)},
}
