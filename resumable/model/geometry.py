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

    @classmethod
    def of(
        cls,
        shape: tuple[int, ...],
        axes: tuple[int, ...],
        itemsize: int,
        chunks: tuple[int, ...] | None = None,
        *,
        indivisible: bool = False,
    ) -> Geometry:
        """Measure a dataset, or the part of it that counts, of this shape.

        `axes` count positions, in the user's order; `itemsize` is 0 where positions are
        only counted, `chunks` the shape of a chunk, None for a contiguous dataset.
        """
        others = [axis for axis in range(len(shape)) if axis not in axes]
        spectrum_shape = tuple(shape[axis] for axis in others)
        chunk_map = tuple(min(chunks[a], shape[a]) if chunks else 1 for a in axes)
        column = math.prod(
            math.ceil(shape[a] / chunks[a]) * chunks[a] if chunks else shape[a]
            for a in others
        )
        return cls(
            map_shape=tuple(shape[axis] for axis in axes),
            spectrum_shape=spectrum_shape,
            row_bytes=math.prod(spectrum_shape) * itemsize,
            chunk_map=chunk_map,
            chunk_bytes=column * math.prod(chunk_map) * itemsize,
            indivisible=indivisible,
            position_first=axes == tuple(range(len(axes))),
        )

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

    def in_position_order(self) -> Geometry:
        """Return the geometry of a copy in position order."""
        return self._replace(
            chunk_map=(1,) * len(self.map_shape),
            chunk_bytes=self.row_bytes,
            indivisible=False,
            position_first=True,
        )

    def gains_by_copy(self, rows: int) -> bool:
        """Return whether blocks of `rows` positions are read faster from a copy."""
        across = not self.position_first
        return self.row_bytes > 0 and (across or self.amplification(rows) > 1)
