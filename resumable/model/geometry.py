"""How the positions of a source lie in its dataset."""

from __future__ import annotations

import math
from typing import NamedTuple


class Geometry(NamedTuple):
    """How the positions of a source lie in its dataset."""

    map_shape: tuple[int, ...]
    """Lengths of the position axes, in the user's order."""
    spectrum_shape: tuple[int, ...]
    """Shape of the data at one position."""
    row_bytes: int
    """Bytes of the data at one position."""
    chunk_map: tuple[int, ...]
    """Chunk lengths along the position axes; all 1 where not chunked."""
    chunk_bytes: int
    """Bytes read for one chunk column: all chunks that hold one position."""
    indivisible: bool
    """Reading a part of a chunk reads all of it (it is compressed)."""
    position_first: bool
    """Rows lie in the dataset as they are handed to the computation."""

    @property
    def size(self) -> int:
        """Number of positions."""
        return math.prod(self.map_shape)

    @property
    def quantum(self) -> int:
        """Positions of a band of whole chunks, in flat order."""
        if all(length == 1 for length in self.chunk_map):
            return 1
        return min(self.size, self.chunk_map[0] * math.prod(self.map_shape[1:]))

    def amplification(self, rows: int) -> float:
        """Bytes read for each byte used when blocks have `rows` positions."""
        if not self.indivisible or self.row_bytes == 0:
            return 1.0
        rows = min(rows, self.size)
        touched = 1
        inner = self.size
        for length, chunk in zip(self.map_shape, self.chunk_map, strict=True):
            inner //= length
            covered = min(length, max(1, rows // inner))
            touched *= math.ceil(covered / chunk)
        return max(1.0, touched * self.chunk_bytes / (rows * self.row_bytes))
