"""Dask: `map_blocks` over the source, stored to HDF5 block by block.

The same code runs with the schedulers for threads and for processes; the workload says
with which.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import h5py
import numpy as np
import output
from computations import Array
from workloads import DATASET, WORKERS, Workload

BLOCKS = 8
"""Blocks of positions; more were slower with either scheduler."""


def compute(workload: Workload, source: Path, folder: Path) -> Callable[[], Array]:
    """Compute and store with the workload's scheduler."""
    path = folder / "dask.h5"
    with h5py.File(path, "w") as file:
        # Allocate the space now, so that blocks are written without changing metadata.
        output.create(file, workload)
    lengths = tuple(stop - start for start, stop in workload.batches(BLOCKS))
    spectrum_axes = tuple(set(range(len(workload.shape))) - {*workload.position_axes})
    chunks: list[tuple[int, ...]] = [(length,) for length in workload.shape]
    chunks[workload.position_axes[0]] = lengths
    spectra = da.from_array(  # type: ignore[no-untyped-call]
        _Stored(source, DATASET, workload.shape, workload.dtype),
        chunks=tuple(chunks),
        name=False,
        meta=np.empty((0,) * len(workload.shape), workload.dtype),
    )
    results = spectra.map_blocks(
        _work,
        workload,
        dtype=workload.output_dtype,
        chunks=(lengths, *((length,) for length in workload.result_shape[1:])),
        drop_axis=spectrum_axes,
        new_axis=_new_axes(workload),
        meta=np.empty((0,) * len(workload.result_shape), workload.output_dtype),
    )
    shape, dtype = workload.result_shape, workload.output_dtype
    target: Any = _Stored(path, output.NAME, shape, dtype)
    with dask.config.set(scheduler=workload.dask_scheduler, num_workers=WORKERS):
        da.store(results, target, lock=False)
    return output.reader(path, workload)


def _new_axes(workload: Workload) -> list[int]:
    """Return the axes of the result that belong to one position."""
    return list(range(len(workload.map_shape), len(workload.result_shape)))


def _work(part: Array, workload: Workload) -> Array:
    """Compute one block."""
    return workload.compute(workload.spectra(part))


class _Stored:
    """A dataset by name, which can be pickled, unlike that of h5py.

    Writers exclude each other with a lock on a file of its own.
    """

    def __init__(
        self, path: Path, name: str, shape: tuple[int, ...], dtype: str
    ) -> None:
        """Remember where the dataset is; nothing is opened."""
        self.path = path
        self.name = name
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.ndim = len(shape)

    def __getitem__(self, key: Any) -> Array:
        """Read a part."""
        with h5py.File(self.path, "r") as file:
            part: Array = file[self.name][key]
        return part

    def __setitem__(self, key: Any, values: Array) -> None:
        """Write a part, one writer at a time."""
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with h5py.File(self.path, "r+") as file:
                file[self.name][key] = values
