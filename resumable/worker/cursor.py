"""Where a worker is: the block and the row at work, in memory others may share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[Any]]

#: Bytes of the shared memory: first position of the block, row at work.
PROGRESS_BYTES = 16
#: Instead of a row: nothing is computed now, or the whole block at once.
IDLE, WHOLE_BLOCK = -1, -2


def new_progress_words() -> memoryview:
    """Return progress words that only this process sees."""
    return memoryview(bytearray(PROGRESS_BYTES)).cast("q")


def generator_of(seed: int, *key: int) -> np.random.Generator:
    """Return the generator of one position, or of one call, of a seed."""
    sequence = np.random.SeedSequence(seed, spawn_key=key)
    return np.random.Generator(np.random.PCG64(sequence))


class Cursor:
    """Where in its batch a worker is; the Process looks its position up here.

    Parameters
    ----------
    progress_words : memoryview of two int64
        First position of the block, and the row at work in it. A parent that shares
        this memory sees which position hangs, or which one has ended the process.
    """

    __slots__ = ("positions", "progress_words", "rng", "rng_row")

    def __init__(self, progress_words: memoryview) -> None:
        self.progress_words = progress_words
        self.positions: Any = None
        self.rng: np.random.Generator | None = None
        self.rng_row = IDLE
        self.leave()

    @property
    def flat(self) -> Any:
        """Flat position, or all of the block's where no single one is at work."""
        if self.positions is None:
            msg = "self.position exists only while a position is computed"
            raise AttributeError(msg)
        row = self.progress_words[1]
        return self.positions if row < 0 else int(self.positions[row])

    def generator(self, seed: int) -> np.random.Generator:
        """Return the generator of the present position, the same until it changes."""
        row = self.progress_words[1]
        if self.rng is None or self.rng_row != row:
            flat = self.flat
            if row < 0:
                msg = (
                    "self.rng belongs to one position; in a block computation seed a "
                    "generator per position, from self.seed and self.position"
                )
                raise AttributeError(msg)
            self.rng = generator_of(seed, flat)
            self.rng_row = row
        return self.rng

    def enter(self, positions: Array) -> None:
        """Begin a block."""
        self.positions, self.rng = positions, None
        self.progress_words[1] = WHOLE_BLOCK
        self.progress_words[0] = int(positions[0])

    def leave(self) -> None:
        """Say that nothing is computed now."""
        self.progress_words[1] = IDLE


class StageCursor:
    """The cursor of a later stage of a chain: there too, with other random numbers.

    Parameters
    ----------
    cursor : Cursor
        Of the whole chain.
    key : int
        Tells the stage's random numbers from those of other stages.
    """

    __slots__ = ("_at", "_cursor", "_key", "_rng")

    def __init__(self, cursor: Cursor, key: int) -> None:
        self._cursor, self._key = cursor, key
        self._at: Any = None
        self._rng: np.random.Generator | None = None

    @property
    def flat(self) -> Any:
        """Flat position, or all of the block's."""
        return self._cursor.flat

    def generator(self, seed: int) -> np.random.Generator:
        """Return the generator of the present position, the same until it changes."""
        # The first stage's, which refuses where no single position is at work.
        at = self._cursor.generator(seed)
        if self._rng is None or self._at is not at:
            self._at, self._rng = at, generator_of(seed, self.flat, self._key)
        return self._rng
