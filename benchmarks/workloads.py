"""The workloads: a computation, its source, and the expected results.

Every candidate gets the same source file, so that a table compares the candidates and
nothing else. This module is imported in every worker, and in pyUSID's environment.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import computations
import h5py
import numpy as np
from computations import Array

DATASET = "data"
"""Name of the dataset in every source file."""

WORKERS = 2
"""Worker processes (or threads) that every candidate may use."""


@dataclass(frozen=True)
class Workload:
    """One computation over one source."""

    key: str
    """The letter that names it on the command line."""

    title: str
    """One line for the table."""

    shape: tuple[int, ...]
    """Shape of the source dataset."""

    dtype: str
    """Type of the source dataset."""

    generate: Callable[[np.random.Generator, tuple[int, ...]], Array]
    """Makes a piece of the source."""

    unit: Callable[[Array], Any]
    """Computes one position."""

    block: Callable[[Array], Array] | None = None
    """Computes a whole batch at once; None: a loop of `unit` over its positions."""

    output_shape: tuple[int, ...] = ()
    """Shape of the result at one position."""

    output_dtype: str = "f4"
    """Type of the result."""

    position_axes: tuple[int, ...] = (0,)
    """Axes of the source that count positions, next to each other."""

    chunks: tuple[int, ...] | None = None
    """Shape of a chunk of the source; None: contiguous."""

    gzip: int | None = None
    """Level of compression of the source; None: not compressed."""

    piece_bytes: int = 2 * 2**20
    """How much of the source the floor reads at a time; the fastest, as measured."""

    dask_scheduler: str = "threads"
    """Dask's scheduler for this workload; the faster of the two, as measured."""

    @property
    def rows(self) -> int:
        """Length of the first position axis, along which batches are cut."""
        return self.shape[self.position_axes[0]]

    @property
    def map_shape(self) -> tuple[int, ...]:
        """Lengths of the position axes."""
        return tuple(self.shape[axis] for axis in self.position_axes)

    @property
    def result_shape(self) -> tuple[int, ...]:
        """Shape of the results over all positions."""
        return self.map_shape + self.output_shape

    @property
    def piece(self) -> int:
        """Rows in `piece_bytes` of the source."""
        row_bytes = math.prod(self.shape) // self.rows * np.dtype(self.dtype).itemsize
        return max(1, self.piece_bytes // row_bytes)

    def read(self, source: Any, start: int, stop: int) -> Array:
        """Read some rows from a source.

        Parameters
        ----------
        source : h5py.Dataset
            The source, of this workload's `shape`.
        start, stop : int
            The rows.

        Returns
        -------
        numpy.ndarray
            Spectra, shape (positions, length of a spectrum), C-contiguous.
        """
        before = self.position_axes[0]
        return self.spectra(source[(slice(None),) * before + (slice(start, stop),)])

    def spectra(self, part: Array) -> Array:
        """Lay out a part of the source as spectra, positions first."""
        before = self.position_axes[0]
        if not before:
            return part
        length = math.prod(part.shape[:before])
        return np.ascontiguousarray(part.reshape(length, -1).T)

    def compute(self, spectra: Array) -> Array:
        """Compute some rows.

        Parameters
        ----------
        spectra : numpy.ndarray
            Spectra as `read` returns them.

        Returns
        -------
        numpy.ndarray
            Results, shape (rows, *rest of `result_shape`), type `output_dtype`.
        """
        if self.block is not None:
            results = self.block(spectra).astype(self.output_dtype, copy=False)
        else:
            results = np.empty((len(spectra), *self.output_shape), self.output_dtype)
            unit = self.unit
            for index, spectrum in enumerate(spectra):
                results[index] = unit(spectrum)
        return results.reshape(-1, *self.result_shape[1:])

    def batches(self, count: int) -> list[tuple[int, int]]:
        """Cut the rows into about `count` equal batches (start, stop).

        Batches are whole chunks where chunks are shorter than the position axis.
        """
        chunk = self.chunks[self.position_axes[0]] if self.chunks else 1
        chunk = 1 if chunk >= self.rows else chunk
        size = math.ceil(self.rows / count / chunk) * chunk
        starts = range(0, self.rows, size)
        return [(start, min(start + size, self.rows)) for start in starts]

    def scaled(self, scale: float) -> Workload:
        """Return the same workload with about `scale` times as many positions."""
        shape = list(self.shape)
        for axis in self.position_axes:
            length = shape[axis] * scale ** (1 / len(self.position_axes))
            shape[axis] = max(8, round(length / 8) * 8)
        chunks = self.chunks and tuple(map(min, zip(self.chunks, shape, strict=True)))
        return replace(self, shape=tuple(shape), chunks=chunks)

    def create(self, path: Path) -> None:
        """Write the source file, always with the same contents.

        The file gets its name only when it is complete and on disk.
        """
        rng = np.random.default_rng(1)
        step = max(1, self.shape[0] // 32)
        partial = path.with_suffix(".partial")
        with h5py.File(partial, "w") as file:
            source = file.create_dataset(
                DATASET,
                self.shape,
                self.dtype,
                chunks=self.chunks,
                compression=self.gzip,
            )
            for start in range(0, self.shape[0], step):
                length = min(step, self.shape[0] - start)
                piece = self.generate(rng, (length, *self.shape[1:]))
                source[start : start + length] = piece
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.rename(path)

    def expected(self, path: Path) -> Array:
        """Compute the results that every candidate must have, with numpy.

        Means and filters are single numpy calls over everything, independent of
        the loops they check; the fit has no such form and is a loop here too.
        """
        with h5py.File(path, "r") as file:
            spectra = self.read(file[DATASET], 0, self.rows)
        if self.unit is computations.mean:
            results: Array = spectra.mean(axis=1, dtype="f8")
        elif self.unit is computations.first:
            results = spectra[:, 0]
        elif self.unit is computations.low_pass:
            amplitudes = np.fft.rfft(spectra, axis=1)
            amplitudes[:, computations.KEPT_FREQUENCIES :] = 0
            results = np.fft.irfft(amplitudes, spectra.shape[1], axis=1)
        else:
            results = np.array([self.unit(spectrum) for spectrum in spectra])
        return results.astype(self.output_dtype).reshape(self.result_shape)


_MEAN = Workload(
    key="a",
    title="mean of every row, 65,536 x 1,024 float32",
    shape=(65_536, 1_024),
    dtype="f4",
    generate=computations.uniform,
    unit=computations.mean,
)

_FIT = Workload(
    key="b",
    title="Lorentzian fit with scipy, 9,216 x 256 float64",
    shape=(9_216, 256),
    dtype="f8",
    generate=computations.lines,
    unit=computations.fit_lorentzian,
    output_shape=(4,),
    output_dtype="f8",
    dask_scheduler="processes",
)

_LOW_PASS = replace(
    _MEAN,
    key="c",
    title="rfft low-pass, 65,536 x 1,024 float32, output as large as the input",
    unit=computations.low_pass,
    output_shape=(1_024,),
)

_COMPRESSED = replace(
    _MEAN,
    key="d",
    title="mean of every row, 65,536 x 1,024 uint16, gzip-4, chunks of 256 rows",
    dtype="u2",
    generate=computations.counts,
    chunks=(256, 1_024),
    gzip=4,
)

_BLOCK = replace(
    _MEAN,
    key="e",
    title="(a) as a block computation",
    block=computations.block_mean,
)

_STACK = replace(
    _MEAN,
    key="f",
    title="mean over energy, 256 images of 512 x 512 float32, a chunk each",
    shape=(256, 512, 512),
    position_axes=(1, 2),
    chunks=(1, 512, 512),
    piece_bytes=16 * 2**20,
)

TRIVIAL = Workload(
    key="trivial",
    title="first number of every row, 1,000,000 x 8 float32",
    shape=(1_000_000, 8),
    dtype="f4",
    generate=computations.uniform,
    unit=computations.first,
)
"""Next to no computation, which leaves what the machinery costs per position."""

WORKLOADS = {
    workload.key: workload
    for workload in (_MEAN, _FIT, _LOW_PASS, _COMPRESSED, _BLOCK, _STACK)
}
"""The workloads to compare candidates with, by their key."""
