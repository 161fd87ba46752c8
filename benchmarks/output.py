"""The output file of the candidates that write a plain HDF5 dataset."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import h5py
from computations import Array
from workloads import Workload

NAME = "output"
"""Name of the dataset in the output file."""


def create(file: h5py.File, workload: Workload) -> h5py.Dataset:
    """Create the contiguous dataset for a workload's results, in the map's shape."""
    return file.create_dataset(NAME, workload.result_shape, workload.output_dtype)


def reader(path: Path, workload: Workload) -> Callable[[], Array]:
    """Return a function that reads the whole result, in the map's shape."""
    return functools.partial(_read, path, workload)


def _read(path: Path, workload: Workload) -> Array:
    """Read the whole result."""
    with h5py.File(path, "r") as file:
        results: Array = file[NAME][...]
    return results.reshape(workload.result_shape)
