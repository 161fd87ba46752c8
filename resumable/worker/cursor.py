"""Where a worker is: the block and the row at work, in memory others may share."""

from __future__ import annotations

import mmap
import types
from typing import TYPE_CHECKING, Any

import numpy as np

from resumable.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from resumable.model import Geometry
    from resumable.source import SharedValue

    Array = np.ndarray[Any, np.dtype[Any]]

#: Bytes of the progress words: first position of the block, row at work.
_PROGRESS_BYTES = 16
#: Instead of a row: nothing is computed now, or the whole block at once.
IDLE, WHOLE_BLOCK = -1, -2


def shared_progress_words(fd: int) -> memoryview:
    """Map the progress words that a worker shares with its parent."""
    return memoryview(mmap.mmap(fd, mmap.PAGESIZE))[:_PROGRESS_BYTES].cast("q")


def generator_of(seed: int, *key: int) -> np.random.Generator:
    """Return the generator of one position, or of one call, of a seed."""
    sequence = np.random.SeedSequence(seed, spawn_key=key)
    return np.random.Generator(np.random.PCG64(sequence))


class Cursor:
    """Where in its batch a worker is; the Process looks its position up here.

    The progress words are the first position of the block and the row at work in it. A
    parent that shares this memory sees which position hangs or has ended the process.
    By default only this process sees them.
    """

    __slots__ = ("positions", "progress_words", "rng", "rng_row", "worker")

    def __init__(
        self,
        progress_words: memoryview | None = None,
        worker: Callable[[], int] | None = None,
    ) -> None:
        #: Returns the number of the worker; None: this is no worker.
        self.worker = worker
        if progress_words is None:
            progress_words = memoryview(bytearray(_PROGRESS_BYTES)).cast("q")
        self.progress_words = progress_words
        self.progress_words[1] = IDLE
        self.positions: Any = None
        self.rng: np.random.Generator | None = None
        self.rng_row = IDLE

    @property
    def flat(self) -> Any:
        """Flat position, or all of the block's where no single one is at work."""
        if self.positions is None:
            msg = (
                "self.position and self.rng exist while a position is computed: "
                "process.test(5) computes position 5, and 'with "
                "rs.testing.at(process, 5):' has one for calls by hand"
            )
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


class SharedByName:
    """What all positions share, by name: values that do not change.

    No property, for a class of a user may assign to an attribute of this name.
    """

    def __get__(self, process: Positioned | None, cls: Any = None) -> Any:
        if process is None:
            return self
        if "shared" in process.__dict__:
            return process.__dict__["shared"]
        return types.MappingProxyType(shared_values(process))

    def __set__(self, process: Positioned, value: Any) -> None:
        if process.__dict__.get("_shared"):
            msg = (
                f"what positions of a {type(process).__name__} share is part of its "
                "identity and stays as it is; make another one with shared={...}"
            )
            raise ParameterError(msg)
        process.__dict__["shared"] = value


def shared_values(process: Positioned) -> dict[str, Any]:
    """Return what all positions share, by name; no array can be written to.

    One that was sent to a worker could be, and the next position would see it.
    """
    values = {}
    for name, one in process._shared.items():
        values[name] = one.value
        if isinstance(one.value, np.ndarray):
            values[name] = one.value.view()
            values[name].flags.writeable = False
    return values


class WorkerNumber:
    """Number of the worker: 0, 1, ... among those of a host, in ``setup``, too.

    No two that compute at the same time have the same number; one that takes the place
    of a dead worker has its number. Under MPI it is the rank on the host. In the
    calling process it is 0, also while ``engine="auto"`` begins there. AttributeError,
    where nothing computes. No property, for a class of a user may assign to this name.
    """

    def __get__(self, process: Positioned | None, cls: Any = None) -> Any:
        if process is None:
            return self
        number = process._cursor.worker
        if number is None:
            msg = "self.worker exists only in setup() and while positions are computed"
            raise AttributeError(msg)
        return number()


class Positioned:
    """What methods of a Process may ask: the shapes, and which position is computed."""

    seed: Any
    _cursor: Any = Cursor()
    _geometry: Geometry
    _shared: Mapping[str, SharedValue] = types.MappingProxyType({})
    shared = SharedByName()
    worker = WorkerNumber()

    @property
    def spectrum_shape(self) -> tuple[int, ...]:
        """Shape of the data at one position."""
        return self._placed().spectrum_shape

    @property
    def map_shape(self) -> tuple[int, ...]:
        """Lengths of the position axes; the first axes of every output per position."""
        return self._placed().map_shape

    def _placed(self) -> Geometry:
        geometry: Geometry | None = self.__dict__.get("_geometry")
        if geometry is None:
            msg = (
                f"{type(self).__name__} was made without a source, which has the "
                "shapes and the positions; give it one, for example an array"
            )
            raise AttributeError(msg)
        return geometry

    @property
    def position(self) -> Any:
        """Present position of the computation: an int, or a tuple on a map.

        In a block computation an array of positions, or a tuple of arrays.
        """
        flat = self._cursor.flat
        if len(self.map_shape) == 1:
            return flat
        index = np.unravel_index(flat, self.map_shape)
        return tuple(map(int, index)) if np.ndim(flat) == 0 else index

    @property
    def rng(self) -> np.random.Generator:
        """Random generator of this position, the same in every run of it.

        PCG64 seeded by ``SeedSequence(seed, spawn_key=(position,))`` [1]_, so that
        the numbers do not depend on batches, workers or interruptions.

        References
        ----------
        .. [1] numpy documentation, "Parallel random number generation".
        """
        generator: np.random.Generator = self._cursor.generator(self.seed)
        return generator


class StageCursor:
    """The cursor of a later stage of a chain, with random numbers of its `key`."""

    __slots__ = ("_at", "_cursor", "_key", "_rng")

    def __init__(self, cursor: Cursor, key: int) -> None:
        self._cursor, self._key = cursor, key
        self._at: Any = None
        self._rng: np.random.Generator | None = None

    @property
    def flat(self) -> Any:
        """As that of the first stage's cursor."""
        return self._cursor.flat

    @property
    def worker(self) -> Callable[[], int] | None:
        """As that of the first stage's cursor."""
        return self._cursor.worker

    def generator(self, seed: int) -> np.random.Generator:
        """Return the generator of the present position, the same until it changes."""
        # The first stage's, which refuses where no single position is at work.
        at = self._cursor.generator(seed)
        if self._rng is None or self._at is not at:
            self._at, self._rng = at, generator_of(seed, self.flat, self._key)
        return self._rng
